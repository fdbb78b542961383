//! Tracked connections with what NAT has made of them, those that are expected, and IPsec.

use super::attributes::{Names, Shape, ip, network};
use super::reader::{Reader, part};
use crate::inspect::compare::near;
use crate::inspect::state::{Class, PutBack, State, states};
use crate::sys::netlink::raw::{self, Message, Protocol, Socket};

states! { rows;
    REPLY = "conntrack.reply", PutBack::Criu, Class::Breaks,
        "a connection is not known any more, and its packets are new to the firewall";
    NAT = "conntrack.nat", PutBack::Us, Class::Breaks,
        "a connection through NAT is cut";
    ASSURED = "conntrack.assured", PutBack::Criu, Class::Bearable,
        "a connection is forgotten first when the table is full";
    PROTOCOL_STATE = "conntrack.protocol", PutBack::Criu, Class::Breaks,
        "a connection is in another state, and is forgotten sooner";
    MARK = "conntrack.mark", PutBack::Criu, Class::Breaks,
        "packets of a connection are routed or filtered in another way";
    LABELS = "conntrack.labels", PutBack::Cannot("CRIU does not restore labels"), Class::Breaks,
        "rules by labels of connections do not apply";
    HELPER = "conntrack.helper", PutBack::Criu, Class::Breaks,
        "further connections of a protocol like FTP are not let through";
    ZONE = "conntrack.zone", PutBack::Criu, Class::Breaks,
        "a connection is tracked in another zone";
    SEQUENCES = "conntrack.sequences", PutBack::Criu, Class::Breaks,
        "sequence numbers that NAT has moved are off";
    TIMEOUT = "conntrack.timeout", PutBack::Criu, Class::Varies,
        "it counts down, and restarts with each packet";
    EXPECTED = "conntrack.expected", PutBack::Criu, Class::Breaks,
        "a connection that a helper expects is not let through";

    SECURITY = "xfrm.state", PutBack::Cannot("CRIU does not save IPsec"), Class::Breaks,
        "packets are not encrypted or decrypted any more, and the peer drops them";
    POLICY = "xfrm.policy", PutBack::Cannot("CRIU does not save IPsec"), Class::Weakens,
        "packets that had to be encrypted leave in the clear";
}

/// Subsystems of nfnetlink.
const CONNTRACK: u16 = 1;
const EXPECTATIONS: u16 = 2;
const GET: u16 = 1;
/// The size of `nfgenmsg`.
const HEADER: usize = 4;
/// Attributes of a connection (linux/netfilter/nfnetlink_conntrack.h).
const ORIGINAL: u16 = 1;
const REPLIED: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const HELP: u16 = 5;
const TIMEOUT_AT: u16 = 7;
const MARKED: u16 = 8;
const ZONED: u16 = 18;
const LABELLED: u16 = 22;
const MOVED: [u16; 2] = [15, 16];
/// Status bits (linux/netfilter/nf_conntrack_common.h): what has gone both ways, what NAT does.
const SEEN_REPLY: u64 = 0x2;
const IS_ASSURED: u64 = 0x4;
const NAT_BITS: u64 = 0x10 | 0x20;
/// Of a protocol, what its packets change: windows and flags of TCP (`CTA_PROTOINFO_TCP_…`).
const TCP: u16 = 1;
const TCP_STATE: u16 = 1;

/// Questions of IPsec (linux/xfrm.h), and the sizes of `xfrm_usersa_info` and
/// `xfrm_userpolicy_info`.
const GET_STATE: u16 = 0x12;
const GET_POLICY: u16 = 0x15;
const STATE_SIZE: usize = 224;
const POLICY_SIZE: usize = 168;
/// Attributes that count: when it was used last, replay windows, lifetimes.
const XFRM_PASSING: [u16; 7] = [10, 13, 14, 15, 11, 9, 23];

/// Enters them.
pub(super) fn read(reader: &mut Reader<'_>) {
    match Socket::open(Protocol::Netfilter) {
        Ok(mut socket) => tracked(&mut socket, reader),
        Err(e) => {
            let subject = reader.subject("connections");
            reader.snapshot.miss(subject, &REPLY, e);
        }
    }
    // A kernel without IPsec has no such sockets.
    if let Ok(mut socket) = Socket::open(Protocol::Xfrm) {
        ipsec(&mut socket, reader);
    }
}

fn tracked(socket: &mut Socket, reader: &mut Reader<'_>) {
    let found = socket.dump(&Message::new(CONNTRACK << 8 | GET, [0; HEADER]));
    for connection in reader.known(found, "connections", &REPLY) {
        let original = tuple(connection.attribute(HEADER, ORIGINAL).unwrap_or_default());
        let zone = connection.attribute(HEADER, ZONED).and_then(network).unwrap_or_default();
        let zone_name = if zone == 0 { String::new() } else { format!("zone {zone}") };
        let subject = reader.subject(&part(&["connection", &original, &zone_name]));
        let mut put = |state: &'static State, value: String| {
            reader.snapshot.enter(subject.clone(), state, value)
        };
        of_connection(&connection, &mut put);
        put(&ZONE, zone.to_string());
    }
    let found = socket.dump(&Message::new(EXPECTATIONS << 8 | GET, [0; HEADER]));
    for expected in reader.known(found, "connections", &EXPECTED) {
        // Master, tuple, mask, helper, class and so on; but for the time that is left and its
        // number.
        let kept =
            expected.attributes(HEADER).into_iter().filter(|(kind, _)| ![4, 5].contains(kind));
        let words =
            kept.map(|(kind, value)| format!("{kind}={}", Shape::Tree.write(value, &Names::new())));
        let words: Vec<String> = words.collect();
        let subject = reader.subject("expected connections");
        reader.snapshot.enter(subject, &EXPECTED, words.join(" "));
    }
}

fn of_connection(connection: &Message, put: &mut dyn FnMut(&'static State, String)) {
    let attribute = |kind| connection.attribute(HEADER, kind);
    let status = attribute(STATUS).and_then(network).unwrap_or_default();
    put(&REPLY, tuple(attribute(REPLIED).unwrap_or_default()));
    put(&NAT, format!("{:#x}", status & NAT_BITS));
    put(&ASSURED, format!("{:#x}", status & (SEEN_REPLY | IS_ASSURED)));
    let protocol = attribute(PROTOINFO).unwrap_or_default();
    let state = raw::attribute(protocol, TCP)
        .and_then(|tcp| raw::attribute(tcp, TCP_STATE))
        .and_then(network);
    if let Some(state) = state {
        put(&PROTOCOL_STATE, state.to_string());
    }
    put(&MARK, attribute(MARKED).and_then(network).unwrap_or_default().to_string());
    for (kind, state) in [(HELP, &HELPER), (LABELLED, &LABELS)] {
        if let Some(value) = attribute(kind) {
            put(state, Shape::Tree.write(value, &Names::new()));
        }
    }
    let moved: Vec<String> = MOVED
        .iter()
        .filter_map(|kind| attribute(*kind))
        .map(|v| Shape::Tree.write(v, &Names::new()))
        .collect();
    put(&SEQUENCES, moved.join(" "));
    let seconds = attribute(TIMEOUT_AT).and_then(network).unwrap_or_default();
    put(&TIMEOUT, near(u32::try_from(seconds).unwrap_or(u32::MAX).into(), 1.0));
}

/// "tcp 10.0.0.1 4000 > 10.0.0.2 80".
fn tuple(tuple: &[u8]) -> String {
    let within =
        |bytes: &[u8], kind| raw::attribute(bytes, kind).map(<[u8]>::to_vec).unwrap_or_default();
    let (addresses, protocol) = (within(tuple, 1), within(tuple, 2));
    // IPv4 or IPv6, source and destination.
    let address = |four, six| {
        let bytes = raw::attribute(&addresses, four).or_else(|| raw::attribute(&addresses, six));
        bytes.and_then(ip).map_or_else(|| "none".to_owned(), |ip| ip.to_string())
    };
    let number = |kind| raw::attribute(&protocol, kind).and_then(network);
    let port = |kind| number(kind).map(|port| format!(" {port}")).unwrap_or_default();
    // Identity, type and code of ICMP, of both families.
    let icmp: Vec<String> = (4..=9).filter_map(number).map(|n| n.to_string()).collect();
    let name = match number(1) {
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(other) => format!("protocol {other}"),
        None => "any".to_owned(),
    };
    let from = format!("{}{}", address(1, 3), port(2));
    let to = format!("{}{}", address(2, 4), port(3));
    part(&[&name, &from, ">", &to, &icmp.join(" ")])
}

fn ipsec(socket: &mut Socket, reader: &mut Reader<'_>) {
    let questions =
        [(GET_STATE, &SECURITY, STATE_SIZE, "state"), (GET_POLICY, &POLICY, POLICY_SIZE, "policy")];
    for (question, state, size, word) in questions {
        // A state is asked for by nothing, a policy by an empty `xfrm_userpolicy_id`.
        let found = socket.dump(&Message::new(question, Vec::new()));
        let mut all: Vec<String> = Vec::new();
        for message in reader.known(found, "ipsec", state) {
            let kept = message
                .attributes(size)
                .into_iter()
                .filter(|(kind, _)| !XFRM_PASSING.contains(kind));
            // Keys are among them.
            let words = kept.map(|(kind, value)| {
                format!("{kind}={}", Shape::Secret.write(value, &Names::new()))
            });
            let words: Vec<String> = words.collect();
            let id: Vec<String> =
                (0..SELECTOR).step_by(4).map(|at| format!("{:08x}", message.number(at))).collect();
            all.push(format!("{} {}", id.concat(), words.join(" ")));
        }
        if !all.is_empty() {
            all.sort_unstable();
            let subject = reader.subject(&part(&["ipsec", word]));
            reader.snapshot.enter(subject, state, all.join("\n"));
        }
    }
}

/// Both begin with the selector: addresses, ports, prefixes, protocol, interface, user. A state
/// goes on with its own address, number (SPI) and protocol.
const SELECTOR: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(parts: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut made = Vec::new();
        parts.iter().for_each(|(kind, value)| raw::push(&mut made, *kind, value));
        made
    }

    #[test]
    fn a_connection_is_told_with_what_nat_has_made_of_it() {
        let addresses =
            |from: [u8; 4], to: [u8; 4]| nested(&[(1, from.to_vec()), (2, to.to_vec())]);
        let ports = |from: u16, to: u16| {
            nested(&[
                (1, vec![6]),
                (2, from.to_be_bytes().to_vec()),
                (3, to.to_be_bytes().to_vec()),
            ])
        };
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut message = Message::new(CONNTRACK << 8, [2, 0, 0, 0]);
        message.push(ORIGINAL, &nested(&[(1, addresses(client, server)), (2, ports(4000, 80))]));
        message.push(REPLIED, &nested(&[(1, addresses(server, client)), (2, ports(8080, 4000))]));
        message.push(STATUS, &0x1aeu32.to_be_bytes());
        assert_eq!(
            tuple(message.attribute(HEADER, ORIGINAL).unwrap()),
            "tcp 10.0.0.1 4000 > 10.0.0.2 80"
        );
        let mut told = Vec::new();
        of_connection(&message, &mut |state, value| told.push((state.name, value)));
        assert_eq!(told[0].1, "tcp 10.0.0.2 8080 > 10.0.0.1 4000");
        assert_eq!((told[1].1.as_str(), told[2].1.as_str()), ("0x20", "0x6"));
    }
}
