//! The verbs of `sys::netlink`.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lxc_cr::api::resources::network::ports;
use lxc_cr::api::sys::netlink::{Error, Mac, NewVeth, in_netns};

use crate::{connect, container, inside, nothing_to_note, open};

pub const TRIALS: &[(&str, fn())] = &[
    (
        "a_link_that_is_not_there_is_an_error_of_its_own",
        a_link_that_is_not_there_is_an_error_of_its_own,
    ),
    ("a_pair_is_made_with_all_that_was_asked_for", a_pair_is_made_with_all_that_was_asked_for),
    (
        "an_inner_end_can_be_born_with_its_name_and_index",
        an_inner_end_can_be_born_with_its_name_and_index,
    ),
    (
        "work_in_another_namespace_leaves_the_caller_in_his",
        work_in_another_namespace_leaves_the_caller_in_his,
    ),
    ("addresses_come_and_go", addresses_come_and_go),
    ("the_verbs_are_cheap", the_verbs_are_cheap),
];

fn a_link_that_is_not_there_is_an_error_of_its_own() {
    let mut nl = open();
    assert!(matches!(nl.link("nope"), Err(Error::NotFound)));
    assert!(matches!(nl.link_by_index(4711), Err(Error::NotFound)));
    assert!(matches!(nl.delete_link(4711), Err(Error::NotFound)));
    assert!(matches!(nl.set_controller(4711, None), Err(Error::NotFound)));
    assert_eq!(nl.link("nope").unwrap_err().errno(), Some(libc::ENODEV));
    let index = nl.create_bridge("br0").unwrap();
    assert!(matches!(nl.create_bridge("br0"), Err(Error::Exists)));
    nl.set_up(index, false).unwrap();
    nl.rename(index, "br1").unwrap();
    assert_eq!(nl.link("br1").unwrap().index, index);
    assert_eq!(nl.port_settings(index).unwrap(), None);
    nl.delete_link(index).unwrap();
    assert_eq!(nl.links().unwrap().iter().map(|l| &*l.name).collect::<Vec<_>>(), ["lo"]);
}

fn a_pair_is_made_with_all_that_was_asked_for() {
    let mut nl = open();
    let bridge = nl.create_bridge("br0").unwrap();
    let (outer, inner) = (Mac([0xfe, 1, 2, 3, 4, 5]), Mac([0, 0x16, 0x3e, 1, 2, 3]));
    let new = NewVeth {
        host_name: "vethA".into(),
        inner_name: "tempA".into(),
        mtu: Some(1400),
        host_mac: Some(outer),
        inner_mac: Some(inner),
        host_txqueuelen: Some(77),
        inner_txqueuelen: Some(78),
        host_up: true,
        controller: Some(bridge),
        ..NewVeth::default()
    };
    let index = nl.create_veth(&new).unwrap();
    let host = nl.link("vethA").unwrap();
    let temp = nl.link("tempA").unwrap();
    assert_eq!((host.index, host.mac, host.mtu, host.up), (index, Some(outer), 1400, true));
    assert_eq!(
        (host.controller, host.kind.as_deref(), host.txqueuelen),
        (Some(bridge), Some("veth"), Some(77))
    );
    assert_eq!(
        (temp.mac, temp.mtu, temp.up, temp.txqueuelen),
        (Some(inner), 1400, false, Some(78))
    );
    assert_eq!((host.peer_index, host.peer_netns), (Some(temp.index), None));
    assert!(matches!(nl.create_veth(&new), Err(Error::Exists)));
}

fn an_inner_end_can_be_born_with_its_name_and_index() {
    let (mut nl, container) = (open(), container());
    // The outer index that would come next is taken, as it can be on a busy host.
    nl.create_bridge("br0").unwrap();
    let new = NewVeth {
        host_name: "vethA".into(),
        inner_name: "eth0".into(),
        inner_index: Some(42),
        inner_netns: Some(container.as_fd()),
        ..NewVeth::default()
    };
    let index = nl.create_veth(&new).unwrap();
    assert_eq!(nl.link("vethA").unwrap().index, index);
    let eth0 = inside(&container).into_iter().find(|l| l.name == "eth0").unwrap();
    assert_eq!((eth0.index, eth0.peer_index), (42, Some(index)));
    assert!(matches!(nl.create_veth(&new), Err(Error::Exists)));
}

fn work_in_another_namespace_leaves_the_caller_in_his() {
    let own = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    let (before, container) = (own(), container());
    let there = in_netns(container.as_fd(), own).unwrap();
    assert_ne!(there, before);
    assert_eq!(own(), before);
    let no_namespace = File::open("/dev/null").unwrap();
    assert_eq!(in_netns(no_namespace.as_fd(), || ()).unwrap_err().errno(), Some(libc::EINVAL));
}

/// Median of some runs.
fn cost(mut f: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn the_verbs_are_cheap() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    for i in 0..24 {
        let pair = NewVeth {
            host_name: format!("a{i}"),
            inner_name: format!("b{i}"),
            host_up: true,
            ..NewVeth::default()
        };
        nl.create_veth(&pair).unwrap();
    }
    connect(&mut nl, "vethA", &container, "eth0", bridge);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    let mut switch = 0;
    let costs = [
        ("open", cost(|| drop(open()))),
        ("open and ask for one link", cost(|| drop(open().link("vethA").unwrap()))),
        ("list 51 links", cost(|| assert_eq!(nl.links().unwrap().len(), 51))),
        ("find", cost(|| assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap().len(), 1))),
        (
            "lock",
            cost(|| {
                ports::unlock(&mut nl, &found).unwrap();
                let start = Instant::now();
                ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
                switch += start.elapsed().as_micros();
            }),
        ),
        ("unlock in place", cost(|| ports::unlock(&mut nl, &found).unwrap())),
    ];
    for (what, time) in costs {
        println!("{what}: {} µs", time.as_micros());
        // Far above what is measured (well under 1 ms): a loaded machine is no regression, a wait
        // is.
        assert!(time < Duration::from_millis(100), "{what} took {time:?}");
    }
    println!("lock alone, mean: {} µs", switch / 21);
}

fn addresses_come_and_go() {
    let mut nl = open();
    let bridge = nl.create_bridge("br0").unwrap();
    for (text, prefix) in [("10.0.3.1", 24), ("fd00:3::1", 64)] {
        let address = text.parse().unwrap();
        assert!(nl.add_address(bridge, address, prefix).unwrap());
        assert!(!nl.add_address(bridge, address, prefix).unwrap(), "it is there");
        assert!(nl.addresses(bridge).unwrap().contains(&(address, prefix)));
        assert!(nl.remove_address(bridge, address, prefix).unwrap());
        assert!(!nl.remove_address(bridge, address, prefix).unwrap());
        assert!(!nl.addresses(bridge).unwrap().contains(&(address, prefix)));
    }
    assert!(nl.default_links().unwrap().is_empty());
}
