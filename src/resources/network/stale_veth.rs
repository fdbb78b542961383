//! The host's ends of its veth pairs that the container's earlier life has left.
//!
//! The kernel takes a network namespace apart at its leisure, some time after the last process in
//! it has ended; until then the host's end is there under the name that the container is to have
//! again.

use std::thread;

use anyhow::{Context, Result};

use crate::criu::retry::PAUSES;
use crate::report::Report;
use crate::resources::network::Port;
use crate::resources::network::ports::{VETH, placeholder_mac};
use crate::sys::netlink::{Link, Netlink};

/// Waits until they are gone, though not for long: a container whose name is taken gets another
/// one.
pub(crate) fn wait(ports: &[Port], netlink: &mut Netlink, report: &mut dyn Report) -> Result<()> {
    let mut look =
        || netlink.links().context("list the host's links").map(|links| lingering(ports, &links));
    let first = look()?;
    if first.is_empty() {
        return Ok(());
    }
    let mut left = first.clone();
    for pause in PAUSES {
        thread::sleep(pause);
        left = look()?;
        if left.is_empty() {
            break;
        }
    }
    let were = format!("{}, which it had before, lingered on the host", first.join(" and "));
    report.note(&match left.as_slice() {
        [] => format!("{were}; waited until that was gone"),
        left => format!("{were}; {} did not end in time", left.join(" and ")),
    });
    Ok(())
}

/// Those that have the recorded name, and the recorded hardware address or the one that a
/// checkpoint leaves them with. Nobody else's has both, and the container does not run.
fn lingering(ports: &[Port], links: &[Link]) -> Vec<String> {
    let is_old = |port: &Port, link: &Link| {
        let macs = [port.mac_host, Some(placeholder_mac(link.index))];
        link.kind.as_deref() == Some(VETH)
            && link.name == port.host
            && link.mac.is_some()
            && macs.contains(&link.mac)
    };
    ports
        .iter()
        .filter(|port| links.iter().any(|link| is_old(port, link)))
        .map(|port| port.host.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Mac;

    #[test]
    fn a_link_of_somebody_else_is_not_waited_for() {
        let mac = |last| Some(Mac([0xfe, 0, 0, 0, 0, last]));
        let port =
            |host: &str, mac_host| Port { host: host.into(), mac_host, ..Port::unrecorded("eth0") };
        let link = |name: &str, kind: &str, mac| Link {
            name: name.into(),
            kind: Some(kind.into()),
            mac,
            ..Link::default()
        };
        let ports = [
            port("vethA", mac(1)),
            port("vethB", mac(2)),
            port("vethC", None),
            port("vethD", mac(4)),
            port("vethE", mac(5)),
        ];
        let links = [
            link("vethA", VETH, mac(1)),
            link("vethB", VETH, mac(9)),
            link("vethC", VETH, None),
            link("vethD", "dummy", mac(4)),
            Link { index: 7, ..link("vethE", VETH, Some(placeholder_mac(7))) },
        ];
        assert_eq!(lingering(&ports, &links), ["vethA", "vethE"]);
    }
}
