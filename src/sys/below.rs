//! Names below a root that somebody else may change while we look: a container's.
//!
//! Nothing here leaves that root, whatever links are put in the way: the kernel resolves all of a path inside
//! (openat2(2), `RESOLVE_IN_ROOT`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fstat, openat2, statat, unlinkat};

/// A root whose inside is not trusted.
#[derive(Debug)]
pub struct Below(File);

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
}

impl Below {
    /// The host's own root.
    pub fn host() -> io::Result<Below> {
        Below::open(Path::new("/"))
    }

    /// What is at a path.
    pub fn look(&self, path: &Path) -> io::Result<Found> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?;
        let stat = fstat(&file)?;
        Ok(Found { mode: stat.st_mode, size: stat.st_size.unsigned_abs() })
    }

    /// Opens a root; the path itself is trusted.
    pub fn open(root: &Path) -> io::Result<Below> {
        Ok(Below(File::open(root)?))
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        Ok(openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
    }

    /// The names in a directory, each with the device and inode that it leads to.
    pub fn inodes(&self, directory: &Path) -> io::Result<Vec<(PathBuf, (u64, u64))>> {
        let dir = self.directory(directory)?;
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            use std::os::unix::ffi::OsStrExt;
            let entry = entry?;
            let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes())).to_owned();
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
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }
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
}
