//! Routes of all tables, the gateways that they name by a number (nexthop objects), the rules that
//! lead to tables, and neighbours.

use super::attributes::{Column, Layout, Names, Shape, hex, ip};
use super::reader::{Reader, part};
use crate::inspect::compare::near;
use crate::inspect::snapshot::{Snapshot, Subject};
use crate::inspect::state::{Class, PutBack, states};
use crate::sys::netlink::raw::{self, Message};

states! { rows;
    ROUTE_TYPE = "route.type", PutBack::Us, Class::Breaks,
        "a route is missing, or lets packets pass or forbids them otherwise";
    ROUTE_SCOPE = "route.scope", PutBack::Us, Class::Bearable,
        "a route is used for other destinations";
    ROUTE_ORIGIN = "route.protocol", PutBack::Us, Class::Bearable,
        "a routing daemon does not know its own routes";
    ROUTE_FLAGS = "route.flags", PutBack::Us, Class::Breaks,
        "a gateway is looked for in another way";
    ROUTE_STATE = "route.state", PutBack::Us, Class::Varies,
        "whether a link has a carrier or hardware has taken a route over";
    GATEWAY = "route.gateway", PutBack::Us, Class::Breaks,
        "packets go to another gateway";
    DEVICE = "route.device", PutBack::Us, Class::Breaks,
        "packets leave by another interface";
    PREFERRED_SOURCE = "route.source", PutBack::Us, Class::Breaks,
        "packets leave with another source address";
    METRICS = "route.metrics", PutBack::Us, Class::Breaks,
        "packets on a route have another size, or TCP another window";
    WAYS = "route.ways", PutBack::Us, Class::Breaks,
        "packets are spread over other ways";
    ENCAPSULATION = "route.encapsulation", PutBack::Us, Class::Breaks,
        "packets are not put into a tunnel";
    EXPIRES = "route.expires", PutBack::Us, Class::Breaks,
        "a route outlives the router that has announced it, or goes too early";
    PREFERENCE = "route.preference", PutBack::Us, Class::Bearable,
        "another router is preferred";
    BY_NEXTHOP = "route.nexthop", PutBack::Us, Class::Breaks,
        "a route does not follow its nexthop object any more";
    REALM = "route.realm", PutBack::Us, Class::Bearable,
        "filters by realms do not apply";
    ROUTE_OTHER = "route.other", PutBack::Us, Class::Bearable,
        "an attribute of a route is another one";

    NEXTHOP = "nexthop.gateway", PutBack::Us, Class::Breaks,
        "a nexthop object is missing, or leads elsewhere";
    NEXTHOP_DEVICE = "nexthop.device", PutBack::Us, Class::Breaks,
        "packets leave by another interface";
    NEXTHOP_GROUP = "nexthop.group", PutBack::Us, Class::Breaks,
        "packets are spread over other nexthops";
    NEXTHOP_GROUP_TYPE = "nexthop.group-type", PutBack::Us, Class::Breaks,
        "packets are spread over nexthops in another way";
    NEXTHOP_BLACKHOLE = "nexthop.blackhole", PutBack::Us, Class::Weakens,
        "packets that were thrown away pass";
    NEXTHOP_ENCAPSULATION = "nexthop.encapsulation", PutBack::Us, Class::Breaks,
        "packets are not put into a tunnel";
    NEXTHOP_ORIGIN = "nexthop.protocol", PutBack::Us, Class::Bearable,
        "a routing daemon does not know its own nexthops";
    NEXTHOP_FLAGS = "nexthop.flags", PutBack::Us, Class::Breaks,
        "a gateway is looked for in another way";
    NEXTHOP_OTHER = "nexthop.other", PutBack::Us, Class::Bearable,
        "an attribute of a nexthop object is another one";

    RULE = "rule.action", PutBack::Us, Class::Breaks,
        "a policy rule is missing, or does something else";
    RULE_TABLE = "rule.table", PutBack::Us, Class::Breaks,
        "packets are routed by another table";
    RULE_SELECTOR = "rule.selector", PutBack::Us, Class::Breaks,
        "a policy rule is for other packets";
    RULE_ORIGIN = "rule.protocol", PutBack::Us, Class::Bearable,
        "a routing daemon does not know its own rules";
    RULE_OTHER = "rule.other", PutBack::Us, Class::Breaks,
        "an attribute of a policy rule is another one";

    NEIGHBOUR = "neighbour.address", PutBack::Us, Class::Breaks,
        "a neighbour that an administrator has named is found under another address, or not at all";
    NEIGHBOUR_PROXY = "neighbour.proxy", PutBack::Us, Class::Breaks,
        "the container does not answer for another host any more";
    NEIGHBOUR_ORIGIN = "neighbour.protocol", PutBack::Us, Class::Bearable,
        "a routing daemon does not know its own neighbours";
    NEIGHBOUR_LEARNED = "neighbour.learned", PutBack::Cannot("the kernel finds them again"), Class::Varies,
        "what the kernel has found out by itself it finds again";
}

const GET_ROUTE: u16 = 26;
const GET_NEIGHBOUR: u16 = 30;
const GET_RULE: u16 = 34;
const GET_NEXTHOP: u16 = 106;

/// `rtmsg`: family, length of destination, of source, tos, table, protocol, scope, type, flags.
const ROUTE: usize = 12;
const ROUTE_FLAG_BITS: usize = 8;
/// `RTM_F_CLONED`; and what tells a state: dead, offloaded, link down, trapped (linux/rtnetlink.h).
const CLONED: u32 = 0x200;
const STATES: u32 = 0x1 | 0x8 | 0x10 | 0x20 | 0x40 | 0x2000_0000;
/// `RT_TABLE_LOCAL`, `RTPROT_KERNEL`.
const LOCAL: u8 = 255;
const BY_KERNEL: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
/// `rtnexthop`: length (16 bits), flags, hops, index.
const HOP: usize = 8;
/// Ticks of a lifetime in a second (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Where `rta_cacheinfo` has a lifetime, in ticks.
const EXPIRES_AT: usize = 8;
/// How far a lifetime may be off, in seconds.
const LIFETIME_TOLERANCE: f64 = 30.0;

static ROUTE_LAYOUT: Layout = Layout {
    header: ROUTE,
    columns: &[
        Column(4, &DEVICE, Shape::Link),
        Column(5, &GATEWAY, Shape::Ip),
        Column(7, &PREFERRED_SOURCE, Shape::Ip),
        Column(8, &METRICS, Shape::Tree),
        Column(11, &REALM, Shape::Number),
        Column(18, &GATEWAY, Shape::Bytes),
        Column(20, &PREFERENCE, Shape::Number),
        Column(21, &ENCAPSULATION, Shape::Number),
        Column(22, &ENCAPSULATION, Shape::Tree),
        Column(30, &BY_NEXTHOP, Shape::Number),
    ],
    ignored: &[RTA_DST, RTA_SRC, RTA_PRIORITY, RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, 23],
    rest: &ROUTE_OTHER,
};

/// `nhmsg`: family, scope, protocol, reserved, flags.
const NEXTHOP_HEADER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_BLACKHOLE: u16 = 4;

static NEXTHOP_LAYOUT: Layout = Layout {
    header: NEXTHOP_HEADER,
    columns: &[
        Column(2, &NEXTHOP_GROUP, Shape::Bytes),
        Column(3, &NEXTHOP_GROUP_TYPE, Shape::Number),
        Column(5, &NEXTHOP_DEVICE, Shape::Link),
        Column(6, &NEXTHOP, Shape::Ip),
        Column(7, &NEXTHOP_ENCAPSULATION, Shape::Number),
        Column(8, &NEXTHOP_ENCAPSULATION, Shape::Tree),
    ],
    // Statistics of groups among them.
    ignored: &[NHA_ID, NHA_BLACKHOLE, 14, 15, 16, 17],
    rest: &NEXTHOP_OTHER,
};

/// `fib_rule_hdr`: family, lengths, tos, table, reserved, action, flags.
const RULE_HEADER: usize = 12;
const RULE_ACTION: usize = 7;
const RULE_FLAGS: usize = 8;
/// `FIB_RULE_INVERT`.
const INVERTED: u32 = 0x2;
const FRA_PRIORITY: u16 = 6;

static RULE_LAYOUT: Layout = Layout {
    header: RULE_HEADER,
    columns: &[
        Column(1, &RULE_SELECTOR, Shape::Ip),
        Column(2, &RULE_SELECTOR, Shape::Ip),
        Column(3, &RULE_SELECTOR, Shape::Text),
        Column(10, &RULE_SELECTOR, Shape::Number),
        Column(15, &RULE_TABLE, Shape::Number),
        Column(17, &RULE_SELECTOR, Shape::Text),
        Column(21, &RULE_ORIGIN, Shape::Number),
    ],
    ignored: &[FRA_PRIORITY],
    rest: &RULE_OTHER,
};

/// `ndmsg`: family, padding, index, state (16 bits), flags, type.
const NEIGHBOUR_HEADER: usize = 12;
const NEIGHBOUR_INDEX: usize = 4;
const NEIGHBOUR_STATE: usize = 8;
const NEIGHBOUR_FLAGS: usize = 10;
const PERMANENT: u8 = 0x80;
const NO_ARP: u8 = 0x40;
const PROXY: u8 = 0x08;
const EXTERNALLY_LEARNED: u8 = 0x10;
const MULTICAST: u8 = 5;
const BRIDGE: u8 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;

/// Enters them.
pub(super) fn read(reader: &mut Reader<'_>) {
    for route in reader.dump(&Message::new(GET_ROUTE, [0; ROUTE]), "routes", &ROUTE_TYPE) {
        // What the kernel makes with an address (once nobody else is found to have it) goes with
        // that.
        let with_address = (route.byte(4), route.byte(5)) == (LOCAL, BY_KERNEL);
        if route.number(ROUTE_FLAG_BITS) & CLONED == 0 && !with_address {
            let subject = reader.subject(&name_of_route(&route));
            of_route(&route, &subject, &reader.names, reader.snapshot);
        }
    }
    for nexthop in
        reader.dump(&Message::new(GET_NEXTHOP, [0; NEXTHOP_HEADER]), "nexthops", &NEXTHOP)
    {
        let id = nexthop.attribute_number(NEXTHOP_HEADER, NHA_ID).unwrap_or_default();
        let subject = reader.subject(&format!("nexthop {id}"));
        NEXTHOP_LAYOUT.enter(&nexthop, &subject, &reader.names, reader.snapshot);
        let mut put = |state, value: String| reader.snapshot.enter(subject.clone(), state, value);
        put(&NEXTHOP_ORIGIN, nexthop.byte(2).to_string());
        put(&NEXTHOP_FLAGS, format!("{:#x}", nexthop.number(4) & !STATES));
        let throws_away = nexthop.attribute(NEXTHOP_HEADER, NHA_BLACKHOLE).is_some();
        put(&NEXTHOP_BLACKHOLE, if throws_away { "yes" } else { "no" }.to_owned());
    }
    for rule in reader.dump(&Message::new(GET_RULE, [0; RULE_HEADER]), "rules", &RULE) {
        let priority = rule.attribute_number(RULE_HEADER, FRA_PRIORITY).unwrap_or_default();
        let subject = reader.subject(&part(&[family(rule.byte(0)), "rule", &priority.to_string()]));
        RULE_LAYOUT.enter(&rule, &subject, &reader.names, reader.snapshot);
        let mut put = |state, value: String| reader.snapshot.enter(subject.clone(), state, value);
        let inverted = if rule.number(RULE_FLAGS) & INVERTED != 0 { "not " } else { "" };
        put(
            &RULE_SELECTOR,
            format!("{inverted}/{} /{} tos {}", rule.byte(1), rule.byte(2), rule.byte(3)),
        );
        put(&RULE, rule.byte(RULE_ACTION).to_string());
    }
    neighbours(reader);
}

fn family(number: u8) -> &'static str {
    match number {
        2 => "ipv4",
        10 => "ipv6",
        28 => "mpls",
        128 => "ipv4 multicast",
        129 => "ipv6 multicast",
        _ => "other",
    }
}

/// "ipv4 table 254 198.51.100.0/24 metric 100": what no two routes have in common, but for ways to
/// the same place.
fn name_of_route(route: &Message) -> String {
    let number = |kind| route.attribute_number(ROUTE, kind);
    let prefix = |kind, length: u8, word: &str| match route.attribute(ROUTE, kind) {
        Some(bytes) => {
            format!("{word}{}/{length}", ip(bytes).map_or_else(|| hex(bytes), |ip| ip.to_string()))
        }
        None if word.is_empty() => "default".to_owned(),
        None => String::new(),
    };
    let table = number(RTA_TABLE).unwrap_or_else(|| route.byte(4).into());
    let tos = if route.byte(3) == 0 { String::new() } else { format!("tos {}", route.byte(3)) };
    part(&[
        family(route.byte(0)),
        &format!("table {table}"),
        &prefix(RTA_DST, route.byte(1), ""),
        &prefix(RTA_SRC, route.byte(2), "from "),
        &tos,
        &format!("metric {}", number(RTA_PRIORITY).unwrap_or_default()),
    ])
}

fn of_route(route: &Message, subject: &Subject, names: &Names, snapshot: &mut Snapshot) {
    ROUTE_LAYOUT.enter(route, subject, names, snapshot);
    let mut put = |state, value: String| snapshot.enter(subject.clone(), state, value);
    put(&ROUTE_TYPE, route.byte(7).to_string());
    put(&ROUTE_SCOPE, route.byte(6).to_string());
    put(&ROUTE_ORIGIN, route.byte(5).to_string());
    let flags = route.number(ROUTE_FLAG_BITS);
    put(&ROUTE_FLAGS, format!("{:#x}", flags & !STATES));
    put(&ROUTE_STATE, format!("{:#x}", flags & STATES));
    if let Some(ways) = route.attribute(ROUTE, RTA_MULTIPATH) {
        put(&WAYS, ways_of(ways, names));
    }
    let times = route.attribute(ROUTE, RTA_CACHEINFO).unwrap_or_default();
    put(
        &EXPIRES,
        match times.get(EXPIRES_AT..).and_then(raw::number_of) {
            None | Some(0) => "never".to_owned(),
            Some(ticks) => near(f64::from(ticks.cast_signed()) / TICKS, LIFETIME_TOLERANCE),
        },
    );
}

/// The ways of a route with several, without their state.
fn ways_of(mut bytes: &[u8], names: &Names) -> String {
    let mut ways = Vec::new();
    while let Some([a, b, flags, hops, i0, i1, i2, i3]) = bytes.first_chunk::<HOP>().copied() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(within) = bytes.get(HOP..length) else { break };
        let link = Shape::Link.write(&[i0, i1, i2, i3], names);
        let flags = flags & !(STATES as u8);
        ways.push(format!(
            "{link} {flags:#x} weight {} {}",
            u32::from(hops) + 1,
            Shape::Tree.write(within, names)
        ));
        bytes = bytes.get(length.saturating_add(3) & !3..).unwrap_or_default();
    }
    ways.join("; ")
}

fn neighbours(reader: &mut Reader<'_>) {
    let mut question = Message::new(GET_NEIGHBOUR, [0; NEIGHBOUR_HEADER]);
    let known = reader.dump(&question, "neighbours", &NEIGHBOUR);
    question.set_byte(NEIGHBOUR_FLAGS, PROXY);
    let proxies = reader.dump(&question, "neighbours", &NEIGHBOUR_PROXY);
    for neighbour in
        known.iter().chain(&proxies).filter(|m| m.byte(0) != BRIDGE && m.byte(11) != MULTICAST)
    {
        let address = neighbour.attribute(NEIGHBOUR_HEADER, NDA_DST).unwrap_or_default();
        let address = Shape::Ip.write(address, &reader.names);
        let link = match neighbour.number(NEIGHBOUR_INDEX) {
            0 => "any link".to_owned(),
            index => reader.link(index),
        };
        let subject = reader.subject(&part(&["neighbour", &link, &address]));
        of_neighbour(neighbour, subject, reader.snapshot);
    }
}

fn of_neighbour(neighbour: &Message, subject: Subject, snapshot: &mut Snapshot) {
    let flags = neighbour.byte(NEIGHBOUR_FLAGS);
    if flags & PROXY != 0 {
        return snapshot.enter(subject, &NEIGHBOUR_PROXY, format!("{flags:#x}"));
    }
    let address = hex(neighbour.attribute(NEIGHBOUR_HEADER, NDA_LLADDR).unwrap_or_default());
    // What is behind a link without ARP the kernel enters by itself.
    let by_kernel = neighbour.byte(NEIGHBOUR_STATE) & NO_ARP != 0;
    let chosen =
        neighbour.byte(NEIGHBOUR_STATE) & PERMANENT != 0 || flags & EXTERNALLY_LEARNED != 0;
    if !chosen || by_kernel {
        return snapshot.enter(subject, &NEIGHBOUR_LEARNED, address);
    }
    let origin = neighbour.attribute(NEIGHBOUR_HEADER, NDA_PROTOCOL).unwrap_or_default();
    snapshot.enter(subject.clone(), &NEIGHBOUR_ORIGIN, hex(origin));
    snapshot.enter(subject, &NEIGHBOUR, format!("{address} {flags:#x}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(attributes: &[(u16, &[u8])]) -> Message {
        let mut message = Message::new(24, [2, 24, 0, 0, 254, 3, 0, 1, 0x10, 0, 0, 0]);
        attributes.iter().for_each(|(kind, value)| message.push(*kind, value));
        message
    }

    #[test]
    fn a_route_is_named_by_where_it_leads() {
        let table = 4711u32.to_ne_bytes();
        let found = route(&[
            (RTA_DST, &[10, 0, 0, 0]),
            (RTA_TABLE, &table),
            (RTA_PRIORITY, &7u32.to_ne_bytes()),
        ]);
        assert_eq!(name_of_route(&found), "ipv4 table 4711 10.0.0.0/24 metric 7");
        assert_eq!(name_of_route(&route(&[])), "ipv4 table 254 default metric 0");
    }

    #[test]
    fn a_lifetime_is_a_time_and_a_carrier_no_difference() {
        let info = [0u32, 0, 59_900, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
        let subject = Subject::Network { pid: 1, part: "r".to_owned() };
        let mut snapshot = Snapshot::new();
        of_route(&route(&[(RTA_CACHEINFO, &info)]), &subject, &Names::new(), &mut snapshot);
        assert_eq!(snapshot.value(&subject, &EXPIRES), Some(near(599.0, 30.0).as_str()));
        assert_eq!(snapshot.value(&subject, &ROUTE_FLAGS), Some("0x0"));
        assert_eq!(snapshot.value(&subject, &ROUTE_STATE), Some("0x10"));
    }

    #[test]
    fn ways_are_told_one_by_one() {
        let way = |index: u32, flags: u8| [&[8u8, 0, flags, 1][..], &index.to_ne_bytes()].concat();
        let names = Names::from([(2, "eth0".to_owned())]);
        let told = ways_of(&[way(2, 0x10), way(3, 4)].concat(), &names);
        assert_eq!(told, "eth0 0x0 weight 2 ; link 3 0x4 weight 2 ");
    }
}
