//! How packets queue at links (qdiscs, classes, filters, chains), and what bridges inside know:
//! hosts, groups, VLANs.

use std::collections::BTreeSet;

use super::attributes::{Column, Layout, Names, Shape, hex};
use super::reader::{Reader, part};
use crate::inspect::state::{Class, PutBack, State, states};
use crate::sys::netlink::raw::{self, Message};

states! { rows;
    QDISC = "qdisc.kind", PutBack::Us, Class::Breaks,
        "packets are not shaped or spread as before";
    QDISC_OPTIONS = "qdisc.options", PutBack::Us, Class::Breaks,
        "packets are shaped by other numbers";
    CLASS = "qdisc.class", PutBack::Us, Class::Breaks,
        "packets are shaped by other classes";
    FILTER = "qdisc.filter", PutBack::Us, Class::Weakens,
        "packets that were dropped, redirected or marked pass";
    CHAIN = "qdisc.chain", PutBack::Cannot("CRIU does not save queueing"), Class::Bearable,
        "chains of filters have no template any more";
    QUEUE_OTHER = "qdisc.other", PutBack::Cannot("nothing is known of it"), Class::Bearable,
        "an attribute of queueing is another one";

    BRIDGE_HOST = "bridge.host", PutBack::Us, Class::Breaks,
        "a bridge inside sends to a host by another port";
    BRIDGE_GROUP = "bridge.group", PutBack::Us, Class::Breaks,
        "a bridge inside sends to a group by other ports";
    BRIDGE_VLANS = "bridge.vlans", PutBack::Cannot("CRIU does not save VLANs of ports"), Class::Weakens,
        "ports of a bridge inside are in other VLANs";
}

const GET_QDISC: u16 = 38;
const GET_CLASS: u16 = 42;
const GET_FILTER: u16 = 46;
const GET_CHAIN: u16 = 102;
const GET_LINK: u16 = 18;
const GET_NEIGHBOUR: u16 = 30;
const GET_MDB: u16 = 86;
/// `tcmsg`: family, padding, index, handle, parent, info.
const HEADER: usize = 20;
const INDEX: usize = 4;
const HANDLE: usize = 8;
const PARENT: usize = 12;
const INFO: usize = 16;
/// The ends of `ingress` and `clsact` at which filters hang.
const INGRESS_ENDS: [u32; 3] = [0xffff_0000, 0xffff_fff2, 0xffff_fff3];
/// `TCA_STATS`, `TCA_XSTATS`, `TCA_RATE`, `TCA_FCNT`, `TCA_STATS2`, `TCA_PAD`, `TCA_HW_OFFLOAD`.
const COUNTERS: &[u16] = &[3, 4, 5, 6, 7, 9, 12];
/// Within `TCA_OPTIONS` of filters: when each was used last, in the structure `tcf_t`, which ends
/// actions.
const TIMES: usize = 32;

static QDISC_LAYOUT: Layout = Layout {
    header: HEADER,
    columns: &[Column(1, &QDISC, Shape::Text), Column(2, &QDISC_OPTIONS, Shape::Tree)],
    ignored: COUNTERS,
    rest: &QUEUE_OTHER,
};
static CLASS_LAYOUT: Layout = Layout {
    header: HEADER,
    columns: &[Column(1, &CLASS, Shape::Text), Column(2, &CLASS, Shape::Tree)],
    ignored: COUNTERS,
    rest: &QUEUE_OTHER,
};
static CHAIN_LAYOUT: Layout = Layout {
    header: HEADER,
    columns: &[Column(1, &CHAIN, Shape::Text), Column(2, &CHAIN, Shape::Tree)],
    ignored: COUNTERS,
    rest: &QUEUE_OTHER,
};

/// The size of `ifinfomsg`; `IFLA_EXT_MASK` with `RTEXT_FILTER_BRVLAN`; `IFLA_AF_SPEC`.
const LINK: usize = 16;
const EXT_MASK: u16 = 29;
const WITH_VLANS: u32 = 1 << 1;
const AF_SPEC: u16 = 26;
const AF_BRIDGE: u8 = 7;
/// The size of `ndmsg`, where it has state and flags, and what it says of a host.
const NEIGHBOUR: usize = 12;
const STATE: usize = 8;
const CHOSEN_STATES: u8 = 0x80 | 0x40;
/// The size of `br_port_msg`, and `MDBA_MDB`.
const MDB: usize = 8;

/// Enters them.
pub(super) fn read(reader: &mut Reader<'_>) {
    let qdiscs = reader.dump(&question(GET_QDISC, 0, 0), "queueing", &QDISC);
    let mut ends: BTreeSet<(u32, u32)> = BTreeSet::new();
    for qdisc in &qdiscs {
        let handle = qdisc.number(HANDLE);
        let subject = reader.subject(&name("qdisc", qdisc, reader));
        QDISC_LAYOUT.enter(qdisc, &subject, &reader.names, reader.snapshot);
        if handle != 0 {
            let index = qdisc.number(INDEX);
            ends.insert((index, handle));
            ends.extend(INGRESS_ENDS.map(|end| (index, end)));
        }
    }
    let links: BTreeSet<u32> = ends.iter().map(|(index, _)| *index).collect();
    for index in &links {
        let classes = reader.dump(&question(GET_CLASS, *index, 0), "queueing", &CLASS);
        for class in classes.iter().filter(|m| m.number(INDEX) == *index) {
            ends.insert((*index, class.number(HANDLE)));
            let subject = reader.subject(&name("class", class, reader));
            CLASS_LAYOUT.enter(class, &subject, &reader.names, reader.snapshot);
        }
    }
    for (index, end) in &ends {
        filters(*index, *end, reader);
    }
    bridges(reader);
}

fn question(kind: u16, index: u32, parent: u32) -> Message {
    let mut message = Message::new(kind, [0; HEADER]);
    message.set_number(INDEX, index);
    message.set_number(PARENT, parent);
    message
}

/// "eth0 qdisc 1: at ffffffff".
fn name(word: &str, message: &Message, reader: &Reader<'_>) -> String {
    let handle = message.number(HANDLE);
    let handle = format!("{:x}:{:x}", handle >> 16, handle & 0xffff);
    let at = format!("at {:x}", message.number(PARENT));
    part(&[&reader.link(message.number(INDEX)), word, &handle, &at])
}

fn filters(index: u32, end: u32, reader: &mut Reader<'_>) {
    let mut seen = BTreeSet::new();
    for filter in reader.dump(&question(GET_FILTER, index, end), "queueing", &FILTER) {
        let options = filter.attribute(HEADER, 2).map(without_times).unwrap_or_default();
        let kind =
            Shape::Text.write(filter.attribute(HEADER, 1).unwrap_or_default(), &reader.names);
        let chain = hex(filter.attribute(HEADER, 11).unwrap_or_default());
        let value = format!("{:x} chain {chain} {kind} {options}", filter.number(INFO));
        // Several ends lead to the same filters.
        if seen.insert(value.clone()) {
            let subject = reader.subject(&name("filter", &filter, reader));
            reader.snapshot.enter(subject, &FILTER, value);
        }
    }
    for chain in reader.dump(&question(GET_CHAIN, index, end), "queueing", &CHAIN) {
        let subject = reader.subject(&name("chain", &chain, reader));
        CHAIN_LAYOUT.enter(&chain, &subject, &reader.names, reader.snapshot);
    }
}

/// Options of a filter without what its actions count and when they were used.
fn without_times(options: &[u8]) -> String {
    fn quiet(bytes: &[u8], depth: u32) -> Vec<u8> {
        raw::changed(bytes, |kind, value| match () {
            // `TCA_ACT_STATS`, `TCA_ACT_PAD` and structures of times.
            () if depth > 0 && matches!(kind, 4 | 5) && value.len() > TIMES => None,
            () if value.len() == TIMES => None,
            () if depth < 4 && value.len() > 8 && looks_nested(value) => {
                Some(quiet(value, depth + 1))
            }
            () => Some(value.to_vec()),
        })
    }
    Shape::Tree.write(&quiet(options, 0), &Names::new())
}

fn looks_nested(value: &[u8]) -> bool {
    let found = raw::attributes(value);
    let size: usize = found.iter().map(|(_, v)| (v.len() + 4).next_multiple_of(4)).sum();
    !found.is_empty() && size == value.len().next_multiple_of(4)
}

fn bridges(reader: &mut Reader<'_>) {
    let mut hosts = Message::new(GET_NEIGHBOUR, [0; NEIGHBOUR]);
    hosts.set_byte(0, AF_BRIDGE);
    for host in reader.dump(&hosts, "bridges", &BRIDGE_HOST) {
        // What a bridge has learned it learns again.
        if host.byte(STATE) & CHOSEN_STATES == 0 {
            continue;
        }
        let address = hex(host.attribute(NEIGHBOUR, 2).unwrap_or_default());
        let vlan = host
            .attribute(NEIGHBOUR, 5)
            .map(|v| Shape::Number.write(v, &reader.names))
            .unwrap_or_default();
        let subject =
            reader.subject(&part(&["host", &address, &reader.link(host.number(INDEX)), &vlan]));
        enter(
            reader,
            subject,
            &BRIDGE_HOST,
            format!("{:x} {:x}", host.byte(STATE), host.byte(STATE + 2)),
        );
    }
    let mut groups = Message::new(GET_MDB, [0; MDB]);
    groups.set_byte(0, AF_BRIDGE);
    for bridge in reader.dump(&groups, "bridges", &BRIDGE_GROUP) {
        let entries = bridge.attribute(MDB, 1).map(raw::attributes).unwrap_or_default();
        for (_, entry) in entries.iter().flat_map(|(_, entry)| raw::attributes(entry)) {
            // `br_mdb_entry`: port, state, flags, VLAN, address. Those that are not permanent were
            // learned.
            if let (Some(port), Some(1)) = (raw::number_of(entry), entry.get(4).copied()) {
                let group = hex(entry.get(6..28).unwrap_or_default());
                let subject = reader.subject(&part(&["group", &group, &reader.link(port)]));
                enter(reader, subject, &BRIDGE_GROUP, "permanent".to_owned());
            }
        }
    }
    let mut vlans = Message::new(GET_LINK, [0; LINK]);
    vlans.set_byte(0, AF_BRIDGE);
    vlans.push(EXT_MASK, &WITH_VLANS.to_ne_bytes());
    for port in reader.dump(&vlans, "bridges", &BRIDGE_VLANS) {
        if let Some(told) = port.attribute(LINK, AF_SPEC) {
            let subject = reader.subject(&reader.link(port.number(INDEX)));
            let told = Shape::Tree.write(told, &reader.names);
            enter(reader, subject, &BRIDGE_VLANS, told);
        }
    }
}

fn enter(
    reader: &mut Reader<'_>,
    subject: crate::inspect::snapshot::Subject,
    state: &'static State,
    value: String,
) {
    reader.snapshot.enter(subject, state, value);
}
