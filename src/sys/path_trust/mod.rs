//! Whether somebody else than root could put another thing in place of a path.
//!
//! What root opens, writes, renames and hands to CRIU by its path is only as good as every
//! directory on the way there. So the way is walked link by link and descriptor by descriptor: each
//! level is opened in the one above, judged by what its descriptor says, and held. A way on which
//! only root can change a name stays as it is; what is opened or made at its end is opened or made
//! in the directory that is held, whatever has the path by then.

mod level;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

pub(crate) use level::{Guest, Untrusted, is_ours};
use level::{Kind, Level};

use super::acl;

/// As many links as the kernel follows (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// The mode of the directories that are made here.
const PRIVATE: u32 = 0o700;

/// Walks an absolute path. What is at its end may be anything, or nothing yet; a symbolic link
/// there is followed, if root made it.
///
/// Directories of the group root may be writable by it: `lxc-create` makes a container's directory
/// so (mode 0770).
///
/// # Errors
/// The first place at which somebody else could turn the path elsewhere.
pub(crate) fn check(path: &Path) -> Result<(), Untrusted> {
    check_of(None, path)
}

/// As [`check`] for a container's own path: its directories may be its root's.
pub(crate) fn check_of(guest: Option<Guest>, path: &Path) -> Result<(), Untrusted> {
    walk(guest, path).map(drop)
}

/// As [`check_of`], and gives the path free of links.
pub(crate) fn walk(guest: Option<Guest>, path: &Path) -> Result<PathBuf, Untrusted> {
    Ok(reach(guest, path)?.path())
}

/// As [`check_of`], and holds what is there of the path.
pub(crate) fn reach(guest: Option<Guest>, path: &Path) -> Result<Way, Untrusted> {
    Way::walk(path, true, &mut |level| level.judge(path, guest))
}

/// As [`reach`]; a symbolic link at the end is not followed.
pub(crate) fn reach_name(guest: Option<Guest>, path: &Path) -> Result<Way, Untrusted> {
    Way::walk(path, false, &mut |level| level.judge(path, guest))
}

/// Opens a file to be read that nobody but root can have written or put there; none where there is
/// none. What is read is what was judged.
pub(crate) fn open_own(guest: Option<Guest>, path: &Path) -> Result<Option<File>, Untrusted> {
    let way = reach(guest, path)?;
    if !way.missing.is_empty() {
        return Ok(None);
    }
    let failed = |source| Untrusted::Io { at: path.to_owned(), source };
    let file = way.open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(failed)?;
    Level::of(&file, way.path(), Kind::File, false).map_err(failed)?.judge(path, guest)?;
    Ok(Some(file))
}

/// Opens a file, or makes it, where only root, or the container's root, can have put it; one that
/// is there must be theirs. Of its content nothing is said.
pub(crate) fn open_or_make(
    guest: Option<Guest>,
    path: &Path,
    flags: OFlags,
    mode: u32,
) -> Result<File, Untrusted> {
    let way = reach(guest, path)?;
    let failed = |source| Untrusted::Io { at: path.to_owned(), source };
    let file = match way.missing.as_slice() {
        [] => way.open(flags),
        [name] => way.open_in(name, flags | OFlags::CREATE | OFlags::NOFOLLOW, mode),
        _ => Err(Errno::NOENT.into()),
    };
    let file = file.map_err(failed)?;
    let stat = fstat(&file).map_err(|e| failed(e.into()))?;
    let (uid, kind) = (stat.st_uid, FileType::from_raw_mode(stat.st_mode));
    match kind == FileType::RegularFile
        && !is_ours(uid)
        && guest.is_none_or(|guest| guest.uid != uid)
    {
        true => Err(Untrusted::OwnedFile { path: path.to_owned(), uid }),
        false => Ok(file),
    }
}

/// As [`check`] for a file that is to be made: the directory that it goes to must be there. Made by
/// somebody else later, it would be his.
pub(crate) fn check_new(path: &Path) -> Result<(), Untrusted> {
    let way = reach(None, path)?;
    match way.missing.len() {
        0 | 1 => Ok(()),
        _ => Err(Untrusted::Io {
            at: path.parent().unwrap_or(path).to_owned(),
            source: Errno::NOENT.into(),
        }),
    }
}

/// Checks that nobody but root can have written a file or put it there, if there is one.
pub(crate) fn check_file(guest: Option<Guest>, path: &Path) -> Result<(), Untrusted> {
    let way = reach(guest, path)?;
    if !way.missing.is_empty() {
        return Ok(());
    }
    let failed = |source| Untrusted::Io { at: path.to_owned(), source };
    Level::of(way.held(), way.path(), Kind::File, false).map_err(failed)?.judge(path, guest)
}

/// Opens a file to be read, whoever could have written it: that is judged by [`Source::judge`],
/// once it is known who may.
pub(crate) fn open(path: &Path) -> io::Result<(File, Source)> {
    let path = std::path::absolute(path)?;
    let mut levels = Vec::new();
    let way = Way::walk(&path, true, &mut |level| {
        levels.push(level.clone());
        Ok(())
    });
    let way = way.map_err(Untrusted::into_io)?;
    let file = way.open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    levels.push(Level::of(&file, way.path(), Kind::File, false)?);
    Ok((file, Source { path, levels }))
}

/// Where a file that was read came from: the directories and links on the way to it and the file
/// itself, as they were on the descriptors over which it was opened.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    levels: Vec<Level>,
}

impl Source {
    /// Refuses what somebody else than root could have written or put there.
    pub fn judge(&self, guest: Option<Guest>) -> Result<(), Untrusted> {
        self.levels.iter().try_for_each(|level| level.judge(&self.path, guest))
    }
}

/// A directory on a way.
#[derive(Debug)]
struct Step {
    dir: OwnedFd,
    name: OsString,
    /// Whether nobody but root gets here, because a directory above is closed to all others.
    shut: bool,
}

/// A path that was walked: the directories on it, each held by a descriptor that was opened in the
/// one above.
#[derive(Debug)]
pub(crate) struct Way {
    /// From `/` down.
    steps: Vec<Step>,
    /// What is at its end, if that is no directory.
    end: Option<(OsString, OwnedFd)>,
    /// The names at its end that are not there.
    missing: Vec<OsString>,
}

impl Way {
    fn walk(
        path: &Path,
        follow: bool,
        judge: &mut dyn FnMut(&Level) -> Result<(), Untrusted>,
    ) -> Result<Way, Untrusted> {
        let failed = |at: &Path| {
            let at = at.to_owned();
            move |source: io::Error| Untrusted::Io { at, source }
        };
        let anywhere = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, "/", anywhere | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| failed(Path::new("/"))(e.into()))?;
        let mut way = Way {
            steps: vec![Step { dir: root, name: OsString::new(), shut: false }],
            end: None,
            missing: Vec::new(),
        };
        let mut ahead: VecDeque<OsString> = path.components().filter_map(name_of).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let here = way.path();
            if let Some((_, _)) = way.end {
                return Err(failed(&here)(Errno::NOTDIR.into()));
            }
            if name == ".." {
                if way.steps.len() > 1 {
                    way.steps.pop();
                }
                continue;
            }
            let (dir, shut) = way.last();
            let level =
                Level::of(dir, here.clone(), Kind::Directory, shut).map_err(failed(&here))?;
            judge(&level)?;
            let next = here.join(&name);
            let opened = match openat(dir, &name, anywhere, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => {
                    way.missing = std::iter::once(name).chain(ahead).collect();
                    return Ok(way);
                }
                Err(e) => return Err(failed(&next)(e.into())),
            };
            let stat = fstat(&opened).map_err(|e| failed(&next)(e.into()))?;
            let shut = shut || level.is_shut();
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => way.steps.push(Step { dir: opened, name, shut }),
                FileType::Symlink if follow || !ahead.is_empty() => {
                    judge(
                        &Level::of(&opened, next.clone(), Kind::Link, shut)
                            .map_err(failed(&next))?,
                    )?;
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(failed(&next)(Errno::LOOP.into()));
                    }
                    let target =
                        readlinkat(&opened, "", Vec::new()).map_err(|e| failed(&next)(e.into()))?;
                    let target: &Path = Path::new(OsStr::from_bytes(target.as_bytes()));
                    if target.is_absolute() {
                        way.steps.truncate(1);
                    }
                    for part in target
                        .components()
                        .filter_map(name_of)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                    {
                        ahead.push_front(part);
                    }
                }
                _ => way.end = Some((name, opened)),
            }
        }
        Ok(way)
    }

    /// The path, free of links.
    pub(crate) fn path(&self) -> PathBuf {
        let mut path = self.directory_path();
        path.extend(self.end.iter().map(|(name, _)| name));
        path.extend(&self.missing);
        path
    }

    /// The path of the directory that is held last.
    pub(crate) fn directory_path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(self.steps.iter().skip(1).map(|step| &step.name));
        path
    }

    /// The directory that is held last.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.last().0
    }

    /// The names at the end of the path that are not there.
    pub(crate) fn missing(&self) -> &[OsString] {
        &self.missing
    }

    /// What is at the end of the path, to be opened; `ENOENT` where nothing is.
    pub(crate) fn open(&self, flags: OFlags) -> io::Result<File> {
        if !self.missing.is_empty() {
            return Err(Errno::NOENT.into());
        }
        let held = format!("/proc/self/fd/{}", self.held().as_raw_fd());
        Ok(openat(CWD, held, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Opens, or makes, what has this name in the directory that is held last.
    pub(crate) fn open_in(&self, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<File> {
        if self.missing.len() > 1 {
            return Err(Errno::NOENT.into());
        }
        Ok(openat(self.directory(), name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode))?
            .into())
    }

    /// Whether others, too, can make names in the directory that is held last, as in `/tmp`.
    pub(crate) fn is_open_to_others(&self) -> io::Result<bool> {
        Ok(fstat(self.directory())?.st_mode & 0o022 != 0)
    }

    /// The directory that is held last, its name, and the directory above it; none of `/`.
    pub(crate) fn into_last(mut self) -> Option<(OwnedFd, OsString, OwnedFd)> {
        let Step { dir, name, .. } = self.steps.pop()?;
        Some((dir, name, self.steps.pop()?.dir))
    }

    fn held(&self) -> BorrowedFd<'_> {
        self.end.as_ref().map_or(self.directory(), |(_, fd)| fd.as_fd())
    }

    /// Makes the directories that are missing, each with the mode 0700, and looks at each again
    /// once it is open: if somebody was faster, it is theirs, and refused.
    pub(crate) fn make_missing(mut self) -> Result<Way, Untrusted> {
        for name in std::mem::take(&mut self.missing) {
            let at = self.directory_path().join(&name);
            let failed = |source: io::Error| Untrusted::Io { at: at.clone(), source };
            let (dir, shut) = self.last();
            match mkdirat(dir, &name, Mode::from_raw_mode(PRIVATE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e.into())),
            }
            let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(dir, &name, how, Mode::empty()).map_err(|e| failed(e.into()))?;
            Level::of(&made, at.clone(), Kind::Directory, shut).map_err(failed)?.judge_own(&at)?;
            acl::strip(&made).map_err(failed)?;
            self.steps.push(Step { dir: made, name, shut });
        }
        Ok(self)
    }

    fn last(&self) -> (BorrowedFd<'_>, bool) {
        // There is always `/`.
        match self.steps.last() {
            Some(step) => (step.dir.as_fd(), step.shut),
            None => (CWD, false),
        }
    }
}

fn name_of(part: Component<'_>) -> Option<OsString> {
    match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }
}

#[cfg(test)]
mod tests;
