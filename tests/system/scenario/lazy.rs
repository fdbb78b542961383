//! Lazy restore: the container runs at once, and its memory follows. A page that is missing is
//! waited for, or the container ends: it never reads anything else.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::pattern::{
    PORT, Pattern, gone, hinder, keeper_of, largest_image, pid_of, wait_until_filled, with_pattern,
};
use crate::harness::run::{Output, Run, wait_for};

const SETTINGS: &str = "/etc/lxc/lxc-cr.toml";

/// The witness's memory is all there, however soon it is asked for, and after that a container like
/// any other runs.
pub fn memory_follows_the_container(world: &World) {
    let container = world.container().memory(128);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").arg("--lazy").ok();
    assert_was_lazy(&container);
    // Its answer takes every byte of its memory.
    let before = witness.assert_goes_on_from(&before);
    wait_until_filled(&container);
    let before = witness.assert_goes_on_from(&before);
    // Once more, of what has come lazily.
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").arg("--lazy").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Forks, moves, protections, and memory that is given up, while the pager is stopped and continued
/// all the time.
pub fn what_programs_do_to_memory_is_followed(world: &World) {
    let container = with_pattern(world, 192);
    container.ours("lxc-checkpoint").ok();
    for seed in 1..=3u64 {
        let pidfile = world.images("pid").join("monitor");
        container.ours("lxc-restart").arg("--lazy").arg("--pidfile").arg(&pidfile).ok();
        let monitor = pid_of(&pidfile);
        let done = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            scope.spawn(|| hinder(monitor, &done));
            let mut pattern = Pattern::connect(&container);
            let told = pattern.ask(&format!("churn {seed}"));
            done.store(true, Ordering::Release);
            assert!(anonymous_memory(monitor) < 32 << 20);
            told + "; " + &pattern.ask("check")
        });
        assert!(told.starts_with("good") && told.contains("; good"), "seed {seed}: {told}");
        println!("seed {seed}: {told}");
        wait_until_filled(&container);
        let told = Pattern::connect(&container).ask("check");
        assert!(told.starts_with("good"), "seed {seed}, all in: {told}");
        container.kill();
    }
}

/// The monitor is killed in the middle: the container ends, and has read nothing wrong before.
pub fn a_killed_pager_ends_the_container(world: &World) {
    let container = with_pattern(world, 256);
    container.ours("lxc-checkpoint").ok();
    for after in [0, 10, 60] {
        let pidfile = world.images("pid").join("monitor");
        container.ours("lxc-restart").arg("--lazy").arg("--pidfile").arg(&pidfile).ok();
        let monitor = pid_of(&pidfile);
        let keeper = keeper_of(monitor);
        let init = container.init_pid();
        let mut pattern = Pattern::connect(&container);
        pattern.send("churn 7");
        std::thread::sleep(Duration::from_millis(after));
        // So that it does not end meanwhile.
        kill(monitor, Signal::SIGSTOP).unwrap();
        let is_filling = container.lxc_cr("list").ok().stdout.contains("filling");
        kill(monitor, Signal::SIGKILL).unwrap();
        let told = pattern.hear();
        assert!(told.as_deref().is_none_or(|told| told.starts_with("good")), "{told:?}");
        assert!(is_filling, "all was in before the monitor was killed");
        gone(&format!("/proc/{init}"));
        gone(&format!("/proc/{keeper}"));
        // Nothing else is left to do for whoever comes next, and the checkpoint is as it was.
        container.lxc_cr("recover").ok();
        assert_eq!(container.state(), "STOPPED");
    }
    container.ours("lxc-restart").ok();
    assert!(Pattern::connect(&container).ask("check").starts_with("good"));
    container.kill();
}

/// The process that would end it is killed: another one takes its place.
pub fn a_killed_keeper_is_replaced(world: &World) {
    let container = with_pattern(world, 256);
    container.ours("lxc-checkpoint").ok();
    let pidfile = world.images("pid").join("monitor");
    container.ours("lxc-restart").arg("--lazy").arg("--pidfile").arg(&pidfile).ok();
    let monitor = pid_of(&pidfile);
    let first = keeper_of(monitor);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    gone(&format!("/proc/{first}"));
    assert!(Pattern::connect(&container).ask("churn 3").starts_with("good"));
    wait_until_filled(&container);
    assert!(Pattern::connect(&container).ask("check").starts_with("good"));
    container.kill();
}

/// A block that is not what it was is not given: the container ends, and the log says why.
pub fn a_damaged_block_ends_the_container(world: &World) {
    let container = with_pattern(world, 128);
    container.ours("lxc-checkpoint").ok();
    let pages = largest_image(&container.dir().join("dump"));
    let file = fs::OpenOptions::new().read(true).write(true).open(&pages).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let log = world.images("log").join("monitor.log");
    let restarted =
        container.ours("lxc-restart").arg("--lazy").args(["-l", "INFO", "-o"]).arg(&log).output();
    if restarted.success() {
        let told = Pattern::try_connect(&container).and_then(|mut pattern| {
            pattern.send("check");
            pattern.hear()
        });
        assert_eq!(told, None, "it has read all of its memory");
        container.wait_state("STOPPED");
        let name = pages.file_name().unwrap().to_str().unwrap();
        // The monitor says so when it has cleaned up.
        let reported = || {
            let text = fs::read_to_string(&log).unwrap();
            (text.contains("its memory could not be completed") && text.contains(name))
                .then_some(())
        };
        wait_for("the reason in the monitor's log", Duration::from_secs(10), reported).unwrap();
    } else {
        restarted.assert_code(9);
    }
    assert_eq!(container.state(), "STOPPED");
    container.ours("lxc-restart").output().assert_code(9);
    // What CRIU reads itself is verified before it runs.
    file.write_all_at(&byte, at).unwrap();
    container.ours("lxc-restart").arg("--lazy").ok();
    assert!(Pattern::connect(&container).ask("check").starts_with("good"));
    container.kill();
}

/// While its memory is not all there, it is not dumped, and its images are not removed.
pub fn what_needs_all_of_its_memory_waits(world: &World) {
    let container = with_pattern(world, 512);
    container.ours("lxc-checkpoint").ok();
    let elapsed = |arguments: &[&str]| {
        let begin = Instant::now();
        container.ours("lxc-restart").args(arguments).ok();
        let connection = TcpStream::connect((container.address(), PORT)).unwrap();
        drop(connection);
        let mut witness = container.witness();
        witness.echo("hello");
        begin.elapsed()
    };
    let eager = elapsed(&[]);
    container.kill();
    let lazy = elapsed(&["--lazy"]);
    let busy = |told: Output, what: &str| {
        told.assert_code(10);
        assert!(told.stderr.contains("still being filled"), "{what}: {told}");
    };
    busy(
        container
            .ours("lxc-checkpoint")
            .args(["-s", "-D"])
            .arg(world.images("second").join("c"))
            .output(),
        "dump",
    );
    busy(Run::ours("lxc-cr").arg("remove").arg(container.dir().join("dump")).output(), "remove");
    assert!(container.lxc_cr("list").ok().stdout.contains(" %"));
    wait_until_filled(&container);
    println!("first answer, lazy: {} ms, eager: {} ms", lazy.as_millis(), eager.as_millis());
    assert!(lazy < eager, "lazy: {lazy:?}, eager: {eager:?}");
    container.ours("lxc-checkpoint").args(["-s", "-D"]).arg(world.images("second").join("c")).ok();
    container.ours("lxc-restart").arg("-D").arg(world.images("second").join("c")).ok();
    assert!(Pattern::connect(&container).ask("check").starts_with("good"));
    container.kill();
}

/// Servers that have forked share their memory until one of them writes. Restored lazily, each gets
/// its own; `auto` leaves that.
pub fn what_forked_servers_share_is_not_multiplied(world: &World) {
    const MEBIBYTES: usize = 96;
    const CHILDREN: u64 = 3;
    let container = with_pattern(world, MEBIBYTES);
    assert!(Pattern::connect(&container).ask(&format!("serve {CHILDREN}")).starts_with("good"));
    let before = held_by_programs();
    container.ours("lxc-checkpoint").ok();
    let restarted = |arguments: &[&str]| {
        container.ours("lxc-restart").args(arguments).ok();
        assert!(Pattern::connect(&container).ask("check").starts_with("good"));
        wait_until_filled(&container);
        let held = held_by_programs();
        container.kill();
        held
    };
    let eager = restarted(&["--force"]);
    let lazy = restarted(&["--force", "--lazy"]);
    fs::write(SETTINGS, "lazy = \"auto\"\n").unwrap();
    let auto = restarted(&["--force"]);
    fs::remove_file(SETTINGS).unwrap();
    println!(
        "{MEBIBYTES} MiB shared with {CHILDREN} children: {before} MiB; restored eagerly {eager}, \
         lazily {lazy}, with lazy = \"auto\" {auto}"
    );
    for held in [eager, auto] {
        assert!(held * 10 <= before * 11, "{held} MiB");
    }
    assert!(lazy > before * CHILDREN, "{lazy} MiB: auto need not leave it any more");
}

/// What the pattern programs hold of their own, in MiB; what several share is counted once.
fn held_by_programs() -> u64 {
    let is_pattern = |dir: &std::path::Path| {
        fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.trim() == "pattern")
    };
    let held = |dir: std::path::PathBuf| -> Option<u64> {
        let text = fs::read_to_string(dir.join("smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let dirs = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    dirs.filter(|dir| is_pattern(dir)).filter_map(held).sum::<u64>() >> 10
}

/// The kernel lets a container with an id map have no userfaultfd, unless the administrator does:
/// it is restored as ever, and that is said.
pub fn a_container_with_an_id_map_is_restored_as_the_kernel_lets_it(world: &World) {
    let container = world
        .container()
        .memory(32)
        .configure("lxc.idmap = u 0 0 65536\nlxc.idmap = g 0 0 65536\n");
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    let told = container.ours("lxc-restart").arg("--lazy").ok();
    let allowed =
        fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap().trim() == "1";
    assert_eq!(told.stderr.contains("vm.unprivileged_userfaultfd"), !allowed, "{told}");
    if allowed {
        assert_was_lazy(&container);
    }
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// What the monitor holds of its own, in bytes.
fn anonymous_memory(monitor: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn assert_was_lazy(container: &Container<'_>) {
    let log = fs::read_to_string(container.dir().join("dump/restore.log")).unwrap();
    assert!(log.contains("Lazy restore skips"), "all of its memory was restored by CRIU");
}
