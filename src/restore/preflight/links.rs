//! Symbolic links on the way to what CRIU makes, binds or mounts upon in the root.
//!
//! The paths of the images had none when they were written: whoever has put one there since turns
//! CRIU elsewhere. CRIU follows none ([`links`](crate::restore::links)) and would give up in the
//! middle; here it is told beforehand, and why.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Reason;
use crate::criu::images::{self, Mount};
use crate::store::record::Record;
use crate::sys::in_root::Below;

/// Names each of them once.
pub(super) fn in_the_way(dir: &Path, root: &Path, record: Option<&Record>) -> Result<Vec<Reason>> {
    let inside = Below::open(root).with_context(|| format!("open the root {}", root.display()))?;
    let mut found = BTreeSet::new();
    for (what, path) in ways(dir)? {
        let link = inside
            .link_on(&path)
            .with_context(|| format!("inspect {} in the root", path.display()))?;
        found.extend(link.map(|link| {
            format!("{what}, and on the way there {} is a symbolic link", link.display())
        }));
    }
    for external in record.iter().flat_map(|r| &r.externals) {
        let source = external.source.display();
        let link = Below::host().and_then(|host| host.link_on(&external.source));
        match link {
            Ok(Some(link)) => {
                let (point, link) = (external.point.display(), link.display());
                found.insert(format!(
                    "{source} was mounted on {point}, and {link} is a symbolic link by now"
                ));
            }
            Ok(None) => {}
            // That it is gone is told elsewhere.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("stat {source}")),
        }
    }
    Ok(found.into_iter().map(Reason::certain).collect())
}

/// What CRIU goes to in the file system of the root, and why.
fn ways(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut ways = Vec::new();
    let ghosts = images::made_again(dir)?;
    for (_, mounts) in images::all_mounts(dir)? {
        let Some(root) = mounts.iter().find(|m| m.point == Path::new("/")) else { continue };
        let within = |mount: &Mount, path: &Path| {
            // A path of the container, as it is in the root's file system.
            let begin = mount.root.strip_prefix(&root.root).ok()?;
            let below = path.strip_prefix(&mount.point).ok()?;
            (mount.device == root.device && mount.external.is_none())
                .then(|| Path::new("/").join(begin).join(below))
        };
        for mount in mounts.iter().filter(|m| m.id != root.id) {
            let point = mount.point.display();
            if let Some(path) =
                mounts.iter().find(|m| m.id == mount.parent).and_then(|on| within(on, &mount.point))
            {
                ways.push((format!("something was mounted on {point}"), path));
            }
            if let Some(path) = within(mount, &mount.point) {
                ways.push((format!("{} of the root was mounted on {point}", path.display()), path));
            }
        }
        for ghost in &ghosts {
            let on = mounts.iter().find(|m| Some(m.id) == ghost.mount);
            if let Some(path) = on.and_then(|on| within(on, &ghost.path)) {
                ways.push((
                    format!("{}, which was open and deleted, is made again", ghost.path.display()),
                    path,
                ));
            }
        }
    }
    Ok(ways)
}
