//! What the kernel says about a container, and what of it a restore has changed.

use std::path::Path;

use lxc_cr::api::inspect::{self, Snapshot, Standing};
use lxc_cr::api::resources::cgroup;

use super::cgroups;
use super::container::Container;

/// Families that need no program in the container to be read.
const OUTSIDE: &[&str] = &["mounts", "files in memory", "network", "namespaces", "cgroups"];

/// Reads it; it has to be frozen.
pub fn snapshot(container: &Container<'_>) -> Snapshot {
    let init = container.init_pid().cast_signed();
    let payload = Path::new(&cgroups::unified()).join(format!("lxc.payload.{}", container.name()));
    let standing = Standing { init, tasks: cgroup::tasks(&payload).unwrap() };
    let mut snapshot = Snapshot::new();
    for family in inspect::FAMILIES.iter().filter(|family| OUTSIDE.contains(&family.name)) {
        (family.read)(&standing, &mut snapshot);
    }
    snapshot
}

/// Where the witness counts, also in the moment between a restore and the freezer.
const COUNTED: &str = "file /dev/shm/witness: ";

/// Each difference in a line: whose, which state, before and after.
pub fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let line = |found: inspect::Difference| {
        let told = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
        format!(
            "{}: {}: {} -> {}",
            found.subject,
            found.state.name,
            told(found.before),
            told(found.after)
        )
    };
    inspect::compare(before, after)
        .into_iter()
        .map(line)
        .filter(|line| !line.starts_with(COUNTED))
        .collect()
}
