//! Which veth pairs a restore makes, under which names, on which bridges. Pure: everything it must
//! know of the host is handed in.

use std::collections::{BTreeMap, BTreeSet};

use super::ports::BRIDGE;
use super::{NoBridge, Port};
use crate::sys::netlink::{Link, Mac};

/// The longest name of a link: the kernel's IFNAMSIZ less the final zero.
const NAME_LIMIT: usize = 15;

/// How many names are tried before giving up; the host has far fewer links than there are names.
const NAME_TRIES: usize = 1000;

/// What is asked for, by the name of the interface in the container.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The bridge that the configuration names for each of its interfaces, none for one without a
    /// link. An interface that is not in here stays on the bridge it was recorded on.
    pub bridges: BTreeMap<String, Option<String>>,
    /// The names that the user wants for host's ends (`--veth eth0=NAME`).
    pub names: BTreeMap<String, String>,
    /// The interfaces for which a script of the user's is run, which may make the bridge.
    pub scripted: BTreeSet<String>,
}

/// A veth pair to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPort {
    /// The name of the host's end.
    pub host: String,
    /// What the port is to be. Its `host` and `host_index` are the recorded ones, of the past.
    pub port: Port,
    /// Whether a script of the user's is run for it.
    pub scripted: bool,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The asked-for name belongs to another link.
    #[error("'{name}', asked for as the host's end of {inside}, is the name of another link")]
    NameTaken {
        /// The interface in the container.
        inside: String,
        /// The name.
        name: String,
    },
    /// The same name is asked for more than once.
    #[error("'{name}' is asked for as the host's end of more than one interface")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// The kernel does not take names of this length.
    #[error(
        "'{name}' is longer than {NAME_LIMIT} characters, the most that a link's name may have"
    )]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// The kernel does not take such a name.
    #[error("'{name}' cannot be the name of a link")]
    NameInvalid {
        /// The name.
        name: String,
    },
    /// A name is asked for the host's end of an interface that the container does not have.
    #[error("the container has no interface '{inside}' with an end on the host")]
    NoSuchInterface {
        /// The interface.
        inside: String,
    },
    /// The bridge is not there.
    #[error(transparent)]
    NoBridge(#[from] NoBridge),
    /// What should be the bridge is none.
    #[error("'{name}', to which {inside} is to be connected, is {kind} and not a Linux bridge")]
    NotABridge {
        /// The interface in the container.
        inside: String,
        /// The name of the link.
        name: String,
        /// What it is.
        kind: String,
    },
    /// No free name came out of the random numbers.
    #[error("no free name for a link was found")]
    NoFreeName,
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoBridge(e) => Some(e.hint()),
            Error::NameTaken { .. } | Error::NameTwice { .. } => {
                Some("choose another name".to_owned())
            }
            _ => None,
        }
    }
}

/// Plans a pair for each recorded port. `host` are the host's links, `random` any source of numbers
/// (see [`random_numbers`](super::apply::random_numbers)).
pub fn plan(
    recorded: &[Port],
    wanted: &Wanted,
    host: &[Link],
    random: impl IntoIterator<Item = u64>,
) -> Result<Vec<NewPort>, Error> {
    let mut names =
        Names { taken: host.iter().map(|l| l.name.clone()).collect(), random: random.into_iter() };
    // The asked-for names first: no other port may come to one of them by chance.
    let mut asked = BTreeMap::new();
    for (inside, name) in &wanted.names {
        if !recorded.iter().any(|p| p.inside == *inside) {
            return Err(Error::NoSuchInterface { inside: inside.clone() });
        }
        check_name(name)?;
        if asked.values().any(|n| n == name) {
            return Err(Error::NameTwice { name: name.clone() });
        }
        if !names.take(name) {
            return Err(Error::NameTaken { inside: inside.clone(), name: name.clone() });
        }
        asked.insert(inside.clone(), name.clone());
    }
    let mut plan = Vec::new();
    for port in recorded {
        let bridge = match wanted.bridges.get(&port.inside) {
            Some(configured) => configured.clone(),
            None => port.bridge.clone(),
        };
        let scripted = wanted.scripted.contains(&port.inside);
        let configured = wanted.bridges.get(&port.inside).is_some_and(Option::is_some);
        let made_by_script = scripted && !configured;
        if let Some(bridge) =
            bridge.as_ref().filter(|b| !made_by_script || host.iter().any(|l| l.name == **b))
        {
            check_bridge(bridge, &port.inside, host)?;
        }
        let name = match asked.remove(&port.inside) {
            Some(name) => name,
            None if check_name(&port.host).is_ok() && names.take(&port.host) => port.host.clone(),
            // As LXC names them.
            None => names.fresh("veth")?,
        };
        // VLANs are the affair of a bridge: on another one they mean something else.
        let vlans = port.vlans.clone().filter(|_| bridge == port.bridge);
        let settings = port.settings.clone().filter(|_| bridge.is_some());
        let mac_host = Some(port.mac_host.map_or_else(|| names.host_mac(), Ok)?);
        let port = Port { bridge, vlans, settings, mac_host, ..port.clone() };
        plan.push(NewPort { host: name, port, scripted });
    }
    Ok(plan)
}

/// What the kernel's `dev_valid_name` takes.
fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > NAME_LIMIT {
        return Err(Error::NameTooLong { name: name.to_owned() });
    }
    let forbidden = |b: u8| {
        b == b'/' || b == b':' || b == b'%' || b.is_ascii_whitespace() || b.is_ascii_control()
    };
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(forbidden) {
        return Err(Error::NameInvalid { name: name.to_owned() });
    }
    Ok(())
}

fn check_bridge(name: &str, inside: &str, host: &[Link]) -> Result<(), Error> {
    let Some(link) = host.iter().find(|l| l.name == name) else {
        return Err(NoBridge { name: name.to_owned() }.into());
    };
    match link.kind.as_deref() {
        Some(BRIDGE) => Ok(()),
        kind => Err(Error::NotABridge {
            inside: inside.to_owned(),
            name: name.to_owned(),
            kind: kind.map_or("hardware".to_owned(), |k| format!("of kind {k}")),
        }),
    }
}

/// The names of links that are in use, and where new ones come from.
struct Names<I> {
    taken: BTreeSet<String>,
    random: I,
}

impl<I: Iterator<Item = u64>> Names<I> {
    /// Whether the name was free; now it is not.
    fn take(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// An address for a host's end, high enough (as LXC makes them) never to be the lowest of a
    /// bridge, which would then take it for its own.
    fn host_mac(&mut self) -> Result<Mac, Error> {
        let [a, b, c, d, e, ..] = self.random.next().ok_or(Error::NoFreeName)?.to_le_bytes();
        Ok(Mac([0xfe, a, b, c, d, e]))
    }

    fn fresh(&mut self, prefix: &str) -> Result<String, Error> {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        for _ in 0..NAME_TRIES {
            let Some(mut number) = self.random.next() else { break };
            let mut name = prefix.to_owned();
            for _ in 0..6 {
                // The remainder by 32 is an index into 32 letters.
                name.push(char::from(LETTERS[(number % 32) as usize]));
                number /= 32;
            }
            if self.take(&name) {
                return Ok(name);
            }
        }
        Err(Error::NoFreeName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{PortSettings, Vlan};

    fn link(name: &str, kind: Option<&str>) -> Link {
        Link { name: name.into(), kind: kind.map(Into::into), ..Link::default() }
    }

    fn host() -> Vec<Link> {
        vec![
            link("lo", None),
            link("br0", Some("bridge")),
            link("br1", Some("bridge")),
            link("vethOLD", Some("veth")),
        ]
    }

    fn recorded(inside: &str, name: &str, bridge: Option<&str>) -> Port {
        Port {
            host: name.into(),
            bridge: bridge.map(Into::into),
            mac_host: Some(Mac([0xfe, 0, 0, 0, 0, 1])),
            mtu: 1400,
            settings: Some(PortSettings { isolated: Some(true), ..Default::default() }),
            vlans: Some(vec![Vlan { first: 5, last: 5, pvid: true, untagged: true }]),
            ..Port::unrecorded(inside)
        }
    }

    fn names(pairs: &[(&str, &str)]) -> Wanted {
        let names = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Wanted { names, ..Wanted::default() }
    }

    fn bridge(inside: &str, bridge: Option<&str>) -> Wanted {
        let bridges = BTreeMap::from([(inside.to_owned(), bridge.map(Into::into))]);
        Wanted { bridges, ..Wanted::default() }
    }

    #[test]
    fn names_and_bridges() {
        // (recorded host name, recorded bridge, wanted) → (host name, bridge)
        type Case =
            (&'static str, Option<&'static str>, Wanted, &'static str, Option<&'static str>);
        let cases: &[Case] = &[
            ("vethA", Some("br0"), Wanted::default(), "vethA", Some("br0")),
            ("vethOLD", Some("br0"), Wanted::default(), "vethBAAAAA", Some("br0")),
            ("", Some("br0"), Wanted::default(), "vethBAAAAA", Some("br0")),
            ("a-name-too-long-by-far", None, Wanted::default(), "vethBAAAAA", None),
            ("vethA", Some("br0"), names(&[("eth0", "web0")]), "web0", Some("br0")),
            ("vethA", Some("br0"), bridge("eth0", Some("br1")), "vethA", Some("br1")),
            ("vethA", Some("br0"), bridge("eth0", None), "vethA", None),
            ("vethA", Some("br0"), bridge("eth9", Some("br1")), "vethA", Some("br0")),
        ];
        for (name, on, wanted, want_name, want_bridge) in cases {
            let plan = plan(&[recorded("eth0", name, *on)], wanted, &host(), 1..).unwrap();
            assert_eq!(plan.len(), 1);
            assert_eq!(
                (&*plan[0].host, plan[0].port.bridge.as_deref()),
                (*want_name, *want_bridge),
                "{name} {wanted:?}"
            );
        }
    }

    #[test]
    fn errors_in_words() {
        let cases: &[(Option<&str>, Wanted, &str)] = &[
            (
                None,
                names(&[("eth0", "vethOLD")]),
                "'vethOLD', asked for as the host's end of eth0, is the name of another link",
            ),
            (
                None,
                names(&[("eth0", "sixteen-letters-")]),
                "'sixteen-letters-' is longer than 15 characters, the most that a link's name may \
                 have",
            ),
            (None, names(&[("eth0", "a/b")]), "'a/b' cannot be the name of a link"),
            (None, names(&[("eth0", "")]), "'' cannot be the name of a link"),
            (
                None,
                names(&[("eth7", "x")]),
                "the container has no interface 'eth7' with an end on the host",
            ),
            (Some("br7"), Wanted::default(), "bridge 'br7' does not exist"),
            (None, bridge("eth0", Some("br7")), "bridge 'br7' does not exist"),
            (
                None,
                bridge("eth0", Some("vethOLD")),
                "'vethOLD', to which eth0 is to be connected, is of kind veth and not a Linux \
                 bridge",
            ),
            (
                None,
                bridge("eth0", Some("lo")),
                "'lo', to which eth0 is to be connected, is hardware and not a Linux bridge",
            ),
        ];
        for (on, wanted, text) in cases {
            let error = plan(&[recorded("eth0", "vethA", *on)], wanted, &host(), 1..).unwrap_err();
            assert_eq!(error.to_string(), *text);
        }
        let two = [recorded("eth0", "vethA", None), recorded("eth1", "vethB", None)];
        let error =
            plan(&two, &names(&[("eth0", "web"), ("eth1", "web")]), &host(), 1..).unwrap_err();
        assert_eq!(error, Error::NameTwice { name: "web".into() });
        let nameless = [recorded("eth0", "", None), recorded("eth1", "", None)];
        assert_eq!(
            plan(&nameless, &Wanted::default(), &host(), []).unwrap_err(),
            Error::NoFreeName
        );
        assert_eq!(
            plan(&nameless, &Wanted::default(), &host(), std::iter::repeat(1)).unwrap_err(),
            Error::NoFreeName
        );
    }

    #[test]
    fn a_missing_bridge_comes_with_the_command_that_makes_it() {
        let error =
            plan(&[recorded("eth0", "vethA", Some("br7"))], &Wanted::default(), &host(), 1..)
                .unwrap_err();
        assert_eq!(
            error.hint().unwrap(),
            "make it: ip link add br7 type bridge && ip link set br7 up"
        );
    }

    #[test]
    fn an_asked_for_name_is_not_given_to_another_port() {
        // eth0 had the name that eth1 is to get now.
        let two = [recorded("eth0", "vethA", None), recorded("eth1", "vethB", None)];
        let plan = plan(&two, &names(&[("eth1", "vethA")]), &host(), 1..).unwrap();
        assert_eq!([&*plan[0].host, &*plan[1].host], ["vethBAAAAA", "vethA"]);
    }

    #[test]
    fn all_names_of_a_plan_differ() {
        let ports: Vec<Port> =
            (0..50).map(|i| recorded(&format!("eth{i}"), "vethSAME", None)).collect();
        let plan = plan(&ports, &Wanted::default(), &host(), (0..).map(|n| n / 3)).unwrap();
        let all: BTreeSet<&str> = plan.iter().map(|p| &*p.host).collect();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|n| n.len() <= NAME_LIMIT));
    }

    #[test]
    fn a_host_end_always_has_an_address_that_no_bridge_takes() {
        let plan = plan(&[Port::unrecorded("eth0")], &Wanted::default(), &host(), 1..).unwrap();
        assert_eq!(plan[0].port.mac_host, Some(Mac([0xfe, 2, 0, 0, 0, 0])));
    }

    #[test]
    fn what_was_recorded_is_kept_as_far_as_it_makes_sense() {
        let old = recorded("eth0", "vethA", Some("br0"));
        let same =
            &plan(std::slice::from_ref(&old), &Wanted::default(), &host(), 1..).unwrap()[0].port;
        assert_eq!(*same, old);
        let moved = &plan(std::slice::from_ref(&old), &bridge("eth0", Some("br1")), &host(), 1..)
            .unwrap()[0]
            .port;
        assert_eq!((moved.settings.clone(), moved.vlans.clone()), (old.settings.clone(), None));
        let loose =
            &plan(std::slice::from_ref(&old), &bridge("eth0", None), &host(), 1..).unwrap()[0].port;
        assert_eq!((loose.settings.clone(), loose.vlans.clone(), loose.mtu), (None, None, 1400));
    }
}
