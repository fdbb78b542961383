//! Whether somebody else uses a container's addresses by now.

use anyhow::{Context, Result};

use super::Reason;
use crate::resources::network::Port;
use crate::resources::network::neighbours::Neighbour;
use crate::restore::copy::Claim;
use crate::sys::netlink::{Link, Mac, Netlink};

/// Links behind which another container or machine of this host is, not the world.
const LOCAL_KINDS: &[&str] = &["veth", "tun"];

/// The hardware addresses of these ports that are in use on this host.
pub(super) fn taken(ports: &[Port], netlink: &mut Netlink) -> Result<Vec<Reason>> {
    if !ports.iter().any(|p| p.mac_inside.is_some()) {
        return Ok(Vec::new());
    }
    let links = netlink.links().context("list the host's links")?;
    let heard = netlink.heard().context("read the bridges' forwarding tables")?;
    Ok(ports.iter().filter_map(|p| taken_by(p, &links, &heard)).collect())
}

/// `heard` are the addresses that bridges have heard, each with the index of the port.
fn taken_by(port: &Port, links: &[Link], heard: &[(Mac, u32)]) -> Option<Reason> {
    let mac = port.mac_inside?;
    let same = links.iter().find(|l| l.mac == Some(mac));
    // A machine that was heard over the network may be the one that the container comes from.
    let local = |l: &&Link| l.kind.as_deref().is_some_and(|k| LOCAL_KINDS.contains(&k));
    // The old port of this very container may linger for a moment.
    let another = |l: &&Link| l.name != port.host;
    let behind = || {
        let mut ports = heard
            .iter()
            .filter(|(m, _)| *m == mac)
            .filter_map(|(_, i)| links.iter().find(|l| l.index == *i));
        ports.find(|l| local(l) && another(l))
    };
    let inside = &port.inside;
    if let Some(link) = same.filter(another) {
        return Some(Reason::doubtful(format!(
            "{mac}, the hardware address of its {inside}, is that of {}",
            link.name
        )));
    }
    let link = behind()?;
    Some(Reason::doubtful(format!(
        "{mac}, the hardware address of its {inside}, is in use behind {}",
        link.name
    )))
}

/// What a copy claims for itself on a bridge, and one of its neighbours there has.
pub(super) fn claimed(claims: &[Claim], neighbours: &[Neighbour]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for claim in claims {
        let Claim { inside, mac, .. } = claim;
        for other in neighbours.iter().filter(|n| claim.bridge.as_ref() == Some(&n.bridge)) {
            let Neighbour { who, bridge, .. } = other;
            if let Some(mac) = mac.filter(|mac| other.mac == Some(*mac)) {
                reasons.push(format!(
                    "{mac}, the hardware address of its {inside}, is that of {who} on {bridge}"
                ));
            }
            for ip in claim.addresses.iter().filter(|ip| other.addresses.contains(ip)) {
                let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
                let remedy = claim
                    .nic
                    .map(|nic| format!(" (lxc.net.{nic}.{family}.address gives it another)"));
                let remedy = remedy.unwrap_or_default();
                reasons.push(format!(
                    "{ip}, the address of its {inside}, is that of {who} on {bridge}{remedy}"
                ));
            }
        }
    }
    reasons.into_iter().map(Reason::doubtful).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_disputed_only_on_the_same_bridge() {
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let claim = Claim {
            inside: "eth0".into(),
            nic: Some(0),
            bridge: Some("br0".into()),
            mac: Some(mac),
            addresses: vec![[10, 0, 0, 5].into()],
        };
        let neighbour = |bridge: &str, mac, ip: [u8; 4]| Neighbour {
            who: "web".into(),
            bridge: bridge.into(),
            mac: Some(mac),
            addresses: vec![ip.into()],
        };
        let told = |neighbour| -> Vec<String> {
            claimed(std::slice::from_ref(&claim), &[neighbour])
                .into_iter()
                .map(|r| r.text)
                .collect()
        };
        assert_eq!(told(neighbour("br1", mac, [10, 0, 0, 5])), [""; 0]);
        assert_eq!(told(neighbour("br0", Mac([4; 6]), [10, 0, 0, 6])), [""; 0]);
        assert_eq!(
            told(neighbour("br0", mac, [10, 0, 0, 5])),
            [
                "02:00:00:00:00:07, the hardware address of its eth0, is that of web on br0",
                "10.0.0.5, the address of its eth0, is that of web on br0 (lxc.net.0.ipv4.address \
                 gives it another)"
            ]
        );
    }

    #[test]
    fn an_address_is_taken_only_by_somebody_else_on_this_host() {
        let mac = Mac([0x9e, 0, 0, 0, 0, 1]);
        let port =
            Port { mac_inside: Some(mac), host: "vethOLD".into(), ..Port::unrecorded("eth0") };
        let link = |index, name: &str, kind: Option<&str>, mac| Link {
            index,
            name: name.into(),
            kind: kind.map(str::to_owned),
            mac,
            ..Link::default()
        };
        let links = [
            link(2, "eth0", None, None),
            link(3, "vethOLD", Some("veth"), None),
            link(4, "vethX", Some("veth"), None),
        ];
        assert_eq!(taken_by(&port, &links, &[]), None);
        assert_eq!(
            taken_by(&port, &links, &[(mac, 2), (mac, 3), (mac, 9), (Mac([1; 6]), 4)]),
            None
        );
        let told = taken_by(&port, &links, &[(mac, 2), (mac, 4)]).unwrap().text;
        assert_eq!(
            told,
            "9e:00:00:00:00:01, the hardware address of its eth0, is in use behind vethX"
        );
        let told =
            taken_by(&port, &[link(7, "macvlan0", Some("macvlan"), Some(mac))], &[]).unwrap().text;
        assert!(told.ends_with("is that of macvlan0"), "{told}");
    }
}
