//! `ifaddr-NETNS.img`: the addresses of a container's interfaces.
//!
//! CRIU has them written by `ip address save`: a magic number, then messages of rtnetlink as the kernel sent them
//! (iproute2, ip/ipaddress.c; linux/if_addr.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::{Error, bytes_of, take_u32};

/// `IPADDR_DUMP_MAGIC` of iproute2.
const SAVED_MAGIC: u32 = 0x4736_1222;
/// `RTM_NEWADDR`, and the sizes of `nlmsghdr` and `ifaddrmsg`.
const NEW_ADDRESS: u16 = 20;
const HEADER: usize = 16;
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
    let path = dir.join(format!("ifaddr-{netns}.img"));
    match bytes_of(&path) {
        Ok(bytes) => parse(&bytes).ok_or(Error::Truncated { path, size: bytes.len() }),
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<Address>> {
    let (magic, mut rest) = take_u32(bytes)?;
    // A namespace without a single address, or a format of tomorrow: nothing to tell of.
    if magic != SAVED_MAGIC {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let size = usize::try_from(take_u32(rest)?.0).ok()?;
        let message = rest.get(HEADER..size)?;
        let kind = u16::from_ne_bytes([*rest.get(4)?, *rest.get(5)?]);
        if kind == NEW_ADDRESS {
            found.extend(address(message));
        }
        rest = rest.get(aligned(size)..).unwrap_or_default();
    }
    Some(found)
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

/// Messages and attributes begin at multiples of four.
fn aligned(size: usize) -> usize {
    size.saturating_add(3) & !3
}

pub(super) fn decode_anything(bytes: &[u8]) {
    let _ = parse(bytes);
    // What follows a magic number that chance hardly ever hits.
    let mut saved = SAVED_MAGIC.to_le_bytes().to_vec();
    saved.extend(bytes);
    let _ = parse(&saved);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ip_saves() {
        let mut bytes = SAVED_MAGIC.to_le_bytes().to_vec();
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
        assert_eq!(parse(&bytes), Some(vec![wanted]));
        for cut in 5..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        // A length of nothing does not go on for ever.
        bytes[4..8].copy_from_slice(&[0; 4]);
        assert_eq!(parse(&bytes), None);
    }
}
