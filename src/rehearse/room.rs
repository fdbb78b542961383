//! Whether a rehearsal is possible, and whether it costs little.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::criu::images;
use crate::report::bytes;
use crate::settings::Rehearse;
use crate::store::record::Record;

/// With `auto`, a container with more memory than this is not rehearsed: bytes.
pub(crate) const CHEAP: u64 = 256 << 20;
/// What has to stay free on the host, in bytes.
const SPARE: u64 = 128 << 20;
/// How much a rehearsal may write to files, in bytes.
pub(crate) const WRITTEN: u64 = 256 << 20;
/// How long a rehearsal may take, however little memory there is.
const LEAST_TIME: Duration = Duration::from_secs(30);
/// Bytes of memory for which it gets another second.
const BYTES_A_SECOND: u64 = 50 << 20;
/// The namespaces without which a twin would meet its original.
const NEEDED: [(&str, &str); 4] = [
    ("pid", "process numbers"),
    ("net", "network"),
    ("mnt", "mounts"),
    ("ipc", "System V objects"),
];

/// The memory that it takes, and that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// What the images hold, in bytes.
    pub needed: u64,
    /// What the host can give without swapping, in bytes.
    pub available: u64,
}

/// Why a container cannot be restored beside itself; pure.
pub(crate) fn impossible(record: &Record) -> Option<String> {
    let shared = NEEDED.iter().find(|(name, _)| !record.init.namespaces.iter().any(|n| n == name));
    shared.map(|(_, what)| format!("it shares the host's {what}"))
}

impl Room {
    /// Measures both.
    pub(crate) fn read(dir: &Path) -> Result<Room> {
        let needed = images::bytes_of_pages(dir).unwrap_or_default() + in_parents(dir)?;
        let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        Ok(Room { needed, available: available(&text).context("read how much memory is free")? })
    }

    /// Why it is not to be done; pure.
    pub(crate) fn refuses(&self, when: Rehearse) -> Option<String> {
        let Room { needed, available } = *self;
        if available < needed + SPARE {
            return Some(format!(
                "its memory takes {} and the host has {} free",
                bytes(needed),
                bytes(available)
            ));
        }
        let is_dear = when == Rehearse::Auto && needed > CHEAP;
        is_dear.then(|| format!("its memory takes {}, more than {}", bytes(needed), bytes(CHEAP)))
    }

    /// How long a rehearsal may take; pure.
    pub(crate) fn time_limit(&self) -> Duration {
        LEAST_TIME + Duration::from_secs(self.needed / BYTES_A_SECOND)
    }
}

/// What stands in the images that these build on, in bytes: not what has changed there since.
fn in_parents(dir: &Path) -> Result<u64> {
    let mut pages = 0u64;
    for process in images::process_tree(dir)? {
        let memory = images::memory(dir, process.pid)?;
        pages = pages.saturating_add(memory.map_or(0, |memory| memory.pages_in_parent));
    }
    Ok(pages.saturating_mul(procfs::page_size()))
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_much_is_done_on_demand_only() {
        let room =
            |needed: u64, available: u64| Room { needed: needed << 20, available: available << 20 };
        assert_eq!(room(64, 1024).refuses(Rehearse::Auto), None);
        assert!(
            room(512, 4096)
                .refuses(Rehearse::Auto)
                .is_some_and(|why| why.contains("more than 256.0 MiB"))
        );
        assert_eq!(room(512, 4096).refuses(Rehearse::Always), None);
        assert!(
            room(512, 600)
                .refuses(Rehearse::Always)
                .is_some_and(|why| why.contains("600.0 MiB free"))
        );
        assert_eq!(room(1000, 0).time_limit(), Duration::from_secs(50));
    }

    #[test]
    fn free_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal:  8 kB\nMemAvailable:    7 kB\n"), Some(7168));
        assert_eq!(available("MemTotal: 8 kB\n"), None);
    }
}
