//! Who else of this host is on a bridge: containers, of LXC or not, by their network namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use super::ports;
use crate::sys::netlink::{Mac, Netlink, in_netns};

/// How liblxc begins the name of a container's cgroup.
const PAYLOAD: &str = "lxc.payload.";

/// An interface in another network namespace, the host's end of which is on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Whose it is, in words.
    pub who: String,
    /// The bridge.
    pub bridge: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// All of them that can be seen from here.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Neighbour>> {
    let mut seen =
        BTreeSet::from([id("thread-self").context("inspect our own network namespace")?]);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let Ok(name) = entry.context("list /proc")?.file_name().into_string() else { continue };
        // Processes come and go while we look: what cannot be read is gone.
        if !name.starts_with(|c: char| c.is_ascii_digit())
            || !id(&name).is_ok_and(|id| seen.insert(id))
        {
            continue;
        }
        found.extend(of_process(&name, netlink).unwrap_or_else(|e| {
            log::debug!("process {name}: {e:#}");
            Vec::new()
        }));
    }
    Ok(found)
}

fn id(process: &str) -> std::io::Result<(u64, u64)> {
    fs::metadata(format!("/proc/{process}/ns/net")).map(|meta| (meta.dev(), meta.ino()))
}

fn of_process(pid: &str, netlink: &mut Netlink) -> Result<Vec<Neighbour>> {
    let netns = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let ports = ports::find(netlink, netns.as_fd())?;
    if ports.iter().all(|port| port.bridge.is_none()) {
        return Ok(Vec::new());
    }
    let addresses = in_netns(netns.as_fd(), || {
        let mut theirs = Netlink::open()?;
        ports.iter().map(|port| theirs.addresses(port.inside_index)).collect::<Result<Vec<_>, _>>()
    })??;
    let who = who(
        pid,
        &fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
        &fs::read_to_string(format!("/proc/{pid}/comm"))?,
    );
    let neighbours = ports.into_iter().zip(addresses).filter_map(|(port, addresses)| {
        Some(Neighbour {
            who: who.clone(),
            bridge: port.bridge?,
            mac: port.mac_inside,
            addresses: addresses.into_iter().map(|(ip, _)| ip).collect(),
        })
    });
    Ok(neighbours.collect())
}

/// A container of LXC by its name, anything else by a process of it.
fn who(pid: &str, cgroup: &str, command: &str) -> String {
    let container = cgroup.split(['/', '\n']).find_map(|part| part.strip_prefix(PAYLOAD));
    match container {
        Some(name) => name.to_owned(),
        None => format!("process {pid} ({})", command.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_by_its_name() {
        assert_eq!(who("7", "0::/lxc.payload.web/init.scope\n", "systemd\n"), "web");
        assert_eq!(who("7", "1:name=systemd:/x\n0::/base/lxc.payload.web-1\n", "init\n"), "web-1");
        assert_eq!(who("7", "0::/user.slice\n", "sh\n"), "process 7 (sh)");
    }
}
