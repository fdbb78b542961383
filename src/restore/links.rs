//! Symbolic links in the container, while CRIU restores it: none is followed, but where a program
//! itself has named one.
//!
//! The paths in the images are the kernel's: at the checkpoint no link was left in them, and if one
//! is in the way now, somebody has put it there. So the mounts of the root, and of all that others
//! than CRIU fill, are restored with `nosymfollow`, which is taken away before the tasks go on.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::criu::images::{self, FileKind, Mount, NamespaceIds, Shown};
use crate::resources::cgroup;
use crate::sys::in_root::Below;
use crate::sys::mount::follow_links;

/// File systems in which links are the kernel's own, and which CRIU needs.
const KERNELS: &[&str] =
    &["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "fusectl", "securityfs"];
/// What a program opens to get a terminal: a link, with many.
const NEW_TERMINAL: &str = "/dev/ptmx";

/// Whether links in the root are needed: sockets are bound under the names that their programs gave
/// them, such as `/var/run/program`.
pub(super) fn are_needed(dir: &Path, root: &Path) -> Result<bool> {
    let inside = Below::open(root).with_context(|| format!("open the root {}", root.display()))?;
    let covered = |path: &Path, mounts: &[Mount]| {
        mounts.iter().any(|m| m.point != Path::new("/") && path.starts_with(&m.point))
    };
    let mounts = mounts(dir)?;
    for file in images::open_files(dir)? {
        let name = match &file.kind {
            FileKind::Unix(socket) => match socket.path() {
                Some(path) => path,
                None => continue,
            },
            FileKind::Other("terminal") => NEW_TERMINAL.into(),
            _ => continue,
        };
        let below = name.strip_prefix("/").unwrap_or(&name);
        if !covered(&name, &mounts)
            && inside
                .has_link(below)
                .with_context(|| format!("inspect {} in the root", name.display()))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Shows CRIU the mounts with `nosymfollow` that others than CRIU have filled; `all` of them, if
/// what CRIU fills was not looked through at the checkpoint. Gives the keys of those from outside
/// in which links are the kernel's own.
pub(super) fn forbid(shown: &mut Shown, in_root: bool, all: bool) -> Result<BTreeSet<String>> {
    let mut kernels = BTreeSet::new();
    for (name, mounts) in images::all_mounts(shown.dir())? {
        let root = mounts.iter().find(|m| m.point == Path::new("/")).map(|m| m.device);
        let others: BTreeSet<u32> =
            mounts.iter().filter(|m| m.external.is_some()).map(|m| m.device).collect();
        let is_kernels = |m: &Mount| KERNELS.contains(&m.kind.as_str());
        kernels.extend(mounts.iter().filter(|m| is_kernels(m)).filter_map(|m| m.external.clone()));
        let forbidden = |m: &Mount| match Some(m.device) == root {
            true => in_root,
            false => !is_kernels(m) && (all || others.contains(&m.device)),
        };
        let ids: BTreeSet<u32> = mounts.iter().filter(|m| forbidden(m)).map(|m| m.id).collect();
        shown.change(&name, |path, bytes| images::without_links(path, bytes, &ids))?;
    }
    Ok(kernels)
}

/// Lets links be followed again, for all tasks that are in a cgroup.
pub(super) fn allow(payload: &Path) -> Result<()> {
    let mut done = BTreeSet::new();
    for pid in cgroup::tasks(payload)? {
        let path = format!("/proc/{pid}/ns/mnt");
        let namespace = match File::open(&path) {
            Ok(namespace) => namespace,
            // A zombie has none, and one that ends loses it.
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => {
                continue;
            }
            Err(e) => return Err(e).with_context(|| format!("open {path}")),
        };
        if done.insert(namespace.metadata().with_context(|| format!("stat {path}"))?.ino()) {
            follow_links(namespace.as_fd()).context("let links be followed again")?;
        }
    }
    Ok(())
}

fn mounts(dir: &Path) -> Result<Vec<Mount>> {
    let Some(mntns) = NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?.mnt else {
        return Ok(Vec::new());
    };
    match images::mounts(dir, mntns) {
        // It was in the host's mount namespace.
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        mounts => Ok(mounts?),
    }
}
