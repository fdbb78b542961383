//! The cgroups of a container that is restored and of its monitor, in each hierarchy: what they are called, and how
//! they come to be.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cgroup::{self, Cgroup, Hierarchy, Tree};
use crate::confine::Confinement;
use crate::lxc::config::Config;
use crate::record::Record;

/// What is wanted in one hierarchy. Paths begin at its root; the last component gets a number where it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The container's cgroup.
    pub payload: PathBuf,
    /// The monitor's.
    pub monitor: PathBuf,
    /// Where the monitor goes before its cgroup is removed.
    pub pivot: PathBuf,
    /// What was recorded of the container's.
    pub tree: Option<Tree>,
}

/// Decides, for all hierarchies of this host; cgroup2 is the first.
pub fn plan(name: &str, config: &Config, record: Option<&Record>) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for hierarchy in cgroup::hierarchies()? {
        let tree = record.and_then(|r| r.cgroups().find(|t| t.is_in(&hierarchy))).cloned();
        let payload = match &tree {
            Some(tree) => payload_path(&tree.path, name),
            None => cgroup::base(&hierarchy)?.join(format!("lxc.payload.{name}")),
        };
        let base = payload.parent().unwrap_or(Path::new("/")).to_owned();
        wanted.push(Wanted {
            monitor: match config.cgroup_dir_monitor() {
                Some(dir) => Path::new("/").join(dir),
                None => base.join(format!("lxc.monitor.{name}")),
            },
            pivot: match config.cgroup_dir_pivot() {
                Some(dir) => Path::new("/").join(dir).join("lxc.pivot"),
                None => base.join("lxc.pivot"),
            },
            hierarchy,
            payload,
            tree,
        });
    }
    Ok(wanted)
}

/// Where liblxc would put the container now: the recorded place, with the name as if it were not taken.
fn payload_path(recorded: &Path, name: &str) -> PathBuf {
    let by_liblxc = recorded.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with("lxc.payload."));
    match (by_liblxc, recorded.parent()) {
        (true, Some(base)) => base.join(format!("lxc.payload.{name}")),
        _ => recorded.to_owned(),
    }
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The monitor's, in which we are.
    pub monitor: Vec<Cgroup>,
    /// The container's; cgroup2's is the first.
    pub payload: Vec<Cgroup>,
}

/// Makes the monitor's cgroups and goes there; makes the container's with all that is below them. `before` hears of
/// each directory that is about to be made.
pub fn make(wanted: &[Wanted], confinement: &Confinement, before: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Made> {
    let monitor: Vec<_> = wanted.iter().map(|w| (&w.hierarchy, w.monitor.as_path())).collect();
    let monitor = cgroup::make_new(&monitor, before)?;
    monitor.iter().try_for_each(|cgroup| cgroup::enter(&cgroup.dir, 0))?;
    let payload: Vec<_> = wanted.iter().map(|w| (&w.hierarchy, w.payload.as_path())).collect();
    let payload = cgroup::make_new(&payload, before)?;
    // liblxc does it where cgroup2 is alone.
    if let [cgroup] = payload.as_slice() {
        cgroup::hand_on_controllers(&cgroup.hierarchy.mount, &cgroup.dir);
    }
    confinement.prepare(&payload)?;
    for (cgroup, wanted) in payload.iter().zip(wanted) {
        if let Some(tree) = &wanted.tree {
            tree.make_below(&cgroup.dir)?;
        }
    }
    Ok(Made { monitor, payload })
}

/// The cgroups of [`Wanted::pivot`].
pub fn pivots(wanted: &[Wanted]) -> Result<Vec<Cgroup>> {
    let pivot = |w: &Wanted| -> Result<Cgroup> {
        Ok(Cgroup { hierarchy: w.hierarchy.clone(), dir: cgroup::directory(&w.hierarchy.mount, &w.pivot)? })
    };
    wanted.iter().map(pivot).collect()
}

/// Moves us out of cgroups that are to be removed. (Where liblxc's monitor goes, too: these are never removed.)
pub fn leave(pivots: &[Cgroup]) -> Result<()> {
    pivots.iter().try_for_each(|pivot| {
        cgroup::make_if_missing(pivot)?;
        cgroup::enter(&pivot.dir, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_the_name_it_would_have_had() {
        assert_eq!(payload_path(Path::new("/lxc.payload.t-3"), "t"), Path::new("/lxc.payload.t"));
        assert_eq!(payload_path(Path::new("/base/lxc.payload.t"), "u"), Path::new("/base/lxc.payload.u"));
        assert_eq!(payload_path(Path::new("/own/place"), "t"), Path::new("/own/place"));
    }
}
