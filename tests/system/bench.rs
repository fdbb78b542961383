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

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::bare;
use harness::client::Client;
use harness::container::Container;
use harness::pattern::wait_until_filled;
use harness::run::Output;
use harness::{World, enter};

/// Fewer say nothing on a shared machine.
const RUNS: usize = 9;
const MEBIBYTES: &[usize] = &[0, 256, 1024];
/// From a disk of which nothing is cached.
const COLD_MEBIBYTES: &[usize] = &[0, 1024, 4096];

/// Who checkpoints and restarts, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Criu,
    Lxc,
    Ours,
    /// Not waiting for the disk, as the others do not.
    Unsynced,
    /// Restored once beside itself before it is ended.
    Rehearsed,
    /// It runs before its memory is there.
    Lazy,
    /// And its memory was copied before it stood still.
    CopiedAndLazy,
}

const WAYS: &[Way] =
    &[Way::Criu, Way::Lxc, Way::Ours, Way::Lazy, Way::CopiedAndLazy, Way::Rehearsed];
/// Where there is a disk to wait for.
const WAYS_ON_DISK: &[Way] =
    &[Way::Criu, Way::Lxc, Way::Ours, Way::Unsynced, Way::Lazy, Way::CopiedAndLazy, Way::Rehearsed];
const WAYS_FROM_COLD_DISK: &[Way] = &[Way::Criu, Way::Lxc, Way::Ours, Way::Lazy];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Criu => "bare criu",
            Way::Lxc => "LXC's own",
            Way::Ours => "lxc-cr",
            Way::Unsynced => "lxc-cr --no-sync",
            Way::Rehearsed => "lxc-cr --rehearse",
            Way::Lazy => "lxc-cr --lazy",
            Way::CopiedAndLazy => "lxc-cr --precopy --lazy",
        }
    }

    /// What `lxc-checkpoint` is given.
    fn checkpoint(self) -> &'static [&'static str] {
        match self {
            Way::Unsynced => &["--no-rehearse", "--no-sync"],
            Way::Rehearsed => &["--rehearse"],
            Way::CopiedAndLazy => &["--no-rehearse", "--precopy"],
            _ => &["--no-rehearse"],
        }
    }

    /// What `lxc-restart` is given.
    fn restart(self) -> &'static [&'static str] {
        match self {
            Way::Lazy | Way::CopiedAndLazy => &["--lazy"],
            _ => &[],
        }
    }
}

/// One checkpoint and restart.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    dump: Duration,
    /// How long the processes stood still in the dump, by CRIU's statistics.
    frozen: Duration,
    restore: Duration,
    /// The longest time that a client has waited.
    down: Duration,
    /// From the beginning of the restart until all memory was there.
    all_in: Duration,
    /// What the program in it held then, in MiB.
    memory: u64,
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
        None => (RUNS, None),
        Some((runs, [])) => (*runs, None),
        Some((runs, sizes)) => (*runs, Some(sizes)),
    };
    if let Err(error) = enter::enter() {
        eprintln!("bench: {}", error.0);
        return ExitCode::FAILURE;
    }
    println!("\nmilliseconds, medians of {runs} interleaved runs; in brackets: of bare CRIU's\n");
    println!(
        "| images on | MiB | by | dump | frozen | restore | down | all in | MiB then | ours beside \
         CRIU, dump / restore |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (tmpfs, disk) = (World::on_tmpfs("bench"), World::new("bench"));
    for (place, world, ways) in [("tmpfs", &tmpfs, WAYS), ("disk", &disk, WAYS_ON_DISK)] {
        for mebibytes in sizes.unwrap_or(MEBIBYTES) {
            table(place, world, ways, *mebibytes, runs, false);
        }
    }
    println!(
        "\nfrom a disk of which nothing is cached; down: from the beginning of the restart to the \
         first answer\n"
    );
    for mebibytes in sizes.unwrap_or(COLD_MEBIBYTES) {
        table("cold disk", &disk, WAYS_FROM_COLD_DISK, *mebibytes, runs, true);
    }
    ExitCode::SUCCESS
}

/// The rows of one size.
fn table(place: &str, world: &World, ways: &[Way], mebibytes: usize, runs: usize, cold: bool) {
    let mut rows: Vec<Vec<Times>> = ways.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        for (row, way) in rows.iter_mut().zip(ways) {
            let name = format!("b{run}-{mebibytes}-{way:?}{}", if cold { "-cold" } else { "" });
            row.extend(cycle(world, *way, &name.to_lowercase(), mebibytes, cold));
        }
    }
    let peer = ways.iter().zip(&rows).find(|(way, _)| **way == Way::Criu);
    let peer = peer.map(|(_, row)| row.clone()).unwrap_or_default();
    for (row, way) in rows.iter().zip(ways) {
        let missed = match runs - row.len() {
            0 => String::new(),
            failed => format!(" ({failed} of {runs} runs failed)"),
        };
        let cell = |of: fn(&Times) -> Duration| beside(median(row, of), median(&peer, of));
        let beside_criu = match row.iter().all(|t| t.beside.is_some()) && !row.is_empty() {
            true => format!(
                "{} / {}",
                milliseconds(median(row, |t| t.beside.unwrap_or_default().0)),
                milliseconds(median(row, |t| t.beside.unwrap_or_default().1))
            ),
            false => String::new(),
        };
        let mut memory: Vec<u64> = row.iter().map(|t| t.memory).collect();
        memory.sort_unstable();
        println!(
            "| {place} | {mebibytes} | {}{missed} | {} | {} | {} | {} | {} | {} | {beside_criu} |",
            way.name(),
            cell(|t| t.dump),
            cell(|t| t.frozen),
            cell(|t| t.restore),
            cell(|t| t.down),
            cell(|t| t.all_in),
            memory.get(memory.len() / 2).copied().unwrap_or_default(),
        );
    }
}

fn median(row: &[Times], of: fn(&Times) -> Duration) -> Option<Duration> {
    let mut all: Vec<_> = row.iter().map(of).collect();
    all.sort();
    all.get(all.len() / 2).copied()
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or("failed".to_owned(), |time| time.as_millis().to_string())
}

/// "120 (0.56)": a time, and what part it is of bare CRIU's.
fn beside(time: Option<Duration>, peer: Option<Duration>) -> String {
    let ratio = time.zip(peer).filter(|(_, peer)| !peer.is_zero());
    let ratio = ratio.map(|(time, peer)| time.as_secs_f64() / peer.as_secs_f64());
    let ratio = ratio.map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
    milliseconds(time) + &ratio
}

/// A new container, one checkpoint and restart, a client asking all the time. With a cold disk
/// there is none until the restart has begun. `None` if a command failed: it is told.
fn cycle(world: &World, way: Way, name: &str, mebibytes: usize, cold: bool) -> Option<Times> {
    let container = world.container_named(name).memory(mebibytes);
    container.start();
    drop(container.witness());
    let client = (!cold).then(|| Client::start(container.address()));
    let images = world.images(container.name());
    let times = match way {
        Way::Criu => with_criu(&container, &images, client),
        _ => with_commands(&container, &images, way, client),
    };
    if way != Way::Criu {
        container.lxc("lxc-stop").arg("-k").output();
        container.wait_state("STOPPED");
    }
    fs::remove_dir_all(container.dir()).unwrap();
    fs::remove_dir_all(&images).unwrap();
    times
}

fn with_criu(container: &Container<'_>, images: &Path, client: Option<Client>) -> Option<Times> {
    let dumped = bare::dump(container, images);
    let frozen = frozen(images);
    let begin = begin_restart(images, &client);
    let restored = bare::restore(&dumped);
    let down = first_answer(container, client, begin);
    let (dump, restore) = (dumped.dump.took, restored.restore.took);
    let memory = memory();
    Some(Times { dump, frozen, restore, down, all_in: restore, memory, beside: None })
}

fn with_commands(
    container: &Container<'_>,
    images: &Path,
    way: Way,
    client: Option<Client>,
) -> Option<Times> {
    let stock =
        |how: &str| container.stock_checkpoint([how.as_ref(), "-D".as_ref(), images.as_os_str()]);
    let dumped = checked(match way {
        Way::Lxc => stock("-s"),
        _ => container
            .ours("lxc-checkpoint")
            .args(way.checkpoint())
            .args(["-s", "-D"])
            .arg(images)
            .output(),
    })?;
    let frozen = frozen(images);
    let begin = begin_restart(images, &client);
    let restored = checked(match way {
        Way::Lxc => stock("-r"),
        _ => container.ours("lxc-restart").args(way.restart()).arg("-D").arg(images).output(),
    })?;
    let down = first_answer(container, client, begin);
    let all_in = if way.restart().is_empty() {
        restored.took
    } else {
        wait_until_filled(container);
        begin.elapsed()
    };
    let beside = beside_others(&dumped).zip(beside_others(&restored));
    let (dump, restore) = (dumped.took, restored.took);
    Some(Times { dump, frozen, restore, down, all_in, memory: memory(), beside })
}

/// Where nobody waits, nothing of the images is cached when the restart begins.
fn begin_restart(images: &Path, client: &Option<Client>) -> Instant {
    if client.is_none() {
        forget(images);
    }
    Instant::now()
}

/// How long the client has waited; where there is none, from the beginning of the restart until one
/// has its answer.
fn first_answer(container: &Container<'_>, client: Option<Client>, begin: Instant) -> Duration {
    match client {
        Some(client) => {
            client.wait_for_answer();
            client.stop()
        }
        None => {
            drop(container.witness());
            begin.elapsed()
        }
    }
}

/// Has the kernel forget what it has cached of these files, and of those below.
fn forget(dir: &Path) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    nix::unistd::sync();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => forget(&entry.path()),
            kind if kind.is_file() => {
                let file = fs::File::open(entry.path()).unwrap();
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
            }
            _ => {}
        }
    }
}

/// How long the processes stood still, by CRIU's `stats-dump`: two magic numbers, a length, and a
/// message (images/stats.proto) whose field 1 has it as field 2.
fn frozen(images: &Path) -> Duration {
    let bytes = fs::read(images.join("stats-dump")).unwrap_or_default();
    let dump = bytes.get(12..).and_then(|message| field(message, 1)).unwrap_or_default();
    let us = field(dump, 2).map_or(0, |number| varint(number).0);
    Duration::from_micros(us)
}

/// A field of a message: its bytes, or from its number on.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let (key, length) = varint(message);
        message = message.get(length..)?;
        let (value, length) = varint(message);
        let (content, whole) = match key & 7 {
            0 => (message, length),
            2 => (message.get(length..length + value as usize)?, length + value as usize),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(content);
        }
        message = message.get(whole..)?;
    }
    None
}

/// A number, and how many bytes it takes.
fn varint(bytes: &[u8]) -> (u64, usize) {
    let length = bytes.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let bits = bytes.iter().take(length).enumerate();
    (bits.fold(0, |sum, (i, byte)| sum | u64::from(byte & 0x7f) << (7 * i)), length)
}

/// What the program in the container holds of its own, in MiB; what it shares counts in part.
fn memory() -> u64 {
    let is_witness = |dir: &Path| {
        fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.trim() == "witness")
    };
    let held = |dir: &Path| -> Option<u64> {
        let text = fs::read_to_string(dir.join("smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let dirs = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    dirs.filter(|dir| is_witness(dir)).filter_map(|dir| held(&dir)).sum::<u64>() >> 10
}

fn checked(output: Output) -> Option<Output> {
    if !output.success() {
        eprintln!("{output}");
    }
    output.success().then_some(output)
}
