//! The files of /proc, and how numbers of the host become those of the container.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::compare::plain;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::State;

/// A thread, by its numbers on the host and in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Thread {
    /// The process's number in the container.
    pub pid: i32,
    /// The thread's number in the container.
    pub tid: i32,
    /// The process's number on the host.
    pub host_pid: i32,
    /// The thread's number on the host.
    pub host_tid: i32,
}

impl Thread {
    /// Whose state it is.
    pub(crate) fn subject(&self) -> Subject {
        Subject::Thread { pid: self.pid, tid: self.tid }
    }

    /// The process's.
    pub(crate) fn process(&self) -> Subject {
        Subject::Task { pid: self.pid }
    }

    /// Whether it is the thread that gives the process its number.
    pub(crate) fn is_leader(&self) -> bool {
        self.host_pid == self.host_tid
    }

    /// A file of the thread in /proc, as the kernel writes it.
    pub(crate) fn file(&self, name: &str) -> io::Result<String> {
        fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where a file of the thread is. Numbers of threads are not listed in /proc, but are there,
    /// and such a directory has files that those below `task` lack.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.host_tid)
    }
}

/// All threads of a container, sorted by their numbers in it. Those of zombies are left out: what
/// has ended has no state but that.
pub(super) fn threads(standing: &Standing) -> Vec<Thread> {
    let mut found = Vec::new();
    for host_pid in &standing.tasks {
        let entries =
            fs::read_dir(format!("/proc/{host_pid}/task")).into_iter().flatten().flatten();
        let tids: Vec<i32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        let Some(pid) = status(*host_pid).as_deref().and_then(number_inside) else { continue };
        for host_tid in tids {
            let Some(status) = status(host_tid) else { continue };
            let Some(tid) = number_inside(&status) else { continue };
            if !matches!(
                field(&status, "State").and_then(|s| s.chars().next()),
                Some('Z' | 'X') | None
            ) {
                found.push(Thread { pid, tid, host_pid: *host_pid, host_tid });
            }
        }
    }
    found.sort_unstable();
    found
}

/// One thread of each process: its first, or where that has ended any other.
pub(super) fn processes(standing: &Standing) -> Vec<Thread> {
    let mut all = threads(standing);
    all.sort_by_key(|thread| (thread.pid, !thread.is_leader(), thread.tid));
    all.dedup_by_key(|thread| thread.pid);
    all
}

fn status(tid: i32) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(format!("/proc/{tid}/status")).ok()?).into_owned())
}

fn number_inside(status: &str) -> Option<i32> {
    last_number(field(status, "NSpid")?)
}

/// The last of some numbers: the one in the innermost namespace.
pub(super) fn last_number(numbers: &str) -> Option<i32> {
    numbers.split_ascii_whitespace().last()?.parse().ok()
}

/// A field of a file whose lines are `name:` and a value.
pub(super) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A field of a `stat` file, by its number in proc_pid_stat(5), which is at least 3.
pub(super) fn stat_field(stat: &str, number: usize) -> Option<&str> {
    // The command before the fields may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// The target of a link of /proc, as values hold names. A file that CRIU made again to restore a
/// deleted one has a name of CRIU's, which means nothing.
pub(super) fn link(path: &str) -> io::Result<String> {
    let target = plain(fs::read_link(path)?.as_os_str().as_bytes());
    Ok(without_ghost(&target))
}

/// "/a/b.cr.5.ghost (deleted)" is "/a/b (deleted)".
pub(super) fn without_ghost(target: &str) -> String {
    let Some((before, after)) = target.split_once(".ghost") else { return target.to_owned() };
    match before.rsplit_once(".cr.") {
        Some((name, number))
            if !number.is_empty() && number.chars().all(|c| c.is_ascii_hexdigit()) =>
        {
            format!("{name}{after}")
        }
        _ => target.to_owned(),
    }
}

/// Numbers of processes and threads: the container's by the host's.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<i32, i32>);

impl Numbers {
    /// Those of all threads.
    pub(super) fn of(standing: &Standing) -> Numbers {
        let mut numbers: BTreeMap<i32, i32> =
            threads(standing).iter().map(|thread| (thread.host_tid, thread.tid)).collect();
        for task in &standing.tasks {
            // Zombies, too.
            if let Some(pid) = status(*task).as_deref().and_then(number_inside) {
                numbers.insert(*task, pid);
            }
        }
        Numbers(numbers)
    }

    /// How the container calls what the host calls so. What is not in it has no number there.
    pub(super) fn inside(&self, number: i32) -> String {
        self.0.get(&number).map_or_else(|| "none of the container".to_owned(), i32::to_string)
    }

    /// The same of a process, or with a minus a process group, where 0 is nobody.
    pub(super) fn owner(&self, number: i32) -> String {
        match number {
            0 => "0".to_owned(),
            group @ i32::MIN..0 => format!("-{}", self.inside(group.saturating_neg())),
            pid => self.inside(pid),
        }
    }
}

/// Enters a value that could be read, or notes why it could not.
pub(super) fn note<E: Display>(
    snapshot: &mut Snapshot,
    subject: Subject,
    state: &'static State,
    value: Result<String, E>,
) {
    match value {
        Ok(value) => snapshot.enter(subject, state, value),
        Err(e) => snapshot.miss(subject, state, e),
    }
}

/// A short name of long contents that differ when this does: their length and a checksum.
pub(super) fn digest(bytes: &[u8]) -> String {
    let sum: String = blake3::hash(bytes).to_hex().chars().take(16).collect();
    format!("{} bytes {sum}", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let status =
            "Name:\ta\nState:\tS (sleeping)\nNSpid:\t4711\t12\nSigPnd:\t0000000000000000\n";
        assert_eq!(
            (number_inside(status), field(status, "SigPnd")),
            (Some(12), Some("0000000000000000"))
        );
        assert_eq!(field(status, "Sig"), None);
        let stat = "12 (a ) b) S 1 2 3";
        assert_eq!((stat_field(stat, 3), stat_field(stat, 6)), (Some("S"), Some("3")));
        assert_eq!((stat_field(stat, 9), stat_field(stat, 1)), (None, None));
    }

    #[test]
    fn a_deleted_file_has_its_own_name() {
        assert_eq!(without_ghost("/tmp/a.cr.1f.ghost (deleted)"), "/tmp/a (deleted)");
        assert_eq!(without_ghost("/tmp/a.ghost"), "/tmp/a.ghost");
        assert_eq!(without_ghost("/tmp/a.cr.x.ghost"), "/tmp/a.cr.x.ghost");
    }

    #[test]
    fn our_own_threads_are_found() {
        let me = std::process::id().cast_signed();
        let standing = Standing { init: me, tasks: vec![me] };
        let found = threads(&standing);
        assert!(
            found.iter().any(Thread::is_leader) && found.iter().all(|thread| thread.host_pid == me)
        );
        assert_eq!(processes(&standing).len(), 1);
        assert_eq!(Numbers::of(&standing).owner(1 << 30), "none of the container");
        assert_eq!(digest(b"a"), digest(b"a"));
        assert_ne!(digest(b"a"), digest(b"b"));
    }
}
