//! Sysctls of a container's network namespace below `/proc/sys/net`.
//!
//! CRIU saves those of the interfaces (`conf/`) and a few more (net.c); `net.core.somaxconn`, `net.ipv4.tcp_*`,
//! `net.ipv4.ip_local_port_range` and their like come back as in a new namespace. So what differs from a new namespace is
//! recorded, and what differs from the record is set before the container runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use anyhow::{Context, Result};

use crate::sys::netlink::{in_netns, in_new_netns};

/// Sysctls by their path below [`BASE`].
pub type Sysctls = BTreeMap<String, String>;

const BASE: &str = "/proc/sys/net";
/// Sysctls of an interface's neighbours; the loopback interface of a new namespace has what all begin with.
const NEIGHBOURS: &str = "/neigh/";

/// What somebody has set in a network namespace.
pub fn read(netns: BorrowedFd<'_>) -> Result<Sysctls> {
    let all = in_netns(netns, read_all).context("enter the container's network namespace")?;
    let mut all = all.with_context(|| format!("read {BASE}"))?;
    let new = in_new_netns(read_all).context("make a network namespace to compare with")?;
    let new = new.with_context(|| format!("read {BASE}"))?;
    all.retain(|name, value| made(name, value, &new));
    Ok(all)
}

/// Whether a namespace as the kernel makes it would have something else.
fn made(name: &str, value: &str, new: &Sysctls) -> bool {
    let of_all = || {
        let (family, rest) = name.split_once(NEIGHBOURS)?;
        new.get(&format!("{family}{NEIGHBOURS}lo/{}", rest.split_once('/')?.1))
    };
    new.get(name).or_else(of_all).is_none_or(|v| v != value)
}

/// Sets what is not so; returns what could not be set.
pub fn apply(netns: BorrowedFd<'_>, settings: &Sysctls) -> Result<Vec<String>> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    in_netns(netns, || settings.iter().filter_map(|(name, value)| set(name, value).err()).collect())
        .context("enter the container's network namespace")
}

fn set(name: &str, value: &str) -> Result<(), String> {
    let path = Path::new(BASE).join(name);
    let what = |e: io::Error| format!("net.{} could not be set to '{value}' again: {e}", name.replace('/', "."));
    // A record that was made by hand must not lead elsewhere.
    if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(what(io::ErrorKind::InvalidInput.into()));
    }
    match fs::read_to_string(&path) {
        Ok(now) if now.trim_end() == value => Ok(()),
        Ok(_) => fs::write(&path, value).map_err(what),
        Err(e) => Err(what(e)),
    }
}

/// All that can be set, in the network namespace of this thread.
fn read_all() -> io::Result<Sysctls> {
    let mut found = Sysctls::new();
    read_below(Path::new(BASE), &mut found)?;
    Ok(found)
}

fn read_below(dir: &Path, found: &mut Sysctls) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // CRIU has those of the interfaces.
            if entry.file_name() != "conf" {
                read_below(&path, found)?;
            }
            continue;
        }
        // Interfaces and what belongs to them may go while we look.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.mode() & 0o600 != 0o600 {
            continue;
        }
        // Some can be written and have no value yet.
        let (Ok(value), Ok(name)) = (fs::read_to_string(&path), path.strip_prefix(BASE)) else { continue };
        found.insert(name.to_string_lossy().into_owned(), value.trim_end().to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: &[(&str, &str)]) -> Sysctls {
        of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_a_new_namespace_has_was_set_by_nobody() {
        let new = settings(&[("core/somaxconn", "4096"), ("ipv4/neigh/lo/gc_stale_time", "60")]);
        assert!(!made("core/somaxconn", "4096", &new));
        assert!(made("core/somaxconn", "321", &new));
        assert!(!made("ipv4/neigh/eth0/gc_stale_time", "60", &new));
        assert!(made("ipv4/neigh/eth0/gc_stale_time", "61", &new));
        assert!(made("ipv4/of_a_module", "1", &new));
    }

    #[test]
    fn a_record_made_by_hand_leads_nowhere_else() {
        for name in ["../kernel/hostname", "/etc/passwd", "ipv4/../../vm/swappiness"] {
            assert!(set(name, "x").unwrap_err().contains("could not be set"), "{name}");
        }
    }
}
