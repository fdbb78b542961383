//! The namespaces of a container's tasks, each once.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::snapshot::Standing;
use crate::sys::process;

/// A namespace that at least one task of the container is in.
#[derive(Debug)]
pub(super) struct Distinct {
    /// The lowest process in it, as the container numbers it.
    pub pid: i32,
    /// The same as the host numbers it.
    pub host_pid: i32,
    /// The namespace.
    pub namespace: File,
}

impl Distinct {
    /// A path below /proc/PID of that process.
    pub(super) fn proc(&self, below: &str) -> PathBuf {
        format!("/proc/{}/{below}", self.host_pid).into()
    }
}

/// The namespaces of this kind ("net", "mnt") that the tasks are in and we are not, by the lowest
/// process in each.
///
/// # Errors
/// When this process cannot read its own; a kernel without such namespaces has none.
pub(super) fn namespaces(standing: &Standing, kind: &str) -> io::Result<Vec<Distinct>> {
    let ours = match fs::read_link(format!("/proc/self/ns/{kind}")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let inside = |host_pid: i32| (process::number_inside(host_pid).unwrap_or(host_pid), host_pid);
    let mut tasks: Vec<(i32, i32)> = standing.tasks.iter().copied().map(inside).collect();
    tasks.sort_unstable();
    let mut seen = vec![ours];
    let mut found = Vec::new();
    for (pid, host_pid) in tasks {
        let path = format!("/proc/{host_pid}/ns/{kind}");
        // A zombie is in no namespace any more.
        let Ok(identity) = fs::read_link(&path) else { continue };
        if !seen.contains(&identity)
            && let Ok(namespace) = File::open(&path)
        {
            seen.push(identity);
            found.push(Distinct { pid, host_pid, namespace });
        }
    }
    Ok(found)
}
