//! All checkpoints that are known: those in the containers' own directories, and those that the
//! register names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::register::{Known, Register, is_remote, mount_of};
use crate::lxc::config::mount_points_of_fstab;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::resources::mounts::{self, Mount};
use crate::store::list::{self, Entry, State};

/// How long the server of a file system may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// The host's file systems.
const FSTAB: &str = "/etc/fstab";

/// The checkpoints of a container, or of all in an LXC path.
pub(crate) fn all(
    register: &Register,
    lxcpath: &LxcPath,
    name: Option<&ContainerName>,
) -> Result<Vec<Entry>> {
    let mut entries = list::find(lxcpath, name)?;
    let registered = register.read().unwrap_or_else(|e| {
        log::warn!("only the containers' own directories are searched: {e:#}");
        Vec::new()
    });
    let seen: BTreeSet<PathBuf> = entries.iter().map(|entry| entry.directory.clone()).collect();
    // The register has paths that are free of links.
    let real = lxcpath.as_path().canonicalize().unwrap_or_else(|_| lxcpath.as_path().to_owned());
    let seen_there = |dir: &Path| {
        dir.strip_prefix(&real).is_ok_and(|rest| seen.contains(&lxcpath.as_path().join(rest)))
    };
    let is_wanted = |known: &Known| {
        let whose = known.lxcpath == lxcpath.as_path() || known.lxcpath == real;
        whose && name.is_none_or(|name| known.container == name.as_str())
    };
    let elsewhere = registered.into_iter().filter(is_wanted);
    let elsewhere: Vec<Known> = elsewhere
        .filter(|known| !seen.contains(&known.directory) && !seen_there(&known.directory))
        .collect();
    if !elsewhere.is_empty() {
        let table = mounts::table(std::process::id().cast_signed())?;
        entries.extend(look(elsewhere, &table, lxcpath));
        entries.sort_by(|a, b| a.directory.cmp(&b.directory));
    }
    Ok(entries)
}

/// What is there of registered checkpoints. Those behind one server are asked for together, and not
/// waited for longer than [`ANSWER`].
fn look(elsewhere: Vec<Known>, table: &[Mount], lxcpath: &LxcPath) -> Vec<Entry> {
    let (mut entries, mut remote) = (Vec::new(), BTreeMap::<PathBuf, Vec<Known>>::new());
    for known in elsewhere {
        match mount_of(table, &known.directory) {
            _ if !known.is_mounted(table) => {
                entries.push(Entry::out_of_reach(&known, State::NotMounted))
            }
            Some(mount) if is_remote(mount) => {
                remote.entry(mount.point.clone()).or_default().push(known)
            }
            _ => entries.extend(look_at(&known, lxcpath)),
        }
    }
    for behind in remote.into_values() {
        let (sender, receiver) = mpsc::channel();
        let (asked, path) = (behind.clone(), lxcpath.clone());
        // Left behind where the server never answers: the process can end nevertheless.
        std::thread::spawn(move || {
            let found: Vec<Entry> =
                asked.iter().filter_map(|known| look_at(known, &path)).collect();
            sender.send(found).unwrap_or_else(|_| log::debug!("a server has answered too late"))
        });
        match receiver.recv_timeout(ANSWER) {
            Ok(found) => entries.extend(found),
            Err(_) => entries
                .extend(behind.iter().map(|known| Entry::out_of_reach(known, State::NoAnswer))),
        }
    }
    entries
}

fn look_at(known: &Known, lxcpath: &LxcPath) -> Option<Entry> {
    let entry = list::look_at(&known.directory, lxcpath);
    entry.unwrap_or_else(|e| {
        log::warn!("{}: {e:#}", known.directory.display());
        Some(Entry::out_of_reach(known, State::Damaged))
    })
}

/// A mount point above a path on which nothing is mounted, although something should be: fstab(5)
/// names it, or checkpoints lie there by the register. What is written to the path would fill the
/// directory beneath.
pub(crate) fn not_mounted_above(register: &Register, path: &Path) -> Result<Option<PathBuf>> {
    let table = mounts::table(std::process::id().cast_signed())?;
    let named = mount_points_of_fstab(Path::new(FSTAB)).with_context(|| format!("read {FSTAB}"))?;
    let registered = register.read()?.into_iter().filter_map(|known| known.mount);
    let mut points = named.into_iter().chain(registered);
    Ok(points.find(|point| {
        point != Path::new("/")
            && path.starts_with(point)
            && !table.iter().any(|mount| mount.point == *point)
    }))
}
