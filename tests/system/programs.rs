//! Servers as Debian packages them, in containers made ready by `lxc-cr prepare` alone: `make
//! test-programs`.
//!
//! `cargo test --test programs [-- NAME…]`: only those whose name contains one of these. Prints
//! each outcome, then the counts; docs/programs.md is made by `packaging/test-programs.sh --write`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]
#![allow(dead_code)]

mod cycles;
mod harness;
mod program;
mod scenario;
mod seeds;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use harness::trial::versions;
use harness::{World, enter};
use program::table::Table;
use program::trial::{self, Care};
use program::{Guest, Program, list};

/// More at once take longer than those before them.
const AT_ONCE: usize = 8;
const GROUPS: &[&str] = &["main", "other"];
const THOROUGH: Care = Care { cycles: 2, later: true };

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |program: &Program| {
        wanted.is_empty() || wanted.iter().any(|w| program.name.contains(w.as_str()))
    };
    if let Err(error) = enter::enter() {
        eprintln!("programs: {}", error.0);
        return ExitCode::FAILURE;
    }
    let world = World::new("programs");
    let kept = world.logs().join("outcomes");
    let mut table = Table::load(&kept);
    for group in GROUPS {
        let programs: Vec<Program> = list::of(group).into_iter().filter(is_wanted).collect();
        if programs.is_empty() {
            continue;
        }
        let guest = Guest::make(&world, group);
        let prepared = guest.prepare();
        assert!(prepared.success(), "{prepared}");
        for batch in list::batches(programs, AT_ONCE) {
            let started = Instant::now();
            let outcomes = trial::run(&guest, &batch, THOROUGH);
            let took = started.elapsed().as_secs();
            for (program, outcome) in batch.iter().zip(outcomes) {
                println!("{} | {} | {}", program.name, outcome.class(), outcome.remark());
                table.put(program, outcome);
            }
            println!("({} servers, {took} s)", batch.len());
            table.save(&kept);
        }
        guest.remove();
    }
    let all: Vec<Program> = GROUPS.iter().flat_map(|group| list::of(group)).collect();
    fs::write(world.logs().join("programs.md"), table.document(&all, &versions())).unwrap();
    drop(world);
    println!("{}", table.counts());
    if table.is_wrong() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
