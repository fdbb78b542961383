//! A container's cgroups: where they are, what they look like, how they are made again and removed.
//!
//! liblxc puts a container into `lxc.payload.NAME` and its monitor into `lxc.monitor.NAME`, below
//! the cgroup of pid 1, in each hierarchy that the host has (cgfsng.c): cgroup2 alone, or, on a
//! hybrid host, those of v1 beside it. A configuration may name other places, and an inner one for
//! the tasks below the one with the limits (`lxc::home`). CRIU saves the cgroups that hold tasks,
//! but neither the empty ones nor the owners that an init in a user namespace needs; so the whole
//! tree of each hierarchy is recorded and made before CRIU starts.
//!
//! | file | its story |
//! |---|---|
//! | `hierarchy` | the host's hierarchies, and where a process is in them |
//! | `tree` | what a container's cgroups look like in one of them |
//! | `make` | directories are made, under a name that is free in all hierarchies, and removed |
//! | `tasks` | processes in them: entered, listed, frozen, ended |

pub(crate) mod confine;
pub(crate) mod devices;
mod hierarchy;
mod make;
pub(crate) mod settings;
mod tasks;
mod tree;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lxc::container::{self, Running};
use crate::lxc::home::Home;

pub(crate) use hierarchy::{Hierarchy, base, hierarchies, own_base, unified_mount};
pub(crate) use make::{
    Note, hand_on_controllers, identity, is_the, make_if_missing, make_new, remove, remove_if_bare,
};
pub use tasks::tasks;
pub(crate) use tasks::{
    enter, frozen_below, is_frozen, is_our_kind, kill, move_our_kind, open_path, open_procs,
    own_tasks, set_frozen,
};
pub(crate) use tree::Tree;
#[cfg(test)]
pub(crate) use tree::{Directory, OwnedFile};

/// A cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The directory, below the hierarchy's mount. A container's has its limits and device rules.
    pub dir: PathBuf,
    /// Where the tasks of a container begin below that (`lxc.cgroup.dir.container.inner`); empty
    /// where it is there.
    pub inner: PathBuf,
}

impl Cgroup {
    /// One of which there is but one part.
    pub fn plain(hierarchy: Hierarchy, dir: PathBuf) -> Cgroup {
        Cgroup { hierarchy, dir, inner: PathBuf::new() }
    }

    /// The directory in which the tasks of a container are, and what they have made for themselves.
    pub fn home(&self) -> PathBuf {
        // No slash at the end where there is no inner part.
        self.dir.components().chain(self.inner.components()).collect()
    }

    /// The path of [`Cgroup::home`] relative to the hierarchy's root, with a leading slash.
    pub fn home_path(&self) -> PathBuf {
        self.path().components().chain(self.inner.components()).collect()
    }

    /// Its path relative to the hierarchy's root, with a leading slash.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.dir.strip_prefix(&self.hierarchy.mount).unwrap_or(&self.dir))
    }
}

/// The payload cgroup of a running container in each hierarchy in which it has one; cgroup2's is
/// the first.
pub(crate) fn of_container(running: &Running) -> Result<Vec<Cgroup>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let home =
            Home::of(running.init.pid(), &hierarchy.controllers, running.inner_cgroup.as_deref())?;
        // One that it shares with the host is none of its own: frozen with it, we would stand still
        // ourselves. LXC's restore leaves containers in such.
        let Some(Home { path, inner }) = home.filter(|home| home.path != Path::new("/")) else {
            continue;
        };
        if !hierarchy.is_unified() && path == base(&hierarchy)? {
            continue;
        }
        let cgroup = Cgroup { dir: directory(&hierarchy.mount, &path)?, hierarchy, inner };
        if container::is_payload(&path) || !tasks::holds_our_kind(&cgroup.dir)? {
            found.push(cgroup);
        }
    }
    Ok(found)
}

/// The one of these cgroups by which tasks are frozen as LXC does it: that of v1's freezer, or else
/// cgroup2's.
pub(crate) fn freezer(cgroups: &[Cgroup]) -> Option<&Cgroup> {
    let legacy = cgroups.iter().find(|c| c.hierarchy.has("freezer"));
    legacy.or_else(|| cgroups.iter().find(|c| c.hierarchy.is_unified()))
}

/// The directory of a cgroup path below its mount. A path with `..` would leave the hierarchy and
/// is refused.
pub(crate) fn directory(mount: &Path, path: &Path) -> Result<PathBuf> {
    let mut full = mount.to_owned();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => full.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                bail!("cgroup '{}' lies outside of what can be seen here", path.display())
            }
        }
    }
    Ok(full)
}

fn write_control(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write '{text}' to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        assert_eq!(
            directory(Path::new("/cg"), Path::new("/lxc.payload.t")).unwrap(),
            Path::new("/cg/lxc.payload.t")
        );
        assert!(directory(Path::new("/cg"), Path::new("/../x")).is_err());
    }
}
