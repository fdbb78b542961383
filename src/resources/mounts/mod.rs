//! Mount tables: a container's, and the host's.
//!
//! [`external`] finds what a container has mounted from the host; CRIU must be given the source of
//! each. [`Mount::master`] and [`Mount::shared`] say where mounts propagate: what the host mounts
//! later reaches the container through the first.

pub(crate) mod external;
pub(crate) mod identity;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use procfs::process::MountInfo;
use procfs::process::MountOptFields::{self, Master, Shared};
use serde::{Deserialize, Serialize};

pub(crate) use external::External;

use crate::sys::process;

use crate::sys::mount::in_mount_namespace;

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
    /// Whether what is mounted was deleted since, or replaced.
    pub deleted: bool,
    /// The file system's type.
    pub kind: String,
    /// What was mounted, as the kernel tells it: a device, another host's directory, or any word.
    pub source: String,
    /// Whether it shows other owners than its file system has.
    pub id_mapped: bool,
    /// What of [`FLAGS`] it has.
    pub flags: MsFlags,
    /// Its peer group: what is mounted below one of its members is mounted below all.
    pub shared: Option<u32>,
    /// The peer group that it receives mounts from, and sends none to.
    pub master: Option<u32>,
}

impl Mount {
    /// Whether it receives what is mounted below the other one.
    fn receives_from(&self, other: &Mount) -> bool {
        self.master.is_some() && (self.master == other.shared || self.master == other.master)
    }

    /// Whether nothing that is mounted below it reaches other mounts, nor the other way round.
    pub fn is_private(&self) -> bool {
        self.shared.is_none() && self.master.is_none()
    }

    /// Whether its master is none of these mounts.
    pub fn has_master_outside(&self, table: &[Mount]) -> bool {
        self.master.is_some() && !table.iter().any(|m| m.shared == self.master)
    }
}

/// The mount that a path leads to; pure.
pub(crate) fn seen_at<'a>(table: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let mut at = table.iter().find(|m| {
        m.point == Path::new("/") && !table.iter().any(|p| p.id == m.parent && p.id != m.id)
    })?;
    // At most as many steps as there are mounts.
    for _ in table {
        let upon = table
            .iter()
            .filter(|m| m.parent == at.id && m.id != at.id && path.starts_with(&m.point));
        match upon.min_by_key(|m| m.point.components().count()) {
            Some(next) => at = next,
            None => break,
        }
    }
    Some(at)
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
    ("nosymfollow", NO_SYMLINKS),
];
/// `MS_NOSYMFOLLOW`, include/uapi/linux/mount.h.
pub(crate) const NO_SYMLINKS: MsFlags = MsFlags::from_bits_retain(256);
/// How the kernel marks the root of a mount that was deleted. No path has two slashes otherwise.
const DELETED: &str = "//deleted";

/// The mount table of a process.
pub(crate) fn table(pid: i32) -> Result<Vec<Mount>> {
    let read = procfs::process::Process::new(pid).and_then(|process| process.mountinfo());
    // The kernel says that the argument is invalid.
    if read.is_err() && process::is_killed(pid) {
        bail!("process {pid} is ending");
    }
    let lines = read.with_context(|| format!("read /proc/{pid}/mountinfo"))?;
    Ok(lines.into_iter().map(Mount::from).collect())
}

impl From<MountInfo> for Mount {
    fn from(line: MountInfo) -> Mount {
        let has = |word: &str| line.mount_options.contains_key(word);
        Mount {
            shared: group(
                &line.opt_fields,
                |field| if let Shared(id) = field { Some(*id) } else { None },
            ),
            master: group(
                &line.opt_fields,
                |field| if let Master(id) = field { Some(*id) } else { None },
            ),
            id: line.mnt_id,
            parent: line.pid,
            root: PathBuf::from(line.root.strip_suffix(DELETED).unwrap_or(&line.root)),
            deleted: line.root.ends_with(DELETED),
            flags: FLAGS.iter().filter(|(word, _)| has(word)).map(|(_, flag)| *flag).collect(),
            id_mapped: has("idmapped"),
            device: line.majmin,
            point: line.mount_point,
            kind: line.fs_type,
            source: line.mount_source.unwrap_or_default(),
        }
    }
}

fn group(fields: &[MountOptFields], of: impl Fn(&MountOptFields) -> Option<u32>) -> Option<u32> {
    fields.iter().find_map(of)
}

/// The process by whose mount namespace a container got what it has of the host: its monitor's,
/// which has one of its own with `lxc.monitor.unshare`, and there what its hooks have mounted.
/// Ours, where they are the same or it is gone.
pub(crate) fn monitor_of(init: i32) -> Result<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let monitor = process::parent(init).with_context(|| format!("read /proc/{init}/stat"))?;
    let theirs = namespace(&monitor.to_string()).filter(|_| monitor != 0);
    Ok(match theirs.is_some() && theirs != namespace("self") {
        true => monitor,
        false => std::process::id().cast_signed(),
    })
}

/// The mount points whose mount had other flags, with those that it had; pure. Where one mount
/// hides another it is not told which of the two could be reached, and they are left alone.
fn differing(then: &[(PathBuf, MsFlags)], now: &[Mount]) -> Vec<(PathBuf, MsFlags)> {
    let known = FLAGS.iter().map(|(_, flag)| *flag).collect::<MsFlags>();
    let alone =
        then.iter().filter(|(point, _)| then.iter().filter(|(p, _)| p == point).count() == 1);
    let changed = alone.filter(|(point, flags)| {
        let there: Vec<&Mount> = now.iter().filter(|m| m.point == *point).collect();
        matches!(there.as_slice(), [mount] if mount.flags != *flags & known)
    });
    changed.map(|(point, flags)| (point.clone(), *flags & known)).collect()
}

/// Gives the mounts of a restored container, whose tasks stand still, the flags that they had.
///
/// CRIU (4.2) makes one of several bind mounts of the same thing from the other, before it sets
/// flags: LXC's template binds /lib and /usr/lib, which are one directory, and one of them came
/// back writable.
pub(crate) fn mend_flags(init: i32, then: &[(PathBuf, MsFlags)]) -> Result<()> {
    let changed = differing(then, &table(init)?);
    if changed.is_empty() {
        return Ok(());
    }
    let namespace = fs::File::open(format!("/proc/{init}/ns/mnt"))
        .context("open the container's mount namespace")?;
    let mended = in_mount_namespace(namespace.as_fd(), || {
        let none = None::<&str>;
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        changed
            .iter()
            .try_for_each(|(point, flags)| Ok(mount(none, point, none, remount | *flags, none)?))
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

/// Standard streams of init that lead to a device of the host which no mount of the container
/// shows: that is what `lxc.autodev = 0` with `lxc.console.path = none` gives (the host's
/// /dev/null).
pub(crate) fn host_streams(init: i32, container: &[Mount]) -> Result<Vec<HostFile>> {
    let mut found: Vec<HostFile> = Vec::new();
    for number in 0..3 {
        let info = match fs::read_to_string(format!("/proc/{init}/fdinfo/{number}")) {
            Ok(info) => info,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("read /proc/{init}/fdinfo/{number}")),
        };
        let field = |name: &str| {
            info.lines()
                .find_map(|l| l.strip_prefix(name))
                .and_then(|v| v.trim().parse::<u64>().ok())
        };
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
pub(crate) mod tests {
    use super::*;

    /// A mount for tests: its file system is mounted as a whole.
    pub(crate) fn mount(id: i32, device: &str, root: &str, point: &str, kind: &str) -> Mount {
        Mount {
            id,
            parent: 0,
            device: device.into(),
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            deleted: false,
            source: kind.into(),
            id_mapped: false,
            flags: MsFlags::empty(),
            shared: None,
            master: None,
        }
    }

    #[test]
    fn a_path_leads_to_what_is_on_top() {
        let on = |parent, mount| Mount { parent, ..mount };
        let table = [
            mount(1, "0:1", "/", "/", "ext4"),
            on(1, mount(2, "0:2", "/", "/a/b", "tmpfs")),
            on(1, mount(3, "0:3", "/", "/a", "tmpfs")),
            on(3, mount(4, "0:4", "/", "/a", "tmpfs")),
            on(4, mount(5, "0:5", "/", "/a/c", "tmpfs")),
        ];
        let seen = |path: &str| seen_at(&table, Path::new(path)).map(|m| m.id);
        assert_eq!(
            [seen("/"), seen("/ab"), seen("/a/b/x"), seen("/a/c/x")],
            [Some(1), Some(1), Some(4), Some(5)]
        );
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
        let before = [
            then("/", ro),
            then("/a", ro | nosuid),
            then("/b", ro),
            then("/b", nosuid),
            then("/gone", ro),
        ];
        assert_eq!(differing(&before, &now), [then("/a", ro | nosuid)]);
    }
}
