//! The checkpoint, opened: is it one, whole, and nobody else's to change?
//!
//! Whatever can be checked in no time is checked here: the directory, the record, the sizes of all
//! images, the content of the small ones. The content of memory is compared while CRIU works, or
//! before a container that runs is [replaced](super::replace).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::failure::damaged;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::rollback::{Journal, Undo, lock};
use crate::store::checksums::Image;
use crate::store::layout::PARENT;
use crate::store::parents::Parents;
use crate::store::record::Record;
use crate::sys::files;

/// How long another container's restore from the same checkpoint is waited for.
const OTHER_RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// A checkpoint that is held against removal while this is open.
#[derive(Debug)]
pub(super) struct Opened {
    /// What holds it.
    pub held: File,
    /// Its record; none where another program wrote it.
    pub record: Option<Record>,
}

/// Opens, checks and holds the checkpoint in a directory.
///
/// # Errors
/// The failure of a restore: it is none, it is damaged, or others can change it.
pub(super) fn open(dir: &Path) -> Result<Opened> {
    let unusable = |text: String| Failure::msg(Exit::BadCheckpoint, text);
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Failure::msg(Exit::Usage, format!("{} is not a directory", dir.display())));
        }
        Err(e) => {
            return Err(Failure::new(
                Exit::BadCheckpoint,
                anyhow!(e).context(format!("open {}", dir.display())),
            )
            .hint(
                "-D names the directory of a checkpoint; without it, LXCPATH/NAME/dump is used",
            ));
        }
    }
    files::open_private_dir(dir).or_exit(Exit::BadCheckpoint)?;
    if !dir.join("inventory.img").is_file() {
        return Err(unusable(format!("{} holds no checkpoint", dir.display())));
    }
    let held = lock::hold_images(dir, OTHER_RESTORE_LIMIT)?;
    files::check_content(dir, &[PARENT]).or_exit(Exit::BadCheckpoint)?;
    let Some(record) = Record::read(dir).or_exit(Exit::BadCheckpoint)? else {
        return Ok(Opened { held, record: None });
    };
    if record.memory_only {
        return Err(unusable(format!(
            "{} holds a copy of memory and no checkpoint",
            dir.display()
        ))
        .hint("restart the checkpoint that builds on it (lxc-checkpoint --predump-dir)"));
    }
    let damaged = |e: anyhow::Error| damaged(dir, e);
    let parents = Parents::of(dir).map_err(damaged)?;
    record.check_sizes(dir).and_then(|()| parents.check_sizes()).map_err(damaged)?;
    let small = |i: &Image| !i.is_memory();
    record
        .check_content(dir, small)
        .and_then(|()| parents.check_content(small))
        .map_err(damaged)?;
    Ok(Opened { held, record: Some(record) })
}

/// CRIU reads images in the container's user namespace, too, as the root of that: while it works,
/// that root's group may read them. Gives the directories that were changed.
pub(super) fn lend_images(
    dir: &Path,
    defined: &Defined,
    journal: &mut Journal,
) -> Result<Vec<PathBuf>> {
    let Some(guest) = defined.config.guest() else { return Ok(Vec::new()) };
    let mut dirs = vec![dir.to_owned()];
    dirs.extend(Parents::of(dir)?.directories().map(Path::to_owned));
    for dir in &dirs {
        journal.note(Undo::TakeBackImages { dir: dir.clone() })?;
        files::lend_to_group(dir, guest.gid)?;
    }
    Ok(dirs)
}
