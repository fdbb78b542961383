//! Network interfaces that cannot be dumped or made again, and bridges that a restart will not
//! find.

use super::Names;
use super::finding::{Finding, Place};
use crate::lxc::shell;
use crate::resources::network::Port;
use crate::resources::network::interfaces::Device;
use crate::resources::network::ports::Inner;

/// Kinds that CRIU dumps and restores by itself (net.c: `dump_one_link`).
const KNOWN: &[&str] = &["veth", "tun", "bridge", "sit", "venet"];

/// What the kernel makes by itself in a new namespace, and CRIU passes over.
const FALLBACK: &[&str] = &["lo", "gre0", "gretap0", "sit0"];

/// A bridge that the configuration names for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// The interface in the container.
    pub interface: String,
    /// The bridge.
    pub name: String,
    /// Whether it is there.
    pub exists: bool,
}

/// Judges the interfaces other than veth; pure.
pub(crate) fn judge(
    interfaces: &[Inner],
    devices: &[Device],
    bridges: &[Bridge],
    names: &Names,
) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        interfaces.iter().filter_map(|inner| interface(inner, devices, names)).collect();
    found.extend(bridges.iter().filter(|b| !b.exists).map(bridge));
    found
}

/// Judges the host's ends of its veth pairs; pure. Only a port of a Linux bridge has such a port's
/// settings.
pub(crate) fn judge_ports(ports: &[Port]) -> Vec<Finding> {
    let elsewhere = |port: &Port| {
        let controller = port.bridge.as_deref().filter(|_| port.settings.is_none())?;
        Some(
            Finding::blocker(
                format!(
                    "the host's end of {} is a port of {controller}, which is not a Linux bridge",
                    port.inside
                ),
                "it cannot be taken off while the container is frozen (Open vSwitch, bonds)",
            )
            .at(place(&port.inside))
            .remedy("connect it to a Linux bridge (lxc.net.N.link), which may be a port of that"),
        )
    };
    ports.iter().filter_map(elsewhere).collect()
}

fn place(interface: &str) -> Place {
    Place { interface: Some(interface.into()), ..Place::default() }
}

/// The name is the container's choice: it stands in a command only where a shell makes nothing of
/// it.
fn delete(name: &str, names: &Names) -> String {
    let what = "delete it in the container for the time of the checkpoint";
    match shell::is_plain(name) {
        true => format!("{what}: {}", names.attach(&format!("ip link del {name}"))),
        false => what.to_owned(),
    }
}

fn interface(inner: &Inner, devices: &[Device], names: &Names) -> Option<Finding> {
    let name = &inner.name;
    let known = devices.iter().any(|d| d.inside == *name);
    let finding = match inner.kind.as_deref() {
        _ if FALLBACK.contains(&name.as_str()) => return None,
        Some(kind) if KNOWN.contains(&kind) => return None,
        Some("macvlan") if known => return None,
        Some("macvlan") => Finding::blocker(
            format!("{name} is a macvlan interface upon one that the host does not have"),
            "it can be dumped, but a restart cannot make it again",
        )
        .on_restore()
        .remedy(delete(name, names)),
        // `Unsupported link … (type … kind …)`.
        Some(kind) => Finding::blocker(
            format!("{name} is an interface of the kind {kind}"),
            "CRIU cannot dump it",
        )
        .remedy(delete(name, names)),
        None => Finding::blocker(
            format!("{name} is a device of the host that was moved into the container"),
            "CRIU cannot dump it",
        )
        .remedy("give the container a veth interface on a bridge (lxc.net.0.type = veth)"),
    };
    Some(finding.at(place(name)))
}

fn bridge(bridge: &Bridge) -> Finding {
    let Bridge { interface, name, .. } = bridge;
    Finding::warning(
        format!(
            "the configuration connects {interface} to the bridge '{name}', which does not exist"
        ),
        "the checkpoint can be made, but a restart will be refused",
    )
    .at(place(interface))
    .remedy(format!(
        "make it before the restore: ip link add {name} type bridge && ip link set {name} up"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn inner(name: &str, kind: Option<&str>) -> Inner {
        Inner {
            name: name.into(),
            kind: kind.map(str::to_owned),
            mac: None,
            mtu: 1500,
            index: 3,
            lower: None,
            macvlan_mode: None,
        }
    }

    #[test]
    fn kinds_of_interfaces() {
        let judged = |name, kind| {
            judge(&[inner(name, kind)], &[], &[], &Names::test()).first().map(|f| f.severity)
        };
        for (name, kind) in
            [("lo", None), ("t0", Some("tun")), ("b", Some("bridge")), ("gre0", Some("gre"))]
        {
            assert_eq!(judged(name, kind), None, "{name}");
        }
        for (name, kind) in
            [("m", Some("macvlan")), ("x", Some("vxlan")), ("eno1", None), ("gre1", Some("gre"))]
        {
            assert_eq!(judged(name, kind), Some(Severity::Blocker), "{name}");
        }
    }

    #[test]
    fn a_port_of_something_else_than_a_bridge_is_told_beforehand() {
        let port = |bridge: Option<&str>, settings: bool| Port {
            bridge: bridge.map(str::to_owned),
            settings: settings.then(Default::default),
            ..Port::unrecorded("eth0")
        };
        let judged = |port: Port| judge_ports(&[port]).first().map(|f| f.severity);
        assert_eq!([judged(port(Some("br0"), true)), judged(port(None, false))], [None, None]);
        assert_eq!(judged(port(Some("ovs-system"), false)), Some(Severity::Blocker));
    }

    #[test]
    fn a_missing_bridge_is_a_matter_of_the_restart() {
        let bridge = |exists| Bridge { interface: "eth0".into(), name: "br7".into(), exists };
        assert_eq!(judge(&[], &[], &[bridge(true)], &Names::test()), []);
        let found = judge(&[], &[], &[bridge(false)], &Names::test());
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].remedy.contains("ip link add br7 type bridge"));
    }
}
