//! The part of a plan that is about the container's network.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::criu::images::{self, NamespaceIds, Shown};
use crate::lxc::config::{Config, NicKind};
use crate::resources::network::inside::{self, Inside};
use crate::resources::network::interfaces::Device;
use crate::resources::network::sysctl::Sysctls;
use crate::resources::network::{Port, lxc_defaults};
use crate::restore::copy::Copy;
use crate::settings::Settings;
use crate::store::record::Record;
use crate::sys::netlink::{Mac, Netlink};

/// Gives host's ends of which nothing was recorded what LXC gives them, and those of a copy what
/// goes with its addresses.
pub(super) fn complete(
    ports: &mut [Port],
    config: &Config,
    copy: Option<&Copy>,
    netlink: &mut Netlink,
) -> Result<()> {
    for port in ports {
        let nics = config.nics().iter().filter(|n| n.kind == NicKind::Veth);
        let nic = nics.into_iter().find(|n| n.name_inside() == port.inside);
        port.state = match (port.state.take(), nic, copy) {
            (Some(state), _, Some(copy)) => Some(state.readdressed(&|ip| copy.moved(ip))),
            (None, Some(nic), _) => Some(lxc_defaults::unrecorded(nic, netlink)?),
            (state, _, _) => state,
        };
    }
    Ok(())
}

/// The image of interfaces, in which those that we make are marked as there. Ports whose interface
/// is not in the checkpoint are dropped, and the others learn their index.
pub(super) fn interfaces(
    images: &Path,
    ports: &mut Vec<Port>,
    devices: &mut Vec<Device>,
) -> Result<Option<(String, Vec<u8>)>, images::Error> {
    let root = images::root_of_tree(images)?;
    let Some(netns) = NamespaceIds::of_task(images, root)?.net else {
        ports.clear();
        devices.clear();
        return Ok(None);
    };
    let found = match images::interfaces(images, netns) {
        Ok(found) => found,
        // It was in the host's namespace.
        Err(e) if e.is_not_found() => Vec::new(),
        Err(e) => return Err(e),
    };
    ports.retain_mut(|port| match found.iter().find(|i| i.veth && i.name == port.inside) {
        Some(interface) => {
            port.inside_index = interface.index;
            true
        }
        None => false,
    });
    devices.retain_mut(|device| match found.iter().find(|i| i.name == device.inside) {
        Some(interface) => {
            device.inside_index = interface.index;
            device.mac = interface.mac.map(Mac);
            true
        }
        None => false,
    });
    let ready = |name: &str| {
        ports.iter().any(|p| p.inside == name) || devices.iter().any(|d| d.inside == name)
    };
    if !found.iter().any(|i| ready(&i.name)) {
        return Ok(None);
    }
    let content = images::with_ready_made(images, netns, ready)?;
    Ok(Some((images::netdev_file_name(netns), content)))
}

/// What is in the container's network namespace, if we can bring it back.
pub(super) fn inside(
    shown: &Shown,
    record: Option<&Record>,
    ports: &[Port],
) -> Result<Option<(Inside, Sysctls)>, images::Error> {
    let settings = record.and_then(|r| r.interface_settings.clone());
    match netns(shown.dir())?.zip(settings) {
        // With the host's own there is no image.
        Some((netns, settings)) if !ports.is_empty() => {
            Ok(inside::of_checkpoint(shown, netns, ports)?.map(|inside| (inside, settings)))
        }
        _ => Ok(None),
    }
}

/// The number of init's network namespace in the images.
pub(super) fn netns(images: &Path) -> Result<Option<u32>, images::Error> {
    Ok(NamespaceIds::of_task(images, images::root_of_tree(images)?)?.net)
}

/// The interfaces that the configuration gives a container of which nothing was recorded.
pub(super) fn ports_of(config: &Config) -> Vec<Port> {
    config
        .nics()
        .iter()
        .filter(|nic| nic.kind == NicKind::Veth)
        .map(|nic| {
            let mut port = Port::unrecorded(nic.name_inside());
            port.host = nic.veth_pair.clone().unwrap_or_default();
            port.bridge = nic.link.clone().filter(|_| !lxc_defaults::is_routed(nic));
            port
        })
        .collect()
}

/// The bridge of each interface of which there is more to say than what was recorded: what the
/// configuration says now.
pub(super) fn bridges_of(
    config: &Config,
    record: Option<&Record>,
    settings: &Settings,
) -> BTreeMap<String, Option<String>> {
    let mut bridges = BTreeMap::new();
    for nic in config.nics().iter().filter(|n| n.kind == NicKind::Veth) {
        let name = nic.name_inside();
        match (&nic.link, record) {
            _ if lxc_defaults::is_routed(nic) => drop(bridges.insert(name, None)),
            (Some(link), _) => drop(bridges.insert(name, Some(link.clone()))),
            // Where a script had put it, if it was on a bridge.
            (None, Some(_)) => {}
            (None, None) => drop(bridges.insert(name, Some(settings.bridge.clone()))),
        }
    }
    bridges
}
