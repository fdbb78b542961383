//! The container's cgroups, as LXC's tools are told of them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::lxc::protocol::{HierarchyKind, Layout};
use crate::lxc::server::Hierarchy;
use crate::resources::cgroup::{self, Cgroup};

/// How long a freeze that was asked for over the socket is waited for at most: the monitor has
/// other clients.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// What is held of them.
#[derive(Debug)]
pub(super) struct Cgroups {
    held: Vec<Held>,
    /// The directory by which the container is frozen.
    freezer: PathBuf,
}

#[derive(Debug)]
struct Held {
    kind: HierarchyKind,
    controllers: Vec<String>,
    path: String,
    limit_path: String,
    fd: OwnedFd,
    limit_fd: OwnedFd,
}

impl Cgroups {
    pub(super) fn new(payload: &[Cgroup]) -> anyhow::Result<Cgroups> {
        let hybrid = payload.iter().any(|c| !c.hierarchy.is_unified());
        let held = payload.iter().map(|cgroup| {
            // LXC writes no slash before it where there is cgroup2 alone.
            let told = |path: PathBuf| {
                let text = path.to_string_lossy();
                if hybrid { text.into_owned() } else { text.trim_start_matches('/').to_owned() }
            };
            let unified = cgroup.hierarchy.is_unified();
            Ok(Held {
                kind: if unified { HierarchyKind::V2 } else { HierarchyKind::V1 },
                controllers: if unified {
                    controllers(&cgroup.hierarchy, hybrid)?
                } else {
                    cgroup.hierarchy.controllers.clone()
                },
                path: told(cgroup.home_path()),
                limit_path: told(cgroup.path()),
                fd: cgroup::open_path(&cgroup.home())?,
                limit_fd: cgroup::open_path(&cgroup.dir)?,
            })
        });
        let freezer = cgroup::freezer(payload).map(Cgroup::home).unwrap_or_default();
        Ok(Cgroups { held: held.collect::<anyhow::Result<_>>()?, freezer })
    }

    pub(super) fn layout(&self) -> Layout {
        let hybrid = self.held.iter().any(|h| h.kind == HierarchyKind::V1);
        if hybrid { Layout::Hybrid } else { Layout::Unified }
    }

    pub(super) fn hierarchies(&self) -> Vec<Hierarchy<'_>> {
        let told = self.held.iter().map(|held| Hierarchy {
            kind: held.kind,
            controllers: held.controllers.clone(),
            path: held.path.clone(),
            limit_path: held.limit_path.clone(),
            fd: Some(held.fd.as_fd()),
            limit_fd: Some(held.limit_fd.as_fd()),
        });
        told.collect()
    }

    pub(super) fn is_frozen(&self) -> bool {
        cgroup::is_frozen(&self.freezer).unwrap_or(false)
    }

    /// A frozen task does not even die.
    pub(super) fn thaw(&self) -> io::Result<()> {
        cgroup::set_frozen(&self.freezer, false).map_err(io::Error::other)
    }

    /// Freezes or thaws it on cgroup2, and waits until it is done.
    pub(super) fn set_frozen(&self, frozen: bool, limit: Option<Duration>) -> io::Result<()> {
        cgroup::set_frozen(&self.freezer, frozen).map_err(io::Error::other)?;
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let end = Instant::now() + limit.unwrap_or(FREEZE_LIMIT).min(FREEZE_LIMIT);
        while !fs::read_to_string(self.freezer.join("cgroup.events"))?.contains(wanted) {
            if Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// What liblxc counts as controllers of cgroup2: those that the kernel has where LXC makes its
/// cgroups, whether they are handed on to a container's or not, and where v1 has them not, two of
/// its own.
fn controllers(unified: &cgroup::Hierarchy, hybrid: bool) -> anyhow::Result<Vec<String>> {
    let base = cgroup::directory(&unified.mount, &cgroup::base(unified)?)?;
    let text = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let own = if hybrid { "" } else { "devices freezer" };
    Ok(text
        .split_ascii_whitespace()
        .chain(own.split_ascii_whitespace())
        .map(str::to_owned)
        .collect())
}
