//! What a container has mounted from the host.
//!
//! CRIU restores a mount that was made in the container by making it again; a bind mount from the host it can
//! only restore when it is told that the mount is external and where its source is. Which ones are external is
//! read off the two mount tables: the container's and ours.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use crate::sys::mount::in_mount_namespace;

/// File systems of which the kernel has one for all (or one for each namespace): CRIU mounts them anew, and that
/// the host has the same one mounted does not make them external.
const KERNEL_FILE_SYSTEMS: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// One line of a mount table, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id (unique in the kernel while it lives).
    pub id: i32,
    /// The id of the mount that it is mounted on.
    pub parent: i32,
    /// major:minor of its file system.
    pub device: String,
    /// The path in that file system which is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// What of [`FLAGS`] it has.
    pub flags: MsFlags,
}

/// The words for what a mount forbids by itself, whatever its file system allows.
const FLAGS: &[(&str, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
];

/// A bind mount from the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// The name by which the images know it.
    pub key: String,
    /// The mount point in the container.
    pub point: PathBuf,
    /// What was mounted there: a path on the host, free of symbolic links.
    pub source: PathBuf,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// The mount table of a process.
pub fn table(pid: i32) -> Result<Vec<Mount>> {
    let what = || format!("read /proc/{pid}/mountinfo");
    let lines = procfs::process::Process::new(pid).and_then(|p| p.mountinfo()).with_context(what)?;
    Ok(lines
        .into_iter()
        .map(|m| Mount {
            id: m.mnt_id,
            parent: m.pid,
            device: m.majmin,
            root: PathBuf::from(m.root),
            point: m.mount_point,
            kind: m.fs_type,
            flags: FLAGS
                .iter()
                .filter(|(word, _)| m.mount_options.contains_key(*word))
                .map(|(_, flag)| *flag)
                .collect(),
        })
        .collect())
}

/// The mounts of a container that come from the host; pure.
pub fn externals(container: &[Mount], host: &[Mount]) -> Vec<External> {
    let Some(root) = container.iter().rfind(|m| m.point == Path::new("/")) else { return Vec::new() };
    let mut found: Vec<External> = Vec::new();
    for mount in container.iter().filter(|m| m.id != root.id) {
        if KERNEL_FILE_SYSTEMS.contains(&mount.kind.as_str()) && mount.root == Path::new("/") {
            continue;
        }
        // A piece of the container's own root, bound to another place in it.
        if mount.device == root.device && mount.root.starts_with(&root.root) {
            continue;
        }
        // A piece of something that was mounted in the container as a whole, as LXC's own boot id file is.
        if container.iter().any(|m| m.device == mount.device && m.id != mount.id && m.root == Path::new("/"))
            && !on_host(mount, host)
        {
            continue;
        }
        let Some(source) = source_on_host(mount, host) else { continue };
        let name =
            mount.point.to_string_lossy().trim_start_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let key = format!("{name}_{}", found.len());
        found.push(External {
            key,
            point: mount.point.clone(),
            source,
            read_only: mount.flags.contains(MsFlags::MS_RDONLY),
        });
    }
    found
}

fn on_host(mount: &Mount, host: &[Mount]) -> bool {
    host.iter().any(|h| h.device == mount.device)
}

/// The path under which the host sees what is mounted: by the mount that shows the longest part of it.
fn source_on_host(mount: &Mount, host: &[Mount]) -> Option<PathBuf> {
    host.iter()
        .filter(|h| h.device == mount.device && mount.root.starts_with(&h.root))
        .max_by_key(|h| h.root.components().count())
        .map(|h| match mount.root.strip_prefix(&h.root) {
            Ok(rest) if !rest.as_os_str().is_empty() => h.point.join(rest),
            _ => h.point.clone(),
        })
}

/// The mount points whose mount had other flags, with those that it had; pure. Where one mount hides another it is not
/// told which of the two could be reached, and they are left alone.
fn differing(then: &[(PathBuf, MsFlags)], now: &[Mount]) -> Vec<(PathBuf, MsFlags)> {
    let known = FLAGS.iter().map(|(_, flag)| *flag).collect::<MsFlags>();
    let alone = then.iter().filter(|(point, _)| then.iter().filter(|(p, _)| p == point).count() == 1);
    let changed = alone.filter(|(point, flags)| {
        let there: Vec<&Mount> = now.iter().filter(|m| m.point == *point).collect();
        matches!(there.as_slice(), [mount] if mount.flags != *flags & known)
    });
    changed.map(|(point, flags)| (point.clone(), *flags & known)).collect()
}

/// Gives the mounts of a restored container, whose tasks stand still, the flags that they had.
///
/// CRIU (4.2) makes one of several bind mounts of the same thing from the other, before it sets flags: LXC's template
/// binds /lib and /usr/lib, which are one directory, and one of them came back writable.
pub fn mend_flags(init: i32, then: &[(PathBuf, MsFlags)]) -> Result<()> {
    let changed = differing(then, &table(init)?);
    if changed.is_empty() {
        return Ok(());
    }
    let namespace = fs::File::open(format!("/proc/{init}/ns/mnt")).context("open the container's mount namespace")?;
    let mended = in_mount_namespace(namespace.as_fd(), || {
        let none = None::<&str>;
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        changed.iter().try_for_each(|(point, flags)| Ok(mount(none, point, none, remount | *flags, none)?))
    });
    mended.context("give the container's mounts their flags")
}

/// An open descriptor of the container's init on a file of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// The host's mount id.
    pub mount_id: u64,
    /// The inode.
    pub inode: u64,
    /// The path on the host.
    pub path: PathBuf,
}

/// Standard streams of init that lead to a device of the host which no mount of the container shows: that is
/// what `lxc.autodev = 0` with `lxc.console.path = none` gives (the host's /dev/null).
pub fn host_streams(init: i32, container: &[Mount]) -> Result<Vec<HostFile>> {
    let mut found: Vec<HostFile> = Vec::new();
    for number in 0..3 {
        let info = match fs::read_to_string(format!("/proc/{init}/fdinfo/{number}")) {
            Ok(info) => info,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("read /proc/{init}/fdinfo/{number}")),
        };
        let field =
            |name: &str| info.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.trim().parse::<u64>().ok());
        let (Some(mount_id), Some(inode)) = (field("mnt_id:"), field("ino:")) else { continue };
        if container.iter().any(|m| u64::try_from(m.id) == Ok(mount_id)) {
            continue;
        }
        let link = format!("/proc/{init}/fd/{number}");
        let target = fs::read_link(&link).with_context(|| format!("read {link}"))?;
        // Only /dev/null can be opened again without asking what was written to it.
        let null = [Path::new("/dev/null"), Path::new("/null")].contains(&target.as_path());
        if null && !found.iter().any(|f| (f.mount_id, f.inode) == (mount_id, inode)) {
            found.push(HostFile { mount_id, inode, path: PathBuf::from("/dev/null") });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: i32, device: &str, root: &str, point: &str, kind: &str) -> Mount {
        Mount {
            id,
            parent: 0,
            device: device.into(),
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            flags: MsFlags::empty(),
        }
    }

    #[test]
    fn flags_that_are_missing_are_found_where_one_mount_is() {
        let with = |flags, mount| Mount { flags, ..mount };
        let (ro, nosuid) = (MsFlags::MS_RDONLY, MsFlags::MS_NOSUID);
        let then = |point: &str, flags| (PathBuf::from(point), flags);
        let now = [
            with(ro, mount(1, "0:1", "/", "/", "ext4")),
            with(nosuid, mount(2, "0:1", "/", "/a", "ext4")),
            with(ro, mount(3, "0:1", "/", "/b", "ext4")),
            with(nosuid, mount(4, "0:1", "/", "/b", "ext4")),
        ];
        let before = [then("/", ro), then("/a", ro | nosuid), then("/b", ro), then("/b", nosuid), then("/gone", ro)];
        assert_eq!(differing(&before, &now), [then("/a", ro | nosuid)]);
    }

    #[test]
    fn only_what_comes_from_the_host_is_external() {
        let host = [
            mount(1, "254:0", "/", "/", "ext4"),
            mount(2, "0:6", "/", "/dev", "devtmpfs"),
            mount(3, "0:21", "/", "/sys", "sysfs"),
            mount(4, "0:30", "/", "/srv/data", "tmpfs"),
        ];
        let container = [
            mount(59, "254:0", "/var/lib/lxc/t/rootfs", "/", "ext4"),
            mount(60, "0:44", "/", "/dev", "tmpfs"),
            mount(61, "0:6", "/full", "/dev/full", "devtmpfs"),
            mount(62, "0:46", "/", "/proc", "proc"),
            mount(63, "0:44", "/.lxc-boot-id", "/proc/sys/kernel/random/boot_id", "tmpfs"),
            mount(64, "254:0", "/var/lib/lxc/t/rootfs/etc", "/mnt/etc", "ext4"),
            mount(65, "254:0", "/usr/lib", "/lib", "ext4"),
            mount(66, "0:30", "/a b", "/data", "tmpfs"),
            mount(67, "0:21", "/", "/sys", "sysfs"),
        ];
        let found: Vec<_> = externals(&container, &host).into_iter().map(|e| (e.key, e.source)).collect();
        assert_eq!(
            found,
            [
                ("dev_full_0".to_owned(), PathBuf::from("/dev/full")),
                ("lib_1".to_owned(), PathBuf::from("/usr/lib")),
                ("data_2".to_owned(), PathBuf::from("/srv/data/a b")),
            ]
        );
    }
}
