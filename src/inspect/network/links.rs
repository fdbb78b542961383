//! Interfaces with all that they have, and their addresses.

use super::attributes::{Column, Layout, Names, Shape, hex};
use super::reader::{Reader, part};
use crate::inspect::compare::near;
use crate::inspect::snapshot::{Snapshot, Subject};
use crate::inspect::state::{Class, PutBack, states};
use crate::sys::netlink::raw::{self, Message};

states! { rows;
    NUMBER = "link.index", PutBack::Criu, Class::Breaks,
        "programs that remember an interface by its number use another one";
    KIND = "link.kind", PutBack::Criu, Class::Breaks,
        "an interface is missing, or is of another kind";
    PARAMETERS = "link.parameters", PutBack::Criu, Class::Breaks,
        "a bridge, VLAN, tunnel or bond works in another way";
    PORT = "link.port", PutBack::Cannot("CRIU keeps no settings of bridge ports"), Class::Weakens,
        "a port of a bridge inside is isolated or guarded no more";
    FLAGS = "link.flags", PutBack::Criu, Class::Breaks,
        "an interface is down, or hears what is not meant for it";
    ADDRESS = "link.address", PutBack::Criu, Class::Breaks,
        "an interface has another hardware address";
    BROADCAST = "link.broadcast", PutBack::Criu, Class::Bearable,
        "an interface sends broadcasts elsewhere";
    MTU = "link.mtu", PutBack::Criu, Class::Breaks,
        "packets of another size are sent";
    LOWER = "link.lower", PutBack::Criu, Class::Breaks,
        "an interface sits on another one";
    MASTER = "link.master", PutBack::Criu, Class::Breaks,
        "an interface is no longer a port of its bridge or bond";
    QDISC = "link.qdisc", PutBack::Criu, Class::Bearable,
        "packets queue in another way";
    QUEUE_LENGTH = "link.queue-length", PutBack::Us, Class::Bearable,
        "more or fewer packets may queue";
    OPERATION = "link.operation", PutBack::Criu, Class::Varies,
        "it follows the carrier, which is off while the container stands still";
    LINK_MODE = "link.mode", PutBack::Cannot("CRIU does not save it"), Class::Bearable,
        "a supplicant does not decide any more when an interface works";
    ALIAS = "link.alias", PutBack::Us, Class::Bearable,
        "an interface has lost its description";
    GROUP = "link.group", PutBack::Us, Class::Bearable,
        "rules by groups of interfaces do not apply";
    PROMISCUITY = "link.promiscuity", PutBack::Criu, Class::Varies,
        "it counts who listens, and the flags say whether anyone does";
    ALL_MULTICAST = "link.all-multicast", PutBack::Criu, Class::Varies,
        "it counts who listens, and the flags say whether anyone does";
    TX_QUEUES = "link.tx-queues", PutBack::Us, Class::Bearable,
        "an interface sends with more or fewer queues";
    RX_QUEUES = "link.rx-queues", PutBack::Us, Class::Bearable,
        "an interface receives with more or fewer queues";
    CARRIER = "link.carrier", PutBack::Criu, Class::Varies,
        "it is off while the container stands still";
    PROTO_DOWN = "link.protodown", PutBack::Cannot("CRIU does not save it"), Class::Breaks,
        "an interface that a program keeps down works";
    SEGMENTS = "link.gso-segments", PutBack::Us, Class::Bearable,
        "larger or smaller packets are put together";
    SIZES = "link.gso-sizes", PutBack::Us, Class::Bearable,
        "larger or smaller packets are put together";
    XDP = "link.xdp", PutBack::Cannot("CRIU does not dump eBPF"), Class::Weakens,
        "a program that filters packets is gone";
    NAMES = "link.other-names", PutBack::Us, Class::Bearable,
        "an interface is not found by its other names";
    FAMILIES = "link.families", PutBack::Us, Class::Varies,
        "counters and settings per family, which are compared as sysctls";
    TOKEN = "link.token", PutBack::Cannot("CRIU does not save it"), Class::Bearable,
        "addresses by router advertisements end in other digits";
    ADDRESS_MODE = "link.address-mode", PutBack::Us, Class::Bearable,
        "link-local addresses are made in another way";
    NAMESPACE = "link.namespace", PutBack::Us, Class::Varies,
        "a number that this boot has given to the other end's namespace";
    LINK_OTHER = "link.other", PutBack::Cannot("nothing is known of it"), Class::Bearable,
        "an attribute of an interface is another one";

    ADDRESS_FLAGS = "address.flags", PutBack::Criu, Class::Bearable,
        "an address is used or checked in another way";
    ADDRESS_SCOPE = "address.scope", PutBack::Criu, Class::Bearable,
        "an address is chosen for other destinations";
    ADDRESS_PEER = "address.peer", PutBack::Criu, Class::Breaks,
        "an address is missing, or has another other end";
    ADDRESS_BROADCAST = "address.broadcast", PutBack::Criu, Class::Bearable,
        "broadcasts go elsewhere";
    ADDRESS_LABEL = "address.label", PutBack::Criu, Class::Bearable,
        "programs do not find an address by its label";
    ADDRESS_METRIC = "address.metric", PutBack::Criu, Class::Bearable,
        "the route to an address's network is preferred in another way";
    ADDRESS_ORIGIN = "address.origin", PutBack::Criu, Class::Bearable,
        "it is not known any more who has made an address";
    ADDRESS_VALID = "address.valid", PutBack::Us, Class::Bearable,
        "an address that a router or DHCP server lent is kept too long";
    ADDRESS_PREFERRED = "address.preferred", PutBack::Us, Class::Bearable,
        "an address is used for new connections too long";
    ADDRESS_OTHER = "address.other", PutBack::Cannot("nothing is known of it"), Class::Bearable,
        "an attribute of an address is another one";
}

const GET_LINK: u16 = 18;
pub(super) const NEW_LINK: u16 = 16;
const GET_ADDRESS: u16 = 22;
/// Sizes of `ifinfomsg` and `ifaddrmsg`, and where they have index and flags.
const LINK: usize = 16;
const ADDRESS_HEADER: usize = 8;
const INDEX: usize = 4;
const LINK_FLAGS: usize = 8;
/// Flags of a link that somebody sets (linux/if.h): up, debug, no trailers, without ARP,
/// promiscuous, all multicast, multicast, port selection, automatic media, dynamic.
const CHOSEN_FLAGS: u32 =
    0x1 | 0x4 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x2000 | 0x4000 | 0x8000;
/// `RTEXT_FILTER_SKIP_STATS`, `IFLA_EXT_MASK`.
const SKIP_STATS: u32 = 1 << 3;
const EXT_MASK: u16 = 29;
/// Attributes of a link that are told apart.
const IFLA_LINK: u16 = 5;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_XDP: u16 = 43;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
/// Within `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_DATA: u16 = 5;
/// What a bridge or a port of one counts or finds out: timers, ids, topology changes
/// (linux/if_link.h, `IFLA_BR_…`, `IFLA_BRPORT_…`).
const BRIDGE_PASSING: [u16; 12] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 40, 47];
const PORT_PASSING: [u16; 16] = [1, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 38, 41];
/// Within `IFLA_AF_SPEC`: IPv6 with its token and how addresses are made.
const INET6: u16 = 10;
const INET6_TOKEN: u16 = 7;
const INET6_MODE: u16 = 8;

static LINK_LAYOUT: Layout = Layout {
    header: LINK,
    columns: &[
        Column(1, &ADDRESS, Shape::Bytes),
        Column(2, &BROADCAST, Shape::Bytes),
        Column(4, &MTU, Shape::Number),
        Column(6, &QDISC, Shape::Text),
        Column(10, &MASTER, Shape::Link),
        Column(13, &QUEUE_LENGTH, Shape::Number),
        Column(16, &OPERATION, Shape::Number),
        Column(17, &LINK_MODE, Shape::Number),
        Column(20, &ALIAS, Shape::Text),
        Column(27, &GROUP, Shape::Number),
        Column(30, &PROMISCUITY, Shape::Number),
        Column(31, &TX_QUEUES, Shape::Number),
        Column(32, &RX_QUEUES, Shape::Number),
        Column(33, &CARRIER, Shape::Number),
        Column(IFLA_LINK_NETNSID, &NAMESPACE, Shape::Number),
        Column(39, &PROTO_DOWN, Shape::Number),
        Column(40, &SEGMENTS, Shape::Number),
        Column(61, &ALL_MULTICAST, Shape::Number),
    ],
    // Names, counters (7, 23, 35, 47, 48), the map of hardware, what the device can do at most (50,
    // 51, 59, 60, 62), who has moved it here (45, 46), how it is told.
    ignored: &[
        IFLA_IFNAME,
        IFLA_LINK,
        7,
        14,
        IFLA_LINKINFO,
        23,
        IFLA_AF_SPEC,
        EXT_MASK,
        35,
        IFLA_XDP,
        45,
        46,
        47,
        48,
        50,
        51,
        IFLA_PROP_LIST,
        53,
        54,
        58,
        59,
        60,
        63,
        64,
        41,
    ],
    rest: &LINK_OTHER,
};
/// Limits of what is put together: for both families and for IPv4, sent and received.
const SIZE_ATTRIBUTES: [u16; 4] = [41, 58, 63, 64];

/// Attributes of an address (linux/if_addr.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
/// Flags that pass: optimistic, tentative; and permanent, which follows the lifetime.
const PASSING_FLAGS: u32 = 0x04 | 0x40;
/// A lifetime without an end.
const FOR_EVER: u32 = u32::MAX;
/// How far a lifetime may be off, in seconds.
const LIFETIME_TOLERANCE: f64 = 30.0;

static ADDRESS_LAYOUT: Layout = Layout {
    header: ADDRESS_HEADER,
    columns: &[
        Column(IFA_ADDRESS, &ADDRESS_PEER, Shape::Ip),
        Column(3, &ADDRESS_LABEL, Shape::Text),
        Column(4, &ADDRESS_BROADCAST, Shape::Ip),
        Column(9, &ADDRESS_METRIC, Shape::Number),
        Column(11, &ADDRESS_ORIGIN, Shape::Number),
    ],
    ignored: &[IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS],
    rest: &ADDRESS_OTHER,
};

/// The links of this thread's network namespace.
pub(super) fn list(reader: &mut Reader<'_>) -> Vec<Message> {
    let mut question = Message::new(GET_LINK, [0; LINK]);
    question.push(EXT_MASK, &SKIP_STATS.to_ne_bytes());
    reader.dump(&question, "links", &KIND)
}

/// The names of links.
pub(super) fn names(links: &[Message]) -> Names {
    let name = |link: &Message| {
        let name = link.attribute(LINK, IFLA_IFNAME)?;
        Some((link.number(INDEX), Shape::Text.write(name, &Names::new())))
    };
    links.iter().filter(|link| link.kind() == NEW_LINK).filter_map(name).collect()
}

/// Enters links and addresses.
pub(super) fn read(links: &[Message], reader: &mut Reader<'_>) {
    for link in links.iter().filter(|link| link.kind() == NEW_LINK) {
        let subject = reader.subject(&part(&[&reader.link(link.number(INDEX))]));
        of_link(link, &subject, &reader.names, reader.snapshot);
    }
    let question = Message::new(GET_ADDRESS, [0; ADDRESS_HEADER]);
    for address in reader.dump(&question, "addresses", &ADDRESS_PEER) {
        let own = address
            .attribute(ADDRESS_HEADER, IFA_LOCAL)
            .or(address.attribute(ADDRESS_HEADER, IFA_ADDRESS));
        let own = Shape::Ip.write(own.unwrap_or_default(), &reader.names);
        let length = address.byte(1);
        let subject = reader
            .subject(&part(&[&reader.link(address.number(INDEX)), &format!("{own}/{length}")]));
        ADDRESS_LAYOUT.enter(&address, &subject, &reader.names, reader.snapshot);
        of_address(&address, &subject, reader.snapshot);
    }
}

fn of_link(link: &Message, subject: &Subject, names: &Names, snapshot: &mut Snapshot) {
    LINK_LAYOUT.enter(link, subject, names, snapshot);
    let mut put = |state, value: String| snapshot.enter(subject.clone(), state, value);
    put(&NUMBER, link.number(INDEX).to_string());
    put(&FLAGS, format!("{:#x}", link.number(LINK_FLAGS) & CHOSEN_FLAGS));
    let lower = link.attribute(LINK, IFLA_LINK);
    let is_elsewhere = link.attribute(LINK, IFLA_LINK_NETNSID).is_some();
    put(
        &LOWER,
        match lower {
            Some(_) if is_elsewhere => "in another namespace".to_owned(),
            Some(index) => Shape::Link.write(index, names),
            None => "none".to_owned(),
        },
    );
    let sizes = SIZE_ATTRIBUTES.iter().filter_map(|kind| link.attribute_number(LINK, *kind));
    put(&SIZES, sizes.map(|size| size.to_string()).collect::<Vec<_>>().join(" "));
    info(link.attribute(LINK, IFLA_LINKINFO).unwrap_or_default(), &mut put);
    let xdp = link.attribute(LINK, IFLA_XDP).map(raw::attributes).unwrap_or_default();
    // Its mode is 0 where there is none; the number of a program is this boot's.
    let mode = xdp.iter().find(|(kind, _)| *kind == 2).map(|(_, mode)| hex(mode));
    put(&XDP, mode.unwrap_or_else(|| "none".to_owned()));
    let others = link.attribute(LINK, IFLA_PROP_LIST).map(raw::attributes).unwrap_or_default();
    let mut others: Vec<String> =
        others.iter().map(|(_, name)| Shape::Text.write(name, names)).collect();
    others.sort_unstable();
    put(&NAMES, others.join(" "));
    let families = link.attribute(LINK, IFLA_AF_SPEC).map(raw::attributes).unwrap_or_default();
    let inet6 = families
        .iter()
        .find(|(kind, _)| *kind == INET6)
        .map(|(_, value)| *value)
        .unwrap_or_default();
    put(&FAMILIES, families.iter().map(|(kind, _)| kind.to_string()).collect::<Vec<_>>().join(" "));
    for (kind, state, shape) in
        [(INET6_TOKEN, &TOKEN, Shape::Ip), (INET6_MODE, &ADDRESS_MODE, Shape::Number)]
    {
        if let Some(value) = raw::attribute(inet6, kind) {
            put(state, shape.write(value, names));
        }
    }
}

/// Of what kind it is, and what only that kind has.
fn info(info: &[u8], put: &mut dyn FnMut(&'static crate::inspect::state::State, String)) {
    let kind = raw::attribute(info, INFO_KIND).map(|kind| Shape::Text.write(kind, &Names::new()));
    let kind = kind.unwrap_or_else(|| "physical".to_owned());
    let quiet = |data: &[u8], passing: &[u16]| {
        let kept =
            raw::changed(data, |kind, value| (!passing.contains(&kind)).then(|| value.to_vec()));
        Shape::Tree.write(&kept, &Names::new())
    };
    if let Some(data) = raw::attribute(info, INFO_DATA) {
        put(&PARAMETERS, quiet(data, if kind == "bridge" { &BRIDGE_PASSING } else { &[] }));
    }
    if let Some(data) = raw::attribute(info, INFO_SLAVE_DATA) {
        put(&PORT, quiet(data, &PORT_PASSING));
    }
    put(&KIND, kind);
}

fn of_address(address: &Message, subject: &Subject, snapshot: &mut Snapshot) {
    let mut put = |state, value: String| snapshot.enter(subject.clone(), state, value);
    let flags = address
        .attribute_number(ADDRESS_HEADER, IFA_FLAGS)
        .unwrap_or_else(|| address.byte(2).into());
    put(&ADDRESS_FLAGS, format!("{:#x}", flags & !PASSING_FLAGS));
    put(&ADDRESS_SCOPE, address.byte(3).to_string());
    // `ifa_cacheinfo`: preferred and valid, in seconds, then when it was made and changed.
    let times = address.attribute(ADDRESS_HEADER, IFA_CACHEINFO).unwrap_or_default();
    let lifetime = |at: usize| match times.get(at..).and_then(raw::number_of) {
        None | Some(FOR_EVER) => "for ever".to_owned(),
        Some(seconds) => near(seconds.into(), LIFETIME_TOLERANCE),
    };
    put(&ADDRESS_PREFERRED, lifetime(0));
    put(&ADDRESS_VALID, lifetime(4));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_has_is_told_apart() {
        let mut link = Message::new(NEW_LINK, [0; LINK]);
        link.set_number(INDEX, 2);
        link.set_number(LINK_FLAGS, 0x11043);
        link.push(IFLA_IFNAME, b"eth0\0");
        link.push(IFLA_LINK, &9u32.to_ne_bytes());
        link.push(IFLA_LINK_NETNSID, &0u32.to_ne_bytes());
        let mut info = Vec::new();
        raw::push(&mut info, INFO_KIND, b"veth");
        link.push(IFLA_LINKINFO, &info);
        link.push(20, b"uplink");
        link.push(200, &[1]);
        let names = names(std::slice::from_ref(&link));
        let subject = Subject::Network { pid: 1, part: "eth0".to_owned() };
        let mut snapshot = Snapshot::new();
        of_link(&link, &subject, &names, &mut snapshot);
        let value = |state| snapshot.value(&subject, state);
        assert_eq!((value(&KIND), value(&LOWER)), (Some("veth"), Some("in another namespace")));
        assert_eq!((value(&FLAGS), value(&ALIAS)), (Some("0x1001"), Some("uplink")));
        assert_eq!(value(&LINK_OTHER), Some("200=01"));
    }

    #[test]
    fn lifetimes_are_times() {
        let mut address = Message::new(20, [10, 64, 0, 0, 0, 0, 0, 0]);
        address.push(IFA_FLAGS, &0x141u32.to_ne_bytes());
        address.push(IFA_CACHEINFO, &[600u32, FOR_EVER, 1, 1].map(u32::to_ne_bytes).concat());
        let subject = Subject::Network { pid: 1, part: "a".to_owned() };
        let mut snapshot = Snapshot::new();
        of_address(&address, &subject, &mut snapshot);
        assert_eq!(snapshot.value(&subject, &ADDRESS_PREFERRED), Some(near(600.0, 30.0).as_str()));
        assert_eq!(snapshot.value(&subject, &ADDRESS_VALID), Some("for ever"));
        assert_eq!(snapshot.value(&subject, &ADDRESS_FLAGS), Some("0x101"));
    }
}
