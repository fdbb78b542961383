//! The interfaces of a copy: what its configuration says of them, and what they cannot share with
//! the original.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::criu::images::{self, Family, NamespaceIds, Net, Readdress, Readdressed, Shown};
use crate::lxc::config::{Config, Gateway, Nic};
use crate::lxc::definition::Defined;
use crate::resources::network::interfaces::Origin;
use crate::store::record::Record;
use crate::sys::netlink::{Mac, Netlink};

/// How LXC's own hardware addresses begin (`lxc.net.0.hwaddr = 00:16:3e:xx:xx:xx` in its
/// default.conf).
const LXC_MAC: &str = "00:16:3e:xx:xx:xx";

/// An interface of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name in the container.
    pub inside: String,
    /// Its index there, once it is known.
    pub index: Option<u32>,
    /// The N of `lxc.net.N`.
    pub nic: Option<u32>,
    /// The bridge that it is to be on.
    pub bridge: Option<String>,
    /// The name that is wanted for the host's end.
    pub host: Option<String>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    nets: Vec<Net>,
    gateways: Vec<(Family, Option<IpAddr>)>,
}

/// The interfaces of a record as the configuration wants them.
pub(super) fn interfaces(
    record: &Record,
    defined: &Defined,
    netlink: &mut Netlink,
) -> Result<Vec<Interface>> {
    let config = &defined.config;
    let mut bridges = BTreeMap::new();
    let asked = |nic: &&Nic| {
        nic.ipv4_gateway == Some(Gateway::Auto) || nic.ipv6_gateway == Some(Gateway::Auto)
    };
    for link in config.nics().iter().filter(asked).filter_map(|nic| nic.link.as_deref()) {
        // One that is missing is told with the rest of the plan.
        if let Ok(found) = netlink.link(link) {
            let addresses = netlink
                .addresses(found.index)
                .with_context(|| format!("list the addresses of {link}"))?;
            bridges.insert(link, addresses);
        }
    }
    let of_link = |name: &str, family: Family| {
        bridges.get(name)?.iter().map(|(ip, _)| *ip).find(|ip| Family::of(*ip) == family)
    };
    let own = |inside: &str| {
        planned(inside, nic_of(config, inside), &of_link, seed(&defined.dir(), inside))
    };
    let ports = record.ports.iter().map(|port| {
        let mut interface = own(&port.inside);
        interface.bridge = nic_of(config, &port.inside)
            .map_or_else(|| port.bridge.clone(), |nic| nic.link.clone());
        interface
    });
    let mut interfaces: Vec<Interface> = ports.collect();
    for device in &record.devices {
        let mut interface = own(&device.inside);
        // An interface of the host has its own already.
        if let Origin::Lent { host } = &device.from {
            interface.mac = netlink.link(host).ok().and_then(|link| link.mac);
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

/// What the configuration says of an interface.
fn nic_of<'a>(config: &'a Config, inside: &str) -> Option<&'a Nic> {
    config.nics().iter().find(|nic| nic.name_inside() == inside)
}

/// The digits of an interface's hardware address come from its container: it has the same one
/// whenever it is restored from the same checkpoint, and nobody on the network has to learn
/// another.
fn seed(dir: &Path, inside: &str) -> u64 {
    let sum = Sha256::digest(dir.join(inside).as_os_str().as_encoded_bytes());
    sum.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn planned(
    inside: &str,
    nic: Option<&Nic>,
    of_link: &impl Fn(&str, Family) -> Option<IpAddr>,
    seed: u64,
) -> Interface {
    let template =
        nic.and_then(|nic| nic.hwaddr.as_ref()).map_or(LXC_MAC, |address| address.as_str());
    let mut interface = Interface {
        inside: inside.to_owned(),
        index: None,
        nic: nic.map(|nic| nic.index),
        bridge: None,
        host: nic.and_then(|nic| nic.veth_pair.clone()),
        mac: Some(made_of(template, seed)),
        nets: Vec::new(),
        gateways: Vec::new(),
    };
    let Some(nic) = nic else { return interface };
    let net = |ip: IpAddr, prefix: u32| Net { ip, prefix: u8::try_from(prefix).unwrap_or(u8::MAX) };
    interface.nets.extend(nic.ipv4.iter().map(|n| net(n.address.into(), n.prefix)));
    interface.nets.extend(nic.ipv6.iter().map(|n| net(n.address.into(), n.prefix)));
    let link = nic.link.as_deref().unwrap_or_default();
    let v4 = nic.ipv4_gateway.and_then(|g| gateway(g, || of_link(link, Family::V4)));
    let v6 = nic.ipv6_gateway.and_then(|g| gateway(g, || of_link(link, Family::V6)));
    interface.gateways.extend(v4.map(|g| (Family::V4, g)));
    interface.gateways.extend(v6.map(|g| (Family::V6, g)));
    interface
}

/// A gateway's address; within, none for a route without one. Without, where the bridge has no
/// address to go by.
fn gateway<A: Into<IpAddr>>(
    gateway: Gateway<A>,
    of_link: impl FnOnce() -> Option<IpAddr>,
) -> Option<Option<IpAddr>> {
    match gateway {
        Gateway::Address(ip) => Some(Some(ip.into())),
        Gateway::Dev => Some(None),
        Gateway::Auto => of_link().map(Some),
    }
}

/// A hardware address of a template, in which each `x` is any digit.
fn made_of(template: &str, mut seed: u64) -> Mac {
    let mut digit = |c: char| {
        c.to_digit(16).unwrap_or_else(|| {
            let number = (seed % 16) as u32;
            seed /= 16;
            number
        })
    };
    let mut mac = [0; 6];
    for (octet, text) in mac.iter_mut().zip(template.split(':')) {
        // Two digits at most, so it fits.
        *octet = text.chars().fold(0, |number, c| (number << 4) | digit(c)) as u8;
    }
    if template.split(':').next().is_some_and(|first| first.contains(['x', 'X'])) {
        // No address of a group.
        mac[0] &= !1;
    }
    Mac(mac)
}

/// What becomes of the addresses of a checkpoint; the interfaces learn their indexes.
pub(super) fn readdressed(
    dir: &Path,
    interfaces: &mut [Interface],
) -> Result<Readdressed, images::Error> {
    let Some(netns) = NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?.net else {
        return Ok(Readdressed::default());
    };
    let found = match images::interfaces(dir, netns) {
        Ok(found) => found,
        // It was in the host's namespace.
        Err(e) if e.is_not_found() => return Ok(Readdressed::default()),
        Err(e) => return Err(e),
    };
    let mut wishes = Vec::new();
    for interface in interfaces.iter_mut() {
        let Some(there) = found.iter().find(|i| i.name == interface.inside) else { continue };
        interface.index = Some(there.index);
        wishes.push(Readdress {
            interface: there.index,
            mac: there.mac.zip(interface.mac.map(|mac| mac.0)),
            nets: interface.nets.clone(),
            gateways: interface.gateways.clone(),
        });
    }
    images::readdressed(&Shown::of(dir), netns, &wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> Config {
        let text =
            format!("lxc.rootfs.path = /r\nlxc.net.0.type = veth\nlxc.net.0.link = br0\n{lines}");
        Config::parse(Path::new("/c"), text.as_bytes()).unwrap()
    }

    fn planned_of(lines: &str) -> Interface {
        let config = config(lines);
        let of_link = |link: &str, family| {
            (link == "br0" && family == Family::V4).then(|| [10, 0, 0, 1].into())
        };
        planned("eth0", nic_of(&config, "eth0"), &of_link, 0x1234_5678)
    }

    #[test]
    fn a_hardware_address_is_the_configurations_or_one_as_lxc_makes_them() {
        for (lines, mac) in [
            ("", "00:16:3e:87:65:43"),
            ("lxc.net.0.hwaddr = 00:16:3e:0:aB:0c\n", "00:16:3e:00:ab:0c"),
            ("lxc.net.0.hwaddr = 00:16:3e:1x:xx:ff\n", "00:16:3e:18:76:ff"),
            ("lxc.net.0.hwaddr = xx:xx:xx:xx:xx:xx\n", "86:65:43:21:00:00"),
        ] {
            assert_eq!(planned_of(lines).mac.unwrap().to_string(), mac, "{lines}");
        }
        assert_eq!(
            made_of("xx:00:00:00:00:00", 0x11),
            Mac([0x10, 0, 0, 0, 0, 0]),
            "no address of a group"
        );
    }

    #[test]
    fn each_interface_of_each_container_has_its_own() {
        let seeds =
            [("/var/lib/lxc/a", "eth0"), ("/var/lib/lxc/a", "eth1"), ("/var/lib/lxc/b", "eth0")];
        let macs = seeds.map(|(dir, inside)| made_of(LXC_MAC, seed(Path::new(dir), inside)));
        assert!(macs[0] != macs[1] && macs[1] != macs[2] && macs[2] != macs[0], "{macs:?}");
        assert_eq!(macs[0], made_of(LXC_MAC, seed(Path::new("/var/lib/lxc/a"), "eth0")));
    }

    #[test]
    fn addresses_and_gateways_are_the_configurations_if_it_has_any() {
        let none = planned_of("lxc.net.0.veth.pair = vethcopy\n");
        assert_eq!(
            (none.nets.len(), none.gateways.len(), none.host.as_deref()),
            (0, 0, Some("vethcopy"))
        );
        let some = planned_of(
            "lxc.net.0.ipv4.address = 10.0.0.7/24\nlxc.net.0.ipv4.gateway = auto\n\
             lxc.net.0.ipv6.address = fd00::7/64\nlxc.net.0.ipv6.gateway = auto\n",
        );
        let nets: Vec<String> =
            some.nets.iter().map(|n| format!("{}/{}", n.ip, n.prefix)).collect();
        assert_eq!(nets, ["10.0.0.7/24", "fd00::7/64"]);
        // The bridge has no address of IPv6.
        assert_eq!(some.gateways, [(Family::V4, Some([10, 0, 0, 1].into()))]);
        let dev = planned_of("lxc.net.0.ipv4.gateway = dev\nlxc.net.0.ipv6.gateway = fd00::1\n");
        assert_eq!(
            dev.gateways,
            [(Family::V4, None), (Family::V6, Some("fd00::1".parse().unwrap()))]
        );
    }
}
