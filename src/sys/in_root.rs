//! Names below a root that somebody else may change while we look: a container's.
//!
//! Nothing here leaves that root, whatever links are put in the way: the kernel resolves all of a
//! path inside (openat2(2), `RESOLVE_IN_ROOT`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, open, openat, openat2,
    statat, statx, unlinkat,
};
use rustix::io::Errno;

use super::glance::{Glance, glance_open};

/// Whether a directory of a file system that asks no server has something in it.
pub(crate) fn holds_something(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(directory, ".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::new(opened)? {
        if ![c".", c".."].contains(&entry?.file_name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A root whose inside is not trusted.
#[derive(Debug)]
pub struct Below(File);

/// In a second.
const NANOSECONDS: i64 = 1_000_000_000;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written to last, in nanoseconds since 1970.
    pub written: i64,
}

impl Below {
    /// The host's own root.
    pub fn host() -> io::Result<Below> {
        Below::open(Path::new("/"))
    }

    /// The root of a process; the file system there is not asked.
    pub(crate) fn of_process(pid: i32) -> io::Result<Below> {
        Below::open(Path::new(&format!("/proc/{pid}/root")))
    }

    /// What the kernel knows of what is at a path, and a descriptor (O_PATH) that holds it.
    pub(crate) fn glance(&self, path: &Path) -> io::Result<(OwnedFd, Glance)> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?;
        let known = glance_open(file.as_fd())?;
        Ok((file, known))
    }

    /// The directory that is mounted at a path, as [`Below::glance`] but by what the kernel has in
    /// its cache: it keeps all names on the way to a mount there, so no server is asked for them.
    ///
    /// # Errors
    /// `EAGAIN` when the kernel would have to ask, `ELOOP` when a link is on the way.
    pub(crate) fn mounted(&self, point: &Path) -> io::Result<(OwnedFd, Glance)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
        let file = openat2(&self.0, point, flags, Mode::empty(), how)?;
        let known = glance_open(file.as_fd())?;
        Ok((file, known))
    }

    /// What is at a path.
    pub fn look(&self, path: &Path) -> io::Result<Found> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?;
        let stat = fstat(&file)?;
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        let written = stat.st_mtime.saturating_mul(NANOSECONDS).saturating_add(nanoseconds);
        Ok(Found { mode: stat.st_mode, size: stat.st_size.unsigned_abs(), written })
    }

    /// Where a path leads when all links are followed, as the root itself would name it.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?;
        let name = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}"));
        let (whole, root) = (name(file.as_raw_fd())?, name(self.0.as_raw_fd())?);
        let inside = whole.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Path::new("/").join(inside))
    }

    /// Whether a symbolic link is on the way to a path, or at its end.
    pub fn has_link(&self, path: &Path) -> io::Result<bool> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::LOOP) => Ok(true),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The first symbolic link on the way to a path, or at its end.
    pub fn link_on(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        if !self.has_link(path)? {
            return Ok(None);
        }
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for part in above.into_iter().filter(|part| part.file_name().is_some()) {
            if self.has_link(part)? {
                return Ok(Some(part.to_owned()));
            }
        }
        // It has gone meanwhile.
        Ok(None)
    }

    /// Removes an empty file, or an empty directory; says whether it did.
    pub fn remove_empty(&self, path: &Path) -> io::Result<bool> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let removed = self.directory(path.parent().unwrap_or(Path::new("/"))).and_then(|dir| {
            let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let flags = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                FileType::Directory => AtFlags::REMOVEDIR,
                _ => return Ok(false),
            };
            unlinkat(dir, name, flags)?;
            Ok(true)
        });
        match removed {
            Err(e) if is_nothing_to_remove(&e) => Ok(false),
            other => other,
        }
    }

    /// Opens a root; the path itself is trusted. The file system there is not asked: it may be one
    /// that never answers.
    pub fn open(root: &Path) -> io::Result<Below> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Below(open(root, flags, Mode::empty())?.into()))
    }

    /// A directory (O_PATH) to which no link leads, and the number of the mount that it is on, as
    /// in /proc/PID/mountinfo.
    ///
    /// # Errors
    /// `ELOOP` when a link is on the way or at its end; else as openat2(2).
    pub(crate) fn directory_itself(&self, path: &Path) -> io::Result<(OwnedFd, u64)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let dir = openat2(&self.0, path, flags, Mode::empty(), how)?;
        let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let mount = statx(&dir, "", how, StatxFlags::MNT_ID)?.stx_mnt_id;
        Ok((dir, mount))
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        Ok(openat2(
            &self.0,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?)
    }

    /// The names in a directory, without `.` and `..`.
    pub fn names(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found: Vec<PathBuf> =
            self.inodes(directory)?.into_iter().map(|(name, _)| name).collect();
        found.retain(|name| name.file_name().is_some() && name.as_os_str() != ".");
        Ok(found)
    }

    /// The names in a directory, each with the device and inode that it leads to.
    pub fn inodes(&self, directory: &Path) -> io::Result<Vec<(PathBuf, (u64, u64))>> {
        let dir = self.directory(directory)?;
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            use std::os::unix::ffi::OsStrExt;
            let entry = entry?;
            let name =
                Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes())).to_owned();
            // What has gone meanwhile is not there.
            if let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                found.push((name, (stat.st_dev, stat.st_ino)));
            }
        }
        Ok(found)
    }

    /// Removes a file; says whether it was there.
    pub fn unlink(&self, file: &Path) -> io::Result<bool> {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let removed = self
            .directory(file.parent().unwrap_or(Path::new("/")))
            .and_then(|dir| Ok(unlinkat(dir, name, AtFlags::empty())?));
        match removed {
            Ok(()) => Ok(true),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

/// It is not there, or something is in it.
fn is_nothing_to_remove(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | DirectoryNotEmpty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_does_not_lead_out() {
        let top = tempfile::tempdir().unwrap();
        let (root, outside) = (top.path().join("root"), top.path().join("outside"));
        fs::create_dir_all(root.join("var")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x.cr.1.ghost"), "").unwrap();
        fs::write(root.join("var/x.cr.1.ghost"), "").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        let below = Below::open(&root).unwrap();
        for way in ["absolute", "relative", "../outside", "var/../../outside"] {
            assert!(!below.unlink(&Path::new(way).join("x.cr.1.ghost")).unwrap(), "{way}");
        }
        assert!(outside.join("x.cr.1.ghost").exists());
        assert!(below.look(Path::new("absolute/x.cr.1.ghost")).is_err());
        assert_eq!(below.look(Path::new("/var/x.cr.1.ghost")).unwrap().size, 0);
        assert_eq!(below.inodes(Path::new("/var")).unwrap().len(), 3, "and . and ..");
        assert!(below.unlink(Path::new("var/x.cr.1.ghost")).unwrap());
        assert!(!below.unlink(Path::new("var/x.cr.1.ghost")).unwrap());
    }
    #[test]
    fn a_path_is_resolved_inside() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/init"), "").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/lib/init", root.join("init")).unwrap();
        symlink(top.path(), root.join("out")).unwrap();
        let below = Below::open(&root).unwrap();
        assert_eq!(below.resolve(Path::new("/init")).unwrap(), Path::new("/usr/lib/init"));
        assert!(below.resolve(Path::new("/out/root")).is_err());
        for (path, link) in [
            ("usr/lib/init", false),
            ("init", true),
            ("lib/init", true),
            ("out/x", true),
            ("usr/none", false),
        ] {
            assert_eq!(below.has_link(Path::new(path)).unwrap(), link, "{path}");
        }
        for (path, link) in [
            ("/lib/init/x", Some("/lib")),
            ("usr/../init", Some("usr/../init")),
            ("/usr/lib/init", None),
        ] {
            assert_eq!(
                below.link_on(Path::new(path)).unwrap().as_deref(),
                link.map(Path::new),
                "{path}"
            );
        }
    }

    #[test]
    fn a_directory_itself_is_behind_no_link() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("dev/pts")).unwrap();
        symlink("pts", top.path().join("dev/link")).unwrap();
        symlink("/dev", top.path().join("other")).unwrap();
        let below = Below::open(top.path()).unwrap();
        let (_, mount) = below.directory_itself(Path::new("dev/pts")).unwrap();
        let of_root = below.directory_itself(Path::new("/")).unwrap().1;
        assert_eq!(mount, of_root);
        for link in ["dev/link", "other/pts", "other/link"] {
            let error = below.directory_itself(Path::new(link)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{link}");
        }
    }

    #[test]
    fn what_is_mounted_is_known_from_the_cache() {
        let root = Below::of_process(std::process::id().cast_signed()).unwrap();
        let (dir, known) = root.mounted(Path::new("/proc")).unwrap();
        let meta = fs::metadata("/proc").unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((known.dev, known.ino), (meta.dev(), meta.ino()));
        assert!(holds_something(dir.as_fd()).unwrap());
        let empty = tempfile::tempdir().unwrap();
        assert!(!holds_something(File::open(empty.path()).unwrap().as_fd()).unwrap());
        // A link is not followed, and what no cache holds is not asked for.
        assert!(root.mounted(Path::new("/proc/self")).is_err());
        assert!(root.mounted(Path::new("/no/such/mount")).is_err());
    }

    #[test]
    fn only_what_is_empty_goes() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b")).unwrap();
        fs::write(top.path().join("a/b/file"), "").unwrap();
        fs::write(top.path().join("full"), "x").unwrap();
        symlink("full", top.path().join("link")).unwrap();
        let below = Below::open(top.path()).unwrap();
        for stays in ["a", "full", "link", "none", "full/x"] {
            assert!(!below.remove_empty(Path::new(stays)).unwrap(), "{stays}");
        }
        for goes in ["a/b/file", "a/b", "a"] {
            assert!(below.remove_empty(Path::new(goes)).unwrap(), "{goes}");
        }
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    }
}
