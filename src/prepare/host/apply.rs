//! What is done to the running host, each with its undo noted before.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use super::cgroups::MOUNT_POINT;
use crate::prepare::host::spec::Cidr;

use crate::prepare::undo::{Kept, Step};
use crate::sys::child;
use crate::sys::netlink::{Error, Netlink};

/// Where modprobe is looked for. A fixed list: `$PATH` is the caller's.
const MODPROBE: [&str; 2] = ["/usr/sbin/modprobe", "/sbin/modprobe"];
/// How long it may take: a module may wait for its device.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// cgroup2 is mounted.
    MountCgroups,
    /// Controllers are handed on.
    HandOn {
        /// The `cgroup.subtree_control`.
        file: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// Modules are loaded. (They stay until a reboot.)
    Load(Vec<&'static str>),
    /// The bridge is made if it is not there, and set up.
    Bridge {
        /// Its name.
        name: String,
        /// Its address.
        address: Option<Cidr>,
        /// What becomes its port.
        port: Option<String>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::MountCgroups => write!(f, "mount cgroup2 on {MOUNT_POINT}"),
            Action::HandOn { names, .. } => {
                write!(f, "hand controllers on to containers: {}", names.join(", "))
            }
            Action::Load(names) => write!(f, "load modules: {}", names.join(", ")),
            Action::Bridge { name, address, port } => {
                write!(f, "set up the bridge {name}")?;
                if let Some(address) = address {
                    write!(f, " with {address}")?;
                }
                match port {
                    Some(port) => write!(f, ", and {port} as its port"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Action {
    /// Does it, and tells what there was to do.
    pub(super) fn do_it(&self, kept: &mut Kept) -> Result<Vec<String>> {
        match self {
            Action::MountCgroups => {
                kept.note(Step::Mount { path: MOUNT_POINT.into() })?;
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some("cgroup2"), MOUNT_POINT, Some("cgroup2"), flags, None::<&str>)
                    .with_context(|| format!("mount cgroup2 on {MOUNT_POINT}"))?;
                Ok(vec![format!("cgroup2 is mounted on {MOUNT_POINT}")])
            }
            Action::HandOn { file, names } => {
                kept.note(Step::Controllers { file: file.clone(), names: names.clone() })?;
                let words: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
                fs::write(file, words.join(" ")).with_context(|| {
                    format!("hand on {} in {}", names.join(", "), file.display())
                })?;
                Ok(vec![format!("controllers are handed on: {}", names.join(", "))])
            }
            Action::Load(names) => load(names),
            Action::Bridge { name, address, port } => bridge(name, *address, port.as_deref(), kept),
        }
    }
}

fn load(names: &[&str]) -> Result<Vec<String>> {
    let Some(program) = MODPROBE.iter().map(Path::new).find(|p| p.is_file()) else {
        bail!("modprobe is not installed: the modules {} cannot be loaded", names.join(", "));
    };
    let mut command = Command::new(program);
    command.arg("-a").arg("--").args(names).env_clear().stdin(Stdio::null());
    let told = child::run(&mut command, LOAD_LIMIT)
        .with_context(|| format!("run {}", program.display()))?;
    if !told.status.success() {
        bail!("load modules: {}", told.stderr.trim());
    }
    Ok(vec![format!("modules are loaded: {}", names.join(", "))])
}

fn bridge(
    name: &str,
    address: Option<Cidr>,
    port: Option<&str>,
    kept: &mut Kept,
) -> Result<Vec<String>> {
    let mut netlink = Netlink::open()?;
    let mut told = Vec::new();
    let mut was_there = true;
    let index = match netlink.link(name) {
        Ok(link) => {
            if !link.up {
                netlink.set_up(link.index, true).with_context(|| format!("set up {name}"))?;
                told.push(format!("bridge {name} is up"));
            }
            link.index
        }
        Err(Error::NotFound) => {
            was_there = false;
            kept.note(Step::Bridge { name: name.to_owned() })?;
            told.push(format!("bridge {name} is made, and up"));
            netlink.create_bridge(name).with_context(|| format!("make bridge {name}"))?
        }
        Err(e) => return Err(e).with_context(|| format!("stat {name}")),
    };
    if let Some(cidr) = address {
        if was_there {
            // An address that is there already would go, too, at the undoing.
            let has = netlink
                .addresses(index)
                .with_context(|| format!("list the addresses of {name}"))?;
            if !has.contains(&(cidr.address, cidr.prefix)) {
                let (address, prefix) = (cidr.address, cidr.prefix);
                kept.note(Step::Address { name: name.to_owned(), address, prefix })?;
            }
        }
        let new = netlink.add_address(index, cidr.address, cidr.prefix);
        if new.with_context(|| format!("give {name} the address {cidr}"))? {
            told.push(format!("{name} has the address {cidr}"));
        }
    }
    if let Some(port) = port {
        let link = netlink.link(port).with_context(|| format!("stat {port}"))?;
        kept.note(Step::Port { name: port.to_owned(), bridge: name.to_owned() })?;
        netlink
            .set_controller(link.index, Some(index))
            .with_context(|| format!("put {port} on {name}"))?;
        netlink.set_up(link.index, true).with_context(|| format!("set up {port}"))?;
        told.push(format!("{port} is a port of {name}"));
    }
    Ok(told)
}
