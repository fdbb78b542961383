//! What a process in the container sees of its confinement and its surroundings, before and after:
//! the same, but for what has to differ.

use std::fs;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::seen::{Seen, differences};

/// The same probe in a container of this configuration, before and after, twice.
fn assert_seen_the_same(
    world: &World,
    configuration: &str,
    prepare: impl FnOnce(&Container),
    check: impl FnOnce(&Seen),
) {
    let container = world.container().configure(configuration);
    prepare(&container);
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    container.wait_settled();
    let before = witness.probe();
    check(&before);
    for round in 1..=2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        let after = witness.probe();
        let wrong = differences(&before, &after);
        assert!(wrong.is_empty(), "round {round}, seen otherwise:\n{}", wrong.join("\n"));
        for clock in ["clock/monotonic", "clock/boottime", "clock/uptime"] {
            let time = |seen: &Seen| seen[clock].parse::<u64>().unwrap();
            assert!(
                time(&before) < time(&after) && time(&after) < time(&before) + 60_000,
                "{clock}: {} → {}",
                time(&before),
                time(&after)
            );
        }
        status = witness.assert_goes_on_from(&status);
    }
    container.kill();
}

fn line<'a>(seen: &'a Seen, key: &str, start: &str) -> &'a str {
    seen[key]
        .lines()
        .find_map(|l| l.strip_prefix(start))
        .unwrap_or_else(|| panic!("no '{start}' in {}", seen[key]))
        .trim()
}

/// The container of the recipe.
pub fn by_a_plain_container(world: &World) {
    assert_seen_the_same(world, "", |_| (), |_| ());
}

/// Device rules.
pub fn under_device_rules(world: &World) {
    let rules = "lxc.cgroup2.devices.deny = a\n\
                 lxc.cgroup2.devices.allow = c 1:3 rwm\n\
                 lxc.cgroup2.devices.allow = c 1:9 r\n\
                 lxc.cgroup2.devices.allow = b 7:* m\n";
    assert_seen_the_same(
        world,
        rules,
        |_| (),
        |seen| {
            assert_eq!(
                (seen["dev/zero/read"].as_str(), seen["dev/urandom/read"].as_str()),
                ("error 1", "opened")
            );
            assert_eq!(
                (seen["mknod/60000/7:0"].as_str(), seen["mknod/20000/1:5"].as_str()),
                ("0", "error 1")
            );
        },
    );
}

/// Capabilities taken away by name.
pub fn without_some_capabilities(world: &World) {
    let drop = "lxc.cap.drop = sys_module mac_admin mac_override sys_time net_raw sys_rawio syslog \
                mknod\n";
    assert_seen_the_same(
        world,
        drop,
        |_| (),
        |seen| {
            assert_eq!(seen["call/socket raw"], "error 1");
            assert_eq!(seen["capability/27"], "0 0", "mknod");
            assert_eq!(seen["capability/21"], "1 0", "sys_admin");
        },
    );
}

/// Only some capabilities left.
pub fn with_few_capabilities(world: &World) {
    let keep =
        "lxc.cap.keep = chown dac_override fowner kill setgid setuid net_bind_service sys_chroot\n";
    assert_seen_the_same(
        world,
        keep,
        |_| (),
        |seen| {
            assert_eq!(line(seen, "proc/self/status", "CapEff:"), "00000000000404eb");
        },
    );
}

/// System calls taken away by a seccomp profile, and no way to gain privileges.
pub fn under_a_seccomp_profile(world: &World) {
    let prepare = |container: &Container| {
        let profile = container.dir().join("seccomp.conf");
        fs::write(&profile, "2\ndenylist\n[all]\nkeyctl errno 38\nbpf errno 1\nsyslog errno 77\n")
            .unwrap();
        let config = container.dir().join("config");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}lxc.seccomp.profile = {}\n", profile.display())).unwrap();
    };
    assert_seen_the_same(world, "lxc.no_new_privs = 1\n", prepare, |seen| {
        assert_eq!(line(seen, "proc/self/status", "Seccomp:"), "2");
        assert_eq!(line(seen, "proc/self/status", "NoNewPrivs:"), "1");
        assert_eq!(
            (seen["call/syslog"].as_str(), seen["call/keyctl"].as_str()),
            ("error 77", "error 38")
        );
    });
}

/// Resource limits, kernel settings of its namespaces, the killer's preference, the environment.
pub fn under_limits_and_settings(world: &World) {
    let settings = "lxc.prlimit.nofile = 500:1000\nlxc.prlimit.core = 0\nlxc.prlimit.nproc = \
                    2000:3000\nlxc.prlimit.stack = 4194304\nlxc.sysctl.net.ipv4.ip_forward = \
                    1\nlxc.sysctl.net.core.somaxconn = 321\nlxc.sysctl.net.ipv4.tcp_keepalive_time \
                    = 77\nlxc.sysctl.net.ipv4.ip_local_port_range = 20000 \
                    30000\nlxc.sysctl.net.ipv6.conf.all.forwarding = 1\nlxc.sysctl.kernel.msgmax = \
                    16384\nlxc.sysctl.kernel.shmmni = 123\nlxc.sysctl.fs.mqueue.msg_max = \
                    20\nlxc.proc.oom_score_adj = 500\nlxc.environment = COLOUR=blue\n";
    assert_seen_the_same(
        world,
        settings,
        |_| (),
        |seen| {
            assert_eq!(seen["proc/self/oom_score_adj"].trim(), "500");
            assert_eq!(seen["/proc/sys/net/core/somaxconn"].trim(), "321");
            assert_eq!(seen["/proc/sys/kernel/msgmax"].trim(), "16384");
            assert!(line(seen, "proc/1/limits", "Max open files").starts_with("500 "));
        },
    );
}

/// Read-only kernel files, as LXC's own templates mount them.
pub fn with_masked_kernel_files(world: &World) {
    let prepare = |container: &Container| {
        fs::write(container.dir().join("fstab"), "tmpfs dev/shm tmpfs defaults,create=dir 0 0\n")
            .unwrap();
    };
    assert_seen_the_same(
        world,
        "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed\n",
        prepare,
        |seen| {
            assert_eq!(seen["write//proc/sys/vm/swappiness"], "error 30");
        },
    );
}

/// Binds from the host and more, through links, read-only and not, of one thing several times.
pub fn with_binds_of_every_kind(world: &World) {
    assert_seen_the_same(
        world,
        &super::roots::entries(world),
        |_| (),
        |seen| {
            let mounts = &seen["proc/self/mountinfo"];
            for point in ["/mnt/d", "/lib", "/usr/lib", "/mnt/u", "/dev/mqueue"] {
                assert!(mounts.contains(&format!(" {point} ")), "{point}: {mounts}");
            }
        },
    );
}

/// A user namespace. (One that maps each id to itself: the root needs no other owners.)
pub fn in_a_user_namespace(world: &World) {
    assert_seen_the_same(
        world,
        "lxc.idmap = u 0 0 65536\nlxc.idmap = g 0 0 65536\n",
        |_| (),
        |seen| {
            assert_eq!(
                seen["proc/self/uid_map"].split_whitespace().collect::<Vec<_>>(),
                ["0", "0", "65536"]
            );
            assert_eq!(seen["mknod/20000/1:3"], "error 1");
        },
    );
}

/// Clocks of its own.
pub fn in_a_time_namespace(world: &World) {
    let offsets = "lxc.time.offset.boot = 5000s\nlxc.time.offset.monotonic = 3000s\n";
    assert_seen_the_same(
        world,
        offsets,
        |_| (),
        |seen| {
            let time = |clock: &str| seen[clock].parse::<u64>().unwrap();
            assert!(time("clock/boottime") > time("clock/monotonic") + 1_000_000);
        },
    );
}
