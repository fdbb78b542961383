//! A container's root, as its configuration names it, and what it takes to have it mounted.
//!
//! A directory is what it is. Of an overlay, an image file and a block device only the container
//! sees the tree: LXC mounts them when it starts it (liblxc, storage/*.c), and whoever looks at the
//! root of a stopped one or restores it has to do the same. [`Root::of`] says what there is to
//! mount, [`Root::open`] mounts it, in no mount namespace: the mount lives as long as the [`Held`]
//! that leads to it, and longer only where CRIU has given it to a container.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use crate::lxc::config::{Rootfs, RootfsKind};
use crate::lxc::definition::Defined;
use crate::sys::mount::{Detached, loop_device};

/// The directory beside the upper layer in which an overlay works (liblxc, `LXC_OVERLAY_WORK_DIR`).
const WORK_DIR: &str = "work";
/// Where liblxc looks for the kinds of file systems that a device may hold, in this order.
const KINDS: [&str; 2] = ["/etc/filesystems", "/proc/filesystems"];

/// What a container's root is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Root {
    /// A directory of the host; also a btrfs subvolume.
    Directory {
        /// It.
        path: PathBuf,
    },
    /// An overlay.
    Overlay {
        /// The layers that are only read, the topmost first.
        lower: Vec<PathBuf>,
        /// The layer that is written to.
        upper: PathBuf,
        /// Options of the mount.
        #[serde(default)]
        options: String,
    },
    /// A file with a file system in it.
    Image {
        /// The file.
        path: PathBuf,
        /// Options of the mount.
        #[serde(default)]
        options: String,
    },
    /// A block device.
    Device {
        /// The device.
        path: PathBuf,
        /// Options of the mount.
        #[serde(default)]
        options: String,
    },
}

/// A root that only LXC can mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    /// It needs other programs than the kernel.
    #[error("its root is of the kind {0}, which lxc-cr cannot mount again")]
    Kind(String),
    /// An overlay's path has one layer only.
    #[error("'{0}' names no layers of an overlay (LOWER:UPPER, each beginning with a slash)")]
    Layers(String),
    /// The mount shows other owners than the directory has.
    #[error(
        "its root is mounted with other owners (idmap= in lxc.rootfs.options), which CRIU cannot \
         dump"
    )]
    IdMapped,
}

impl Unsupported {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Unsupported::Kind(_) => "mount it, and let lxc.rootfs.path name the directory",
            Unsupported::Layers(_) => "correct lxc.rootfs.path",
            Unsupported::IdMapped => {
                "give the files of the root the owners that lxc.idmap says, and take idmap= away"
            }
        }
    }
}

impl Root {
    /// A container's.
    pub(crate) fn of(defined: &Defined) -> Result<Root, Unsupported> {
        match defined.config.rootfs() {
            Some(rootfs) => Root::named(&rootfs),
            None => Ok(Root::Directory { path: defined.rootfs.clone() }),
        }
    }

    /// What a configuration names. Where it says no kind, what is at the path decides, as with
    /// liblxc.
    pub(crate) fn named(rootfs: &Rootfs) -> Result<Root, Unsupported> {
        let path = rootfs.path.clone();
        let options = rootfs.options.clone().unwrap_or_default();
        if options.split(',').any(|o| o.starts_with("idmap=")) {
            return Err(Unsupported::IdMapped);
        }
        match &rootfs.kind {
            RootfsKind::Dir | RootfsKind::Btrfs => Ok(Root::Directory { path }),
            RootfsKind::Overlay => overlay(&path, options),
            RootfsKind::Loop => Ok(Root::Image { path, options }),
            RootfsKind::Lvm => Ok(Root::Device { path, options }),
            RootfsKind::Other(kind) if kind == "rbd" => Ok(Root::Device { path, options }),
            RootfsKind::Unspecified => Ok(match fs::metadata(&path).map(|m| m.file_type()) {
                Ok(kind) if kind.is_file() => Root::Image { path, options },
                Ok(kind) if kind.is_block_device() => Root::Device { path, options },
                _ => Root::Directory { path },
            }),
            RootfsKind::Zfs => Err(Unsupported::Kind("zfs".to_owned())),
            RootfsKind::Nbd => Err(Unsupported::Kind("nbd".to_owned())),
            RootfsKind::Other(kind) => Err(Unsupported::Kind(kind.clone())),
        }
    }

    /// All that it is made of on the host.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        match self {
            Root::Directory { path } | Root::Image { path, .. } | Root::Device { path, .. } => {
                vec![path]
            }
            Root::Overlay { lower, upper, .. } => {
                lower.iter().chain([upper]).map(PathBuf::as_path).collect()
            }
        }
    }

    /// The directory itself, if it is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Root::Directory { path } => Some(path),
            _ => None,
        }
    }

    /// What tells it from another one in the same place: the inode of what the container's writes
    /// go to.
    pub(crate) fn inode(&self) -> Result<u64> {
        let path = match self {
            Root::Directory { path } | Root::Image { path, .. } | Root::Device { path, .. } => path,
            Root::Overlay { upper, .. } => upper,
        };
        Ok(fs::metadata(path)
            .with_context(|| format!("inspect the root file system {}", path.display()))?
            .ino())
    }

    /// Mounts what has to be mounted.
    pub(crate) fn open(&self) -> Result<Held> {
        let device = |path: &Path, options: &str| mount_device(path, options);
        let mount = match self {
            Root::Directory { path } if path.is_dir() => {
                Detached::of(path).context("clone the mount of its root")
            }
            Root::Directory { path } => {
                Err(anyhow!("its root {} is not a directory", path.display()))
            }
            Root::Overlay { lower, upper, options } => mount_overlay(lower, upper, options)
                .with_context(|| format!("mount the overlay of {} as its root", upper.display())),
            Root::Image { path, options } => {
                let read_only = Options::parse(options).flags.contains(MsFlags::MS_RDONLY);
                loop_device(path, read_only)
                    .context("get a loop device")
                    .and_then(|(name, held)| Ok(device(&name, options)?.on(held)))
                    .with_context(|| format!("mount the image {} as its root", path.display()))
            }
            Root::Device { path, options } => device(path, options)
                .with_context(|| format!("mount {} as its root", path.display())),
        }?;
        Ok(Held { path: mount.path(), mount })
    }
}

/// A root that can be looked into.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    mount: Detached,
}

impl Held {
    /// The root that a running container has, whatever its configuration says and whoever has
    /// mounted it. What is mounted in it is not there.
    pub(crate) fn in_use(init: i32) -> Result<Held> {
        let path = format!("/proc/{init}/ns/mnt");
        let namespace = fs::File::open(&path).with_context(|| format!("open {path}"))?;
        let mount = Detached::root_of(namespace.as_fd()).context("clone the mount of its root")?;
        Ok(Held { path: mount.path(), mount })
    }

    /// A mount that was made for it.
    pub(crate) fn of(mount: Detached) -> Held {
        Held { path: mount.path(), mount }
    }

    /// A path that leads to it, for us and as long as it is held.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The mount alone.
    pub(crate) fn into_mount(self) -> Detached {
        self.mount
    }

    /// The mount.
    pub(crate) fn mount(&self) -> &Detached {
        &self.mount
    }
}

/// `LOWER[:LOWER…]:UPPER`; a colon within a path is one that no slash follows.
fn overlay(path: &Path, options: String) -> Result<Root, Unsupported> {
    let text = path.to_string_lossy();
    let unreadable = || Unsupported::Layers(text.clone().into_owned());
    let mut layers = Vec::new();
    let mut rest: &str = &text;
    while let Some(at) = rest.rfind(":/") {
        layers.push(PathBuf::from(&rest[at + 1..]));
        rest = &rest[..at];
    }
    layers.push(PathBuf::from(rest));
    let upper = layers.remove(0);
    layers.reverse();
    if layers.is_empty() || layers.iter().any(|l| !l.is_absolute()) {
        return Err(unreadable());
    }
    Ok(Root::Overlay { lower: layers, upper, options })
}

/// As liblxc's `ovl_mount` does it.
fn mount_overlay(lower: &[PathBuf], upper: &Path, options: &str) -> Result<Detached> {
    let options = Options::parse(options);
    let work = upper.with_file_name(WORK_DIR);
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let lower: Vec<String> = lower.iter().map(|l| l.display().to_string()).collect();
    let layers = format!(
        "upperdir={},lowerdir={},workdir={}",
        upper.display(),
        lower.join(":"),
        work.display()
    );
    let data = if options.data.is_empty() { layers } else { format!("{layers},{}", options.data) };
    let name = lower.first().map(String::as_str).unwrap_or("overlay");
    Detached::mount(Path::new(name), "overlay", options.flags, &data).context("mount")
}

/// Tries each kind of file system, as liblxc's `mount_unknown_fs` does: so the one is found that
/// was found at the start.
fn mount_device(device: &Path, options: &str) -> Result<Detached> {
    let options = Options::parse(options);
    let mut outcome = Err(anyhow!("this kernel knows no file system for it"));
    for kind in
        KINDS.iter().filter_map(|file| fs::read_to_string(file).ok()).flat_map(|text| kinds(&text))
    {
        match Detached::mount(device, &kind, options.flags, &options.data) {
            Ok(mount) => return Ok(mount),
            // Not of this kind; or a word in the list that is no kind here.
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::ENODEV)) => {}
            Err(e) => outcome = Err(anyhow!(e).context(kind)),
        }
    }
    outcome
}

/// The kinds of a list that are of devices.
fn kinds(text: &str) -> Vec<String> {
    let of_devices = text.lines().filter(|l| !l.contains("nodev") && !l.starts_with('#'));
    of_devices.map(|l| l.trim().to_owned()).filter(|l| !l.is_empty() && l != "*").collect()
}

/// `lxc.rootfs.options`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MsFlags,
    /// What the file system itself is to make of it.
    data: String,
}

/// Words that are flags of a mount (liblxc, `mount_opt`), and those that take them back.
const FLAGS: &[(&str, &str, MsFlags)] = &[
    ("ro", "rw", MsFlags::MS_RDONLY),
    ("nosuid", "suid", MsFlags::MS_NOSUID),
    ("nodev", "dev", MsFlags::MS_NODEV),
    ("noexec", "exec", MsFlags::MS_NOEXEC),
    ("noatime", "atime", MsFlags::MS_NOATIME),
    ("nodiratime", "diratime", MsFlags::MS_NODIRATIME),
    ("relatime", "norelatime", MsFlags::MS_RELATIME),
    ("strictatime", "nostrictatime", MsFlags::MS_STRICTATIME),
    ("sync", "async", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", "nodirsync", MsFlags::MS_DIRSYNC),
    ("lazytime", "nolazytime", MsFlags::MS_LAZYTIME),
];
/// Words that say nothing to a file system.
const MEANINGLESS: &[&str] = &[
    "",
    "defaults",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

impl Options {
    fn parse(text: &str) -> Options {
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for word in text.split(',').map(str::trim).filter(|w| !MEANINGLESS.contains(w)) {
            match FLAGS.iter().find(|(set, clear, _)| *set == word || *clear == word) {
                Some((set, _, flag)) => flags.set(*flag, *set == word),
                None => data.push(word),
            }
        }
        Options { flags, data: data.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(kind: RootfsKind, path: &Path, options: Option<&str>) -> Result<Root, Unsupported> {
        Root::named(&Rootfs { kind, path: path.to_owned(), options: options.map(str::to_owned) })
    }

    #[test]
    fn layers_are_read_as_liblxc_reads_them() {
        let of = |path: &str| root(RootfsKind::Overlay, Path::new(path), Some("ro,xino=off"));
        let paths = |path: &str| -> Vec<String> {
            of(path).unwrap().paths().into_iter().map(|p| p.display().to_string()).collect()
        };
        assert_eq!(paths("/l:/u"), ["/l", "/u"]);
        assert_eq!(paths("/a:/b:c:/u"), ["/a", "/b:c", "/u"]);
        for bad in ["/only", "relative:/u", ""] {
            assert!(matches!(of(bad), Err(Unsupported::Layers(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_at_the_path_decides_where_no_kind_is_said() {
        let top = tempfile::tempdir().unwrap();
        let (dir, file) = (top.path().join("dir"), top.path().join("file"));
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "").unwrap();
        let of = |path: &Path| root(RootfsKind::Unspecified, path, None).unwrap();
        assert!(matches!(of(&dir), Root::Directory { .. }));
        assert!(matches!(of(&file), Root::Image { .. }));
        assert!(matches!(of(&top.path().join("missing")), Root::Directory { .. }));
        let refused = |kind, options| root(kind, &dir, options).unwrap_err();
        assert_eq!(refused(RootfsKind::Nbd, None), Unsupported::Kind("nbd".into()));
        assert_eq!(refused(RootfsKind::Dir, Some("ro,idmap=container")), Unsupported::IdMapped);
    }

    #[test]
    fn options_are_flags_or_for_the_file_system() {
        let options = Options::parse("defaults,ro,noatime,xino=off,rw,rprivate,nodev, data=x");
        assert_eq!(options.flags, MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        assert_eq!(options.data, "xino=off,data=x");
    }

    #[test]
    fn kinds_of_devices_are_those_without_a_mark() {
        assert_eq!(kinds("nodev\tsysfs\n\text4\n# a note\n\n*\nxfs\n"), ["ext4", "xfs"]);
    }
}
