//! Sysctls of a container's network namespace below `/proc/sys/net`.
//!
//! CRIU saves those of the interfaces (`conf/`) and a few more (net.c); `net.core.somaxconn`,
//! `net.ipv4.tcp_*`, `net.ipv4.ip_local_port_range` and their like come back as in a new namespace.
//! So what differs from a new namespace is recorded, and what differs from the record is set before
//! the container runs. Those of the interfaces are recorded, too, for a namespace that we fill
//! without CRIU ([`crate::resources::network::inside`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use anyhow::{Context, Result};

use crate::sys::netlink::{in_netns, in_new_netns};

/// Sysctls by their path below [`BASE`].
pub(crate) type Sysctls = BTreeMap<String, String>;

const BASE: &str = "/proc/sys/net";
/// The directory of interfaces' settings, in that of each family.
const CONF: &str = "/conf/";
/// What holds for all of them, what one begins with when it is made, and the one that every
/// namespace has.
const ALL: &str = "all";
const DEFAULT: &str = "default";
const LOOPBACK: &str = "lo";
/// Changes with `forwarding`, so it is set after that (net/ipv4/devinet.c, `inet_forward_change`).
const LAST: &str = "accept_redirects";
/// Sysctls of an interface's neighbours; the loopback interface of a new namespace has what all
/// begin with.
const NEIGHBOURS: &str = "/neigh/";

/// What somebody has set in a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// All but those of interfaces.
    pub general: Sysctls,
    /// Those of interfaces, as far as they are not what the others lead to.
    pub interfaces: Sysctls,
}

/// What somebody has set in a network namespace.
pub(crate) fn read(netns: BorrowedFd<'_>) -> Result<Settings> {
    let all = in_netns(netns, read_all).context("enter the container's network namespace")?;
    let all = all.with_context(|| format!("read {BASE}"))?;
    let new = in_new_netns(read_all).context("make a network namespace to compare with")?;
    let new = new.with_context(|| format!("read {BASE}"))?;
    let (interfaces, mut general): (Sysctls, Sysctls) =
        all.into_iter().partition(|(name, _)| name.contains(CONF));
    general.retain(|name, value| made(name, value, &new));
    let changed = interfaces.iter().filter(|(name, value)| differs(name, value, &interfaces, &new));
    let changed = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Settings { general, interfaces: changed })
}

/// Whether an interface's setting would be another one after those of a new namespace and of its
/// default. An interface without addresses, as the loopback interface is at first, follows a
/// default that changes (net/ipv4/devinet.c, `devinet_copy_dflt_conf`).
fn differs(name: &str, value: &String, all: &Sysctls, new: &Sysctls) -> bool {
    let interface = interface_of(name).unwrap_or_default();
    let of_new = || new.get(name) != Some(value);
    let of_default = || {
        let default =
            name.replacen(&format!("{CONF}{interface}/"), &format!("{CONF}{DEFAULT}/"), 1);
        all.get(&default) != Some(value)
    };
    match interface {
        ALL | DEFAULT => of_new(),
        LOOPBACK => of_new() || of_default(),
        _ => of_default(),
    }
}

/// The interface that a setting is of.
fn interface_of(name: &str) -> Option<&str> {
    name.split_once(CONF)?.1.split('/').next()
}

/// The settings that hold before any interface is made, so that each begins with them; and those of
/// the interfaces.
pub(crate) fn before_interfaces(settings: &Sysctls) -> (Sysctls, Sysctls) {
    let early =
        |name: &str| interface_of(name).is_some_and(|i| [ALL, DEFAULT, LOOPBACK].contains(&i));
    settings.iter().map(|(n, v)| (n.clone(), v.clone())).partition(|(name, _)| early(name))
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
pub(crate) fn apply(netns: BorrowedFd<'_>, settings: &Sysctls) -> Result<Vec<String>> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    // `all` comes before the interfaces' own by its name: setting it changes theirs.
    let (last, first): (Vec<_>, Vec<_>) =
        settings.iter().partition(|(name, _)| name.ends_with(LAST));
    in_netns(netns, || {
        first.into_iter().chain(last).filter_map(|(name, value)| set(name, value).err()).collect()
    })
    .context("enter the container's network namespace")
}

/// What stands for the name of a link in the settings of [`of_link`].
pub(crate) const LINK: &str = "*";
/// The directories that have one directory for each link.
const OF_LINKS: [&str; 5] = ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh", "mpls/conf"];

/// The settings of a link in this thread's network namespace that are not those with which one
/// begins.
pub(crate) fn of_link(name: &str) -> Sysctls {
    let mut found = Sysctls::new();
    for dir in OF_LINKS {
        let base = Path::new(BASE).join(dir);
        let (own, first) = (base.join(name), base.join(DEFAULT));
        for entry in fs::read_dir(&own).into_iter().flatten().flatten() {
            let file = entry.file_name();
            // Some can be written and have no value yet.
            let Ok(value) = fs::read_to_string(own.join(&file)) else { continue };
            // Only the host's first network namespace has defaults for neighbours.
            let default = fs::read_to_string(first.join(&file));
            let default = default.or_else(|_| fs::read_to_string(base.join(LOOPBACK).join(&file)));
            if default.is_ok_and(|default| default != value) {
                found.insert(
                    format!("{dir}/{LINK}/{}", file.to_string_lossy()),
                    value.trim_end().to_owned(),
                );
            }
        }
    }
    found
}

/// Gives a link in this thread's network namespace such settings; returns what could not be set.
pub(crate) fn apply_to_link(settings: &Sysctls, name: &str) -> Vec<String> {
    let (last, first): (Vec<_>, Vec<_>) =
        settings.iter().partition(|(name, _)| name.ends_with(LAST));
    let named = |key: &str| key.replacen(&format!("/{LINK}/"), &format!("/{name}/"), 1);
    first.into_iter().chain(last).filter_map(|(key, value)| set(&named(key), value).err()).collect()
}

/// Does something in a network namespace while these settings hold, as far as it has them; then
/// they are as before.
pub(crate) fn meanwhile<T: Send>(
    netns: BorrowedFd<'_>,
    settings: &Sysctls,
    f: impl FnOnce() -> T + Send,
) -> Result<T> {
    let done = in_netns(netns, || {
        let now = |name: &String| {
            Some((name.clone(), fs::read_to_string(Path::new(BASE).join(name)).ok()?))
        };
        let before: Vec<_> = settings.keys().filter_map(now).collect();
        let mut notes: Vec<String> =
            before.iter().filter_map(|(n, _)| set(n, settings.get(n)?).err()).collect();
        let done = f();
        notes.extend(before.iter().filter_map(|(name, value)| set(name, value.trim_end()).err()));
        notes.iter().for_each(|note| log::warn!("{note}"));
        done
    });
    done.context("enter the container's network namespace")
}

fn set(name: &str, value: &str) -> Result<(), String> {
    let path = Path::new(BASE).join(name);
    let what = |e: io::Error| {
        format!("net.{} could not be set to '{value}' again: {e}", name.replace('/', "."))
    };
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
            read_below(&path, found)?;
            continue;
        }
        // Interfaces and what belongs to them may go while we look.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.mode() & 0o600 != 0o600 {
            continue;
        }
        // Some can be written and have no value yet.
        let (Ok(value), Ok(name)) = (fs::read_to_string(&path), path.strip_prefix(BASE)) else {
            continue;
        };
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
    fn an_interface_differs_from_its_default() {
        let new =
            settings(&[("ipv4/conf/default/rp_filter", "0"), ("ipv4/conf/lo/rp_filter", "0")]);
        let all = settings(&[
            ("ipv4/conf/default/rp_filter", "2"),
            ("ipv4/conf/eth0/rp_filter", "2"),
            ("ipv4/conf/eth1/rp_filter", "0"),
            ("ipv4/conf/lo/rp_filter", "0"),
        ]);
        let found: Vec<_> = all
            .iter()
            .filter(|(n, v)| differs(n, v, &all, &new))
            .map(|(n, _)| n.as_str())
            .collect();
        let wanted =
            ["ipv4/conf/default/rp_filter", "ipv4/conf/eth1/rp_filter", "ipv4/conf/lo/rp_filter"];
        assert_eq!(found, wanted);
        let (early, late) = before_interfaces(&all);
        assert_eq!((early.len(), late.len()), (2, 2));
    }

    #[test]
    fn a_record_made_by_hand_leads_nowhere_else() {
        for name in ["../kernel/hostname", "/etc/passwd", "ipv4/../../vm/swappiness"] {
            assert!(set(name, "x").unwrap_err().contains("could not be set"), "{name}");
        }
    }
}
