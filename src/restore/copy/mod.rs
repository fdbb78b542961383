//! A checkpoint that is restored under another name: a copy, beside the original or in its place.
//!
//! Most of a restore asks the record what the container had of the host. So a copy gets a record of
//! its own, as if the checkpoint had been one of the copy ([`record`]): its root, its ports, its
//! mounts. What the record cannot say stands in CRIU's images, and CRIU is shown others: the host
//! name, hardware addresses, addresses of IP with the routes and sockets that bear them
//! ([`network`]). What the copy's own configuration says counts; what it does not say comes from
//! the checkpoint, but for what there can be only once: hardware addresses, names of links,
//! cgroups.

mod network;
mod record;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::criu::images::{self, NamespaceIds, Readdressed, Shown};
use crate::error::{Exit, Failure};
use crate::lxc::config::Config;
use crate::lxc::config::system::DEFAULT_LXCPATH;
use crate::lxc::container;
use crate::lxc::definition::{self, Defined};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::resources::apparmor::Profile;
use crate::resources::network::Port;
use crate::resources::network::interfaces::{self, Device};
use crate::resources::rootfs::Root;
use crate::store::record::{Container, Record};
use crate::sys::netlink::{Mac, Netlink};

use network::Interface;

/// What makes a copy another container than its original.
#[derive(Debug)]
pub(super) struct Copy {
    /// Whose checkpoint it is.
    pub original: Container,
    hostname: Option<String>,
    interfaces: Vec<Interface>,
    /// Its addresses.
    network: Readdressed,
    /// The profile that LXC has made up for the original, and that of the copy.
    profiles: Option<(Profile, Profile)>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What a copy takes for itself on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The interface in the container.
    pub inside: String,
    /// The N of `lxc.net.N`, where the configuration has the interface.
    pub nic: Option<u32>,
    /// The bridge that it is on.
    pub bridge: Option<String>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its addresses, but for those that mean something on the link alone.
    pub addresses: Vec<IpAddr>,
}

impl Copy {
    /// The copy that a checkpoint becomes in a container of another name, and its record. None for
    /// the container's own.
    pub(super) fn of(
        record: &Record,
        defined: &Defined,
        images: &Path,
        netlink: &mut Netlink,
    ) -> Result<Option<(Copy, Record)>> {
        let original = &record.container;
        if original.name == defined.name.as_str() {
            return Ok(None);
        }
        let mut interfaces = network::interfaces(record, defined, netlink)?;
        let network = network::readdressed(images, &mut interfaces)
            .context("read the container's addresses")?;
        let adopted = record::adopted(record, defined, &interfaces)?;
        let mut copy = Copy {
            original: original.clone(),
            hostname: defined.config.uts_name().map(str::to_owned),
            interfaces,
            network,
            profiles: record.profile.clone().zip(adopted.record.profile.clone()),
            notes: Vec::new(),
        };
        copy.notes = copy.worth_knowing(&adopted.shared);
        Ok(Some((copy, adopted.record)))
    }

    fn worth_knowing(&self, shared: &[PathBuf]) -> Vec<String> {
        let original = &self.original.name;
        let mut notes: Vec<String> = Vec::new();
        for claim in self.claims() {
            let kept: Vec<String> = claim
                .addresses
                .iter()
                .filter(|ip| self.network.before.iter().any(|a| a.ip == **ip))
                .map(|ip| ip.to_string())
                .collect();
            if let (false, Some(nic)) = (kept.is_empty(), claim.nic) {
                notes.push(format!(
                    "its {} has the address of {original}, {}; lxc.net.{nic}.ipv4.address or \
                     .ipv6.address gives it another",
                    claim.inside,
                    kept.join(" and ")
                ));
            }
        }
        notes.extend(shared.iter().map(|path| {
            format!("{} is mounted in {original}, too, and both can write to it", path.display())
        }));
        notes.extend(self.network.lost.iter().map(|ip| {
            format!("routes by {ip} are left out: it cannot be reached from the new address")
        }));
        notes
    }

    /// What it takes for itself on the network.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let claims = self.interfaces.iter().map(|interface| {
            let own = self
                .network
                .after
                .iter()
                .filter(|a| Some(a.interface) == interface.index)
                .map(|a| a.ip);
            let of_the_link =
                |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            Claim {
                inside: interface.inside.clone(),
                nic: interface.nic,
                bridge: interface.bridge.clone(),
                mac: interface.mac,
                addresses: own.filter(|ip| !of_the_link(ip)).collect(),
            }
        });
        claims.collect()
    }

    /// What became of addresses of the original.
    pub(super) fn moved(&self, ip: IpAddr) -> Option<IpAddr> {
        self.network.moved.get(&ip).copied()
    }

    /// Shows CRIU the copy's host name, addresses and labels.
    pub(super) fn show(&self, shown: &mut Shown) -> Result<(), images::Error> {
        if let Some((original, own)) = &self.profiles {
            images::relabel(shown, |label| own.relabelled(original, label))?;
        }
        shown.put(self.network.images.iter().cloned());
        let ids = NamespaceIds::of_task(shown.dir(), images::root_of_tree(shown.dir())?)?;
        if let (Some(name), Some(utsns)) = (&self.hostname, ids.uts) {
            let changed = shown.change(&images::uts_file_name(utsns), |path, bytes| {
                images::with_hostname(path, bytes, name)
            });
            match changed {
                // It shares the host's.
                Err(e) if e.is_not_found() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The hardware address of an interface.
    pub(super) fn mac_of(&self, inside: &str) -> Option<Mac> {
        self.interfaces.iter().find(|i| i.inside == inside)?.mac
    }

    /// Shows CRIU the copy's hardware addresses, in what it is shown of the interfaces.
    pub(super) fn show_macs(&self, shown: &mut Shown, image: &str) -> Result<(), images::Error> {
        let mac = |name: &str| self.mac_of(name).map(|mac| mac.0);
        shown.change(image, |path, bytes| images::with_macs(path, bytes, mac))
    }

    /// The copy in words, for `--dry-run`.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut lines = vec![format!("it is a copy of {}", self.original.name)];
        for Claim { inside, mac, addresses, .. } in self.claims() {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            let mac = mac.map_or_else(String::new, |mac| format!("the hardware address {mac}"));
            let has: Vec<String> =
                [mac].into_iter().filter(|mac| !mac.is_empty()).chain(addresses).collect();
            lines.push(format!("{inside} has {}", has.join(" and ")));
        }
        lines
    }
}

/// The failure for a container that is not defined. Where the checkpoint is another one's, the hint
/// tells how to make it.
pub(super) fn not_defined(
    error: definition::Error,
    name: &ContainerName,
    lxcpath: &LxcPath,
    images: &Path,
) -> Failure {
    let missing = matches!(error, definition::Error::NotDefined(_));
    let failure = crate::preflight::entry::not_defined(error);
    match Record::read(images) {
        Ok(Some(record)) if missing && record.container.name != name.as_str() => {
            failure.hint(how_to_make(&record.container, name, lxcpath, images))
        }
        _ => failure,
    }
}

fn how_to_make(
    original: &Container,
    name: &ContainerName,
    lxcpath: &LxcPath,
    images: &Path,
) -> String {
    let other = |option: &str, path: &Path| match path == Path::new(DEFAULT_LXCPATH) {
        true => String::new(),
        false => format!(" {option} {}", path.display()),
    };
    let from = other("-P", &original.lxcpath);
    let to = if original.lxcpath == lxcpath.as_path() {
        String::new()
    } else {
        other("-p", lxcpath.as_path())
    };
    let of = &original.name;
    let make = format!("lxc-copy -n {of} -N {name}{from}{to}");
    let restart =
        format!("lxc-restart -n {name} -D {}{}", images.display(), other("-P", lxcpath.as_path()));
    let running = container::find(
        &original.lxcpath.to_string_lossy(),
        of,
        container::Marks::root(Some(&original.rootfs)),
    );
    match running {
        Ok(Some(_)) => format!(
            "make it of {of}, suspended, so that the root is that of the checkpoint: \
             lxc-checkpoint -n {of}{from} && {make} && lxc-restart -n {of}{from} && lxc-restart -n \
             {name}{} -D {}",
            other("-P", lxcpath.as_path()),
            original.lxcpath.join(of).join("dump").display(),
        ),
        _ => format!("make it of {of}, whose checkpoint this is: {make} && {restart}"),
    }
}

/// Connections would be claimed by both.
pub(super) fn refuse_connections(original: &str, open: &[std::net::SocketAddr]) -> Failure {
    let first = open.first().map(ToString::to_string).unwrap_or_default();
    let what = match open.len() {
        1 => format!("a TCP connection with {first}"),
        number => format!("{number} TCP connections with others, as {first}"),
    };
    Failure::msg(
        Exit::Refused,
        format!("it had {what}, which a copy of {original} cannot have, too"),
    )
    .hint("let the copy begin without: lxc-restart --tcp-close")
}

/// The ports of a copy: their names and hardware addresses are its own.
fn own_ports(ports: &[Port], interfaces: &[Interface]) -> Vec<Port> {
    let own = ports.iter().map(|port| {
        let interface = interfaces.iter().find(|i| i.inside == port.inside);
        let host = interface
            .and_then(|i| i.host.clone())
            .filter(|host| *host != port.host)
            .unwrap_or_default();
        let mac_inside = interface.and_then(|i| i.mac);
        Port { host, host_index: 0, mac_host: None, mac_inside, ..port.clone() }
    });
    own.collect()
}

/// The other interfaces of a copy: upon which of the host's they sit, or which of the host's they
/// are, its own configuration says.
fn own_devices(recorded: &[Device], defined: &Defined) -> Vec<Device> {
    let configured = interfaces::of_config(&defined.config);
    let own =
        recorded.iter().map(|device| match configured.iter().find(|c| c.inside == device.inside) {
            Some(other) => Device { from: other.from.clone(), ..device.clone() },
            None => device.clone(),
        });
    own.collect()
}

/// Refuses a root that the running original writes to.
pub(super) fn refuse_root_in_use(record: &Record, defined: &Defined) -> crate::error::Result<()> {
    let original = &record.container;
    if original.name == defined.name.as_str() || !shares_the_root(original, defined) {
        return Ok(());
    }
    let lxcpath = original.lxcpath.to_string_lossy();
    match container::find(&lxcpath, &original.name, container::Marks::root(Some(&original.rootfs)))?
    {
        None => Ok(()),
        Some(_) => {
            let text = format!("its root is that of {}, which is running", original.name);
            Err(Failure::msg(Exit::Refused, text)
                .hint("give it a root of its own: lxc.rootfs.path"))
        }
    }
}

/// Whether what a container writes to its root goes to that of another one, which is still defined.
pub(super) fn shares_the_root(original: &Container, defined: &Defined) -> bool {
    let id = |root: Option<Root>| {
        let root = root?;
        let written = root.paths().last().and_then(|path| fs::metadata(path).ok())?;
        Some((written.dev(), written.ino()))
    };
    let own = original.lxcpath.join(&original.name).join("config");
    let config = Config::load(&own).ok();
    let theirs = config.and_then(|config| Root::named(&config.rootfs()?).ok());
    theirs.is_some() && id(theirs) == id(Root::of(defined).ok())
}
