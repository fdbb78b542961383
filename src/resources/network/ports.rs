//! The ports of a running container: finding them, taking them off their bridges, putting them
//! back.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::state::Tables;
use super::{Elsewhere, NoBridge, Port};
use crate::error::ErrorList;
use crate::sys::netlink::{Error, Link, Mac, Netlink, Route, in_netns};

/// How long a port that has joined its bridge may take until packets pass.
const RUNNING_LIMIT: Duration = Duration::from_millis(500);

/// The kind of a virtual Ethernet pair, as the kernel spells it.
pub(crate) const VETH: &str = "veth";

/// The kind of a Linux bridge.
pub(super) const BRIDGE: &str = "bridge";

/// An interface in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its name.
    pub name: String,
    /// Its kind; hardware and the loopback have none.
    pub kind: Option<String>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Its index in the container.
    pub index: u32,
    /// The link of this side that it sits on.
    pub lower: Option<String>,
    /// How a macvlan gets on with others there.
    pub macvlan_mode: Option<u32>,
}

/// What a container has of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The host-side ends of its veth pairs, in the order of the interfaces in the container.
    pub ports: Vec<Port>,
    /// The other interfaces in it: `lo`, macvlan, hardware that was moved in, and veth whose other
    /// end is not on this host's side (between two containers, or a pair within this one).
    pub others: Vec<Inner>,
    /// Its routes in tables of their own, which CRIU does not keep.
    pub routes: Vec<Route>,
    /// Its addresses, but for those of the loopback and of one link.
    pub addresses: Vec<IpAddr>,
}

/// The host-side ends of the veth pairs that lead into a network namespace.
pub fn find(nl: &mut Netlink, container_netns: BorrowedFd<'_>) -> anyhow::Result<Vec<Port>> {
    Ok(survey(nl, container_netns)?.ports)
}

/// All of a container's network: its ports on this side, and its other interfaces.
///
/// A container that shares our network namespace has nothing of its own: the survey is empty.
pub fn survey(nl: &mut Netlink, container_netns: BorrowedFd<'_>) -> anyhow::Result<Survey> {
    if is_own_namespace(container_netns).context("inspect the container's network namespace")? {
        return Ok(Survey::default());
    }
    // In this order: describing a veth is what gives the namespace of its other end an id.
    let outside = nl.links().context("list the host's links")?;
    let id = nl
        .netns_id(container_netns)
        .context("ask for the id of the container's network namespace")?;
    let own = File::open("/proc/thread-self/ns/net").context("open our network namespace")?;
    let (inside, routes, addresses, our_id) = in_netns(container_netns, || {
        let mut theirs = Netlink::open()?;
        Ok((
            theirs.links()?,
            theirs.policy_routes()?,
            theirs.all_addresses()?,
            theirs.netns_id(own.as_fd())?,
        ))
    })
    .and_then(|found| found)
    .context("list the container's links and routes")?;
    let vlans = nl.port_vlans().context("list the VLANs of the bridge ports")?;

    let addresses =
        addresses.into_iter().filter(|ip| !ip.is_loopback() && !is_link_local(*ip)).collect();
    let mut survey = Survey { routes, addresses, ..Survey::default() };
    for inner in inside {
        let host = outside.iter().find(|l| {
            id.is_some()
                && is_veth(l)
                && is_veth(&inner)
                && l.peer_netns == id
                && l.peer_index == Some(inner.index)
        });
        let Some(host) = host else {
            let on_this_side = our_id.is_some() && inner.peer_netns == our_id;
            let lower = outside.iter().find(|l| on_this_side && inner.peer_index == Some(l.index));
            survey.others.push(inner_of(inner, lower.map(|l| l.name.clone())));
            continue;
        };
        let bridge = host.controller.and_then(|index| outside.iter().find(|l| l.index == index));
        survey.ports.push(Port {
            inside: inner.name,
            inside_index: inner.index,
            host: host.name.clone(),
            host_index: host.index,
            bridge: bridge.map(|b| b.name.clone()),
            mac_host: host.mac,
            mac_inside: inner.mac,
            mtu: host.mtu,
            txqueuelen_host: host.txqueuelen,
            txqueuelen_inside: inner.txqueuelen,
            settings: host.port.clone(),
            // A port that is not in the list has no VLAN, but only if the kernel lists VLANs at
            // all.
            vlans: (host.port.is_some() && !vlans.is_empty())
                .then(|| vlans.get(&host.index).cloned().unwrap_or_default()),
            queues_inside: inner.queues,
            state: None,
        });
    }
    Ok(survey)
}

/// Reads all else that the host's ends have, and gives what other links have for the sake of these
/// addresses.
pub(crate) fn add_states(
    ports: &mut [Port],
    addresses: &[IpAddr],
) -> anyhow::Result<Vec<Elsewhere>> {
    let indices: Vec<u32> = ports.iter().map(|port| port.host_index).collect();
    let tables =
        Tables::read(&indices).context("read what the host's ends of its veth pairs have")?;
    for port in ports {
        port.state = tables.of_link(port.host_index, &port.host);
    }
    Ok(tables.for_the_sake_of(addresses, &indices))
}

pub(super) fn is_own_namespace(netns: BorrowedFd<'_>) -> std::io::Result<bool> {
    // Not /proc/self: the namespace is the thread's.
    let own = nix::sys::stat::fstat(File::open("/proc/thread-self/ns/net")?.as_fd())?;
    let other = nix::sys::stat::fstat(netns)?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some(VETH)
}

fn inner_of(link: Link, lower: Option<String>) -> Inner {
    let Link { name, kind, mac, mtu, index, macvlan_mode, .. } = link;
    Inner { name, kind, mac, mtu, index, lower, macvlan_mode }
}

/// Takes each port off its bridge.
///
/// `before_each` is called before a port is touched, so that its undo is on disk first. It is
/// called for a port that is off its bridge already too: that may be the work of a run that died,
/// and must be undone all the same. When a port cannot be taken off, those that were taken off here
/// are put back, and the error says so. A port that is on no bridge is not touched.
pub fn lock(
    nl: &mut Netlink,
    ports: &[Port],
    before_each: &mut dyn FnMut(&Port) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for port in ports {
        let Some(bridge) = &port.bridge else { continue };
        let outcome = before_each(port).and_then(|()| take_off(nl, port, bridge));
        match outcome {
            Ok(true) => taken.push(port),
            Ok(false) => {}
            Err(cause) => {
                let mut errors = ErrorList::default();
                errors.note::<()>(Err(cause.context(format!("take {} off {bridge}", port.host))));
                for port in taken.into_iter().rev() {
                    errors.note(put_back(nl, port));
                }
                return errors.into_result();
            }
        }
    }
    Ok(())
}

/// Whether it was on the bridge.
fn take_off(nl: &mut Netlink, port: &Port, bridge: &str) -> anyhow::Result<bool> {
    let Some(link) = own_link(nl, port)? else { bail!("the link is gone") };
    let Some(controller) = link.controller else { return Ok(false) };
    let controller = nl.link_by_index(controller)?;
    if controller.name != bridge {
        bail!("it has meanwhile been moved to {}", controller.name);
    }
    if controller.kind.as_deref() != Some(BRIDGE) {
        // Open vSwitch has ports that only its own tools can take off and put on.
        let kind = controller.kind.as_deref().unwrap_or("hardware");
        bail!("{bridge} is {kind}, not a Linux bridge");
    }
    match port.mac_host {
        Some(_) => nl.set_mac_and_controller(link.index, placeholder_mac(link.index), None)?,
        None => nl.set_controller(link.index, None)?,
    }
    Ok(true)
}

/// A hardware address to which nobody sends, for a port that is off its bridge.
///
/// The kernel of a frozen container goes on sending (delayed acknowledgements, retransmissions).
/// The bridge mostly has the address of one of its ports; what the container sends to the bridge
/// would then be taken for the host's own by the port itself, and reach the host past the lock. A
/// peer that has seen such a packet throws away what the restored container sends, for it bears an
/// older time stamp (RFC 7323, PAWS). `fe:ff` is also higher than any address that a bridge would
/// take over from its port.
pub(crate) fn placeholder_mac(index: u32) -> Mac {
    let [a, b, c, d] = index.to_be_bytes();
    Mac([0xfe, 0xff, a, b, c, d])
}

/// Puts each port on its bridge again with the settings and VLANs it had, and sets it up.
///
/// Goes on after an error and reports all of them. What is in place already is left alone. A port
/// that is gone is no error: a pair disappears with its container's namespace, and then there is
/// nothing to put back.
///
/// When it returns packets can pass. A bridge that had no other port has lost its carrier, and the
/// kernel sets its queue to work only some time after the port is back; what is sent before is
/// lost, and with it the one packet by which a restored TCP connection makes itself heard: its peer
/// would say the next word when its retransmission timer ends, up to seconds later.
pub fn unlock(nl: &mut Netlink, ports: &[Port]) -> anyhow::Result<()> {
    let mut errors = ErrorList::default();
    for port in ports {
        errors.note(put_back(nl, port));
    }
    for port in ports.iter().filter(|p| p.bridge.is_some()) {
        wait_until_running(nl, port);
    }
    errors.into_result()
}

/// Whether a port that is still there is off the bridge on which it belongs, or in disguise.
pub(crate) fn is_detached(nl: &mut Netlink, port: &Port) -> bool {
    let Ok(Some(link)) = own_link(nl, port) else { return false };
    let bridge = link.controller.and_then(|index| nl.link_by_index(index).ok()).map(|b| b.name);
    bridge != port.bridge || (port.mac_host.is_some() && link.mac != port.mac_host)
}

/// Waits until packets can pass between a port and its bridge. That they cannot in time is no
/// failure: it only costs time.
fn wait_until_running(nl: &mut Netlink, port: &Port) {
    let end = Instant::now() + RUNNING_LIMIT;
    while Instant::now() < end {
        let Ok(Some(link)) = own_link(nl, port) else { return };
        let Some(bridge) = link.controller.and_then(|index| nl.link_by_index(index).ok()) else {
            return;
        };
        // Without a carrier (the interface in the container is down) or a bridge that is up there
        // is nothing to wait for.
        if !link.carrier || !bridge.up || (link.running && bridge.running) {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    log::warn!("{} has joined its bridge, but is not running yet", port.host);
}

fn put_back(nl: &mut Netlink, port: &Port) -> anyhow::Result<()> {
    match (own_link(nl, port), &port.bridge) {
        (Ok(None), _) => {
            log::warn!(
                "{} (the host's end of {}) is gone and is not put back",
                port.host,
                port.inside
            );
            Ok(())
        }
        (Ok(Some(link)), None) => {
            set_up(nl, &link).with_context(|| format!("set {} up", port.host))
        }
        (Ok(Some(link)), Some(bridge)) => put_on(nl, port, link, bridge)
            .with_context(|| format!("put {} back on {bridge}", port.host)),
        (Err(e), _) => Err(e).with_context(|| format!("find {}", port.host)),
    }
}

fn put_on(nl: &mut Netlink, port: &Port, link: Link, bridge: &str) -> anyhow::Result<()> {
    let controller = match nl.link(bridge) {
        Err(Error::NotFound) => return Err(NoBridge { name: bridge.to_owned() }.into()),
        found => found?,
    };
    let joined = link.controller == Some(controller.index);
    match port.mac_host {
        Some(mac) if !joined || link.mac != Some(mac) => {
            nl.set_mac_and_controller(link.index, mac, Some(controller.index))?;
        }
        None if !joined => nl.set_controller(link.index, Some(controller.index))?,
        _ => {}
    }
    // The container must not be left cut off because one setting is refused: first all the way up.
    let mut errors = ErrorList::default();
    errors.note(apply_settings(nl, port, link.index).context("port settings"));
    errors.note(apply_vlans(nl, port, link.index).context("VLANs"));
    if let Some(state) = &port.state {
        let told = state.tell_bridge(link.index, controller.index);
        errors.note(told.context("neighbours, hosts and groups behind it"));
    }
    errors.note(set_up(nl, &link).context("set it up"));
    errors.into_result()
}

fn apply_settings(nl: &mut Netlink, port: &Port, index: u32) -> anyhow::Result<()> {
    let Some(wanted) = &port.settings else { return Ok(()) };
    // Read now: joining the bridge has reset them.
    let present = nl.port_settings(index)?.unwrap_or_default();
    let change = wanted.beyond(&present);
    if !change.is_empty() {
        nl.set_port_settings(index, &change)?;
    }
    Ok(())
}

fn apply_vlans(nl: &mut Netlink, port: &Port, index: u32) -> anyhow::Result<()> {
    let Some(wanted) = &port.vlans else { return Ok(()) };
    let present = nl.port_vlans()?.remove(&index).unwrap_or_default();
    Ok(nl.set_port_vlans(index, &present, wanted)?)
}

fn set_up(nl: &mut Netlink, link: &Link) -> anyhow::Result<()> {
    if !link.up {
        nl.set_up(link.index, true)?;
    }
    Ok(())
}

/// The link that a port was recorded as; none if it is gone. Name and index must both agree: each
/// alone may belong to another link by now, and one that is not ours is not touched.
fn own_link(nl: &mut Netlink, port: &Port) -> anyhow::Result<Option<Link>> {
    match nl.link_by_index(port.host_index) {
        Ok(link) => Ok(Some(link).filter(|l| l.name == port.host && is_veth(l))),
        Err(Error::NotFound) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The recorded ports as they are after a restore: the host's ends have other indexes and perhaps
/// other names, the bridge and its settings are those of the record. An interface is the same by
/// its name in the container, or by its index there. Recorded ports that lead nowhere now are left
/// out.
pub fn match_restored(
    nl: &mut Netlink,
    container_netns: BorrowedFd<'_>,
    recorded: &[Port],
) -> anyhow::Result<Vec<Port>> {
    let present = find(nl, container_netns)?;
    Ok(matched(&present, recorded))
}

fn matched(present: &[Port], recorded: &[Port]) -> Vec<Port> {
    let mut ports = Vec::new();
    for old in recorded {
        let by_name = present.iter().find(|p| p.inside == old.inside);
        // By index only where no name says otherwise: the index may have gone to a new interface.
        let by_index = || {
            present.iter().find(|p| {
                old.inside_index != 0
                    && p.inside_index == old.inside_index
                    && !recorded.iter().any(|r| r.inside == p.inside)
            })
        };
        if let Some(new) = by_name.or_else(by_index) {
            ports.push(Port {
                host: new.host.clone(),
                host_index: new.host_index,
                inside: new.inside.clone(),
                inside_index: new.inside_index,
                ..old.clone()
            });
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(inside: &str, inside_index: u32, host: &str, host_index: u32) -> Port {
        Port { inside_index, host: host.into(), host_index, ..Port::unrecorded(inside) }
    }

    #[test]
    fn restored_ports_are_matched_by_name_then_by_index() {
        let recorded = [
            Port { bridge: Some("br0".into()), ..port("eth0", 2, "vethA", 10) },
            port("eth1", 3, "vethB", 11),
            port("eth2", 4, "vethC", 12),
        ];
        let present = [port("renamed", 3, "vethX", 20), port("eth0", 7, "vethY", 21)];
        let found = matched(&present, &recorded);
        assert_eq!(
            found,
            [
                Port { bridge: Some("br0".into()), ..port("eth0", 7, "vethY", 21) },
                port("renamed", 3, "vethX", 20),
            ]
        );
    }

    #[test]
    fn an_index_does_not_outweigh_a_name() {
        let recorded = [port("eth0", 2, "vethA", 10), port("eth1", 3, "vethB", 11)];
        // eth1 sits where eth0 was; eth0 is not there.
        assert_eq!(
            matched(&[port("eth1", 2, "vethY", 21)], &recorded),
            [port("eth1", 2, "vethY", 21)]
        );
    }
}
