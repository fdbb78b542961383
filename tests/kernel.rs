//! Real netlink, in user, network and mount namespaces of our own: needs no root, harms no host.
//!
//! Each trial runs on a thread of its own in a fresh network namespace that plays the host; a
//! container is another namespace that a file descriptor keeps alive.

// Clippy knows a test by its `#[test]`; these have none.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lxc_cr::net::apply::{self, Inner};
use lxc_cr::net::plan::{Wanted, plan};
use lxc_cr::net::{NoBridge, Port, ports};
use lxc_cr::sys::netlink::{Error, Link, Mac, Netlink, NewVeth, PortSettings, Vlan, in_netns};
use nix::sched::{CloneFlags, unshare};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: they measure, too.
    arguments.test_threads = Some(1);
    // Now, while this is the only thread: a user namespace cannot be entered later.
    let unable = enter_namespaces().err().map(|e| format!("no namespaces here: {e:#}"));
    let trials = TRIALS.iter().map(|(name, run)| trial(name, *run, unable.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn enter_namespaces() -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !uid.is_root() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

fn trial(name: &str, run: fn(), unable: Option<String>) -> Trial {
    Trial::ignorable_test(name, move || match unable {
        // A green run on a build server must not be an empty one.
        Some(reason) if std::env::var("CI").is_ok_and(|v| v == "true") => Err(Failed::from(reason)),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            let thread = std::thread::spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                run();
            });
            match thread.join() {
                Ok(()) => Ok(Completion::Completed),
                Err(panic) => Err(Failed::from(
                    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked, see above".to_owned()),
                )),
            }
        }
    })
}

const TRIALS: &[(&str, fn())] = &[
    ("a_link_that_is_not_there_is_an_error_of_its_own", a_link_that_is_not_there_is_an_error_of_its_own),
    ("a_pair_is_made_with_all_that_was_asked_for", a_pair_is_made_with_all_that_was_asked_for),
    ("an_inner_end_can_be_born_with_its_name_and_index", an_inner_end_can_be_born_with_its_name_and_index),
    ("work_in_another_namespace_leaves_the_caller_in_his", work_in_another_namespace_leaves_the_caller_in_his),
    ("the_ports_of_a_container_are_found", the_ports_of_a_container_are_found),
    ("two_containers_are_not_mixed_up", two_containers_are_not_mixed_up),
    ("a_container_without_veth_has_no_ports", a_container_without_veth_has_no_ports),
    ("a_port_comes_back_with_its_settings_and_vlans", a_port_comes_back_with_its_settings_and_vlans),
    ("untouched_settings_are_not_set", untouched_settings_are_not_set),
    ("lock_and_unlock_can_be_repeated", lock_and_unlock_can_be_repeated),
    ("the_undo_is_noted_before_a_port_is_touched", the_undo_is_noted_before_a_port_is_touched),
    ("a_failure_in_the_middle_puts_back_what_was_taken", a_failure_in_the_middle_puts_back_what_was_taken),
    ("unlock_goes_on_after_a_missing_bridge", unlock_goes_on_after_a_missing_bridge),
    ("a_port_that_is_gone_needs_no_unlock", a_port_that_is_gone_needs_no_unlock),
    ("restored_ports_are_recognised", restored_ports_are_recognised),
    ("a_plan_is_carried_out_and_undone", a_plan_is_carried_out_and_undone),
    ("a_half_made_plan_is_undone", a_half_made_plan_is_undone),
    ("the_verbs_are_cheap", the_verbs_are_cheap),
];

fn open() -> Netlink {
    Netlink::open().unwrap()
}

/// A network namespace that lives as long as the file is open.
fn container() -> File {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

/// A pair as LXC makes it: host's end up and on the bridge, inner end in the container and up.
fn connect(nl: &mut Netlink, host: &str, container: &File, inner: &str, bridge: u32) -> u32 {
    let new = NewVeth {
        host_name: host.to_owned(),
        inner_name: inner.to_owned(),
        inner_netns: Some(container.as_fd()),
        host_up: true,
        controller: Some(bridge),
        ..NewVeth::default()
    };
    let index = nl.create_veth(&new).unwrap();
    in_netns(container.as_fd(), || {
        let mut nl = open();
        let inner = nl.link(inner).unwrap().index;
        nl.set_up(inner, true).unwrap();
    })
    .unwrap();
    index
}

fn inside(container: &File) -> Vec<Link> {
    in_netns(container.as_fd(), || Netlink::open()?.links()).unwrap().unwrap()
}

fn nothing_to_note(_: &Port) -> anyhow::Result<()> {
    Ok(())
}

fn controller(nl: &mut Netlink, name: &str) -> Option<u32> {
    nl.link(name).unwrap().controller
}

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
    assert_eq!((host.controller, host.kind.as_deref(), host.txqueuelen), (Some(bridge), Some("veth"), Some(77)));
    assert_eq!((temp.mac, temp.mtu, temp.up, temp.txqueuelen), (Some(inner), 1400, false, Some(78)));
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

fn the_ports_of_a_container_are_found() {
    let (mut nl, container) = (open(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let a = connect(&mut nl, "vethA", &container, "eth0", bridge);
    let b = connect(&mut nl, "vethB", &container, "eth1", bridge);
    nl.set_controller(b, None).unwrap();
    in_netns(container.as_fd(), || open().create_bridge("docker0").unwrap()).unwrap();
    let survey = ports::survey(&mut nl, container.as_fd()).unwrap();
    let seen: Vec<_> = survey.ports.iter().map(|p| (&*p.inside, &*p.host, p.host_index, p.bridge.as_deref())).collect();
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

fn a_port_comes_back_with_its_settings_and_vlans() {
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
    let default = nl.port_vlans().unwrap().remove(&index).unwrap_or_default();
    let vlans = [
        Vlan { first: 5, last: 5, pvid: true, untagged: true },
        Vlan { first: 10, last: 19, pvid: false, untagged: false },
    ];
    if !default.is_empty() {
        assert_eq!(default, [Vlan { first: 1, last: 1, pvid: true, untagged: true }]);
        nl.set_port_vlans(index, &default, &vlans).unwrap();
    }
    let found = ports::find(&mut nl, container.as_fd()).unwrap();
    let settings = found[0].settings.clone().unwrap();
    assert!(chosen.beyond(&settings).is_empty(), "{settings:?}");
    if !default.is_empty() {
        assert_eq!(found[0].vlans.as_deref(), Some(&vlans[..]));
    }

    ports::lock(&mut nl, &found, &mut nothing_to_note).unwrap();
    assert_eq!(controller(&mut nl, "vethA"), None);
    assert_eq!(nl.port_settings(index).unwrap(), None);
    // It must stay up: the container would see its carrier go.
    assert!(nl.link("vethA").unwrap().up);

    ports::unlock(&mut nl, &found).unwrap();
    assert_eq!(ports::find(&mut nl, container.as_fd()).unwrap(), found);
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
    ports::unlock(&mut nl, &[Port { bridge: None, settings: None, vlans: None, ..found[0].clone() }]).unwrap();
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
    nl.set_port_settings(a, &PortSettings { isolated: Some(true), ..PortSettings::default() }).unwrap();
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
    assert_eq!(format!("{error:#}"), "take vethA off br0: there is no such link any more");
}

fn restored_ports_are_recognised() {
    let (mut nl, old, new) = (open(), container(), container());
    let bridge = nl.create_bridge("br0").unwrap();
    let a = connect(&mut nl, "vethA", &old, "eth0", bridge);
    nl.set_port_settings(a, &PortSettings { isolated: Some(true), ..PortSettings::default() }).unwrap();
    let recorded = ports::find(&mut nl, old.as_fd()).unwrap();
    nl.delete_link(a).unwrap();
    // Meanwhile someone got the index that the host's end had.
    nl.create_veth(&NewVeth { host_name: "x".into(), inner_name: "y".into(), ..NewVeth::default() }).unwrap();
    let plan = plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    apply::create(&mut nl, &plan, Inner::In(new.as_fd()), &mut |_| Ok(())).unwrap();
    let restored = ports::match_restored(&mut nl, new.as_fd(), &recorded).unwrap();
    assert_ne!(restored[0].host_index, recorded[0].host_index);
    assert_eq!(restored, [Port { host_index: restored[0].host_index, ..recorded[0].clone() }]);
    ports::unlock(&mut nl, &restored).unwrap();
    // As it was, down to the MACs and the index inside.
    assert_eq!(ports::find(&mut nl, new.as_fd()).unwrap(), restored);
    assert_eq!(ports::match_restored(&mut nl, old.as_fd(), &recorded).unwrap(), []);
}

fn a_plan_is_carried_out_and_undone() {
    let mut nl = open();
    nl.create_bridge("br0").unwrap();
    let recorded = [Port { bridge: Some("br0".into()), ..Port::unrecorded("eth0") }];
    let plan = plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    let made = apply::create(&mut nl, &plan, Inner::Here, &mut |_| Ok(())).unwrap();
    let (host, temp) = (nl.link(&plan[0].host).unwrap(), nl.link(&plan[0].temp).unwrap());
    assert_eq!((host.peer_index, host.up, temp.up), (Some(temp.index), true, false));
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
    assert!(matches!(nl.link(&plan[0].temp), Err(Error::NotFound)));
}

fn a_half_made_plan_is_undone() {
    let mut nl = open();
    let recorded = [Port::unrecorded("eth0"), Port::unrecorded("eth1")];
    let plan = plan(&recorded, &Wanted::default(), &nl.links().unwrap(), apply::random_numbers()).unwrap();
    // Someone takes the second name after the plan was made.
    nl.create_bridge(&plan[1].host).unwrap();
    let error = apply::create(&mut nl, &plan, Inner::Here, &mut |_| Ok(())).unwrap_err();
    assert_eq!(format!("{error:#}"), format!("make {} for eth1: it exists already", plan[1].host));
    assert!(matches!(nl.link(&plan[0].host), Err(Error::NotFound)));
    assert!(nl.link(&plan[1].host).is_ok());
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
        let pair =
            NewVeth { host_name: format!("a{i}"), inner_name: format!("b{i}"), host_up: true, ..NewVeth::default() };
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
        // Far above what is measured (well under 1 ms): a loaded machine is no regression, a wait is.
        assert!(time < Duration::from_millis(100), "{what} took {time:?}");
    }
    println!("lock alone, mean: {} µs", switch / 21);
}
