//! Addresses of links, and over which links the default routes go.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Netlink};

impl Netlink {
    /// Gives a link an address; says whether it is new there.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<bool, Error> {
        let message = message(index, address, prefix);
        match self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(Error::Exists) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes an address from a link; says whether it was there.
    pub fn remove_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<bool, Error> {
        match self.change(RouteNetlinkMessage::DelAddress(message(index, address, prefix)), 0) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Some(libc::EADDRNOTAVAIL) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The addresses of a link, each with the length of its prefix.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, Error> {
        let mut found = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            if message.header.index == index {
                found.extend(message.attributes.iter().filter_map(|a| match a {
                    AddressAttribute::Address(address) => {
                        Some((*address, message.header.prefix_len))
                    }
                    _ => None,
                }));
            }
        }
        Ok(found)
    }

    /// The networks in which links have addresses: the index of the link, its address, and the
    /// length of the prefix in bits.
    pub fn networks(&mut self) -> Result<Vec<(u32, IpAddr, u8)>, Error> {
        let mut found = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            found.extend(message.attributes.iter().filter_map(|a| match a {
                AddressAttribute::Address(address) => {
                    Some((message.header.index, *address, message.header.prefix_len))
                }
                _ => None,
            }));
        }
        Ok(found)
    }

    /// The addresses of all links.
    pub fn all_addresses(&mut self) -> Result<Vec<IpAddr>, Error> {
        let mut found = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            let named = |local: bool| {
                message.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Local(ip) if local => Some(*ip),
                    AddressAttribute::Address(ip) if !local => Some(*ip),
                    _ => None,
                })
            };
            // On a point-to-point link the address is the other end's.
            found.extend(named(true).or_else(|| named(false)));
        }
        Ok(found)
    }

    /// The indices of the links over which default routes go.
    pub fn default_links(&mut self) -> Result<Vec<u32>, Error> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for answer in self.dump(RouteNetlinkMessage::GetRoute(query))? {
                let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
                if route.header.destination_prefix_length == 0 {
                    found.extend(route.attributes.iter().filter_map(|a| match a {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    }));
                }
            }
        }
        Ok(found)
    }
}

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(address));
    }
    message
}
