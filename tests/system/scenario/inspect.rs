//! `lxc-cr inspect`: what the kernel keeps of a container is the same after a checkpoint and a
//! restore; and what is not is named.

use std::fs;
use std::path::{Path, PathBuf};

use super::systemd::{Debian, NAME, SHIFT, id_map};
use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::wait_for;

/// Reads a frozen container, or asks its threads, into a file.
fn snapshot(container: &Container, arguments: &[&str], file: &str) -> PathBuf {
    let path = container.dir().join(file);
    let printed = container.lxc_cr("inspect").arg("--json").args(arguments).ok();
    fs::write(&path, printed.stdout).unwrap();
    path
}

/// Mounts, files in memory, networks and cgroups are compared in `inspected.rs`.
fn is_of_processes(line: &str) -> bool {
    ["process ", "thread ", "descriptor ", "memory of ", "IPC: ", "key "]
        .iter()
        .any(|of| line.starts_with(of))
}

/// The differences from a snapshot: a line each, none if nothing differs.
fn differences(container: &Container, arguments: &[&str], before: &Path) -> Vec<String> {
    let printed = container.lxc_cr("inspect").args(arguments).arg("--against").arg(before).output();
    assert_eq!(printed.success(), printed.stdout.is_empty(), "{printed}");
    assert!(printed.stderr.is_empty(), "{printed}");
    printed.stdout.lines().filter(|line| is_of_processes(line)).map(str::to_owned).collect()
}

/// Nothing differs while nothing happens, and nothing after a checkpoint and a restore, twice.
pub fn nothing_differs_after_a_restore(world: &World) {
    let container = world.container();
    container.start().wait_settled();
    let _witness = container.witness();
    container.lxc("lxc-freeze").ok();
    let before = snapshot(&container, &[], "before.json");
    let text = fs::read_to_string(&before).unwrap();
    assert!(!text.contains("\"unread\""), "{text}");
    for state in [
        "capabilities.effective",
        "socket.so-keepalive",
        "timerfd.interval",
        "area.rights",
        "ipc.limit-sem",
    ] {
        assert!(text.contains(&format!("\"{state}\"")), "{state}");
    }
    assert_eq!(differences(&container, &[], &before), [""; 0]);
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        let mut seen = differences(&container, &[], &before);
        // CRIU (4.2) leaves its own setting on the connection to the witness.
        seen.retain(|line| {
            !line.contains(": socket.so-reuseport-connected (bearable): 0 before, 1 now")
        });
        assert_eq!(seen, [""; 0]);
    }
    container.lxc("lxc-unfreeze").ok();
    // Those that run are asked, and go on.
    let asked = snapshot(&container, &["--ask"], "asked.json");
    assert_eq!(differences(&container, &["--ask"], &asked), [""; 0]);
    container.witness().status();
    container.kill();
}

/// A change of each kind of state is seen: made from outside, or by a program of the container.
pub fn a_change_is_named(world: &World) {
    let container = world.container();
    container.start().wait_settled();
    container.lxc("lxc-freeze").ok();
    let before = snapshot(&container, &[], "before.json");
    let init = container.init_pid();
    fs::write(format!("/proc/{init}/oom_score_adj"), "77").unwrap();
    fs::write(format!("/proc/{init}/coredump_filter"), "0x1").unwrap();
    let seen = differences(&container, &[], &before);
    let named = |state: &str, now: &str| {
        let line = seen.iter().find(|line| line.contains(&format!(": {state} (bearable): ")));
        assert!(
            line.is_some_and(|line| line.starts_with("process 1: ") && line.ends_with(now)),
            "{seen:?}"
        );
    };
    named("oom-score-adj", "77 now");
    named("coredump-filter", "00000001 now");
    assert_eq!(seen.len(), 2, "{seen:?}");
    container.lxc("lxc-unfreeze").ok();
    // A process more, with its descriptors, is one line.
    let inside = container.exec(["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"]);
    let pid = inside.stdout.trim().to_owned();
    let child = || {
        differences(&container, &[], &before)
            .into_iter()
            .find(|line| line.contains(&format!("process {pid}: ")))
    };
    wait_for("the new process to be named", std::time::Duration::from_secs(10), child)
        .unwrap_or_else(|e| panic!("{e}"));
    container.kill();
}

/// What CRIU (4.2) loses of systemd's connections; and what systemd does in the moment before it is
/// frozen again.
const KNOWN_IN_SYSTEMD: &[&str] = &[
    "peer-credentials",
    "peer-pid",
    "socket.so-peergroups",
    "socket.unix-name",
    "socket.unix-peer-name",
    "epoll.watched",
    "timerfd.armed",
    "timerfd.remaining",
];

/// The same with all that systemd sets for its services, in a user namespace.
pub fn nothing_differs_in_systemd(world: &World) {
    let debian = Debian::make(world, SHIFT, &id_map(), &world.installed());
    debian.start();
    debian.system_state();
    let run = |program: &str, arguments: &[&str]| debian.lxc(program).args(arguments).ok();
    run("lxc-freeze", &[]);
    let before = world.lxcpath().join(NAME).join("before.json");
    let inspect = |arguments: &[&str]| world.lxc_cr("inspect", NAME).args(arguments).output();
    let printed = inspect(&["--json"]);
    fs::write(&before, &printed.stdout).unwrap();
    debian.ours("lxc-checkpoint").ok();
    debian.ours("lxc-restart").ok();
    let seen = inspect(&["--against", &before.to_string_lossy()]);
    let is_new =
        |line: &&str| !KNOWN_IN_SYSTEMD.iter().any(|state| line.contains(&format!(": {state} (")));
    let seen: Vec<&str> =
        seen.stdout.lines().filter(|line| is_of_processes(line)).filter(is_new).collect();
    assert_eq!(seen, [""; 0]);
    run("lxc-unfreeze", &[]);
    debian.lxc("lxc-stop").arg("-k").ok();
}

/// What the culprit `unusual` changes of itself, as the states are called.
const CHANGED: &[&str] = &[
    "area.core-dump",
    "area.fork",
    "area.huge-pages",
    "area.locked",
    "area.read-ahead",
    "area.rights",
    "affinity",
    "capabilities.ambient",
    "capabilities.bounding",
    "capabilities.effective",
    "capabilities.inheritable",
    "capabilities.permitted",
    "comm",
    "coredump-filter",
    "descriptor.close-on-exec",
    "descriptor.flags",
    "descriptor.owner",
    "descriptor.permissions",
    "descriptor.position",
    "descriptor.signal",
    "directory",
    "epoll.watched",
    "eventfd.count",
    "file.locks",
    "file.seals",
    "gids",
    "groups",
    "inotify.watches",
    "io-priority",
    "limit.nproc",
    "limit.nofile",
    "limit.stack",
    "machine-check-policy",
    "msg.queued",
    "namespace.uts",
    "no-new-privs",
    "oom-score-adj",
    "personality",
    "pipe.size",
    "pipe.unread",
    "sched.flags",
    "sched.nice",
    "sched.policy",
    "seccomp.filters",
    "seccomp.mode",
    "sem.values",
    "shm.doomed",
    "signalfd.mask",
    "signals.blocked",
    "signals.caught",
    "signals.ignored",
    "signals.pending",
    "signals.pending-thread",
    "socket.filter",
    "socket.ip-freebind",
    "socket.ip-minttl",
    "socket.ip-multicast-all",
    "socket.ip-multicast-loop",
    "socket.ip-multicast-ttl",
    "socket.ip-pktinfo",
    "socket.ip-recvtos",
    "socket.ip-recvttl",
    "socket.ip-tos",
    "socket.ip-ttl",
    "socket.ipv6-minhopcount",
    "socket.ipv6-multicast-hops",
    "socket.ipv6-recvhoplimit",
    "socket.ipv6-recvpktinfo",
    "socket.ipv6-tclass",
    "socket.ipv6-unicast-hops",
    "socket.so-broadcast",
    "socket.so-keepalive",
    "socket.so-lock-filter",
    "socket.so-priority",
    "socket.so-timestampns",
    "socket.tcp-defer-accept",
    "socket.tcp-fastopen",
    "socket.tcp-keepcnt",
    "socket.tcp-keepidle",
    "socket.tcp-keepintvl",
    "socket.tcp-syncnt",
    "socket.tcp-user-timeout",
    "timer-slack",
    "timerfd.armed",
    "timerfd.interval",
    "uids",
    "umask",
];
/// The same of what only it can read.
const CHANGED_ASKED: &[&str] = &[
    "death-signal",
    "dumpable",
    "itimer.prof",
    "itimer.real",
    "itimer.virtual",
    "key.owner",
    "keyring.thread",
    "machine-check-kill",
    "mdwe",
    "seccomp.programs",
    "securebits",
    "signal-stack",
    "subreaper",
];

/// Each state that a program changes is named; it is the only one that differs.
pub fn each_change_is_named(world: &World) {
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.start().wait_settled();
    let pid = culprits.make("unusual").unwrap();
    let asked = snapshot(&container, &["--ask"], "asked.json");
    container.lxc("lxc-freeze").ok();
    let before = snapshot(&container, &[], "before.json");
    container.lxc("lxc-unfreeze").ok();
    fs::write(container.rootfs().join("tmp/unusual.go"), "").unwrap();
    let done = container.rootfs().join("tmp/unusual.done");
    let limit = std::time::Duration::from_secs(10);
    wait_for("all to be changed", limit, || done.exists().then_some(()))
        .unwrap_or_else(|e| panic!("{e}"));
    container.lxc("lxc-freeze").ok();
    let read = differences(&container, &[], &before);
    container.lxc("lxc-unfreeze").ok();
    let asked = differences(&container, &["--ask"], &asked);
    for (lines, states) in [(read, CHANGED), (asked, CHANGED_ASKED)] {
        let is_named =
            |state: &&&str| lines.iter().any(|line| line.contains(&format!(": {state} (")));
        let missing: Vec<_> = states.iter().filter(|state| !is_named(state)).collect();
        assert!(missing.is_empty(), "not named: {missing:?}\n{}", lines.join("\n"));
        println!("    {} states changed, {} differences", states.len(), lines.len());
    }
    assert!(pid > 1);
    container.kill();
}
