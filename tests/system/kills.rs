//! Random kills: `make test-kills`. `cargo test --test kills [-- CASES [SEED]]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod kill;

use std::process::ExitCode;

use harness::{World, enter};

/// As many as are run where nobody says otherwise.
const CASES: usize = 1000;
const SEED: u64 = 20_261_201;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let cases = numbers.first().map_or(CASES, |cases| *cases as usize);
    let seed = numbers.get(1).copied().unwrap_or(SEED);
    if let Err(error) = enter::enter() {
        eprintln!("kills: {}", error.0);
        return ExitCode::FAILURE;
    }
    // What does not hold is told with its case.
    std::panic::set_hook(Box::new(|_| {}));
    let world = World::new("kills");
    let tally = kill::run(&world, cases, seed, &mut |line| println!("{line}"));
    tally.lost.iter().for_each(|lost| println!("NOT HELD: {lost}"));
    println!("\n{cases} cases, seed {seed}: {tally}");
    if tally.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
