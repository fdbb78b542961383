//! What a container has mounted from the host.
//!
//! CRIU restores a mount that was made in the container by making it again; a mount of something
//! that the host has mounted it can only restore when it is told that the mount is external and
//! where its source is. Which ones are external is read off the two mount tables: the container's
//! and ours.
//!
//! The source decides about propagation, too: CRIU makes the restored mount a slave of the mount
//! that it finds at the source's path. So of several mounts that show the same thing the one counts
//! that the container's mount receives from.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::{Mount, seen_at};

/// File systems of which the kernel has one for all: who mounts it gets the same as the host has.
/// One that the container has mounted by itself is made again that way, for the host need not have
/// it mounted. (Without a user namespace; in one, the kernel lets nobody mount them.)
const ONE_FOR_ALL: &[&str] = &[
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "pstore",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "tracefs",
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
    /// What was there, to know it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// What the mounts of a container are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// The host's mount table.
    pub table: &'a [Mount],
    /// Whether the container has a user namespace of its own.
    pub own_users: bool,
}

/// The mounts of a container that come from the host; pure.
pub(crate) fn externals(container: &[Mount], host: Host<'_>) -> Vec<External> {
    let Some(root) = container.iter().rfind(|m| m.point == Path::new("/")) else {
        return Vec::new();
    };
    let mut found: Vec<External> = Vec::new();
    let mut whole: HashMap<&str, usize> = HashMap::new();
    container
        .iter()
        .filter(|m| m.root == Path::new("/"))
        .for_each(|m| *whole.entry(&m.device).or_default() += 1);
    let of_host: HashSet<&str> = host.table.iter().map(|h| h.device.as_str()).collect();
    for mount in container.iter().filter(|m| m.id != root.id) {
        if is_remade(mount, container, host) {
            continue;
        }
        // A piece of the container's own root, bound to another place in it.
        if mount.device == root.device && mount.root.starts_with(&root.root) {
            continue;
        }
        // A piece of something that was mounted in the container as a whole, as LXC's own boot id
        // file is.
        let others = whole.get(mount.device.as_str()).copied().unwrap_or_default();
        if others > usize::from(mount.root == Path::new("/"))
            && !of_host.contains(mount.device.as_str())
        {
            continue;
        }
        let Some(source) = source_of(mount, host.table) else { continue };
        let name = mount
            .point
            .to_string_lossy()
            .trim_start_matches('/')
            .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let key = format!("{name}_{}", found.len());
        found.push(External {
            key,
            point: mount.point.clone(),
            source: source.path(mount),
            read_only: mount.flags.contains(MsFlags::MS_RDONLY),
            identity: None,
        });
    }
    found
}

/// Whether CRIU gets the same by mounting it anew.
fn is_remade(mount: &Mount, container: &[Mount], host: Host<'_>) -> bool {
    ONE_FOR_ALL.contains(&mount.kind.as_str())
        && mount.root == Path::new("/")
        && !host.own_users
        && !mount.has_master_outside(container)
}

/// A mount of the host that shows what a container has mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The host's mount.
    mount: &'a Mount,
    /// Whether its path leads there: no later mount covers it.
    pub in_sight: bool,
    /// Whether the container's mount receives what is mounted below it, or receives nothing.
    pub propagates: bool,
}

impl Source<'_> {
    /// Where on the host what is mounted in the container is.
    pub(crate) fn path(&self, mount: &Mount) -> PathBuf {
        join(&self.mount.point, mount.root.strip_prefix(&self.mount.root).unwrap_or(Path::new("")))
    }
}

/// The mount of the host that shows what is mounted: in sight rather than covered, one that the
/// container's mount receives from rather than another; of those, the one that shows least of the
/// rest. Of several that show the same, one without other mounts below it, which would be bound
/// with it; and rather the one in the container's root, which is what LXC took, with the flags and
/// owners that a hook gave it there.
pub(crate) fn source_of<'a>(mount: &Mount, host: &'a [Mount]) -> Option<Source<'a>> {
    let candidates = host
        .iter()
        .filter(|h| h.device == mount.device && mount.root.starts_with(&h.root))
        .map(|h| {
            let source = Source {
                mount: h,
                in_sight: false,
                propagates: mount.master.is_none() || mount.receives_from(h),
            };
            let in_sight = seen_at(host, &source.path(mount)).is_some_and(|seen| seen.id == h.id);
            Source { in_sight, ..source }
        });
    let point = mount.point.strip_prefix("/").unwrap_or(&mount.point);
    candidates.max_by_key(|s| {
        let is_leaf =
            !host.iter().any(|above| above.parent == s.mount.id && above.id != s.mount.id);
        (
            s.in_sight,
            s.propagates,
            s.mount.root.components().count(),
            is_leaf,
            s.mount.point.ends_with(point),
        )
    })
}

/// Without a slash at the end, for CRIU takes a path as it is.
fn join(point: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { point.to_owned() } else { point.join(rest) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::mount;
    use super::*;

    fn on(parent: i32, mount: Mount) -> Mount {
        Mount { parent, ..mount }
    }

    fn found(container: &[Mount], table: &[Mount], own_users: bool) -> Vec<(String, PathBuf)> {
        externals(container, Host { table, own_users })
            .into_iter()
            .map(|e| (e.key, e.source))
            .collect()
    }

    #[test]
    fn only_what_comes_from_the_host_is_external() {
        let host = [
            mount(1, "254:0", "/", "/", "ext4"),
            on(1, mount(2, "0:6", "/", "/dev", "devtmpfs")),
            on(1, mount(3, "0:21", "/", "/sys", "sysfs")),
            on(1, mount(4, "0:30", "/", "/srv/data", "tmpfs")),
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
            mount(68, "0:47", "/", "/own/sys", "sysfs"),
        ];
        assert_eq!(
            found(&container, &host, false),
            [
                ("dev_full_0".to_owned(), PathBuf::from("/dev/full")),
                ("lib_1".to_owned(), PathBuf::from("/usr/lib")),
                ("data_2".to_owned(), PathBuf::from("/srv/data/a b")),
                ("sys_3".to_owned(), PathBuf::from("/sys")),
            ]
        );
    }

    #[test]
    fn a_kernel_file_system_is_external_where_it_cannot_be_made_again() {
        let host = [
            mount(1, "254:0", "/", "/", "ext4"),
            Mount {
                shared: Some(14),
                ..on(1, mount(2, "0:49", "/", "/sys/kernel/debug", "debugfs"))
            },
        ];
        let root = mount(50, "254:0", "/root", "/", "ext4");
        let own = mount(51, "0:49", "/", "/debug", "debugfs");
        let bound = Mount { master: Some(14), ..own.clone() };
        let among = Mount { master: Some(90), ..own.clone() };
        let group = Mount { shared: Some(90), ..mount(52, "0:50", "/", "/x", "tmpfs") };
        let is_external = |m: &Mount, own_users| {
            !found(&[root.clone(), m.clone(), group.clone()], &host, own_users).is_empty()
        };
        assert!(!is_external(&own, false));
        assert!(is_external(&own, true));
        assert!(is_external(&bound, false));
        assert!(!is_external(&among, false));
    }

    #[test]
    fn of_several_sources_the_one_counts_that_propagates() {
        let host = [
            Mount { shared: Some(1), ..mount(1, "254:0", "/", "/", "ext4") },
            Mount { shared: Some(2), ..on(1, mount(2, "254:0", "/srv/a", "/bound", "ext4")) },
            on(1, mount(3, "254:0", "/srv", "/private", "ext4")),
        ];
        let bound = |master| Mount { master, ..mount(50, "254:0", "/srv/a/x", "/x", "ext4") };
        let source = |master, host: &[Mount]| {
            let (mount, table) = (bound(master), host.to_vec());
            let found = source_of(&mount, &table).unwrap();
            (found.path(&mount), found.in_sight, found.propagates)
        };
        assert_eq!(source(Some(1), &host), ("/srv/a/x".into(), true, true));
        assert_eq!(source(Some(2), &host), ("/bound/x".into(), true, true));
        assert_eq!(source(None, &host), ("/bound/x".into(), true, true));
        assert_eq!(source(Some(7), &host), ("/bound/x".into(), true, false));
        let covered = [host.as_slice(), &[on(1, mount(9, "0:9", "/", "/srv", "tmpfs"))]].concat();
        assert_eq!(source(Some(1), &covered), ("/bound/x".into(), true, false));
        assert_eq!(source(Some(1), &covered[..1]), ("/srv/a/x".into(), true, true));
        let all = [&covered[..1], &covered[3..]].concat();
        assert_eq!(source(Some(1), &all), ("/srv/a/x".into(), false, true));
    }

    #[test]
    fn a_source_is_what_lxc_took_unless_more_is_mounted_below_it() {
        let mut host = vec![
            mount(1, "254:0", "/", "/", "ext4"),
            on(1, mount(2, "254:0", "/srv/data", "/var/lib/lxc/101/rootfs/mnt", "ext4")),
            on(1, mount(3, "254:0", "/srv/data", "/var/lib/lxc/.staged/mp0", "ext4")),
        ];
        let data = mount(9, "254:0", "/srv/data", "/mnt", "ext4");
        let source = |host: &[Mount]| source_of(&data, host).unwrap().path(&data);
        assert_eq!(source(&host), Path::new("/var/lib/lxc/101/rootfs/mnt"));
        host.push(on(2, mount(4, "7:0", "/", "/var/lib/lxc/101/rootfs/mnt/sub", "ext4")));
        assert_eq!(source(&host), Path::new("/var/lib/lxc/.staged/mp0"));
    }
}
