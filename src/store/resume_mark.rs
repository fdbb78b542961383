//! What `lxc-cr suspend` has suspended, for `lxc-cr resume` to bring back: a mark in the
//! container's own checkpoint.
//!
//! Memory must never be put on top of a disk that has gone on since. So the mark lies in the
//! directory of the checkpoint itself: it comes into being with its name, and another checkpoint
//! that takes this place has none. And whatever lets the container run strikes it out before: a
//! restart when all is restored and nothing has run yet, a start by our pre-start hook. A
//! checkpoint that LXC's tools or `lxc-checkpoint` made never has a mark.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::store::layout::RESUME_MARK;
use crate::sys::files;

/// Where a suspended container's checkpoint is, in its own directory.
pub(crate) const DIR: &str = "dump";

/// What makes a directory that of a checkpoint.
const INVENTORY: &str = "inventory.img";
/// What makes a directory that of a container.
const CONFIG: &str = "config";
const CONTENT: &str =
    "lxc-cr resume brings this checkpoint back. This file goes when the container runs.\n";

/// Where a container's checkpoint is when it is suspended.
pub(crate) fn dir(container: &Path) -> PathBuf {
    container.join(DIR)
}

/// Marks a checkpoint as one to be resumed.
pub(crate) fn mark(images: &Path) -> Result<()> {
    files::write_atomically(&images.join(RESUME_MARK), CONTENT.as_bytes())
}

/// Whether the checkpoint in a container's directory is to be resumed. One that others could have
/// put there is not.
pub(crate) fn is_marked(container: &Path) -> Result<bool> {
    let images = dir(container);
    let marker = images.join(RESUME_MARK);
    match marker.symlink_metadata() {
        Ok(_) => files::open_private_dir(&images).map(|_| true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(e) => Err(e).with_context(|| format!("stat {}", marker.display())),
    }
}

/// Whether `lxc-cr resume` brings this checkpoint back, at boot or when it is asked to: it has the
/// mark, and lies where a suspended container's checkpoint is. What others could have put there is
/// not believed, here as there.
pub(crate) fn is_to_be_resumed(images: &Path) -> bool {
    let container = images
        .parent()
        .filter(|container| dir(container) == images && container.join(CONFIG).exists());
    container.is_some_and(|container| is_marked(container).unwrap_or(false))
}

/// From now on what was suspended is of the past: on the disk, before anything of the container
/// runs. Says whether there was a mark.
pub(crate) fn clear_mark(container: &Path) -> Result<bool> {
    if !is_marked(container)? {
        return Ok(false);
    }
    let images = dir(container);
    files::remove_if_there(&images.join(RESUME_MARK))?;
    files::sync_dir(&images)?;
    Ok(true)
}

/// A restore that has struck the mark out was cut short: the mark is made again, unless the
/// container may have run since. Says what came of it; nothing where its checkpoint is gone, or has
/// a mark.
pub(crate) fn take_back(container: &Path, has_run: bool) -> Result<Option<String>> {
    let images = dir(container);
    if !images.join(INVENTORY).exists() || is_marked(container)? {
        return Ok(None);
    }
    if has_run {
        let text = "is not resumed at boot any more: the container was about to run from it; \
                    lxc-restart brings it back";
        return Ok(Some(format!("{} {text}", images.display())));
    }
    mark(&images)?;
    Ok(Some(format!("{} is resumed at the next boot, as before", images.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_struck_out_once_and_goes_with_its_directory() {
        let top = tempfile::tempdir().unwrap();
        let images = dir(top.path());
        assert!(!is_marked(top.path()).unwrap() && !clear_mark(top.path()).unwrap());
        let partial = files::with_suffix(&images, ".partial");
        files::make_private_dir(&partial).unwrap();
        mark(&partial).unwrap();
        assert!(!is_marked(top.path()).unwrap());
        std::fs::rename(&partial, &images).unwrap();
        assert!(is_marked(top.path()).unwrap());
        assert!(clear_mark(top.path()).unwrap());
        assert!(!is_marked(top.path()).unwrap() && !clear_mark(top.path()).unwrap());
    }

    #[test]
    fn a_mark_that_was_struck_out_too_early_comes_back() {
        let top = tempfile::tempdir().unwrap();
        let images = dir(top.path());
        assert_eq!(take_back(top.path(), false).unwrap(), None, "no checkpoint");
        files::make_private_dir(&images).unwrap();
        std::fs::write(images.join(INVENTORY), "").unwrap();
        assert!(take_back(top.path(), true).unwrap().unwrap().contains("not resumed"));
        assert!(!is_marked(top.path()).unwrap());
        assert!(take_back(top.path(), false).unwrap().unwrap().contains("as before"));
        assert!(is_marked(top.path()).unwrap());
        assert_eq!(take_back(top.path(), true).unwrap(), None);
    }

    #[test]
    fn only_a_containers_own_checkpoint_is_resumed() {
        let top = tempfile::tempdir().unwrap();
        let container = top.path().join("web");
        let (own, other) = (dir(&container), container.join("before"));
        for images in [&own, &other] {
            std::fs::create_dir_all(&container).unwrap();
            files::make_private_dir(images).unwrap();
            mark(images).unwrap();
        }
        assert!(!is_to_be_resumed(&own), "nothing is defined there");
        std::fs::write(container.join("config"), "").unwrap();
        assert!(is_to_be_resumed(&own) && !is_to_be_resumed(&other));
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&own, everybody).unwrap();
        assert!(!is_to_be_resumed(&own), "anybody could have written it");
    }

    #[test]
    fn a_link_in_its_place_is_not_believed() {
        let top = tempfile::tempdir().unwrap();
        let elsewhere = top.path().join("elsewhere");
        files::make_private_dir(&elsewhere).unwrap();
        mark(&elsewhere).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir(top.path())).unwrap();
        assert!(is_marked(top.path()).is_err() && clear_mark(top.path()).is_err());
        assert!(elsewhere.join(RESUME_MARK).exists());
    }
}
