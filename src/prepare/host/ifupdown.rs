//! The files of ifupdown, interfaces(5). Pure but for reading.
//!
//! Nothing but iproute2 is asked of the host: the options `bridge_*` would need another package.

use std::net::IpAddr;

use super::root::{PUBLIC, Root};
use crate::prepare::change::Change;
use crate::prepare::host::spec::{Address, BridgeSpec};
use crate::sys::netlink::Mac;

/// The main file.
pub(super) const FILE: &str = "etc/network/interfaces";
/// The directory that it may name.
const DIR: &str = "etc/network/interfaces.d";
/// Words that begin a stanza.
const STANZAS: [&str; 7] = ["iface", "mapping", "auto", "allow-", "source", "rename", "template"];

/// The main file and those beside it.
fn all(root: &Root) -> Vec<String> {
    let mut files = vec![FILE.to_owned()];
    files.extend(root.files(DIR, ""));
    files
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The file with a stanza for an interface.
pub(super) fn defined(root: &Root, name: &str) -> Option<String> {
    let has = |text: String| {
        text.lines().any(|line| matches!(words(line)[..], ["iface", iface, ..] if iface == name))
    };
    all(root).into_iter().find(|file| root.text(file).is_some_and(has))
}

/// The files that make a bridge.
pub(super) fn files(
    root: &Root,
    spec: &BridgeSpec,
    mac: Option<Mac>,
) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let ours = format!("{DIR}/lxc-cr-{}", spec.bridge);
    let main = root.text(FILE).unwrap_or_default();
    let sources = |line: &str| match words(line)[..] {
        ["source" | "source-directory", path, ..] => {
            path.trim_start_matches('/').starts_with(DIR) || path.starts_with("interfaces.d")
        }
        _ => false,
    };
    let missing = !main.lines().any(sources);
    let mut has_stanza = false;
    for file in all(root) {
        let Some(text) = root.text(&file).filter(|_| file != ours) else { continue };
        let mut new = text.clone();
        if let Some(port) = &spec.port {
            has_stanza |= defined_in(&text, port);
            new = given_away(&text, port);
        }
        if file == FILE && missing {
            let end = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
            new = format!("{new}{end}source /{DIR}/*\n");
        }
        if new != text {
            changes.extend(root.change(&file, new, PUBLIC)?);
        }
    }
    changes.extend(root.change(&ours, stanza(spec, mac, has_stanza), PUBLIC)?);
    Ok(changes)
}

fn defined_in(text: &str, name: &str) -> bool {
    text.lines().any(|line| matches!(words(line)[..], ["iface", iface, ..] if iface == name))
}

/// The text with an interface that has no addresses any more: its options stay as comments.
fn given_away(text: &str, port: &str) -> String {
    let mut within = false;
    let mut new = String::new();
    for line in text.split_inclusive('\n') {
        let words = words(line);
        let first = words.first().copied().unwrap_or_default();
        if let ["iface", iface, family, ..] = words[..]
            && iface == port
        {
            within = true;
            let end = if line.ends_with('\n') { "\n" } else { "" };
            new += &format!("iface {port} {family} manual{end}");
            continue;
        }
        within &= !STANZAS
            .iter()
            .any(|word| first == *word || (word.ends_with('-') && first.starts_with(word)));
        if within && !first.is_empty() && !first.starts_with('#') {
            new += "#";
        }
        new += line;
    }
    new
}

fn stanza(spec: &BridgeSpec, mac: Option<Mac>, has_stanza: bool) -> String {
    let bridge = &spec.bridge;
    let mut text = "# By lxc-cr prepare.\n".to_owned();
    if let Some(port) = spec.port.as_ref().filter(|_| !has_stanza) {
        text += &format!("iface {port} inet manual\n\n");
    }
    let (family, method) = match &spec.address {
        Some(Address::Dhcp) => ("inet", "dhcp"),
        Some(Address::Fixed(cidr)) if cidr.address.is_ipv6() => ("inet6", "static"),
        Some(Address::Fixed(_)) => ("inet", "static"),
        None => ("inet", "manual"),
    };
    text += &format!(
        "auto {bridge}\niface {bridge} {family} {method}\n    pre-up ip link show dev {bridge} \
         >/dev/null 2>&1 || ip link add name {bridge} type bridge\n"
    );
    if let Some(mac) = mac {
        text += &format!("    pre-up ip link set dev {bridge} address {mac}\n");
    }
    text += &format!("    pre-up ip link set dev {bridge} up\n");
    if let Some(port) = &spec.port {
        text += &format!("    pre-up ip link set dev {port} master {bridge} up\n");
    }
    if let Some(Address::Fixed(cidr)) = &spec.address {
        text += &format!("    address {cidr}\n");
    }
    if let Some(gateway) = spec.gateway {
        let gateway: IpAddr = gateway;
        text += &format!("    gateway {gateway}\n");
    }
    text + &format!("    post-down ip link delete dev {bridge}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_loses_its_addresses_and_nothing_else_is_touched() {
        let text = "auto lo eth0\niface lo inet loopback\n\n# the uplink\niface eth0 inet \
                    static\n\taddress 10.0.0.2/24\n\t# a comment\n\tgateway 10.0.0.1\n\niface eth0 \
                    inet6 auto\nallow-hotplug eth1\niface eth1 inet dhcp\n";
        assert_eq!(
            given_away(text, "eth0"),
            "auto lo eth0\niface lo inet loopback\n\n# the uplink\niface eth0 inet \
             manual\n#\taddress 10.0.0.2/24\n\t# a comment\n#\tgateway 10.0.0.1\n\niface eth0 \
             inet6 manual\nallow-hotplug eth1\niface eth1 inet dhcp\n"
        );
        assert_eq!(given_away(text, "eth2"), text);
        assert_eq!(given_away("iface eth0 inet dhcp", "eth0"), "iface eth0 inet manual");
    }
}
