//! The descriptors of a container, as its files in /proc list them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::proc::{Thread, link, threads};
use super::snapshot::{Standing, Subject};
use crate::sys::kernel_state::{self, Shared};
use crate::sys::process::Process;

/// A descriptor of the container.
#[derive(Debug)]
pub(super) struct Open {
    /// A thread that has it.
    pub thread: Thread,
    /// Its number.
    pub number: i32,
    /// What /proc/PID/fd says that it is; names from inside are escaped.
    pub target: String,
}

impl Open {
    /// Whose state it is. A thread with a table of its own counts as a process.
    pub(super) fn subject(&self) -> Subject {
        Subject::Descriptor {
            pid: if self.thread.is_leader() { self.thread.pid } else { self.thread.tid },
            fd: self.number,
        }
    }

    /// "fd 3 of 12".
    pub(super) fn name(&self) -> String {
        match self.subject() {
            Subject::Descriptor { pid, fd } => format!("fd {fd} of {pid}"),
            other => other.to_string(),
        }
    }

    /// Whether it is a file that has a name somewhere.
    pub(super) fn is_file(&self) -> bool {
        self.target.starts_with('/')
    }

    /// Its file in /proc/PID/fdinfo.
    pub(super) fn info(&self) -> io::Result<String> {
        self.thread.file(&format!("fdinfo/{}", self.number))
    }

    /// A duplicate. Not for files of a server that may stand still, too: closing it would wait.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        let process = Process::open(self.thread.host_pid)?;
        if self.thread.is_leader() {
            return kernel_state::duplicate(process.as_fd(), self.number);
        }
        Err(io::Error::other("only a thread has it, which pidfd_getfd(2) does not reach"))
    }
}

/// All descriptors, each table once; sorted by process and number.
pub(super) fn all(standing: &Standing) -> Vec<Open> {
    let mut tables: Vec<Thread> = Vec::new();
    let mut found = Vec::new();
    let mut sorted = threads(standing);
    sorted.sort_by_key(|thread| (thread.pid, !thread.is_leader(), thread.tid));
    for thread in sorted {
        // Threads nearly always share the table of their process; processes may, too, and are
        // compared only there: each has its own descriptors in the snapshot.
        let is_known = tables.iter().filter(|table| table.pid == thread.pid).any(|table| {
            kernel_state::are_same(table.host_tid, thread.host_tid, Shared::Files, (0, 0))
                .unwrap_or_default()
        });
        if is_known {
            continue;
        }
        tables.push(thread);
        let entries = fs::read_dir(thread.path("fd")).into_iter().flatten().flatten();
        let mut numbers: Vec<i32> =
            entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Ok(target) = link(&thread.path(&format!("fd/{number}"))) {
                found.push(Open { thread, number, target });
            }
        }
    }
    found
}

/// What kind of thing a descriptor refers to, without the number that the kernel gave it.
pub(super) fn kind(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind @ ("pipe" | "socket"), _)) => kind.to_owned(),
        // net:[4026531840]: a namespace.
        Some((kind, _)) if !kind.contains('/') && kind != "anon_inode" => {
            format!("{kind} namespace")
        }
        // The same terminal of the host, or a device of that number in the restored container.
        _ => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_the_kernel_gave_are_not_compared() {
        assert_eq!(kind("pipe:[123]"), "pipe");
        assert_eq!(kind("socket:[9]"), "socket");
        assert_eq!(kind("net:[4026531840]"), "net namespace");
        assert_eq!(kind("anon_inode:[eventfd]"), "anon_inode:[eventfd]");
        assert_eq!(kind("/tmp/a:[b"), "/tmp/a:[b");
    }
}
