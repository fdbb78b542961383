//! Covers: what is written to a mount through one goes to memory, and with it when nobody has it
//! mounted any more. The mount below is only read.
//!
//! Each cover is an overlay whose upper layer is on a file system in memory; all covers made
//! together share that, and its limit. An overlay takes only layers of its maker's own mount
//! namespace, so all of it is made on a thread with a namespace of its own, and leaves that as
//! mounts that are mounted nowhere.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fstat, openat2, utimensat,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mount::{Detached, on_a_thread};
use super::sandbox::make_read_only;

/// Where they are made: any directory that is always there.
const WORKPLACE: &str = "/proc";
/// Where the mount that is covered is, in a directory of its cover's own.
const LOWER: &str = "lower";
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// A mount to be covered.
#[derive(Debug)]
pub(crate) struct Lower {
    /// It, mounted nowhere.
    pub mount: OwnedFd,
    /// Large regular files in it that somebody is about to open for writing, relative to its root.
    /// An overlay would copy them; instead, holes of their size stand in for them.
    pub large_files: Vec<PathBuf>,
    /// Where no overlay can be put upon it, it is shown as it is, read-only.
    pub or_read_only: bool,
}

/// Covers, and the memory that they share.
#[derive(Debug)]
pub(crate) struct Covers {
    /// The overlay over each mount, in the order in which they were given, or why there is none.
    pub made: Vec<io::Result<Detached>>,
    /// Whether one of them is no overlay, but the mount itself, read-only.
    pub some_read_only: bool,
    memory: OwnedFd,
}

impl Covers {
    /// Covers these mounts; what is written takes no more memory than `limit` bytes.
    pub(crate) fn make(lowers: Vec<Lower>, limit: u64) -> io::Result<Covers> {
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let options = format!("size={limit},mode=0700");
            mount(
                Some("lxc-cr"),
                WORKPLACE,
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options.as_str()),
            )?;
            let mut some_read_only = false;
            let made = lowers.iter().enumerate().map(|(number, lower)| {
                let place = Path::new(WORKPLACE).join(number.to_string());
                match cover(&place, lower) {
                    Err(e) if lower.or_read_only => {
                        log::debug!("no overlay: {e}");
                        some_read_only = true;
                        let tree = open_tree(CWD, place.join(LOWER), CLONE)?;
                        make_read_only(tree.as_fd())?;
                        Ok(Detached::from(tree))
                    }
                    made => made,
                }
            });
            let made = made.collect();
            Ok(Covers { made, some_read_only, memory: File::open(WORKPLACE)?.into() })
        })
    }

    /// Whether so much was written that no room is left.
    pub(crate) fn are_full(&self) -> bool {
        rustix::fs::fstatfs(&self.memory)
            .is_ok_and(|stat| stat.f_bavail == 0 || (stat.f_files > 0 && stat.f_ffree == 0))
    }
}

fn cover(place: &Path, lower: &Lower) -> io::Result<Detached> {
    let [below, upper, work, whole] =
        [LOWER, "upper", "work", "whole"].map(|name| place.join(name));
    for dir in [&below, &upper, &work, &whole] {
        fs::create_dir_all(dir)?;
    }
    move_mount(&lower.mount, c"", CWD, &below, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    imitate(lower.mount.as_fd(), &upper)?;
    for file in &lower.large_files {
        // Where that fails the file is copied when it is opened.
        if let Err(e) = stand_in(lower.mount.as_fd(), file, &upper) {
            log::debug!("a stand-in for {}: {e}", file.display());
        }
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        below.display(),
        upper.display(),
        work.display()
    );
    mount(Some("lxc-cr"), &whole, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(Detached::from(open_tree(CWD, &whole, CLONE)?))
}

/// Puts a file of the same size, owner and mode, but without content, into the upper layer.
fn stand_in(lower: BorrowedFd<'_>, file: &Path, upper: &Path) -> io::Result<()> {
    let parts: Vec<&std::ffi::OsStr> = file
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let Some((_, directories)) = parts.split_last() else { return Ok(()) };
    let mut way = PathBuf::new();
    for name in directories {
        way.push(name);
        let made = upper.join(&way);
        if !made.exists() {
            fs::create_dir(&made)?;
            imitate(look(lower, &way)?.as_fd(), &made)?;
        }
    }
    let whole: PathBuf = parts.iter().collect();
    let (theirs, ours) = (look(lower, &whole)?, upper.join(&whole));
    File::create_new(&ours)?.set_len(fstat(&theirs)?.st_size.unsigned_abs())?;
    imitate(theirs.as_fd(), &ours)
}

fn look(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?)
}

/// Gives a file or directory the owner, mode and time of another one.
fn imitate(theirs: BorrowedFd<'_>, ours: &Path) -> io::Result<()> {
    let meta = File::from(theirs.try_clone_to_owned()?).metadata()?;
    chown(ours, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(ours, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(utimensat(CWD, ours, &times, rustix::fs::AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_goes_with_the_cover() {
        if !crate::sys::process::is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(dir.path().join("small"), "as it was").unwrap();
        File::create(dir.path().join("data/large")).unwrap().set_len(3 << 30).unwrap();
        let lower = Lower {
            mount: open_tree(CWD, dir.path(), CLONE).unwrap(),
            large_files: vec!["/data/large".into(), "../none".into()],
            or_read_only: false,
        };
        // Some hosts and file systems have no overlays.
        let Ok(covers) = Covers::make(vec![lower], 1 << 20) else { return };
        let Ok(cover) = &covers.made[0] else { return };
        let inside = cover.path();
        fs::write(inside.join("small"), "another").unwrap();
        let large = fs::OpenOptions::new().write(true).open(inside.join("data/large")).unwrap();
        assert_eq!(large.metadata().unwrap().len(), 3 << 30);
        assert_eq!(fs::metadata(inside.join("data")).unwrap().mode() & 0o7777, 0o750);
        assert!(!covers.are_full());
        assert!(fs::write(inside.join("too-much"), vec![1; 2 << 20]).is_err() && covers.are_full());
        assert_eq!(fs::read_to_string(dir.path().join("small")).unwrap(), "as it was");
        assert!(!dir.path().join("too-much").exists());
    }
}
