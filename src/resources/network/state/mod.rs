//! What a link has beside what it is made with: names, settings, addresses, neighbours, routes,
//! queueing, whoever made them (LXC, a script of the user's, the administrator).
//!
//! The host's end of a veth pair goes with its container, and all of this with it. So it is read
//! before the container is touched ([`Tables::read`], [`Tables::of_link`]), kept in the record
//! message by message as the kernel described it, and given back to the kernel when the pair is
//! made again ([`LinkState::put_back`]). The index of the link is the only thing in these messages
//! that is another one then.

mod nat;
mod queueing;
mod routes;
mod within;

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Elsewhere;
use crate::error::ErrorList;
use crate::resources::network::sysctl::{self, Sysctls};
use crate::sys::netlink::Error;
use crate::sys::netlink::raw::{
    self, CREATE, EXCLUSIVE, Message, Protocol, REPLACE, Socket, attributes, number_of,
};

pub(crate) use within::Within;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const GET_NEIGHBOUR: u16 = 30;
const NEW_MDB: u16 = 84;
const GET_MDB: u16 = 86;
const GET_NEXTHOP: u16 = 106;
const NEW_LINK_NAMES: u16 = 108;

/// Sizes of headers, and where they have the index of a link.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const NEIGHBOUR: usize = 12;
const MDB: usize = 8;
const INDEX: usize = 4;
/// Where `ifinfomsg` has the flags, and which of them are to be changed.
const FLAGS: usize = 8;
const CHANGE: usize = 12;

/// Attributes of a link (linux/if_link.h).
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_XDP: u16 = 43;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;
/// Limits of what is put together for a link, which can be changed.
const LIMITS: [u16; 5] = [
    IFLA_GSO_MAX_SEGS,
    IFLA_GSO_MAX_SIZE,
    IFLA_GRO_MAX_SIZE,
    IFLA_GSO_IPV4_MAX_SIZE,
    IFLA_GRO_IPV4_MAX_SIZE,
];
/// `IFLA_XDP_PROG_ID`.
const XDP_PROGRAM: u16 = 4;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 1 << 3;
/// Flags of a link that somebody sets: up, without ARP, promiscuous, all multicast, multicast,
/// dynamic (linux/if.h).
const CHOSEN_FLAGS: u32 = 0x1 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000;

/// Families of addresses.
const INET6: u8 = 10;
const BRIDGE: u8 = 7;
/// Attributes of a neighbour (linux/neighbour.h).
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PROBES: u16 = 4;
const NDA_MASTER: u16 = 9;
/// Where `ndmsg` has the state (16 bits) and the flags.
const STATE: usize = 8;
const NEIGHBOUR_FLAGS: usize = 10;
const PERMANENT: u8 = 0x80;
const NO_ARP: u8 = 0x40;
const SELF: u8 = 0x02;
const PROXY: u8 = 0x08;
const EXTERNALLY_LEARNED: u8 = 0x10;
/// `MDBA_MDB`, `MDBA_MDB_ENTRY`, `MDBA_MDB_ENTRY_INFO`, `MDBA_SET_ENTRY`, and the size of
/// `br_mdb_entry`.
const MDBA: u16 = 1;
const MDB_ENTRY: usize = 28;
/// Flags of an address: not to be looked for (IFA_F_NODAD), still being looked for
/// (IFA_F_TENTATIVE).
const NODAD: u8 = 0x02;
const TENTATIVE: u8 = 0x40;
/// IFA_FLAGS, IFA_CACHEINFO.
const IFA_FLAGS: u16 = 8;

/// What a link has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Its index when it was read.
    pub index: u32,
    /// Its flags, as far as somebody sets them (`IFF_…`).
    pub flags: u32,
    /// How many queues it sends and receives with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<(u32, u32)>,
    /// Its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The group it is in; 0 is the default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group: u32,
    /// Its other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Limits of what is put together for it: attribute and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<(u16, u32)>,
    /// The number of a program of eBPF that decides on what arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u32>,
    /// Its settings below `/proc/sys/net` that are not as those of a new link, with
    /// [`sysctl::LINK`] in place of its name.
    #[serde(default, skip_serializing_if = "Sysctls::is_empty")]
    pub settings: Sysctls,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Message>,
    /// Its neighbours, those for whom it answers among them, that the kernel has not found by
    /// itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Message>,
    /// Hosts and groups behind it that somebody has told its bridge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Message>,
    /// Gateways behind it that routes name by a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nexthops: Vec<Message>,
    /// Routes over it, of all tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Message>,
    /// How packets queue: qdiscs, classes, filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queueing: Vec<Message>,
}

fn is_default(group: &u32) -> bool {
    *group == 0
}

/// What the kernel knows of all links of a network namespace.
#[derive(Debug)]
pub(crate) struct Tables {
    links: Vec<Message>,
    addresses: Vec<Message>,
    neighbours: Vec<Message>,
    behind: Vec<Message>,
    nexthops: Vec<Message>,
    routes: Vec<Message>,
    queueing: Vec<Message>,
}

impl Tables {
    /// Reads them in the network namespace of this thread; queueing that of these links alone.
    pub(crate) fn read(links: &[u32]) -> Result<Tables, Error> {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut all = Message::new(GET_LINK, [0; LINK]);
        all.push(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        Ok(Tables {
            links: socket.dump(&all)?,
            addresses: socket.dump(&Message::new(GET_ADDRESS, [0; ADDRESS]))?,
            neighbours: neighbours(&mut socket)?,
            behind: behind(&mut socket)?,
            nexthops: unless_unknown(
                socket.dump(&Message::new(GET_NEXTHOP, [0; routes::NEXTHOP])),
            )?,
            routes: socket.dump(&Message::new(GET_ROUTE, [0; routes::ROUTE]))?,
            queueing: queueing::read(&mut socket, links)?,
        })
    }

    /// What the link with this index and name has; none if there is no such link.
    pub(crate) fn of_link(&self, index: u32, name: &str) -> Option<LinkState> {
        let link = self.links.iter().find(|m| m.kind() == NEW_LINK && m.number(INDEX) == index)?;
        let number = |kind| link.attribute_number(LINK, kind);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let own_mac = link.attribute(LINK, 1);
        let names = link.attribute(LINK, IFLA_PROP_LIST).map(attributes).unwrap_or_default();
        let of_index = |m: &&Message| m.number(INDEX) == index;
        let is_own = |m: &&Message| {
            m.attribute(NEIGHBOUR, NDA_LLADDR) == own_mac && m.byte(STATE) == PERMANENT
        };
        let nexthops: Vec<Message> =
            self.nexthops.iter().filter(|m| routes::nexthop_is_over(m, index)).cloned().collect();
        let groups = self.nexthops.iter().filter(|m| routes::is_group_of(m, &nexthops)).cloned();
        let nexthops: Vec<Message> = nexthops.iter().cloned().chain(groups).collect();
        Some(LinkState {
            index,
            flags: link.number(FLAGS) & CHOSEN_FLAGS,
            queues: number(IFLA_NUM_TX_QUEUES).zip(number(IFLA_NUM_RX_QUEUES)),
            alias: link.attribute(LINK, IFLA_IFALIAS).map(text),
            group: number(IFLA_GROUP).unwrap_or_default(),
            names: names
                .iter()
                .filter(|(kind, _)| *kind == IFLA_ALT_IFNAME)
                .map(|(_, name)| text(name))
                .collect(),
            limits: LIMITS.iter().filter_map(|kind| Some((*kind, number(*kind)?))).collect(),
            program: link
                .attribute(LINK, IFLA_XDP)
                .and_then(|x| raw::attribute(x, XDP_PROGRAM))
                .and_then(number_of),
            settings: sysctl::of_link(name),
            addresses: self.addresses.iter().filter(of_index).cloned().collect(),
            neighbours: self.neighbours.iter().filter(of_index).cloned().collect(),
            behind: self.behind.iter().filter(|m| of_index(m) && !is_own(m)).cloned().collect(),
            routes: self
                .routes
                .iter()
                .filter(|m| routes::is_over(m, index, &nexthops))
                .cloned()
                .collect(),
            nexthops,
            queueing: self.queueing.iter().filter(of_index).cloned().collect(),
        })
    }

    /// What other links have for the sake of these addresses: that they answer for them, and routes
    /// to the addresses themselves over the loopback, by which packets for an ipvlan come back in.
    pub(crate) fn for_the_sake_of(&self, addresses: &[IpAddr], but: &[u32]) -> Vec<Elsewhere> {
        let name = |index: u32| {
            let link = self.links.iter().find(|m| m.number(INDEX) == index)?;
            Some(
                String::from_utf8_lossy(link.attribute(LINK, 3)?).trim_end_matches('\0').to_owned(),
            )
        };
        let proxies =
            self.neighbours.iter().filter(|m| m.byte(NEIGHBOUR_FLAGS) & PROXY != 0).filter_map(
                |m| {
                    let named = m.attribute(NEIGHBOUR, 1).and_then(routes::ip)?;
                    let index = m.number(INDEX);
                    let is_for_it = addresses.contains(&named) && !but.contains(&index);
                    is_for_it.then(|| Some(Elsewhere { link: name(index)?, message: m.clone() }))?
                },
            );
        let over_loopback = self.routes.iter().filter_map(|m| {
            let (to, index) = routes::host_route(m)?;
            let link = name(index).filter(|name| name == "lo")?;
            addresses.contains(&to).then(|| Elsewhere { link, message: m.clone() })
        });
        proxies.chain(over_loopback).collect()
    }
}

/// A kernel without such objects has none.
fn unless_unknown(found: Result<Vec<Message>, Error>) -> Result<Vec<Message>, Error> {
    match found {
        Err(e) if matches!(e.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(Vec::new()),
        other => other,
    }
}

fn neighbours(socket: &mut Socket) -> Result<Vec<Message>, Error> {
    let mut question = Message::new(GET_NEIGHBOUR, [0; NEIGHBOUR]);
    let mut found = socket.dump(&question)?;
    // Those that the kernel has found by itself it finds again.
    found.retain(|m| {
        let chosen =
            m.byte(STATE) & PERMANENT != 0 || m.byte(NEIGHBOUR_FLAGS) & EXTERNALLY_LEARNED != 0;
        m.byte(0) != BRIDGE && chosen
    });
    question.set_byte(NEIGHBOUR_FLAGS, PROXY);
    found.extend(
        socket.dump(&question)?.into_iter().filter(|m| m.byte(NEIGHBOUR_FLAGS) & PROXY != 0),
    );
    Ok(found.iter().map(without_the_passing).collect())
}

/// Hosts (fdb) and groups (mdb) behind ports of bridges.
fn behind(socket: &mut Socket) -> Result<Vec<Message>, Error> {
    let mut question = Message::new(GET_NEIGHBOUR, [0; NEIGHBOUR]);
    question.set_byte(0, BRIDGE);
    let mut hosts = socket.dump(&question)?;
    hosts.retain(|m| {
        let chosen = m.byte(STATE) & (PERMANENT | NO_ARP) != 0
            || m.byte(NEIGHBOUR_FLAGS) & EXTERNALLY_LEARNED != 0;
        m.attribute(NEIGHBOUR, NDA_MASTER).is_some()
            && m.byte(NEIGHBOUR_FLAGS) & SELF == 0
            && chosen
    });
    let mut found: Vec<Message> = hosts.iter().map(without_the_passing).collect();
    let mut question = Message::new(GET_MDB, [0; MDB]);
    question.set_byte(0, BRIDGE);
    for bridge in unless_unknown(socket.dump(&question))? {
        let entries = bridge.attribute(MDB, MDBA).map(attributes).unwrap_or_default();
        for (_, entry) in entries.iter().flat_map(|(_, entry)| attributes(entry)) {
            // Of the entry the index of the port, whether it is permanent, …
            let (Some(port), Some(1)) = (number_of(entry), entry.get(4).copied()) else { continue };
            let Some(entry) = entry.get(..MDB_ENTRY) else { continue };
            let mut message = Message::new(NEW_MDB, [0; MDB]);
            message.set_byte(0, BRIDGE);
            message.set_number(INDEX, port);
            message.push(MDBA, entry);
            found.push(message);
        }
    }
    Ok(found)
}

fn without_the_passing(message: &Message) -> Message {
    let passing = [NDA_CACHEINFO, NDA_PROBES, NDA_MASTER];
    message.changed(NEIGHBOUR, |kind, value| (!passing.contains(&kind)).then(|| value.to_vec()))
}

/// What [`LinkState::put_back`] works on: a link that was just made, in the namespace of this
/// thread.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
}

impl LinkState {
    /// Whether the link was up.
    pub fn is_up(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Gives a link all of it, but for neighbours and routes ([`LinkState::put_routes_back`]) and
    /// what its bridge has to know ([`LinkState::tell_bridge`]). What it has already is left as it
    /// is.
    ///
    /// # Errors
    /// All that the kernel has refused, each by what it is.
    pub fn put_back(&self, target: Target<'_>) -> anyhow::Result<()> {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut errors = ErrorList::default();
        let mut note = |what: &str, outcome: Result<(), Error>| {
            errors.note(outcome.map_err(|e| anyhow::anyhow!("{what}: {e}")));
        };
        note("its alias and group", self.name_and_group(&mut socket, target.index));
        for name in &self.names {
            note(&format!("its other name {name}"), add_name(&mut socket, target.index, name));
        }
        let unset = sysctl::apply_to_link(&self.settings, target.name);
        for text in unset {
            note(&text, Err(Error::Kernel(io::Error::other("refused"))));
        }
        // While it is down: else the kernel waits each time until no packet is on its way.
        queueing::put_back(&mut socket, target.index, &self.queueing, &mut note);
        note("its flags", set_flags(&mut socket, target.index, self.flags));
        for address in &self.addresses {
            note("an address", add_address(&mut socket, target.index, address));
        }
        errors.into_result()
    }

    /// Gives a link its neighbours and routes, when it has a carrier: when it hears that there is
    /// none the kernel forgets for whom the link answers, and it takes no nexthop behind such a
    /// link.
    ///
    /// # Errors
    /// All that the kernel has refused.
    pub fn put_routes_back(&self, target: Target<'_>) -> anyhow::Result<()> {
        if self.nexthops.is_empty() && self.routes.is_empty() && self.neighbours.is_empty() {
            return Ok(());
        }
        let mut socket = Socket::open(Protocol::Route)?;
        let mut errors = ErrorList::default();
        let mut note = |what: &str, outcome: Result<(), Error>| {
            errors.note(outcome.map_err(|e| anyhow::anyhow!("{what}: {e}")));
        };
        for neighbour in &self.neighbours {
            note("a neighbour", send(&mut socket, target.index, neighbour, REPLACE));
        }
        routes::put_back(
            &mut socket,
            (self.index, target.index),
            &self.nexthops,
            &self.routes,
            &mut note,
        );
        errors.into_result()
    }

    /// Gives a port that has joined its bridge what that has to know of hosts and groups behind it,
    /// and again the neighbours: the kernel forgets them with each hardware address that it is
    /// given.
    pub fn tell_bridge(&self, index: u32, bridge: u32) -> Result<(), Error> {
        if self.behind.is_empty() && self.neighbours.is_empty() {
            return Ok(());
        }
        let mut socket = Socket::open(Protocol::Route)?;
        let mut outcome = Ok(());
        for neighbour in &self.neighbours {
            outcome = outcome.and(send(&mut socket, index, neighbour, REPLACE));
        }
        for message in &self.behind {
            let done = match message.kind() {
                NEW_MDB => socket.change(&of_bridge(message, index, bridge), CREATE),
                _ => send(&mut socket, index, message, REPLACE),
            };
            outcome = match done {
                Err(Error::Exists) => outcome,
                other => outcome.and(other),
            };
        }
        outcome
    }

    /// The same for a container with other addresses: `moved` says what has become of one.
    pub fn readdressed(&self, moved: &dyn Fn(IpAddr) -> Option<IpAddr>) -> LinkState {
        let routes = self.routes.iter().map(|route| routes::readdressed(route, moved)).collect();
        LinkState { routes, ..self.clone() }
    }

    fn name_and_group(&self, socket: &mut Socket, index: u32) -> Result<(), Error> {
        let mut change = Message::new(SET_LINK, [0; LINK]);
        change.set_number(INDEX, index);
        change.push(IFLA_GROUP, &self.group.to_ne_bytes());
        if let Some(alias) = &self.alias {
            change.push(IFLA_IFALIAS, alias.as_bytes());
        }
        for (kind, value) in &self.limits {
            change.push(*kind, &value.to_ne_bytes());
        }
        socket.change(&change, 0)
    }
}

fn add_name(socket: &mut Socket, index: u32, name: &str) -> Result<(), Error> {
    let mut list = Vec::new();
    raw::push(&mut list, IFLA_ALT_IFNAME, &[name.as_bytes(), &[0]].concat());
    let mut change = Message::new(NEW_LINK_NAMES, [0; LINK]);
    change.set_number(INDEX, index);
    change.push(IFLA_PROP_LIST | raw::NESTED, &list);
    match socket.change(&change, EXCLUSIVE) {
        Err(Error::Exists) => Ok(()),
        other => other,
    }
}

fn set_flags(socket: &mut Socket, index: u32, flags: u32) -> Result<(), Error> {
    let mut change = Message::new(SET_LINK, [0; LINK]);
    change.set_number(INDEX, index);
    change.set_number(FLAGS, flags);
    change.set_number(CHANGE, CHOSEN_FLAGS);
    socket.change(&change, 0)
}

/// Nobody looks for duplicates of an IPv6 address again: that was done in its first life, and until
/// it is done the address cannot be used.
fn add_address(socket: &mut Socket, index: u32, address: &Message) -> Result<(), Error> {
    let settled = address.byte(0) == INET6 && address.byte(2) & (NODAD | TENTATIVE) == 0;
    let made = match settled {
        true => {
            let with = |value: u32| (value | u32::from(NODAD)).to_ne_bytes().to_vec();
            let mut quick =
                address.changed(ADDRESS, |kind, value| match (kind, number_of(value)) {
                    (IFA_FLAGS, Some(flags)) => Some(with(flags)),
                    _ => Some(value.to_vec()),
                });
            quick.set_byte(2, address.byte(2) | NODAD);
            send(socket, index, &quick, EXCLUSIVE)
        }
        false => send(socket, index, address, EXCLUSIVE),
    };
    match made {
        Err(Error::Exists) => Ok(()),
        Ok(()) if settled => send(socket, index, address, REPLACE),
        other => other,
    }
}

/// Sends a message about a link of another index than when it was kept.
fn send(socket: &mut Socket, index: u32, message: &Message, flags: u16) -> Result<(), Error> {
    let mut moved = message.clone();
    moved.set_number(INDEX, index);
    socket.change(&moved, flags)
}

fn of_bridge(message: &Message, index: u32, bridge: u32) -> Message {
    let mut moved = message.changed(MDB, |_, entry| {
        let mut entry = entry.to_vec();
        entry.get_mut(..4)?.copy_from_slice(&index.to_ne_bytes());
        Some(entry)
    });
    moved.set_number(INDEX, bridge);
    moved
}

/// Gives another link what it had for the sake of a container; says whether it is new there.
pub(crate) fn add_elsewhere(index: u32, message: &Message) -> Result<bool, Error> {
    let mut socket = Socket::open(Protocol::Route)?;
    if message.kind() == NEW_ADDRESS {
        return Ok(false);
    }
    let made = match routes::moved(message, index) {
        Some(route) => socket.change(&route, EXCLUSIVE),
        None => send(&mut socket, index, message, EXCLUSIVE),
    };
    match made {
        Ok(()) => Ok(true),
        Err(Error::Exists) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes it away again; says whether it was there.
pub(crate) fn remove_elsewhere(index: u32, message: &Message) -> Result<bool, Error> {
    let mut socket = Socket::open(Protocol::Route)?;
    // The kind that deletes follows the one that makes.
    let moved = match routes::moved(message, index) {
        Some(route) => route,
        None => {
            let mut moved = message.clone();
            moved.set_number(INDEX, index);
            moved
        }
    };
    match socket.change(&moved.of_kind(message.kind() + 1), 0) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV)) => Ok(false),
        Err(e) => Err(e),
    }
}
