//! Files of a file system that others change, each held by a descriptor that opens nothing: what it
//! is, what it has beside its content, and what is in it.
//!
//! No look-up leaves the mount that it began on, and none follows a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, getxattr, listxattr, makedev,
    openat, openat2, readlinkat, statx,
};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, XattrFlags, fstatfs, setxattr, utimensat};
use rustix::io::Errno;

/// As large as an extended attribute, or the list of their names, can be.
const LARGEST_ATTRIBUTE: usize = 64 << 10;

/// A file of any type.
#[derive(Debug)]
pub(crate) struct Entry(OwnedFd);

/// What the kernel says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its size in bytes.
    pub size: u64,
    /// How many names it has.
    pub links: u64,
    /// Its inode.
    pub inode: u64,
    /// The device of its file system.
    pub device: u64,
    /// The device that it is, if it is one.
    pub rdev: u64,
    /// When its content changed last: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// When it was read last.
    pub accessed: (i64, u32),
    /// The mount that it is seen on, by its number in mountinfo; 0 where the kernel does not tell.
    pub mount: u64,
}

impl Facts {
    /// Its type.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

impl Entry {
    /// What is at a path below the root of a process.
    pub(crate) fn of_process(pid: i32, path: &Path) -> io::Result<Entry> {
        Entry::below(Path::new(&format!("/proc/{pid}/root")), path)
    }

    /// What is at a path below a root; the path to the root is trusted, that below is not.
    pub(crate) fn below(root: &Path, path: &Path) -> io::Result<Entry> {
        let root = File::open(root)?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        Ok(Entry(openat2(
            &root,
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )?))
    }

    /// A file in this directory; none where another mount is on it.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let how = ResolveFlags::BENEATH
            | ResolveFlags::NO_XDEV
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_SYMLINKS;
        match openat2(
            &self.0,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        ) {
            Ok(fd) => Ok(Some(Entry(fd))),
            Err(Errno::XDEV) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The names in this directory, sorted, without `.` and `..`.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
        let dir = openat(&self.0, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(dir)? {
            let name = entry?.file_name().to_bytes().to_owned();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(&name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What it is.
    pub(crate) fn facts(&self) -> io::Result<Facts> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let known = statx(&self.0, "", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        let tells_mount = StatxFlags::from_bits_retain(known.stx_mask).contains(StatxFlags::MNT_ID);
        Ok(Facts {
            mode: known.stx_mode.into(),
            uid: known.stx_uid,
            gid: known.stx_gid,
            size: known.stx_size,
            links: known.stx_nlink.into(),
            inode: known.stx_ino,
            device: makedev(known.stx_dev_major, known.stx_dev_minor),
            rdev: makedev(known.stx_rdev_major, known.stx_rdev_minor),
            modified: (known.stx_mtime.tv_sec, known.stx_mtime.tv_nsec),
            accessed: (known.stx_atime.tv_sec, known.stx_atime.tv_nsec),
            mount: if tells_mount { known.stx_mnt_id } else { 0 },
        })
    }

    /// Where a symbolic link leads.
    pub(crate) fn target(&self) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.0, "", Vec::new())?.into_bytes())
    }

    /// Its extended attributes, ACLs and capabilities among them, by name; none where its file
    /// system has none.
    pub(crate) fn attributes(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let path = self.path();
        let mut buffer = vec![0; LARGEST_ATTRIBUTE];
        let names = match listxattr(&path, &mut buffer[..]) {
            Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let mut found = Vec::new();
        for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            match getxattr(&path, name, &mut buffer[..]) {
                Ok(length) => {
                    let value = buffer.get(..length).unwrap_or_default().to_vec();
                    found.push((String::from_utf8_lossy(name).into_owned(), value));
                }
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether it lies in a tmpfs.
    pub(crate) fn is_in_tmpfs(&self) -> io::Result<bool> {
        /// `TMPFS_MAGIC`, linux/magic.h.
        const TMPFS: i128 = 0x0102_1994;
        Ok(i128::from(fstatfs(&self.0)?.f_type) == TMPFS)
    }

    /// Gives it an extended attribute.
    pub(crate) fn set_attribute(&self, name: &str, value: &[u8]) -> io::Result<()> {
        Ok(setxattr(self.path(), name, value, XattrFlags::empty())?)
    }

    /// Sets when it was changed last, in seconds and nanoseconds since 1970; the time of its last
    /// access stays.
    pub(crate) fn set_modified(&self, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access: unchanged, last_modification: modified };
        Ok(utimensat(rustix::fs::CWD, self.path(), &times, AtFlags::empty())?)
    }

    /// Opens a regular file for reading, which leaves the time of its last access as it is.
    pub(crate) fn open(&self) -> io::Result<File> {
        if self.facts()?.kind() != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(rustix::fs::CWD, self.path(), flags, Mode::empty())?.into())
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_is_read_and_no_link_followed() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("b"), "content").unwrap();
        fs::set_permissions(top.path().join("b"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc", top.path().join("a")).unwrap();
        let dir = Entry::below(top.path(), Path::new("/")).unwrap();
        assert_eq!(dir.names().unwrap(), ["a", "b"]);
        let link = dir.child(OsStr::new("a")).unwrap().unwrap();
        assert_eq!(
            (link.facts().unwrap().kind(), link.target().unwrap()),
            (FileType::Symlink, b"/etc".to_vec())
        );
        link.set_modified((7, 8)).unwrap();
        assert_eq!(link.facts().unwrap().modified, (7, 8));
        assert!(link.open().is_err() && link.attributes().is_ok());
        let file = dir.child(OsStr::new("b")).unwrap().unwrap();
        let facts = file.facts().unwrap();
        assert_eq!(
            (facts.mode & 0o7777, facts.size, facts.kind()),
            (0o640, 7, FileType::RegularFile)
        );
        assert_eq!(io::read_to_string(file.open().unwrap()).unwrap(), "content");
        assert!(Entry::below(top.path(), Path::new("/a/passwd")).is_err());
        assert!(!matches!(dir.child(OsStr::new("../x")), Ok(Some(_))));
    }
}
