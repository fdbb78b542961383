//! Whose root a process has: a directory, or what an image, a block device or an overlay shows when
//! it is mounted.
//!
//! The host sees the latter in the process's own table of mounts only.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::config::unescape;
use crate::sys::glance::glance_root;
use crate::sys::mount::behind_loop_device;

/// What tells a process that has a container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootIs {
    /// Its root is this directory, by its file system's device and its inode.
    Directory(u64, u64),
    /// Its root is mounted from this block device.
    Device(u64),
    /// Its root is mounted from a loop device with this file behind it, known likewise.
    Image(u64, u64),
    /// Its root is an overlay that writes to this directory, known likewise.
    Overlay(u64, u64),
    /// Nothing does.
    Unknown,
}

impl RootIs {
    /// As `lxc.rootfs.path` names it, with its kind before it or without.
    pub(super) fn of(rootfs: &Path) -> RootIs {
        let text = rootfs.to_str().unwrap_or_default();
        let path = if text.starts_with('/') {
            text
        } else {
            text.split_once(':').map_or(text, |(_kind, path)| path)
        };
        let Ok(found) = fs::metadata(path) else {
            // LOWER:UPPER
            let upper = path.rfind(":/").and_then(|at| fs::metadata(&path[at + 1..]).ok());
            return upper
                .map_or(RootIs::Unknown, |found| RootIs::Overlay(found.dev(), found.ino()));
        };
        match found.file_type() {
            kind if kind.is_dir() => RootIs::Directory(found.dev(), found.ino()),
            kind if kind.is_block_device() => RootIs::Device(found.rdev()),
            kind if kind.is_file() => RootIs::Image(found.dev(), found.ino()),
            _ => RootIs::Unknown,
        }
    }

    /// Whether the root of this process is that. One that is gone has none.
    pub(super) fn is_of(&self, pid: i32) -> bool {
        if let RootIs::Directory(device, inode) = self {
            // One that is the root of another container may be a file system whose server has
            // stopped.
            let found = glance_root(pid);
            return found.is_ok_and(|found| (found.dev, found.ino) == (*device, *inode));
        }
        let mounts = procfs::process::Process::new(pid).and_then(|process| process.mountinfo());
        let Some(mount) =
            mounts.into_iter().flatten().rfind(|mount| mount.mount_point == Path::new("/"))
        else {
            return false;
        };
        let source = || mount.mount_source.as_deref().map(Path::new);
        match self {
            RootIs::Device(number) => source()
                .and_then(|path| fs::metadata(path).ok())
                .is_some_and(|found| found.rdev() == *number),
            RootIs::Image(device, inode) => {
                source().and_then(behind_loop_device) == Some((*device, *inode))
            }
            RootIs::Overlay(device, inode) => {
                let upper = mount.super_options.get("upperdir").and_then(|dir| dir.as_deref());
                let upper = upper.map(|dir| unescape(dir.as_bytes()));
                let found = upper.and_then(|upper| fs::metadata(upper).ok());
                found.is_some_and(|found| (found.dev(), found.ino()) == (*device, *inode))
            }
            RootIs::Directory(..) | RootIs::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_told_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, "").unwrap();
        let file = fs::metadata(&image).unwrap();
        let named = |text: &str| RootIs::of(Path::new(text));
        let root = fs::metadata("/").unwrap();
        let here = RootIs::Directory(root.dev(), root.ino());
        assert_eq!([named("/"), named("dir:/")], [here.clone(), here.clone()]);
        assert!(here.is_of(std::process::id().cast_signed()));
        assert_eq!(
            named(&format!("loop:{}", image.display())),
            RootIs::Image(file.dev(), file.ino())
        );
        assert_eq!(named("overlay:/lower:/no/upper"), RootIs::Unknown);
        let upper = fs::metadata(dir.path()).unwrap();
        let overlay = named(&format!("overlay:/lower:{}", dir.path().display()));
        assert_eq!(overlay, RootIs::Overlay(upper.dev(), upper.ino()));
        assert_eq!(named("zfs:pool/web"), RootIs::Unknown);
        let own = std::process::id().cast_signed();
        assert!(!named(&format!("loop:{}", image.display())).is_of(own) && !overlay.is_of(own));
    }
}
