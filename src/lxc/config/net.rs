//! The network interfaces: `lxc.net.N.*`, and `lxc.network.*` once it has been given a number.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::address::{Gateway, Net, clear_gateway, gateway, ipv4, ipv6, lines, route, set_gateway};
use super::value::{signed32, unsigned32};

/// An interface name has at most this many bytes (`IFNAMSIZ` without the NUL); liblxc cuts longer
/// ones.
const NAME_MAX: usize = 15;

/// The largest VLAN id of a bridge port.
const BRIDGE_VLAN_MAX: u16 = 4094;

/// The kind of a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NicKind {
    /// A pair: one end inside, the other on the host.
    Veth,
    /// A macvlan on a host interface.
    Macvlan,
    /// An ipvlan on a host interface.
    Ipvlan,
    /// A VLAN on a host interface.
    Vlan,
    /// A host interface moved into the container.
    Phys,
    /// Only the loopback interface. Also what liblxc makes of an interface without `type`.
    #[default]
    Empty,
    /// The host's network namespace.
    None,
}

impl NicKind {
    const ALL: [(NicKind, &str); 7] = [
        (NicKind::Veth, "veth"),
        (NicKind::Macvlan, "macvlan"),
        (NicKind::Ipvlan, "ipvlan"),
        (NicKind::Vlan, "vlan"),
        (NicKind::Phys, "phys"),
        (NicKind::Empty, "empty"),
        (NicKind::None, "none"),
    ];

    /// The value of `lxc.net.N.type`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// How the host's end of a veth pair is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VethMode {
    /// As a port of the bridge `link`.
    Bridge,
    /// By routes.
    Router,
}

/// A hardware address as written: six octets, where liblxc puts a random digit for each `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HwAddr(String);

impl HwAddr {
    /// An address in the form of `lxc.net.N.hwaddr`.
    pub fn parse(text: &str) -> Option<HwAddr> {
        let octet = |o: &str| {
            (1..=2).contains(&o.len())
                && o.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X'))
        };
        (text.split(':').count() == 6 && text.split(':').all(octet))
            .then(|| HwAddr(text.to_owned()))
    }

    /// The octets; `None` for a template with an `x`.
    pub fn octets(&self) -> Option<[u8; 6]> {
        let octets: Option<Vec<u8>> =
            self.0.split(':').map(|o| u8::from_str_radix(o, 16).ok()).collect();
        octets?.try_into().ok()
    }

    /// The address as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A network interface of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The N of `lxc.net.N`.
    pub index: u32,
    /// `type`.
    pub kind: NicKind,
    /// `link`: the bridge or the interface on the host. With [`NicKind::Phys`] a `+` at its end is
    /// a wildcard.
    pub link: Option<String>,
    /// `name`: the name inside.
    pub name: Option<String>,
    /// `veth.pair`: the name on the host.
    pub veth_pair: Option<String>,
    /// `hwaddr`.
    pub hwaddr: Option<HwAddr>,
    /// `mtu`.
    pub mtu: Option<u32>,
    /// `flags`: whether the interface is brought up.
    pub flags_up: bool,
    /// `ipv4.address`.
    pub ipv4: Vec<Net<Ipv4Addr>>,
    /// `ipv4.gateway`.
    pub ipv4_gateway: Option<Gateway<Ipv4Addr>>,
    /// `ipv6.address`.
    pub ipv6: Vec<Net<Ipv6Addr>>,
    /// `ipv6.gateway`.
    pub ipv6_gateway: Option<Gateway<Ipv6Addr>>,
    /// `script.up`.
    pub script_up: Option<String>,
    /// `script.down`.
    pub script_down: Option<String>,
    /// `veth.mode`; `None` unless this is a veth.
    pub veth_mode: Option<VethMode>,
    /// `veth.vlan.id`: the untagged VLAN of the bridge port, -1 for `none`.
    pub veth_vlan_id: Option<i32>,
    /// `veth.vlan.tagged.id`.
    pub veth_vlan_tagged_ids: Vec<u16>,
    /// `veth.ipv4.route`.
    pub veth_ipv4_routes: Vec<Net<Ipv4Addr>>,
    /// `veth.ipv6.route`.
    pub veth_ipv6_routes: Vec<Net<Ipv6Addr>>,
    /// `veth.n_rxqueues`.
    pub veth_rx_queues: Option<u32>,
    /// `veth.n_txqueues`.
    pub veth_tx_queues: Option<u32>,
    /// `vlan.id`.
    pub vlan_id: Option<u16>,
    /// `macvlan.mode`.
    pub macvlan_mode: Option<&'static str>,
    /// `ipvlan.mode`.
    pub ipvlan_mode: Option<&'static str>,
    /// `ipvlan.isolation`.
    pub ipvlan_isolation: Option<&'static str>,
    /// `l2proxy`.
    pub l2proxy: bool,
    /// `type` was emptied: liblxc then has no name for the kind, unlike before any `type`.
    kind_emptied: bool,
}

/// Whether liblxc knows the part of a key behind `lxc.net.N.`.
pub(super) fn is_key(sub: &str) -> bool {
    matches!(
        sub,
        "flags"
            | "hwaddr"
            | "ipv4.address"
            | "ipv4.gateway"
            | "ipv6.address"
            | "ipv6.gateway"
            | "link"
            | "l2proxy"
            | "macvlan.mode"
            | "ipvlan.mode"
            | "ipvlan.isolation"
            | "mtu"
            | "name"
            | "script.down"
            | "script.up"
            | "type"
            | "vlan.id"
            | "veth.mode"
            | "veth.n_rxqueues"
            | "veth.n_txqueues"
            | "veth.pair"
            | "veth.ipv4.route"
            | "veth.ipv6.route"
            | "veth.vlan.id"
            | "veth.vlan.tagged.id"
    )
}

impl Nic {
    /// Its name in the container; LXC's own is ethN.
    pub(crate) fn name_inside(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("eth{}", self.index))
    }

    /// An interface of which nothing is known yet.
    pub(super) fn new(index: u32) -> Nic {
        Nic { index, ..Nic::default() }
    }

    /// Sets one key; the error says what is wrong with the value. An empty value unsets.
    pub(super) fn set(&mut self, sub: &str, value: &str) -> Result<(), String> {
        if value.is_empty() {
            self.clear(sub);
            return Ok(());
        }
        self.check_kind(sub)?;
        let bad = |what: &str| format!("'{}' is not {what}", super::parse::printable(value));
        let pick = |names: &[&'static str]| {
            names
                .iter()
                .copied()
                .find(|n| *n == value)
                .ok_or_else(|| bad(&format!("one of {}", names.join(", "))))
        };
        match sub {
            "type" => {
                let kind =
                    NicKind::ALL.iter().find(|(_, name)| *name == value).map(|(kind, _)| *kind);
                *self = Nic::of_kind(
                    self.index,
                    kind.ok_or_else(|| bad("a kind of network interface"))?,
                );
            }
            "flags" => self.flags_up = true,
            "hwaddr" => {
                self.hwaddr = Some(HwAddr::parse(value).ok_or_else(|| bad("a hardware address"))?)
            }
            "mtu" => self.mtu = Some(unsigned32(value).ok_or_else(|| bad("a number"))?),
            "link" => self.link = Some(interface_name(value)),
            "name" => self.name = Some(interface_name(value)),
            "script.up" => self.script_up = Some(value.to_owned()),
            "script.down" => self.script_down = Some(value.to_owned()),
            "l2proxy" => {
                self.l2proxy = match unsigned32(value) {
                    Some(0) => false,
                    Some(1) => true,
                    _ => return Err(bad("0 or 1")),
                }
            }
            "ipv4.address" => self.ipv4.push(ipv4(value).ok_or_else(|| bad("an IPv4 address"))?),
            "ipv6.address" => self.ipv6.push(ipv6(value).ok_or_else(|| bad("an IPv6 address"))?),
            "ipv4.gateway" => {
                set_gateway(&mut self.ipv4_gateway, value)
                    .ok_or_else(|| bad("an IPv4 address, 'auto' or 'dev'"))?;
            }
            "ipv6.gateway" => {
                set_gateway(&mut self.ipv6_gateway, value)
                    .ok_or_else(|| bad("an IPv6 address, 'auto' or 'dev'"))?;
            }
            "macvlan.mode" => {
                self.macvlan_mode = Some(pick(&["private", "vepa", "bridge", "passthru"])?)
            }
            "ipvlan.mode" => self.ipvlan_mode = Some(pick(&["l3", "l3s", "l2"])?),
            "ipvlan.isolation" => {
                self.ipvlan_isolation = Some(pick(&["bridge", "private", "vepa"])?)
            }
            "veth.mode" => {
                self.veth_mode = Some(match pick(&["bridge", "router"])? {
                    "bridge" => VethMode::Bridge,
                    _ => VethMode::Router,
                });
            }
            "veth.pair" => self.veth_pair = Some(interface_name(value)),
            "veth.n_rxqueues" => {
                self.veth_rx_queues = Some(queues(value).ok_or_else(|| bad("a number of queues"))?)
            }
            "veth.n_txqueues" => {
                self.veth_tx_queues = Some(queues(value).ok_or_else(|| bad("a number of queues"))?)
            }
            "veth.vlan.id" if value == "none" => self.veth_vlan_id = Some(-1),
            "veth.vlan.id" => {
                let id = vlan(value)
                    .filter(|id| *id <= BRIDGE_VLAN_MAX)
                    .ok_or_else(|| bad("a VLAN id"))?;
                self.veth_vlan_id = Some(i32::from(id));
            }
            "veth.vlan.tagged.id" => {
                let id = vlan(value)
                    .filter(|id| *id <= BRIDGE_VLAN_MAX)
                    .ok_or_else(|| bad("a VLAN id"))?;
                self.veth_vlan_tagged_ids.push(id);
            }
            "vlan.id" => self.vlan_id = Some(vlan(value).ok_or_else(|| bad("a VLAN id"))?),
            "veth.ipv4.route" => {
                self.veth_ipv4_routes.push(route(value, 32).ok_or_else(|| bad("an IPv4 network"))?);
            }
            "veth.ipv6.route" => {
                self.veth_ipv6_routes
                    .push(route(value, 128).ok_or_else(|| bad("an IPv6 network"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The values that liblxc gives an interface with its `type`; all that was set before is lost,
    /// as there.
    fn of_kind(index: u32, kind: NicKind) -> Nic {
        let mut nic = Nic { index, kind, ..Nic::default() };
        match kind {
            NicKind::Veth => nic.veth_mode = Some(VethMode::Bridge),
            NicKind::Macvlan => nic.macvlan_mode = Some("private"),
            // The manual says l3, but 0 is l2, so liblxc takes the mode for set already.
            NicKind::Ipvlan => {
                (nic.ipvlan_mode, nic.ipvlan_isolation) = (Some("l2"), Some("bridge"))
            }
            NicKind::Vlan => nic.vlan_id = Some(0),
            NicKind::Empty => nic.name = Some("lo".to_owned()),
            NicKind::Phys | NicKind::None => {}
        }
        nic
    }

    /// Keys of one kind of interface are refused before `type` has made it that kind.
    fn check_kind(&self, sub: &str) -> Result<(), String> {
        match needs_kind(sub) {
            Some(kind) if kind != self.kind => {
                Err(format!("this needs 'type = {}' before it", kind.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn clear(&mut self, sub: &str) {
        match sub {
            "type" => *self = Nic { kind_emptied: true, ..Nic::new(self.index) },
            "flags" => self.flags_up = false,
            "hwaddr" => self.hwaddr = None,
            "mtu" => self.mtu = None,
            "link" => self.link = None,
            "name" => self.name = None,
            "script.up" => self.script_up = None,
            "script.down" => self.script_down = None,
            "l2proxy" => self.l2proxy = false,
            "ipv4.address" => self.ipv4.clear(),
            "ipv6.address" => self.ipv6.clear(),
            "ipv4.gateway" => clear_gateway(&mut self.ipv4_gateway),
            "ipv6.gateway" => clear_gateway(&mut self.ipv6_gateway),
            "macvlan.mode" => self.macvlan_mode = None,
            "ipvlan.mode" => self.ipvlan_mode = None,
            "ipvlan.isolation" => self.ipvlan_isolation = None,
            "veth.mode" => self.veth_mode = None,
            "veth.pair" => self.veth_pair = None,
            "veth.n_rxqueues" => self.veth_rx_queues = None,
            "veth.n_txqueues" => self.veth_tx_queues = None,
            "veth.vlan.id" => self.veth_vlan_id = None,
            "veth.vlan.tagged.id" => self.veth_vlan_tagged_ids.clear(),
            "vlan.id" => self.vlan_id = (self.kind == NicKind::Vlan).then_some(0),
            "veth.ipv4.route" => self.veth_ipv4_routes.clear(),
            "veth.ipv6.route" => self.veth_ipv6_routes.clear(),
            _ => {}
        }
    }

    /// The kind as liblxc lists it for `lxc.net`.
    pub(super) fn listed_kind(&self) -> &'static str {
        if self.kind_emptied { "(invalid)" } else { self.kind.as_str() }
    }

    /// The value of one key as liblxc prints it; empty when it is unset, `None` for a key of
    /// another kind.
    pub(super) fn get(&self, sub: &str) -> Option<String> {
        if needs_kind(sub).is_some_and(|kind| kind != self.kind) {
            return None;
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mode = |value: Option<&'static str>| value.unwrap_or("(invalid)").to_owned();
        let number = |value: Option<u32>| value.map(|n| n.to_string()).unwrap_or_default();
        Some(match sub {
            "type" if self.kind_emptied => "(null)".to_owned(),
            "type" => self.kind.as_str().to_owned(),
            "flags" => if self.flags_up { "up" } else { "" }.to_owned(),
            "hwaddr" => self.hwaddr.as_ref().map(|h| h.0.clone()).unwrap_or_default(),
            "mtu" => number(self.mtu),
            "link" => text(&self.link),
            "name" => text(&self.name),
            "script.up" => text(&self.script_up),
            "script.down" => text(&self.script_down),
            "l2proxy" => u8::from(self.l2proxy).to_string(),
            "ipv4.address" => lines(&self.ipv4),
            "ipv6.address" => lines(&self.ipv6),
            "ipv4.gateway" => gateway(&self.ipv4_gateway),
            "ipv6.gateway" => gateway(&self.ipv6_gateway),
            "macvlan.mode" => mode(self.macvlan_mode),
            "ipvlan.mode" => mode(self.ipvlan_mode),
            "ipvlan.isolation" => mode(self.ipvlan_isolation),
            "veth.mode" => mode(self.veth_mode.map(|m| match m {
                VethMode::Bridge => "bridge",
                VethMode::Router => "router",
            })),
            "veth.pair" => text(&self.veth_pair),
            "veth.n_rxqueues" => number(self.veth_rx_queues),
            "veth.n_txqueues" => number(self.veth_tx_queues),
            "veth.vlan.id" => self.veth_vlan_id.map(|id| id.to_string()).unwrap_or_default(),
            "veth.vlan.tagged.id" => {
                self.veth_vlan_tagged_ids.iter().map(u16::to_string).collect::<Vec<_>>().join("\n")
            }
            "vlan.id" => self.vlan_id.unwrap_or(0).to_string(),
            "veth.ipv4.route" => lines(&self.veth_ipv4_routes),
            "veth.ipv6.route" => lines(&self.veth_ipv6_routes),
            _ => return None,
        })
    }
}

fn needs_kind(sub: &str) -> Option<NicKind> {
    match sub.split_once('.')?.0 {
        "veth" => Some(NicKind::Veth),
        "macvlan" => Some(NicKind::Macvlan),
        "ipvlan" => Some(NicKind::Ipvlan),
        "vlan" => Some(NicKind::Vlan),
        _ => None,
    }
}

/// An interface name, cut to what the kernel takes, as liblxc cuts it.
pub(super) fn interface_name(value: &str) -> String {
    let end =
        (0..=NAME_MAX.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.get(..end).unwrap_or_default().to_owned()
}

fn queues(value: &str) -> Option<u32> {
    signed32(value).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

fn vlan(value: &str) -> Option<u16> {
    unsigned32(value).and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(lines: &[(&str, &str)]) -> Nic {
        let mut nic = Nic::new(0);
        for (key, value) in lines {
            nic.set(key, value).unwrap();
        }
        nic
    }

    #[test]
    fn type_resets_and_gives_the_defaults_of_its_kind() {
        let n = nic(&[("name", "eth0"), ("flags", "up"), ("type", "veth")]);
        assert_eq!((n.name, n.flags_up, n.veth_mode), (None, false, Some(VethMode::Bridge)));
        assert_eq!(nic(&[("type", "empty")]).name.as_deref(), Some("lo"));
        assert_eq!(nic(&[("link", "br0")]).get("type").as_deref(), Some("empty"));
    }

    #[test]
    fn reads_addresses_and_gateways() {
        let n = nic(&[
            ("ipv4.address", "10.0.0.1"),
            ("ipv4.address", "192.168.1.2/28 192.168.1.15"),
            ("ipv6.address", "fe80:0:0::1"),
            ("ipv4.gateway", "10.0.0.254"),
            ("ipv6.gateway", "auto"),
            ("ipv6.gateway", ""),
        ]);
        assert_eq!(n.get("ipv4.address").unwrap(), "10.0.0.1/8\n192.168.1.2/28");
        assert_eq!(n.ipv4[1].broadcast, Some(Ipv4Addr::new(192, 168, 1, 15)));
        assert_eq!(n.get("ipv6.address").unwrap(), "fe80::1/64");
        assert_eq!(n.get("ipv4.gateway").unwrap(), "10.0.0.254");
        assert_eq!(n.get("ipv6.gateway").unwrap(), "auto");
    }

    #[test]
    fn refuses_wrong_values() {
        for (key, value) in [
            ("type", "wifi"),
            ("hwaddr", "00:11:22"),
            ("hwaddr", "00:11:22:33:44:gg"),
            ("mtu", "big"),
            ("ipv4.address", "10.0.0.1/33"),
            ("ipv4.address", "10.0.0"),
            ("ipv6.address", "fe80::1/x"),
            ("ipv4.gateway", "fe80::1"),
            ("l2proxy", "2"),
            ("veth.pair", "x"),
        ] {
            assert!(Nic::new(0).set(key, value).is_err(), "{key} = {value}");
        }
    }

    #[test]
    fn a_hardware_address_may_be_a_template() {
        assert_eq!(HwAddr::parse("00:16:3e:xx:xX:01").unwrap().octets(), None);
        assert_eq!(
            HwAddr::parse("0:16:3E:a:b:c").unwrap().octets(),
            Some([0, 0x16, 0x3e, 10, 11, 12])
        );
    }

    #[test]
    fn cuts_long_names_like_liblxc() {
        assert_eq!(interface_name("abcdefghijklmnopq"), "abcdefghijklmno");
        assert_eq!(interface_name("abcdefghijklmné"), "abcdefghijklmn");
    }
}
