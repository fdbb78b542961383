//! What the kernel already knows of a file, without asking the server of its file system.
//!
//! A FUSE or NFS server that has stopped never answers, and who asks it waits in the kernel and
//! cannot even be killed. A container's files are therefore only glanced at: by the links of /proc,
//! which need no look-up of a name, and with what is cached of them.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, makedev, statx};

/// A file as it was when its server was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    /// Type and permissions.
    pub mode: u32,
    /// The device of its file system.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
    /// The device that it is, if it is one.
    pub rdev: u64,
    /// What it takes of its disk, in bytes.
    pub allocated: u64,
    /// The mount that it is seen on; none where the kernel (before 5.8) does not tell.
    pub mount: Option<u64>,
}

impl Glance {
    fn of(known: &Statx) -> Glance {
        let tells_mount = StatxFlags::from_bits_retain(known.stx_mask).contains(StatxFlags::MNT_ID);
        Glance {
            mode: known.stx_mode.into(),
            dev: makedev(known.stx_dev_major, known.stx_dev_minor),
            ino: known.stx_ino,
            nlink: known.stx_nlink.into(),
            rdev: makedev(known.stx_rdev_major, known.stx_rdev_minor),
            allocated: known.stx_blocks * 512,
            mount: tells_mount.then_some(known.stx_mnt_id),
        }
    }
}

/// Glances at what a link of /proc leads to: `/proc/PID/fd/N`, `/proc/PID/map_files/RANGE`.
pub(crate) fn glance(link: &Path) -> io::Result<Glance> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(Glance::of(&statx(CWD, link, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?))
}

/// Glances at the root of a process.
pub(crate) fn glance_root(pid: i32) -> io::Result<Glance> {
    glance(Path::new(&format!("/proc/{pid}/root")))
}

/// Glances at an open file.
pub(crate) fn glance_open(file: BorrowedFd<'_>) -> io::Result<Glance> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(Glance::of(&statx(file, "", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_known_by_its_descriptor() {
        let file = tempfile::tempfile().unwrap();
        let (meta, link) =
            (file.metadata().unwrap(), format!("/proc/self/fd/{}", file.as_raw_fd()));
        let seen = glance(Path::new(&link)).unwrap();
        assert_eq!(
            (seen.dev, seen.ino, seen.nlink, seen.mode),
            (meta.dev(), meta.ino(), 0, meta.mode())
        );
        let null = glance(Path::new("/dev/null")).unwrap();
        assert_eq!(null.rdev, std::fs::metadata("/dev/null").unwrap().rdev());
    }
}
