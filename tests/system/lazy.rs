//! Lazy restores that something befalls: `make test-lazy SEEDS=1000`. `cargo test --test lazy [--
//! COUNT [FIRST]]`; `cargo test --test system` has a few.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod pages;

use std::process::ExitCode;

use harness::{World, enter};

const SEEDS: u64 = 1000;

fn main() -> ExitCode {
    let number = |at: usize| std::env::args().nth(at).and_then(|n| n.parse().ok());
    let (count, first) = (number(1).unwrap_or(SEEDS), number(2).unwrap_or(0));
    if let Err(error) = enter::enter() {
        eprintln!("lazy: {}", error.0);
        return ExitCode::FAILURE;
    }
    // What does not hold is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let world = World::new("lazy");
    let tally = pages::go_through(&world, first..first + count, &mut |lost| {
        println!("NOT HELD: {lost}");
    });
    println!("seeds {first} to {}: {tally}", first + count - 1);
    if tally.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
