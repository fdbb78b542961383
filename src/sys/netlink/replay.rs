//! Addresses, routes and rules that the kernel has told of once, told to it again.

use rtnetlink::packet_core::{
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkDeserializable, NetlinkHeader,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::route::RouteFlags;
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Netlink};

/// The size of an `nlmsghdr`, and where it has the type.
const HEADER: usize = 16;
const TYPE: usize = 4;

/// An address, a route or a policy rule, as the kernel described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described(RouteNetlinkMessage);

impl Described {
    /// A message with its header. None where it is of another kind, or not understood.
    pub fn parse(message: &[u8]) -> Option<Described> {
        let kind = u16::from_ne_bytes(*message.get(TYPE..)?.first_chunk()?);
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        let mut parsed = RouteNetlinkMessage::deserialize(&header, message.get(HEADER..)?).ok()?;
        match &mut parsed {
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::NewRule(_) => {}
            // The others tell a state, and the kernel refuses them (net/ipv4/fib_frontend.c,
            // rtm_to_fib_config).
            RouteNetlinkMessage::NewRoute(route) => route.header.flags &= RouteFlags::Onlink,
            _ => return None,
        }
        Some(Described(parsed))
    }

    /// Of a rule for all packets, its priority and its table. The first rule of all names no
    /// priority: it has 0, which cannot be given to a new one.
    pub fn rule_for_all(&self) -> Option<(u32, u32)> {
        let RouteNetlinkMessage::NewRule(rule) = &self.0 else { return None };
        let (mut priority, mut table) = (0, rule.header.table.into());
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Priority(given) => priority = *given,
                RuleAttribute::Table(given) => table = *given,
                _ => {}
            }
        }
        (rule.header.src_len == 0 && rule.header.dst_len == 0).then_some((priority, table))
    }
}

/// An address of IPv6 that is not looked for, where it would be otherwise. One for which the kernel
/// was still looking is looked for again.
fn settled(message: &RouteNetlinkMessage) -> Option<RouteNetlinkMessage> {
    let RouteNetlinkMessage::NewAddress(address) = message else { return None };
    let open = AddressHeaderFlags::Nodad | AddressHeaderFlags::Tentative;
    if address.header.family != AddressFamily::Inet6 || address.header.flags.intersects(open) {
        return None;
    }
    let mut settled = address.clone();
    settled.header.flags |= AddressHeaderFlags::Nodad;
    for attribute in &mut settled.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            *flags |= AddressFlags::Nodad;
        }
    }
    Some(RouteNetlinkMessage::NewAddress(settled))
}

impl Netlink {
    /// Makes it as it was; fine if it is there.
    ///
    /// For duplicates of an IPv6 address nobody looks (RFC 4862): that was done in its first life,
    /// and until it is done again, for a second or two, no socket can be bound to it. The mark that
    /// says so goes again.
    pub fn replay(&mut self, described: &Described) -> Result<(), Error> {
        let wanted = &described.0;
        let settled = settled(wanted);
        let made =
            self.change(settled.as_ref().unwrap_or(wanted).clone(), NLM_F_CREATE | NLM_F_EXCL);
        match (made, settled) {
            (Err(Error::Exists), _) => Ok(()),
            (Ok(()), Some(_)) => self.change(wanted.clone(), NLM_F_CREATE | NLM_F_REPLACE),
            (other, _) => other,
        }
    }
}
