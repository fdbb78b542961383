//! Messages of netlink as values: each attribute in its own row, and what no row knows in a last
//! one, so that an attribute of a newer kernel is compared, too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::inspect::compare::plain;
use crate::inspect::snapshot::{Snapshot, Subject};
use crate::inspect::state::State;
use crate::sys::netlink::raw::{self, Message};

/// How an attribute is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A number of 1, 2, 4 or 8 bytes.
    Number,
    /// Text that ends with a NUL.
    Text,
    /// An address of IP.
    Ip,
    /// The index of a link, as its name.
    Link,
    /// Attributes within, or bytes that look like them.
    Tree,
    /// Bytes.
    Bytes,
    /// What nobody may read, as a checksum.
    Secret,
}

/// An attribute with its row.
#[derive(Debug)]
pub(super) struct Column(pub u16, pub &'static State, pub Shape);

/// What a kind of message consists of.
#[derive(Debug)]
pub(super) struct Layout {
    /// The size of its header.
    pub header: usize,
    /// Attributes with rows of their own.
    pub columns: &'static [Column],
    /// Attributes that count, or are told in another way.
    pub ignored: &'static [u16],
    /// The row of all others.
    pub rest: &'static State,
}

/// Names of links by their index.
pub(super) type Names = BTreeMap<u32, String>;

impl Layout {
    /// Enters the attributes of a message.
    pub(super) fn enter(
        &self,
        message: &Message,
        subject: &Subject,
        names: &Names,
        snapshot: &mut Snapshot,
    ) {
        let mut rest = Vec::new();
        for (kind, value) in message.attributes(self.header) {
            match self.columns.iter().find(|column| column.0 == kind) {
                Some(Column(_, state, shape)) => {
                    snapshot.enter(subject.clone(), state, shape.write(value, names))
                }
                None if self.ignored.contains(&kind) => {}
                None => rest.push(format!("{kind}={}", Shape::Tree.write(value, names))),
            }
        }
        if !rest.is_empty() {
            rest.sort_unstable();
            snapshot.enter(subject.clone(), self.rest, rest.join(" "));
        }
    }
}

impl Shape {
    /// An attribute's value in this shape; bytes where it has another size.
    pub(super) fn write(self, value: &[u8], names: &Names) -> String {
        match self {
            Shape::Number => native(value).map_or_else(|| hex(value), |number| number.to_string()),
            Shape::Text => plain(value.strip_suffix(&[0]).unwrap_or(value)),
            Shape::Ip => ip(value).map_or_else(|| hex(value), |ip| ip.to_string()),
            Shape::Link => {
                raw::number_of(value).map_or_else(|| hex(value), |index| link(index, names))
            }
            Shape::Tree => tree(value),
            Shape::Bytes => hex(value),
            Shape::Secret => format!("sum {}", blake3::hash(value)),
        }
    }
}

/// The name of a link; one that is gone, or is in another namespace, by its index.
pub(super) fn link(index: u32, names: &Names) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("link {index}"))
}

/// An address of either family.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A number in the byte order of this machine.
fn native(value: &[u8]) -> Option<u64> {
    match value.len() {
        1 => value.first().map(|b| u64::from(*b)),
        2 => <[u8; 2]>::try_from(value).ok().map(|b| u16::from_ne_bytes(b).into()),
        4 => <[u8; 4]>::try_from(value).ok().map(|b| u32::from_ne_bytes(b).into()),
        8 => <[u8; 8]>::try_from(value).ok().map(u64::from_ne_bytes),
        _ => None,
    }
}

/// A number in network byte order.
pub(super) fn network(value: &[u8]) -> Option<u64> {
    let fits = matches!(value.len(), 1 | 2 | 4 | 8);
    fits.then(|| value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes within each other as far as they are such, in the order of their kinds; text as text,
/// other bytes as digits. It need not be right about what it is: equal bytes are written equal, and
/// different ones differently.
fn tree(value: &[u8]) -> String {
    if let Some(within) = whole(value) {
        let mut found: Vec<String> =
            within.iter().map(|(kind, value)| format!("{kind}={}", tree(value))).collect();
        found.sort_unstable();
        return format!("[{}]", found.join(" "));
    }
    let text = value.strip_suffix(&[0]).unwrap_or_default();
    match text.len() > 1 && text.iter().all(u8::is_ascii_graphic) {
        true => format!("'{}'", plain(text)),
        false => hex(value),
    }
}

/// The attributes that bytes are made of to the last one, each of a kind that there is.
fn whole(value: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let found = raw::attributes(value);
    let size: usize = found.iter().map(|(_, value)| (value.len() + 4).next_multiple_of(4)).sum();
    let known = |(kind, _): &(u16, &[u8])| (1..256).contains(kind);
    (!found.is_empty() && size == value.len().next_multiple_of(4) && found.iter().all(known))
        .then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_by_their_shape() {
        let names = Names::from([(3, "eth0".to_owned())]);
        let write = |shape: Shape, value: &[u8]| shape.write(value, &names);
        assert_eq!(write(Shape::Number, &1500u32.to_ne_bytes()), "1500");
        assert_eq!(network(&[0x1f, 0x90]), Some(8080));
        assert_eq!(write(Shape::Link, &3u32.to_ne_bytes()), "eth0");
        assert_eq!(write(Shape::Link, &9u32.to_ne_bytes()), "link 9");
        assert_eq!(write(Shape::Ip, &[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(write(Shape::Text, b"a b\0"), "a b");
        assert_eq!(write(Shape::Number, &[1, 2, 3]), "010203");
        assert!(!write(Shape::Secret, b"secret").contains("secret"));
    }

    #[test]
    fn attributes_within_are_written_one_by_one() {
        let mut bytes = Vec::new();
        raw::push(&mut bytes, 2, b"veth\0");
        raw::push(&mut bytes, 1, &[1, 0, 0, 0]);
        assert_eq!(tree(&bytes), "[1=01000000 2='veth']");
        assert_eq!(tree(&[5, 0, 0, 0]), "05000000");
        assert_eq!(tree(&[]), "");
    }
}
