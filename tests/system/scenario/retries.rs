//! What fails for a reason that passes, or in a way to which there is another, is tried again; each
//! failure is a real one.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::others::{init_by_hand, start_and_kill_the_monitor};
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::enter::BRIDGE;
use crate::harness::run::{Run, wait_for};
use crate::harness::{World, cgroups};

/// For a command to come to an action.
const LIMIT: Duration = Duration::from_secs(20);

/// A user's action script: each time at `action` it counts in `tries` and does this.
fn script(dir: &Path, action: &str, body: &str) -> PathBuf {
    let path = dir.join("script");
    let text = format!(
        "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = {action} ] || exit 0\ncd {dir}\necho >> tries\n\
         try=$(wc -l < tries)\n{body}\n",
        dir = dir.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn tries(dir: &Path) -> usize {
    fs::read_to_string(dir.join("tries")).unwrap_or_default().lines().count()
}

/// A process has not read what the kernel told it; when CRIU comes for the second time, it is over.
pub fn unread_netlink_data_passes(world: &World) {
    passes(world, "netlink-queue", "a netlink socket holds unread data");
}

/// The same of a message that carries the credentials of its sender, as all that systemd's journal
/// reads.
pub fn a_message_with_credentials_is_read(world: &World) {
    passes(world, "credentials-queue", "a message with the credentials of its sender waits");
}

/// The same of a connection that a process has not accepted.
pub fn a_connection_that_nobody_has_accepted_passes(world: &World) {
    passes(world, "in-flight", "a TCP connection is just being opened");
}

/// The same of a request at a unix socket, as of a web server before busy workers.
pub fn a_request_at_a_unix_socket_passes(world: &World) {
    passes(world, "unix-request", "a request waits at a unix socket");
}

/// What a process of this kind has cannot be dumped, which is told so. The process ends before the
/// second try.
fn passes(world: &World, kind: &str, reason: &str) {
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    if culprits.make(kind).is_none() {
        return;
    }
    let dir = world.images("scripts");
    // It stays so: three tries, and all is told.
    let never = script(&dir, "pre-dump", "exit 0");
    let images = world.images("tried");
    let told = container
        .ours("lxc-checkpoint")
        .arg("-A")
        .arg(&never)
        .arg("-D")
        .arg(images.join("1"))
        .output();
    told.assert_code(5);
    assert_eq!(tries(&dir), 3);
    assert!(told.stderr.matches("tried again a moment later: the same").count() == 2, "{told}");
    assert!(told.stderr.contains(reason), "{told}");
    assert!(images.join("1.failed.log").exists() && !images.join("1").exists());
    witness.assert_goes_on_from(&before);

    fs::remove_file(dir.join("tries")).unwrap();
    let tmp = container.rootfs().join("tmp");
    let ends = format!(
        "[ $try = 2 ] || exit 0\nrm -f {tmp}/culprit\necho end > {tmp}/culprit.in\n\
         until [ -e {tmp}/culprit ]; do sleep 0.02; done",
        tmp = tmp.display()
    );
    let passes = script(&dir, "pre-dump", &ends);
    let told = container
        .ours("lxc-checkpoint")
        .arg("-s")
        .arg("-A")
        .arg(&passes)
        .arg("-D")
        .arg(images.join("2"))
        .ok();
    assert_eq!(tries(&dir), 2);
    assert!(told.stderr.contains("tried again a moment later: it worked"), "{told}");
    assert!(!images.join("2.failed.log").exists());
    container.ours("lxc-restart").arg("-D").arg(images.join("2")).ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Somebody traces a process just when CRIU wants to, and lets it go before the second try.
pub fn a_traced_process_is_let_go(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let dir = world.images("scripts");
    let waits = script(&dir, "pre-dump", "> told.$try\nuntil [ -e go.$try ]; do sleep 0.02; done");
    let images = world.images("traced");
    let mut command = container
        .ours("lxc-checkpoint")
        .arg("-A")
        .arg(&waits)
        .arg("-D")
        .arg(images.join("c"))
        .spawn();
    let at_try = |number: usize| {
        let told = dir.join(format!("told.{number}"));
        wait_for("CRIU to begin", LIMIT, || told.exists().then_some(())).unwrap();
    };
    let go = |number: usize| drop(File::create(dir.join(format!("go.{number}"))).unwrap());
    at_try(1);
    let traced = Pid::from_raw(container.init_pid().cast_signed());
    ptrace::seize(traced, ptrace::Options::empty()).unwrap();
    go(1);
    at_try(2);
    // It must stand still to be let go.
    ptrace::interrupt(traced).unwrap();
    waitpid(traced, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    ptrace::detach(traced, None).unwrap();
    go(2);
    assert!(command.wait().unwrap().success());
    assert_eq!(tries(&dir), 2);
    assert!(images.join("c/lxc-cr.toml").exists());
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Somebody on the host kills a process of the container that CRIU has stopped already: the next
/// try is without it.
pub fn a_process_that_is_killed_meanwhile_is_left_out(world: &World) {
    let container = world.container();
    Culprits::put_into(&container);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let killed =
        wait_for("the other process", LIMIT, || process_of(&container, "culprit")).unwrap();
    let dir = world.images("scripts");
    let kills = script(&dir, "network-lock", &format!("[ $try = 2 ] || kill -9 {killed}"));
    let told = container.ours("lxc-checkpoint").arg("-A").arg(&kills).ok();
    assert_eq!(tries(&dir), 2);
    assert!(told.stderr.contains("a process ended while it was to be dumped"), "{told}");
    assert!(told.stderr.contains("tried again a moment later: it worked"), "{told}");
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    assert_eq!(process_of(&container, "culprit"), None);
    container.kill();
}

/// The number on the host of the container's process of this name.
fn process_of(container: &Container<'_>, name: &str) -> Option<u32> {
    let payload = cgroups::unified().join(format!("lxc.payload.{}", container.name()));
    let all = fs::read_to_string(payload.join("cgroup.procs")).unwrap();
    let is_it = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    all.lines().find(is_it)?.parse().ok()
}

/// The name of the host's end is taken between the plan and the making: everything is undone, and
/// another name serves.
pub fn a_name_that_was_taken_meanwhile_is_given_up(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let veth = container.veth();
    container.ours("lxc-checkpoint").ok();
    let dir = world.images("scripts");
    let takes =
        script(&dir, "pre-restore", &format!("[ $try = 2 ] || ip link add {veth} type bridge"));
    let told = container.ours("lxc-restart").arg("-A").arg(&takes).ok();
    assert_eq!(tries(&dir), 2);
    assert!(told.stderr.contains(&format!("make {veth} for eth0")), "{told}");
    assert!(
        told.stderr.contains("it exists already; tried again a moment later: it worked"),
        "{told}"
    );
    assert_ne!(container.veth(), veth);
    witness.assert_goes_on_from(&before);
    container.kill();
    Run::new("ip").args(["link", "delete", &veth]).ok();
}

/// Nobody takes the old pair away, for somebody holds the network namespace of a container whose
/// monitor was killed: it is waited for a moment, and another name serves.
pub fn an_old_veth_pair_that_lingers_is_waited_for(world: &World) {
    let container = world.container();
    let mut witness = start_and_kill_the_monitor(&container);
    cgroups::remove_all(&format!("lxc.monitor.{}", container.name()));
    let before = witness.status();
    // LXC's tools do not know it any more.
    let veth = fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let veth = veth.into_string().unwrap();
    let held = File::open(format!("/proc/{}/ns/net", init_by_hand(&container))).unwrap();
    container.ours("lxc-checkpoint").ok();
    let told = container.ours("lxc-restart").ok();
    let note =
        format!("{veth}, which it had before, lingered on the host; {veth} did not end in time");
    assert!(told.stderr.contains(&note), "{told}");
    assert_ne!(container.veth(), veth);
    witness.assert_goes_on_from(&before);
    drop(held);
    let gone = || (!Path::new("/sys/class/net").join(&veth).exists()).then_some(());
    wait_for("the old pair to go", LIMIT, gone).unwrap();
    container.kill();
}
