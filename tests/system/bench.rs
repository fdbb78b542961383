//! How long a checkpoint and a restart take, and how long a client waits: `make bench`.
//!
//! `cargo bench --bench system -- [RUNS [MIB…]]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;

use std::process::ExitCode;
use std::time::Duration;

use harness::bare;
use harness::client::Client;
use harness::run::Output;
use harness::{World, enter};

/// Fewer say nothing on a shared machine.
const RUNS: usize = 9;
const MEBIBYTES: &[usize] = &[0, 256, 1024];

/// Who checkpoints and restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Criu,
    Lxc,
    Ours,
    /// Not waiting for the disk, as the others do not.
    Unsynced,
}

const WAYS: &[(Way, &str)] =
    &[(Way::Criu, "bare criu"), (Way::Lxc, "LXC's own"), (Way::Ours, "lxc-cr")];
/// Where there is a disk to wait for.
const WAYS_ON_DISK: &[(Way, &str)] =
    &[WAYS[0], WAYS[1], WAYS[2], (Way::Unsynced, "lxc-cr --no-sync")];

/// One checkpoint and restart.
#[derive(Debug, Clone, Copy)]
struct Times {
    dump: Duration,
    restore: Duration,
    down: Duration,
    /// What our two commands took beside CRIU's run and the monitor's clean-up.
    beside: Option<(Duration, Duration)>,
}

/// A command's time less those that it tells of others: "(0.124 s: CRIU 0.090 s, LXC clean-up 0.030
/// s)".
fn beside_others(output: &Output) -> Option<Duration> {
    let told: Vec<f64> = ["CRIU ", "clean-up "]
        .iter()
        .filter_map(|name| output.stdout.split_once(name)?.1.split_once(" s")?.0.parse().ok())
        .collect();
    (!told.is_empty())
        .then(|| output.took.saturating_sub(Duration::from_secs_f64(told.iter().sum())))
}

fn main() -> ExitCode {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (runs, sizes) = match numbers.split_first() {
        None => (RUNS, MEBIBYTES),
        Some((runs, [])) => (*runs, MEBIBYTES),
        Some((runs, sizes)) => (*runs, sizes),
    };
    if let Err(error) = enter::enter() {
        eprintln!("bench: {}", error.0);
        return ExitCode::FAILURE;
    }
    println!(
        "\nmilliseconds, medians of {runs} interleaved runs; down: the longest time without an answer that a client saw\n"
    );
    println!(
        "| images on | MiB | by | dump | restore | down | ours beside CRIU, dump / restore |\n|---|---|---|---|---|---|---|"
    );
    let places =
        [("tmpfs", World::on_tmpfs("bench"), WAYS), ("disk", World::new("bench"), WAYS_ON_DISK)];
    for (place, world, ways) in places {
        for mebibytes in sizes {
            let mut rows: Vec<Vec<Times>> = ways.iter().map(|_| Vec::new()).collect();
            for run in 0..runs {
                for (row, (way, _)) in rows.iter_mut().zip(ways) {
                    row.extend(cycle(&world, *way, &format!("b{run}-{mebibytes}"), *mebibytes));
                }
            }
            for (row, (_, name)) in rows.iter().zip(ways) {
                let median = |of: fn(&Times) -> Duration| {
                    let mut all: Vec<_> = row.iter().map(of).collect();
                    all.sort();
                    all.get(all.len() / 2)
                        .map_or("failed".to_owned(), |t| t.as_millis().to_string())
                };
                let missed = if row.len() < runs {
                    format!(" ({} of {runs} runs failed)", runs - row.len())
                } else {
                    String::new()
                };
                let beside = match row.iter().all(|t| t.beside.is_some()) && !row.is_empty() {
                    true => format!(
                        "{} / {}",
                        median(|t| t.beside.unwrap_or_default().0),
                        median(|t| t.beside.unwrap_or_default().1)
                    ),
                    false => String::new(),
                };
                println!(
                    "| {place} | {mebibytes} | {name}{missed} | {} | {} | {} | {beside} |",
                    median(|t| t.dump),
                    median(|t| t.restore),
                    median(|t| t.down)
                );
            }
        }
    }
    ExitCode::SUCCESS
}

/// A new container, one checkpoint and restart, a client asking all the time. `None` if a command
/// failed: it is told.
fn cycle(world: &World, way: Way, name: &str, mebibytes: usize) -> Option<Times> {
    let container =
        world.container_named(&format!("{name}-{way:?}").to_lowercase()).memory(mebibytes);
    container.start();
    drop(container.witness());
    let client = Client::start(container.address());
    let images = world.images(container.name());
    let took = match way {
        Way::Criu => {
            let dumped = bare::dump(&container, &images);
            let restored = bare::restore(&dumped);
            client.wait_for_answer();
            Some((dumped.dump.took, restored.restore.took, None))
        }
        Way::Lxc => {
            let stock = |how: &str| {
                container.stock_checkpoint([how.as_ref(), "-D".as_ref(), images.as_os_str()])
            };
            both(&client, || stock("-s"), || stock("-r"))
        }
        Way::Ours | Way::Unsynced => both(
            &client,
            || {
                let how: &[&str] =
                    if way == Way::Unsynced { &["--no-sync", "-s", "-D"] } else { &["-s", "-D"] };
                container.ours("lxc-checkpoint").args(how).arg(&images).output()
            },
            || container.ours("lxc-restart").arg("-D").arg(&images).output(),
        ),
    };
    if way != Way::Criu {
        container.lxc("lxc-stop").arg("-k").output();
        container.wait_state("STOPPED");
    }
    let down = client.stop();
    std::fs::remove_dir_all(container.dir()).unwrap();
    std::fs::remove_dir_all(&images).unwrap();
    took.map(|(dump, restore, beside)| Times { dump, restore, down, beside })
}

type Took = (Duration, Duration, Option<(Duration, Duration)>);

fn both(client: &Client, dump: impl Fn() -> Output, restore: impl Fn() -> Output) -> Option<Took> {
    let dumped = checked(dump())?;
    let restored = checked(restore())?;
    client.wait_for_answer();
    Some((dumped.took, restored.took, beside_others(&dumped).zip(beside_others(&restored))))
}

fn checked(output: Output) -> Option<Output> {
    if !output.success() {
        eprintln!("{output}");
    }
    output.success().then_some(output)
}
