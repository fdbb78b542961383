//! What people run in containers, in containers of every kind, by our commands and by LXC's own:
//! `make test-workloads`.
//!
//! `cargo test --test workloads [-- KIND [ROW…]]`: only kinds whose name is this and rows whose
//! names contain one of those; prints the table, with what earlier runs have kept in the cells that
//! this one has not run. `packaging/test-workloads.sh --write` makes tests/system/WORKLOADS.md of
//! it. `LXC_CR_WORKLOADS_OURS=1`: not by LXC's own tool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod workload;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use harness::enter::BRIDGE;
use harness::run::Run;
use harness::trial::versions;
use harness::{World, enter};
use workload::kind::KINDS;
use workload::list::ROWS;
use workload::table::Table;
use workload::{Kind, Row, Tool, client, guest, trial};

/// Where the kernel is asked for huge pages.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// What a row needs, while its image is read and it is there, too.
const WANTED_PAGES: u32 = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted_kind = arguments.first().cloned().unwrap_or_default();
    let wanted_rows = arguments.get(1..).unwrap_or_default();
    let is_wanted = |row: &Row| {
        wanted_rows.is_empty() || wanted_rows.iter().any(|wanted| row.name.contains(wanted))
    };
    let tools: &[Tool] = if std::env::var_os("LXC_CR_WORKLOADS_OURS").is_some() {
        &[Tool::Ours]
    } else {
        &[Tool::Ours, Tool::Lxcs]
    };
    if let Err(error) = enter::enter() {
        eprintln!("workloads: {}", error.0);
        return ExitCode::FAILURE;
    }
    // What does not hold is told in the table.
    std::panic::set_hook(Box::new(|_| {}));
    make_network();
    let pages = HugePages::reserve();
    let world = World::new("workloads");
    let installed = world.installed();
    let kept = world.logs().join("outcomes");
    let mut table = Table::load(&kept);
    for kind in KINDS.iter().filter(|kind| wanted_kind.is_empty() || kind.name() == wanted_kind) {
        let rows: Vec<Row> =
            ROWS.iter().filter(|row| row.is_for(*kind) && is_wanted(row)).copied().collect();
        for group in groups(*kind, &rows) {
            for tool in tools {
                let started = Instant::now();
                let outcomes = trial::run(&world, &installed, *kind, &group, *tool);
                let took = started.elapsed().as_secs_f64() / group.len() as f64;
                for (row, outcome) in group.iter().zip(outcomes) {
                    println!(
                        "{} | {} | {tool:?} | {outcome:?} | {took:.1} s",
                        kind.name(),
                        row.name
                    );
                    table.put(row.name, *kind, *tool, outcome);
                }
                table.save(&kept);
            }
        }
    }
    fs::write(world.logs().join("table.md"), table.document(&versions())).unwrap();
    drop(world);
    drop(pages);
    println!("\n{table}");
    let wrong = table.wrong();
    for line in &wrong {
        println!("WRONG: {line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is tried in one container. What boots gets all rows at once; without an id map those of
/// other users than root are refused on some hosts, and stand for themselves.
fn groups(kind: Kind, rows: &[Row]) -> Vec<Vec<Row>> {
    if kind.init().is_none() {
        return rows.iter().map(|row| vec![*row]).collect();
    }
    let (apart, of_root): (Vec<Row>, Vec<Row>) =
        rows.iter().partition(|row| !kind.is_unprivileged() && !row.is_of_root());
    [of_root, apart].into_iter().filter(|group| !group.is_empty()).collect()
}

/// The bridge in IPv6, and the way to groups.
fn make_network() {
    let address = ["addr", "add", guest::HOST6, "dev", BRIDGE, "nodad"];
    let group = format!("{}/32", client::network::GROUP);
    let group6 = format!("{}/128", client::network::GROUP6);
    Run::new("ip").args(address).ok();
    Run::new("ip").args(["route", "add", &group, "dev", BRIDGE]).ok();
    Run::new("ip")
        .args(["-6", "route", "add", "multicast", &group6, "dev", BRIDGE, "table", "local"])
        .ok();
}

/// Huge pages that the machine has meanwhile; it gets its own number back.
struct HugePages(String);

impl HugePages {
    fn reserve() -> HugePages {
        let before = fs::read_to_string(HUGE_PAGES).unwrap_or_default().trim().to_owned();
        if before.parse::<u32>().is_ok_and(|number| number < WANTED_PAGES) {
            fs::write(HUGE_PAGES, WANTED_PAGES.to_string()).unwrap();
        }
        HugePages(before)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = fs::write(HUGE_PAGES, &self.0) {
            eprintln!("{HUGE_PAGES}: {error}");
        }
    }
}
