//! What a container's own network namespace has that CRIU does not save, or cannot restore: names
//! and queues of its interfaces, neighbours, what its bridges know, nexthop objects and the routes
//! by them, rules of IPv6, lifetimes, and connections through NAT.
//!
//! It is read while the container stands still ([`Within::read`]), kept in the record message by
//! message, and given back when CRIU has restored interfaces, addresses and routes
//! ([`Within::put_back`]). The interfaces have their old numbers then.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{INDEX, LINK, LinkState, NEW_LINK, Tables, nat, queueing, routes};
use crate::resources::network::sysctl::Sysctls;
use crate::sys::netlink::raw::{EXCLUSIVE, Message, Protocol, REPLACE, Socket, number_of};
use crate::sys::netlink::{Error, in_netns};

const GET_RULE: u16 = 34;
/// The size of `fib_rule_hdr`.
const RULE: usize = 12;
const INET6: u8 = 10;
/// `IFLA_IFNAME`, `IFLA_MASTER`.
const IFNAME: u16 = 3;
const MASTER: u16 = 10;
/// Limits of what is put together that a new link has (linux/netdevice.h, `GSO_LEGACY_MAX_SIZE`,
/// `GSO_MAX_SEGS`).
const USUAL_LIMITS: [u32; 2] = [65536, 65535];
/// `IFA_CACHEINFO`: preferred and valid lifetime come first, in seconds.
const ADDRESS: usize = 8;
const CACHE_INFO: u16 = 6;
const FOR_EVER: u32 = u32::MAX;

/// What one network namespace has beside what CRIU brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// When it was read, in seconds since 1970: lifetimes count from then.
    pub read_at: u64,
    /// Its interfaces, as far as they have anything of this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkState>,
    /// Bridges of interfaces that are ports: number of the port, and of the bridge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<(u32, u32)>,
    /// Addresses that end, and those of IPv6 for whose duplicates the kernel has looked: CRIU is to
    /// add these without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Message>,
    /// Nexthop objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nexthops: Vec<Message>,
    /// Routes by nexthop objects, and those that end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Message>,
    /// Policy rules of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Message>,
    /// Tracked connections through NAT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Message>,
}

impl Within {
    /// Reads it in a network namespace; none where there is nothing of it.
    pub fn read(netns: BorrowedFd<'_>) -> anyhow::Result<Option<Within>> {
        let found = in_netns(netns, read).context("enter the container's network namespace")?;
        let found = found.context("read the container's network")?;
        let has_any =
            Within { read_at: 0, bridges: Vec::new(), ..found.clone() } != Within::default();
        Ok(has_any.then_some(found))
    }

    /// Gives it back; gives all that the kernel has refused, each by what it is.
    pub fn put_back(&self, netns: BorrowedFd<'_>) -> Vec<String> {
        let elapsed = now().saturating_sub(self.read_at);
        let done = in_netns(netns, || self.give(u32::try_from(elapsed).unwrap_or(u32::MAX)));
        match done {
            Ok(Ok(refused)) => refused,
            Ok(Err(e)) | Err(e) => vec![format!("its network is not all as it was: {e}")],
        }
    }

    /// The same for a copy with other addresses: `moved` says what has become of one. Its
    /// connections are the original's.
    pub fn readdressed(&self, moved: &dyn Fn(IpAddr) -> Option<IpAddr>) -> Within {
        let of = |messages: &[Message], header: usize| -> Vec<Message> {
            messages.iter().map(|message| routes::with_addresses(message, header, moved)).collect()
        };
        Within {
            addresses: of(&self.addresses, ADDRESS),
            routes: of(&self.routes, routes::ROUTE),
            rules: of(&self.rules, RULE),
            connections: Vec::new(),
            ..self.clone()
        }
    }

    fn give(&self, elapsed: u32) -> Result<Vec<String>, Error> {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut refused = Vec::new();
        let mut note = |what: &str, outcome: Result<(), Error>| {
            if let Err(e) = outcome {
                refused.push(format!("{what} of its network could not be restored: {e}"));
            }
        };
        for link in &self.links {
            self.give_link(&mut socket, link, &mut note);
        }
        let present = socket.dump(&Message::new(super::GET_ADDRESS, [0; ADDRESS]))?;
        for address in
            self.addresses.iter().filter(|address| ends(address) || is_marked(address, &present))
        {
            note("an address", socket.change(&after(address, elapsed), REPLACE));
        }
        let routes: Vec<Message> =
            self.routes.iter().map(|route| routes::after(route, elapsed)).collect();
        // The links have their numbers.
        routes::put_back(&mut socket, (0, 0), &self.nexthops, &routes, &mut note);
        for rule in &self.rules {
            note("a rule of IPv6", unless_there(socket.change(rule, EXCLUSIVE)));
        }
        if !self.connections.is_empty() {
            nat::put_back(&self.connections, &mut note);
        }
        Ok(refused)
    }

    fn give_link(
        &self,
        socket: &mut Socket,
        link: &LinkState,
        note: &mut dyn FnMut(&str, Result<(), Error>),
    ) {
        let index = link.index;
        if link.alias.is_some() || link.group != 0 || !link.limits.is_empty() {
            note("alias, group and limits of an interface", link.name_and_group(socket, index));
        }
        for name in &link.names {
            note("another name of an interface", super::add_name(socket, index, name));
        }
        queueing::put_back(socket, index, &link.queueing, note);
        for neighbour in &link.neighbours {
            note("a neighbour", super::send(socket, index, neighbour, REPLACE));
        }
        if let Some((_, bridge)) = self.bridges.iter().find(|(port, _)| *port == index) {
            note("what a bridge knows", link.tell_bridge(index, *bridge));
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn unless_there(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Exists) => Ok(()),
        other => other,
    }
}

/// Reads it in the network namespace of this thread.
fn read() -> Result<Within, Error> {
    let mut socket = Socket::open(Protocol::Route)?;
    let links: Vec<(u32, String, Option<u32>)> =
        socket.dump(&Message::new(super::GET_LINK, [0; LINK]))?.iter().filter_map(link).collect();
    let indices: Vec<u32> = links.iter().map(|(index, ..)| *index).collect();
    let tables = Tables::read(&indices)?;
    let found = links.iter().filter_map(|(index, name, _)| tables.of_link(*index, name));
    let mut question = Message::new(GET_RULE, [0; RULE]);
    question.set_byte(0, INET6);
    let rules = super::unless_unknown(socket.dump(&question))?;
    Ok(Within {
        read_at: now(),
        links: found.map(beside).filter(has_any).collect(),
        bridges: links.iter().filter_map(|(index, _, master)| Some((*index, (*master)?))).collect(),
        addresses: tables
            .addresses
            .iter()
            .filter(|a| ends(a) || was_looked_for(a))
            .cloned()
            .collect(),
        routes: tables.routes.iter().filter(|route| routes::is_ours(route)).cloned().collect(),
        nexthops: tables.nexthops,
        rules: rules.into_iter().filter(|rule| !is_of_new_namespace(rule)).collect(),
        connections: nat::read()?,
    })
}

/// Number, name, and the bridge that it is a port of.
fn link(message: &Message) -> Option<(u32, String, Option<u32>)> {
    let name = message.attribute(LINK, IFNAME).filter(|_| message.kind() == NEW_LINK)?;
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Some((message.number(INDEX), name, message.attribute_number(LINK, MASTER)))
}

/// Of what a link has, that which nobody else keeps.
fn beside(mut link: LinkState) -> LinkState {
    link.limits.retain(|(_, limit)| !USUAL_LIMITS.contains(limit));
    LinkState {
        index: link.index,
        alias: link.alias,
        group: link.group,
        names: link.names,
        limits: link.limits,
        neighbours: link.neighbours,
        behind: link.behind,
        queueing: link.queueing,
        settings: Sysctls::new(),
        ..LinkState::default()
    }
}

fn has_any(link: &LinkState) -> bool {
    *link != LinkState { index: link.index, ..LinkState::default() }
}

/// Whether an address ends at some time.
fn ends(address: &Message) -> bool {
    let info = address.attribute(ADDRESS, CACHE_INFO).unwrap_or_default();
    [0, 4].iter().filter_map(|at| number_of(info.get(*at..)?)).any(|lifetime| lifetime != FOR_EVER)
}

/// Whether the kernel has looked for duplicates of an address of IPv6, and has found none.
fn was_looked_for(address: &Message) -> bool {
    address.byte(0) == INET6 && address.byte(2) & (super::NODAD | super::TENTATIVE) == 0
}

/// Whether CRIU has added an address so that the kernel does not look for duplicates.
fn is_marked(address: &Message, present: &[Message]) -> bool {
    let ip = |message: &Message| message.attribute(ADDRESS, 1).map(<[u8]>::to_vec);
    let same =
        |other: &&Message| other.number(INDEX) == address.number(INDEX) && ip(other) == ip(address);
    present.iter().find(same).is_some_and(|found| found.byte(2) & super::NODAD != 0)
}

/// An address when so many seconds have passed; one whose time is over goes at once.
fn after(address: &Message, seconds: u32) -> Message {
    address.changed(ADDRESS, |kind, value| {
        let mut value = value.to_vec();
        if kind == CACHE_INFO {
            for (at, least) in [(0, 0), (4, 1)] {
                let place = value.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>());
                if let Some(place) = place.filter(|place| u32::from_ne_bytes(**place) != FOR_EVER) {
                    *place =
                        u32::from_ne_bytes(*place).saturating_sub(seconds).max(least).to_ne_bytes();
                }
            }
        }
        Some(value)
    })
}

/// Whether each namespace begins with this rule of IPv6: to the tables local (255) and main (254).
fn is_of_new_namespace(rule: &Message) -> bool {
    let priority = rule.attribute_number(RULE, 6).unwrap_or_default();
    let is_plain = rule.byte(1) == 0 && rule.byte(2) == 0;
    is_plain && matches!((priority, rule.byte(4)), (0, 255) | (32766, 254))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(preferred: u32, valid: u32) -> Message {
        let mut address = Message::new(20, [INET6, 64, 0, 0, 2, 0, 0, 0]);
        address.push(CACHE_INFO, &[preferred, valid, 1, 2].map(u32::to_ne_bytes).concat());
        address
    }

    #[test]
    fn a_lifetime_goes_on_while_the_container_is_stopped() {
        assert!(ends(&address(FOR_EVER, 600)) && !ends(&address(FOR_EVER, FOR_EVER)));
        assert_eq!(after(&address(300, 600), 100), address(200, 500));
        assert_eq!(after(&address(300, 600), 1000), address(0, 1));
        assert_eq!(after(&address(FOR_EVER, FOR_EVER), 1000), address(FOR_EVER, FOR_EVER));
    }

    #[test]
    fn a_plain_link_needs_nothing() {
        let plain = LinkState {
            index: 2,
            flags: 1,
            limits: vec![(41, 65536), (40, 65535)],
            ..LinkState::default()
        };
        assert!(!has_any(&beside(plain.clone())));
        assert!(has_any(&beside(LinkState { limits: vec![(41, 30000)], ..plain.clone() })));
        assert!(has_any(&beside(LinkState { group: 7, ..plain })));
    }
}
