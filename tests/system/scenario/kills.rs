//! CRIU, its children and our commands are killed or stopped; what comes after works at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lxc_cr::api::rollback::lock::{self, STATE_ROOT};

use super::suspend::prepared;
use crate::harness::container::Container;
use crate::harness::run::{Output, Run, wait_for};
use crate::harness::{World, cgroups};

/// More than a command may take that finds what a killed one has left: its usual time, and two
/// seconds.
const AT_ONCE: Duration = Duration::from_secs(4);
/// For a killed process to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A user's action script that does something at one action.
fn script(world: &World, name: &str, action: &str, does: &str) -> PathBuf {
    let path = world.images(name).join("script.sh");
    fs::write(
        &path,
        format!("#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" != {action} ] || {{ {does}; }}\n"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn checkpoint(container: &Container, images: &Path, script: Option<&Path>) -> Output {
    let run = container.ours("lxc-checkpoint").arg("-D").arg(images);
    match script {
        Some(script) => run.arg("-A").arg(script).output(),
        None => run.output(),
    }
}

/// Nothing of CRIU's is left, neither in its own cgroup nor as one that holds the lock.
fn assert_nothing_left(world: &World, container: &Container) {
    let key = lock::key(world.lxcpath(), container.name());
    let criu_cgroup = cgroups::unified().join(format!("lxc-cr.{key}"));
    assert!(
        !criu_cgroup.exists(),
        "{}: {:?}",
        criu_cgroup.display(),
        fs::read_to_string(criu_cgroup.join("cgroup.procs"))
    );
    let lock = Path::new(STATE_ROOT).join(key).join("lock");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let holds =
            open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == lock));
        assert!(!holds, "{} holds the lock", process.path().display());
    }
}

/// CRIU is killed while it has a child that is stopped, and with it the command or not: nobody
/// holds the lock, and the next command works at once.
pub fn what_criu_started_ends_with_it(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let stopped = "sleep 1000 & kill -STOP $!; (setsid sleep 1001 &)";
    let ours = "read -r _ _ _ ours _ < /proc/$PPID/stat; kill -9 $ours";
    for (name, action, also) in [
        ("criu-1", "pre-dump", ""),
        ("criu-2", "post-dump", ""),
        ("both-1", "pre-dump", ours),
        ("both-2", "post-dump", ours),
    ] {
        let script = script(world, name, action, &format!("{stopped}; {also}; kill -9 $PPID"));
        let images = world.images(name).join("c");
        let told = checkpoint(&container, &images, Some(&script));
        if also.is_empty() {
            told.assert_code(5);
            assert!(told.stderr.contains("running as before"), "{name}: {told}");
            assert_nothing_left(world, &container);
        }
        let next = checkpoint(&container, &images, None);
        next.assert_code(0);
        assert!(next.took < AT_ONCE, "{name}: {next}");
        assert_nothing_left(world, &container);
        before = witness.assert_goes_on_from(&before);
    }
    container.ours("lxc-checkpoint").ok();
    let script =
        script(world, "restart", "post-restore", &format!("{stopped}; {ours}; kill -9 $PPID"));
    container.ours("lxc-restart").arg("-A").arg(&script).output();
    let next = container.ours("lxc-restart").ok();
    assert!(next.took < AT_ONCE, "{next}");
    assert_nothing_left(world, &container);
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Somebody stops CRIU: it goes on, and so does the command.
pub fn a_stopped_criu_goes_on(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    for action in ["pre-dump", "post-dump"] {
        let script = script(world, action, action, "kill -STOP $PPID");
        let told = checkpoint(&container, &world.images(action).join("c"), Some(&script));
        told.assert_code(0);
        before = witness.assert_goes_on_from(&before);
    }
    // And where the command is killed then, the next one has it put the container back.
    let ours = "read -r _ _ _ ours _ < /proc/$PPID/stat; kill -9 $ours; kill -STOP $PPID";
    let script = script(world, "orphan", "post-dump", ours);
    checkpoint(&container, &world.images("orphan").join("c"), Some(&script));
    let next = checkpoint(&container, &world.images("orphan").join("c"), None);
    next.assert_code(0);
    assert!(next.took < AT_ONCE, "{next}");
    assert_nothing_left(world, &container);
    wait_for("the port on its bridge", GONE, || {
        fs::read_link(format!("/sys/class/net/{}/master", container.veth())).ok()
    })
    .unwrap();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Kills CRIU and the monitor that started it.
const KILL_BOTH: &str = "read -r _ _ _ ours _ < /proc/$PPID/stat; kill -9 $ours $PPID";

/// A restart is cut short, its cgroups go, and LXC starts the container: what the restart has left
/// is not taken for that.
pub fn a_stale_journal_ends_no_healthy_container(world: &World) {
    let container = world.container();
    container.start();
    drop(container.witness());
    container.ours("lxc-checkpoint").ok();
    let script = script(world, "cut", "post-restore", KILL_BOTH);
    assert!(!container.ours("lxc-restart").arg("-A").arg(&script).output().success());
    let name = container.name();
    let payload = cgroups::unified().join(format!("lxc.payload.{name}"));
    fs::write(payload.join("cgroup.kill"), "1").unwrap();
    wait_for("the tasks to be gone", GONE, || {
        fs::read_to_string(payload.join("cgroup.events"))
            .is_ok_and(|events| events.contains("populated 0"))
            .then_some(())
    })
    .unwrap();
    for kind in ["payload", "monitor"] {
        cgroups::remove_all(&format!("lxc.{kind}.{name}"));
    }
    container.start();
    let mut witness = container.witness();
    let (init, before) = (container.init_pid(), witness.status());
    let told = container.lxc_cr("recover").ok();
    assert!(!told.stdout.contains("ended") && !told.stdout.contains("cgroup"), "{told}");
    container.ours("lxc-checkpoint").args(["--leave-running", "--overwrite"]).ok();
    assert_eq!((container.state().as_str(), container.init_pid()), ("RUNNING", init));
    witness.assert_goes_on_from(&before);
    // With the cgroups still there, LXC gives it others, and those of the restart are cleared away.
    container.ours("lxc-checkpoint").arg("--overwrite").ok();
    assert!(!container.ours("lxc-restart").arg("-A").arg(&script).output().success());
    container.start();
    let init = container.init_pid();
    let told = container.lxc_cr("recover").ok();
    assert!(told.stdout.contains("half-restored tasks ended"), "{told}");
    assert_eq!((container.state().as_str(), container.init_pid()), ("RUNNING", init));
    container.kill();
}

/// A restart of what was suspended is cut short: what is to be resumed at boot is that again,
/// unless it may have run.
pub fn a_mark_that_was_struck_out_comes_back(world: &World) {
    let container = prepared(world, "marked", "");
    container.start();
    drop(container.witness());
    container.lxc_cr("suspend").ok();
    let marker = container.dir().join("dump/lxc-cr.resume");
    for (action, comes_back, words) in [
        ("network-unlock", true, "is resumed at the next boot, as before"),
        ("pre-resume", false, "is not resumed at boot any more"),
    ] {
        assert!(marker.exists());
        let script = script(world, action, action, KILL_BOTH);
        assert!(!container.ours("lxc-restart").arg("-A").arg(&script).output().success());
        assert!(!marker.exists(), "{action}");
        let told = container.lxc_cr("recover").ok();
        assert!(told.stdout.contains(words), "{action}: {told}");
        assert_eq!(marker.exists(), comes_back, "{action}");
        assert_eq!(container.lxc_cr("recover").ok().stdout, "");
    }
    container.ours("lxc-restart").ok();
    container.witness().echo("back");
    container.kill();
}

/// A process inside is frozen in a cgroup of the container's own: that is found beforehand, and
/// where it was not seen, the limit holds, all goes on, and what was frozen is frozen.
pub fn what_is_frozen_inside_holds_nobody_up(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let init = container.init_pid();
    let payload = cgroups::unified().join(format!("lxc.payload.{}", container.name()));
    let inside = payload.join("inside");
    fs::create_dir(&inside).unwrap();
    let tasks = fs::read_to_string(payload.join("cgroup.procs")).unwrap();
    let comm = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let syslogd = tasks.lines().find(|pid| comm(pid).trim() == "syslogd").unwrap();
    fs::write(inside.join("cgroup.procs"), syslogd).unwrap();
    let frozen = || fs::read_to_string(inside.join("cgroup.events")).unwrap().contains("frozen 1");
    fs::write(inside.join("cgroup.freeze"), "1").unwrap();
    wait_for("it to be frozen", GONE, || frozen().then_some(())).unwrap();

    let refused = container.ours("lxc-checkpoint").output();
    refused.assert_code(4);
    assert!(refused.stderr.contains("cgroup inside is frozen"), "{refused}");
    let told = container.ours("lxc-checkpoint").args(["--force", "--timeout", "2"]).output();
    told.assert_code(7);
    assert!(
        ["running as before", "was not touched"].iter().any(|now| told.stderr.contains(now))
            && told.took < Duration::from_secs(6),
        "{told}"
    );
    wait_for("it to be frozen again", GONE, || frozen().then_some(())).unwrap();
    before = witness.assert_goes_on_from(&before);
    assert_nothing_left(world, &container);

    let remedy = refused.stderr.lines().find_map(|line| line.split_once("thaw it: ")).unwrap().1;
    Run::new("sh").args(["-c", remedy]).ok();
    assert_eq!(container.init_pid(), init);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}
