//! Images that are still in the host's memory as the checkpoint wrote them.
//!
//! A checksum finds what a disk, a cable or somebody's hand has done to an image. Where the kernel
//! still has the very pages of which the checksum was taken, comparing it would compare memory with
//! itself; and CRIU reads the same pages.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sys::{self, files};

/// Later than this after its last change a file may have left memory and have been read again from
/// the disk, by a backup or a try to restart it: nothing tells whether it has.
const LONGEST: Duration = Duration::from_secs(60);

/// An image's file, as it was when its checksum was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsWritten {
    /// The boot in which that was.
    boot: String,
    /// The device of its file system, and its inode there: a copy has another.
    device: u64,
    inode: u64,
    /// The time of its last change, in nanoseconds since 1970. It is the kernel's, and nobody can
    /// set it (`st_ctime`).
    changed: i64,
}

impl AsWritten {
    /// How it is now.
    pub fn of(file: &File) -> Result<AsWritten> {
        let boot = sys::boot_id().context("read which boot this is")?;
        let found = file.metadata().context("inspect an image")?;
        let changed =
            found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec());
        Ok(AsWritten { boot, device: found.dev(), inode: found.ino(), changed })
    }

    /// Whether nobody has changed the file at this path, nor had the kernel much time to let it go
    /// from memory. Whether it has is what [`is_cached`](crate::sys::memory::is_cached) tells.
    pub fn is_still_there(&self, path: &Path) -> Result<bool> {
        let file = files::open_file(path).with_context(|| format!("open {}", path.display()))?;
        Ok(self.is_precise()
            && self.is_of_late(SystemTime::now())
            && AsWritten::of(&file)? == *self)
    }

    /// Whether the file system tells more than seconds. Else a second change within one would not
    /// be seen.
    fn is_precise(&self) -> bool {
        self.changed % 1_000_000_000 != 0
    }

    /// Ends this: once the file has been read from the disk, it is in memory as that has it. Its
    /// owners are set to what they are, which counts as a change.
    pub fn spoil(path: &Path) -> Result<()> {
        let changed =
            files::open_file(path).and_then(|file| Ok(nix::unistd::fchown(&file, None, None)?));
        changed.with_context(|| format!("mark {} as read from the disk", path.display()))
    }

    /// Whether it was changed shortly before `now`. A clock that was set back is no argument.
    fn is_of_late(&self, now: SystemTime) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.changed.cast_unsigned());
        now.duration_since(changed).is_ok_and(|since| since <= LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_there_until_it_is_written_to_or_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages-1.img");
        fs::write(&path, [7; 5000]).unwrap();
        let written = AsWritten::of(&File::open(&path).unwrap()).unwrap();
        assert!(written.is_still_there(&path).unwrap());

        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(!written.is_still_there(&copy).unwrap());

        let another_boot = AsWritten { boot: "another".to_owned(), ..written.clone() };
        assert!(!another_boot.is_still_there(&path).unwrap());

        AsWritten::spoil(&path).unwrap();
        assert!(!written.is_still_there(&path).unwrap());
        let written = AsWritten::of(&File::open(&path).unwrap()).unwrap();
        assert!(written.is_still_there(&path).unwrap());

        // The same content, and a time of its last write that is as before.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(&[7]).unwrap();
        file.set_modified(modified).unwrap();
        assert!(!written.is_still_there(&path).unwrap());
    }

    #[test]
    fn what_was_changed_long_ago_or_not_yet_is_looked_at() {
        let written =
            AsWritten { boot: String::new(), device: 1, inode: 1, changed: 1_000_000_000_000 };
        let at =
            |seconds| written.is_of_late(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([999, 1000, 1060, 1061].map(at), [false, true, true, false]);
    }
}
