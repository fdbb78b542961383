//! Where `-D DIR` leads when DIR is not for one checkpoint alone: to `DIR/lxc-cr/NAME`.
//!
//! Proxmox VE's `pct suspend` and `pct resume` name the same directory for all containers, the one
//! in which the backups lie. So what holds other things is a shared_dir with a place for each
//! container, and so is that very directory while it is empty. The checkpoint in a container's
//! place is replaced by its next one if it was restarted since; one that was not is still good for
//! something, and stays until somebody moves it away.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lxc::name::{ContainerName, LxcPath};
use crate::store::layout::{self, RESTARTED};
use crate::store::record::Record;
use crate::sys::files;

/// The directory of all places on a shared_dir.
const PLACES: &str = "lxc-cr";
/// Where Proxmox VE keeps backups, and has a container's images, too.
const OF_PROXMOX: &str = "/var/lib/vz/dump";
const CONTENT: &str =
    "This checkpoint was restarted: the container's next one may take its place.\n";

/// The directory of a new checkpoint that is asked for in `dir`, and whether it is a place on a
/// shared_dir.
pub(crate) fn for_checkpoint(dir: &Path, name: &ContainerName) -> Result<(PathBuf, bool)> {
    let shelved = dir == Path::new(OF_PROXMOX) || (!holds_checkpoint(dir) && !is_empty(dir)?);
    Ok(if shelved { (place(dir, name), true) } else { (dir.to_owned(), false) })
}

/// The directory of the checkpoint that is asked for in `dir`.
pub(crate) fn for_restart(dir: &Path, name: &ContainerName) -> PathBuf {
    let place = place(dir, name);
    if !holds_checkpoint(dir) && place.is_dir() { place } else { dir.to_owned() }
}

/// Whether a directory is a container's place on a shared_dir.
pub(crate) fn is_place(images: &Path, name: &ContainerName) -> bool {
    images.parent().and_then(Path::parent).is_some_and(|dir| place(dir, name) == images)
}

/// Notes that the checkpoint in a place was restarted.
pub(crate) fn note_restart(images: &Path) -> Result<()> {
    files::write_atomically(&images.join(RESTARTED), CONTENT.as_bytes())
}

/// What is in a container's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum There {
    /// Nothing, or one of its own that was restarted.
    Free,
    /// One of its own that was not restarted.
    Waiting,
    /// One of another container, in this LXC path.
    Anothers(PathBuf),
}

/// Looks into a place, before a checkpoint is made there.
pub(crate) fn look(images: &Path, name: &ContainerName, lxcpath: &LxcPath) -> Result<There> {
    if !holds_checkpoint(images) {
        return Ok(There::Free);
    }
    files::open_private_dir(images)?;
    if let Some(record) = Record::read(images)?
        && (record.container.name.as_str(), record.container.lxcpath.as_path())
            != (name.as_str(), lxcpath.as_path())
    {
        return Ok(There::Anothers(record.container.lxcpath));
    }
    Ok(if images.join(RESTARTED).exists() { There::Free } else { There::Waiting })
}

fn place(dir: &Path, name: &ContainerName) -> PathBuf {
    dir.join(PLACES).join(name.as_str())
}

fn holds_checkpoint(dir: &Path) -> bool {
    ["inventory.img", layout::RECORD].iter().any(|file| dir.join(file).exists())
}

fn is_empty(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // What is to be made, or is refused later by what it is.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(true)
        }
        Err(e) => Err(e).with_context(|| format!("list {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_holds_other_things_is_a_shelf() {
        let top = tempfile::tempdir().unwrap();
        let (dir, name) = (top.path().join("dump"), ContainerName::new("101").unwrap());
        let own = dir.join("lxc-cr/101");
        assert_eq!(for_checkpoint(&dir, &name).unwrap(), (dir.clone(), false), "it is to be made");
        fs::create_dir(&dir).unwrap();
        assert_eq!(for_checkpoint(&dir, &name).unwrap(), (dir.clone(), false), "it is empty");
        fs::write(dir.join("backup.tar"), "").unwrap();
        assert_eq!(for_checkpoint(&dir, &name).unwrap(), (own.clone(), true));
        assert_eq!(for_restart(&dir, &name), dir, "there is nothing yet");
        fs::create_dir_all(&own).unwrap();
        assert_eq!(for_restart(&dir, &name), own);
        assert!(is_place(&own, &name) && !is_place(&dir, &name));
        fs::write(dir.join("inventory.img"), "").unwrap();
        assert_eq!(
            for_checkpoint(&dir, &name).unwrap(),
            (dir.clone(), false),
            "it is a checkpoint itself"
        );
        assert_eq!(for_restart(&dir, &name), dir);
        let proxmox = Path::new(OF_PROXMOX);
        assert_eq!(for_checkpoint(proxmox, &name).unwrap(), (proxmox.join("lxc-cr/101"), true));
    }

    #[test]
    fn one_that_was_restarted_may_be_replaced() {
        let top = tempfile::tempdir().unwrap();
        let name = ContainerName::new("101").unwrap();
        let lxcpath = LxcPath::new(Path::new("/var/lib/lxc")).unwrap();
        let images = top.path().join("101");
        let there = || look(&images, &name, &lxcpath).unwrap();
        assert_eq!(there(), There::Free);
        files::make_private_dir(&images).unwrap();
        fs::write(images.join("inventory.img"), "").unwrap();
        assert_eq!(there(), There::Waiting);
        note_restart(&images).unwrap();
        assert_eq!(there(), There::Free);
    }
}
