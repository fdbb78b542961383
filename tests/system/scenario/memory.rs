//! Memory: what the kernel has to do for it, beside what is in it.

use std::fs;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::{patient, wait_for};

/// Of the witness, in MiB.
const MEMORY: usize = 128;
const MIB: u64 = 1 << 20;

/// A process that holds memory, and one that it has forked, which shares it.
const SHARERS: &str = "#!/bin/sh
text=$(/bin/busybox yes 'what is shared' | /bin/busybox head -c 33554432)
(while :; do /bin/busybox sleep 1; done; echo $text) &
echo $$ $! > /sharers
wait
";

/// The task whose memory CRIU reads has to wait for few of its pages: others have made them.
pub fn pages_are_made_ready_beside_criu(world: &World) {
    let container = world.container().memory(MEMORY);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    // Each page that was not there was a fault of the task's own, before anything has asked the witness.
    let faults = faults(&container, before.get("pid"));
    witness.assert_goes_on_from(&before);
    let pages = MEMORY as u64 * MIB / 4096;
    assert!(faults < pages / 4 * 3, "{faults} faults for {pages} pages");
    container.kill();
}

/// What a process and its child share until one of them writes is not there twice after a restart.
pub fn pages_that_tasks_share_stay_shared(world: &World) {
    let container = world.container();
    let (root, inittab) = (container.rootfs(), container.rootfs().join("etc/inittab"));
    fs::write(root.join("bin/sharers"), SHARERS).unwrap();
    fs::write(&inittab, fs::read_to_string(&inittab).unwrap() + "::once:/bin/sh /bin/sharers\n").unwrap();
    container.start();
    let _witness = container.witness();
    let told = wait_for("the sharers", patient(Duration::from_secs(30)), || {
        let text = fs::read_to_string(root.join("sharers")).ok()?;
        let (parent, child) = text.trim_end().split_once(' ')?;
        Some([parent.to_owned(), child.to_owned()])
    });
    let sharers = told.unwrap();
    let shared_by_all = || sharers.each_ref().map(|pid| shared(&container, pid));
    let before = shared_by_all();
    assert!(before.iter().all(|bytes| *bytes > 32 * MIB), "the test shares nothing: {before:?}");
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let after = shared_by_all();
    assert!(after.iter().all(|bytes| *bytes > 32 * MIB), "shared before: {before:?}, and now: {after:?}");
    container.kill();
}

/// How many pages a process of the container's has had to wait for, without the disk (proc(5), `minflt`).
fn faults(container: &Container<'_>, pid: &str) -> u64 {
    let stat = container.exec(["/bin/busybox", "cat", &format!("/proc/{pid}/stat")]).stdout;
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(7).unwrap().parse().unwrap()
}

/// Bytes that a process of the container's shares with others.
fn shared(container: &Container<'_>, pid: &str) -> u64 {
    let text = container.exec(["/bin/busybox", "cat", &format!("/proc/{pid}/smaps_rollup")]).stdout;
    let dirty = text.lines().find_map(|line| line.strip_prefix("Shared_Dirty:")).unwrap();
    dirty.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
