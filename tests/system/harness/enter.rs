//! The way into the test host: a Debian root with LXC and CRIU in namespaces of its own, entered
//! once, before any thread exists.
//!
//! Four processes: the one that was started stays outside and cleans up; its child enters a cgroup
//! of its own and makes the namespaces; its child is pid 1 there, builds the file system and
//! collects orphans; its child returns from [`enter`]. Each dies with its parent, and everything in
//! the host dies with pid 1.
//!
//! `/` is an overlay over the cached root, thrown away at the end. Containers and images must not
//! lie on it (CRIU and overlayfs disagree about devices): they have `/srv/disk` (a plain directory)
//! and `/srv/shm` (a tmpfs).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{
    SigHandler, SigSet, SigmaskHow, Signal, kill, signal as handle, sigprocmask,
};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, wait, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, geteuid, pivot_root, sethostname};

use super::cgroups::{self, Cgroups};
use super::run::Run;

/// Where containers live on a file system of the disk.
pub const DISK: &str = "/srv/disk";
/// The same on a tmpfs.
pub const SHM: &str = "/srv/shm";
/// LXC's own container path; on the disk, too.
pub const DEFAULT_LXCPATH: &str = "/var/lib/lxc";
/// Kept after the run: `target/system/logs` of the machine.
pub const LOGS: &str = "/srv/logs";
/// The programs that were built.
pub const PROGRAMS: &str = "/opt/lxc-cr";
/// The static witness, see `witness.rs`.
pub const WITNESS: &str = "/opt/witness";
/// The root of a Debian container with systemd, if it was made; read-only.
pub const SYSTEMD_ROOT: &str = "/opt/systemd";
/// The same of a Debian container with servers and several inits.
pub const WORKLOADS_ROOT: &str = "/opt/workloads";
/// That with OpenRC.
pub const OPENRC_ROOT: &str = "/opt/openrc";
/// The static init that does what it is told, see `tests/system/hostile/`.
pub const HOSTILE: &str = "/opt/hostile";
/// Those with the servers of each group of `tests/system/program/list.txt`, if they were made;
/// read-only.
pub const PROGRAM_ROOTS: &str = "/opt/programs";
/// The static program with kernel objects, see `tests/system/object/`.
pub const OBJECT: &str = "/opt/object";
/// The static program whose memory has a known content, see `tests/system/pattern/`.
pub const PATTERN: &str = "/opt/pattern";
/// Names the LXC of the test host in the environment: 5, 6, 7, or `stock`, Debian 13's with its own
/// CRIU.
const LXC_VERSION: &str = "LXC_CR_TEST_LXC";
/// The static culprit, see `culprit.rs`.
pub const CULPRIT: &str = "/opt/culprit";
/// The bridge of the recipe.
pub const BRIDGE: &str = "br0";
/// Its address and network.
pub const BRIDGE_ADDRESS: &str = "10.99.0.1/24";

/// Where the machine's kernel has AppArmor in force.
pub const APPARMOR: &str = "/sys/kernel/security/apparmor";

/// Names the host's kind in the environment: `clean` has private mounts and none of
/// [`KERNEL_FILE_SYSTEMS`].
const HOST_KIND: &str = "LXC_CR_TEST_HOST";
/// What systemd mounts on a host, as far as the kernel has it: the kind, where, and the options.
const KERNEL_FILE_SYSTEMS: &[(&str, &str, &str)] = &[
    ("securityfs", "sys/kernel/security", ""),
    ("debugfs", "sys/kernel/debug", ""),
    ("tracefs", "sys/kernel/tracing", ""),
    ("configfs", "sys/kernel/config", ""),
    ("fusectl", "sys/fs/fuse/connections", ""),
    ("pstore", "sys/fs/pstore", ""),
    ("bpf", "sys/fs/bpf", "mode=700"),
    ("binfmt_misc", "proc/sys/fs/binfmt_misc", ""),
    ("mqueue", "dev/mqueue", ""),
    ("hugetlbfs", "dev/hugepages", "pagesize=2M"),
];

/// More than the largest container of the bench with its images.
const SHM_SIZE: &str = "8G";
/// What is used up of the exit codes by a host that could not be set up.
const SETUP_FAILED: i32 = 99;

/// Why the host cannot be entered here.
#[derive(Debug)]
pub struct Unavailable(pub String);

/// What stays outside and is cleaned up when the run has ended.
struct Outside {
    root: PathBuf,
    /// Of containers, and where each is put.
    container_roots: Vec<(PathBuf, &'static str)>,
    state: PathBuf,
    run: PathBuf,
    cgroups: Cgroups,
    witness: PathBuf,
    culprit: PathBuf,
    hostile: PathBuf,
    object: PathBuf,
    pattern: PathBuf,
}

/// Enters the test host: only the process inside returns `Ok`; the one outside waits for it, cleans
/// up and exits with its exit code.
pub fn enter() -> Result<(), Unavailable> {
    let outside = prepare()?;
    let threads = fs::read_dir("/proc/self/task").map_err(unavailable)?.count();
    assert_eq!(threads, 1, "the test host is entered before any thread is started");

    let mut watched = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        watched.add(signal);
    }
    let before = watched.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(unavailable)?;
    // A shell's background job ignores the keyboard's signals; the containers must not inherit
    // that.
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { handle(signal, SigHandler::SigDfl) }.map_err(unavailable)?;
    }
    // SAFETY: the process has one thread (asserted above), so no lock can be held by another.
    match unsafe { fork() }.map_err(unavailable)? {
        ForkResult::Parent { child } => {
            let code = wait_outside(child, &watched);
            clean_up(&outside);
            exit(code)
        }
        ForkResult::Child => {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(unavailable)?;
            die_with_parent();
            or_die("enter its namespaces", make_namespaces(&outside));
        }
    }
    // SAFETY: as above; the child of a process with one thread has one thread.
    if let ForkResult::Parent { child } = or_die("fork", unsafe { fork() }) {
        exit(exit_code(or_die("wait for pid 1", waitpid(child, None))))
    }
    die_with_parent();
    or_die("set up its file system", build(&outside));
    or_die("set up its network", make_network());
    // SAFETY: as above.
    if let ForkResult::Parent { child } = or_die("fork", unsafe { fork() }) {
        exit(reap_until(child))
    }
    Ok(())
}

fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

fn or_die<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("test host: cannot {what}: {error}");
        exit(SETUP_FAILED)
    })
}

/// Finds the root, the place for state and the cgroup tree, and builds the witness.
fn prepare() -> Result<Outside, Unavailable> {
    if !geteuid().is_root() {
        return Err(Unavailable("only root can enter the test host".into()));
    }
    let lxc = std::env::var(LXC_VERSION).unwrap_or_else(|_| "7".to_owned());
    let root = cached_root(&["--lxc", &lxc, "--path"])?;
    if !root.join("usr").is_dir() {
        let path = root.display();
        return Err(Unavailable(format!(
            "no test host in '{path}': run packaging/test-host.sh --lxc {lxc}"
        )));
    }
    let state = programs()
        .parent()
        .map(|target| target.join("system"))
        .ok_or_else(|| unavailable("no target directory"))?;
    remove_stale(&state);
    let name = format!("lxc-cr-{}", std::process::id());
    let run = state.join(&name);
    for dir in [run.join("stage"), run.join("disk"), run.join("lxc"), state.join("logs")] {
        fs::create_dir_all(&dir).map_err(unavailable)?;
    }
    link_programs()?;
    let witness = super::witness::build("witness", &state).map_err(Unavailable)?;
    let culprit = super::witness::build("culprit", &state).map_err(Unavailable)?;
    let hostile = super::witness::build("hostile", &state).map_err(Unavailable)?;
    let object = super::witness::build("object", &state).map_err(Unavailable)?;
    let pattern = super::witness::build("pattern", &state).map_err(Unavailable)?;
    let container_roots = vec![
        (cached_root(&["--systemd", "--path"])?, SYSTEMD_ROOT),
        (cached_root(&["--workloads", "--path"])?, WORKLOADS_ROOT),
        (cached_root(&["--openrc", "--path"])?, OPENRC_ROOT),
        (cached_root(&["--programs", "sample", "--path"])?, "/opt/programs/sample"),
        (cached_root(&["--programs", "main", "--path"])?, "/opt/programs/main"),
        (cached_root(&["--programs", "other", "--path"])?, "/opt/programs/other"),
    ];
    let cgroups = Cgroups::prepare().map_err(Unavailable)?;
    Ok(Outside {
        root,
        container_roots,
        state,
        run,
        cgroups,
        witness,
        culprit,
        hostile,
        object,
        pattern,
    })
}

/// What packaging/test-host.sh has made with these arguments, or would make.
fn cached_root(arguments: &[&str]) -> Result<PathBuf, Unavailable> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/test-host.sh");
    let told = Command::new(script).args(arguments).output().map_err(unavailable)?;
    Ok(PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()))
}

/// The directory that cargo builds programs into.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lxc-cr")).parent().unwrap_or(Path::new("/"))
}

/// Gives the two programs that cargo builds the names that `make install` gives them.
fn link_programs() -> Result<(), Unavailable> {
    let dir = programs();
    for (program, names) in [
        ("lxc-cr", ["lxc-checkpoint", "lxc-restart"].as_slice()),
        (
            "lxc-cr-hook",
            &[
                "lxc-cr-action",
                "lxc-cr-pre-start",
                "lxc-cr-start-host",
                "lxc-cr-post-stop",
                "lxc-cr-net-up",
                "lxc-cr-net-down",
            ],
        ),
    ] {
        let built = fs::metadata(dir.join(program)).map_err(unavailable)?;
        for name in names {
            let link = dir.join(name);
            if fs::metadata(&link).is_ok_and(|meta| meta.ino() == built.ino()) {
                continue;
            }
            // Another test program may do the same at this moment.
            let new = dir.join(format!("{name}.{}", std::process::id()));
            fs::hard_link(dir.join(program), &new)
                .and_then(|()| fs::rename(&new, &link))
                .map_err(unavailable)?;
            let _ = fs::remove_file(&new);
        }
    }
    Ok(())
}

/// What a run that was killed could not remove.
fn remove_stale(state: &Path) {
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        if cgroups::of_a_dead_run(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn wait_outside(child: Pid, watched: &SigSet) -> i32 {
    loop {
        let signal = watched.wait();
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => return exit_code(status),
            Err(error) => {
                eprintln!("test host: cannot wait for it: {error}");
                return SETUP_FAILED;
            }
        }
        // A shell in the host gets its own interrupts; whoever ends *us* means everything.
        if let Ok(signal @ (Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP)) = signal {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            return 128 + signal as i32;
        }
    }
}

fn clean_up(outside: &Outside) {
    outside.cgroups.remove();
    if let Err(error) = fs::remove_dir_all(&outside.run) {
        eprintln!("test host: remove {}: {error}", outside.run.display());
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => SETUP_FAILED,
    }
}

fn die_with_parent() {
    or_die("die with its parent", set_pdeathsig(Signal::SIGKILL));
}

fn make_namespaces(outside: &Outside) -> Result<(), String> {
    outside.cgroups.enter()?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )
    .map_err(|e| format!("unshare: {e}"))
}

fn build(outside: &Outside) -> Result<(), String> {
    const NONE: Option<&str> = None;
    let stage = outside.run.join("stage");
    let root = stage.join("root");
    let put = |kind: &str, source: &str, target: &Path, flags: MsFlags, data: &str| {
        let outcome = mount(Some(source), target, Some(kind), flags, Some(data));
        outcome.map_err(|e| format!("mount {kind} on {}: {e}", target.display()))
    };
    let bind = |source: &Path, inside: &str, read_only: bool| {
        let target = root.join(inside.trim_start_matches('/'));
        let failed = |e| format!("bind {} on {}: {e}", source.display(), target.display());
        let made =
            if source.is_dir() { fs::create_dir_all(&target) } else { fs::write(&target, "") };
        made.map_err(|e| format!("make {}: {e}", target.display()))?;
        mount(Some(source), &target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .map_err(failed)?;
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(NONE, &target, NONE, flags, NONE).map_err(failed)?;
        }
        Ok::<(), String>(())
    };

    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|e| format!("make / private: {e}"))?;
    put("tmpfs", "stage", &stage, MsFlags::empty(), "mode=755")?;
    for dir in ["upper", "work", "root"] {
        fs::create_dir(stage.join(dir)).map_err(|e| format!("make {dir}: {e}"))?;
    }
    let layers = format!(
        "lowerdir={},upperdir={s}/upper,workdir={s}/work",
        outside.root.display(),
        s = stage.display()
    );
    put("overlay", "root", &root, MsFlags::empty(), &layers)?;
    bind(Path::new("/dev"), "/dev", false)?;
    put("proc", "proc", &root.join("proc"), MsFlags::empty(), "")?;
    // A fresh sysfs shows the network namespace of whoever mounts it: LXC looks for the bridge
    // there.
    put("sysfs", "sysfs", &root.join("sys"), MsFlags::empty(), "")?;
    if is_clean() && Path::new(APPARMOR).exists() {
        put("securityfs", "securityfs", &root.join("sys/kernel/security"), MsFlags::empty(), "")?;
    }
    if !is_clean() {
        mount_kernel_file_systems(&root)?;
    }
    outside.cgroups.mount(&root)?;
    put("tmpfs", "tmpfs", &root.join("run"), MsFlags::empty(), "mode=755")?;
    put("tmpfs", "tmpfs", &root.join("tmp"), MsFlags::empty(), "mode=1777")?;
    // The last as the first command makes it: what the host has then is compared later.
    for dir in ["run/lock", &SHM[1..], &DISK[1..], "var/lib/lxc-cr"] {
        fs::create_dir_all(root.join(dir)).map_err(|e| format!("make {dir}: {e}"))?;
    }
    put(
        "tmpfs",
        "tmpfs",
        &root.join(&SHM[1..]),
        MsFlags::empty(),
        &format!("mode=755,size={SHM_SIZE}"),
    )?;
    let kind = statfs(&outside.run)
        .map_err(|e| format!("statfs {}: {e}", outside.run.display()))?
        .filesystem_type();
    let plain = ![OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind);
    if !plain {
        eprintln!(
            "test host: no plain file system below {}: {DISK} is a tmpfs, too",
            outside.state.display()
        );
    }
    for (name, place) in [("disk", DISK), ("lxc", DEFAULT_LXCPATH)] {
        if plain {
            bind(&outside.run.join(name), place, false)?;
        } else {
            put(
                "tmpfs",
                "tmpfs",
                &root.join(&place[1..]),
                MsFlags::empty(),
                &format!("mode=755,size={SHM_SIZE}"),
            )?;
        }
    }
    bind(&outside.state.join("logs"), LOGS, false)?;
    bind(programs(), PROGRAMS, true)?;
    bind(&outside.witness, WITNESS, true)?;
    for (cached, place) in &outside.container_roots {
        if cached.is_dir() {
            bind(cached, place, true)?;
        }
    }
    bind(&outside.object, OBJECT, true)?;
    bind(&outside.pattern, PATTERN, true)?;
    bind(&outside.culprit, CULPRIT, true)?;
    bind(&outside.hostile, HOSTILE, true)?;

    chdir(&root).map_err(|e| format!("enter {}: {e}", root.display()))?;
    // The old root ends up on top of the new one, from where it is let go.
    pivot_root(".", ".").map_err(|e| format!("pivot_root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("let go of the old root: {e}"))?;
    chdir("/").map_err(|e| format!("chdir /: {e}"))?;
    if !is_clean() {
        let shared = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE);
        shared.map_err(|e| format!("make / shared: {e}"))?;
    }
    sethostname("test-host").map_err(|e| format!("sethostname: {e}"))
}

/// Whether the host is to be cleaner than any that systemd has booted.
fn is_clean() -> bool {
    std::env::var(HOST_KIND).is_ok_and(|kind| kind == "clean")
}

/// As systemd does. The directories below /dev are the machine's and stay: each host with systemd
/// has them.
fn mount_kernel_file_systems(root: &Path) -> Result<(), String> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME;
    for (kind, place, options) in KERNEL_FILE_SYSTEMS {
        let target = root.join(place);
        if place.starts_with("dev/") {
            fs::create_dir_all(&target).map_err(|e| format!("make {place}: {e}"))?;
        }
        let flags = if *kind == "hugetlbfs" { flags } else { flags | MsFlags::MS_NOEXEC };
        match mount(Some(*kind), &target, Some(*kind), flags, Some(*options)) {
            Ok(()) => {}
            // This kernel has no such file system.
            Err(Errno::ENODEV | Errno::ENOENT) => {}
            Err(e) => return Err(format!("mount {kind} on {place}: {e}")),
        }
    }
    Ok(())
}

/// CRIU's own check of the kernel needs `lo` up.
fn make_network() -> Result<(), String> {
    let commands = format!(
        "link set lo up\nlink add {BRIDGE} type bridge forward_delay 0\naddr add {BRIDGE_ADDRESS} \
         dev {BRIDGE}\nlink set {BRIDGE} up\n"
    );
    let told = Run::new("ip").args(["-batch", "-"]).input(commands).output();
    if told.success() { Ok(()) } else { Err(told.to_string()) }
}

/// The work of pid 1: collects every process that is left to it.
fn reap_until(child: Pid) -> i32 {
    loop {
        match wait() {
            Ok(status) if status.pid() == Some(child) => return exit_code(status),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                eprintln!("test host: pid 1 cannot wait: {error}");
                return SETUP_FAILED;
            }
        }
    }
}

/// Becomes a program in the host, for trying things by hand. Returns only an error.
pub fn become_program(arguments: &[String]) -> std::io::Error {
    let (program, rest) = match arguments {
        [] => ("/bin/bash", &[][..]),
        [program, rest @ ..] => (program.as_str(), rest),
    };
    let path = format!("{PROGRAMS}:{}", super::run::PATH);
    Command::new(program)
        .args(rest)
        .env("PATH", path)
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .exec()
}
