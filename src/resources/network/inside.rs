//! The inside of the container's network namespace, filled by us.
//!
//! CRIU does it by eight runs of `ip` and of the tools of iptables, which take 25 ms and more, a
//! quarter of the restart of a small container. What the images of most containers hold can be told
//! to the kernel by a message each. Then CRIU is asked for an empty namespace (`--empty-ns net`),
//! and at the action `setup-namespaces`, when it is there, [`fill`] brings back what CRIU would
//! have: settings, interfaces, addresses, routes, rules, in its order (net.c,
//! `prepare_net_namespaces`). Connections that are tracked remain CRIU's.
//!
//! A container with anything else in its network (other interfaces, firewall tables, a second
//! namespace) is left to CRIU as a whole.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context;

use super::Port;
use crate::criu::images::{self, Error, Inventory, NetworkLock, Saved, Shown};
use crate::error::ErrorList;
use crate::resources::network::sysctl;
use crate::sys::files;
use crate::sys::netlink::{Described, Netlink};

/// The rules that a new namespace has: priority and table (net/ipv4/fib_rules.c,
/// `fib_default_rules_init`).
const DEFAULT_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];
/// Images of firewall tables.
const TABLES: [&str; 3] = ["iptables-", "ip6tables-", "nftables-"];
/// There is one for each network namespace.
const NAMESPACE: &str = "netns-";

/// What the namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Its interfaces.
    interfaces: Vec<Interface>,
    /// Their addresses.
    addresses: Vec<Described>,
    /// Routes of the main table.
    routes: Vec<Described>,
    /// Policy rules, but for those that every namespace has.
    rules: Vec<Described>,
}

/// An interface, which is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    index: u32,
    flags: u32,
    mtu: u32,
}

/// What is in a checkpoint of the network namespace with this number; none where only CRIU can
/// bring it back. `ports` are the veth pairs that we make.
pub(crate) fn of_checkpoint(
    shown: &Shown,
    netns: u32,
    ports: &[Port],
) -> Result<Option<Inside>, Error> {
    let dir = shown.dir();
    if Inventory::read(dir)?.network_lock != NetworkLock::Skip || !is_plain(dir, netns) {
        return Ok(None);
    }
    let mut interfaces = Vec::new();
    for found in images::interfaces(dir, netns)? {
        let ours = found.veth && ports.iter().any(|p| p.inside == found.name);
        if !(found.loopback || ours) || found.master.is_some() {
            return Ok(None);
        }
        interfaces.push(Interface {
            name: found.name,
            index: found.index,
            flags: found.flags,
            mtu: found.mtu,
        });
    }
    let described = |what| -> Result<Option<Vec<Described>>, Error> {
        Ok(images::saved(shown, netns, what)?
            .iter()
            .map(|message| Described::parse(message))
            .collect())
    };
    let addresses = described(Saved::Addresses)?;
    let routes = described(Saved::Routes)?.zip(described(Saved::Routes6)?);
    let rules = described(Saved::Rules)?.and_then(beside_the_defaults);
    let (Some(addresses), Some((routes, routes6)), Some(rules)) = (addresses, routes, rules) else {
        return Ok(None);
    };
    Ok(Some(Inside { interfaces, addresses, routes: [routes, routes6].concat(), rules }))
}

/// Whether there is one network namespace, without firewall tables.
fn is_plain(dir: &Path, netns: u32) -> bool {
    let Ok(names) = files::names(dir) else { return false };
    names.iter().filter_map(|n| n.to_str()).all(|name| {
        let is_other = name
            .strip_prefix(NAMESPACE)
            .and_then(|rest| rest.strip_suffix(".img"))
            .is_some_and(|number| number.parse() != Ok(netns));
        let is_table = TABLES.iter().any(|kind| name.starts_with(kind));
        // CRIU makes the file also where there is nothing to be put into it.
        let is_empty = || dir.join(name).symlink_metadata().is_ok_and(|meta| meta.len() == 0);
        !is_other && (!is_table || is_empty())
    })
}

/// The rules to be added. None if one that every namespace begins with has been taken away. A
/// kernel without policy rules has told of none at all.
fn beside_the_defaults(mut rules: Vec<Described>) -> Option<Vec<Described>> {
    let all = rules.len();
    rules.retain(|rule| !rule.rule_for_all().is_some_and(|told| DEFAULT_RULES.contains(&told)));
    (all == 0 || all - rules.len() == DEFAULT_RULES.len()).then_some(rules)
}

/// Gives the namespace all of it; sockets can be bound to its addresses at once. Its interfaces are
/// there, down; the settings under `/proc/sys` are made.
///
/// # Errors
/// What the kernel has refused.
pub(crate) fn fill(netns: BorrowedFd<'_>, inside: &Inside) -> anyhow::Result<()> {
    // Else the kernel makes a link-local address by itself, and looks for duplicates of that. One
    // that is down gets none, unless the mode is changed (net/ipv6/addrconf.c,
    // `addrconf_sysctl_addr_gen_mode`).
    let is = |interface: &Interface, flag: i32| interface.flags & flag.cast_unsigned() != 0;
    let links =
        inside.interfaces.iter().filter(|i| is(i, libc::IFF_UP) && !is(i, libc::IFF_LOOPBACK));
    let none_made = links.map(|i| (format!("ipv6/conf/{}/addr_gen_mode", i.name), "1".to_owned()));
    let outcome = sysctl::meanwhile(netns, &none_made.collect(), || -> anyhow::Result<()> {
        let mut netlink = Netlink::open()?;
        for Interface { name, index, flags, mtu } in &inside.interfaces {
            netlink
                .set_flags_and_mtu(*index, *flags, *mtu)
                .with_context(|| format!("set {name} up as it was"))?;
        }
        for address in &inside.addresses {
            netlink.replay(address).context("add an address")?;
        }
        add_in_any_order(&mut netlink, &inside.routes).context("add a route")?;
        for rule in &inside.rules {
            netlink.replay(rule).context("add a policy rule")?;
        }
        Ok(())
    });
    outcome.and_then(|done| done).context("fill the container's network namespace")
}

/// A route whose gateway is reached by another one needs that first: those that are refused are
/// tried again as long as any is taken.
fn add_in_any_order(netlink: &mut Netlink, routes: &[Described]) -> anyhow::Result<()> {
    let mut left: Vec<&Described> = routes.iter().collect();
    loop {
        let (before, mut errors) = (left.len(), ErrorList::default());
        left.retain(|route| {
            let refused = netlink.replay(route);
            let stays = refused.is_err();
            errors.note(refused.map_err(anyhow::Error::from));
            stays
        });
        if left.is_empty() || left.len() == before {
            return errors.into_result();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn with(files: &[(&str, &[u8])]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| fs::write(dir.path().join(name), content).unwrap());
        is_plain(dir.path(), 10)
    }

    #[test]
    fn firewalls_and_further_namespaces_are_left_to_criu() {
        assert!(with(&[("netns-10.img", b"x"), ("nftables-10.img", b""), ("pages-1.img", b"x")]));
        assert!(!with(&[("netns-10.img", b"x"), ("nftables-10.img", b"table ip t {}")]));
        assert!(!with(&[("netns-10.img", b"x"), ("iptables-10.img", b"*filter")]));
        assert!(!with(&[("netns-10.img", b"x"), ("netns-14.img", b"x")]));
    }

    /// `fib_rule_hdr` with FRA_PRIORITY (6), after an `nlmsghdr` of RTM_NEWRULE (32).
    fn rule(priority: u32, table: u8) -> Described {
        let header = [&36u32.to_ne_bytes()[..], &[32, 0, 2, 0], &[0; 8]].concat();
        let body =
            [&[2, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0][..], &[8, 0, 6, 0], &priority.to_ne_bytes()]
                .concat();
        Described::parse(&[header, body].concat()).unwrap()
    }

    #[test]
    fn a_rule_that_was_taken_away_is_left_to_criu() {
        let (first, main, default) = (rule(0, 255), rule(32766, 254), rule(32767, 253));
        assert_eq!(beside_the_defaults(vec![]), Some(vec![]));
        let own = rule(100, 77);
        let all = vec![first.clone(), own.clone(), main.clone(), default.clone()];
        assert_eq!(beside_the_defaults(all), Some(vec![own.clone()]));
        assert_eq!(beside_the_defaults(vec![own, main, default.clone()]), None);
        assert_eq!(beside_the_defaults(vec![first, rule(32766, 77), default]), None);
    }
}
