//! What a command inherits of its caller reaches neither the container nor its monitor.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::Run;

/// Lines of /proc/PID/status that a caller decides on, where nobody resets them.
const STATUS: &[&str] = &[
    "Umask",
    "NoNewPrivs",
    "Seccomp",
    "CapBnd",
    "Cpus_allowed",
    "SigIgn",
    "SigBlk",
    "THP_enabled",
];
/// Files of /proc/PID that the caller decides on likewise.
const FILES: &[&str] =
    &["limits", "oom_score_adj", "coredump_filter", "personality", "timerslack_ns", "environ"];
/// Fields of /proc/PID/stat, by their numbers in proc(5).
const STAT: &[(usize, &str)] =
    &[(7, "terminal"), (18, "priority"), (19, "nice"), (40, "real-time"), (41, "policy")];

/// All that a process may have inherited.
type State = BTreeMap<String, String>;

fn state_of(pid: u32) -> State {
    let proc = Path::new("/proc").join(pid.to_string());
    let read =
        |file: &str| fs::read(proc.join(file)).map(|b| String::from_utf8_lossy(&b).into_owned());
    let mut state = State::new();
    for file in FILES {
        state.insert((*file).to_owned(), read(file).unwrap_or_default());
    }
    let status = read("status").unwrap();
    for line in status.lines() {
        let (name, value) = line.split_once(':').unwrap();
        if STATUS.contains(&name) {
            state.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    let stat = read("stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    for (number, name) in STAT {
        state.insert((*name).to_owned(), fields[number - 3].to_owned());
    }
    state.insert(
        "directory".to_owned(),
        fs::read_link(proc.join("cwd")).unwrap().display().to_string(),
    );
    state.insert(
        "I/O priority".to_owned(),
        Run::new("ionice").args(["-p", &pid.to_string()]).ok().stdout,
    );
    let open = fs::read_dir(proc.join("fd")).unwrap().flatten().map(|entry| {
        let what = fs::read_link(entry.path()).unwrap().display().to_string();
        // Sockets and pipes are others each time.
        what.split([':', '[']).next().unwrap().to_owned()
    });
    let mut open: Vec<_> = open.collect();
    open.sort();
    state.insert("open".to_owned(), open.join(" "));
    state
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The container's and its monitor's.
fn states(container: &Container<'_>) -> [State; 2] {
    let init = container.init_pid();
    [state_of(init), state_of(parent_of(init))]
}

/// A command under all that a shell, a script or a unit may have put around it.
fn wrapped(run: &Run, lock: &Path) -> Run {
    let script = format!(
        "trap '' CHLD PIPE USR1 TERM; umask 077; ulimit -S -n 300; ulimit -S -c 0; ulimit -S -s 2048; ulimit -S -v 8000000
        exec 7</etc/passwd 8>{lock}.other; cd /srv
        echo 0x7 > /proc/self/coredump_filter
        exec nice -n 7 ionice -c 3 taskset -c 0 choom -n 500 -- setarch -R \"$@\"",
        lock = lock.display()
    );
    Run::new("flock")
        .arg(lock)
        .args(["sh", "-c", &script, "sh"])
        .args(run.words())
        .env("TMPDIR", "/nonexistent")
}

/// The same after a plain restart and after one from the oddest of shells; and the lock of `flock`
/// is free again.
pub fn nothing_of_the_caller_is_inherited(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let plain = states(&container);
    let before = witness.assert_goes_on_from(&before);

    let lock = world.images("d").join("lock");
    wrapped(&container.ours("lxc-checkpoint"), &lock).ok();
    wrapped(&container.ours("lxc-restart"), &lock).ok();
    let [init, monitor] = states(&container);
    // busybox's init blocks signals from time to time.
    for (name, value) in plain[0].iter().filter(|(name, _)| *name != "SigBlk") {
        assert_eq!(&init[name], value, "{name} of init");
    }
    for (name, value) in &plain[1] {
        assert_eq!(&monitor[name], value, "{name} of the monitor");
    }
    for name in [lock.clone(), format!("{}.other", lock.display()).into()] {
        Run::new("flock").arg("-n").arg(name).arg("true").ok();
    }
    assert_eq!(container.exec(["/bin/pwd"]).code(), 0);
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// What the container could never get rid of is refused while it is still suspended.
pub fn a_restriction_for_good_is_refused(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    // It does no harm to a checkpoint.
    Run::new("setpriv").arg("--no-new-privs").args(container.ours("lxc-checkpoint").words()).ok();
    for (option, word) in
        [("--no-new-privs", "no_new_privs"), ("--bounding-set=-sys_ptrace", "capabilities")]
    {
        let told =
            Run::new("setpriv").arg(option).args(container.ours("lxc-restart").words()).output();
        told.assert_code(4);
        assert!(
            told.stderr.contains(word) && told.stderr.contains("hint: run it from a root shell"),
            "{told}"
        );
        assert_eq!(container.state(), "STOPPED");
    }
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}
