//! A bridge that is there after each boot, by whichever program looks after the host's network.
//! Pure but for reading.

use super::ifupdown;
use super::root::{PUBLIC, Root};
use crate::prepare::change::Change;
use crate::prepare::host::spec::{Address, BridgeSpec};
use crate::sys::netlink::Mac;

/// The mode of a file that may hold secrets: NetworkManager takes no other.
const PRIVATE: u32 = 0o600;

/// What looks after the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "they are the names of programs")]
pub(crate) enum Manager {
    /// systemd-networkd.
    Networkd,
    /// NetworkManager.
    NetworkManager,
    /// ifupdown.
    Ifupdown,
}

impl Manager {
    /// The one that is in use. (netplan writes for one of the first two.)
    pub(crate) fn find(root: &Root) -> Option<Manager> {
        if root.has("run/systemd/netif/state") || root.enables("systemd-networkd.service") {
            Some(Manager::Networkd)
        } else if root.has("run/NetworkManager") || root.enables("NetworkManager.service") {
            Some(Manager::NetworkManager)
        } else if (root.has("usr/sbin/ifup") || root.has("sbin/ifup")) && root.has(ifupdown::FILE) {
            Some(Manager::Ifupdown)
        } else {
            None
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Manager::Networkd => "systemd-networkd",
            Manager::NetworkManager => "NetworkManager",
            Manager::Ifupdown => "ifupdown",
        }
    }

    /// What makes it read its files.
    pub(crate) fn reload(self, spec: &BridgeSpec) -> String {
        let bridge = &spec.bridge;
        match (self, &spec.port) {
            (Manager::Networkd, _) => "networkctl reload".to_owned(),
            (Manager::NetworkManager, None) => {
                format!("nmcli connection reload && nmcli connection up lxc-cr-{bridge}")
            }
            (Manager::NetworkManager, Some(port)) => {
                format!("nmcli connection reload && nmcli connection up lxc-cr-{port}")
            }
            (Manager::Ifupdown, None) => format!("ifup {bridge}"),
            // By its file it has no addresses, so nobody else takes them away.
            (Manager::Ifupdown, Some(port)) => {
                format!("ip address flush dev {port} && ifup {bridge}")
            }
        }
    }

    /// The files that make the bridge; `mac` is the hardware address of its port, which a DHCP
    /// server knows.
    pub(crate) fn files(
        self,
        root: &Root,
        spec: &BridgeSpec,
        mac: Option<Mac>,
    ) -> anyhow::Result<Vec<Change>> {
        match self {
            Manager::Networkd => networkd(root, spec, mac),
            Manager::NetworkManager => network_manager(root, spec, mac),
            Manager::Ifupdown => ifupdown::files(root, spec, mac),
        }
    }
}

/// The file that makes a bridge of this name already.
pub(crate) fn defined(root: &Root, bridge: &str) -> Option<String> {
    let has_line = |file: &String, line: &str| {
        root.text(file).is_some_and(|text| {
            text.lines().any(|l| l.split_whitespace().collect::<String>() == line)
        })
    };
    let networkd = ["etc", "run", "usr/lib"]
        .map(|dir| root.files(&format!("{dir}/systemd/network"), ".netdev"))
        .concat();
    let keyfiles = ["etc", "run", "usr/lib"]
        .map(|dir| root.files(&format!("{dir}/NetworkManager/system-connections"), ""));
    let keyfiles = keyfiles.concat();
    networkd
        .into_iter()
        .find(|file| has_line(file, &format!("Name={bridge}")))
        .or_else(|| {
            let is_bridge = |file: &String| has_line(file, "type=bridge");
            keyfiles
                .into_iter()
                .find(|f| is_bridge(f) && has_line(f, &format!("interface-name={bridge}")))
        })
        .or_else(|| ifupdown::defined(root, bridge))
        .or_else(|| {
            root.files("etc/netplan", ".yaml")
                .into_iter()
                .find(|file| has_line(file, &format!("{bridge}:")))
        })
        .or_else(|| {
            let file = "etc/default/lxc-net".to_owned();
            let named = has_line(&file, &format!("LXC_BRIDGE=\"{bridge}\"")) || bridge == "lxcbr0";
            (named && has_line(&file, "USE_LXC_BRIDGE=\"true\"")).then_some(file)
        })
}

/// systemd.network(5) takes the first file that matches: ours comes before what the host has for
/// the port.
fn networkd(root: &Root, spec: &BridgeSpec, mac: Option<Mac>) -> anyhow::Result<Vec<Change>> {
    let bridge = &spec.bridge;
    let file = |name: &str, kind: &str| format!("etc/systemd/network/05-lxc-cr-{name}.{kind}");
    let mac = mac.map(|mac| format!("MACAddress={mac}\n")).unwrap_or_default();
    let netdev = format!("# By lxc-cr prepare.\n[NetDev]\nName={bridge}\nKind=bridge\n{mac}");
    let mut network = format!(
        "# By lxc-cr \
         prepare.\n[Match]\nName={bridge}\n\n[Link]\nRequiredForOnline={}\n\n[Network]\nConfigureWithoutCarrier=yes\n",
        if spec.gateway.is_some() || spec.address == Some(Address::Dhcp) { "yes" } else { "no" }
    );
    match &spec.address {
        Some(Address::Dhcp) => network += "DHCP=yes\n",
        Some(Address::Fixed(cidr)) => network += &format!("Address={cidr}\n"),
        None => {}
    }
    if let Some(gateway) = spec.gateway {
        network += &format!("Gateway={gateway}\n");
    }
    let mut changes = Vec::new();
    changes.extend(root.change(&file(bridge, "netdev"), netdev, PUBLIC)?);
    changes.extend(root.change(&file(bridge, "network"), network, PUBLIC)?);
    if let Some(port) = &spec.port {
        let text =
            format!("# By lxc-cr prepare.\n[Match]\nName={port}\n\n[Network]\nBridge={bridge}\n");
        changes.extend(root.change(&file(port, "network"), text, PUBLIC)?);
    }
    Ok(changes)
}

fn network_manager(
    root: &Root,
    spec: &BridgeSpec,
    mac: Option<Mac>,
) -> anyhow::Result<Vec<Change>> {
    let bridge = &spec.bridge;
    let file =
        |name: &str| format!("etc/NetworkManager/system-connections/lxc-cr-{name}.nmconnection");
    let method = |v4: bool| match &spec.address {
        Some(Address::Dhcp) => "method=auto\n".to_owned(),
        Some(Address::Fixed(cidr)) if cidr.address.is_ipv4() == v4 => {
            let gateway = spec.gateway.map(|g| format!(",{g}")).unwrap_or_default();
            format!("method=manual\naddress1={cidr}{gateway}\n")
        }
        _ if v4 => "method=disabled\n".to_owned(),
        _ => "method=link-local\n".to_owned(),
    };
    let mac = mac.map(|mac| format!("mac-address={mac}\n")).unwrap_or_default();
    let text = format!(
        "# By lxc-cr \
         prepare.\n[connection]\nid=lxc-cr-{bridge}\ntype=bridge\ninterface-name={bridge}\n\n[bridge]\nstp=false\n{mac}\n[ipv4]\n{}\n[ipv6]\n{}",
        method(true),
        method(false)
    );
    let mut changes = Vec::new();
    changes.extend(root.change(&file(bridge), text, PRIVATE)?);
    if let Some(port) = &spec.port {
        // What the host has for the port stays; ours is preferred.
        let text = format!(
            "# By lxc-cr \
             prepare.\n[connection]\nid=lxc-cr-{port}\ntype=ethernet\ninterface-name={port}\nautoconnect-priority=100\nmaster={bridge}\nslave-type=bridge\n"
        );
        changes.extend(root.change(&file(port), text, PRIVATE)?);
    }
    Ok(changes)
}
