//! The directory that a checkpoint becomes: `DIR.partial` while CRIU writes into it, `DIR` when all
//! of it is there.
//!
//! The change of the name is the step that counts. Before it the directory is half-written, and
//! goes in a failure; from then on it is a checkpoint, which a container may be ended for; one that
//! is not ended after all takes the name away again ([`uncommit`](crate::rollback::uncommit)). What
//! had the name before is swapped for it, and goes last.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fstat, fsync, mkdirat, openat, renameat_with, statat,
};

use super::Request;
use crate::criu::images::{self, DumpStats};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::lxc::shell;
use crate::preflight::entry::check_places;
use crate::resources::terminals;
use crate::rollback::{Journal, Undo, lock};
use crate::settings::Settings;
use crate::store::checksums::{self, Memory};
use crate::store::hasher::Sealer;
use crate::store::history::History;
use crate::store::parents::{self, Parents};
use crate::store::record::Record;
use crate::store::register::Register;
use crate::store::{known, layout, list, resume_mark, shared_dir};
use crate::sys::{files, path_trust};

/// The directory in which images are written until they are complete.
pub(crate) fn partial(images: &Path) -> PathBuf {
    files::with_suffix(images, layout::PARTIAL)
}

/// Where the log of a failed dump is kept.
pub(crate) fn failed_log(images: &Path) -> PathBuf {
    files::with_suffix(images, layout::FAILED_LOG)
}

/// Refuses a target that holds something already, before anything is touched. A checkpoint that is
/// to be replaced is held until that is done: no command may read it meanwhile.
pub(super) fn check(request: &Request, defined: &Defined) -> Result<Option<fs::File>> {
    check_above(request, defined)?;
    let target = &request.images;
    let refuse = |text: String| Failure::msg(Exit::Refused, text);
    match fs::symlink_metadata(target) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Failure::new(
                Exit::Other,
                anyhow!(e).context(format!("stat {}", target.display())),
            ));
        }
        Ok(meta) if !meta.is_dir() => {
            return Err(Failure::msg(
                Exit::Usage,
                format!("{} is not a directory", target.display()),
            )
            .hint("-D wants a directory, or a path where one can be made"));
        }
        Ok(_) => {}
    }
    files::open_private_dir(target).or_exit(Exit::Other)?;
    if is_mount_point(target).or_exit(Exit::Other)? {
        return Err(refuse(format!(
            "{} is a mount point, and could not be given its name",
            target.display()
        ))
        .hint("choose a directory in it"));
    }
    let names = files::names(target).or_exit(Exit::Other)?;
    if names.is_empty() {
        return Ok(None);
    }
    if !names
        .iter()
        .any(|n| [Path::new("inventory.img"), Path::new(layout::RECORD)].contains(&n.as_path()))
    {
        return Err(
            refuse(format!("{} is not empty", target.display())).hint("choose another directory")
        );
    }
    if !request.replace {
        return Err(refuse(format!("{} already holds a checkpoint", target.display()))
            .hint("choose another directory, remove that one, or replace it with --overwrite"));
    }
    let held = lock::hold_images(target, Duration::ZERO)?;
    if let Some(other) = names.iter().find(|n| !layout::belongs(n)) {
        let text = format!(
            "{} holds '{}', too, which is not of a checkpoint",
            target.display(),
            other.display()
        );
        return Err(refuse(text).hint("move that away, or choose another directory"));
    }
    if let Some(other) = list::built_upon(target).or_exit(Exit::Other)? {
        return Err(refuse(format!("{} builds on {}", other.display(), target.display()))
            .hint("remove that one first, or choose another directory"));
    }
    Ok(Some(held))
}

/// Refuses copies of memory that are not there, or that the new checkpoint takes the place of:
/// nothing would be left of what it builds on.
pub(super) fn check_parent(request: &Request, defined: &Defined) -> Result<()> {
    let Some(parent) = &request.parent_images else { return Ok(()) };
    let refuse = |text: String| Failure::msg(Exit::Refused, text);
    // CRIU takes it from the directory that it writes into, which is not there yet.
    let dir = match (parent.strip_prefix(".."), request.images.parent()) {
        (Ok(rest), Some(beside)) => beside.join(rest),
        _ => partial(&request.images).join(parent),
    };
    let missing = |e: std::io::Error| {
        Failure::new(
            Exit::Refused,
            anyhow!(e).context(format!("find the copy of memory {}", dir.display())),
        )
        .hint("--predump-dir takes it relative to the new directory: ../NAME for one beside it")
    };
    let dir = dir.canonicalize().map_err(missing)?;
    let _dir = check_places(defined, &dir)?;
    files::open_private_dir(&dir).or_exit(Exit::BadCheckpoint)?;
    let line = Parents::of(&dir).or_exit(Exit::BadCheckpoint)?;
    line.check_sizes().or_exit(Exit::BadCheckpoint)?;
    let Ok(target) = request.images.canonicalize() else { return Ok(()) };
    match dir == target || line.directories().any(|part| part == target) {
        true => Err(refuse(format!("it would build on {}, and take its place", target.display()))
            .hint("choose another directory for the new one")),
        false => Ok(()),
    }
}

/// Whether something is mounted on a directory.
fn is_mount_point(dir: &Path) -> std::io::Result<bool> {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev() || dir == Path::new("/"))
}

/// Refuses a place whose directory is not there: it may be that of a disk that is not mounted, and
/// all directories would be made, and filled, where the disk should be. In the container's own
/// directory nothing is missing by mistake, nor is a shared_dir in a directory that is there
/// ([`shared_dir`]).
fn check_above(request: &Request, defined: &Defined) -> Result<()> {
    let guest = defined.config.guest();
    let way = path_trust::reach(guest, &request.images).or_exit(Exit::Refused)?;
    match known::not_mounted_above(&Register::of_host(), &request.images) {
        Ok(Some(point)) if !request.force => {
            let text = format!(
                "{} is not mounted, and the checkpoint would lie beneath it",
                point.display()
            );
            return Err(Failure::msg(Exit::Refused, text).hint(format!(
                "mount it: mount {}; --force writes there anyway",
                shell::quoted(&point.to_string_lossy())
            )));
        }
        Ok(_) => {}
        Err(e) => log::warn!("whether all is mounted that should be is not known: {e:#}"),
    }
    let own = path_trust::walk(guest, &defined.dir()).or_exit(Exit::Refused)?;
    let Some((_, missing @ [_, ..])) = way.missing().split_last() else { return Ok(()) };
    let on_shelf = missing.len() == 1
        && (request.kept || shared_dir::is_place(&request.images, &request.name));
    if way.directory_path().starts_with(own) || on_shelf {
        return Ok(());
    }
    let above = way.directory_path().join(missing.iter().collect::<PathBuf>());
    let text = format!("there is no directory {}", above.display());
    Err(Failure::msg(Exit::Refused, text).hint(format!(
        "mount its file system, or make it: mkdir -m 700 -p {}",
        shell::quoted(&above.to_string_lossy())
    )))
}

/// The directory that CRIU writes into, held by descriptors, so that it is this one whatever has
/// its name.
#[derive(Debug)]
pub(crate) struct Target {
    dir: fs::File,
    name: OsString,
    above: OwnedFd,
}

/// The path by which CRIU gets to a directory, and the descriptor that it needs for that, under
/// this number.
pub(crate) type ForCriu = (PathBuf, OwnedFd, RawFd);

impl Target {
    /// The directory itself.
    pub(crate) fn for_criu(&self) -> io::Result<ForCriu> {
        // Opened anew: a copy would keep our lock for as long as CRIU, and what it leaves behind,
        // live.
        self.open(".")
    }

    /// A new directory in it.
    pub(crate) fn below(&self, name: &str) -> io::Result<ForCriu> {
        mkdirat(&self.dir, name, Mode::RWXU)?;
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<ForCriu> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&self.dir, name, how, Mode::empty())?;
        let number = dir.as_raw_fd();
        Ok((format!("/proc/self/fd/{number}").into(), dir, number))
    }

    /// Gives it the name of the checkpoint. What has it now is swapped for it in one step.
    fn put_in_place(&self, to: &Path) -> anyhow::Result<()> {
        let what = || format!("rename the images to {}", to.display());
        let name = to.file_name().context("it has no name").with_context(what)?;
        let flags = match files::names(to).is_ok_and(|names| !names.is_empty()) {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::empty(),
        };
        renameat_with(&self.above, &self.name, &self.above, name, flags).with_context(what)?;
        let named = statat(&self.above, name, AtFlags::SYMLINK_NOFOLLOW).with_context(what)?;
        let ours = fstat(&self.dir).with_context(what)?;
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) {
            bail!("{} was replaced by another directory", to.display());
        }
        let above = openat(
            &self.above,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        above.and_then(fsync).with_context(|| format!("sync the directory of {}", to.display()))
    }
}

/// Makes and holds the directory that CRIU writes into. Those above it that are missing, in the
/// container's own directory, are made, too.
pub(super) fn make(request: &Request, defined: &Defined, journal: &mut Journal) -> Result<Target> {
    let path = partial(&request.images);
    // What a killed command left there. Before the note: what cannot be removed now could not be
    // removed later.
    layout::remove_images(&path)?;
    let way = path_trust::reach(defined.config.guest(), &path).or_exit(Exit::Refused)?;
    journal.note(Undo::RemoveImages { path: path.clone() })?;
    let made = way.make_missing().or_exit(Exit::Refused)?;
    let (dir, name, above) = made.into_last().context("make a directory for the images")?;
    Ok(Target { dir: lock::hold_open_images(dir.into(), &path)?, name, above })
}

/// Makes a checkpoint of the images in `DIR.partial`: record, disk, name. Where the checksums of
/// memory images are to follow, [`add_sums`] does it: the container need not stand still for them.
pub(crate) fn seal(
    request: &Request,
    target: &Target,
    settings: &Settings,
    mut record: Record,
    memory: Memory,
) -> anyhow::Result<Record> {
    let dir = partial(&request.images);
    files::make_private(&dir)?;
    // Better now, while the container can go on, than at its restart.
    terminals::resolve_controlling(&dir, &record.ttys)?;
    record.images = checksums::measure_images(&dir, memory)?;
    record.builds_on = parents::parent_of(&dir)?;
    record.processes =
        images::process_tree(&dir).ok().map(|tree| tree.len()).filter(|count| *count > 0);
    record.frozen_us = frozen_us(&dir);
    record.created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    record.write(&dir)?;
    if request.to_be_resumed {
        // It comes and goes with the directory's name: there is no moment at which only one of them
        // is there.
        resume_mark::mark(&dir)?;
    }
    if request.at_shutdown {
        History::change(&dir, |history| history.at_shutdown = true)?;
    }
    if settings.sync {
        files::sync_file_system(&dir)?;
    }
    target.put_in_place(&request.images)?;
    Ok(record)
}

/// Makes a copy of memory complete that another checkpoint builds on: its checksums and its record.
pub(super) fn seal_copy(dir: &Path, mut record: Record, sealer: Sealer) -> anyhow::Result<Record> {
    files::make_private(dir)?;
    record.images = checksums::measure_images(dir, Memory::SumsFollow)?;
    record.add_sums(&sealer.finish()?);
    record.builds_on = parents::parent_of(dir)?;
    record.frozen_us = frozen_us(dir);
    record.created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    record.write(dir)?;
    Ok(record)
}

/// How long the tasks stood still. CRIU writes its statistics when all else is done.
fn frozen_us(dir: &Path) -> Option<u64> {
    DumpStats::read(dir).ok().map(|stats| stats.frozen_time.into())
}

/// Completes the record of a checkpoint that is in its place.
pub(crate) fn add_sums(
    request: &Request,
    record: &mut Record,
    sealer: Sealer,
) -> anyhow::Result<()> {
    // What CRIU has written since.
    files::make_private(&request.images)?;
    record.add_sums(&sealer.finish()?);
    record.frozen_us = frozen_us(&request.images);
    record.write(&request.images)
}
