//! Containers that try to get out by a checkpoint and a restart: `make test-hostile SEEDS=2000`.
//! `cargo test --test hostile [-- COUNT [FIRST]]`; `cargo test --test system` has a few.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod seeds;

use std::process::ExitCode;

use harness::{World, enter};

const SEEDS: u64 = 200;

fn main() -> ExitCode {
    let number = |at: usize| std::env::args().nth(at).and_then(|n| n.parse().ok());
    let (count, first) = (number(1).unwrap_or(SEEDS), number(2).unwrap_or(0));
    if let Err(error) = enter::enter() {
        eprintln!("hostile: {}", error.0);
        return ExitCode::FAILURE;
    }
    let world = World::new("hostile");
    println!("PASSED: {}", seeds::go_through(&world, first..first + count));
    ExitCode::SUCCESS
}
