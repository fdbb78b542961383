//! The place in which a twin is restored: what it has in place of the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::room::WRITTEN;
use crate::criu::images::{self, FileKind, PathFile};
use crate::error::Failure;
use crate::lxc::definition::Defined;
use crate::resources::mounts;
use crate::resources::rootfs::{Held, Root};
use crate::restore::beside::{Asked, Scene, Twin};
use crate::sys::cover::{Covers, Lower};
use crate::sys::mount::{Detached, in_mount_namespace};
use crate::sys::netlink::{Netlink, NewVeth, in_netns, in_new_netns};

/// A file that is open for writing is not copied from this size on: bytes.
const LARGE: u64 = 1 << 20;
/// File systems of the kernel's own, in which a restore writes nothing, and those of daemons that
/// an overlay cannot be put upon: they are shown as they are (include/uapi/linux/magic.h).
const AS_THEY_ARE: &[i64] = &[
    0x9584_58f6, // hugetlbfs
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x27_e0eb,   // cgroup
    0x6367_7270, // cgroup2
    0x6573_5546, // fuse
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x7363_6673, // securityfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x6265_6570, // configfs
    0x4249_4e4d, // binfmt_misc
    0xcafe_4a11, // bpf
    0x6e73_6673, // nsfs
    0xf97c_ff8c, // selinuxfs
];
/// What CRIU says where it cannot write (`EROFS` in the C library's words), and where it may not
/// take back that a mount is read-only.
const READ_ONLY: [&str; 2] = ["Read-only file system", "bind remount"];
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// A scene that was made.
pub(super) struct Made {
    root: Option<Held>,
    root_path: PathBuf,
    mounts: BTreeMap<String, Detached>,
    covers: Covers,
    network: File,
    netlink: Netlink,
}

impl Made {
    /// Makes it. Nothing of it outlives us.
    ///
    /// # Errors
    /// Why the twin cannot be kept apart from the container.
    pub(super) fn make(twin: &Twin<'_>, asked: &Asked<'_>, init: i32) -> Result<Made> {
        let large = large_files(asked.images).context("read which files are open")?;
        let of =
            |mount: Option<&str>| large.get(&mount.map(str::to_owned)).cloned().unwrap_or_default();
        let namespace = namespace_of_sources(asked.defined, init)?;
        let namespace = namespace.as_ref().map(AsFd::as_fd);
        let root = root_in_use(twin.root(), init, namespace).context("hold its root")?;
        let mut lowers = vec![Lower { mount: root, large_files: of(None), or_read_only: false }];
        let (mut keys, mut mounts) = (Vec::new(), BTreeMap::new());
        for (key, path) in twin.mounts() {
            let (mount, covered) = held(path, namespace)
                .with_context(|| format!("hold {}, which is mounted in it", path.display()))?;
            if !covered {
                mounts.insert(key.to_owned(), Detached::from(mount));
                continue;
            }
            lowers.push(Lower { mount, large_files: of(Some(key)), or_read_only: true });
            keys.push(key.to_owned());
        }
        let mut covers = Covers::make(lowers, WRITTEN).context("make a file system in memory")?;
        let mut made = std::mem::take(&mut covers.made).into_iter();
        let cover = made.next().unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()));
        let root = Held::of(cover.context("put an overlay over its root")?);
        for (key, cover) in keys.into_iter().zip(made) {
            let cover = cover.with_context(|| format!("put an overlay over the mount {key}"))?;
            mounts.insert(key, cover);
        }
        let (network, netlink) =
            outside(twin.host_interfaces()).context("make a network without a way out")?;
        Ok(Made {
            root_path: root.path().to_owned(),
            root: Some(root),
            mounts,
            covers,
            network,
            netlink,
        })
    }

    /// A path that leads to the covered root.
    pub(super) fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Whether more was written than there is room for.
    fn is_full(&self) -> bool {
        self.covers.are_full()
    }

    /// Whether a restore in it may have failed for the only reason that something could not be
    /// written.
    pub(super) fn is_too_narrow(&self, failure: &Failure) -> bool {
        self.is_full()
            || (self.covers.some_read_only
                && READ_ONLY.iter().any(|text| failure.to_string().contains(text)))
    }

    /// Shows it once.
    pub(super) fn show<T>(
        &mut self,
        f: impl FnOnce(&mut Scene<'_>) -> crate::error::Result<T>,
    ) -> crate::error::Result<T> {
        let root = self.root.take().context("the scene was shown already")?;
        let mounts = std::mem::take(&mut self.mounts);
        f(&mut Scene { root, mounts, network: &self.network, netlink: &mut self.netlink })
    }
}

/// The root that the container has, whoever has mounted it. Where the kernel does not give it to
/// us, the directory that the configuration names is the same one; anything else must not be
/// mounted a second time.
fn root_in_use(root: &Root, init: i32, namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    match (Held::in_use(init), root.directory()) {
        (Ok(held), _) => Ok(held.into_mount().into()),
        (Err(_), Some(directory)) => Ok(held(directory, namespace)?.0),
        (Err(e), None) => Err(e),
    }
}

/// The mount namespace in which the paths of what it has mounted lead there: that of LXC's monitor,
/// where it has one of its own.
fn namespace_of_sources(defined: &Defined, init: i32) -> Result<Option<File>> {
    if !defined.config.monitor_unshare() {
        return Ok(None);
    }
    let monitor = mounts::monitor_of(init)?;
    let path = format!("/proc/{monitor}/ns/mnt");
    File::open(&path).with_context(|| format!("open {path}")).map(Some)
}

/// What is at a path of the host, mounted nowhere, and whether it has to be covered.
fn held(path: &Path, namespace: Option<BorrowedFd<'_>>) -> Result<(OwnedFd, bool)> {
    let hold = || -> io::Result<(OwnedFd, bool)> {
        let file = openat2(
            CWD,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        )?;
        let is_directory = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::Directory;
        let is_kernels = AS_THEY_ARE.contains(&(fstatfs(&file)?.f_type & 0xffff_ffff));
        Ok((
            open_tree(&file, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?,
            is_directory && !is_kernels,
        ))
    };
    Ok(match namespace {
        Some(namespace) => in_mount_namespace(namespace, hold)?,
        None => hold()?,
    })
}

/// Large files that are open for writing, relative to the mount that they are in: by its name in
/// the images, and without one for the root.
fn large_files(dir: &Path) -> Result<BTreeMap<Option<String>, Vec<PathBuf>>> {
    let all: Vec<images::Mount> =
        images::all_mounts(dir)?.into_iter().flat_map(|(_, mounts)| mounts).collect();
    let mut found: BTreeMap<Option<String>, BTreeSet<PathBuf>> = BTreeMap::new();
    for file in images::open_files(dir)? {
        let FileKind::Path(PathFile {
            path, mount: Some(id), size: Some(size), written: true, ..
        }) = file.kind
        else {
            continue;
        };
        let Some(mount) = all.iter().find(|mount| mount.id == id).filter(|_| size >= LARGE) else {
            continue;
        };
        let is_root = mount.point == Path::new("/");
        if let Ok(inside) = path.strip_prefix(&mount.point)
            && (is_root || mount.external.is_some())
        {
            let key = mount.external.clone().filter(|_| !is_root);
            found.entry(key).or_default().insert(inside.to_owned());
        }
    }
    Ok(found.into_iter().map(|(key, files)| (key, files.into_iter().collect())).collect())
}

/// A network namespace that leads nowhere, with interfaces of these names.
fn outside<'n>(interfaces: impl Iterator<Item = &'n str>) -> Result<(File, Netlink)> {
    let network = in_new_netns(|| File::open("/proc/thread-self/ns/net"))??;
    let mut netlink = in_netns(network.as_fd(), Netlink::open)??;
    let names: BTreeSet<&str> = interfaces.collect();
    for (number, name) in names.into_iter().enumerate() {
        let new = NewVeth {
            host_name: name.to_owned(),
            inner_name: format!("lxc-cr-{number}"),
            mtu: None,
            host_mac: None,
            inner_mac: None,
            host_txqueuelen: None,
            inner_txqueuelen: None,
            host_queues: None,
            inner_queues: None,
            inner_index: None,
            inner_netns: None,
            host_up: true,
            controller: None,
        };
        netlink
            .create_veth(&new)
            .with_context(|| format!("make an interface in place of {name}"))?;
        let other = netlink.link(&new.inner_name)?.index;
        netlink.set_up(other, true)?;
    }
    Ok((network, netlink))
}
