//! Makes what a [`plan`](super::plan) says.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::BorrowedFd;

use anyhow::{Context, bail};

use super::Port;
use super::plan::NewPort;
use super::ports::{VETH, placeholder_mac};
use crate::error::ErrorList;
use crate::resources::network::sysctl;
use crate::sys::netlink::{Error, Mac, Netlink, NewVeth, Route, in_netns};

/// Makes the veth pairs of a plan, off their bridges, and gives the ports as [`unlock`] wants them.
/// The inner ends are born in the container's network namespace: to move one there later takes some
/// 40 ms, for the kernel waits until nobody uses it any more.
///
/// The host's end is up from the start: the interface in the container then has its carrier when
/// CRIU restores routes on it, and no wait for it follows the unlock. Nothing can pass yet, for the
/// port is on no bridge. `before_each` is called before a pair is made, so that its undo
/// ([`remove`]) is on disk first. When one cannot be made, those made here are deleted again.
///
/// [`unlock`]: super::ports::unlock
pub fn create(
    nl: &mut Netlink,
    plan: &[NewPort],
    container: BorrowedFd<'_>,
    before_each: &mut dyn FnMut(&NewPort) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Port>> {
    if super::ports::is_own_namespace(container)
        .context("inspect the container's network namespace")?
    {
        bail!("the container has no network namespace of its own");
    }
    let mut made = Vec::new();
    for new in plan {
        let outcome = before_each(new).and_then(|()| Ok(nl.create_veth(&pair(new, container))?));
        match outcome {
            Ok(index) => {
                made.push(Port { host: new.host.clone(), host_index: index, ..new.port.clone() })
            }
            Err(cause) => {
                let mut errors = ErrorList::default();
                errors.note::<()>(Err(
                    cause.context(format!("make {} for {}", new.host, new.port.inside))
                ));
                for port in made.iter().rev() {
                    errors.note(
                        nl.delete_link(port.host_index)
                            .with_context(|| format!("delete {}", port.host)),
                    );
                }
                return errors.into_result().map(|()| Vec::new());
            }
        }
    }
    Ok(made)
}

fn pair<'a>(new: &NewPort, container: BorrowedFd<'a>) -> NewVeth<'a> {
    let port = &new.port;
    NewVeth {
        host_name: new.host.clone(),
        inner_name: port.inside.clone(),
        mtu: Some(port.mtu),
        host_mac: port.mac_host,
        inner_mac: port.mac_inside,
        host_txqueuelen: port.txqueuelen_host,
        inner_txqueuelen: port.txqueuelen_inside,
        host_queues: port.state.as_ref().and_then(|state| state.queues),
        inner_queues: port.queues_inside,
        inner_index: Some(port.inside_index).filter(|i| *i != 0),
        inner_netns: Some(container),
        // Else it gets there with its settings.
        host_up: port.state.is_none(),
        controller: None,
    }
}

/// Gives a container back its routes in tables of their own, when its interfaces have their
/// addresses.
///
/// # Errors
/// All that could not be added.
pub fn add_routes(container: BorrowedFd<'_>, routes: &[Route]) -> anyhow::Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let mut errors = ErrorList::default();
    let outcome = in_netns(container, || {
        let mut theirs = Netlink::open()?;
        for route in routes {
            errors.note(theirs.add_route(route).context("add a route of a table of its own"));
        }
        Ok(())
    });
    errors.note(outcome.and_then(|done| done).context("add routes"));
    errors.into_result()
}

/// Tells everybody on the bridges where a container's addresses are now: who has known them under
/// another hardware address would send there until he asks again. The kernel does it when an
/// interface is given a hardware address, be it the one that it has (net/ipv4/devinet.c,
/// `inetdev_event`; net/ipv6/ndisc.c, `ndisc_netdev_event`).
pub fn announce(container: BorrowedFd<'_>, ports: &[Port]) -> anyhow::Result<()> {
    let wish = |port: &Port| {
        ["ipv4/conf/IF/arp_notify", "ipv6/conf/IF/ndisc_notify"]
            .map(|n| (n.replace("IF", &port.inside), "1".to_owned()))
    };
    let settings = ports.iter().flat_map(wish).collect();
    let outcome = sysctl::meanwhile(container, &settings, || -> Result<(), Error> {
        let mut theirs = Netlink::open()?;
        for port in ports {
            let link = theirs.link(&port.inside)?;
            if let Some(mac) = link.mac.filter(|_| link.up) {
                theirs.set_mac(link.index, mac)?;
            }
        }
        Ok(())
    });
    outcome.and_then(|done| Ok(done?)).context("announce the container's addresses")
}

/// Undoes [`create`] for one pair, known by the name of its host's end and the MAC that the plan
/// gave it; fine if it is gone. A link of this name that is no veth or has another MAC is not ours:
/// the undo is noted before the pair is made, and someone may have taken the name first. One that
/// is locked is in disguise: so it is when a container ends by its checkpoint, and a connection
/// that is being closed in it keeps its namespace and with that the pair. Says whether it was
/// there.
pub fn remove(nl: &mut Netlink, host: &str, mac: Mac) -> anyhow::Result<bool> {
    let link = match nl.link(host) {
        Ok(link) => link,
        Err(Error::NotFound) => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("find {host}")),
    };
    let known = [mac, placeholder_mac(link.index)];
    if link.kind.as_deref() != Some(VETH) || !link.mac.is_some_and(|mac| known.contains(&mac)) {
        log::warn!("{host} is another link by now and is not deleted");
        return Ok(false);
    }
    match nl.delete_link(link.index) {
        Ok(()) | Err(Error::NotFound) => Ok(true),
        Err(e) => Err(e).with_context(|| format!("delete {host}")),
    }
}

/// Random numbers for the names of a plan.
pub fn random_numbers() -> impl Iterator<Item = u64> {
    // The standard library's hash keys come from the kernel's random numbers; good enough for
    // names.
    std::iter::repeat_with(|| RandomState::new().build_hasher().finish())
}
