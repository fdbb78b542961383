//! Every key of lxc.container.conf(5), tried: `make test-keys`. `cargo test --test keys [-- KEY…]`:
//! only rows whose names contain one of these words; `--sample`: a few of each kind; `--part=N/M`:
//! every M-th from the N-th on, whose lines of the page are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod key;

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use harness::trial::versions;
use harness::{World, enter};
use key::outcome::Outcome;
use key::{Row, document, rows, trial};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = enter::enter() {
        eprintln!("keys: {}", error.0);
        return ExitCode::FAILURE;
    }
    // What goes wrong is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let part = wanted.iter().find_map(|word| {
        let (n, of) = word.strip_prefix("--part=")?.split_once('/')?;
        Some((n.parse::<usize>().ok()?, of.parse::<usize>().ok()?))
    });
    let is_wanted = |row: &&Row| {
        wanted.is_empty()
            || wanted == ["--sample"] && row.sample
            || wanted.iter().any(|word| row.name().contains(word.as_str()))
    };
    let mut outcomes: Vec<(&Row, Outcome)> = Vec::new();
    let of_part =
        |at: usize, row: &Row| part.map_or_else(|| is_wanted(&row), |(n, of)| at % of + 1 == n);
    for (_, row) in rows::all().enumerate().filter(|(at, row)| of_part(*at, row)) {
        let started = Instant::now();
        let outcome = trial::run(row);
        let as_expected = if outcome.is_as_expected(row) { "" } else { " NOT AS EXPECTED" };
        println!(
            "{}: {} ({:.1} s){as_expected}",
            row.name(),
            outcome.kind(),
            started.elapsed().as_secs_f64()
        );
        if !outcome.words().is_empty() {
            println!("    {}", outcome.words().replace('\n', "\n    "));
        }
        outcomes.push((row, outcome));
    }
    println!("\n{}", document::counts(&outcomes));
    let mut wrong: Vec<String> = outcomes
        .iter()
        .filter(|(row, outcome)| !outcome.is_as_expected(row))
        .map(|(row, _)| row.name())
        .collect();
    if part.is_some() {
        println!("{}", document::page(&outcomes, &versions()));
    }
    if wanted.is_empty() {
        let world = World::new("keys");
        wrong.extend(without_a_row());
        fs::write(world.logs().join("configuration.md"), document::page(&outcomes, &versions()))
            .unwrap();
    }
    for name in &wrong {
        println!("WRONG: {name}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The keys that this host's liblxc knows and no row tries: words of the library that `lxc-info -c`
/// takes for keys.
fn without_a_row() -> Vec<String> {
    let library = fs::read_dir(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("liblxc.so.1."))
        })
        .unwrap();
    let bytes = fs::read(library).unwrap();
    let words =
        bytes.split(|b| !b.is_ascii_graphic()).filter_map(|word| std::str::from_utf8(word).ok());
    let candidates: BTreeSet<&str> =
        words.filter(|word| word.starts_with("lxc.") && !word.contains('%')).collect();
    let world = World::new("keys");
    let container = world.container_named("key");
    let is_key = |key: &&str| {
        !container.lxc("lxc-info").args(["-c", key]).output().stderr.contains("nvalid")
    };
    let tried: BTreeSet<&str> = rows::all().flat_map(|row| row.keys).copied().collect();
    let known: Vec<&str> = candidates.into_iter().filter(is_key).collect();
    println!("liblxc has {} keys, and interfaces have theirs", known.len());
    let missing = known.into_iter().filter(|key| !tried.contains(key.trim_end_matches('.')));
    missing.map(|key| format!("{key} has no row")).collect()
}
