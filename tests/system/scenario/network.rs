//! What a container has set in its network is there after a restart, with and without a user
//! namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::{Run, wait_for};

/// For a connection to go on.
const TRIP_LIMIT: Duration = Duration::from_secs(20);
/// Directories of settings that belong to a network namespace.
const SETTINGS: &[&str] = &["net/ipv4/conf", "net/ipv6/conf"];

pub fn its_settings_come_back(world: &World) {
    changed_settings_come_back(&world.container());
}

/// An identity map: the container has a user namespace of its own, but no root has to be shifted
/// for it.
pub fn its_settings_come_back_with_a_user_namespace(world: &World) {
    let container =
        world.container().configure("lxc.id_map = u 0 0 65536\nlxc.id_map = g 0 0 65536\n");
    changed_settings_come_back(&container);
}

/// What cannot be told to the kernel by a message each is left to CRIU, as a whole.
pub fn what_only_criu_can_bring_back_comes_back(world: &World) {
    let container = world.container();
    let within = Culprits::put_into(&container);
    container.start();
    let mut witness = container.witness();
    ip(&container, "addr add fd00:99::8/64 dev eth0 nodad");
    within.make("tcp-within fd00:99::8").unwrap();
    let filled_by_us = |container: &Container<'_>| {
        let told = container.ours("lxc-restart").arg("--dry-run").ok().stdout;
        told.contains("--empty-ns net")
    };
    let status = witness.status();
    container.ours("lxc-checkpoint").ok();
    assert!(filled_by_us(&container));
    container.ours("lxc-restart").ok();
    let status = witness.assert_goes_on_from(&status);
    for command in ["rule del table default", "link add br7 type bridge"] {
        ip(&container, command);
    }
    let before = Network::of(&container);
    container.ours("lxc-checkpoint").ok();
    assert!(!filled_by_us(&container));
    container.ours("lxc-restart").ok();
    before.assert_same(&Network::of(&container));
    witness.assert_goes_on_from(&status);
    go_on_within(&container);
    container.kill();
}

/// The connection between two ends of IPv6 in the container makes round trips.
fn go_on_within(container: &Container<'_>) {
    let file = container.rootfs().join("tmp/within");
    let trips = || fs::read_to_string(&file).ok()?.parse::<u64>().ok();
    let before = trips();
    let more = || (trips() > before).then_some(());
    wait_for("round trips within the container", TRIP_LIMIT, more)
        .unwrap_or_else(|e| panic!("{e}"));
}

fn changed_settings_come_back(container: &Container<'_>) {
    let within = Culprits::put_into(container);
    container.start();
    let mut witness = container.witness();
    // The first is the same for the namespace's default and for the interface, the others differ
    // from it.
    for (setting, value) in [
        ("net/ipv4/conf/default/rp_filter", "2"),
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        ("net/ipv6/conf/default/hop_limit", "77"),
        ("net/ipv6/conf/eth0/hop_limit", "77"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/eth0/accept_ra", "2"),
        ("net/ipv4/conf/eth0/forwarding", "1"),
        ("net/ipv4/conf/lo/log_martians", "1"),
    ] {
        in_network(container, |proc_sys| fs::write(proc_sys.join(setting), value).unwrap());
    }
    for command in [
        "addr add fd00:99::7/64 dev eth0 nodad",
        "addr add fd00:99::8/64 dev eth0",
        "addr add 192.0.2.9/32 dev lo",
        "route add 198.51.100.0/24 via 192.0.2.1 dev eth0 onlink",
        "route add 203.0.113.0/24 dev eth0 table 77",
        "-6 route add 2001:db8::/32 via fd00:99::1 dev eth0 table 4711",
        "rule add from 192.0.2.9 lookup main",
        "link set eth0 txqueuelen 555",
    ] {
        ip(container, command);
    }
    let before = Network::of(container);
    let link_local = ip(container, "-o -6 addr show dev eth0 scope link");
    let link_local =
        link_local.split_whitespace().nth(3).and_then(|a| a.split('/').next()).unwrap().to_owned();
    within.make(&format!("tcp-within {link_local}%eth0")).unwrap();
    let told = container.lxc_cr("check").output();
    assert!(told.stdout.contains("has a TCP connection at a link-local address of IPv6"), "{told}");
    within.end();
    within.make("tcp-within fd00:99::8").unwrap();
    let mut status = witness.status();
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        before.assert_same(&Network::of(container));
        status = witness.assert_goes_on_from(&status);
        go_on_within(container);
    }
    container.kill();
}

/// A container's network, as far as it can be seen.
struct Network {
    settings: BTreeMap<PathBuf, String>,
    tables: Vec<String>,
}

impl Network {
    fn of(container: &Container<'_>) -> Network {
        container.wait_settled();
        let settings = in_network(container, |proc_sys| {
            let mut settings = BTreeMap::new();
            for interface in
                SETTINGS.iter().flat_map(|dir| fs::read_dir(proc_sys.join(dir)).unwrap())
            {
                for setting in fs::read_dir(interface.unwrap().path()).unwrap() {
                    let path = setting.unwrap().path();
                    // Some can only be written, or read only once they are set.
                    if let Ok(value) = fs::read_to_string(&path) {
                        settings.insert(path.strip_prefix(proc_sys).unwrap().to_owned(), value);
                    }
                }
            }
            settings
        });
        let tables = [
            "-o link",
            "-o addr",
            "route show table all",
            "-6 route show table all",
            "rule",
            "-6 rule",
        ];
        let tables = tables.iter().flat_map(|what| {
            let text = ip(container, what);
            let mut lines: Vec<String> = text.lines().map(without_what_may_change).collect();
            lines.sort();
            lines
        });
        Network { settings, tables: tables.collect() }
    }

    fn assert_same(&self, other: &Network) {
        for (path, value) in &self.settings {
            assert_eq!(other.settings.get(path), Some(value), "{}", path.display());
        }
        assert_eq!(self.tables, other.tables);
    }
}

/// The index of the host's end, and what `ip` finds by it.
fn without_what_may_change(line: &str) -> String {
    let words = line.split_whitespace().map(|w| match w.split_once("@if") {
        Some((name, _)) => format!("{name}:"),
        None => w.replace(",M-DOWN", ""),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs the host's `ip`, which can do more than busybox's, in the container's network namespace.
fn ip(container: &Container<'_>, arguments: &str) -> String {
    let netns = format!("--net=/proc/{}/ns/net", container.init_pid());
    Run::new("nsenter").args([netns.as_str(), "ip"]).args(arguments.split(' ')).ok().stdout
}

/// Calls `f` with the `/proc/sys` of the container's network: it shows each thread that of its own
/// namespace.
fn in_network<T: Send>(container: &Container<'_>, f: impl FnOnce(&Path) -> T + Send) -> T {
    let netns = fs::File::open(format!("/proc/{}/ns/net", container.init_pid())).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            f(Path::new("/proc/sys"))
        });
        inside.join().unwrap()
    })
}
