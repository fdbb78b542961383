//! Deleted files that a restore would have to make again through a symbolic link.

use std::path::Path;

use anyhow::{Context, Result};

use crate::criu::images::{self, NamespaceIds};
use crate::report::shown;
use crate::sys::in_root::Below;

/// A deleted file that a restore could not make again.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file} is open and deleted, and a restore would make it again through the symbolic link {link}"
)]
pub(crate) struct BehindLink {
    file: String,
    link: String,
}

/// What is deleted and still open CRIU makes again in a restore, under its last name. Now that all
/// stands still it can be seen, in memory too, whether that name leads elsewhere by now: then a
/// restore, which follows no link, would fail.
///
/// Says whether all of it could be seen: from init's mount namespace, and under no other mount.
pub(super) fn refuse(images: &Path, init: i32) -> Result<bool> {
    let root = Below::of_process(init).context("open the container's root")?;
    let mut all_seen = true;
    let mut mounts = match NamespaceIds::of_task(images, images::root_of_tree(images)?)?.mnt {
        Some(mntns) => images::mounts(images, mntns)
            .or_else(|e| if e.is_not_found() { Ok(Vec::new()) } else { Err(e) })?,
        None => Vec::new(),
    };
    mounts.sort_by_key(|mount| mount.point.components().count());
    for file in images::made_again(images)? {
        let path = shown(&file.path.to_string_lossy());
        if let Some(link) =
            root.link_on(&file.path).with_context(|| format!("inspect {path} in the container"))?
        {
            return Err(BehindLink { file: path, link: shown(&link.to_string_lossy()) }.into());
        }
        all_seen &= mounts
            .iter()
            .rfind(|m| file.path.starts_with(&m.point))
            .is_some_and(|m| Some(m.id) == file.mount);
    }
    Ok(all_seen)
}
