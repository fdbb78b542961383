//! The container's root as a mount point, while the container runs.
//!
//! Neither LXC nor `lxc-restart` needs it. A bare `criu restore --root` and LXC's own
//! `lxc-checkpoint -r` do, and the recipe says `mount --bind ROOT ROOT`. What was mounted is known
//! by the kernel's number of the mount, which is on file before the mount is in place: so exactly
//! that mount is taken away again, however often the hooks run.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde::{Deserialize, Serialize};

use crate::hooks::running_note::{self, Owner};

/// The note's file.
const FILE: &str = "bound-root";

/// A root that we have bound.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bound {
    path: PathBuf,
    mount_id: u64,
    /// For whom: only it, or anybody after its end, takes the mount away.
    owner: Owner,
}

/// Makes a root a mount point if it is none.
pub(super) fn bind(state: &Path, root: &Path, owner: Owner) -> Result<()> {
    let root = fs::canonicalize(root).context("find it")?;
    if let Some(mounted) = mount_at(&root)? {
        // Ours, left by a monitor that was killed: it goes with this one.
        if let Some(bound) = running_note::read::<Bound>(state, FILE)?
            && (bound.mount_id, &bound.path) == (mounted, &root)
            && !bound.owner.is_alive()
        {
            return running_note::write(state, FILE, &Bound { owner, ..bound });
        }
        return Ok(());
    }
    // With all that is mounted below it, which would be hidden otherwise.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, &root, flags).context("make another view of it")?;
    running_note::write(
        state,
        FILE,
        &Bound { path: root.clone(), mount_id: id_of(&tree)?, owner },
    )?;
    let placed = move_mount(&tree, "", CWD, &root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("mount it");
    // Mounts below are peers of the originals, and those would go with them at the end.
    let none = None::<&str>;
    let private = placed.and_then(|()| {
        mount(none, &root, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .context("make the mount private")
    });
    if private.is_err() && mount_at(&root)?.is_none() {
        running_note::remove(state, FILE)?;
    }
    private
}

/// Takes away what [`bind`] has mounted, unless it was for somebody else who still lives.
pub(super) fn unbind(state: &Path, owner: Owner) -> Result<()> {
    let Some(bound) = running_note::read::<Bound>(state, FILE)? else { return Ok(()) };
    if bound.owner != owner && bound.owner.is_alive() {
        log::warn!(
            "{} was bound for process {} and stays bound",
            bound.path.display(),
            bound.owner.pid
        );
        return Ok(());
    }
    if mount_at(&bound.path)? == Some(bound.mount_id) {
        umount2(&bound.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .with_context(|| format!("unmount {}", bound.path.display()))?;
    } else if is_mounted(bound.mount_id)? {
        bail!("{} stays bound: something else is mounted on top of it", bound.path.display());
    }
    running_note::remove(state, FILE)
}

/// The number of the mount whose root is at this path; none if the path is no mount point or is not
/// there.
fn mount_at(path: &Path) -> Result<Option<u64>> {
    let what = || format!("stat {}", path.display());
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID) {
        Ok(stat) => {
            let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
            Ok(is_root.then_some(stat.stx_mnt_id))
        }
        Err(e) if e == rustix::io::Errno::NOENT => Ok(None),
        Err(e) => Err(io::Error::from(e)).with_context(what),
    }
}

fn id_of(tree: &OwnedFd) -> Result<u64> {
    let stat = statx(tree.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .context("inspect the mount")?;
    Ok(stat.stx_mnt_id)
}

/// Whether a mount of this number is anywhere in our namespace.
fn is_mounted(id: u64) -> Result<bool> {
    let table =
        fs::read_to_string("/proc/thread-self/mountinfo").context("read the mount table")?;
    let wanted = id.to_string();
    Ok(table.lines().any(|line| line.split(' ').next() == Some(&wanted)))
}
