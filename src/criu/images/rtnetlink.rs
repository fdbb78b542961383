//! A message of rtnetlink as the kernel sent it: an `nlmsghdr`, a body of a length of its own for
//! each kind, attributes (linux/rtnetlink.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::saved::{HEADER, aligned};
use super::take_u32;

/// The header of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// `nlmsghdr` without the length.
    header: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Told {
    /// Reads a message whose body has this length. None for one that is cut off.
    pub(super) fn parse(message: &[u8], body: usize) -> Option<Told> {
        let (_, message) = take_u32(message)?;
        let (header, rest) = message.split_at_checked(HEADER - size_of::<u32>())?;
        let (body, mut rest) = rest.split_at_checked(body)?;
        let mut attributes = Vec::new();
        while let Some(([a, b, c, d], _)) = rest.split_first_chunk::<ATTRIBUTE_HEADER>() {
            let size = usize::from(u16::from_ne_bytes([*a, *b]));
            let value = rest.get(ATTRIBUTE_HEADER..size)?;
            attributes.push((u16::from_ne_bytes([*c, *d]), value.to_vec()));
            rest = rest.get(aligned(size)..).unwrap_or_default();
        }
        Some(Told { header: header.to_vec(), body: body.to_vec(), attributes })
    }

    /// The message in bytes.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut bytes = [&[0; size_of::<u32>()], self.header.as_slice(), &self.body].concat();
        for (kind, value) in &self.attributes {
            bytes.resize(aligned(bytes.len()), 0);
            bytes.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        let size = (bytes.len() as u32).to_ne_bytes();
        bytes[..size_of::<u32>()].copy_from_slice(&size);
        bytes
    }

    /// A new one.
    pub(super) fn new(kind: u16, body: Vec<u8>) -> Told {
        let mut header = kind.to_ne_bytes().to_vec();
        header.resize(HEADER - size_of::<u32>(), 0);
        Told { header, body, attributes: Vec::new() }
    }

    /// Its kind: `RTM_NEWADDR`, `RTM_NEWROUTE`.
    pub(super) fn kind(&self) -> u16 {
        self.header.first_chunk::<2>().map_or(0, |b| u16::from_ne_bytes(*b))
    }

    /// An attribute's value.
    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().rfind(|(k, _)| *k == kind).map(|(_, value)| value.as_slice())
    }

    /// An attribute that is a number.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        self.attribute(kind)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
    }

    /// An attribute that is an address.
    pub(super) fn ip(&self, kind: u16) -> Option<IpAddr> {
        ip(self.attribute(kind)?)
    }

    /// Sets an attribute.
    pub(super) fn set(&mut self, kind: u16, value: Vec<u8>) {
        self.remove(kind);
        self.attributes.push((kind, value));
    }

    /// Sets an attribute that is an address.
    pub(super) fn set_ip(&mut self, kind: u16, ip: IpAddr) {
        self.set(kind, octets(ip));
    }

    /// Takes an attribute away.
    pub(super) fn remove(&mut self, kind: u16) {
        self.attributes.retain(|(k, _)| *k != kind);
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

/// The bytes of an address.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn decode_anything(bytes: &[u8]) {
    for body in [0, 8, 12] {
        if let Some(told) = Told::parse(bytes, body) {
            let _ = told.emit();
        }
    }
}
