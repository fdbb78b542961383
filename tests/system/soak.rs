//! A hundred checkpoints and restarts of one container: `make soak`. `cargo test --test soak [--
//! NUMBER]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod cycles;
mod harness;

use std::process::ExitCode;

use harness::{World, enter};

const CYCLES: usize = 100;

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    if let Err(error) = enter::enter() {
        eprintln!("soak: {}", error.0);
        return ExitCode::FAILURE;
    }
    let before = harness::leak::Snapshot::take();
    let world = World::new("soak");
    print!("{}", cycles::go_through(&world, wanted));
    drop(world);
    if let Err(left) = before.wait_until_as_before() {
        println!("{left}");
        return ExitCode::FAILURE;
    }
    println!(
        "PASSED: {wanted} cycles; nothing has grown, nothing is left, the connection of the start \
         goes on."
    );
    ExitCode::SUCCESS
}
