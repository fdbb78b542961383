//! `ifaddr-NETNS.img`: the addresses of a container's interfaces.
//!
//! Messages of rtnetlink (linux/if_addr.h); see [`super::saved`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::saved::{HEADER, Saved, aligned, parse, saved};
use super::{Error, take_u32};

/// `RTM_NEWADDR`, and the size of `ifaddrmsg`.
const NEW_ADDRESS: u16 = 20;
const BODY: usize = 8;
/// `IFA_ADDRESS`, `IFA_LOCAL`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// An address of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The index of its interface.
    pub interface: u32,
    /// The address.
    pub ip: IpAddr,
    /// How many bits of it name the network.
    pub prefix: u8,
}

/// The addresses of a network namespace. None where CRIU wrote no such image.
pub fn addresses(dir: &Path, netns: u32) -> Result<Vec<Address>, Error> {
    let messages = saved(dir, netns, Saved::Addresses)?;
    Ok(messages.iter().filter_map(|m| of_message(m)).collect())
}

fn of_message(message: &[u8]) -> Option<Address> {
    let kind = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
    (kind == NEW_ADDRESS).then(|| address(message.get(HEADER..)?)).flatten()
}

fn address(message: &[u8]) -> Option<Address> {
    let (body, mut attributes) = message.split_at_checked(BODY)?;
    let prefix = *body.get(1)?;
    let (interface, _) = take_u32(body.get(4..)?)?;
    let (mut address, mut local) = (None, None);
    while let Some(([a, b, c, d], _)) = attributes.split_first_chunk::<4>() {
        let size = usize::from(u16::from_ne_bytes([*a, *b]));
        let value = attributes.get(4..size)?;
        match u16::from_ne_bytes([*c, *d]) {
            ADDRESS => address = ip(value),
            LOCAL => local = ip(value),
            _ => {}
        }
        attributes = attributes.get(aligned(size)..).unwrap_or_default();
    }
    // On a point-to-point link the address is the other end's.
    Some(Address { interface, ip: local.or(address)?, prefix })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

pub(super) fn decode_anything(bytes: &[u8]) {
    let _ = address(bytes);
    let _ = of_message(bytes);
    for message in parse(bytes, Saved::Addresses).unwrap_or_default() {
        let _ = of_message(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ip_saves() {
        let mut bytes = 0x4736_1222u32.to_le_bytes().to_vec();
        let message = [
            &40u32.to_ne_bytes()[..],
            &[20, 0, 2, 0],
            &[0; 8],
            &[2, 24, 0, 0],
            &2u32.to_ne_bytes(),
            &[8, 0, 1, 0, 10, 99, 0, 11],
            &[8, 0, 2, 0, 10, 99, 0, 12],
        ];
        bytes.extend(message.concat());
        let wanted = Address { interface: 2, ip: [10, 99, 0, 12].into(), prefix: 24 };
        let messages = |bytes: &[u8]| parse(bytes, Saved::Addresses).map(|found| found.len());
        assert_eq!(messages(&bytes), Some(1));
        assert_eq!(of_message(parse(&bytes, Saved::Addresses).unwrap()[0]), Some(wanted));
        for cut in 5..bytes.len() {
            assert_eq!(messages(&bytes[..cut]), None, "cut at {cut}");
        }
        // A length of nothing does not go on for ever.
        bytes[4..8].copy_from_slice(&[0; 4]);
        assert_eq!(messages(&bytes), None);
    }
}
