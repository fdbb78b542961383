//! Routes over a link, and the gateways behind it that routes name by a number (nexthop objects).

use std::net::IpAddr;

use crate::sys::netlink::Error;
use crate::sys::netlink::raw::{APPEND, CREATE, EXCLUSIVE, Message, REPLACE, Socket, number_of};

/// The size of `rtmsg`, and where it has table, protocol, type and flags.
pub(super) const ROUTE: usize = 12;
const DESTINATION_LENGTH: usize = 1;
const TABLE: usize = 4;
const PROTOCOL: usize = 5;
const FLAGS: usize = 8;
/// The size of `nhmsg`, and where it has scope and flags.
pub(super) const NEXTHOP: usize = 8;
const NEXTHOP_SCOPE: usize = 1;
const NEXTHOP_FLAGS: usize = 4;
const NEW_ROUTE: u16 = 24;

/// Attributes of a route (linux/rtnetlink.h).
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_VIA: u16 = 18;
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
/// The same of a nexthop (linux/nexthop.h).
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
/// What a group is made with: its number, members, type, how long these keep their buckets.
const OF_GROUPS: [u16; 4] = [NHA_ID, NHA_GROUP, 3, 12];
/// The size of a member of a group, which begins with its number.
const MEMBER: usize = 8;
/// Where `rta_cacheinfo` has a lifetime, and how many of its ticks a second has (`USER_HZ`).
const EXPIRES_AT: usize = 8;
const TICKS: u32 = 100;
/// `RTNH_F_ONLINK`; the other flags tell a state, and the kernel refuses them.
const ON_LINK: u32 = 4;
/// `RTM_F_CLONED`.
const CLONED: u32 = 0x200;
/// `RT_TABLE_LOCAL`, and `RTPROT_KERNEL`: what the kernel makes with an address.
const LOCAL: u8 = 255;
const BY_KERNEL: u8 = 2;
/// The size of `rtnexthop`: length (16 bits), flags, hops, index.
const HOP: usize = 8;
const AF_INET: u8 = 2;

/// Whether CRIU leaves a route of the main table to us, or knows nothing of its table and the older
/// list of routes does not have it: those by nexthop objects, and those that end. Those that the
/// kernel makes with an address it makes again.
pub(super) fn is_ours(route: &Message) -> bool {
    let by_kernel = route.byte(PROTOCOL) == BY_KERNEL;
    let is_route = route.number(FLAGS) & CLONED == 0 && !by_kernel;
    is_route && (route.attribute(ROUTE, RTA_NH_ID).is_some() || lifetime(route).is_some())
}

/// The seconds after which a route ends.
fn lifetime(route: &Message) -> Option<u32> {
    let info = route.attribute(ROUTE, RTA_CACHEINFO).unwrap_or_default();
    let ticks = number_of(info.get(EXPIRES_AT..)?)?;
    (ticks != 0).then(|| u32::try_from(ticks.cast_signed()).unwrap_or_default() / TICKS)
}

/// A route when so many seconds have passed; one whose time is over goes at once.
pub(super) fn after(route: &Message, seconds: u32) -> Message {
    let mut later = route.clone();
    if let Some(lifetime) = lifetime(route) {
        later.push(RTA_EXPIRES, &lifetime.saturating_sub(seconds).max(1).to_ne_bytes());
    }
    later
}

/// A message with the addresses that have become others.
pub(super) fn with_addresses(
    message: &Message,
    header: usize,
    moved: &dyn Fn(IpAddr) -> Option<IpAddr>,
) -> Message {
    message.changed(header, |_, value| match ip(value).and_then(moved) {
        Some(IpAddr::V4(ip)) => Some(ip.octets().to_vec()),
        Some(IpAddr::V6(ip)) => Some(ip.octets().to_vec()),
        None => Some(value.to_vec()),
    })
}

/// An address of either family.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Whether a nexthop is a gateway behind this link.
pub(super) fn nexthop_is_over(nexthop: &Message, index: u32) -> bool {
    nexthop.attribute_number(NEXTHOP, NHA_OIF) == Some(index)
}

/// Whether a nexthop is a group of which any of these is a member.
pub(super) fn is_group_of(nexthop: &Message, members: &[Message]) -> bool {
    let ids: Vec<u32> =
        members.iter().filter_map(|m| m.attribute_number(NEXTHOP, NHA_ID)).collect();
    let group = nexthop.attribute(NEXTHOP, NHA_GROUP).unwrap_or_default();
    group.chunks(MEMBER).filter_map(number_of).any(|id| ids.contains(&id))
}

/// Whether a route leads over this link, by itself or by one of these nexthops. Those that the
/// kernel makes with an address it makes again.
pub(super) fn is_over(route: &Message, index: u32, nexthops: &[Message]) -> bool {
    if route.number(FLAGS) & CLONED != 0
        || (route.byte(TABLE), route.byte(PROTOCOL)) == (LOCAL, BY_KERNEL)
    {
        return false;
    }
    let by_id = route.attribute_number(ROUTE, RTA_NH_ID);
    if let Some(id) = by_id {
        return nexthops.iter().any(|m| m.attribute_number(NEXTHOP, NHA_ID) == Some(id));
    }
    let hops = route.attribute(ROUTE, RTA_MULTIPATH).map(hops).unwrap_or_default();
    route.attribute_number(ROUTE, RTA_OIF) == Some(index) || hops.iter().any(|(i, _)| *i == index)
}

/// Of a route to one address over one link: both.
pub(super) fn host_route(route: &Message) -> Option<(IpAddr, u32)> {
    let to = ip(route.attribute(ROUTE, RTA_DST)?)?;
    let whole = if to.is_ipv4() { 32 } else { 128 };
    let made = (route.byte(TABLE), route.byte(PROTOCOL)) != (LOCAL, BY_KERNEL);
    (made && route.kind() == NEW_ROUTE && route.byte(DESTINATION_LENGTH) == whole)
        .then(|| Some((to, route.attribute_number(ROUTE, RTA_OIF)?)))?
}

/// Each way of a route with several: the index of its link, and where it begins.
fn hops(bytes: &[u8]) -> Vec<(u32, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some([a, b, _, _, rest @ ..]) =
        bytes.get(at..).and_then(|rest| rest.first_chunk::<HOP>())
    {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        found.push((u32::from_ne_bytes(*rest), at));
        if length < HOP {
            break;
        }
        at += length.saturating_add(3) & !3;
    }
    found
}

/// A route to an address of the container as one to what has become of that.
pub(super) fn readdressed(route: &Message, moved: &dyn Fn(IpAddr) -> Option<IpAddr>) -> Message {
    route.changed(ROUTE, |kind, value| {
        match ip(value).filter(|_| kind == RTA_DST).and_then(moved) {
            Some(IpAddr::V4(ip)) => Some(ip.octets().to_vec()),
            Some(IpAddr::V6(ip)) => Some(ip.octets().to_vec()),
            None => Some(value.to_vec()),
        }
    })
}

/// A route as it can be given to the kernel, over the link with index `to` where it was over that
/// with index `from`.
pub(crate) fn moved_route(route: &Message, from: u32, to: u32) -> Message {
    let by_id = route.attribute(ROUTE, RTA_NH_ID).is_some();
    let mut moved = route.changed(ROUTE, |kind, value| match kind {
        RTA_CACHEINFO => None,
        // The kernel tells what the number stands for, too, and refuses both.
        RTA_OIF | RTA_GATEWAY | RTA_MULTIPATH | RTA_VIA if by_id => None,
        RTA_OIF if number_of(value) == Some(from) => Some(to.to_ne_bytes().to_vec()),
        RTA_METRICS if value.is_empty() => None,
        RTA_MULTIPATH => {
            let mut value = value.to_vec();
            for (index, at) in hops(&value) {
                if let Some(flags) = value.get_mut(at + 2) {
                    *flags &= ON_LINK as u8;
                }
                if let Some(bytes) = value.get_mut(at + 4..at + HOP).filter(|_| index == from) {
                    bytes.copy_from_slice(&to.to_ne_bytes());
                }
            }
            Some(value)
        }
        _ => Some(value.to_vec()),
    });
    moved.set_number(FLAGS, if by_id { 0 } else { route.number(FLAGS) & ON_LINK });
    moved
}

/// A route over one link as one over the link with this index; none if the message is no route.
pub(super) fn moved(route: &Message, index: u32) -> Option<Message> {
    if route.kind() != NEW_ROUTE {
        return None;
    }
    Some(moved_route(route, route.attribute_number(ROUTE, RTA_OIF).unwrap_or_default(), index))
}

/// Gives the kernel nexthops and routes again, over a link that has another index now. A route may
/// need a nexthop first, and that another route: what is refused is tried again as long as anything
/// is taken.
pub(super) fn put_back(
    socket: &mut Socket,
    (from, index): (u32, u32),
    nexthops: &[Message],
    routes: &[Message],
    note: &mut dyn FnMut(&str, Result<(), Error>),
) {
    let moved = nexthops.iter().map(|nexthop| {
        let id = nexthop.attribute_number(NEXTHOP, NHA_ID).unwrap_or_default();
        (moved_nexthop(nexthop, from, index), format!("nexthop {id}"))
    });
    let routes = routes.iter().map(|route| (moved_route(route, from, index), "a route".to_owned()));
    let mut left: Vec<(Message, String)> = moved.chain(routes).collect();
    loop {
        let (before, mut refused) = (left.len(), Vec::new());
        left.retain(|(message, what)| {
            let outcome = unless_there(socket.change(message, how(message)));
            let stays = outcome.is_err();
            refused.push((what.clone(), outcome));
            stays
        });
        if left.is_empty() || left.len() == before {
            refused.into_iter().for_each(|(what, outcome)| note(&what, outcome));
            return;
        }
    }
}

/// A nexthop as it can be given to the kernel, behind the link with index `to` where it was behind
/// that with index `from`.
pub(super) fn moved_nexthop(nexthop: &Message, from: u32, to: u32) -> Message {
    let is_group = nexthop.attribute(NEXTHOP, NHA_GROUP).is_some();
    let mut moved = nexthop.changed(NEXTHOP, |kind, value| match kind {
        // What else the kernel tells of a group it refuses.
        _ if is_group && !OF_GROUPS.contains(&kind) => None,
        NHA_OIF if number_of(value) == Some(from) => Some(to.to_ne_bytes().to_vec()),
        _ => Some(value.to_vec()),
    });
    // What it reaches the kernel finds out again.
    moved.set_byte(NEXTHOP_SCOPE, 0);
    moved.set_number(NEXTHOP_FLAGS, nexthop.number(NEXTHOP_FLAGS) & ON_LINK);
    moved
}

/// A group lives on without a member that is gone, and gets it back. One way among several is
/// missing from the route that is there; routes of IPv4 that differ in their gateway alone are
/// added after each other.
fn how(route: &Message) -> u16 {
    if route.kind() != NEW_ROUTE {
        return if route.attribute(NEXTHOP, NHA_GROUP).is_some() { REPLACE } else { EXCLUSIVE };
    }
    match route.attribute(ROUTE, RTA_MULTIPATH) {
        Some(_) => REPLACE,
        None if route.byte(0) == AF_INET => APPEND,
        None => CREATE | EXCLUSIVE,
    }
}

fn unless_there(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Exists) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(attributes: &[(u16, &[u8])]) -> Message {
        let mut message = Message::new(NEW_ROUTE, [2, 32, 0, 0, 254, 3, 0, 1, 0x10, 0, 0, 0]);
        attributes.iter().for_each(|(kind, value)| message.push(*kind, value));
        message
    }

    #[test]
    fn a_route_is_moved_to_another_link_without_its_state() {
        let seven = 7u32.to_ne_bytes();
        let plain = route(&[(RTA_DST, &[10, 0, 0, 1]), (RTA_OIF, &seven)]);
        assert!(is_over(&plain, 7, &[]) && !is_over(&plain, 8, &[]));
        assert_eq!(host_route(&plain), Some(([10, 0, 0, 1].into(), 7)));
        let moved = moved_route(&plain, 7, 9);
        assert_eq!((moved.attribute_number(ROUTE, RTA_OIF), moved.number(FLAGS)), (Some(9), 0));

        let hop = [&[8u8, 0, 0x10, 0][..], &seven].concat();
        let other = [&[8u8, 0, 0, 0][..], &3u32.to_ne_bytes()].concat();
        let several = route(&[(RTA_MULTIPATH, &[hop, other].concat())]);
        assert!(is_over(&several, 7, &[]) && is_over(&several, 3, &[]));
        let moved = moved_route(&several, 7, 9);
        let found = moved.attribute(ROUTE, RTA_MULTIPATH).unwrap().to_vec();
        assert_eq!(hops(&found), [(9, 0), (3, 8)]);
        assert_eq!(found[2], 0);
    }

    #[test]
    fn a_route_by_number_names_nothing_else() {
        let id = 54u32.to_ne_bytes();
        let by_id = route(&[
            (RTA_NH_ID, &id),
            (RTA_GATEWAY, &[10, 0, 0, 9]),
            (RTA_OIF, &7u32.to_ne_bytes()),
        ]);
        let mut nexthop = Message::new(104, [0; NEXTHOP]);
        nexthop.push(NHA_ID, &id);
        nexthop.push(NHA_OIF, &7u32.to_ne_bytes());
        assert!(is_over(&by_id, 7, std::slice::from_ref(&nexthop)) && !is_over(&by_id, 7, &[]));
        let kinds: Vec<u16> =
            moved_route(&by_id, 7, 9).attributes(ROUTE).iter().map(|(k, _)| *k).collect();
        assert_eq!(kinds, [RTA_NH_ID]);
        let mut group = Message::new(104, [0; NEXTHOP]);
        group.push(NHA_GROUP, &[&id[..], &[0; 4]].concat());
        assert!(
            is_group_of(&group, &[nexthop.clone()]) && !is_group_of(&nexthop, &[nexthop.clone()])
        );
    }
}
