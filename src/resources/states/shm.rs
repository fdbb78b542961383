//! Segments of System V's shared memory that go with their last user (`IPC_RMID` was called while
//! they were attached) or are locked into memory. CRIU (4.2, ipc_ns.c) restores the segments and
//! neither of that.

use std::fs;
use std::io;

use anyhow::{Context, Result};
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::sys::kernel_state;
use crate::sys::shm::{self, Control};

/// Flags of a segment's mode (linux/shm.h).
const DOOMED: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

/// A segment that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number in the container's IPC namespace.
    pub id: i32,
    /// It goes with its last user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doomed: bool,
    /// It is not swapped out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
}

/// Those of a container with an IPC namespace of its own, by its init.
///
/// # Errors
/// When the namespace cannot be entered or read.
pub(crate) fn read(init: i32) -> Result<Vec<Segment>> {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/ipc"));
    match (namespace("self"), namespace(&init.to_string())) {
        (Ok(ours), Ok(its)) if ours != its => {
            let table = inside(init, || fs::read_to_string("/proc/sysvipc/shm"))
                .context("read its segments of shared memory")?;
            Ok(parse(&table))
        }
        // The host's own, or a kernel without them.
        _ => Ok(Vec::new()),
    }
}

/// Gives the restored segments what they had, when all of their users are attached again.
///
/// # Errors
/// The first that the kernel has refused; the others are tried all the same.
pub(crate) fn restore(init: i32, segments: &[Segment]) -> Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    let set = |segment: &Segment| {
        let control = |wanted: bool, what| {
            if wanted { shm::control(segment.id, what) } else { Ok(()) }
        };
        control(segment.locked, Control::Lock).and(control(segment.doomed, Control::Remove))
    };
    inside(init, || segments.iter().map(set).fold(Ok(()), io::Result::and))
        .context("set its segments of shared memory")
}

fn inside<T: Send>(init: i32, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    kernel_state::within(init, &[("ipc", CloneFlags::CLONE_NEWIPC)], f)
}

/// The lines of /proc/sysvipc/shm: key, number, mode in octal, and more.
fn parse(table: &str) -> Vec<Segment> {
    let segment = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let id = words.next()?.parse().ok()?;
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let (doomed, locked) = (mode & DOOMED != 0, mode & LOCKED != 0);
        (doomed || locked).then_some(Segment { id, doomed, locked })
    };
    table.lines().skip(1).filter_map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unusual_is_kept() {
        let table = "\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid
         0          3  1600                  4096     9     9      1     0     0
     29041          4   600                  4096     9     9      1     0     0
     29042          5  2644                  4096     9     9      1     0     0
";
        let found = [
            Segment { id: 3, doomed: true, locked: false },
            Segment { id: 5, doomed: false, locked: true },
        ];
        assert_eq!(parse(table), found);
        assert_eq!(parse(""), []);
    }
}
