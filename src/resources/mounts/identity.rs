//! What a path on the host leads to, to know it again after the container has stood still, maybe
//! over a reboot.

use std::io;
use std::path::Path;

use rustix::fs::{FileType, fstatvfs, major, minor};
use serde::{Deserialize, Serialize};

use super::{Mount, seen_at};
use crate::sys::in_root::Below;

/// File systems on which a file keeps its inode when they are mounted again.
const LASTING: &[&str] =
    &["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "nfs", "nfs4", "ceph"];
/// Those whose number (`f_fsid`) is made of what is written on the disk.
const NUMBERED: &[&str] = &["ext2", "ext3", "ext4", "btrfs"];

/// What was found at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What it is.
    pub kind: Kind,
    /// The type of its file system.
    pub file_system: String,
    /// The number of its file system, where that is the same for as long as the file system is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Its inode, where it keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A device.
    Device {
        /// Its number.
        major: u32,
        /// Its number.
        minor: u32,
    },
    /// A socket or a pipe.
    Other,
}

impl Kind {
    /// As a noun.
    pub fn in_words(self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File => "file",
            Kind::Device { .. } => "device",
            Kind::Other => "socket or pipe",
        }
    }
}

/// In what another thing is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is of another kind.
    Kind,
    /// It is on another file system: what was mounted is not, or something else is.
    FileSystem,
    /// It is another one of the kind on the same file system.
    Replaced,
}

impl Identity {
    /// What a path leads to, given the host's mount table. No server of a file system is asked.
    pub fn of(path: &Path, host: &[Mount]) -> io::Result<Identity> {
        Identity::seen_from(&Below::host()?, path, host)
    }

    /// The same in another mount namespace, which has this root and this table.
    pub fn seen_from(root: &Below, path: &Path, host: &[Mount]) -> io::Result<Identity> {
        let (file, known) = root.glance(path)?;
        let kind = match FileType::from_raw_mode(known.mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::CharacterDevice | FileType::BlockDevice => {
                Kind::Device { major: major(known.rdev), minor: minor(known.rdev) }
            }
            _ => Kind::Other,
        };
        let file_system = seen_at(host, path).map(|m| m.kind.clone()).unwrap_or_default();
        let is_among = |kinds: &[&str]| kinds.contains(&file_system.as_str());
        Ok(Identity {
            number: is_among(NUMBERED).then(|| fstatvfs(&file)).transpose()?.map(|s| s.f_fsid),
            inode: is_among(LASTING).then_some(known.ino),
            kind,
            file_system,
        })
    }

    /// In what something else differs; pure.
    pub fn differs_from(&self, now: &Identity) -> Option<Difference> {
        let both_differ = |then: Option<u64>, now: Option<u64>| {
            then.zip(now).is_some_and(|(then, now)| then != now)
        };
        if self.kind != now.kind {
            Some(Difference::Kind)
        } else if self.file_system != now.file_system || both_differ(self.number, now.number) {
            Some(Difference::FileSystem)
        } else if both_differ(self.inode, now.inode) {
            Some(Difference::Replaced)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::mount;
    use super::*;

    #[test]
    fn a_thing_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "").unwrap();
        std::fs::create_dir(&two).unwrap();
        let host = |kind: &str| [mount(1, "0:1", "/", "/", kind)];
        let of = |path: &Path, kind: &str| Identity::of(path, &host(kind)).unwrap();
        assert_eq!(of(&one, "ext4").differs_from(&of(&one, "ext4")), None);
        assert_eq!(of(&one, "ext4").differs_from(&of(&two, "ext4")), Some(Difference::Kind));
        assert_eq!(of(&one, "ext4").differs_from(&of(&one, "xfs")), Some(Difference::FileSystem));
        let (before, in_memory) = (of(&one, "ext4"), of(&one, "tmpfs"));
        std::fs::write(dir.path().join("new"), "").unwrap();
        std::fs::rename(dir.path().join("new"), &one).unwrap();
        assert_eq!(before.differs_from(&of(&one, "ext4")), Some(Difference::Replaced));
        assert_eq!(in_memory.differs_from(&of(&one, "tmpfs")), None);
        let elsewhere = Identity { number: before.number.map(|n| n ^ 1), ..before.clone() };
        assert_eq!(before.differs_from(&elsewhere), Some(Difference::FileSystem));
    }
}
