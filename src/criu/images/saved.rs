//! What CRIU lets `ip save`: addresses, routes and rules of a network namespace (net.c,
//! `dump_ifaddr` and what follows it).
//!
//! After a magic number come the messages of rtnetlink as the kernel sent them (iproute2,
//! ip/ipaddress.c, ip/iproute.c, ip/iprule.c): each begins with an `nlmsghdr`.

use super::{Error, Shown, take_u32};

/// The size of an `nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// What was saved. The magic numbers are iproute2's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Addresses of interfaces, of both families.
    Addresses,
    /// Routes of the main table for IPv4.
    Routes,
    /// The same for IPv6.
    Routes6,
    /// Policy rules for IPv4.
    Rules,
}

impl Saved {
    /// The name of its image.
    pub(crate) fn file_name(self, netns: u32) -> String {
        let kind = match self {
            Saved::Addresses => "ifaddr",
            Saved::Routes => "route",
            Saved::Routes6 => "route6",
            Saved::Rules => "rule",
        };
        format!("{kind}-{netns}.img")
    }

    fn magic(self) -> u32 {
        match self {
            Saved::Addresses => 0x4736_1222,
            Saved::Routes | Saved::Routes6 => 0x4531_1224,
            Saved::Rules => 0x7170_6986,
        }
    }
}

/// The messages that were saved of a network namespace, each with its header. None where CRIU wrote
/// no such image.
pub(crate) fn saved(images: &Shown, netns: u32, what: Saved) -> Result<Vec<Vec<u8>>, Error> {
    let name = what.file_name(netns);
    match images.bytes(&name) {
        Ok(bytes) => {
            let truncated =
                || Error::Truncated { path: images.dir().join(name), size: bytes.len() };
            Ok(parse(&bytes, what).ok_or_else(truncated)?.into_iter().map(<[u8]>::to_vec).collect())
        }
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// An image of these messages.
pub(super) fn image(what: Saved, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = what.magic().to_le_bytes().to_vec();
    for message in messages {
        bytes.extend(message);
        bytes.resize(aligned(bytes.len()), 0);
    }
    bytes
}

pub(super) fn parse(bytes: &[u8], what: Saved) -> Option<Vec<&[u8]>> {
    // Nothing at all was saved, as by an `ip` that the kernel told of no rule.
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (magic, mut rest) = take_u32(bytes)?;
    // A format of tomorrow: nothing to tell of.
    if magic != what.magic() {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let size = usize::try_from(take_u32(rest)?.0).ok()?;
        if size < HEADER {
            return None;
        }
        found.push(rest.get(..size)?);
        rest = rest.get(aligned(size)..).unwrap_or_default();
    }
    Some(found)
}

/// Messages and attributes begin at multiples of four.
pub(super) fn aligned(size: usize) -> usize {
    size.saturating_add(3) & !3
}

pub(super) fn decode_anything(bytes: &[u8]) {
    for what in [Saved::Addresses, Saved::Routes, Saved::Routes6, Saved::Rules] {
        let _ = parse(bytes, what);
        // What follows a magic number that chance hardly ever hits.
        let mut saved = what.magic().to_le_bytes().to_vec();
        saved.extend(bytes);
        let _ = parse(&saved, what);
    }
}
