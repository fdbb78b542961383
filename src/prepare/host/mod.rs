//! `lxc-cr prepare --host`: the host gets what checkpoints need.
//!
//! What is looked at, each with what would be changed: cgroups ([`cgroups`]), the bridge
//! ([`bridge`]), the kernel's modules ([`modules`]), ranges of ids ([`ids`]); kernel and programs
//! ([`tools`]) are only looked at. What is written to files counts from the next boot on; the same
//! is done to the running host at once ([`apply`](mod@apply)), but for what could cut it off.
//!
//! The interface over which the host's default route goes is left alone unless the user names it.
//! Then only files are written: the user chooses the moment.

mod apply;
pub(crate) mod bridge;
mod cgroups;
mod ids;
mod ifupdown;
mod modules;
mod root;
pub(crate) mod spec;
mod tools;

use std::path::Path;

use anyhow::Context;

use self::bridge::Manager;
pub use self::root::Root;
use self::tools::Tools;
use super::change::Change;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::config::{Config, NicKind};
use crate::preflight::{Finding, Findings};
use crate::prepare::host::apply::Action;
use crate::prepare::host::spec::{Address, BridgeSpec, Cidr};
use crate::prepare::undo::{Kept, Undone};
use crate::rollback::holder::Command;
use crate::rollback::lock::Operation;
use crate::settings::Settings;
use crate::sys::files;
use crate::sys::netlink::{Error, Link, Mac, Netlink};

/// What is kept to take the host's preparation back, and a lock.
const STATE: &str = "/var/lib/lxc-cr";
const KEPT: &str = "prepare";

/// What the running network has of the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// There is a link of its name; it is a bridge and up.
    pub bridge: Option<(bool, bool)>,
    /// The port that is wished for: its hardware address, whether a default route goes over it, and
    /// whether it is on the bridge.
    pub port: Option<Port>,
    /// The networks in which other links have an address, each with the name of the link.
    pub networks: Vec<(String, Cidr)>,
}

/// An interface that shall be a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Whether the host's default route goes over it.
    pub default_route: bool,
    /// Whether it is on the bridge already.
    pub on_bridge: bool,
}

/// What was found, and what is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is not as it should be.
    pub findings: Findings,
    /// Files.
    pub changes: Vec<Change>,
    /// What is done to the running host.
    deeds: Vec<Action>,
    /// What is to be said when it is done.
    pub advice: Vec<String>,
}

/// The bridge that LXC's own service makes, and that service.
const LXC_BRIDGE: &str = "lxcbr0";
const LXC_NET: [&str; 2] =
    ["usr/lib/systemd/system/lxc-net.service", "lib/systemd/system/lxc-net.service"];
/// What LXC puts into the configurations of new containers.
const DEFAULT_CONFIG: &str = "/etc/lxc/default.conf";

/// The bridge that is meant where none is named: that of the settings if it is there, else that
/// which new containers are put on.
///
/// # Errors
/// When the links cannot be listed.
pub(crate) fn default_bridge(settings: &Settings) -> Result<String> {
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let links = netlink.links().context("list the links")?;
    if links.iter().any(|link| link.name == settings.bridge) {
        return Ok(settings.bridge.clone());
    }
    let config = Config::load(Path::new(DEFAULT_CONFIG)).ok();
    let named = config.and_then(|config| {
        let mut veths = config.nics().iter().filter(|nic| nic.kind == NicKind::Veth);
        veths.find_map(|nic| nic.link.clone())
    });
    Ok(named.unwrap_or_else(|| settings.bridge.clone()))
}

impl Network {
    fn taken(&self) -> Vec<Cidr> {
        self.networks.iter().map(|(_, cidr)| *cidr).collect()
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_nothing(&self) -> bool {
        self.changes.is_empty() && self.deeds.is_empty()
    }

    /// What is done to the running host, in words.
    pub fn deeds(&self) -> Vec<String> {
        self.deeds.iter().map(ToString::to_string).collect()
    }
}

/// Looks at this host.
pub(crate) fn look(spec: &BridgeSpec, settings: &Settings) -> Result<Plan> {
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let network = network(&mut netlink, spec)?;
    let loopback_up = netlink.link("lo").is_ok_and(|lo| lo.up);
    let tools = Tools::read(settings, loopback_up).judge();
    plan(&Root::new(Path::new("/")), spec, &network, tools)
}

fn network(netlink: &mut Netlink, spec: &BridgeSpec) -> Result<Network> {
    let mut find = |name: &str| match netlink.link(name) {
        Ok(link) => Ok(Some(link)),
        Err(Error::NotFound) => Ok(None),
        Err(e) => {
            Err(Failure::new(Exit::Other, anyhow::Error::new(e).context(format!("stat {name}"))))
        }
    };
    let bridge = find(&spec.bridge)?;
    let port = match &spec.port {
        Some(name) => Some(find(name)?.ok_or_else(|| {
            Failure::msg(Exit::Usage, format!("there is no interface {name}"))
                .hint("ip link shows those that there are")
        })?),
        None => None,
    };
    let defaults = netlink.default_links().context("list the routes")?;
    let bridge_index = bridge.as_ref().map(|b| b.index);
    let is_bridge = |link: &Link| link.kind.as_deref() == Some("bridge");
    let links = netlink.links().context("list the links")?;
    let networks = netlink.networks().context("list the addresses")?;
    let of_others = networks.into_iter().filter(|(index, ..)| Some(*index) != bridge_index);
    let networks = of_others.filter_map(|(index, address, prefix)| {
        let link = links.iter().find(|link| link.index == index)?;
        // What moves to the bridge with its port.
        let moves = spec.port.as_ref() == Some(&link.name);
        (!moves).then(|| (link.name.clone(), Cidr { address, prefix }))
    });
    let networks = networks.collect();
    Ok(Network {
        networks,
        bridge: bridge.as_ref().map(|link| (is_bridge(link), link.up)),
        port: port.map(|link| Port {
            mac: link.mac,
            default_route: defaults.contains(&link.index),
            on_bridge: link.controller.is_some() && link.controller == bridge_index,
        }),
    })
}

/// Plans, of what is found below a root, what the network has, and what else was found. Pure but
/// for reading there.
pub fn plan(
    root: &Root,
    spec: &BridgeSpec,
    network: &Network,
    tools: Vec<Finding>,
) -> Result<Plan> {
    check(spec, network)?;
    let mut findings = tools;
    let mut plan = Plan::default();
    let cgroups = cgroups::plan(root)?;
    findings.extend(cgroups.findings);
    plan.changes.extend(cgroups.changes);
    plan.deeds.extend(cgroups.mount.then_some(Action::MountCgroups));
    plan.deeds.extend(cgroups.controllers.map(|(file, names)| Action::HandOn { file, names }));
    let (more, changes, modules) = modules::plan(root)?;
    findings.extend(more);
    plan.changes.extend(changes);
    if !modules.is_empty() {
        plan.deeds.push(Action::Load(modules));
    }
    let (more, changes) = ids::plan(root)?;
    findings.extend(more);
    plan.changes.extend(changes);
    plan_bridge(root, spec, network, &mut findings, &mut plan)?;
    plan.findings = Findings::new(findings);
    Ok(plan)
}

/// What cannot be wished for.
fn check(spec: &BridgeSpec, network: &Network) -> Result<()> {
    let wrong = |text: String, hint: &str| Err(Failure::msg(Exit::Usage, text).hint(hint));
    let bridge = &spec.bridge;
    if network.bridge.is_some_and(|(is_bridge, _)| !is_bridge) {
        return wrong(
            format!("{bridge} is an interface, but not a bridge"),
            "choose another name: --bridge NAME",
        );
    }
    if spec.port.as_ref() == Some(bridge) {
        return wrong(
            format!("{bridge} cannot be its own port"),
            "name an interface of the host: --port IFACE",
        );
    }
    if let Some(Address::Fixed(cidr)) = &spec.address
        && let Some((link, other)) = network.networks.iter().find(|(_, it)| it.overlaps(cidr))
    {
        let taken = network.taken();
        let spec = BridgeSpec { address: None, ..spec.clone() };
        return wrong(
            format!("the network of {cidr} is on {link} already, which has {other}"),
            &format!("use {link}, if it is a bridge, or another network: {}", spec.options(&taken)),
        );
    }
    if let Some(gateway) = spec.gateway
        && !matches!(
            &spec.address,
            Some(Address::Fixed(cidr)) if cidr.address.is_ipv4() == gateway.is_ipv4()
        )
    {
        return wrong(
            "a gateway needs an address of the same kind".to_owned(),
            "add --address ADDRESS/PREFIX",
        );
    }
    if let (Some(port), Some(found)) = (&spec.port, network.port)
        && found.default_route
        && (spec.address.is_none()
            || matches!(spec.address, Some(Address::Fixed(_))) && spec.gateway.is_none())
    {
        return wrong(
            format!("the host's default route goes over {port}: on a bridge it would have none"),
            "say what the bridge gets instead: --address dhcp, or --address ADDRESS/PREFIX \
             --gateway ADDRESS",
        );
    }
    Ok(())
}

fn plan_bridge(
    root: &Root,
    spec: &BridgeSpec,
    network: &Network,
    findings: &mut Vec<Finding>,
    plan: &mut Plan,
) -> Result<()> {
    let bridge = &spec.bridge;
    let remedy = format!("lxc-cr prepare --host --apply {}", spec.options(&network.taken()));
    let is_up = network.bridge.is_some_and(|(_, up)| up);
    let ours = [
        "etc/systemd/network/05-lxc-cr-",
        "etc/NetworkManager/system-connections/lxc-cr-",
        "etc/network/interfaces.d/lxc-cr-",
    ];
    let defined = bridge::defined(root, bridge);
    if let Some(file) = defined.filter(|file| !ours.iter().any(|ours| file.starts_with(ours))) {
        if !is_up {
            let what = format!("the bridge {bridge} is in /{file}, but not up");
            findings.push(
                Finding::warning(what, "containers that name it do not start")
                    .remedy("reconfigure the network"),
            );
        }
        if spec.address.is_some() || spec.port.is_some() {
            return Err(Failure::msg(Exit::Usage, format!("/{file} makes {bridge} already"))
                .hint("change that file, or choose another name: --bridge NAME"));
        }
        return Ok(());
    }
    let asks_nothing = spec.address.is_none() && spec.port.is_none();
    if bridge == LXC_BRIDGE && LXC_NET.iter().any(|unit| root.has(unit)) && asks_nothing {
        if !is_up {
            findings.push(
                Finding::warning(
                    format!("there is no bridge {bridge}"),
                    "LXC's own service makes it, and does not run",
                )
                .remedy("systemctl enable --now lxc-net"),
            );
        }
        return Ok(());
    }
    let Some(manager) = Manager::find(root) else {
        let why =
            "neither systemd-networkd, NetworkManager nor ifupdown looks after this host's network";
        if !is_up {
            findings
                .push(Finding::warning(format!("there is no bridge {bridge}"), why).remedy(remedy));
            plan.deeds.push(make_bridge(spec, network));
        } else {
            findings
                .push(Finding::note(format!("the bridge {bridge} is gone after a reboot"), why));
        }
        return Ok(());
    };
    // Who wishes for nothing new leaves what is there as it is.
    let made = bridge::defined(root, bridge).is_some();
    let changes = if made && spec.address.is_none() && spec.port.is_none() {
        Vec::new()
    } else {
        manager.files(
            root,
            spec,
            network.port.and_then(|p| p.mac).filter(|_| spec.address == Some(Address::Dhcp)),
        )?
    };
    match (is_up, changes.is_empty()) {
        (false, _) => findings.push(
            Finding::warning(
                format!("there is no bridge {bridge}"),
                "containers have their network over one",
            )
            .remedy(remedy),
        ),
        (true, false) => findings.push(
            Finding::note(
                format!("the bridge {bridge} would not come back as configured after a reboot"),
                format!("{} has no file of it, or another one", manager.name()),
            )
            .remedy(remedy),
        ),
        (true, true) => {}
    }
    let waits =
        network.port.is_some_and(|p| p.default_route) || spec.address == Some(Address::Dhcp);
    if waits && !changes.is_empty() {
        plan.advice.push(format!(
            "{bridge} is made at the next boot. To make it now, which may cut connections: {}",
            manager.reload(spec)
        ));
    } else if !is_up || !changes.is_empty() {
        plan.deeds.push(make_bridge(spec, network));
    }
    plan.changes.extend(changes);
    Ok(())
}

fn make_bridge(spec: &BridgeSpec, network: &Network) -> Action {
    let address = match spec.address {
        Some(Address::Fixed(cidr)) => Some(cidr),
        _ => None,
    };
    let port = spec.port.clone().filter(|_| network.port.is_some_and(|p| !p.on_bridge));
    Action::Bridge { name: spec.bridge.clone(), address, port }
}

/// Does it, and tells what. If something fails, all of it is taken back.
pub(crate) fn apply(plan: &Plan) -> Result<Vec<String>> {
    let _held = hold()?;
    let mut kept = open_kept()?;
    let first = kept.len();
    let done = plan.changes.iter().try_for_each(|change| kept.change(change)).and_then(|()| {
        plan.deeds.iter().map(|action| action.do_it(&mut kept)).collect::<anyhow::Result<Vec<_>>>()
    });
    match done {
        Ok(told) => Ok(told.concat()),
        Err(e) => {
            let undone = kept.undo_from(first).or_exit(Exit::RollbackIncomplete)?;
            let (exit, state) = match undone.left.is_empty() {
                true => (Exit::Other, "the host is as before".to_owned()),
                false => (Exit::RollbackIncomplete, undone.left.join("; ")),
            };
            Err(Failure::new(exit, e).state(state))
        }
    }
}

/// Takes all back.
pub(crate) fn undo() -> Result<Undone> {
    if !Path::new(STATE).exists() {
        return Ok(Undone::default());
    }
    let _held = hold()?;
    Ok(open_kept()?.undo()?)
}

/// One at a time.
fn hold() -> Result<Operation> {
    files::make_private_dir(Path::new(STATE)).or_exit(Exit::Refused)?;
    Operation::begin_in(Path::new(STATE), Command::PrepareHost)
        .map_err(|e| Failure::new(Exit::Busy, e))
}

fn open_kept() -> Result<Kept> {
    Kept::open(None, &Path::new(STATE).join(KEPT)).or_exit(Exit::Refused)
}
