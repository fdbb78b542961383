//! A container's cgroups: where they are, what they look like, how they are made again and removed.
//!
//! liblxc puts a container into `lxc.payload.NAME` and its monitor into `lxc.monitor.NAME`, below the cgroup of
//! pid 1, in each hierarchy that the host has (cgfsng.c): cgroup2 alone, or, on a hybrid host, those of v1 beside it.
//! CRIU saves the cgroups that hold tasks, but neither the empty ones nor the owners that an init in a user namespace
//! needs; so the whole tree of each hierarchy is recorded and made before CRIU starts.
//!
//! | file | its story |
//! |---|---|
//! | `hierarchy` | the host's hierarchies, and where a process is in them |
//! | `tree` | what a container's cgroups look like in one of them |
//! | `make` | directories are made, under a name that is free in all hierarchies, and removed |
//! | `tasks` | processes in them: entered, listed, frozen, ended |

mod hierarchy;
mod make;
mod tasks;
mod tree;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lxc::container::{self, Running};

pub use hierarchy::{Hierarchy, base, hierarchies, of_process, unified_mount};
pub use make::{hand_on_controllers, make_if_missing, make_new, remove};
pub use tasks::{enter, is_frozen, kill, move_our_kind, open_path, open_procs, own_tasks, set_frozen, tasks};
pub use tree::{Directory, OwnedFile, Tree};

/// A cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The directory, below the hierarchy's mount.
    pub dir: PathBuf,
}

impl Cgroup {
    /// Its path relative to the hierarchy's root, with a leading slash.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.dir.strip_prefix(&self.hierarchy.mount).unwrap_or(&self.dir))
    }
}

/// The payload cgroup of a running container in each hierarchy in which it has one; cgroup2's is the first.
pub fn of_container(running: &Running) -> Result<Vec<Cgroup>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let path = match hierarchy.is_unified() {
            true => running.cgroup.clone(),
            false => hierarchy::path_in(&hierarchy, running.init.pid())?.map(|path| container::payload_part(&path)),
        };
        // One that it shares with the host is none of its own: frozen with it, we would stand still ourselves. LXC's
        // restore leaves containers in such.
        let Some(path) = path.filter(|path| path != Path::new("/")) else { continue };
        if !hierarchy.is_unified() && path == base(&hierarchy)? {
            continue;
        }
        let cgroup = Cgroup { dir: directory(&hierarchy.mount, &path)?, hierarchy };
        if container::is_payload(&path) || !tasks::holds_our_kind(&cgroup.dir)? {
            found.push(cgroup);
        }
    }
    Ok(found)
}

/// The one of these cgroups by which tasks are frozen as LXC does it: that of v1's freezer, or else cgroup2's.
pub fn freezer(cgroups: &[Cgroup]) -> Option<&Cgroup> {
    let legacy = cgroups.iter().find(|c| c.hierarchy.has("freezer"));
    legacy.or_else(|| cgroups.iter().find(|c| c.hierarchy.is_unified()))
}

/// The directory of a cgroup path below its mount. A path with `..` would leave the hierarchy and is refused.
pub fn directory(mount: &Path, path: &Path) -> Result<PathBuf> {
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
    let mut file = OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write '{text}' to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        assert_eq!(directory(Path::new("/cg"), Path::new("/lxc.payload.t")).unwrap(), Path::new("/cg/lxc.payload.t"));
        assert!(directory(Path::new("/cg"), Path::new("/../x")).is_err());
    }
}
