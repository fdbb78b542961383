//! Addresses, networks and gateways of interfaces, in liblxc's spelling.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::value::unsigned32;

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net<A> {
    /// The address.
    pub address: A,
    /// The length of the network's prefix in bits.
    pub prefix: u32,
    /// The broadcast address, where the line names one.
    pub broadcast: Option<A>,
}

impl<A> Net<A> {
    fn new(address: A, prefix: u32) -> Net<A> {
        Net { address, prefix, broadcast: None }
    }
}

/// Where the default route goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway<A> {
    /// To the address of the bridge.
    Auto,
    /// To the interface, without an address.
    Dev,
    /// To this address.
    Address(A),
}

/// `ADDRESS[/PREFIX] [BROADCAST]`; without a prefix it is that of the address's class.
pub(super) fn ipv4(value: &str) -> Option<Net<Ipv4Addr>> {
    let (address, broadcast) = match value.split_once(' ') {
        Some((address, broadcast)) => (address, Some(broadcast.parse().ok()?)),
        None => (value, None),
    };
    let (address, prefix) = match address.split_once('/') {
        Some((address, prefix)) => (address.parse().ok()?, unsigned32(prefix)?),
        None => {
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix = match address.octets()[0] {
                0..=127 => 8,
                128..=191 => 16,
                192..=223 => 24,
                _ => 0,
            };
            (address, prefix)
        }
    };
    (prefix <= 32).then_some(Net { address, prefix, broadcast })
}

/// `ADDRESS[/PREFIX]`; without a prefix it is 64.
pub(super) fn ipv6(value: &str) -> Option<Net<Ipv6Addr>> {
    let (address, prefix) = value.split_once('/').unwrap_or((value, "64"));
    Some(Net::new(address.parse().ok()?, unsigned32(prefix)?))
}

pub(super) fn route<A: FromStr>(value: &str, longest: u32) -> Option<Net<A>> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = unsigned32(prefix).filter(|p| *p <= longest)?;
    Some(Net::new(address.parse().ok()?, prefix))
}

/// liblxc never takes `dev` back when an address follows.
pub(super) fn set_gateway<A: FromStr>(gateway: &mut Option<Gateway<A>>, value: &str) -> Option<()> {
    let new = match value {
        "auto" => Gateway::Auto,
        "dev" => Gateway::Dev,
        _ => Gateway::Address(value.parse().ok()?),
    };
    if !matches!((&gateway, &new), (Some(Gateway::Dev), Gateway::Address(_))) {
        *gateway = Some(new);
    }
    Some(())
}

/// liblxc forgets the address only: `auto` and `dev` outlive an empty value.
pub(super) fn clear_gateway<A>(gateway: &mut Option<Gateway<A>>) {
    if matches!(gateway, Some(Gateway::Address(_))) {
        *gateway = None;
    }
}

pub(super) fn gateway<A: ToString>(gateway: &Option<Gateway<A>>) -> String {
    match gateway {
        None => String::new(),
        Some(Gateway::Auto) => "auto".to_owned(),
        Some(Gateway::Dev) => "dev".to_owned(),
        Some(Gateway::Address(address)) => address.to_string(),
    }
}

pub(super) fn lines<A: ToString>(nets: &[Net<A>]) -> String {
    nets.iter()
        .map(|n| format!("{}/{}", n.address.to_string(), n.prefix))
        .collect::<Vec<_>>()
        .join("\n")
}
