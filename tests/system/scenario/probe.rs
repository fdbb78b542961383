//! What a process in the container sees of its confinement and its surroundings, before and after: the same, but for
//! what has to differ.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::World;
use crate::harness::container::Container;

type Seen = BTreeMap<String, String>;

/// What is not the same after a restart: keys that begin like this, of their lines those that begin like that, and why.
const DIFFERS: &[(&str, &str, &str)] = &[
    ("clock/", "", "time goes on: looked at by itself"),
    ("/proc/sys/kernel/ns_last_pid", "", "the next pid: whoever forks changes it"),
    ("proc/self/stat/start_time", "", "the kernel's process is a new one"),
    ("proc/1/stat/start_time", "", "the kernel's process is a new one"),
    ("proc/self/timens_offsets", "", "by these the clocks go on where they stood"),
    ("proc/1/timens_offsets", "", "by these the clocks go on where they stood"),
    ("net/eth0/iflink", "", "the number of the host's end, which is made anew"),
    ("keyring/keys", "", "the keys of the whole machine"),
    ("proc/self/status", "FDSize:", "how many descriptors the kernel has room for"),
    ("proc/1/status", "FDSize:", "how many descriptors the kernel has room for"),
    ("proc/1/status", "SigBlk:", "busybox init blocks signals but while it waits for one; CRIU wakes it"),
];

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

fn differences(before: &Seen, after: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    for key in before.keys().chain(after.keys().filter(|k| !before.contains_key(*k))) {
        let may_differ: Vec<&str> = DIFFERS.iter().filter(|d| key.starts_with(d.0)).map(|d| d.1).collect();
        let show = |seen: &Seen| {
            let text = seen.get(key).map(|value| comparable(key, value))?;
            Some(text.lines().filter(|l| !may_differ.iter().any(|m| l.starts_with(m))).collect::<Vec<_>>().join("\n"))
        };
        let (was, is) = (show(before), show(after));
        if was != is {
            let lines = |text: Option<String>| text.unwrap_or_else(|| "(nothing)".to_owned());
            let (was, is) = (lines(was), lines(is));
            let only =
                |a: &str, b: &str| a.lines().filter(|l| !b.lines().any(|m| m == *l)).collect::<Vec<_>>().join(" | ");
            found.push(format!("{key}: {} → {}", only(&was, &is), only(&is, &was)));
        }
    }
    found
}

/// A value without the numbers that the kernel gives out anew.
fn comparable(key: &str, value: &str) -> String {
    if key.ends_with("/mountinfo") {
        let mut mounts: Vec<String> = value.lines().map(mount).collect();
        mounts.sort();
        return mounts.join("\n");
    }
    if key.ends_with("/status") {
        let counted = ["Vm", "Rss", "voluntary", "nonvoluntary", "SigQ", "State"];
        return value.lines().filter(|l| !counted.iter().any(|c| l.starts_with(c))).collect::<Vec<_>>().join("\n");
    }
    if key.starts_with("net/") {
        let mut lines: Vec<&str> = value.lines().collect();
        lines.sort_unstable();
        return lines.join("\n");
    }
    if key.contains("/fd/") || key.contains("/ns/") {
        return value.chars().filter(|c| !c.is_ascii_digit()).collect();
    }
    value.to_owned()
}

/// A mount without its number, its parent's, those of its group and of its anonymous device.
fn mount(line: &str) -> String {
    let mut fields = line.split(' ').skip(2);
    let device = fields.next().unwrap_or_default();
    let device = if device.starts_with("0:") { "0:*" } else { device };
    let rest = fields.map(|field| match field.split_once(':') {
        Some((kind @ ("shared" | "master" | "propagate_from"), _)) => kind.to_owned(),
        _ => field.to_owned(),
    });
    // What is said to be mounted is a word; CRIU says the kind of a cgroup2, LXC says "none".
    let rest =
        rest.map(|field| if line.contains(" - cgroup2 ") && field == "none" { "cgroup2".to_owned() } else { field });
    std::iter::once(device.to_owned()).chain(rest).collect::<Vec<_>>().join(" ")
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
            assert_eq!((seen["dev/zero/read"].as_str(), seen["dev/urandom/read"].as_str()), ("error 1", "opened"));
            assert_eq!((seen["mknod/60000/7:0"].as_str(), seen["mknod/20000/1:5"].as_str()), ("0", "error 1"));
        },
    );
}

/// Capabilities taken away by name.
pub fn without_some_capabilities(world: &World) {
    let drop = "lxc.cap.drop = sys_module mac_admin mac_override sys_time net_raw sys_rawio syslog mknod\n";
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
    let keep = "lxc.cap.keep = chown dac_override fowner kill setgid setuid net_bind_service sys_chroot\n";
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
        fs::write(&profile, "2\ndenylist\n[all]\nkeyctl errno 38\nbpf errno 1\nsyslog errno 77\n").unwrap();
        let config = container.dir().join("config");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}lxc.seccomp.profile = {}\n", profile.display())).unwrap();
    };
    assert_seen_the_same(world, "lxc.no_new_privs = 1\n", prepare, |seen| {
        assert_eq!(line(seen, "proc/self/status", "Seccomp:"), "2");
        assert_eq!(line(seen, "proc/self/status", "NoNewPrivs:"), "1");
        assert_eq!((seen["call/syslog"].as_str(), seen["call/keyctl"].as_str()), ("error 77", "error 38"));
    });
}

/// Resource limits, kernel settings of its namespaces, the killer's preference, the environment.
pub fn under_limits_and_settings(world: &World) {
    let settings = "lxc.prlimit.nofile = 500:1000\nlxc.prlimit.core = 0\nlxc.prlimit.nproc = 2000:3000\n\
                    lxc.prlimit.stack = 4194304\n\
                    lxc.sysctl.net.ipv4.ip_forward = 1\nlxc.sysctl.net.core.somaxconn = 321\n\
                    lxc.sysctl.net.ipv4.tcp_keepalive_time = 77\nlxc.sysctl.net.ipv4.ip_local_port_range = 20000 30000\n\
                    lxc.sysctl.net.ipv6.conf.all.forwarding = 1\nlxc.sysctl.kernel.msgmax = 16384\n\
                    lxc.sysctl.kernel.shmmni = 123\nlxc.sysctl.fs.mqueue.msg_max = 20\n\
                    lxc.proc.oom_score_adj = 500\nlxc.environment = COLOUR=blue\n";
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
        fs::write(container.dir().join("fstab"), "tmpfs dev/shm tmpfs defaults,create=dir 0 0\n").unwrap();
    };
    assert_seen_the_same(world, "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed\n", prepare, |seen| {
        assert_eq!(seen["write//proc/sys/vm/swappiness"], "error 30");
    });
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
            assert_eq!(seen["proc/self/uid_map"].split_whitespace().collect::<Vec<_>>(), ["0", "0", "65536"]);
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
