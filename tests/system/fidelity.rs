//! Every state that `lxc-cr inspect` reads, before and after a restore: `make test-fidelity`.
//! `make test-fidelity` makes docs/fidelity.md of the table that it writes to the logs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod fidelity {
    pub mod outcome;
    pub mod page;
    pub mod trial;
}
mod harness;

use std::fs;
use std::process::ExitCode;

use harness::World;
use harness::enter;
use harness::trial::versions;

fn main() -> ExitCode {
    if let Err(error) = enter::enter() {
        eprintln!("fidelity: {}", error.0);
        return ExitCode::FAILURE;
    }
    let mut trials = Vec::new();
    for setting in fidelity::trial::SETTINGS {
        let world = World::new("fidelity");
        println!("{}", setting.name);
        let trial = fidelity::trial::run(&world, setting);
        for line in &trial.lines {
            println!("    {line}");
        }
        trials.push(trial);
    }
    let rows = fidelity::outcome::rows(&trials);
    println!("\n{}", fidelity::page::counts(&rows));
    let text = fidelity::page::page(&rows, &trials, &versions());
    fs::write(World::new("fidelity").logs().join("fidelity.md"), text).unwrap();
    ExitCode::SUCCESS
}
