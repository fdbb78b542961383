//! Hosts with the hierarchies of cgroup v1 beside cgroup2, on which LXC 5 and 6 put a container
//! into all of them. (`make test-lxc`; the test host of LXC 7, which does not start containers
//! there, has cgroup2 alone.)

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::container::Container;
use crate::harness::{World, cgroups};

/// What a running count or a pid makes different from one moment to the next.
const COUNTS: &[&str] = &[
    "cgroup.procs",
    "tasks",
    "cgroup.threads",
    "usage",
    "stat",
    "peak",
    "failcnt",
    "events",
    "pressure",
    "serviced",
    "service_bytes",
    "recursive",
    "slabinfo",
    "current",
    "local",
    "self_freezing",
];

/// Every file of the container's cgroups in every hierarchy: owner, mode, and what is in it if that
/// is a setting.
fn trees(container: &Container) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let payload = format!("lxc.payload.{}", container.name());
    let mut left: Vec<PathBuf> = cgroups::roots().iter().map(|root| root.join(&payload)).collect();
    while let Some(path) = left.pop() {
        let meta =
            fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut text = format!("{:o} {} {}", meta.mode(), meta.uid(), meta.gid());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if meta.is_dir() {
            // Where lxc-attach puts its processes.
            if name != ".lxc" {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                found.insert(path, text);
            }
            continue;
        }
        if !COUNTS.iter().any(|end| name.contains(end)) {
            text += &format!(" {}", fs::read_to_string(&path).unwrap_or_default());
        }
        found.insert(path, text);
    }
    found
}

/// The cgroups of a process as the host counts, without their numbers.
fn places(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().map(|line| line.split_once(':').unwrap().1.to_owned()).collect()
}

fn monitor(container: &Container) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", container.init_pid())).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

fn assert_differences(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) {
    let keys = before.keys().chain(after.keys().filter(|k| !before.contains_key(*k)));
    let wrong: Vec<String> = keys
        .filter(|k| before.get(*k) != after.get(*k))
        .map(|k| format!("{}: {:?} → {:?}", k.display(), before.get(k), after.get(k)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// It is in a cgroup of each hierarchy, as LXC names them, with the limits of its configuration and
/// those that were set since; its monitor, too.
pub fn it_is_in_every_hierarchy_again(world: &World) {
    let container = world.container().configure(
        "lxc.cgroup.memory.limit_in_bytes = 512M\nlxc.cgroup.memory.memsw.limit_in_bytes = \
         1G\nlxc.cgroup.cpu.shares = 512\nlxc.cgroup.cpu.cfs_quota_us = \
         50000\nlxc.cgroup.cpuset.cpus = 0\nlxc.cgroup.memory.oom_control = \
         1\nlxc.cgroup2.cgroup.max.descendants = 12\n",
    );
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let (of_init, of_monitor) = (places(container.init_pid()), places(monitor(&container)));
    assert!(
        of_init.len() > 5
            && of_init.iter().all(|p| p.ends_with(&format!("/lxc.payload.{}", container.name())))
    );
    for pids in ["300", "200"] {
        container.lxc("lxc-cgroup").args(["pids.max", pids]).ok();
        container.lxc("lxc-cgroup").args(["memory.limit_in_bytes", "256M"]).ok();
        let before = trees(&container);
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_differences(&before, &trees(&container));
        assert_eq!(
            (places(container.init_pid()), places(monitor(&container))),
            (of_init.clone(), of_monitor.clone())
        );
        let asked =
            |file: &str| container.lxc("lxc-cgroup").arg(file).ok().stdout.trim().to_owned();
        assert_eq!(
            (asked("pids.max").as_str(), asked("memory.limit_in_bytes").as_str()),
            (pids, "268435456")
        );
        let attached = container.exec(["/bin/cat", "/proc/self/cgroup"]).stdout;
        assert!(attached.lines().all(|l| l.ends_with(":/") || l == "0::/.lxc"), "{attached}");
        status = witness.assert_goes_on_from(&status);
    }

    // Where a name is taken in one of them, all get the next one, and all go at the end.
    let taken = cgroups::legacy("memory").join(format!("lxc.payload.{}", container.name()));
    container.ours("lxc-checkpoint").ok();
    fs::create_dir(&taken).unwrap();
    container.ours("lxc-restart").ok();
    let numbered: Vec<String> = of_init.iter().map(|place| format!("{place}-1")).collect();
    assert_eq!(places(container.init_pid()), numbered);
    assert_eq!(container.lxc("lxc-cgroup").arg("pids.max").ok().stdout.trim(), "200");
    container.kill();
    fs::remove_dir(&taken).unwrap();
}

/// Devices that are allowed by the configuration and since; also where the container has cgroups of
/// its own below.
pub fn device_rules_are_in_force_again(world: &World) {
    const TRIED: &str = "\
for device in null zero full random; do
    test -c /dev/$device || continue
    ( : < /dev/$device ) 2>/dev/null && echo $device r
    ( : > /dev/$device ) 2>/dev/null && echo $device w
done
mknod /tmp/node c 1 5 2>/dev/null && echo 1 5 m && rm /tmp/node
true
";
    let container = world.container().configure(
        "lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c 1:3 \
         rwm\nlxc.cgroup.devices.allow = c *:* m\nlxc.cgroup.devices.allow = c 1:8 r\n",
    );
    symlink("busybox", container.rootfs().join("bin/mknod")).unwrap();
    container.start();
    let allowed = || {
        let told = container.exec(["/bin/sh", "-c", TRIED]);
        told.assert_code(0);
        told.stdout.lines().collect::<Vec<_>>().join(", ")
    };
    assert_eq!(allowed(), "null r, null w, random r, 1 5 m");
    container.lxc("lxc-device").args(["add", "/dev/full"]).ok();
    container.lxc("lxc-cgroup").args(["devices.deny", "c 1:8 r"]).ok();
    container.lxc("lxc-cgroup").args(["devices.allow", "c 1:5 r"]).ok();
    let own = "mkdir /tmp/cg && mount -t cgroup -o devices cgroup /tmp/cg && mkdir /tmp/cg/own &&
               echo 'c 1:5 r' > /tmp/cg/own/devices.deny && umount /tmp/cg";
    container.exec(["/bin/sh", "-c", own]).assert_code(0);
    let list = |below: &str| {
        let payload = cgroups::legacy("devices").join(format!("lxc.payload.{}", container.name()));
        let text = fs::read_to_string(payload.join(below).join("devices.list")).unwrap();
        text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let expected = "null r, null w, zero r, full r, full w, 1 5 m";
    let lists = (list(""), list("own"));
    assert_ne!(lists.0, lists.1);
    for _ in 0..2 {
        assert_eq!(allowed(), expected);
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_eq!((list(""), list("own")), lists);
    }
    assert_eq!(allowed(), expected);
    container.lxc("lxc-device").args(["del", "/dev/full"]).ok();
    assert_eq!(allowed(), "null r, null w, zero r, 1 5 m");
    container.kill();
}

/// What was frozen by LXC's tool, which uses v1's freezer, comes back so, and is thawed by it.
pub fn a_frozen_container_comes_back_frozen(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.lxc("lxc-freeze").ok();
    let told = container.ours("lxc-checkpoint").ok();
    assert!(
        told.stderr.contains("the container is frozen") && !told.stderr.contains("state D"),
        "{told}"
    );
    container.ours("lxc-restart").ok();
    let freezer =
        cgroups::legacy("freezer").join(format!("lxc.payload.{}/freezer.state", container.name()));
    assert_eq!(
        (container.state().as_str(), fs::read_to_string(&freezer).unwrap().trim()),
        ("FROZEN", "FROZEN")
    );
    container.lxc("lxc-unfreeze").ok();
    assert_eq!(
        (container.state().as_str(), fs::read_to_string(&freezer).unwrap().trim()),
        ("RUNNING", "THAWED")
    );
    witness.assert_goes_on_from(&before);
    // A frozen one is killed, too.
    container.lxc("lxc-freeze").ok();
    container.kill();
}

/// A container that has made cgroups of its own in a hierarchy of v1, with its processes in them.
pub fn its_own_cgroups_come_back(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let script = "mkdir /mnt/pids && mount -t cgroup -o pids cgroup /mnt/pids && cd /mnt/pids && mkdir -p work empty &&
         for pid in $(cat cgroup.procs); do echo $pid > work/cgroup.procs; done
         echo 77 > work/pids.max; /bin/busybox chown 7:8 empty; cat work/pids.max";
    let told = container.exec(["/bin/sh", "-c", script]);
    assert_eq!(told.stdout, "77\n", "{told}");
    let before = trees(&container);
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_differences(&before, &trees(&container));
        let place = container.exec(["/bin/cat", "/proc/1/cgroup"]).stdout;
        assert!(place.lines().any(|l| l.ends_with(":pids:/work")), "{place}");
        let seen = container.exec(["/bin/cat", "/mnt/pids/work/pids.max"]).stdout;
        assert_eq!(seen, "77\n");
        status = witness.assert_goes_on_from(&status);
    }
    container.kill();
}

/// Limits of a hierarchy that this host does not have are a refusal, before anything is restored.
pub fn limits_that_cannot_be_had_are_refused(world: &World) {
    let container = world.container().configure("lxc.cgroup.pids.max = 400\n");
    container.start();
    container.ours("lxc-checkpoint").ok();
    let record = container.dir().join("dump/lxc-cr.toml");
    let text = fs::read_to_string(&record).unwrap();
    let line = "\"pids.max\" = \"400\"\n";
    assert!(text.contains(line), "{text}");
    fs::write(&record, text.replace("controllers = [\"pids\"]", "controllers = [\"nowhere\"]"))
        .unwrap();
    let told = container.ours("lxc-restart").output();
    told.assert_code(4);
    assert!(
        told.stderr.contains("this host cannot limit it as before: pids.max = 400\n"),
        "{told}"
    );
    assert!(
        cgroups::roots().iter().all(|root| !Path::new(root)
            .join(format!("lxc.payload.{}", container.name()))
            .exists())
    );
}
