//! What the user wishes of the bridge. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The longest name of an interface (IFNAMSIZ, with its NUL).
const NAME_MAX: usize = 15;

/// The bridge that the host shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Its name.
    pub bridge: String,
    /// Its address; none where nothing is said.
    pub address: Option<Address>,
    /// The default route's gateway, for an address that is not asked of a DHCP server.
    pub gateway: Option<IpAddr>,
    /// An interface of the host's that shall be its port.
    pub port: Option<String>,
}

impl BridgeSpec {
    /// The options of the command line that say it; an address that may be chosen is an example,
    /// in a network that the host does not have.
    pub fn options(&self, taken: &[Cidr]) -> String {
        let mut text = format!("--bridge {}", self.bridge);
        match &self.address {
            Some(Address::Dhcp) => text += " --address dhcp",
            Some(Address::Fixed(cidr)) => text += &format!(" --address {cidr}"),
            None => text += &format!(" --address {}", Cidr::free(taken)),
        }
        if let Some(gateway) = self.gateway {
            text += &format!(" --gateway {gateway}");
        }
        if let Some(port) = &self.port {
            text += &format!(" --port {port}");
        }
        text
    }
}

/// The address of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// That which a DHCP server gives it.
    Dhcp,
    /// This one.
    Fixed(Cidr),
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether an address is in both networks.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        let prefix = u32::from(self.prefix.min(other.prefix));
        match (self.address, other.address) {
            (IpAddr::V4(one), IpAddr::V4(two)) => {
                (one.to_bits() ^ two.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(two)) => {
                (one.to_bits() ^ two.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// An address for a bridge in a network that overlaps none of these.
    fn free(taken: &[Cidr]) -> Cidr {
        let of = |third: u8| Cidr { address: Ipv4Addr::new(10, 0, third, 1).into(), prefix: 24 };
        let is_free = |cidr: &Cidr| !taken.iter().any(|other| cidr.overlaps(other));
        (3..=u8::MAX).map(of).find(is_free).unwrap_or(of(3))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if text == "dhcp" {
            return Ok(Address::Dhcp);
        }
        let wrong =
            || format!("'{text}' is neither 'dhcp' nor an address with its prefix, as 10.0.3.1/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|p| (1..=longest).contains(p)).ok_or_else(wrong)?;
        Ok(Address::Fixed(Cidr { address, prefix }))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Checks the name of an interface: it goes into files of several languages.
pub(crate) fn interface(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= NAME_MAX && name.chars().all(good) {
        return Ok(name.to_owned());
    }
    Err(format!("'{name}' is not a name for an interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_there_is_not_proposed() {
        let cidr = |text: &str| match text.parse() {
            Ok(Address::Fixed(cidr)) => cidr,
            other => panic!("{other:?}"),
        };
        assert!(cidr("10.0.3.1/24").overlaps(&cidr("10.0.0.0/16")));
        assert!(cidr("10.0.3.1/24").overlaps(&cidr("0.0.0.0/1")));
        assert!(!cidr("10.0.3.1/24").overlaps(&cidr("10.0.4.1/24")));
        assert!(!cidr("10.0.3.1/24").overlaps(&cidr("fd00::1/64")));
        assert!(cidr("fd00::1/64").overlaps(&cidr("fd00::2/128")));
        assert_eq!(Cidr::free(&[]).to_string(), "10.0.3.1/24");
        assert_eq!(Cidr::free(&[cidr("10.0.2.7/22")]).to_string(), "10.0.4.1/24");
        assert_eq!(Cidr::free(&[cidr("10.0.0.1/8")]).to_string(), "10.0.3.1/24");
    }

    #[test]
    fn an_address_has_a_prefix() {
        let fixed = |text: &str| match text.parse() {
            Ok(Address::Fixed(cidr)) => cidr.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(fixed("10.0.3.1/24"), "10.0.3.1/24");
        assert_eq!(fixed("fd00::1/64"), "fd00::1/64");
        assert_eq!("dhcp".parse(), Ok(Address::Dhcp));
        for wrong in [
            "",
            "10.0.3.1",
            "10.0.3.1/33",
            "10.0.3.1/0",
            "10.0.3/24",
            "x/24",
            "10.0.3.1/24/1",
            "DHCP",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interface_has_a_plain_name() {
        for good in ["br0", "lxcbr0", "enp3s0.100", "a-b_c"] {
            interface(good).unwrap();
        }
        for wrong in ["", "br 0", "../x", ".", "br0\n", "a/b", "sixteen-letters-", "-x", "bä"] {
            assert!(interface(wrong).is_err(), "{wrong}");
        }
    }
}
