//! `route-NETNS.img` and `route6-NETNS.img`: routes that `ip route restore` can add.
//!
//! It sends the kernel's own descriptions back to it. The kernel refuses those that tell a state
//! (the link is down, the gateway is dead) or name a nexthop object and what that stands for; and
//! it takes a route that expires for one that does not. The state is taken out here, and the other
//! two are left out: they are restored without CRIU.

use super::rtnetlink::Told;
use super::saved::{Saved, image, parse};
use super::{Error, Shown};

/// `RTM_NEWROUTE`; the size of `rtmsg`, and where it has flags.
const NEW_ROUTE: u16 = 24;
const BODY: usize = 12;
const FLAGS: usize = 8;
/// `RTNH_F_ONLINK`: the only flag that somebody sets.
const ON_LINK: u32 = 4;
/// Attributes (linux/rtnetlink.h).
const MULTIPATH: u16 = 9;
const CACHE_INFO: u16 = 12;
const EXPIRES: u16 = 23;
const NEXTHOP: u16 = 30;
/// Where `rta_cacheinfo` has a lifetime.
const LIFETIME: usize = 8;
/// The size of `rtnexthop`, and where it has flags.
const WAY: usize = 8;
const WAY_FLAGS: usize = 2;

/// Shows CRIU the routes of a network namespace as its tool can add them.
pub(crate) fn with_plain_routes(images: &mut Shown, netns: u32) -> Result<(), Error> {
    for what in [Saved::Routes, Saved::Routes6] {
        let changed = images.change(&what.file_name(netns), |path, bytes| {
            let truncated = || Error::Truncated { path: path.to_owned(), size: bytes.len() };
            let messages = parse(bytes, what).ok_or_else(truncated)?;
            let plain: Vec<Vec<u8>> =
                messages.iter().filter_map(|message| addable(message)).collect();
            Ok(if plain == messages { bytes.to_vec() } else { image(what, &plain) })
        });
        match changed {
            Err(e) if e.is_not_found() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The message without its state; none for one that CRIU's tool cannot add as it was. What is not
/// understood is left as it is.
fn addable(message: &[u8]) -> Option<Vec<u8>> {
    let Some(mut told) = Told::parse(message, BODY).filter(|told| told.kind() == NEW_ROUTE) else {
        return Some(message.to_vec());
    };
    if told.attribute(NEXTHOP).is_some() || told.attribute(EXPIRES).is_some() || expires(&told) {
        return None;
    }
    let before = told.clone();
    if let Some(flags) = told.body.get_mut(FLAGS..).and_then(|flags| flags.first_chunk_mut::<4>()) {
        *flags = (u32::from_ne_bytes(*flags) & ON_LINK).to_ne_bytes();
    }
    if let Some(ways) = told.attribute(MULTIPATH) {
        let ways = without_state(ways);
        told.set(MULTIPATH, ways);
    }
    Some(if told == before { message.to_vec() } else { told.emit() })
}

fn expires(route: &Told) -> bool {
    let info = route.attribute(CACHE_INFO).unwrap_or_default();
    info.get(LIFETIME..)
        .and_then(|rest| rest.first_chunk::<4>())
        .is_some_and(|lifetime| *lifetime != [0; 4])
}

fn without_state(ways: &[u8]) -> Vec<u8> {
    let mut ways = ways.to_vec();
    let mut at = 0;
    while let Some([a, b, flags, ..]) =
        ways.get(at..).and_then(|rest| rest.first_chunk::<WAY>()).copied()
    {
        if let Some(place) = ways.get_mut(at + WAY_FLAGS) {
            *place = flags & ON_LINK as u8;
        }
        match usize::from(u16::from_ne_bytes([a, b])) {
            length if length < WAY => break,
            length => at += length.next_multiple_of(4),
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(flags: u32, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut told = Told::new(NEW_ROUTE, vec![2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
        told.body[FLAGS..].copy_from_slice(&flags.to_ne_bytes());
        attributes.iter().for_each(|(kind, value)| told.set(*kind, value.clone()));
        told.emit()
    }

    #[test]
    fn a_state_is_taken_out_and_nothing_else() {
        let device = (4, vec![2, 0, 0, 0]);
        let plain = route(ON_LINK, std::slice::from_ref(&device));
        assert_eq!(addable(&plain), Some(plain.clone()));
        assert_eq!(addable(&route(ON_LINK | 0x11, std::slice::from_ref(&device))), Some(plain));
        let way = |flags: u8| vec![8, 0, flags, 0, 2, 0, 0, 0];
        let several = |flags: u8| route(0, &[(MULTIPATH, [way(0), way(flags)].concat())]);
        assert_eq!(addable(&several(0x10)), Some(several(0)));
        assert_eq!(addable(b"short"), Some(b"short".to_vec()));
    }

    #[test]
    fn what_must_be_restored_without_criu_is_left_out() {
        assert_eq!(addable(&route(0, &[(NEXTHOP, vec![54, 0, 0, 0])])), None);
        let mut info = vec![0; 32];
        assert!(addable(&route(0, &[(CACHE_INFO, info.clone())])).is_some());
        info[LIFETIME] = 1;
        assert_eq!(addable(&route(0, &[(CACHE_INFO, info)])), None);
    }
}
