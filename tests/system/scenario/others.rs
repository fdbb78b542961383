//! What else happens to a checkpoint: other programs at work, users who change their minds,
//! commands that die.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

use lxc_cr::api::rollback::lock::{self, STATE_ROOT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::container::Container;
use crate::harness::enter::{BRIDGE, PROGRAMS};
use crate::harness::run::{Output, Run, ends_within, wait_for};
use crate::harness::witness::Witness;
use crate::harness::{World, bare, cgroups};

/// For a command to get somewhere, or to be gone.
const LIMIT: Duration = Duration::from_secs(20);
/// The action script as CRIU is given it by others.
const ACTION: &str = "/opt/lxc-cr/lxc-cr-action";

/// LXC's monitor was killed and its container lives on: it is found in /proc, and has a monitor
/// after the restart.
pub fn a_container_whose_monitor_is_gone_is_found(world: &World) {
    let container = world.container();
    let mut witness = start_and_kill_the_monitor(&container);
    let init = init_by_hand(&container);
    let before = witness.status();

    container.ours("lxc-checkpoint").ok();
    assert!(!Path::new(&format!("/proc/{init}")).exists());
    witness.send("said to a stopped container");
    container.ours("lxc-restart").ok();
    assert_eq!(witness.receive(), "said to a stopped container");
    witness.assert_goes_on_from(&before);
    assert_eq!(container.state(), "RUNNING");
    container.stop();
    // The killed monitor's, and what it would have removed; no command of LXC removes them either.
    for kind in ["monitor", "payload"] {
        cgroups::remove_all(&format!("lxc.{kind}.{}", container.name()));
    }
}

/// Nobody but us is there to remove the payload cgroup of a container that we stop and that has no
/// monitor.
pub fn a_container_whose_monitor_is_gone_leaves_no_cgroup(world: &World) {
    let container = world.container();
    start_and_kill_the_monitor(&container);
    cgroups::remove_all(&format!("lxc.monitor.{}", container.name()));
    container.ours("lxc-checkpoint").ok();
    let payload = format!("lxc.payload.{}", container.name());
    assert!(cgroups::roots().iter().all(|root| !root.join(&payload).exists()));
    container.ours("lxc-restart").ok();
    container.kill();
}

/// A container whose monitor is gone; its cgroup is left.
pub fn start_and_kill_the_monitor(container: &Container) -> Witness {
    // Else the kernel kills init with its monitor.
    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}lxc.monitor.signal.pdeath = 0\n")).unwrap();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let init = container.init_pid();
    let monitor = parent_of(init);
    kill(pid(monitor), Signal::SIGKILL).unwrap();
    wait_for("the monitor to be gone", LIMIT, || (parent_of(init) != monitor).then_some(()))
        .unwrap();
    assert_eq!(container.state(), "STOPPED", "LXC does not see it any more");
    witness.assert_goes_on_from(&before);
    witness
}

/// The first process of the payload cgroup: LXC cannot be asked.
pub fn init_by_hand(container: &Container) -> u32 {
    let file = cgroups::unified().join(format!("lxc.payload.{}/cgroup.procs", container.name()));
    fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| line.parse::<u32>().unwrap())
        .min()
        .unwrap()
}

/// `criu --action-script`, without any command of ours.
pub fn bare_criu_with_our_action_script_keeps_the_network(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let veth = container.veth();
    let cost = format!("/sys/class/net/{veth}/brport/path_cost");
    fs::write(&cost, "77").unwrap();
    let before = witness.status();

    let images = world.images("left-running");
    bare::dump_leaving_running(&container, &images, bare::WITH_OUR_SCRIPT);
    assert_eq!(bridge_of(&veth).as_deref(), Some(BRIDGE));
    assert_eq!(fs::read_to_string(&cost).unwrap().trim(), "77");
    let noted = fs::read_to_string(images.join("lxc-cr-ports.toml")).unwrap();
    assert!(noted.contains(&format!("\"{veth}\"")) && noted.contains("\"br0\""), "{noted}");
    let before = witness.assert_goes_on_from(&before);

    let dumped = bare::dump_with(&container, &world.images("bare"), bare::WITH_OUR_SCRIPT);
    container.wait_state("STOPPED");
    witness.send("said to a stopped container");
    let _restored = bare::restore_with_our_script(&dumped);
    assert_eq!(bridge_of(&dumped.veth).as_deref(), Some(BRIDGE));
    let cost = format!("/sys/class/net/{}/brport/path_cost", dumped.veth);
    assert_eq!(fs::read_to_string(&cost).unwrap().trim(), "77");
    assert_eq!(witness.receive(), "said to a stopped container");
    witness.assert_goes_on_from(&before);
}

/// LXC's own `lxc-checkpoint -A`, then our `lxc-restart` of what it made, which has no record of
/// ours.
pub fn lxcs_own_checkpoint_with_our_action_script(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let dir = world.images("stock");
    let images = dir.join("c");
    let told = container.stock_checkpoint([
        Path::new("-s"),
        Path::new("-D"),
        &images,
        "-A".as_ref(),
        ACTION.as_ref(),
    ]);
    assert!(told.success(), "{told}");
    container.wait_state("STOPPED");
    assert!(images.join("lxc-cr-ports.toml").exists());
    assert!(!images.join("lxc-cr.toml").exists());
    witness.send("said to a stopped container");

    container.ours("lxc-restart").arg("-D").arg(&images).ok();
    assert_eq!(witness.receive(), "said to a stopped container");
    witness.assert_goes_on_from(&before);
    assert_eq!(container.state(), "RUNNING");
    container.stop();
}

/// A restored container that reboots is started again, as after LXC's own start.
pub fn a_reboot_inside_starts_it_afresh(world: &World) {
    let container = world.container();
    container.start();
    let lxcs = program_of(parent_of(container.init_pid()));
    let first = container.witness().status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let init = container.init_pid();
    assert_ne!(program_of(parent_of(init)), lxcs);
    let later = container.witness().assert_goes_on_from(&first);

    container.exec(["/bin/reboot"]);
    let asked = || container.lxc("lxc-info").args(["-p", "-H"]).output().stdout.trim().parse().ok();
    let new = wait_for("a new init", LIMIT, || asked().filter(|now: &u32| *now != init)).unwrap();
    container.wait_state("RUNNING");
    assert_eq!(program_of(parent_of(new)), lxcs, "LXC's own monitor has it");
    let now = container.witness().status();
    now.assert_sound();
    assert!(now.number("counter") < later.number("counter"), "it goes on: {later:?} {now:?}");
    assert_eq!(bridge_of(&container.veth()).as_deref(), Some(BRIDGE));
    // And it is one like any other.
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    container.kill();
}

/// It starts by the configuration that it was restarted with, and a hook that fails at its end does
/// not keep it down.
pub fn a_reboot_inside_goes_by_the_same_configuration(world: &World) {
    let container = world.container();
    container.start();
    let _started = container.witness();
    let own = fs::read_to_string(container.dir().join("config")).unwrap();
    let other = container.dir().join("other.conf");
    fs::write(&other, format!("{own}lxc.uts.name = other\nlxc.hook.stop = /bin/false\n")).unwrap();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").arg("--rcfile").arg(&other).ok();
    let init = container.init_pid();
    assert_ne!(container.exec(["/bin/hostname"]).stdout, "other\n");

    container.exec(["/bin/reboot"]);
    let asked = || container.lxc("lxc-info").args(["-p", "-H"]).output().stdout.trim().parse().ok();
    wait_for("a new init", LIMIT, || asked().filter(|now: &u32| *now != init)).unwrap();
    container.wait_state("RUNNING");
    let _again = container.witness();
    assert_eq!(container.exec(["/bin/hostname"]).stdout, "other\n");
    container.kill();
}

/// What LXC's monitor starts after a reboot hears signals as before: `lxc-stop` asks it to halt by
/// one.
pub fn an_init_started_afresh_hears_signals(world: &World) {
    let container = world.container();
    container.start();
    let init = container.init_pid();
    wait_to_hear_signals(init);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let init = container.init_pid();
    container.exec(["/bin/reboot"]);
    let asked = || container.lxc("lxc-info").args(["-p", "-H"]).output().stdout.trim().parse().ok();
    let new = wait_for("a new init", LIMIT, || asked().filter(|now: &u32| *now != init)).unwrap();
    wait_to_hear_signals(new);
    container.stop();
}

/// busybox's init blocks its signals, but for the time in which it waits for them (`sigtimedwait`):
/// when it is at rest.
fn wait_to_hear_signals(init: u32) {
    let status = || fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let blocks_none = || status().lines().any(|l| l == "SigBlk:\t0000000000000000").then_some(());
    wait_for("an init that hears signals", LIMIT, blocks_none)
        .unwrap_or_else(|e| panic!("{e}: {}", status()));
}

/// `--dry-run` of both commands.
pub fn dry_run_prints_and_changes_nothing(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let (init, veth) = (container.init_pid(), container.veth());
    let files = names(&container.dir());

    let told = container.ours("lxc-checkpoint").arg("--dry-run").ok();
    let dump = container.dir().join("dump");
    let wanted = [
        format!("container {} (init {init}, init)", container.name()),
        format!("{veth} (eth0) leaves br0 while the container is frozen"),
        "the container is stopped when they are complete".to_owned(),
        format!("{} ", criu()),
        format!(" --tree {init} "),
        dump.display().to_string(),
    ];
    for part in &wanted {
        assert!(told.stdout.contains(part), "'{part}' is missing: {told}");
    }
    assert_eq!(told.stderr, "");
    assert_eq!((container.init_pid(), container.veth()), (init, veth.clone()));
    assert_eq!(names(&container.dir()), files);
    assert_eq!(bridge_of(&veth).as_deref(), Some(BRIDGE));
    let before = witness.assert_goes_on_from(&before);

    container.ours("lxc-checkpoint").ok();
    let (files, images, links) =
        (names(&container.dir()), names(&dump), names(Path::new("/sys/class/net")));
    let told = container.ours("lxc-restart").arg("--dry-run").ok();
    for part in [
        format!("{veth} is made for eth0 and joins br0 at the end"),
        format!("{} restore ", criu()),
    ] {
        assert!(told.stdout.contains(&part), "'{part}' is missing: {told}");
    }
    assert_eq!(told.stderr, "");
    assert_eq!(container.state(), "STOPPED");
    assert_eq!((names(&container.dir()), names(&dump)), (files, images));
    assert_eq!(names(Path::new("/sys/class/net")), links);
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// `-v` passes CRIU's log on while it grows, to its last line.
pub fn verbose_shows_crius_log(world: &World) {
    let container = world.container();
    container.start();
    for flag in ["-v", "--verbose"] {
        let images = world.images("verbose").join(flag);
        let told = container.ours("lxc-checkpoint").args([flag, "-D"]).arg(&images).ok();
        assert_log(&told, &images.join("dump.log"), "Dumping finished successfully");
        let told = container.ours("lxc-restart").args([flag, "--replace", "-D"]).arg(&images).ok();
        assert_log(&told, &images.join("restore.log"), "Restore finished successfully");
    }
    container.kill();
}

/// The same where the checkpoint gets its name while CRIU still writes its log, and where it
/// replaces another.
pub fn verbose_shows_crius_log_of_a_suspended_container(world: &World) {
    let container = world.container();
    container.start();
    for _ in 0..2 {
        let told = container.ours("lxc-checkpoint").arg("-v").ok();
        assert_log(&told, &container.dir().join("dump/dump.log"), "Dumping finished successfully");
        container.ours("lxc-restart").ok();
    }
    container.kill();
}

/// Standard error is the log, from the first line to the last; standard output has none of it.
fn assert_log(told: &Output, log: &Path, last: &str) {
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains(last), "{log}");
    let missing = log.lines().find(|line| !told.stderr.contains(line));
    assert_eq!(missing, None, "a line of the log: {told}");
    assert!(!told.stdout.contains(last), "{told}");
}

/// `-q` leaves nothing but errors, and those it leaves.
pub fn quiet_says_nothing(world: &World) {
    let container = world.container();
    container.start();
    for program in ["lxc-checkpoint", "lxc-restart"] {
        let told = container.ours(program).arg("-q").ok();
        assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("", ""), "{told}");
    }
    for program in ["lxc-checkpoint", "lxc-restart"] {
        let told = container.ours(program).ok();
        assert!(told.stdout.starts_with(&format!("{}: ", container.name())), "{told}");
    }
    let told = container.ours("lxc-restart").arg("-q").output();
    told.assert_code(3);
    assert!(told.stderr.contains("it is running"), "{told}");
    container.kill();
}

/// Ctrl-C while CRIU is at work: all is undone.
pub fn the_users_interrupt_leaves_it_running(world: &World) {
    given_up(world, &[], 1, &["interrupted by signal 2", "running as before"], |command| {
        kill(pid(command.id()), Signal::SIGINT).unwrap();
    });
}

/// `--timeout`: all is undone.
pub fn a_time_limit_leaves_it_running(world: &World) {
    given_up(world, &["--timeout", "1"], 7, &["time limit", "running as before"], |_| {
        // The limit is what is waited for: the gate is opened when it has passed.
        thread::sleep(Duration::from_millis(1100));
    });
}

/// A user's action script that never ends does not hold the container longer than the limit and a
/// moment.
pub fn a_script_that_never_ends_is_ended(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    // It may have become another program. What it takes back it takes back, even if that takes
    // longer.
    for (action, never) in [("network-lock", "sleep 600"), ("post-dump", "exec sleep 600")] {
        let (script, done) =
            (world.images(action).join("script.sh"), world.images(action).join("taken-back"));
        let back = format!(
            "[ \"$CRTOOLS_SCRIPT_ACTION\" != network-unlock ] || {{ sleep 4; echo > {}; }}",
            done.display()
        );
        let text = format!(
            "#!/bin/sh\nif [ \"$CRTOOLS_SCRIPT_ACTION\" = {action} ]; then {never}; fi\n{back}\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let told = container
            .ours("lxc-checkpoint")
            .args(["--timeout", "1", "-A"])
            .arg(&script)
            .limit(LIMIT)
            .output();
        told.assert_code(7);
        assert!(told.stderr.contains("running as before"), "{action}: {told}");
        before = witness.assert_goes_on_from(&before);
        assert!(done.exists(), "{action}: the script was ended at network-unlock: {told}");
    }
    container.kill();
}

/// Where the container has died and its images are complete, the command that is told brings it
/// back.
pub fn one_that_dies_in_the_middle_may_come_back(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let script = world.images("deadly").join("script.sh");
    let text = "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" != post-dump ] || \
                { kill -9 \"$CRTOOLS_INIT_PID\"; sleep 4; }\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let told = container.ours("lxc-checkpoint").arg("-A").arg(&script).output();
    told.assert_code(6);
    assert!(told.stderr.contains("has ended; what was written is in"), "{told}");
    let command = told
        .stderr
        .lines()
        .find_map(|line| line.split_once("it may come back from there: "))
        .unwrap()
        .1;
    assert_eq!(container.state(), "STOPPED");
    Run::new("sh").args(["-c", &format!("PATH={PROGRAMS}:$PATH; {command}")]).ok();
    witness.assert_goes_on_from(&before);
    container.kill();
    fs::remove_dir_all(container.dir().join("dump.partial")).unwrap();
}

/// Something happens while CRIU waits in the user's action script, first before, then after the
/// network is locked.
fn given_up(
    world: &World,
    more: &[&str],
    code: i32,
    words: &[&str],
    mut happens: impl FnMut(&Child),
) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let (init, veth) = (container.init_pid(), container.veth());
    let files = names(&container.dir());
    for action in ["pre-dump", "post-dump"] {
        let gate = Gate::at(world, action);
        let said = world.images(action).join("said");
        let mut command =
            saying(container.ours("lxc-checkpoint").args(more).arg("-A").arg(&gate.script), &said);
        let open = gate.wait_reached();
        happens(&command);
        Gate::release(open);
        assert!(ends_within(&command, LIMIT), "{action}: it goes on");
        let (status, said) = (command.wait().unwrap(), fs::read_to_string(&said).unwrap());
        assert_eq!(status.code(), Some(code), "{action}: {said}");
        for word in words {
            assert!(said.contains(word), "{action}: '{word}' is missing: {said}");
        }

        assert_eq!(
            (container.state().as_str(), container.init_pid()),
            ("RUNNING", init),
            "{action}"
        );
        before = witness.assert_goes_on_from(&before);
        assert_eq!(bridge_of(&veth).as_deref(), Some(BRIDGE), "{action}");
        let mut now = names(&container.dir());
        now.retain(|name| name != "dump.failed.log");
        assert_eq!(now, files, "{action}");
    }
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// `lxc-checkpoint` is killed while its CRIU waits in the user's action script: CRIU finds nobody
/// who would complete the checkpoint, and the container is still running. The next command undoes
/// the rest.
pub fn killed_in_the_middle(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let (init, veth) = (container.init_pid(), container.veth());
    fs::write(format!("/sys/class/net/{veth}/brport/path_cost"), "77").unwrap();
    for action in ["network-lock", "post-dump"] {
        let gate = Gate::at(world, action);
        let mut command = container.ours("lxc-checkpoint").arg("-A").arg(&gate.script).spawn();
        let open = gate.wait_reached();
        assert_eq!(bridge_of(&veth).is_some(), action == "network-lock", "{action}");
        kill(pid(command.id()), Signal::SIGKILL).unwrap();
        command.wait().unwrap();
        Gate::release(open);

        wait_for("criu to be gone", LIMIT, || (!runs("criu")).then_some(())).unwrap();
        assert_eq!(
            (container.state().as_str(), container.init_pid()),
            ("RUNNING", init),
            "{action}"
        );
        assert_eq!(bridge_of(&veth).as_deref(), Some(BRIDGE), "{action}");
        let cost = fs::read_to_string(format!("/sys/class/net/{veth}/brport/path_cost")).unwrap();
        assert_eq!(cost.trim(), "77", "{action}");
        before = witness.assert_goes_on_from(&before);
        assert!(!container.dir().join("dump").exists(), "{action}: no checkpoint was completed");

        let told =
            container.ours("lxc-checkpoint").arg("-D").arg(world.images(action).join("c")).ok();
        assert!(told.stderr.contains("was interrupted"), "{action}: {told}");
        assert!(
            !container.dir().join("dump.partial").exists(),
            "{action}: what the killed one left is gone"
        );
        before = witness.assert_goes_on_from(&before);
    }
    let told = container.ours("lxc-checkpoint").ok();
    assert!(!told.stderr.contains("was interrupted"), "{told}");
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// The half of `lxc-restart` that becomes the monitor is killed while CRIU is shown an image that
/// was changed for it: what it was shown was in memory, and is gone with it.
pub fn an_image_that_was_shown_is_recovered(world: &World) {
    let container = world.container();
    container.start();
    let _connected = container.witness();
    container.ours("lxc-checkpoint").ok();
    let gate = Gate::at(world, "post-restore");
    // The connection is closed by an image that says so.
    let mut command =
        container.ours("lxc-restart").args(["--tcp-close", "-A"]).arg(&gate.script).spawn();
    let open = gate.wait_reached();
    let processes = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|p| p.file_name().to_str()?.parse().ok());
    let criu = processes.into_iter().find(|pid| name_of(*pid).as_deref() == Some("criu")).unwrap();
    kill(pid(parent_of(criu)), Signal::SIGKILL).unwrap();
    Gate::release(open);
    assert!(!command.wait().unwrap().success());
    wait_for("criu to be gone", LIMIT, || (!runs("criu")).then_some(())).unwrap();
    container.lxc_cr("recover").ok();
    let state = Path::new(STATE_ROOT).join(lock::key(world.lxcpath(), container.name()));
    let left = names(&state).into_iter().filter(|name| name.contains(".img")).collect::<Vec<_>>();
    assert_eq!(left, Vec::<String>::new());
}

/// A user's action script that waits at one action.
struct Gate {
    script: PathBuf,
    fifo: PathBuf,
}

impl Gate {
    fn at(world: &World, action: &str) -> Gate {
        let dir = world.images(action);
        let (script, fifo) = (dir.join("wait.sh"), dir.join("gate"));
        Run::new("mkfifo").arg(&fifo).ok();
        let text = format!(
            "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = {action} ] && read line < {}\nexit 0\n",
            fifo.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Gate { script, fifo }
    }

    /// Waits until the script waits.
    fn wait_reached(&self) -> File {
        // Without a reader a FIFO that is opened like this is an error.
        let open = || {
            File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.fifo).ok()
        };
        wait_for("the action script to come to the gate", LIMIT, open).unwrap()
    }

    fn release(mut open: File) {
        open.write_all(b"go\n").unwrap();
    }
}

/// Starts a command that writes both its streams to a file; the child is the command itself.
fn saying(run: Run, file: &Path) -> Child {
    let script = format!("exec \"$@\" >{} 2>&1", file.display());
    Run::new("sh").args(["-c", &script, "sh"]).args(run.words()).spawn()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

fn parent_of(process: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn program_of(process: u32) -> PathBuf {
    fs::read_link(format!("/proc/{process}/exe")).unwrap()
}

fn name_of(process: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{process}/comm")).ok()?.trim().to_owned())
}

/// Whether a process of this name runs.
fn runs(name: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut names = processes.filter_map(|p| fs::read_to_string(p.path().join("comm")).ok());
    names.any(|comm| comm.trim() == name)
}

/// Where CRIU is, as our commands find it.
fn criu() -> String {
    Run::new("sh").args(["-c", "command -v criu"]).ok().stdout.trim().to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn bridge_of(link: &str) -> Option<String> {
    let path = fs::read_link(format!("/sys/class/net/{link}/master")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// A reader that goes (`| head -1`), a terminal that has gone: what is said then is lost, and
/// nothing else.
pub fn who_does_not_listen_any_more(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    let images = world.images("unheard");
    for command in [
        container.ours("lxc-checkpoint").args(["-v", "-D"]).arg(images.join("running")),
        container.ours("lxc-checkpoint").args(["-v", "-s", "-D"]).arg(images.join("stopped")),
        container.ours("lxc-restart").args(["-v", "-D"]).arg(images.join("stopped")),
    ] {
        let status = command.spawn_unheard().wait().unwrap();
        assert!(status.success(), "{status}");
        if container.state() == "RUNNING" {
            before = witness.assert_goes_on_from(&before);
        }
    }
    container.kill();
}
