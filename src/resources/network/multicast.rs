//! Multicast groups. CRIU (4.2, sk-inet.c) does not ask a socket which of them it has joined: after
//! a restore nobody would listen to them any more.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::multicast;
use crate::sys::process::{Process, number_inside};

/// A socket that has joined a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// A process that has it, by its number in the container.
    pub pid: i32,
    /// Its number there.
    pub descriptor: i32,
    /// The index of the interface in the container.
    pub interface: u32,
    /// The group.
    pub group: IpAddr,
}

/// The memberships of all sockets of a container that stands still.
pub(crate) fn of_tasks(payload: &Path, init: i32) -> Result<Vec<Membership>> {
    let joined = multicast::joined(init).context("read the groups of the container's network")?;
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for task in cgroup::tasks(payload)? {
        // What has ended has no sockets.
        let (Some(pid), Ok(process)) = (number_inside(task), Process::open(task)) else { continue };
        for (descriptor, inode) in sockets(task) {
            if !seen.insert(inode) {
                continue;
            }
            let socket = multicast::socket(&process, descriptor);
            let Some(socket) =
                socket.with_context(|| format!("inspect socket {descriptor} of process {task}"))?
            else {
                continue;
            };
            let of = joined.iter().filter(|group| multicast::is_member(&socket, **group));
            found.extend(of.map(|(interface, group)| Membership {
                pid,
                descriptor,
                interface: *interface,
                group: *group,
            }));
        }
    }
    Ok(found)
}

/// Has the sockets of a restored container join their groups again.
pub(crate) fn rejoin(payload: &Path, memberships: &[Membership]) -> Result<()> {
    if memberships.is_empty() {
        return Ok(());
    }
    let mut errors = ErrorList::default();
    for task in cgroup::tasks(payload)? {
        let Some(inside) = number_inside(task) else { continue };
        for membership in memberships.iter().filter(|m| m.pid == inside) {
            let joined = join(task, membership);
            errors.note(joined.with_context(|| {
                format!("join the group {} for process {task}", membership.group)
            }));
        }
    }
    errors.into_result()
}

fn join(task: i32, membership: &Membership) -> Result<()> {
    let socket = multicast::socket(&Process::open(task)?, membership.descriptor)?
        .context("its socket is not there")?;
    Ok(multicast::join(&socket, (membership.interface, membership.group))?)
}

/// The sockets of a process: their numbers, and what the kernel calls them.
pub(crate) fn sockets(task: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{task}/fd")).into_iter().flatten().flatten();
    let socket = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?.to_str()?.to_owned();
        target.starts_with("socket:").then_some((entry.file_name().to_str()?.parse().ok()?, target))
    };
    entries.filter_map(socket).collect()
}
