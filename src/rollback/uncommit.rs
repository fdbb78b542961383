//! Taking the name of a checkpoint away again, whose container was not ended after all: it goes on,
//! and what it does from now on is in no image. A restart, or a resume at boot, would put memory of
//! the past on top of its disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::Undo;
use crate::rollback::killed_dump::Seized;
use crate::store::layout::PARTIAL;
use crate::sys::files;

/// How the checkpoint that is about to get this name loses it.
///
/// # Errors
/// When the directory in which it was written cannot be looked at.
pub(crate) fn of(images: &Path, container: &Seized) -> Result<Undo> {
    let partial = files::with_suffix(images, PARTIAL);
    let meta = fs::metadata(&partial).with_context(|| format!("stat {}", partial.display()))?;
    let inode = meta.ino().cast_signed();
    Ok(Undo::Unseal { images: images.to_owned(), inode, container: Box::new(container.clone()) })
}

/// Gives the directory the name back under which it was written, where it is removed as any that
/// was not completed. A checkpoint that it has replaced has that name meanwhile, and gets its own
/// back. Says whether there was something to do.
pub(super) fn unseal(images: &Path, inode: i64, container: &Seized) -> Result<bool> {
    let is_it = fs::symlink_metadata(images)
        .is_ok_and(|meta| meta.is_dir() && meta.ino().cast_signed() == inode);
    if !is_it || !container.goes_on() {
        return Ok(false);
    }
    let partial = files::with_suffix(images, PARTIAL);
    let renamed = match fs::symlink_metadata(&partial).is_ok() {
        true => files::exchange(images, &partial),
        false => fs::rename(images, &partial),
    };
    renamed
        .with_context(|| format!("rename {} back to {}", images.display(), partial.display()))?;
    // A mark for the next boot has gone with it.
    files::sync_dir(
        images.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    )?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollback::Journal;
    use crate::sys::process::Process;

    fn container(goes_on: bool) -> Seized {
        let us = Process::open(std::process::id() as i32).unwrap();
        let start_time = if goes_on { us.start_time() } else { us.start_time() + 1 };
        Seized { init: us.pid(), start_time, cgroup: None, frozen: false }
    }

    fn checkpoint(dir: &Path, content: &str) {
        files::make_private_dir(dir).unwrap();
        fs::write(dir.join("inventory.img"), content).unwrap();
    }

    /// A checkpoint that has got its name, beside one that it has replaced or nothing, and then the
    /// command was killed.
    fn sealed(top: &Path, replaces: bool, container: &Seized) -> Journal {
        let (images, partial) = (top.join("dump"), top.join("dump.partial"));
        let mut journal = Journal::open(&top.join("journal")).unwrap();
        journal.note(Undo::RemoveImages { path: partial.clone() }).unwrap();
        checkpoint(&partial, "new");
        journal.note(of(&images, container).unwrap()).unwrap();
        if replaces {
            checkpoint(&images, "old");
            files::exchange(&partial, &images).unwrap();
        } else {
            fs::rename(&partial, &images).unwrap();
        }
        drop(journal);
        Journal::open(&top.join("journal")).unwrap()
    }

    fn content(images: &Path) -> Option<String> {
        fs::read_to_string(images.join("inventory.img")).ok()
    }

    #[test]
    fn a_container_that_goes_on_has_the_checkpoint_that_it_had_before() {
        for replaces in [false, true] {
            let top = tempfile::tempdir().unwrap();
            let images = top.path().join("dump");
            let mut journal = sealed(top.path(), replaces, &container(true));
            let steps = journal.steps().to_vec();
            journal.play_back().unwrap();
            assert_eq!(content(&images), replaces.then(|| "old".to_owned()));
            assert!(!top.path().join("dump.partial").exists());
            // Twice, as after a crash in the middle of that.
            steps.into_iter().for_each(|step| journal.note(step).unwrap());
            journal.play_back().unwrap();
            assert_eq!(content(&images), replaces.then(|| "old".to_owned()));
        }
    }

    #[test]
    fn one_that_was_ended_keeps_the_new_one() {
        for replaces in [false, true] {
            let top = tempfile::tempdir().unwrap();
            sealed(top.path(), replaces, &container(false)).play_back().unwrap();
            assert_eq!(content(&top.path().join("dump")).as_deref(), Some("new"));
            assert!(!top.path().join("dump.partial").exists());
        }
    }

    #[test]
    fn another_directory_of_that_name_is_spared() {
        let top = tempfile::tempdir().unwrap();
        let images = top.path().join("dump");
        let mut journal = sealed(top.path(), false, &container(true));
        fs::rename(&images, top.path().join("kept")).unwrap();
        checkpoint(&images, "of somebody else");
        journal.play_back().unwrap();
        assert_eq!(content(&images).as_deref(), Some("of somebody else"));
    }
}
