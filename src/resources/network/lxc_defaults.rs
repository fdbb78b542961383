//! What LXC gives the host's end of a veth pair by itself, from the configuration (network.c,
//! `netdev_configure_server_veth`): for a checkpoint in which nothing of it was recorded, and
//! before a script of the user's runs, which finds it so.

use std::net::IpAddr;

use super::Elsewhere;
use super::state::LinkState;
use crate::lxc::config::{Gateway, Nic, NicKind, VethMode};
use crate::resources::network::sysctl::LINK;
use crate::sys::netlink::Netlink;
use crate::sys::netlink::raw::Message;
use anyhow::{Context, Result};

const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const NDA_DST: u16 = 1;
/// RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST; NTF_PROXY.
const MAIN: u8 = 254;
const BOOT: u8 = 3;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
const PROXY: u8 = 8;
/// IFF_UP, IFF_MULTICAST.
const UP: u32 = 0x1 | 0x1000;

/// Whether the host's end of a pair reaches the world by routes and not by a bridge.
pub(crate) fn is_routed(nic: &Nic) -> bool {
    nic.kind == NicKind::Veth && nic.veth_mode == Some(VethMode::Router)
}

/// What LXC gives the host's end. `gateways` are the addresses of its link, for a gateway that is
/// `auto`.
pub(crate) fn of_host_end(nic: &Nic, gateways: &[IpAddr]) -> LinkState {
    let mut state = LinkState { flags: UP, queues: queues(nic), ..LinkState::default() };
    let mut set =
        |key: &str| drop(state.settings.insert(key.replacen("IF", LINK, 1), "1".to_owned()));
    let static_routes =
        nic.veth_ipv4_routes.iter().map(|net| (IpAddr::from(net.address), net.prefix));
    let static_routes =
        static_routes.chain(nic.veth_ipv6_routes.iter().map(|n| (n.address.into(), n.prefix)));
    let mut routes: Vec<Message> = static_routes.map(|(ip, prefix)| route(ip, prefix)).collect();
    if is_routed(nic) {
        let auto = |v4: bool| gateways.iter().copied().find(|ip| ip.is_ipv4() == v4);
        let gateway4 = match &nic.ipv4_gateway {
            Some(Gateway::Address(ip)) => Some((*ip).into()),
            Some(Gateway::Auto) => auto(true),
            _ => None,
        };
        let gateway6 = match &nic.ipv6_gateway {
            Some(Gateway::Address(ip)) => Some((*ip).into()),
            Some(Gateway::Auto) => auto(false),
            _ => None,
        };
        if gateway4.is_some() {
            set("ipv4/conf/IF/forwarding");
        }
        if gateway6.is_some() {
            set("ipv6/conf/IF/forwarding");
            set("ipv6/conf/IF/proxy_ndp");
        }
        state.neighbours = gateway4.into_iter().chain(gateway6).map(proxy).collect();
        routes.extend(
            addresses(nic).into_iter().map(|ip| route(ip, if ip.is_ipv4() { 32 } else { 128 })),
        );
    } else if nic.link.is_some() {
        set("ipv6/conf/IF/disable_ipv6");
    }
    state.routes = routes;
    state
}

/// What its link is told for the sake of the container's addresses (`l2proxy`).
pub(crate) fn of_link(nic: &Nic) -> Vec<Elsewhere> {
    let Some(link) = nic.link.as_ref().filter(|_| nic.l2proxy) else { return Vec::new() };
    let answers =
        addresses(nic).into_iter().map(|ip| Elsewhere { link: link.clone(), message: proxy(ip) });
    answers.collect()
}

fn addresses(nic: &Nic) -> Vec<IpAddr> {
    let ipv4 = nic.ipv4.iter().map(|net| IpAddr::from(net.address));
    ipv4.chain(nic.ipv6.iter().map(|net| net.address.into())).collect()
}

fn queues(nic: &Nic) -> Option<(u32, u32)> {
    let named = nic.veth_tx_queues.or(nic.veth_rx_queues).is_some();
    named.then(|| (nic.veth_tx_queues.unwrap_or(1), nic.veth_rx_queues.unwrap_or(1)))
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    (if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }).to_le_bytes()[0]
}

/// A route over the link with index 0, which is replaced.
fn route(ip: IpAddr, prefix: u32) -> Message {
    let prefix = u8::try_from(prefix).unwrap_or(128);
    let mut message = Message::new(
        NEW_ROUTE,
        [family(ip), prefix, 0, 0, MAIN, BOOT, SCOPE_LINK, UNICAST, 0, 0, 0, 0],
    );
    message.push(RTA_DST, &octets(ip));
    message.push(RTA_OIF, &[0; 4]);
    message
}

fn proxy(ip: IpAddr) -> Message {
    let mut message =
        Message::new(NEW_NEIGHBOUR, [family(ip), 0, 0, 0, 0, 0, 0, 0, 0, 0, PROXY, UNICAST]);
    message.push(NDA_DST, &octets(ip));
    message
}

/// What is known of a host's end that was not recorded: what LXC gives it.
pub(crate) fn unrecorded(nic: &Nic, netlink: &mut Netlink) -> Result<LinkState> {
    Ok(of_host_end(nic, &addresses_of_link(nic, netlink)?))
}

/// A gateway that is `auto` is an address of the link.
pub(crate) fn addresses_of_link(nic: &Nic, netlink: &mut Netlink) -> Result<Vec<IpAddr>> {
    let Some(name) = nic.link.as_deref().filter(|_| is_routed(nic)) else { return Ok(Vec::new()) };
    let link = netlink.link(name).with_context(|| format!("find {name}"))?;
    let found =
        netlink.addresses(link.index).with_context(|| format!("list the addresses of {name}"))?;
    Ok(found.into_iter().map(|(ip, _)| ip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lxc::config::Config;

    fn nic(lines: &str) -> Nic {
        let text = format!("lxc.net.0.type = veth\n{lines}");
        let config = Config::parse(std::path::Path::new("/config"), text.as_bytes()).unwrap();
        config.nics()[0].clone()
    }

    #[test]
    fn a_routed_pair_has_what_lxc_gives_it() {
        let nic = nic("lxc.net.0.veth.mode = router\nlxc.net.0.link = eno1\nlxc.net.0.l2proxy = \
                       1\nlxc.net.0.ipv4.address = 10.0.0.5/32\nlxc.net.0.ipv4.gateway = \
                       auto\nlxc.net.0.veth.ipv4.route = 192.0.2.0/24\n");
        let state = of_host_end(&nic, &[[203, 0, 113, 1].into()]);
        assert_eq!(
            state.settings.into_iter().collect::<Vec<_>>(),
            [("ipv4/conf/*/forwarding".into(), "1".into())]
        );
        assert_eq!(state.neighbours, [proxy([203, 0, 113, 1].into())]);
        assert_eq!(
            state.routes,
            [route([192, 0, 2, 0].into(), 24), route([10, 0, 0, 5].into(), 32)]
        );
        let link = of_link(&nic);
        assert_eq!(
            (link[0].link.as_str(), &link[0].message),
            ("eno1", &proxy([10, 0, 0, 5].into()))
        );
    }

    #[test]
    fn a_port_of_a_bridge_has_no_ipv6_of_its_own() {
        let state = of_host_end(&nic("lxc.net.0.link = br0\n"), &[]);
        assert_eq!(
            state.settings.into_iter().collect::<Vec<_>>(),
            [("ipv6/conf/*/disable_ipv6".into(), "1".into())]
        );
        assert!(state.routes.is_empty() && of_link(&nic("lxc.net.0.link = br0\n")).is_empty());
    }
}
