//! The ports of containers: found, locked, put back, made.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::bail;
use lxc_cr::api::resources::network::plan::{Wanted, plan};
use lxc_cr::api::resources::network::{NoBridge, Port, apply, ports};
use lxc_cr::api::sys::netlink::{Error, Mac, NewVeth, PortSettings, Vlan, in_netns};

use crate::{connect, container, controller, inside, nothing_to_note, open};

pub const TRIALS: &[(&str, fn())] = &[
    ("the_ports_of_a_container_are_found", the_ports_of_a_container_are_found),
    ("two_containers_are_not_mixed_up", two_containers_are_not_mixed_up),
    ("a_container_without_veth_has_no_ports", a_container_without_veth_has_no_ports),
    ("a_port_comes_back_with_its_settings", a_port_comes_back_with_its_settings),
    ("untouched_settings_are_not_set", untouched_settings_are_not_set),
    ("lock_and_unlock_can_be_repeated", lock_and_unlock_can_be_repeated),
    ("the_undo_is_noted_before_a_port_is_touched", the_undo_is_noted_before_a_port_is_touched),
    (
        "a_failure_in_the_middle_puts_back_what_was_taken",
        a_failure_in_the_middle_puts_back_what_was_taken,
    ),
    ("unlock_goes_on_after_a_missing_bridge", unlock_goes_on_after_a_missing_bridge),
    ("a_port_that_is_gone_needs_no_unlock", a_port_that_is_gone_needs_no_unlock),
    ("restored_ports_are_recognised", restored_ports_are_recognised),
    ("a_plan_is_carried_out_and_undone", a_plan_is_carried_out_and_undone),
    ("a_half_made_plan_is_undone", a_half_made_plan_is_undone),
];

/// For a kernel whose bridges have VLANs.
pub const VLAN_TRIALS: &[(&str, fn())] =
    &[("a_port_comes_back_with_its_vlans", a_port_comes_back_with_its_vlans)];

/// Why the VLAN trials cannot be run here, if they cannot.
pub fn no_vlans() -> Option<String> {
    let mut nl = open();
    nl.create_bridge("br0").unwrap();
    // A new bridge has VLAN 1, filtering or not.
    nl.port_vlans().unwrap().is_empty().then(|| "this kernel's bridges have no VLANs".to_owned())
}

fn the_ports_of_a_container_are_found() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let a = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let b = connect(&mut nl, "vethB", &container, "eth1", bridge);
    nl.set_controller(b, None).unwrap();
    in_netns(container.as_fd(), || open().create_bridge("docker0").unwrap()).unwrap();
    let survey = ports::survey(&mut nl, container.as_fd()).unwrap();
    let seen: Vec<_> = survey
        .ports
        .iter()
        .map(|p| (&*p.inside, &*p.host, p.host_index, p.bridge.as_deref()))
        .collect();
    assert_eq!(seen, [("eth0", "vethA", a, Some("br0")), ("eth1", "vethB", b, None)]);
    let eth0 = inside(&container).into_iter().find(|l| l.name == "eth0").unwrap();
    let port = &survey.ports[0];
    assert_eq!((port.inside_index, port.mac_inside), (eth0.index, eth0.mac));
    assert_eq!(port.mac_host, nl.link("vethA").unwrap().mac);
    assert!(port.settings.is_some());
    assert_eq!(survey.ports[1].settings, None);
    let others: Vec<_> = survey.others.iter().map(|i| (&*i.name, i.kind.as_deref())).collect();
    assert_eq!(others, [("lo", None), ("docker0", Some("bridge"))]);
}

fn two_containers_are_not_mixed_up() {
    let (mut nl, one, two) = (open(), container(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    // The inner ends have the same name and the same index.
    connect(&mut nl, "vethA", &one, "eth0", bridge);
    connect(&mut nl, "vethB", &two, "eth0", bridge);
    assert_eq!(ports::find(&mut nl, one.as_fd()).unwrap()[0].host, "vethA");
    assert_eq!(ports::find(&mut nl, two.as_fd()).unwrap()[0].host, "vethB");
}

fn a_container_without_veth_has_no_ports() {
    let (mut nl, container) = (open(), container());
    assert_eq!(nl.netns_id(container.as_fd()).unwrap(), None);
    let survey = ports::survey(&mut nl, container.as_fd()).unwrap();
    assert_eq!((survey.ports.len(), survey.others.len()), (0, 1));
    // A pair within our own namespace is nobody's port, also for a container that shares it.
    let pair = NewVeth { host_name: "a".into(), inner_name: "b".into(), ..NewVeth::default() };
    nl.create_veth(&pair).unwrap();
    assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap(), []);
    let own = File::open("/proc/thread-self/ns/net").unwrap();
    assert_eq!(ports::survey(&mut nl, own.as_fd()).unwrap(), ports::Survey::default());
}

fn a_port_comes_back_with_its_settings() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let index = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let chosen = PortSettings {
        priority: Some(5),
        cost: Some(777),
        hairpin: Some(true),
        bpdu_guard: Some(true),
        root_block: Some(true),
        fast_leave: Some(true),
        learning: Some(false),
        unicast_flood: Some(false),
        mcast_flood: Some(false),
        bcast_flood: Some(false),
        mcast_to_unicast: Some(true),
        mcast_router: Some(2),
        proxy_arp: Some(true),
        neigh_suppress: Some(true),
        isolated: Some(true),
        ..PortSettings::default()
    };
    nl.set_port_settings(index, &chosen).unwrap();
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    let settings = found[0].settings.clone().unwrap();
    assert!(chosen.beyond(&settings).is_empty(), "{settings:?}");

    ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
    assert_eq!(controller(&mut nl, "vethA"), None);
    assert_eq!(nl.port_settings(index).unwrap(), None);
    // It must stay up: the container would see its carrier go.
    assert!(nl.link("vethA").unwrap().up);

    ports::unlock(&mut nl, &found).unwrap();
    assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap(), found);
}

fn a_port_comes_back_with_its_vlans() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let index = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let first = [Vlan { first: 1, last: 1, pvid: true, untagged: true }];
    assert_eq!(nl.port_vlans().unwrap()[&index], first);
    let cases: &[&[Vlan]] = &[
        &[
            Vlan { first: 5, last: 5, pvid: true, untagged: true },
            Vlan { first: 10, last: 19, pvid: false, untagged: false },
        ],
        &[Vlan { first: 1, last: 2, pvid: false, untagged: true }],
        &[],
        &first,
    ];
    for vlans in cases {
        let present = nl.port_vlans().unwrap().remove(&index).unwrap_or_default();
        nl.set_port_vlans(index, &present, vlans).unwrap();
        let found = ports::find(&mut nl, container.as_fd()).unwrap();
        assert_eq!(found[0].vlans.as_deref(), Some(*vlans));
        ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
        ports::unlock(&mut nl, &found).unwrap();
        assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap(), found);
    }
}

fn untouched_settings_are_not_set() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let index = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
    ports::unlock(&mut nl, &found).unwrap();
    let now = nl.port_settings(index).unwrap().unwrap();
    assert!(found[0].settings.as_ref().unwrap().beyond(&now).is_empty());
    // A link without a bridge has no settings to set.
    nl.set_controller(index, None).unwrap();
    ports::unlock(
        &mut nl,
        &[Port { bridge: None, settings: None, vlans: None, ..found[0].clone() }],
    )
    .unwrap();
    assert_eq!(controller(&mut nl, "vethA"), None);
}

fn lock_and_unlock_can_be_repeated() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    connect(&mut nl, "vethA", &container, "eth0", bridge);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    let mut noted = 0;
    for _ in 0..2 {
        ports::lock(&mut nl, &found, &mut |_| {
            noted += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(controller(&mut nl, "vethA"), None);
    }
    assert_eq!(noted, 2);
    for _ in 0..2 {
        ports::unlock(&mut nl, &found).unwrap();
        assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap(), found);
    }
    // A host's end that someone set down comes up.
    nl.set_up(found[0].host_index, false).unwrap();
    ports::unlock(&mut nl, &found).unwrap();
    assert!(nl.link("vethA").unwrap().up);
}

fn the_undo_is_noted_before_a_port_is_touched() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    connect(&mut nl, "vethA", &container, "eth0", bridge);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    let error = ports::lock(&mut nl, &found, &mut |_| bail!("disk full")).unwrap_err();
    assert_eq!(format!("{error:#}"), "take vethA off br0: disk full");
    assert_eq!(controller(&mut nl, "vethA"), Some(bridge));
}

fn a_failure_in_the_middle_puts_back_what_was_taken() {
    let (mut nl, container) = (open(), container());
    let (br0, br1) = (nl.create_bridge("br0").unwrap(), nl.create_bridge("br1").unwrap());
    let a = connect(&mut nl, "vethA", &container, "eth0", br0);
    let b = connect(&mut nl, "vethB", &container, "eth1", br0);
    connect(&mut nl, "vethC", &container, "eth2", br0);
    nl.set_port_settings(a, &PortSettings { isolated: Some(true), ..PortSettings::default() })
        .unwrap();
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    // Someone moves the second one meanwhile.
    nl.set_controller(b, Some(br1)).unwrap();
    let error = ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap_err();
    assert_eq!(format!("{error:#}"), "take vethB off br0: it has meanwhile been moved to br1");
    let now = ports::find(&mut nl, container.as_fd()).unwrap();
    assert_eq!(now[0], found[0]);
    assert_eq!(now[1].bridge.as_deref(), Some("br1"));
    assert_eq!(now[2], found[2]);
}

fn unlock_goes_on_after_a_missing_bridge() {
    let (mut nl, container) = (open(), container());
    let (br0, br1) = (nl.create_bridge("br0").unwrap(), nl.create_bridge("br1").unwrap());
    connect(&mut nl, "vethA", &container, "eth0", br0);
    connect(&mut nl, "vethB", &container, "eth1", br1);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
    nl.delete_link(br0).unwrap();
    let error = ports::unlock(&mut nl, &found).unwrap_err();
    assert_eq!(format!("{error:#}"), "put vethA back on br0: bridge 'br0' does not exist");
    assert_eq!(controller(&mut nl, "vethB"), Some(br1));
    assert_eq!(NoBridge { name: "br0".into() }.to_string(), "bridge 'br0' does not exist");
}

fn a_port_that_is_gone_needs_no_unlock() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let a = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let b = connect(&mut nl, "vethB", &container, "eth1", bridge);
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
    nl.delete_link(a).unwrap();
    nl.set_up(b, false).unwrap();
    nl.rename(b, "other").unwrap();
    ports::unlock(&mut nl, &found).unwrap();
    // It has our index but not our name: someone else's business.
    assert_eq!(controller(&mut nl, "other"), None);
    let error = ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap_err();
    assert_eq!(format!("{error:#}"), "take vethA off br0: the link is gone");
}

fn restored_ports_are_recognised() {
    let (mut nl, old, new) = (open(), container(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let a = connect(&mut nl, "vethA", &old, "eth0", bridge);
    nl.set_port_settings(a, &PortSettings { isolated: Some(true), ..PortSettings::default() })
        .unwrap();
    let recorded = ports::find(&mut nl, old.as_fd()).unwrap();
    nl.delete_link(a).unwrap();
    // Meanwhile someone got the index that the host's end had.
    nl.create_veth(&NewVeth {
        host_name: "x".into(),
        inner_name: "y".into(),
        ..NewVeth::default()
    })
    .unwrap();
    let plan =
        plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    apply::create(&mut nl, &plan, new.as_fd(), &mut |_| Ok(())).unwrap();
    let restored = ports::match_restored(&mut nl, new.as_fd(), &recorded).unwrap();
    assert_ne!(restored[0].host_index, recorded[0].host_index);
    assert_eq!(restored, [Port { host_index: restored[0].host_index, ..recorded[0].clone() }]);
    ports::unlock(&mut nl, &restored).unwrap();
    // As it was, down to the MACs and the index inside.
    assert_eq!(ports::find(&mut nl, new.as_fd()).unwrap(), restored);
    assert_eq!(ports::match_restored(&mut nl, old.as_fd(), &recorded).unwrap(), []);
}

fn a_plan_is_carried_out_and_undone() {
    let (mut nl, container) = (open(), container());
    nl.create_bridge("br0").unwrap();
    let recorded = [Port { bridge: Some("br0".into()), ..Port::unrecorded("eth0") }];
    let plan =
        plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    let made = apply::create(&mut nl, &plan, container.as_fd(), &mut |_| Ok(())).unwrap();
    let host = nl.link(&plan[0].host).unwrap();
    assert!(host.up && host.peer_netns.is_some());
    // Not on its bridge yet: nothing may reach what is half restored.
    assert_eq!(host.controller, None);
    assert_eq!((made[0].host_index, host.mac), (host.index, made[0].mac_host));
    ports::unlock(&mut nl, &made).unwrap();
    assert!(controller(&mut nl, &plan[0].host).is_some());

    apply::remove(&mut nl, &plan[0].host, Mac([2, 0, 0, 0, 0, 1])).unwrap();
    assert!(nl.link(&plan[0].host).is_ok(), "a link with another MAC is not ours");
    for _ in 0..2 {
        apply::remove(&mut nl, &plan[0].host, host.mac.unwrap()).unwrap();
        assert!(matches!(nl.link(&plan[0].host), Err(Error::NotFound)));
    }
}

fn a_half_made_plan_is_undone() {
    let (mut nl, container) = (open(), container());
    let recorded = [Port::unrecorded("eth0"), Port::unrecorded("eth1")];
    let plan =
        plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    // Someone takes the second name after the plan was made.
    nl.create_bridge(&plan[1].host).unwrap();
    let error = apply::create(&mut nl, &plan, container.as_fd(), &mut |_| Ok(())).unwrap_err();
    assert_eq!(format!("{error:#}"), format!("make {} for eth1: it exists already", plan[1].host));
    assert!(matches!(nl.link(&plan[0].host), Err(Error::NotFound)));
    assert!(nl.link(&plan[1].host).is_ok());
}
