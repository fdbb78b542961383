//! Limits of cgroup2: those of the configuration, those that were changed since, and those of the
//! container's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::container::Container;
use crate::harness::{World, cgroups};

/// A limit of a controller that may be there, and three values for it. Which controllers cgroup2
/// has differs.
const LIMITS: &[(&str, [&str; 3])] = &[
    ("pids.max", ["500", "400", "300"]),
    ("memory.max", ["1073741824", "805306368", "536870912"]),
    ("hugetlb.2MB.max", ["8388608", "6291456", "4194304"]),
];

fn limit_here() -> (&'static str, [&'static str; 3]) {
    let controllers = fs::read_to_string(cgroups::unified().join("cgroup.controllers")).unwrap();
    let here =
        |name: &str| controllers.split_whitespace().any(|c| name.starts_with(&format!("{c}.")));
    *LIMITS
        .iter()
        .find(|(name, _)| here(name))
        .expect("cgroup2 has none of the controllers that are known here")
}

fn payload(container: &Container) -> PathBuf {
    cgroups::unified().join(format!("lxc.payload.{}", container.name()))
}

fn value(container: &Container, file: &str) -> String {
    fs::read_to_string(payload(container).join(file)).unwrap().trim_end().to_owned()
}

/// Every setting of every directory, and its owner and mode.
fn tree(container: &Container) -> BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut left = vec![payload(container)];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
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
        let set = [
            ".max",
            ".min",
            ".high",
            ".low",
            ".weight",
            ".depth",
            ".descendants",
            ".subtree_control",
            ".type",
        ];
        if set.iter().any(|end| name.ends_with(end)) {
            text += &format!(" {}", fs::read_to_string(&path).unwrap_or_default());
        }
        found.insert(path, text);
    }
    found
}

/// A value of the configuration, then one that `lxc-cgroup` has set, through two rounds.
pub fn survive(world: &World) {
    let (limit, values) = limit_here();
    let container = world.container().configure(&format!(
        "lxc.cgroup2.{limit} = {}\nlxc.cgroup2.cgroup.max.descendants = 12\n",
        values[0]
    ));
    container.start();
    for round in values {
        container.lxc("lxc-cgroup").args([limit, round]).ok();
        let before = tree(&container);
        assert_eq!(
            (
                value(&container, limit).as_str(),
                value(&container, "cgroup.max.descendants").as_str()
            ),
            (round, "12")
        );
        container.ours("lxc-checkpoint").ok();
        // As on a host that was started anew, where no container has asked for controllers yet.
        let above = cgroups::unified().join("cgroup.subtree_control");
        for controller in fs::read_to_string(&above).unwrap().split_whitespace() {
            fs::write(&above, format!("-{controller}")).unwrap();
        }
        container.ours("lxc-restart").ok();
        assert_eq!(tree(&container), before);
        assert_eq!(container.lxc("lxc-cgroup").arg(limit).ok().stdout.trim(), round);
    }
    container.kill();
}

/// What the container has made of its own cgroup: directories without tasks, controllers handed on,
/// limits.
pub fn of_the_containers_own_cgroups_survive(world: &World) {
    let (limit, values) = limit_here();
    let (controller, _) = limit.split_once('.').unwrap();
    let container = world.container().configure("lxc.mount.auto = cgroup:rw\n");
    container.start();
    let mut witness = container.witness();
    let before_status = witness.status();
    let script = format!(
        "cd /sys/fs/cgroup; mkdir -p work/inner empty/below
         for pid in $(cat cgroup.procs); do echo $pid > work/cgroup.procs; done
         echo +{controller} > cgroup.subtree_control; echo {value} > work/{limit}
         echo 3 > empty/cgroup.max.depth; /bin/busybox chown 7:8 empty empty/cgroup.procs; /bin/busybox chmod 664 empty/cgroup.procs
         cat cgroup.subtree_control work/{limit}",
        value = values[1]
    );
    let told = container.exec(["/bin/sh", "-c", &script]);
    assert_eq!(told.stdout, format!("{controller}\n{}\n", values[1]), "{told}");
    let before = tree(&container);
    let mut status = before_status;
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_eq!(tree(&container), before);
        let place = container.exec(["/bin/cat", "/proc/1/cgroup"]).stdout;
        assert!(place.lines().any(|l| l == "0::/work"), "{place}");
        status = witness.assert_goes_on_from(&status);
    }
    container.kill();
}

/// Services start and end while a checkpoint begins: what comes back is what there was when all
/// stood still.
pub fn of_cgroups_that_come_and_go_meanwhile_survive(world: &World) {
    let container = world.container().configure("lxc.mount.auto = cgroup:rw\n");
    container.start();
    container.exec(["/bin/mkdir", "/sys/fs/cgroup/early"]).assert_code(0);
    let mut witness = container.witness();
    let status = witness.status();
    // CRIU comes to this after all was looked at, and before it stops a task.
    let script = world.images("scripts").join("script");
    let own = format!("/sys/fs/cgroup/lxc.payload.{}", container.name());
    let text = format!(
        "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = pre-dump ] || exit 0\ncd {own} && rmdir early \
         && mkdir -p late/below\necho 5 > late/cgroup.max.depth\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    container.ours("lxc-checkpoint").arg("-A").arg(&script).ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&status);
    let there = |name: &str| Path::new(&own).join(name).exists();
    assert!(there("late/below") && !there("early"));
    assert_eq!(fs::read_to_string(format!("{own}/late/cgroup.max.depth")).unwrap(), "5\n");
    assert_eq!(container.state(), "RUNNING");
    container.kill();
}

/// A limit that cannot be had here is a refusal, before anything is restored.
pub fn that_cannot_be_had_are_refused(world: &World) {
    let container = world.container().configure("lxc.cgroup2.cgroup.max.depth = 9\n");
    container.start();
    container.ours("lxc-checkpoint").ok();
    let record = container.dir().join("dump/lxc-cr.toml");
    let text = fs::read_to_string(&record).unwrap();
    let line = "\"cgroup.max.depth\" = \"9\"\n";
    assert!(text.contains(line), "{text}");
    fs::write(
        &record,
        text.replace(line, &format!("{line}\"nowhere.max\" = \"5\"\n\"nowhere.high\" = \"max\"\n")),
    )
    .unwrap();
    let told = container.ours("lxc-restart").output();
    told.assert_code(4);
    assert!(
        told.stderr.contains("this host cannot limit it as before: nowhere.max = 5\n"),
        "{told}"
    );
    assert_eq!(container.state(), "STOPPED");
    // A share is no limit: it is told, and that is all.
    fs::write(&record, text.replace(line, &format!("{line}\"nowhere.weight\" = \"5\"\n"))).unwrap();
    let told = container.ours("lxc-restart").ok();
    assert!(told.stderr.contains("nowhere.weight"), "{told}");
    assert_eq!(value(&container, "cgroup.max.depth"), "9");
    container.kill();
}
