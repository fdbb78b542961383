//! What a link has as a port of a Linux bridge: settings and VLANs. All of it is lost when the port
//! leaves the bridge, so who takes a port off must keep it to put it back.

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridgePort, InfoPortData, LinkAttribute,
    LinkExtentMask, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridgePort, LinkBridgeVlan};
use serde::{Deserialize, Serialize};

use super::{Error, Mac, Netlink};

/// Declares each setting once: its field, its type, the kernel's attribute.
macro_rules! port_settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $attribute:ident,)*) => {
        /// The settings of a bridge port that an administrator chooses. A setting that this kernel
        /// does not know is none.
        ///
        /// Left out are what the spanning tree decides (state, designated ports, timers), counters,
        /// and a backup port, which is an index that means nothing later.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct PortSettings {
            $($(#[$doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)*
        }

        impl PortSettings {
            pub(super) fn read(attributes: &[InfoBridgePort]) -> PortSettings {
                let mut settings = PortSettings::default();
                for attribute in attributes {
                    match attribute {
                        $(InfoBridgePort::$attribute(value) => {
                            settings.$field = Some((*value).into());
                        })*
                        _ => {}
                    }
                }
                settings
            }

            fn write(&self) -> Vec<InfoBridgePort> {
                let mut attributes = Vec::new();
                $(if let Some(value) = self.$field {
                    attributes.push(InfoBridgePort::$attribute(value.into()));
                })*
                attributes
            }

            /// Those of these settings that differ from `present`: what must be set to get there.
            /// Setting less matters: a path cost that was set by hand no longer follows the link.
            pub fn beyond(&self, present: &PortSettings) -> PortSettings {
                PortSettings { $($field: self.$field.filter(|v| present.$field != Some(*v)),)* }
            }
        }
    };
}

port_settings! {
    /// The port's priority in the spanning tree.
    priority: u16 = Priority,
    /// The port's path cost in the spanning tree.
    cost: u32 = Cost,
    /// Sends a frame back out of the port it came from.
    hairpin: bool = HairpinMode,
    /// Shuts the port when it hears a BPDU.
    bpdu_guard: bool = Guard,
    /// The port may not become the root port.
    root_block: bool = Protect,
    /// A multicast leave takes effect at once.
    fast_leave: bool = FastLeave,
    /// Learns addresses from what it hears.
    learning: bool = Learning,
    /// Floods unicast of unknown destination to the port.
    unicast_flood: bool = UnicastFlood,
    /// Floods multicast to the port.
    mcast_flood: bool = MulticastFlood,
    /// Floods broadcast to the port.
    bcast_flood: bool = BroadcastFlood,
    /// Turns multicast into unicast for each of its members.
    mcast_to_unicast: bool = MulticastToUnicast,
    /// Whether the port leads to a multicast router (0 no, 1 finds out, 2 yes).
    mcast_router: u8 = MulticastRouter,
    /// How many multicast hosts the port may have.
    mcast_hosts_limit: u32 = MulticastEhtHostsLimit,
    /// How many multicast groups the port may have.
    mcast_max_groups: u32 = MulticastMaxGroups,
    /// Answers ARP for the hosts behind the port.
    proxy_arp: bool = ProxyARP,
    /// The same, as IEEE 802.11 wants it.
    proxy_arp_wifi: bool = ProxyARPWifi,
    /// Which link-local frames are forwarded.
    group_fwd_mask: u16 = GroupFwdMask,
    /// Answers ARP and ND from what it knows, and does not forward them.
    neigh_suppress: bool = NeighSupress,
    /// The same, for each VLAN.
    neigh_vlan_suppress: bool = NeighVlanSuppress,
    /// Maps VLANs to tunnels.
    vlan_tunnel: bool = VlanTunnel,
    /// May speak only to ports that are not isolated.
    isolated: bool = Isolated,
    /// Hosts must be known before their frames pass.
    locked: bool = Locked,
    /// Learns hosts on a locked port for someone to approve.
    mab: bool = Mab,
}

impl PortSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == PortSettings::default()
    }
}

/// A range of VLANs of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The first id of the range.
    pub first: u16,
    /// The last id of the range; the same as `first` for one VLAN.
    pub last: u16,
    /// What comes in untagged belongs to it.
    #[serde(default)]
    pub pvid: bool,
    /// It goes out untagged.
    #[serde(default)]
    pub untagged: bool,
}

impl Netlink {
    /// The hardware addresses that bridges know of, each with the index of the port behind which it
    /// is.
    pub fn heard(&mut self) -> Result<Vec<(Mac, u32)>, Error> {
        let mut query = NeighbourMessage::default();
        query.header.family = AddressFamily::Bridge;
        let mut found = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetNeighbour(query))? {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
            let mac = message.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    bytes.as_slice().try_into().ok().map(Mac)
                }
                _ => None,
            });
            // Without a bridge it is a link's own filter, as macvlan and hardware have.
            let bridge =
                message.attributes.iter().any(|a| matches!(a, NeighbourAttribute::Controller(_)));
            if let Some(mac) = mac.filter(|_| bridge) {
                found.push((mac, message.header.ifindex));
            }
        }
        Ok(found)
    }

    /// The settings of a bridge port; none if the link is not one.
    pub fn port_settings(&mut self, index: u32) -> Result<Option<PortSettings>, Error> {
        Ok(self.link_by_index(index)?.port)
    }

    /// Sets those settings of a bridge port that are given.
    pub fn set_port_settings(&mut self, index: u32, settings: &PortSettings) -> Result<(), Error> {
        let port = LinkBridgePort::new(index)
            .set_port_data(InfoPortData::BridgePort(settings.write()))
            .build();
        // Only RTM_NEWLINK reads a port's settings; RTM_SETLINK ignores them without a word
        // (net/core/rtnetlink.c, rtnl_changelink and do_setlink).
        self.change(RouteNetlinkMessage::NewLink(port), 0)
    }

    /// The VLANs of all bridge ports (and of the bridges themselves) that have any, by index.
    pub fn port_vlans(&mut self) -> Result<BTreeMap<u32, Vec<Vlan>>, Error> {
        let mut query = LinkMessage::default();
        query.header.interface_family = AddressFamily::Bridge;
        query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let mut ports = BTreeMap::new();
        for message in self.dump(RouteNetlinkMessage::GetLink(query))? {
            let RouteNetlinkMessage::NewLink(message) = message else { continue };
            for attribute in message.attributes {
                if let LinkAttribute::AfSpecBridge(specs) = attribute {
                    let vlans = ranges(&specs);
                    if !vlans.is_empty() {
                        ports.insert(message.header.index, vlans);
                    }
                }
            }
        }
        Ok(ports)
    }

    /// Gives a bridge port exactly the VLANs `want`, when it has `have` now.
    pub fn set_port_vlans(
        &mut self,
        index: u32,
        have: &[Vlan],
        want: &[Vlan],
    ) -> Result<(), Error> {
        if have == want {
            return Ok(());
        }
        // First what is missing, then away with the rest: the port is never without its VLANs.
        if !want.is_empty() {
            let mut message = LinkBridgeVlan::new(index);
            for info in want.iter().flat_map(vlan_infos) {
                message = message.append_af_spec(AfSpecBridge::VlanInfo(info));
            }
            self.change(RouteNetlinkMessage::SetLink(message.build()), 0)?;
        }
        let wanted: BTreeSet<u16> = want.iter().flat_map(|v| v.first..=v.last).collect();
        let surplus: Vec<u16> =
            have.iter().flat_map(|v| v.first..=v.last).filter(|v| !wanted.contains(v)).collect();
        if surplus.is_empty() {
            return Ok(());
        }
        let mut message = LinkBridgeVlan::new(index);
        for vid in surplus {
            message = message.vlan(vid, BridgeVlanInfoFlags::empty());
        }
        self.change(RouteNetlinkMessage::DelLink(message.build()), 0)
    }
}

fn ranges(specs: &[AfSpecBridge]) -> Vec<Vlan> {
    let mut vlans = Vec::new();
    let mut first = None;
    for spec in specs {
        let AfSpecBridge::VlanInfo(info) = spec else { continue };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(info.vid);
            continue;
        }
        vlans.push(Vlan {
            first: first.take().unwrap_or(info.vid),
            last: info.vid,
            pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
        });
    }
    vlans
}

fn vlan_infos(vlan: &Vlan) -> Vec<BridgeVlanInfo> {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
    if vlan.first == vlan.last {
        return vec![BridgeVlanInfo { vid: vlan.first, flags }];
    }
    vec![
        BridgeVlanInfo { vid: vlan.first, flags: flags | BridgeVlanInfoFlags::RangeBegin },
        BridgeVlanInfo { vid: vlan.last, flags: flags | BridgeVlanInfoFlags::RangeEnd },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_set() {
        let want = PortSettings {
            cost: Some(2),
            isolated: Some(true),
            hairpin: Some(false),
            ..Default::default()
        };
        let now = PortSettings {
            cost: Some(2),
            isolated: Some(false),
            learning: Some(true),
            ..Default::default()
        };
        let change = want.beyond(&now);
        assert_eq!(
            change,
            PortSettings { isolated: Some(true), hairpin: Some(false), ..Default::default() }
        );
        assert!(want.beyond(&want).is_empty());
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = PortSettings {
            cost: Some(7),
            mcast_router: Some(2),
            mab: Some(true),
            ..Default::default()
        };
        assert_eq!(PortSettings::read(&settings.write()), settings);
    }

    #[test]
    fn settings_in_the_record_are_only_those_known() {
        let settings = PortSettings { cost: Some(7), isolated: Some(true), ..Default::default() };
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(text, "cost = 7\nisolated = true\n");
        assert_eq!(toml::from_str::<PortSettings>(&text).unwrap(), settings);
    }

    #[test]
    fn vlans_are_read_as_they_are_written() {
        let vlans = [
            Vlan { first: 1, last: 1, pvid: true, untagged: true },
            Vlan { first: 10, last: 19, pvid: false, untagged: false },
            Vlan { first: 21, last: 21, pvid: false, untagged: true },
        ];
        let specs: Vec<_> = vlans.iter().flat_map(vlan_infos).map(AfSpecBridge::VlanInfo).collect();
        assert_eq!(specs.len(), 4);
        assert_eq!(ranges(&specs), vlans);
    }
}
