//! The cgroups of a container that is restored and of its monitor, in each hierarchy: what they are
//! called, and how they come to be.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::lxc::config::Config;
use crate::lxc::config::system::{SYSTEM_CONFIG, SystemConfig};
use crate::lxc::home::Names;
use crate::resources::cgroup::confine::Confinement;
use crate::resources::cgroup::{self, Cgroup, Hierarchy, Tree};
use crate::store::record::Record;

/// What is wanted in one hierarchy. Paths begin at its root; the last component gets a number where
/// it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The container's cgroup, with the limits.
    pub payload: PathBuf,
    /// Where its tasks begin below that.
    pub inner: PathBuf,
    /// The monitor's.
    pub monitor: PathBuf,
    /// Where the monitor goes before its cgroup is removed.
    pub pivot: PathBuf,
    /// Payload and monitor have these very names, or are not made.
    pub exact: bool,
    /// What was recorded of the container's.
    pub tree: Option<Tree>,
}

/// Decides, for all hierarchies of this host; cgroup2 is the first. They are where LXC would put
/// them at a start now; only the inner part is what it was, for the images know it.
pub(crate) fn plan(name: &str, config: &Config, record: Option<&Record>) -> Result<Vec<Wanted>> {
    let pattern = SystemConfig::load(Path::new(SYSTEM_CONFIG))?.cgroup_pattern;
    let Names { payload, inner, monitor, pivot, exact } =
        Names::new(name, config, pattern.as_deref());
    let mut wanted = Vec::new();
    for hierarchy in cgroup::hierarchies()? {
        let tree = record.and_then(|r| r.cgroups().find(|t| t.is_in(&hierarchy))).cloned();
        let base = match config.cgroup_relative() {
            true => cgroup::own_base(&hierarchy)?,
            false => cgroup::base(&hierarchy)?,
        };
        wanted.push(Wanted {
            payload: base.join(&payload),
            inner: tree.as_ref().map_or_else(|| inner.clone(), |tree| tree.inner.clone()),
            monitor: base.join(&monitor),
            pivot: base.join(&pivot),
            exact,
            hierarchy,
            tree,
        });
    }
    Ok(wanted)
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    /// The monitor's, in which we are.
    pub monitor: Vec<Cgroup>,
    /// The container's; cgroup2's is the first.
    pub payload: Vec<Cgroup>,
}

/// Makes the monitor's cgroups and goes there; makes the container's with all that is below them.
/// `note` hears of both.
pub(crate) fn make(
    wanted: &[Wanted],
    confinement: &Confinement,
    note: cgroup::Note<'_>,
) -> Result<Made> {
    let monitor: Vec<_> = wanted.iter().map(|w| (&w.hierarchy, w.monitor.as_path())).collect();
    let exact = wanted.iter().any(|w| w.exact);
    let monitor = cgroup::make_new(&monitor, exact, note)?;
    monitor.iter().try_for_each(|cgroup| cgroup::enter(&cgroup.dir, 0))?;
    Ok(Made { monitor, payload: make_payload(wanted, confinement, note)? })
}

/// Makes the container's cgroups with all that is below them.
pub(crate) fn make_payload(
    wanted: &[Wanted],
    confinement: &Confinement,
    note: cgroup::Note<'_>,
) -> Result<Vec<Cgroup>> {
    let exact = wanted.iter().any(|w| w.exact);
    let payload: Vec<_> = wanted.iter().map(|w| (&w.hierarchy, w.payload.as_path())).collect();
    let mut payload = cgroup::make_new(&payload, exact, note)?;
    for (cgroup, wanted) in payload.iter_mut().zip(wanted) {
        cgroup.inner.clone_from(&wanted.inner);
    }
    // liblxc does it where cgroup2 is alone.
    if let [cgroup] = payload.as_slice() {
        cgroup::hand_on_controllers(&cgroup.hierarchy.mount, &cgroup.home());
    }
    confinement.prepare(&payload)?;
    for cgroup in &payload {
        cgroup::make_if_missing(&Cgroup::plain(cgroup.hierarchy.clone(), cgroup.home()))?;
    }
    for (cgroup, wanted) in payload.iter().zip(wanted) {
        if let Some(tree) = &wanted.tree {
            tree.make_below(&cgroup.dir)?;
        }
    }
    Ok(payload)
}

/// The cgroups of [`Wanted::pivot`].
pub(crate) fn pivots(wanted: &[Wanted]) -> Result<Vec<Cgroup>> {
    let pivot = |w: &Wanted| -> Result<Cgroup> {
        Ok(Cgroup::plain(w.hierarchy.clone(), cgroup::directory(&w.hierarchy.mount, &w.pivot)?))
    };
    wanted.iter().map(pivot).collect()
}

/// Moves us out of cgroups that are to be removed. (Where liblxc's monitor goes, too: these are
/// never removed.)
pub(crate) fn leave(pivots: &[Cgroup]) -> Result<()> {
    pivots.iter().try_for_each(|pivot| {
        cgroup::make_if_missing(pivot)?;
        cgroup::enter(&pivot.dir, 0)
    })
}
