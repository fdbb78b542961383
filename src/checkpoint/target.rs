//! The directory that a checkpoint becomes: `DIR.partial` while CRIU writes into it, `DIR` when all of it is there.
//!
//! The change of the name is the step that counts. Before it the directory is half-written, and goes in a failure; from then on it is
//! a checkpoint, which a container may be ended for. What had the name before is swapped for it, and goes last.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::Request;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::record::{self, Memory, Record};
use crate::rollback::{self, Journal, Undo};
use crate::seal::Sealer;
use crate::settings::Settings;
use crate::sys::files;
use crate::{suspended, ttys};

/// The directory in which images are written until they are complete.
pub fn partial(images: &Path) -> PathBuf {
    files::with_suffix(images, rollback::PARTIAL)
}

/// Where the log of a failed dump is kept.
pub fn failed_log(images: &Path) -> PathBuf {
    files::with_suffix(images, rollback::FAILED_LOG)
}

/// Refuses a target that holds something already, before anything is touched.
pub(super) fn check(request: &Request) -> Result<()> {
    let target = &request.images;
    let refuse = |text: String| Failure::msg(Exit::Refused, text);
    match fs::symlink_metadata(target) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::new(Exit::Other, anyhow!(e).context(format!("look at {}", target.display())))),
        Ok(meta) if !meta.is_dir() => {
            return Err(Failure::msg(Exit::Usage, format!("{} is not a directory", target.display()))
                .hint("-D wants a directory, or a path where one can be made"));
        }
        Ok(_) => {}
    }
    files::open_private_dir(target).or_exit(Exit::Other)?;
    let names = files::names(target).or_exit(Exit::Other)?;
    if names.is_empty() || request.replace {
        return Ok(());
    }
    if names.iter().any(|n| [Path::new("inventory.img"), Path::new(record::FILE)].contains(&n.as_path())) {
        return Err(refuse(format!("{} already holds a checkpoint", target.display()))
            .hint("choose another directory, remove that one, or replace it with --overwrite"));
    }
    Err(refuse(format!("{} is not empty", target.display())).hint("choose another directory"))
}

/// Makes the directory that CRIU writes into, and those above it that are missing.
pub(super) fn make(request: &Request, journal: &mut Journal) -> Result<()> {
    let dir = partial(&request.images);
    if let Some(parent) = request.images.parent() {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|e| {
            Failure::new(Exit::Other, anyhow!(e).context(format!("make directory {}", parent.display())))
        })?;
    }
    journal.note(Undo::RemoveImages { path: dir.clone() })?;
    // What a killed command left there.
    rollback::remove_images(&dir)?;
    files::make_private_dir(&dir)?;
    Ok(())
}

/// Makes a checkpoint of the images in `DIR.partial`: record, disk, name. Where the checksums of memory images are to
/// follow, [`add_sums`] does it: the container need not stand still for them.
pub fn seal(
    request: &Request,
    settings: &Settings,
    mut record: Record,
    memory: Memory,
    journal: &mut Journal,
) -> anyhow::Result<Record> {
    let dir = partial(&request.images);
    files::make_private(&dir)?;
    // Better now, while the container can go on, than at its restart.
    ttys::resolve_controlling(&dir, &record.ttys)?;
    record.images = record::measure_images(&dir, memory)?;
    record.write(&dir)?;
    if request.to_be_resumed {
        // It comes and goes with the directory's name: there is no moment at which only one of them is there.
        suspended::mark(&dir)?;
    }
    if settings.sync {
        files::sync_file_system(&dir)?;
    }
    put_in_place(&dir, &request.images)?;
    // The directory under the old name is now a checkpoint that was replaced, or gone.
    if !dir.exists() {
        journal.forget(|u| matches!(u, Undo::RemoveImages { .. }))?;
    }
    Ok(record)
}

/// Completes the record of a checkpoint that is in its place.
pub fn add_sums(request: &Request, record: &mut Record, sealer: Sealer) -> anyhow::Result<()> {
    // What CRIU has written since.
    files::make_private(&request.images)?;
    record.add_sums(&sealer.finish()?);
    record.write(&request.images)
}

/// Takes the name of a checkpoint away again, whose container was not ended after all: it goes on, and what it does from
/// now on is in no image. One that it has replaced gets its name back.
pub fn unseal(request: &Request, journal: &mut Journal) -> anyhow::Result<()> {
    let dir = partial(&request.images);
    let what = || format!("rename {} back to {}", request.images.display(), dir.display());
    if dir.exists() {
        return files::exchange(&request.images, &dir).with_context(what);
    }
    journal.note(Undo::RemoveImages { path: dir.clone() })?;
    fs::rename(&request.images, &dir).with_context(what)
}

/// Gives the directory its name. What has it now is swapped for it in one step.
pub fn put_in_place(from: &Path, to: &Path) -> anyhow::Result<()> {
    let what = || format!("rename {} to {}", from.display(), to.display());
    let replaces = files::names(to).is_ok_and(|names| !names.is_empty());
    if replaces {
        files::exchange(from, to).with_context(what)?;
    } else {
        fs::rename(from, to).with_context(what)?;
    }
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => files::sync_dir(parent),
        _ => files::sync_dir(Path::new(".")),
    }
}
