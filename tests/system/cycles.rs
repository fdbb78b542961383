//! One container, checkpointed and restarted again and again: nothing grows, nothing gets slower,
//! and the connection of the start goes on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::leak::Snapshot;
use crate::harness::witness::Witness;

/// A window of cycles, of which the median is taken: a single one may have had a bad moment.
const WINDOW: usize = 10;
/// How much slower than the first a window may be.
const SLOWER: f64 = 1.2;
/// How much memory may differ without anybody having lost any, in KiB: what the kernel happens to
/// have resident.
const MEMORY_NOISE: u64 = 512;

/// What there is after a cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn take(container: &Container) -> Counts {
        let mut counts = BTreeMap::new();
        for line in Snapshot::take().lines() {
            let kind = line.split(' ').next().unwrap_or_default();
            *counts.entry(format!("host: {}", plural(kind))).or_default() += 1;
        }
        let init = container.init_pid();
        let monitor = field(&read(init, "stat"), 4);
        counts.insert("monitor: descriptors".to_owned(), descriptors(monitor));
        counts.insert("monitor: KiB".to_owned(), kibibytes(monitor));
        let tasks = tasks_of(init);
        counts.insert("container: processes".to_owned(), tasks.len() as u64);
        counts.insert(
            "container: descriptors".to_owned(),
            tasks.iter().map(|pid| descriptors(*pid)).sum(),
        );
        counts.insert("container: KiB".to_owned(), tasks.iter().map(|pid| kibibytes(*pid)).sum());
        counts.insert(
            "container: mappings".to_owned(),
            tasks.iter().map(|pid| lines(&read(*pid, "maps"))).sum(),
        );
        counts.insert("container: mounts".to_owned(), lines(&read(init, "mountinfo")));
        counts.insert("container: links".to_owned(), lines(&read(init, "net/dev")));
        counts.insert(
            "container: sockets".to_owned(),
            lines(&read(init, "net/tcp")) + lines(&read(init, "net/unix")),
        );
        let files = walk(&container.rootfs());
        counts.insert("container: files".to_owned(), files);
        let images = fs::read_dir(container.dir().join("dump")).unwrap().flatten();
        let size: u64 = images
            .filter(|e| e.path().extension().is_some_and(|e| e == "img"))
            .map(|e| e.metadata().unwrap().len())
            .sum();
        counts.insert("images: KiB".to_owned(), size >> 10);
        Counts(counts)
    }

    /// What is more now than it was then.
    fn growth_since(&self, then: &Counts) -> Vec<String> {
        let grown = self.0.iter().filter(|(kind, now)| {
            let noise = if kind.ends_with("KiB") { MEMORY_NOISE } else { 0 };
            **now > then.0.get(*kind).copied().unwrap_or_default() + noise
        });
        grown
            .map(|(kind, now)| {
                format!("{kind}: {} → {now}", then.0.get(kind).copied().unwrap_or_default())
            })
            .collect()
    }
}

fn plural(kind: &str) -> String {
    if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") }
}

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The number in a field of /proc/PID/stat, from 3 on.
fn field(stat: &str, number: usize) -> u32 {
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(number - 3).unwrap().parse().unwrap()
}

fn lines(text: &str) -> u64 {
    text.lines().count() as u64
}

fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64
}

/// Memory that belongs to it alone.
fn kibibytes(pid: u32) -> u64 {
    let text = read(pid, "smaps_rollup");
    let number = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default()
    };
    number("Private_Dirty:") + number("Private_Clean:")
}

fn tasks_of(pid: u32) -> Vec<u32> {
    let mut tasks = vec![pid];
    for child in read(pid, &format!("task/{pid}/children")).split_whitespace() {
        tasks.extend(tasks_of(child.parse().unwrap()));
    }
    tasks
}

fn walk(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { 1 + walk(&e.path()) } else { 1 })
        .sum()
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Goes through so many cycles. Gives what was measured, as a table; a leak is a panic.
///
/// How long they take is judged where there are two windows to compare.
pub fn go_through(world: &World, cycles: usize) -> String {
    let container = world.container();
    container.start();
    let mut witness: Witness = container.witness();
    let mut status = witness.status();
    let mut times = Vec::new();
    let mut first = Counts::default();
    let mut table =
        "cycles   median ms   slowest ms   monitor KiB   container KiB   images KiB\n".to_owned();
    for number in 1..=cycles {
        let started = Instant::now();
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        times.push(started.elapsed());
        witness.echo(&format!("cycle {number}"));
        if number == 1 {
            status = witness.assert_goes_on_from(&status);
            first = Counts::take(&container);
        }
        if number % WINDOW == 0 {
            status = witness.assert_goes_on_from(&status);
            let now = Counts::take(&container);
            let window = &times[number - WINDOW..];
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            let kib = |kind: &str| now.0[&format!("{kind}: KiB")];
            let slowest = window.iter().max().copied().unwrap_or_default();
            let (from, median, slowest) = (number - WINDOW + 1, ms(median(window)), ms(slowest));
            let (monitor, inside, images) = (kib("monitor"), kib("container"), kib("images"));
            writeln!(
                table,
                "{from:>3}-{number:<3} {median:>11.0} {slowest:>12.0} {monitor:>13} {inside:>15} \
                 {images:>12}"
            )
            .unwrap();
            let grown = now.growth_since(&first);
            assert!(
                grown.is_empty(),
                "after {number} cycles there is more than after the first:\n{}\n{table}",
                grown.join("\n")
            );
        }
    }
    for (kind, count) in &first.0 {
        let _ = writeln!(table, "{kind}: {count} after the first cycle and no more after the last");
    }
    let windows: Vec<Duration> = times.chunks(WINDOW).map(median).collect();
    let slow =
        windows.iter().find(|window| window.as_secs_f64() > windows[0].as_secs_f64() * SLOWER);
    assert!(slow.is_none(), "it gets slower: {slow:?}\n{table}");
    container.kill();
    table
}
