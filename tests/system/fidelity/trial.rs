//! A container whose states are set to something unusual, checkpointed and restored.

use std::fs;
use std::time::Duration;

use lxc_cr::api::inspect::{Snapshot, Subject, compare};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::{Run, wait_for};

/// For the program to have changed all.
const LIMIT: Duration = Duration::from_secs(20);

/// What is set in a container before it is read.
pub struct Setting {
    /// What the table calls it.
    pub name: &'static str,
    /// Lines added to the container's configuration.
    configuration: &'static str,
    /// What the culprit `unusual` changes of itself.
    group: Option<&'static str>,
    /// Run with the host's programs in the container's network namespace.
    network: &'static [&'static str],
    /// Run in the container.
    inside: &'static [&'static str],
}

/// A container as it is, of which `group` changes states.
const fn program(group: &'static str) -> Setting {
    Setting { name: group, configuration: "", group: Some(group), network: &[], inside: &[] }
}

/// What is tried; each in a container of its own, so that a refusal of one hides no other.
pub static SETTINGS: &[Setting] = &[
    program("descriptors"),
    program("sockets"),
    program("memory"),
    program("objects"),
    program("process"),
    program("hostname"),
    program("users"),
    program("confinement"),
    Setting {
        name: "users, id map",
        configuration: "lxc.id_map = u 0 0 65536\nlxc.id_map = g 0 0 65536\n",
        group: Some("users"),
        network: &[],
        inside: &[],
    },
    Setting {
        name: "network",
        configuration: "",
        group: None,
        network: &[
            "ip nexthop add id 54 via 10.99.0.1 dev eth0",
            "ip nexthop add id 55 via 10.99.0.7 dev eth0 proto zebra",
            "ip nexthop add id 60 group 54,2/55,3",
            "ip route add 198.51.100.0/24 nhid 54",
            "ip route add 203.0.113.0/24 nhid 60 proto zebra metric 20",
            "ip link add docker0 type bridge",
            "ip addr add 172.17.0.1/16 dev docker0",
            "ip link set docker0 up",
            "ip addr add fd00:99::7/64 dev eth0 nodad valid_lft 600 preferred_lft 300",
            "ip -6 route add 2001:db8:5::/48 via fd00:99::1 dev eth0 expires 600",
            "ip link set eth0 alias uplink",
            "ip link set eth0 group 7",
            "ip link property add dev eth0 altname lanport",
            "ip link set eth0 gso_max_size 30000",
            "ip neigh add 10.99.0.200 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
            "ip neigh add proxy 10.99.0.201 dev eth0",
            "ip -6 rule add from fd00:99::/64 lookup 77 pref 200",
            "tc qdisc add dev eth0 root handle 1: tbf rate 100mbit burst 100k latency 5ms",
            "iptables -A INPUT -p tcp --dport 7001 -m comment --comment 'a { b }' -j ACCEPT",
            "ip6tables -A INPUT -p tcp --dport 7001 -m comment --comment x -j DROP",
        ],
        inside: &[],
    },
    Setting {
        name: "files in memory",
        configuration: "",
        group: None,
        network: &[],
        inside: &[
            "mkdir /dev/shm/d && echo text > /dev/shm/d/file && ln /dev/shm/d/file /dev/shm/d/hard",
            "chmod 4750 /dev/shm/d/file && chown 5:6 /dev/shm/d/file && ln -s d/file /dev/shm/link",
            "mkfifo /dev/shm/fifo && dd if=/dev/zero of=/dev/shm/hole bs=1 count=1 seek=1000000 \
             2>&1",
            "mkdir /tmp/mounted && mount -t tmpfs -o size=100k,mode=700,nosuid,noexec,ro m \
             /tmp/mounted",
        ],
    },
];

/// What came of a setting.
pub struct Trial {
    pub setting: &'static Setting,
    /// Before anything was set.
    pub plain: Snapshot,
    /// Then, and after the restore; none of the latter if there was none.
    pub before: Snapshot,
    pub after: Option<Snapshot>,
    /// What `lxc-cr check` said, and the commands.
    pub told: String,
    /// Each difference.
    pub lines: Vec<String>,
}

/// Sets it, checkpoints and restores.
pub fn run(world: &World, setting: &'static Setting) -> Trial {
    let container = world.container().configure(setting.configuration);
    let culprits = setting.group.map(|_| Culprits::put_into(&container));
    container.start().wait_settled();
    if let Some(culprits) = &culprits {
        culprits.make("unusual").unwrap();
    }
    let plain = read(&container);
    set(&container, setting);
    container.wait_settled();
    let mut told = container.lxc_cr("check").output().to_string();
    let asked = ask(&container);
    container.lxc("lxc-freeze").ok();
    let before = joined(&[frozen(&container), asked]);
    let stopped = container.ours("lxc-checkpoint").output();
    told.push_str(&stopped.to_string());
    let mut trial = Trial { setting, plain, before, after: None, told, lines: Vec::new() };
    if !stopped.success() {
        trial.lines.push(format!("no checkpoint: {stopped}"));
    } else {
        let restored = container.ours("lxc-restart").output();
        if restored.success() {
            let still = frozen(&container);
            container.lxc("lxc-unfreeze").ok();
            let after = joined(&[still, ask(&container)]);
            trial.lines.extend(compare(&trial.before, &after).iter().map(|found| {
                format!(
                    "{}: {}: {:?} -> {:?}",
                    found.subject, found.state.name, found.before, found.after
                )
            }));
            trial.after = Some(after);
        } else {
            trial.lines.push(format!("no restore: {restored}"));
        }
    }
    if container.state() != "STOPPED" {
        container.kill();
    }
    trial
}

fn set(container: &Container<'_>, setting: &Setting) {
    if let Some(group) = setting.group {
        // It is read as a whole: it appears with its content.
        let tmp = container.rootfs().join("tmp");
        fs::write(tmp.join("unusual.new"), group).unwrap();
        fs::rename(tmp.join("unusual.new"), tmp.join("unusual.go")).unwrap();
        let done = tmp.join("unusual.done");
        wait_for("all to be changed", LIMIT, || done.exists().then_some(()))
            .unwrap_or_else(|e| panic!("{e}"));
    }
    let netns = format!("--net=/proc/{}/ns/net", container.init_pid());
    for command in setting.network {
        Run::new("nsenter").args([netns.as_str(), "sh", "-c", command]).ok();
    }
    for command in setting.inside {
        container.exec(["sh", "-c", command]);
    }
}

/// Of a container that runs, and goes on.
fn read(container: &Container<'_>) -> Snapshot {
    let asked = ask(container);
    container.lxc("lxc-freeze").ok();
    let still = frozen(container);
    container.lxc("lxc-unfreeze").ok();
    joined(&[still, asked])
}

fn frozen(container: &Container<'_>) -> Snapshot {
    inspect(container, &["--json"])
}

fn ask(container: &Container<'_>) -> Snapshot {
    inspect(container, &["--json", "--ask"])
}

fn inspect(container: &Container<'_>, arguments: &[&str]) -> Snapshot {
    Snapshot::from_json(&container.lxc_cr("inspect").args(arguments).ok().stdout).unwrap()
}

/// What the container's own programs change in the moment between a restore and the freezer: a
/// counter of the witness, and timers about to expire.
fn goes_on(subject: &Subject, name: &str, value: &str) -> bool {
    matches!(subject, Subject::File { path } if path == "/dev/shm/witness")
        || name == "timerfd.remaining" && value.starts_with("\u{2248}0.")
}

/// What is in several snapshots: the first that has a value.
fn joined(parts: &[Snapshot]) -> Snapshot {
    let mut all = Snapshot::new();
    for part in parts {
        for (subject, name, value) in part.values() {
            let state = lxc_cr::api::inspect::state::by_name(name).unwrap();
            if !goes_on(subject, name, value) && all.value(subject, state).is_none() {
                all.enter(subject.clone(), state, value);
            }
        }
    }
    all
}
