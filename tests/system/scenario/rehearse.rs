//! A restore is rehearsed beside the container: what would not come back goes on, and nothing else
//! notices.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use lxc_cr::api::rollback::lock;

use super::interfaces::{unwire, wired};
use super::systemd::{Debian, SHIFT, id_map};
use crate::harness::culprit::Culprits;
use crate::harness::leak::Snapshot;
use crate::harness::run::{Output, wait_for};
use crate::harness::{World, cgroups};

/// For a command to come to a step.
const STEP: Duration = Duration::from_secs(20);
/// What a rehearsal that has gone well says.
const GOOD: &str = "can be checkpointed and restored: rehearsed in ";

/// A rehearsal that is asked for by `check`, and went well: all that differs can be borne.
fn assert_good(told: &Output, name: &str) {
    told.assert_code(0);
    assert!(told.stdout.contains(&format!("{name} {GOOD}")) && told.stderr.is_empty(), "{told}");
    let differs = told.stdout.lines().filter(|line| line.contains("after a restore"));
    let borne = ["it differs in file.", "it differs in socket.so-reuseport-connected"];
    differs.for_each(|line| assert!(borne.iter().any(|text| line.contains(text)), "{told}"));
}

/// It was checkpointed, stopped, and could not be restored: a file of /proc of one of its threads
/// is open. No rule beforehand is asked.
pub fn what_does_not_come_back_goes_on(world: &World) {
    let container = world.container();
    let within = Culprits::put_into(&container);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    within.make("thread-proc").unwrap();
    let init = container.init_pid();
    for force in [vec!["--skip-preflight"], vec!["--skip-preflight", "--force"]] {
        let told = container.ours("lxc-checkpoint").args(&force).output();
        told.assert_code(5);
        assert!(
            told.stderr.contains("rehearsed beside it, fails: ") && told.stderr.contains("/task/"),
            "{told}"
        );
        assert!(
            told.stderr.contains("running as before") && told.stderr.contains("hint: take away"),
            "{told}"
        );
        let log = container.dir().join("dump.failed.log");
        assert!(fs::read_to_string(log).unwrap().contains("Restoring FAILED"), "{told}");
    }
    assert_eq!((container.state().as_str(), container.init_pid()), ("RUNNING", init));
    assert!(!container.dir().join("dump").exists());
    let before = witness.assert_goes_on_from(&before);
    // And without that it comes back.
    within.end();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Twice each: with servers and an open connection, and one program alone.
pub fn healthy_containers_without_a_false_alarm(world: &World) {
    let servers = world.container();
    servers.start();
    let mut witness = servers.witness();
    let mut before = witness.status();
    let program = world.container_named("program");
    program.append_config("lxc.init.cmd = /bin/syslogd -n\n");
    program.start();
    for container in [&servers, &program] {
        container.wait_settled();
        let init = container.init_pid();
        for _ in 0..2 {
            assert_good(&container.lxc_cr("check").arg("--rehearse").output(), container.name());
            before = witness.assert_goes_on_from(&before);
        }
        assert_eq!(container.init_pid(), init);
        let told = container.ours("lxc-checkpoint").arg("--rehearse").output();
        told.assert_code(0);
        assert!(told.stdout.contains(", rehearsed in "), "{told}");
        container.ours("lxc-restart").ok();
        before = witness.assert_goes_on_from(&before);
    }
    servers.kill();
    program.kill();
}

/// systemd with an id map.
pub fn debian_without_a_false_alarm(world: &World) {
    let debian = Debian::make(world, SHIFT, &id_map(), &world.installed());
    debian.start();
    let images = world.images("debian").join("c").to_string_lossy().into_owned();
    for _ in 0..2 {
        let told = debian
            .ours("lxc-checkpoint")
            .args(["-D", &images, "--rehearse=auto", "--overwrite"])
            .ok();
        assert!(told.stdout.contains(", rehearsed in "), "{told}");
    }
    debian.ours("lxc-checkpoint").ok();
    debian.ours("lxc-restart").ok();
    debian.lxc("lxc-stop").arg("-k").ok();
}

/// Names, inodes, sizes and times of all that is below a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let (inode, times) =
            (meta.ino(), (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()));
        found.push(format!(
            "{} {inode} {} {:o} {times:?}",
            path.display(),
            meta.size(),
            meta.mode()
        ));
        if meta.is_dir() {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

/// Its root and what it has mounted of the host: deleted files, sockets with a name, files that are
/// open for writing; small ones and one that no memory could hold.
pub fn keeps_the_host_and_its_files_as_they_are(world: &World) {
    let container = world.container();
    let shared = container.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    container.append_config(&format!(
        "lxc.mount.entry = {0} mnt none bind 0 0\nlxc.mount.entry = {0}/note root/note none \
         bind,create=file 0 0\n",
        shared.display()
    ));
    fs::write(shared.join("note"), "as it was").unwrap();
    fs::File::create(shared.join("large")).unwrap().set_len(64 << 30).unwrap();
    let script = "mkfifo /tmp/never; exec 3<>/mnt/large 4<>/root/note 5<>/mnt/small 6<>/tmp/never; \
                  echo > /mnt/ready; read -r x <&6";
    let inittab = container.rootfs().join("etc/inittab");
    let text = fs::read_to_string(&inittab).unwrap();
    let program = container.rootfs().join("bin/holds");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", container.rootfs().join("bin/mkfifo")).unwrap();
    fs::write(&inittab, format!("{text}::once:/bin/holds\n")).unwrap();
    let within = Culprits::put_into(&container);
    container.start();
    let mut witness = container.witness();
    wait_for("files to be open", STEP, || shared.join("ready").exists().then_some(())).unwrap();
    within.make("linked-ghost").unwrap();
    let before = witness.status();
    container.wait_settled();
    // CRIU itself gives deleted files a name for a moment, at the dump.
    assert_good(&container.lxc_cr("check").arg("--rehearse").output(), container.name());

    let told = container.lxc("lxc-freeze").output();
    told.assert_code(0);
    let tmp = container.rootfs().join("tmp");
    let look = || {
        let mut found = files(&shared);
        found.extend(
            files(&container.rootfs())
                .into_iter()
                .filter(|f| !f.starts_with(&*tmp.to_string_lossy())),
        );
        found
    };
    let (files_before, host) = (look(), Snapshot::take());
    let told = container.lxc_cr("check").arg("--rehearse").ok();
    assert!(told.stdout.contains(GOOD), "{told}");
    assert_eq!(look(), files_before);
    host.wait_until_as_before().unwrap();
    container.lxc("lxc-unfreeze").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// A macvlan, and an interface that was moved into the container: the container keeps it.
pub fn interfaces_of_the_host_stay_where_they_are(world: &World) {
    for kind in ["macvlan", "phys"] {
        let container = wired(world, kind, "");
        container.start();
        let mut witness = container.witness();
        let before = witness.status();
        for _ in 0..2 {
            assert_good(&container.lxc_cr("check").arg("--rehearse").output(), container.name());
        }
        let before = witness.assert_goes_on_from(&before);
        container.ours("lxc-checkpoint").arg("--rehearse").ok();
        container.ours("lxc-restart").ok();
        witness.assert_goes_on_from(&before);
        container.kill();
        unwire();
    }
}

/// The command is killed while the twin is made, restored, and ended: the next one finds the
/// container running, and clears away all that is left.
pub fn killed_at_any_step_leaves_nothing(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let (init, host) = (container.init_pid(), Snapshot::take());
    let key = lock::key(world.lxcpath(), container.name());
    let cgroup = |name: &str| cgroups::unified().join(format!("lxc-cr.{key}.{name}"));
    let tasks = || {
        fs::read_to_string(cgroup("twin").join("cgroup.procs")).unwrap_or_default().lines().count()
    };
    let log = container.dir().join("dump.partial/restore.log");
    let logged = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    let steps: [(&str, &dyn Fn() -> bool); 6] = [
        ("the twin's cgroup", &|| cgroup("twin").exists()),
        ("CRIU's cgroup", &|| cgroup("rehearsal").exists()),
        ("its log", &|| logged("Version")),
        ("several tasks", &|| tasks() > 2),
        ("the network", &|| logged("Running network-unlock scripts")),
        ("the end", &|| logged("Running pre-resume scripts")),
    ];
    for (step, reached) in steps {
        let mut command = container.ours("lxc-checkpoint").arg("--rehearse").spawn();
        wait_for(step, STEP, || (reached() || command.try_wait().unwrap().is_some()).then_some(()))
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(command.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        command.wait().unwrap();
        if container.state() != "RUNNING" {
            // It was quicker.
            println!("{step}: missed");
            container.ours("lxc-restart").ok();
            fs::remove_dir_all(container.dir().join("dump")).unwrap();
            continue;
        }
        container.lxc_cr("recover").output().assert_code(0);
        let _ = fs::remove_file(container.dir().join("dump.failed.log"));
        assert!(!cgroup("twin").exists() && !cgroup("rehearsal").exists(), "{step}");
        assert_eq!(container.init_pid(), init, "{step}");
        host.wait_until_as_before().unwrap_or_else(|e| panic!("{step}: {e}"));
        before = witness.assert_goes_on_from(&before);
    }
    container.ours("lxc-checkpoint").arg("--rehearse").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// One with much memory is only rehearsed on demand, and it says so; one with the host's network
/// never.
pub fn says_when_it_is_left_out(world: &World) {
    let container = world.container().memory(300);
    container.start();
    drop(container.witness());
    let told = container.ours("lxc-checkpoint").ok();
    assert!(told.stderr.contains("its restore was not rehearsed: its memory takes 30"), "{told}");
    container.ours("lxc-restart").ok();
    let told = container.ours("lxc-checkpoint").args(["--overwrite", "--no-rehearse"]).ok();
    assert!(!told.stderr.contains("rehearse") && !told.stdout.contains("rehearsed"), "{told}");
    container.ours("lxc-restart").ok();
    let told = container.ours("lxc-checkpoint").args(["--overwrite", "--rehearse"]).ok();
    assert!(told.stdout.contains(", rehearsed in "), "{told}");
    container.ours("lxc-checkpoint").arg("--accept=no-such-state").output().assert_code(2);
}
