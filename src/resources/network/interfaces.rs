//! Interfaces of a container that are no veth pairs of LXC's: one that sits on an interface of the
//! host (macvlan), and one that is the host's and was moved into the container (`phys`).
//!
//! Both are made or moved into the new network namespace by us, before CRIU looks for them
//! (`setup-namespaces`). One of the host's comes back under its old name at the end, as LXC's
//! monitor does it; nobody else would bring it back, and one that is no hardware would be deleted
//! with the namespace.
//!
//! They are on no bridge from which they could be taken. CRIU's own rules in the container's
//! network namespace keep packets from it and in it while it stands still, but not all the time: at
//! a restore they come after the addresses, and when the namespace goes they go before the
//! interfaces. For some milliseconds the kernel would answer its peers that there is no such
//! connection. So each has a gate ([`gates`](crate::resources::network::drop_filter)): a macvlan
//! from `network-lock` on, and both from their birth to `network-unlock`. (One of the host's leaves
//! the namespace before that goes, and must not be left deaf.)

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::ports::{Survey, is_own_namespace};
use crate::error::ErrorList;
use crate::lxc::config::{Config, NicKind};
use crate::resources::network::{Port, drop_filter, namespace_of};
use crate::sys::netlink::{Error, Link, Mac, Netlink, NewMacvlan, in_netns};
use crate::sys::process::{self, Process};

/// The kind of an interface that sits on another one and has a hardware address of its own.
const MACVLAN: &str = "macvlan";

/// An interface of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the container.
    pub inside: String,
    /// Its index there; 0 when not known.
    #[serde(default)]
    pub inside_index: u32,
    /// Its hardware address in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// What it has to do with the host.
    pub from: Origin,
}

/// What an interface has to do with the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It is a macvlan, and goes with its namespace.
    Upon {
        /// The interface of the host that it sits on.
        host: String,
        /// How it gets on with others there, as the kernel counts (IFLA_MACVLAN_MODE).
        mode: u32,
    },
    /// It is an interface of the host.
    Lent {
        /// Its name there.
        host: String,
    },
}

impl Origin {
    /// The interface of the host.
    pub fn host(&self) -> &str {
        match self {
            Origin::Upon { host, .. } | Origin::Lent { host } => host,
        }
    }
}

/// The modes of a macvlan, and how the kernel counts them (`enum macvlan_mode`).
const MODES: &[(&str, u32)] = &[("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8)];

/// An interface of the host in a container, to be brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PhysInterface {
    /// Its name on the host.
    pub host: String,
    /// Its MTU on the host.
    pub mtu: u32,
    /// Its name in the container.
    pub inside: String,
    /// Its hardware address in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// A process of the container.
    pub init: i32,
    /// When that was started, as the kernel counts: another one of that number has nothing of ours.
    pub start_time: u64,
}

/// What a container has of the host, and the namespace in which it is, held beyond the end of the
/// container's init: with its last task a namespace goes, and what is no hardware goes with it.
#[derive(Debug, Default)]
pub(crate) struct PhysInterfaces {
    phys_interfaces: Vec<PhysInterface>,
    namespace: Option<File>,
}

impl PhysInterfaces {
    /// Brings them back to the host.
    ///
    /// # Errors
    /// All that could not be brought back.
    pub(crate) fn bring_back(self) -> Result<()> {
        let PhysInterfaces { phys_interfaces, namespace } = self;
        let mut errors = ErrorList::default();
        for phys_interface in &phys_interfaces {
            let open = Netlink::open().context("open a netlink socket");
            let namespace = namespace.as_ref().map(AsFd::as_fd);
            errors
                .note(open.and_then(|mut nl| bring_back_from(&mut nl, phys_interface, namespace)));
        }
        errors.into_result()
    }
}

/// The name inside and on the host of each interface that a configuration moves into the container.
pub(crate) fn lent_by(config: &Config) -> Vec<(String, String)> {
    let lent = config.nics().iter().filter(|n| n.kind == NicKind::Phys);
    let named = lent.filter_map(|nic| {
        // One that matches a pattern: which one it was is not told.
        let host = nic.link.clone().filter(|l| !l.ends_with('+'))?;
        Some((nic.name.clone().unwrap_or_else(|| host.clone()), host))
    });
    named.collect()
}

/// Those that a configuration names, for a container of which nothing was recorded.
pub(crate) fn of_config(config: &Config) -> Vec<Device> {
    let device = |inside, from| Device { inside, inside_index: 0, mac: None, from };
    let upon = config.nics().iter().filter(|n| n.kind == NicKind::Macvlan).filter_map(|nic| {
        let inside = nic.name_inside();
        let named = nic.macvlan_mode.unwrap_or("private");
        let mode = MODES.iter().find(|(name, _)| *name == named)?.1;
        Some(device(inside, Origin::Upon { host: nic.link.clone()?, mode }))
    });
    let lent =
        lent_by(config).into_iter().map(|(inside, host)| device(inside, Origin::Lent { host }));
    upon.chain(lent).collect()
}

/// Those of a container; they leave the survey. What is lent may be an end of a veth pair, and then
/// looks like a port.
pub(crate) fn among(survey: &mut Survey, lent: &[(String, String)]) -> Vec<Device> {
    let host_of =
        |inside: &str| lent.iter().find(|(i, _)| i == inside).map(|(_, host)| host.clone());
    let mut devices = Vec::new();
    survey.ports.retain(|port| {
        let Some(host) = host_of(&port.inside) else { return true };
        devices.push(Device {
            inside: port.inside.clone(),
            inside_index: port.inside_index,
            mac: port.mac_inside,
            from: Origin::Lent { host },
        });
        false
    });
    survey.others.retain(|inner| {
        let is_macvlan = inner.kind.as_deref() == Some(MACVLAN);
        let upon = || match (inner.lower.clone(), inner.macvlan_mode) {
            (Some(host), Some(mode)) if is_macvlan => Some(Origin::Upon { host, mode }),
            _ => None,
        };
        let lent = host_of(&inner.name).map(|host| Origin::Lent { host });
        let Some(from) = lent.or_else(upon) else { return true };
        devices.push(Device {
            inside: inner.name.clone(),
            inside_index: inner.index,
            mac: inner.mac,
            from,
        });
        false
    });
    devices
}

/// Why an interface cannot be had again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{inside} needs the interface '{host}' of the host, which is not there")]
pub(crate) struct NotThere {
    /// The interface in the container.
    pub inside: String,
    /// That of the host.
    pub host: String,
}

/// The first whose interface of the host is missing; pure.
pub(crate) fn missing(devices: &[Device], links: &[Link]) -> Option<NotThere> {
    devices.iter().find_map(|device| {
        let host = device.from.host();
        let there = links.iter().any(|l| l.name == host);
        (!there).then(|| NotThere { inside: device.inside.clone(), host: host.to_owned() })
    })
}

/// Makes or moves them into a container's network namespace, each with its gate closed.
/// `before_each` is called before one of the host's leaves it, so that its undo ([`bring_back`]) is
/// on disk; it is in `phys_interfaces` from then on.
pub(crate) fn bring_in(
    nl: &mut Netlink,
    devices: &[Device],
    container: BorrowedFd<'_>,
    init: i32,
    phys_interfaces: &mut PhysInterfaces,
    before_each: &mut dyn FnMut(&PhysInterface) -> Result<()>,
) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    if is_own_namespace(container).context("inspect the container's network namespace")? {
        bail!("the container has no network namespace of its own");
    }
    let gate = drop_filter::make()?;
    for device in devices {
        let host = device.from.host();
        let what = || format!("bring {} into the container ({host} of the host)", device.inside);
        let link = nl.link(host).with_context(what)?;
        let index = Some(device.inside_index).filter(|i| *i != 0);
        match &device.from {
            Origin::Upon { mode, .. } => {
                let (name, parent) = (device.inside.as_str(), link.index);
                let new = NewMacvlan {
                    name,
                    index,
                    mac: device.mac,
                    parent,
                    mode: *mode,
                    netns: container,
                };
                nl.create_macvlan(&new).with_context(what)?;
            }
            Origin::Lent { .. } => {
                let (host, inside) = (host.to_owned(), device.inside.clone());
                let start_time = process::start_time(init).with_context(what)?;
                let phys_interface = PhysInterface {
                    host,
                    mtu: link.mtu,
                    inside,
                    mac: device.mac.or(link.mac),
                    init,
                    start_time,
                };
                before_each(&phys_interface)?;
                phys_interfaces.namespace =
                    Some(File::from(container.try_clone_to_owned().with_context(what)?));
                phys_interfaces.phys_interfaces.push(phys_interface);
                // A link that is up keeps its name on older kernels.
                nl.set_up(link.index, false).with_context(what)?;
                nl.move_link(link.index, container, &device.inside, index).with_context(what)?;
            }
        }
        let closed = in_netns(container, || {
            let mut theirs = Netlink::open()?;
            let link = theirs.link(&device.inside)?;
            if let Some(mac) = device.mac.filter(|mac| link.mac != Some(*mac)) {
                theirs.set_mac(link.index, mac)?;
            }
            theirs.set_gate(link.index, Some(gate.as_fd()))
        });
        closed.and_then(|done| done).with_context(what)?;
    }
    Ok(())
}

/// Brings an interface back to the host, from the namespace of its container's init if that lives,
/// and gives it its name and MTU. Says whether there was something to do.
pub(crate) fn bring_back(nl: &mut Netlink, phys_interface: &PhysInterface) -> Result<bool> {
    let init = Process::reopen(phys_interface.init, phys_interface.start_time).ok();
    let namespace = init.as_ref().map_or(Ok(None), |init| namespace_of(init.pid()))?;
    // The number was still its own when the namespace was opened.
    let namespace = namespace.filter(|_| init.is_some_and(|init| init.is_alive()));
    bring_back_from(nl, phys_interface, namespace.as_ref().map(AsFd::as_fd))
}

/// As [`bring_back`], from this namespace.
fn bring_back_from(
    nl: &mut Netlink,
    phys_interface: &PhysInterface,
    namespace: Option<BorrowedFd<'_>>,
) -> Result<bool> {
    let what =
        || format!("bring {} ({}) back to the host", phys_interface.host, phys_interface.inside);
    if let Some(namespace) = namespace
        && !is_own_namespace(namespace).with_context(what)?
    {
        let own = File::open("/proc/thread-self/ns/net").with_context(what)?;
        let moved = in_netns(namespace, || -> Result<bool, Error> {
            let mut theirs = Netlink::open()?;
            let link = match theirs.link(&phys_interface.inside) {
                Ok(link) if phys_interface.mac.is_none() || link.mac == phys_interface.mac => link,
                Ok(_) | Err(Error::NotFound) => return Ok(false),
                Err(e) => return Err(e),
            };
            theirs.set_up(link.index, false)?;
            theirs.set_gate(link.index, None)?;
            theirs.move_link(link.index, own.as_fd(), &phys_interface.host, None)?;
            Ok(true)
        });
        if moved.and_then(|done| done).with_context(what)? {
            let link = nl.link(&phys_interface.host).with_context(what)?;
            if link.mtu != phys_interface.mtu {
                nl.set_mtu(link.index, phys_interface.mtu).with_context(what)?;
            }
            return Ok(true);
        }
    }
    // The kernel itself brings hardware back when its namespace goes, but under the name that it
    // had there.
    let links = nl.links().context("list the host's links")?;
    let strayed = links.iter().find(|l| {
        l.name == phys_interface.inside
            && phys_interface.mac.is_some()
            && l.mac == phys_interface.mac
    });
    let Some(link) = strayed.filter(|_| !links.iter().any(|l| l.name == phys_interface.host))
    else {
        return Ok(false);
    };
    nl.set_up(link.index, false).with_context(what)?;
    nl.set_gate(link.index, None).with_context(what)?;
    nl.rename(link.index, &phys_interface.host).with_context(what)?;
    Ok(true)
}

/// The interfaces in the container that a dump has to keep packets from: those on no bridge.
pub(crate) fn without_bridge(devices: &[Device], ports: &[Port]) -> Vec<String> {
    let upon =
        devices.iter().filter(|d| matches!(d.from, Origin::Upon { .. })).map(|d| d.inside.clone());
    let routed = ports.iter().filter(|p| p.bridge.is_none()).map(|p| p.inside.clone());
    upon.chain(routed).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Port;
    use super::super::ports::Inner;
    use super::*;

    fn inner(name: &str, kind: Option<&str>, lower: Option<&str>) -> Inner {
        Inner {
            name: name.into(),
            kind: kind.map(str::to_owned),
            mac: None,
            mtu: 1500,
            index: 3,
            lower: lower.map(str::to_owned),
            macvlan_mode: (kind == Some(MACVLAN)).then_some(4),
        }
    }

    #[test]
    fn what_is_lent_or_sits_on_the_host_leaves_the_survey() {
        let mut survey = Survey {
            ports: vec![Port::unrecorded("eth0"), Port::unrecorded("eth1")],
            others: vec![
                inner("lo", None, None),
                inner("eth2", Some("macvlan"), Some("eno1")),
                inner("inner", Some("macvlan"), None),
                inner("eth3", None, None),
            ],
            ..Survey::default()
        };
        let lent = [("eth1".to_owned(), "pb".to_owned()), ("eth3".to_owned(), "eno2".to_owned())];
        let found: Vec<_> =
            among(&mut survey, &lent).into_iter().map(|d| (d.inside, d.from)).collect();
        assert_eq!(
            found,
            [
                ("eth1".to_owned(), Origin::Lent { host: "pb".into() }),
                ("eth2".to_owned(), Origin::Upon { host: "eno1".into(), mode: 4 }),
                ("eth3".to_owned(), Origin::Lent { host: "eno2".into() }),
            ]
        );
        assert_eq!(survey.ports.len(), 1);
        assert_eq!(
            survey.others.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["lo", "inner"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let device = Device {
            inside: "eth0".into(),
            inside_index: 0,
            mac: None,
            from: Origin::Upon { host: "eno1".into(), mode: 4 },
        };
        let link = |name: &str| Link { name: name.into(), ..Link::default() };
        assert_eq!(missing(std::slice::from_ref(&device), &[link("eno1")]), None);
        let told = missing(&[device], &[link("eno2")]).unwrap().to_string();
        assert_eq!(told, "eth0 needs the interface 'eno1' of the host, which is not there");
    }
}
