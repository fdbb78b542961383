//! Tracked connections through NAT.
//!
//! The kernel tells of such a connection which addresses packets have on each side, and takes from
//! that no NAT: a connection that is given back as it was told (as CRIU does it) is one of other
//! addresses, and its packets pass unchanged. NAT is asked for by attributes of its own when the
//! connection is made; so the one that CRIU has made is deleted, and made again.

use crate::sys::netlink::Error;
use crate::sys::netlink::raw::{self, EXCLUSIVE, Message, NESTED, Protocol, Socket};

/// `NFNL_SUBSYS_CTNETLINK`, and its messages.
const NEW: u16 = 0x100;
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
/// The size of `nfgenmsg`.
const HEADER: usize = 4;
/// Attributes of a connection (linux/netfilter/nfnetlink_conntrack.h).
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const NAT_SOURCE: u16 = 6;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const NAT_DESTINATION: u16 = 13;
const SEQUENCE_ORIGINAL: u16 = 15;
const SEQUENCE_REPLY: u16 = 16;
const ZONE: u16 = 18;
const LABELS: u16 = 22;
/// Those that are kept.
const KEPT: [u16; 10] = [
    ORIGINAL,
    REPLY,
    STATUS,
    PROTOINFO,
    TIMEOUT,
    MARK,
    SEQUENCE_ORIGINAL,
    SEQUENCE_REPLY,
    ZONE,
    LABELS,
];
/// Those that name it.
const NAMES: [u16; 2] = [ORIGINAL, ZONE];
/// Status bits (linux/netfilter/nf_conntrack_common.h): confirmed, its source is changed, its
/// destination.
const CONFIRMED: u32 = 0x8;
const SOURCE_CHANGED: u32 = 0x10;
const DESTINATION_CHANGED: u32 = 0x20;
/// Those that can be given to a new one: seen both ways, assured, confirmed, of a fixed timeout.
const GIVEN: u32 = 0x2 | 0x4 | CONFIRMED | 0x400;
/// Of a tuple: addresses and protocol.
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
/// Of addresses: source and destination, of IPv4 and IPv6.
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
/// Of a protocol: its number, ports; id, type and code of ICMP, for IPv4 and IPv6.
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// Of NAT: the lowest and highest address (the numbers of IPv6's follow IPv4's), ports.
const LOWEST: [u16; 2] = [1, 4];
const HIGHEST: [u16; 2] = [2, 5];
const PORTS: u16 = 3;
const LOWEST_PORT: u16 = 1;
const HIGHEST_PORT: u16 = 2;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: windows are not known any more, so any are right. Of TCP's flags:
/// value and mask.
const TCP: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];
const LIBERAL: u8 = 0x08;

/// The connections of this thread's network namespace that NAT changes.
pub(super) fn read() -> Result<Vec<Message>, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let all = match socket.dump(&Message::new(GET, [0; HEADER])) {
        // A kernel without them.
        Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) => {
            Vec::new()
        }
        other => other?,
    };
    let through = |m: &&Message| status(m) & (SOURCE_CHANGED | DESTINATION_CHANGED) != 0;
    let kept =
        |m: &Message| m.changed(HEADER, |kind, value| KEPT.contains(&kind).then(|| value.to_vec()));
    Ok(all.iter().filter(through).map(kept).collect())
}

/// Makes them again with NAT.
pub(super) fn put_back(connections: &[Message], note: &mut dyn FnMut(&str, Result<(), Error>)) {
    let mut socket = match Socket::open(Protocol::Netfilter) {
        Ok(socket) => socket,
        Err(e) => return note("connections through NAT", Err(e)),
    };
    for connection in connections {
        let name =
            connection.changed(HEADER, |kind, value| NAMES.contains(&kind).then(|| value.to_vec()));
        let gone = match socket.change(&name.of_kind(DELETE), 0) {
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        };
        let made = gone.and_then(|()| socket.change(&with_nat(connection), EXCLUSIVE));
        note("a connection through NAT", made);
    }
}

fn status(connection: &Message) -> u32 {
    let bytes = connection.attribute(HEADER, STATUS).and_then(|bytes| bytes.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// A connection as the kernel makes one with NAT: with the reply that there would be without, and
/// what is changed.
fn with_nat(connection: &Message) -> Message {
    let attribute = |kind| connection.attribute(HEADER, kind).unwrap_or_default();
    let (original, reply) = (attribute(ORIGINAL), attribute(REPLY));
    let mut made = connection.of_kind(NEW).changed(HEADER, |kind, value| match kind {
        REPLY => Some(inverse(original)),
        STATUS => Some(((status(connection) & GIVEN) | CONFIRMED).to_be_bytes().to_vec()),
        PROTOINFO => Some(liberal(value)),
        _ => Some(value.to_vec()),
    });
    // Who is answered is who had asked, but for NAT: the answer goes to the changed source, and
    // comes from the changed destination.
    if status(connection) & SOURCE_CHANGED != 0 {
        made.push(NAT_SOURCE | NESTED, &change(reply, DESTINATIONS, DESTINATION_PORT));
    }
    if status(connection) & DESTINATION_CHANGED != 0 {
        made.push(NAT_DESTINATION | NESTED, &change(reply, SOURCES, SOURCE_PORT));
    }
    made
}

/// A tuple with both sides exchanged. (Of ICMP it is the same: the kernel inverts the type by
/// itself.)
fn inverse(tuple: &[u8]) -> Vec<u8> {
    let exchange = |value: &[u8], pairs: &[(u16, u16)]| -> Vec<u8> {
        let mut made = Vec::new();
        let mut parts: Vec<(u16, &[u8])> = raw::attributes(value)
            .into_iter()
            .map(|(kind, value)| {
                let other = pairs.iter().find_map(|(a, b)| match kind {
                    k if k == *a => Some(*b),
                    k if k == *b => Some(*a),
                    _ => None,
                });
                (other.unwrap_or(kind), value)
            })
            .collect();
        parts.sort_by_key(|(kind, _)| *kind);
        parts.iter().for_each(|(kind, value)| raw::push(&mut made, *kind, value));
        made
    };
    raw::changed(tuple, |kind, value| match kind {
        ADDRESSES => Some(exchange(value, &[(1, 2), (3, 4)])),
        PROTOCOL => Some(exchange(value, &[(SOURCE_PORT, DESTINATION_PORT)])),
        _ => Some(value.to_vec()),
    })
}

/// What an address and a port are changed into.
fn change(reply: &[u8], addresses: [u16; 2], port: u16) -> Vec<u8> {
    let within = |kind| raw::attribute(reply, kind).unwrap_or_default();
    let mut made = Vec::new();
    for (at, kind) in addresses.iter().enumerate() {
        if let Some(address) = raw::attribute(within(ADDRESSES), *kind) {
            let (Some(lowest), Some(highest)) = (LOWEST.get(at), HIGHEST.get(at)) else { continue };
            raw::push(&mut made, *lowest, address);
            raw::push(&mut made, *highest, address);
        }
    }
    if let Some(port) = raw::attribute(within(PROTOCOL), port) {
        let mut ports = Vec::new();
        raw::push(&mut ports, LOWEST_PORT, port);
        raw::push(&mut ports, HIGHEST_PORT, port);
        raw::push(&mut made, PORTS | NESTED, &ports);
    }
    made
}

/// The state of a protocol; TCP with windows of any size, for those of the connection are not told.
fn liberal(protocol: &[u8]) -> Vec<u8> {
    raw::changed(protocol, |kind, value| match kind {
        TCP => Some(raw::changed(value, |kind, flags| match flags {
            [value, mask] if TCP_FLAGS.contains(&kind) => {
                Some(vec![value | LIBERAL, mask | LIBERAL])
            }
            other => Some(other.to_vec()),
        })),
        _ => Some(value.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(parts: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut made = Vec::new();
        parts.iter().for_each(|(kind, value)| raw::push(&mut made, *kind, value));
        made
    }

    fn tuple(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let port = |port: u16| port.to_be_bytes().to_vec();
        let addresses = nested(&[(1, from.0.to_vec()), (2, to.0.to_vec())]);
        nested(&[(1, addresses), (2, nested(&[(1, vec![6]), (2, port(from.1)), (3, port(to.1))]))])
    }

    #[test]
    fn a_redirected_connection_is_made_with_its_nat() {
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut connection = Message::new(NEW, [2, 0, 0, 0]);
        connection.push(ORIGINAL, &tuple((client, 4000), (server, 80)));
        connection.push(REPLY, &tuple((server, 8080), (client, 4000)));
        connection.push(STATUS, &0x1aeu32.to_be_bytes());
        let made = with_nat(&connection);
        assert_eq!(made.attribute(HEADER, REPLY), Some(&tuple((server, 80), (client, 4000))[..]));
        assert_eq!(status(&made), 0xe);
        assert_eq!(made.attribute(HEADER, NAT_SOURCE), None);
        let to = made.attribute(HEADER, NAT_DESTINATION).unwrap();
        assert_eq!(raw::attribute(to, 1), Some(&server[..]));
        let ports = raw::attribute(to, PORTS).unwrap();
        assert_eq!(raw::attribute(ports, LOWEST_PORT), Some(&8080u16.to_be_bytes()[..]));
    }
}
