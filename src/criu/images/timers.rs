//! POSIX timers (timer_create(2)): in `core-PID.img` that of each process.

use std::path::Path;
use std::time::Duration;

use prost::Message;

use super::tree::CORE_MAGIC;
use super::{Error, Head, bytes_of, decode};

/// `core_entry`, with what leads to the timers.
#[derive(Clone, PartialEq, Message)]
struct Core {
    #[prost(message, optional, tag = "3")]
    process: Option<Process>,
}

/// `task_core_entry`.
#[derive(Clone, PartialEq, Message)]
struct Process {
    #[prost(message, optional, tag = "7")]
    timers: Option<Timers>,
}

/// `task_timers_entry`.
#[derive(Clone, PartialEq, Message)]
struct Timers {
    #[prost(message, repeated, tag = "4")]
    posix: Vec<Entry>,
}

/// `posix_timer_entry`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(uint32, required, tag = "2")]
    clock: u32,
    #[prost(uint64, required, tag = "7")]
    interval_seconds: u64,
    #[prost(uint64, required, tag = "8")]
    interval_nanoseconds: u64,
    #[prost(uint64, required, tag = "9")]
    seconds: u64,
    #[prost(uint64, required, tag = "10")]
    nanoseconds: u64,
}

/// A timer of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PosixTimer {
    /// The process, by its number in the container.
    pub pid: i32,
    /// The timer's number there.
    pub id: u32,
    /// Its clock, as in clock_gettime(2).
    pub clock: u32,
    /// Until it expires; zero when it is off.
    pub left: Duration,
    /// From one expiration to the next; zero when it expires once.
    pub interval: Duration,
}

/// The timers of all processes of a checkpoint.
///
/// # Errors
/// When the images cannot be read.
pub(crate) fn posix_timers(dir: &Path) -> Result<Vec<PosixTimer>, Error> {
    let mut found = Vec::new();
    for name in super::labels::core_files(dir)? {
        let Some(pid) =
            name.strip_prefix("core-").and_then(|rest| rest.strip_suffix(".img")?.parse().ok())
        else {
            continue;
        };
        let path = dir.join(&name);
        for core in decode::<Core>(&path, &bytes_of(&path)?, Head::Common(CORE_MAGIC))? {
            let timers = core.process.and_then(|process| process.timers).map(|timers| timers.posix);
            found.extend(timers.unwrap_or_default().into_iter().filter_map(|entry| entry.of(pid)));
        }
    }
    Ok(found)
}

impl Entry {
    /// None where its times are none.
    fn of(&self, pid: i32) -> Option<PosixTimer> {
        let time = |seconds, nanoseconds: u64| {
            let nanoseconds = u32::try_from(nanoseconds).ok().filter(|n| *n < 1_000_000_000)?;
            Some(Duration::new(seconds, nanoseconds))
        };
        Some(PosixTimer {
            pid,
            id: self.id,
            clock: self.clock,
            left: time(self.seconds, self.nanoseconds)?,
            interval: time(self.interval_seconds, self.interval_nanoseconds)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_below_its_second() {
        let entry = Entry { id: 3, clock: 0, seconds: 7, nanoseconds: 5, ..Entry::default() };
        let timer = entry.of(12).unwrap();
        assert_eq!(
            (timer.pid, timer.id, timer.left, timer.interval),
            (12, 3, Duration::new(7, 5), Duration::ZERO)
        );
        assert_eq!(Entry { nanoseconds: u64::MAX, ..entry }.of(12), None);
    }

    #[test]
    fn processes_of_a_real_checkpoint_have_none() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/tree");
        assert_eq!(posix_timers(&dir).unwrap(), []);
    }
}
