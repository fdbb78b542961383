//! The container's network as the host sees it: the host-side ends of its veth pairs and their
//! bridges.
//!
//! The bridge is the lock. While a container is dumped or half restored, its ports are off their
//! bridges: no packet reaches it, and no reset leaves the host on its behalf, so the peers of its
//! TCP connections only see a slow answer. The story in the order in which it happens:
//!
//! 1. At a checkpoint [`ports::survey`] finds, by netlink alone, which links of the host end in the
//!    container ([`Port`]) and what else the container has ([`ports::Inner`]). The ports go into
//!    the record.
//! 2. CRIU has stopped the tasks (`network-lock`): [`ports::lock`] takes each port off its bridge,
//!    after the caller has noted how to undo it.
//! 3. The dump failed, or the container stays: [`ports::unlock`] puts them back as they were, with
//!    the settings and VLANs that the kernel forgets when a port leaves a bridge.
//! 4. At a restore [`plan::plan`] decides from the record and the configuration which pairs to
//!    make, under which names, on which bridges. When CRIU has made the container's network
//!    namespace (`setup-namespaces`), [`apply::create`] makes them, the inner ends there, still off
//!    the bridges. [`inside::fill`] gives them the settings, addresses and routes of the images, or
//!    CRIU does.
//! 5. CRIU says `network-unlock`, when all is restored and the sockets are about to go live:
//!    [`ports::unlock`] again.
//!
//! Interfaces that are no veth pairs are the story of [`interfaces`].
//!
//! The host's end keeps its recorded MAC: a bridge whose own address was never set takes the lowest
//! of its ports, and neighbours would have to learn it anew.

use serde::{Deserialize, Serialize};

use crate::sys::namespace;
use crate::sys::netlink::raw::Message;
use crate::sys::netlink::{Mac, PortSettings, Vlan};
use anyhow::{Context, Result};
use state::LinkState;
use std::fs::File;

pub mod apply;
pub(crate) mod drop_filter;
pub(crate) mod inside;
pub(crate) mod interfaces;
pub(crate) mod iptables;
pub(crate) mod lxc_defaults;
pub(crate) mod multicast;
pub(crate) mod neighbours;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod stale_veth;
pub(crate) mod state;
pub(crate) mod sysctl;
pub(crate) mod tables;

/// The MTU of a link of which nothing was recorded: Ethernet's.
const ETHERNET_MTU: u32 = 1500;

/// The host-side end of a veth pair whose other end is in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The name of the interface in the container.
    pub inside: String,
    /// Its index in the container; 0 when not known.
    #[serde(default)]
    pub inside_index: u32,
    /// The name of the host's end.
    pub host: String,
    /// The index of the host's end; 0 when not known.
    #[serde(default)]
    pub host_index: u32,
    /// The bridge that the host's end is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The hardware address of the host's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_host: Option<Mac>,
    /// The hardware address in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_inside: Option<Mac>,
    /// The MTU of the host's end.
    pub mtu: u32,
    /// The transmit queue length of the host's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txqueuelen_host: Option<u32>,
    /// The transmit queue length in the container, which CRIU does not keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txqueuelen_inside: Option<u32>,
    /// The settings of the bridge port, if the bridge is a Linux bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<PortSettings>,
    /// The VLANs of the bridge port, if this kernel's bridges have VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlans: Option<Vec<Vlan>>,
    /// How many queues the interface in the container sends and receives with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues_inside: Option<(u32, u32)>,
    /// All else that the host's end has. None where it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LinkState>,
}

impl Port {
    /// A port of which only the interface in the container is known, as in a checkpoint that
    /// another program made: for [`plan::plan`], together with what the configuration says.
    pub fn unrecorded(inside: impl Into<String>) -> Port {
        Port {
            inside: inside.into(),
            inside_index: 0,
            host: String::new(),
            host_index: 0,
            bridge: None,
            mac_host: None,
            mac_inside: None,
            mtu: ETHERNET_MTU,
            txqueuelen_host: None,
            txqueuelen_inside: None,
            settings: None,
            vlans: None,
            queues_inside: None,
            state: None,
        }
    }
}

/// What a link of the host that is not the container's has for its sake: that it answers for an
/// address of the container, or a route to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The link.
    pub link: String,
    /// What the kernel is told.
    pub message: Message,
}

/// A bridge that is named somewhere is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bridge '{name}' does not exist")]
pub struct NoBridge {
    /// The name of the bridge.
    pub name: String,
}

impl NoBridge {
    /// What the user can do.
    pub fn hint(&self) -> String {
        let name = &self.name;
        format!("make it: ip link add {name} type bridge && ip link set {name} up")
    }
}

/// A process's network namespace; none if it has ended.
pub(super) fn namespace_of(init: i32) -> Result<Option<File>> {
    match namespace::network_of(init) {
        Ok(namespace) => Ok(Some(namespace)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("open the container's network namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_goes_into_a_record_and_comes_back() {
        let mut port = Port::unrecorded("eth0");
        port.host = "vethA1".into();
        port.bridge = Some("br0".into());
        port.mac_host = Some(Mac([0xfe, 1, 2, 3, 4, 5]));
        port.settings = Some(PortSettings { isolated: Some(true), ..PortSettings::default() });
        port.vlans = Some(vec![Vlan { first: 1, last: 1, pvid: true, untagged: true }]);
        let text = toml::to_string(&port).unwrap();
        assert!(text.contains("mac_host = \"fe:01:02:03:04:05\""), "{text}");
        assert_eq!(toml::from_str::<Port>(&text).unwrap(), port);
    }
}
