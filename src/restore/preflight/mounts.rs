//! What was mounted from the host, and where it was mounted: both have to be there.
//!
//! CRIU makes neither and gives up in the middle. LXC makes mount points only where `create=` says
//! so, and passes over a source that is missing where `optional` says so; but that was at the
//! start, and programs have files open there.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use super::Reason;
use crate::criu::images::{self, Mount, NamespaceIds};
use crate::resources::mounts::identity::{Difference, Identity, Kind};
use crate::resources::mounts::{External, table};
use crate::store::record::Record;
use crate::sys::in_root::Below;

/// Compares the mounts of a checkpoint with what is there, in the root and on the host.
pub(super) fn missing(dir: &Path, root: &Path, record: Option<&Record>) -> Result<Vec<Reason>> {
    let Some(mntns) = NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?.mnt else {
        return Ok(Vec::new());
    };
    let mounts = match images::mounts(dir, mntns) {
        Ok(mounts) => mounts,
        // It was in the host's mount namespace.
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let inside = Below::open(root).with_context(|| format!("open the root {}", root.display()))?;
    let host = table(std::process::id().cast_signed())?;
    let mut reasons = Vec::new();
    for mount in mounts.iter().filter(|m| lies_in_root(m, &mounts)) {
        let point = mount.point.display();
        match inside.look(&mount.point) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                reasons.push(Reason::certain(format!(
                    "{point}, on which something was mounted, is gone"
                )));
            }
            Err(e) => return Err(e).with_context(|| format!("inspect {point} in the container")),
        }
    }
    for external in record.iter().flat_map(|r| &r.externals) {
        let of_cgroups = |m: &Mount| m.point == external.point && m.kind.starts_with("cgroup");
        // Its own cgroups are made anew.
        if mounts.iter().any(of_cgroups) {
            continue;
        }
        reasons.extend(changed(external, &host)?);
    }
    Ok(reasons)
}

/// What is at an external's source now, if it is not what was there at the checkpoint.
fn changed(
    external: &External,
    host: &[crate::resources::mounts::Mount],
) -> Result<Option<Reason>> {
    let (source, point) = (external.source.display(), external.point.display());
    let now = match Identity::of(&external.source, host) {
        Ok(now) => now,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Some(Reason::certain(format!(
                "{source}, which was mounted on {point}, is gone"
            ))));
        }
        Err(e) => return Err(e).with_context(|| format!("stat {source}")),
    };
    let Some(then) = &external.identity else { return Ok(None) };
    let is = now.kind.in_words();
    let reason = match then.differs_from(&now) {
        None => return Ok(None),
        Some(Difference::Kind) => {
            let was = then.kind.in_words();
            Reason::certain(format!(
                "{source}, which was mounted on {point}, was a {was} and is a {is} now"
            ))
        }
        Some(Difference::FileSystem) => Reason::doubtful(format!(
            "{source}, which was mounted on {point}, is on another file system now ({}; it was {})",
            now.file_system, then.file_system
        )),
        // As a program that is restarted would see it.
        Some(Difference::Replaced) if now.kind == Kind::File => Reason::note(format!(
            "{source}, which was mounted on {point}, was replaced since: the container sees the \
             new file"
        )),
        Some(Difference::Replaced) => {
            Reason::doubtful(format!("{source}, which was mounted on {point}, is another {is} now"))
        }
    };
    Ok(Some(reason))
}

/// Whether a mount's place is in the root itself, and not in something that CRIU mounts.
fn lies_in_root(mount: &Mount, mounts: &[Mount]) -> bool {
    let root = mounts.iter().find(|m| m.point == Path::new("/"));
    root.is_some_and(|root| mount.parent == root.id && mount.id != root.id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mount_point_that_is_gone_is_named() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/suspended");
        let root = tempfile::tempdir().unwrap();
        for point in ["dev", "proc", "sys"] {
            fs::create_dir(root.path().join(point)).unwrap();
        }
        assert_eq!(missing(&dir, root.path(), None).unwrap(), []);
        fs::remove_dir(root.path().join("sys")).unwrap();
        let found = missing(&dir, root.path(), None).unwrap();
        assert_eq!(found, [Reason::certain("/sys, on which something was mounted, is gone")]);
    }
}
