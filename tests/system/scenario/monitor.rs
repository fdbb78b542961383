//! A restored container under LXC's own tools, to its end.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::harness::World;
use crate::harness::run::{Run, patient, wait_for};

/// More than this at rest and somebody will ask what it is for, in KiB; of a debug build nobody
/// asks.
const MONITOR_LIMIT: u64 = if cfg!(debug_assertions) { 16 } else { 5 } * 1024;
/// More than this at any moment, of any process of ours.
const PEAK_LIMIT: u64 = if cfg!(debug_assertions) { 64 } else { 20 } * 1024;

/// All of LXC's tools on a restored container.
pub fn all_of_lxcs_tools_work_on_it(world: &World) {
    let container = world.container();
    container.start();
    let started = told(&container);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();

    assert_eq!(told(&container), started);
    let list = Run::new("lxc-ls").arg("-f").arg("-P").arg(world.lxcpath()).ok().stdout;
    let line = list.lines().find(|l| l.starts_with(container.name())).unwrap_or_default();
    assert!(line.contains("RUNNING") && line.contains(&container.address().to_string()), "{list}");
    container.lxc("lxc-wait").args(["-s", "RUNNING", "-t", "5"]).ok();
    container.exec(["/bin/true"]).assert_code(0);
    container.exec(["/bin/false"]).assert_code(1);
    let cgroup = container.exec(["/bin/cat", "/proc/self/cgroup"]).stdout;
    assert!(
        cgroup.lines().any(|l| l.starts_with("0::/.lxc")),
        "attached outside of the cgroup: {cgroup}"
    );
    container.lxc("lxc-freeze").ok();
    assert_eq!(container.state(), "FROZEN");
    container.lxc("lxc-unfreeze").ok();
    assert_eq!(container.state(), "RUNNING");
    let again = container.lxc("lxc-start").output();
    assert!(again.stderr.contains("already running") || again.success(), "{again}");
    assert_eq!(container.state(), "RUNNING");
    container.stop();
    // Nothing is left that would keep it from starting.
    container.start();
    container.kill();
}

/// Asked to stop in each way that there is.
pub fn it_stops_in_every_way(world: &World) {
    let container = world.container();
    container.start();
    for stop in ["halt", "kill", "frozen", "inside"] {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        let waiting = container.lxc("lxc-wait").args(["-s", "STOPPED", "-t", "20"]).spawn();
        match stop {
            "halt" => drop(container.lxc("lxc-stop").args(["-t", "20", "--nokill"]).ok()),
            "kill" => drop(container.lxc("lxc-stop").arg("-k").ok()),
            "frozen" => {
                container.lxc("lxc-freeze").ok();
                container.lxc("lxc-stop").arg("-k").ok();
            }
            _ => drop(container.exec(["/bin/poweroff"])),
        }
        let mut waiting = waiting;
        assert!(waiting.wait().unwrap().success(), "lxc-wait after '{stop}'");
        assert_eq!(container.state(), "STOPPED");
        container.start();
    }
    container.kill();
}

/// It is small and sleeps, and no command of ours has ever been large, however large the container.
pub fn it_is_small_and_idle(world: &World) {
    let container = world.container().memory(256);
    container.start();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let monitor = monitor_of(container.init_pid());
    // The largest of all that we have waited for, which CRIU and LXC's tools are among.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as u64;
    for (who, peak) in [("a command", peak), ("the monitor", status_of(monitor, "VmHWM"))] {
        assert!(peak < PEAK_LIMIT, "{who} had {peak} KiB");
    }
    let (rss, ticks) = (status_of(monitor, "VmRSS"), ticks(monitor));
    assert!(rss < MONITOR_LIMIT, "the monitor has {rss} KiB");
    // Long enough for the witness to count far: the monitor has nothing to do meanwhile.
    let mut witness = container.witness();
    let first = witness.status().number("elapsed_ms");
    wait_for("two seconds of the witness", Duration::from_secs(10), || {
        (witness.status().number("elapsed_ms") > first + 2000).then_some(())
    })
    .unwrap();
    assert_eq!(self::ticks(monitor), ticks, "an idle monitor uses the processor");
    container.kill();
}

/// A monitor that is killed takes its container along; the next command clears away what it held.
pub fn what_a_killed_monitor_held_is_cleared_away(world: &World) {
    let container = world.container();
    container.start();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let monitor = monitor_of(container.init_pid());
    let veth = container.veth();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(monitor as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    container.wait_state("STOPPED");

    container.ours("lxc-restart").ok();
    container.exec(["/bin/true"]).assert_code(0);
    // The name was free again, for the old pair is gone.
    assert_eq!(container.veth(), veth);
    container.kill();
}

/// What lxc-info and lxc-ls say, but for pids and counts.
fn told(container: &crate::harness::container::Container) -> Vec<String> {
    let info = container.lxc("lxc-info").ok().stdout;
    let counted = |l: &&str| {
        !["PID", "CPU use", "BlkIO use", "Memory use", "KMem use"].iter().any(|c| l.starts_with(c))
    };
    info.lines().filter(counted).filter(|l| !l.contains("bytes")).map(str::to_owned).collect()
}

pub fn monitor_of(init: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A figure in KiB of `/proc/PID/status`.
fn status_of(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Somebody has stopped LXC's monitor: it goes on, and holds up no checkpoint.
pub fn a_stopped_monitor_of_lxcs_is_continued(world: &World) {
    let container = world.container();
    container.start();
    let monitor = nix::unistd::Pid::from_raw(monitor_of(container.init_pid()) as i32);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let told = container.ours("lxc-checkpoint").ok();
    assert!(told.stderr.contains("LXC's monitor was stopped"), "{told}");
    // It is asked once in vain.
    assert!(told.took < patient(Duration::from_secs(9)), "{told}");
    container.wait_state("STOPPED");
    container.ours("lxc-restart").ok();
    container.kill();
}
