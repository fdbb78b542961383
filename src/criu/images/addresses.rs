//! `ifaddr-NETNS.img`: the addresses of a container's interfaces.
//!
//! Messages of rtnetlink (linux/if_addr.h); see [`mod@super::saved`].

use std::net::IpAddr;
use std::path::Path;

use super::rtnetlink::Told;
use super::saved::{Saved, image, parse, saved};
use super::{Error, Shown, take_u32};

/// `RTM_NEWADDR`, and the size of `ifaddrmsg`: family, prefix, flags, scope, a byte each; the
/// interface's index.
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const BODY: usize = 8;
/// `IFA_ADDRESS`, `IFA_LOCAL`.
pub(super) const ADDRESS: u16 = 1;
pub(super) const LOCAL: u16 = 2;

/// `IFA_FLAGS`, and of these `IFA_F_NODAD` and `IFA_F_TENTATIVE`; where `ifaddrmsg` has the lower
/// ones.
const FLAGS: u16 = 8;
const NODAD: u8 = 2;
const TENTATIVE: u8 = 0x40;
const BODY_FLAGS: usize = 2;
/// `AF_INET6`.
const IPV6: u8 = 10;

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
pub(crate) fn addresses(dir: &Path, netns: u32) -> Result<Vec<Address>, Error> {
    let messages = saved(&Shown::of(dir), netns, Saved::Addresses)?;
    Ok(messages.iter().filter_map(|m| of_message(m)).collect())
}

/// Says of the addresses of IPv6 that nobody shall look for duplicates of them. That was done in
/// their first life, and until it is done again, for a second or two, no socket can be bound to
/// them: CRIU would fail. (Where it was not done, no socket was.)
pub fn settle(images: &mut Shown, netns: u32) -> Result<(), Error> {
    let settled = images.change(&Saved::Addresses.file_name(netns), |path, bytes| {
        let truncated = || Error::Truncated { path: path.to_owned(), size: bytes.len() };
        let messages = parse(bytes, Saved::Addresses).ok_or_else(truncated)?;
        // What is not understood is left to CRIU as it is.
        let change =
            |m: &[u8]| Told::parse(m, BODY).map_or_else(|| m.to_vec(), |told| settled(told).emit());
        let changed: Vec<Vec<u8>> = messages.iter().map(|m| change(m)).collect();
        Ok(if changed == messages { bytes.to_vec() } else { image(Saved::Addresses, &changed) })
    });
    match settled {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

fn settled(mut message: Told) -> Told {
    let open = message.body.get(BODY_FLAGS).is_none_or(|flags| flags & TENTATIVE != 0);
    if message.kind() == NEW_ADDRESS && message.body.first() == Some(&IPV6) && !open {
        if let Some(flags) = message.body.get_mut(BODY_FLAGS) {
            *flags |= NODAD;
        }
        if let Some(flags) = message.number(FLAGS) {
            message.set(FLAGS, (flags | u32::from(NODAD)).to_ne_bytes().to_vec());
        }
    }
    message
}

fn of_message(message: &[u8]) -> Option<Address> {
    address_of(&Told::parse(message, BODY)?)
}

/// The address that a message tells of.
pub(super) fn address_of(message: &Told) -> Option<Address> {
    let prefix = *message.body.get(1)?;
    let (interface, _) = take_u32(message.body.get(4..)?)?;
    // On a point-to-point link the address is the other end's.
    let ip = message.ip(LOCAL).or_else(|| message.ip(ADDRESS))?;
    (message.kind() == NEW_ADDRESS).then_some(Address { interface, ip, prefix })
}

pub(super) fn decode_anything(bytes: &[u8]) {
    let _ = of_message(bytes);
    for message in parse(bytes, Saved::Addresses).unwrap_or_default() {
        let _ = of_message(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_of_ipv6_addresses_alone_are_not_looked_for() {
        let flagged = |family: u8, flags: u8| {
            let mut message =
                Told::new(NEW_ADDRESS, [&[family, 64, flags, 0][..], &2u32.to_ne_bytes()].concat());
            message.set(FLAGS, u32::from(flags).to_ne_bytes().to_vec());
            message
        };
        assert_eq!(settled(flagged(IPV6, 0x80)), flagged(IPV6, 0x82));
        assert_eq!(settled(flagged(2, 0x80)), flagged(2, 0x80));
        assert_eq!(settled(flagged(IPV6, 0xc0)), flagged(IPV6, 0xc0));
        let dir = tempfile::tempdir().unwrap();
        let mut shown = Shown::of(dir.path());
        settle(&mut shown, 9).unwrap();
        let name = Saved::Addresses.file_name(9);
        std::fs::write(
            dir.path().join(&name),
            image(Saved::Addresses, &[flagged(IPV6, 0x80).emit()]),
        )
        .unwrap();
        settle(&mut shown, 9).unwrap();
        let wanted = image(Saved::Addresses, &[flagged(IPV6, 0x82).emit()]);
        assert_eq!(shown.into_changed().remove(&name), Some(wanted));
        // Nothing to change, and a format of tomorrow.
        for left_alone in [&b""[..], b"tomorrow's"] {
            std::fs::write(dir.path().join(&name), left_alone).unwrap();
            let mut shown = Shown::of(dir.path());
            settle(&mut shown, 9).unwrap();
            assert!(shown.into_changed().is_empty());
        }
    }

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
        let message = parse(&bytes, Saved::Addresses).unwrap()[0].to_vec();
        assert_eq!(of_message(&message), Some(wanted));
        assert_eq!(Told::parse(&message, BODY).unwrap().emit(), message);
        assert_eq!(image(Saved::Addresses, &[message]), bytes);
        for cut in 5..bytes.len() {
            assert_eq!(messages(&bytes[..cut]), None, "cut at {cut}");
        }
        // A length of nothing does not go on for ever.
        bytes[4..8].copy_from_slice(&[0; 4]);
        assert_eq!(messages(&bytes), None);
    }
}
