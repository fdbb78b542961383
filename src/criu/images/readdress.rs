//! A container's interfaces with other addresses than those of its checkpoint: of hardware, and of
//! IP with what hangs on them (routes, names of sockets).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses::{self, ADDRESS, Address, LOCAL, NEW_ADDRESS, address_of};
use super::rtnetlink::{Told, octets};
use super::saved::{Saved, image, saved};
use super::{Error, Shown};

/// `IFA_BROADCAST`.
const BROADCAST: u16 = 4;
/// `RTM_NEWROUTE`, and the size of `rtmsg`: family, length of the destination, of the source, tos,
/// table, protocol, scope, type, a byte each; flags.
const NEW_ROUTE: u16 = 24;
const ROUTE_BODY: usize = 12;
/// `RTA_OIF`, `RTA_GATEWAY`, `RTA_PREFSRC`.
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const SOURCE: u16 = 7;
/// `RT_TABLE_MAIN`, `RTPROT_KERNEL`, `RTPROT_BOOT`, `RT_SCOPE_LINK`, `RTN_UNICAST`.
const MAIN: u8 = 254;
const BY_KERNEL: u8 = 2;
const BY_BOOT: u8 = 3;
const ON_LINK: u8 = 253;
const UNICAST: u8 = 1;
/// `IFA_F_PERMANENT`.
const PERMANENT: u8 = 0x80;
/// `AF_INET`, `AF_INET6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The address.
    pub ip: IpAddr,
    /// The length.
    pub prefix: u8,
}

/// What an interface is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readdress {
    /// Its index.
    pub interface: u32,
    /// Its hardware address at the checkpoint, and now. IPv6 addresses that were made of the one
    /// are made of the other.
    pub mac: Option<([u8; 6], [u8; 6])>,
    /// Its addresses. Those of IPv4 take the place of all that it had of IPv4; those of IPv6 of all
    /// but the link's own.
    pub nets: Vec<Net>,
    /// Where its default routes lead, at most one of IPv4 and one of IPv6. None for one without an
    /// address of a gateway.
    pub gateways: Vec<(Family, Option<IpAddr>)>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Family {
    V4,
    V6,
}

/// A network namespace with other addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readdressed {
    /// The images that differ, by name.
    pub images: Vec<(String, Vec<u8>)>,
    /// What became of each address that is not there any more.
    pub moved: BTreeMap<IpAddr, IpAddr>,
    /// The addresses as they were.
    pub before: Vec<Address>,
    /// The addresses as they are now.
    pub after: Vec<Address>,
    /// Gateways that cannot be reached from the new addresses, so that routes to them are left out.
    pub lost: Vec<IpAddr>,
}

impl Family {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn number(self) -> u8 {
        match self {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        }
    }
}

/// Gives the interfaces of a network namespace other addresses.
pub fn readdressed(images: &Shown, netns: u32, wishes: &[Readdress]) -> Result<Readdressed, Error> {
    let told = |what: Saved, body| -> Result<Vec<Told>, Error> {
        let cut_off = |message: &Vec<u8>| Error::Truncated {
            path: images.dir().join(what.file_name(netns)),
            size: message.len(),
        };
        saved(images, netns, what)?
            .iter()
            .map(|m| Told::parse(m, body).ok_or_else(|| cut_off(m)))
            .collect()
    };
    let of = |messages: &[Told]| messages.iter().filter_map(address_of).collect::<Vec<_>>();
    let old = told(Saved::Addresses, addresses::BODY)?;
    let before = of(&old);
    let moved = moves(&before, wishes);
    let new = new_addresses(old.clone(), wishes, &moved);
    let mut done = Readdressed { before, after: of(&new), moved, ..Readdressed::default() };
    done.note(Saved::Addresses, netns, &old, &new);
    for (what, family) in [(Saved::Routes, Family::V4), (Saved::Routes6, Family::V6)] {
        let old = told(what, ROUTE_BODY)?;
        let new = done.new_routes(family, old.clone(), wishes);
        done.note(what, netns, &old, &new);
    }
    done.lost.sort_unstable();
    done.lost.dedup();
    Ok(done)
}

impl Readdress {
    /// Whether it has all new addresses of this family.
    fn replaces(&self, family: Family) -> bool {
        self.nets.iter().any(|net| Family::of(net.ip) == family)
    }

    /// An address made of the new hardware address, for one that was made of the old.
    fn remade(&self, ip: IpAddr) -> Option<IpAddr> {
        let ((old, new), IpAddr::V6(ip)) = (self.mac?, ip) else { return None };
        let mut octets = ip.octets();
        (octets[8..] == interface_id(old)).then(|| {
            octets[8..].copy_from_slice(&interface_id(new));
            Ipv6Addr::from(octets).into()
        })
    }

    /// Whether it gives up an address for those that it is to have.
    fn gives_up(&self, ip: IpAddr) -> bool {
        let of_the_link = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        !of_the_link && self.replaces(Family::of(ip))
    }
}

/// The lower half of an IPv6 address that is made of a hardware address (RFC 4291, appendix A).
fn interface_id([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// What becomes of each address that an interface gives up.
fn moves(before: &[Address], wishes: &[Readdress]) -> BTreeMap<IpAddr, IpAddr> {
    let mut moved = BTreeMap::new();
    for wish in wishes {
        let own = || before.iter().filter(|a| a.interface == wish.interface);
        for family in [Family::V4, Family::V6] {
            let new: Vec<Net> =
                wish.nets.iter().filter(|n| Family::of(n.ip) == family).copied().collect();
            let old = own().filter(|a| Family::of(a.ip) == family && wish.gives_up(a.ip));
            for (at, address) in old.enumerate() {
                let Some(net) = new.get(at).or_else(|| new.first()) else { continue };
                let old = Net { ip: address.ip, prefix: address.prefix };
                moved.insert(old.ip, net.ip);
                if let (Some(old), Some(new)) = (old.broadcast(), net.broadcast()) {
                    moved.insert(old, new);
                }
            }
        }
        for address in own().filter(|a| !wish.gives_up(a.ip)) {
            moved.extend(wish.remade(address.ip).map(|new| (address.ip, new)));
        }
    }
    moved.retain(|old, new| old != new);
    moved
}

fn new_addresses(
    messages: Vec<Told>,
    wishes: &[Readdress],
    moved: &BTreeMap<IpAddr, IpAddr>,
) -> Vec<Told> {
    let mut kept = Vec::new();
    for mut message in messages {
        let Some(address) = address_of(&message) else {
            kept.push(message);
            continue;
        };
        let wish = wishes.iter().find(|w| w.interface == address.interface);
        if wish.is_some_and(|w| w.gives_up(address.ip)) {
            continue;
        }
        if wish.is_some()
            && let Some(new) = moved.get(&address.ip)
        {
            for kind in [ADDRESS, LOCAL] {
                if message.ip(kind) == Some(address.ip) {
                    message.set_ip(kind, *new);
                }
            }
        }
        kept.push(message);
    }
    for wish in wishes {
        kept.extend(wish.nets.iter().map(|net| net.message(wish.interface)));
    }
    kept
}

impl Net {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask =
                    u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }

    fn broadcast(&self) -> Option<IpAddr> {
        match self.ip {
            IpAddr::V4(ip) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(ip.to_bits() | (u32::MAX >> self.prefix)).into())
            }
            _ => None,
        }
    }

    fn message(&self, interface: u32) -> Told {
        let mut body = vec![Family::of(self.ip).number(), self.prefix, PERMANENT, 0];
        body.extend(interface.to_ne_bytes());
        let mut message = Told::new(NEW_ADDRESS, body);
        message.set_ip(ADDRESS, self.ip);
        message.set_ip(LOCAL, self.ip);
        if let Some(broadcast) = self.broadcast() {
            message.set_ip(BROADCAST, broadcast);
        }
        message
    }
}

impl Readdressed {
    fn note(&mut self, what: Saved, netns: u32, old: &[Told], new: &[Told]) {
        if new != old {
            let messages: Vec<Vec<u8>> = new.iter().map(Told::emit).collect();
            self.images.push((what.file_name(netns), image(what, &messages)));
        }
    }

    fn new_routes(&mut self, family: Family, before: Vec<Told>, wishes: &[Readdress]) -> Vec<Told> {
        let mut routes = Vec::new();
        for mut route in before {
            let wish = wishes.iter().find(|w| route.number(INTERFACE) == Some(w.interface));
            match wish.filter(|_| {
                route.kind() == NEW_ROUTE && route.body.first() == Some(&family.number())
            }) {
                None => routes.push(route),
                Some(wish) if self.keeps(family, &mut route, wish) => routes.push(route),
                Some(_) => {}
            }
        }
        for wish in wishes {
            let gateway = wish.gateways.iter().find(|(f, _)| *f == family);
            routes.extend(
                gateway.map(|(_, gateway)| default_route(family, wish.interface, *gateway)),
            );
        }
        routes
    }

    /// Whether a route of an interface stays, with another source if need be.
    fn keeps(&mut self, family: Family, route: &mut Told, wish: &Readdress) -> bool {
        let [_, length, _, _, _, protocol, ..] = route.body[..] else { return true };
        let has_gateway = wish.gateways.iter().any(|(f, _)| *f == family);
        if length == 0 && has_gateway {
            return false;
        }
        if wish.replaces(family) {
            // To the network of an address there is a route as soon as there is the address.
            if protocol == BY_KERNEL {
                return false;
            }
            if let Some(gateway) = route.ip(GATEWAY)
                && !wish.nets.iter().any(|net| net.contains(gateway))
                && !matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local())
            {
                self.lost.push(gateway);
                return false;
            }
        }
        if let Some(new) = route.ip(SOURCE).and_then(|ip| self.moved.get(&ip)) {
            route.set_ip(SOURCE, *new);
        }
        true
    }
}

fn default_route(family: Family, interface: u32, gateway: Option<IpAddr>) -> Told {
    // Through a gateway it is RT_SCOPE_UNIVERSE.
    let scope = if gateway.is_some() { 0 } else { ON_LINK };
    let mut route = Told::new(
        NEW_ROUTE,
        vec![family.number(), 0, 0, 0, MAIN, BY_BOOT, scope, UNICAST, 0, 0, 0, 0],
    );
    if let Some(gateway) = gateway {
        route.set(GATEWAY, octets(gateway));
    }
    route.set(INTERFACE, interface.to_ne_bytes().to_vec());
    route
}

#[cfg(test)]
mod tests {
    use super::super::saved::parse;
    use super::*;
    use std::fs;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> Net {
        let (address, prefix) = text.split_once('/').unwrap();
        Net { ip: ip(address), prefix: prefix.parse().unwrap() }
    }

    /// A route as `ip` saves it.
    fn route(
        interface: u32,
        length: u8,
        protocol: u8,
        gateway: Option<&str>,
        source: Option<&str>,
    ) -> Told {
        let mut route = default_route(Family::V4, interface, gateway.map(ip));
        (route.body[1], route.body[5]) = (length, protocol);
        if let Some(source) = source {
            route.set_ip(SOURCE, ip(source));
        }
        route
    }

    /// A namespace whose eth0 (2) and eth1 (3) have these addresses and routes.
    fn namespace(addresses: &[(u32, &str)], routes: &[Told]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<_> =
            addresses.iter().map(|(index, text)| net(text).message(*index).emit()).collect();
        let routes: Vec<_> = routes.iter().map(Told::emit).collect();
        fs::write(dir.path().join("ifaddr-9.img"), image(Saved::Addresses, &addresses)).unwrap();
        fs::write(dir.path().join("route-9.img"), image(Saved::Routes, &routes)).unwrap();
        fs::write(dir.path().join("route6-9.img"), "").unwrap();
        dir
    }

    fn told(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(|a| format!("{} {}/{}", a.interface, a.ip, a.prefix)).collect()
    }

    /// The routes that CRIU is shown.
    fn routes_of(done: &Readdressed) -> Option<Vec<Told>> {
        let (_, bytes) = done.images.iter().find(|(name, _)| name == "route-9.img")?;
        parse(bytes, Saved::Routes)?
            .into_iter()
            .map(|message| Told::parse(message, ROUTE_BODY))
            .collect()
    }

    const BOTH: &[(u32, &str)] = &[
        (1, "127.0.0.1/8"),
        (2, "10.99.0.11/24"),
        (2, "10.99.0.13/24"),
        (2, "fe80::216:3eff:fe00:1/64"),
        (2, "2001:db8::216:3eff:fe00:1/64"),
        (3, "10.98.0.11/24"),
    ];

    #[test]
    fn nothing_asked_is_nothing_changed() {
        let dir = namespace(BOTH, &[route(2, 0, BY_BOOT, Some("10.99.0.1"), None)]);
        for wishes in [vec![], vec![Readdress { interface: 2, ..Readdress::default() }]] {
            let done = readdressed(&Shown::of(dir.path()), 9, &wishes).unwrap();
            assert_eq!((done.images.len(), done.moved.len(), done.lost.len()), (0, 0, 0));
            assert_eq!(done.before, done.after);
        }
        // CRIU saves no addresses where the container shares the host's network.
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(
            readdressed(&Shown::of(elsewhere.path()), 9, &[]).unwrap(),
            Readdressed::default()
        );
    }

    #[test]
    fn what_was_made_of_the_hardware_address_follows_it() {
        let dir = namespace(BOTH, &[]);
        let mac = Some(([0, 0x16, 0x3e, 0, 0, 1], [0, 0x16, 0x3e, 0xa, 0xb, 0xc]));
        let done = readdressed(
            &Shown::of(dir.path()),
            9,
            &[Readdress { interface: 2, mac, ..Readdress::default() }],
        )
        .unwrap();
        assert_eq!(
            told(&done.after)[3..],
            ["2 fe80::216:3eff:fe0a:b0c/64", "2 2001:db8::216:3eff:fe0a:b0c/64", "3 10.98.0.11/24"]
        );
        assert_eq!(
            done.moved.get(&ip("fe80::216:3eff:fe00:1")),
            Some(&ip("fe80::216:3eff:fe0a:b0c"))
        );
        assert_eq!(told(&done.before)[..3], told(&done.after)[..3]);
    }

    #[test]
    fn new_addresses_take_the_place_of_their_family() {
        let kept = route(3, 0, BY_BOOT, Some("10.98.0.1"), None);
        let dir = namespace(
            BOTH,
            &[
                route(2, 24, BY_KERNEL, None, Some("10.99.0.11")),
                route(2, 16, BY_BOOT, Some("10.99.0.1"), Some("10.99.0.13")),
                route(2, 8, BY_BOOT, Some("10.99.0.200"), None),
                kept.clone(),
            ],
        );
        let wish =
            Readdress { interface: 2, nets: vec![net("10.99.0.21/25")], ..Readdress::default() };
        let done = readdressed(&Shown::of(dir.path()), 9, std::slice::from_ref(&wish)).unwrap();
        assert_eq!(
            told(&done.after),
            [
                "1 127.0.0.1/8",
                "2 fe80::216:3eff:fe00:1/64",
                "2 2001:db8::216:3eff:fe00:1/64",
                "3 10.98.0.11/24",
                "2 10.99.0.21/25"
            ]
        );
        let moved: Vec<String> =
            done.moved.iter().map(|(old, new)| format!("{old} {new}")).collect();
        assert_eq!(
            moved,
            ["10.99.0.11 10.99.0.21", "10.99.0.13 10.99.0.21", "10.99.0.255 10.99.0.127"]
        );
        // The kernel makes the first one itself; the third leads to nobody.
        let stays = route(2, 16, BY_BOOT, Some("10.99.0.1"), Some("10.99.0.21"));
        assert_eq!(routes_of(&done).unwrap(), [stays, kept.clone()]);
        assert_eq!(done.lost, [ip("10.99.0.200")]);

        let wish = Readdress { gateways: vec![(Family::V4, Some(ip("10.99.0.2")))], ..wish };
        let done = readdressed(&Shown::of(dir.path()), 9, &[wish]).unwrap();
        assert_eq!(routes_of(&done).unwrap().last().unwrap().ip(GATEWAY), Some(ip("10.99.0.2")));
        assert_eq!(routes_of(&done).unwrap()[1], kept, "the default route of another interface");
    }

    #[test]
    fn a_gateway_takes_the_place_of_the_default_route() {
        let old = route(2, 0, BY_BOOT, Some("10.99.0.1"), None);
        let dir = namespace(BOTH, std::slice::from_ref(&old));
        let wish = |gateway| Readdress {
            interface: 2,
            gateways: vec![(Family::V4, gateway)],
            ..Readdress::default()
        };
        let done = readdressed(&Shown::of(dir.path()), 9, &[wish(Some(ip("10.99.0.1")))]).unwrap();
        assert_eq!(done.images, [], "it is the same");
        let done = readdressed(&Shown::of(dir.path()), 9, &[wish(None)]).unwrap();
        assert_eq!(routes_of(&done).unwrap(), [route(2, 0, BY_BOOT, None, None)]);
    }

    #[test]
    fn a_damaged_image_is_told() {
        let dir = namespace(BOTH, &[]);
        let path = dir.path().join("ifaddr-9.img");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        assert!(matches!(
            readdressed(&Shown::of(dir.path()), 9, &[]),
            Err(Error::Truncated { .. })
        ));
    }
}
