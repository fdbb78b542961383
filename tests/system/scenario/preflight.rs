//! What `lxc-cr check` finds, and that it is right: CRIU fails on each blocker, and on nothing that
//! is none.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::{PATH, Run};

/// A kind of culprit, words of the finding, and words of CRIU's own error when it is forced to try.
type Case = (&'static str, &'static str, &'static str);

/// Kinds of files.
const FILES: &[Case] = &[
    ("bpf-prog", "an eBPF program", "bpf-prog"),
    ("bpf-map", "an eBPF map", "bpf-map"),
    ("io_uring", "an io_uring", "send_fds failed"),
    ("io_uring-mmap", "an io_uring", "io_uring"),
    ("perf", "performance counter", "perf_event"),
    ("userfaultfd", "a userfaultfd", "userfaultfd"),
    ("landlock", "landlock-ruleset", "landlock-ruleset"),
    ("fscontext", "fscontext", "fscontext"),
    ("seccomp-notify", "listener for system calls", "seccomp notify"),
    ("memfd-secret", "/secretmem", "Can't lookup mount"),
    ("device 10:229", "character device 10:229", "chr 10:229"),
    ("block 7:0", "block device 7:0", "/tmp/device"),
    ("mqueue", "/culprit on a mount", "Can't lookup mount"),
];

/// Files that cannot be found again.
const LOST_FILES: &[Case] = &[
    ("ghost 3", "deleted file /tmp/ghost", "increase limit"),
    ("ghost-mapped 3", "deleted file /tmp/ghost", "increase limit"),
    ("overmounted", "hidden by the mount on /tmp/m", "cross-device"),
    ("overmounted-deleted", "hidden by the mount on /tmp/m", "overmounted"),
    ("detached", "/file on a mount", "Can't lookup mount"),
    ("fuse-mount-only", "FUSE file system", "always fail"),
];

/// Namespaces, processes.
const PROCESSES: &[Case] = &[
    ("uts", "uts namespace", "nested uts"),
    ("ipc", "ipc namespace", "nested ipc"),
    ("user", "user namespace", "nested user"),
    ("cgroup", "cgroup namespace", "nested cgroup"),
    ("time-child", "time namespace", "nested time"),
    ("pid", "pid namespace", "nested pid"),
    ("traced", "is traced by process", "Unseizable"),
    ("headless", "the main thread of", "Unable to interrupt task"),
    ("epoll-shared", "watches what another process has added", "eventpoll"),
];

/// Sockets.
const SOCKETS: &[Case] = &[
    ("mptcp", "kind MPTCP", "Unsupported proto 262"),
    ("sctp", "kind SCTP", "Unsupported proto"),
    ("vsock", "kind AF_VSOCK", "family 40"),
    ("xdp", "kind XDP", "family 44"),
    ("alg", "kind ALG", "family 38"),
];

/// What looks strange and can be dumped.
const HARMLESS: &[&str] = &[
    "net",
    "mnt",
    "packet-mmap",
    "raw",
    "raw6",
    "ping",
    "udplite",
    "netlink-generic",
    "uevent",
    "unix-pair-half",
    "aio",
    "pidfd",
    "pidfd-dead",
    "fanotify",
    "seccomp",
    "device 1:11",
    "device 10:200",
    "ghost 1",
    "ghost-sparse 300",
    "linked-ghost",
    "deleted-directory",
    "deleted-cwd",
    "chroot",
    "pty",
    "pty-slave",
    "pty-master",
    "ctty",
    "dead-proc",
    "inotify-deleted",
    "open /proc/self/ns/uts",
    "tmpfs",
    "mount mqueue",
    "bind",
];

/// What `lxc-cr check --json` says, and its exit code.
fn check(container: &Container) -> (i32, Vec<Value>) {
    let told = container.lxc_cr("check").arg("--json").output();
    let json: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert_eq!(json["container"], container.name());
    assert_eq!(json["blocked"], told.code() == 4, "{told}");
    (told.code(), json["findings"].as_array().unwrap().clone())
}

fn assert_healthy(container: &Container) {
    let told = container.lxc_cr("check").ok();
    assert_eq!(told.stdout, format!("{} can be checkpointed\n", container.name()));
}

fn has(finding: &Value, key: &str, words: &str) -> bool {
    finding[key].as_str().is_some_and(|text| text.contains(words))
}

/// Each kind: check names the process, the checkpoint is refused and touches nothing, and CRIU by
/// force fails.
fn assert_blocked(world: &World, cases: &[Case]) {
    limit_of_deleted_files(1);
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.append_config("lxc.pty.max = 8\n");
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    assert_healthy(&container);
    let images = world.images("refused").join("c");
    for (kind, words, criu) in cases {
        let Some(pid) = culprits.make(kind) else { continue };
        let (code, findings) = check(&container);
        assert_eq!(code, 4, "{kind}: {findings:#?}");
        let found = findings
            .iter()
            .find(|f| has(f, "what", words))
            .unwrap_or_else(|| panic!("{kind}: {findings:#?}"));
        assert_eq!(found["severity"], "blocker", "{found:#}");
        assert!(!found["remedy"].as_str().unwrap().is_empty(), "{found:#}");
        if found["where"]["mount"].is_null() || !found["where"]["pid"].is_null() {
            assert_eq!(found["where"]["command"], "culprit", "{found:#}");
            assert!(*kind == "traced" || found["where"]["pid_inside"] == pid, "{pid}: {found:#}");
        }

        let refused = container.ours("lxc-checkpoint").arg("-D").arg(&images).output();
        refused.assert_code(4);
        assert!(
            refused.stderr.contains("cannot be checkpointed") && refused.stderr.contains(words),
            "{refused}"
        );
        assert!(!images.exists() && !images.with_extension("partial").exists());

        let forced =
            container.ours("lxc-checkpoint").arg("--force").arg("-D").arg(&images).output();
        forced.assert_code(5);
        assert!(forced.stderr.contains(criu), "{kind}: not '{criu}': {forced}");
        culprits.end();
    }
    assert_healthy(&container);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
    fs::remove_file(SETTINGS).unwrap();
}

const SETTINGS: &str = "/etc/lxc/lxc-cr.toml";

/// In MiB: a deleted file that is too large need not be large.
fn limit_of_deleted_files(limit: u32) {
    fs::write(SETTINGS, format!("ghost_limit = {limit}\n")).unwrap();
}

pub fn names_files_that_criu_cannot_dump(world: &World) {
    assert_blocked(world, FILES);
}

pub fn names_files_that_cannot_be_found_again(world: &World) {
    assert_blocked(world, LOST_FILES);
}

pub fn names_processes(world: &World) {
    assert_blocked(world, PROCESSES);
}

pub fn names_sockets(world: &World) {
    assert_blocked(world, SOCKETS);
}

/// Nothing of this kind is a finding, and all of it together is dumped.
pub fn is_silent_on_what_criu_can_dump(world: &World) {
    limit_of_deleted_files(2);
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.append_config("lxc.pty.max = 8\n");
    container.start();
    for kind in HARMLESS {
        if culprits.make(kind).is_some() {
            assert_eq!(check(&container), (0, vec![]), "{kind}");
        }
    }
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_healthy(&container);
    culprits.end();
    container.kill();
    fs::remove_file(SETTINGS).unwrap();
}

/// A unix socket of the host that is bind-mounted, and a process that is connected to it.
pub fn names_the_other_end_of_a_unix_socket(world: &World) {
    let shared = world.images("shared");
    let listener = UnixListener::bind(shared.join("sock")).unwrap();
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.append_config(&format!("lxc.mount.entry = {} mnt none bind 0 0\n", shared.display()));
    container.start();
    assert_healthy(&container);
    culprits.make("unix-external /mnt/sock").unwrap();
    // Nobody holds the other end before the connection is accepted.
    let (stream, _) = listener.accept().unwrap();
    let (code, findings) = check(&container);
    assert_eq!(code, 4, "{findings:#?}");
    assert!(has(&findings[0], "what", &format!("process {}", std::process::id())), "{findings:#?}");
    let forced = container
        .ours("lxc-checkpoint")
        .args(["--force", "-D"])
        .arg(world.images("d").join("c"))
        .output();
    forced.assert_code(5);
    drop(stream);
    culprits.end();
    assert_healthy(&container);
    container.kill();
}

/// A shell from outside is left out by CRIU: that is said, and done. What it leaves behind blocks.
pub fn names_attached_processes(world: &World) {
    let container = world.container();
    container.start();
    Run::new("mkfifo").arg(container.rootfs().join("tmp/gate")).ok();
    let mut child = container.lxc("lxc-attach").args(["--", "/bin/cat", "/tmp/gate"]).spawn();
    let mut gate =
        fs::OpenOptions::new().write(true).open(container.rootfs().join("tmp/gate")).unwrap();
    let (code, findings) = check(&container);
    assert_eq!((code, findings.len()), (0, 1), "{findings:#?}");
    assert_eq!(findings[0]["severity"], "warning");
    assert_eq!(findings[0]["where"]["command"], "cat");
    let pid = findings[0]["where"]["pid"].as_i64().unwrap();
    assert!(has(&findings[0], "remedy", &format!("kill {pid}")), "{findings:#?}");
    let told = container.ours("lxc-checkpoint").arg("-D").arg(world.images("d").join("c")).ok();
    assert!(
        told.stderr.contains("from outside") && told.stderr.contains(&pid.to_string()),
        "{told}"
    );
    gate.write_all(b"x\n").unwrap();
    drop(gate);
    assert!(child.wait().unwrap().success());
    assert_healthy(&container);

    // Its parent ends and it stays, a child of init, in a session of nobody.
    container.exec(["/bin/sh", "-c", "/bin/cat /tmp/gate & exit 0"]).assert_code(0);
    let (code, findings) = check(&container);
    assert_eq!(code, 4, "{findings:#?}");
    assert!(
        has(&findings[0], "what", "left behind") && findings[0]["where"]["command"] == "cat",
        "{findings:#?}"
    );
    let forced = container
        .ours("lxc-checkpoint")
        .args(["--force", "-D"])
        .arg(world.images("d").join("e"))
        .output();
    forced.assert_code(5);
    assert!(forced.stderr.contains("outside of its pid namespace"), "{forced}");
    let kill = findings[0]["where"]["pid"].to_string();
    Run::new("sh").args(["-c", &format!("kill {kill}")]).ok();
    container.kill();
}

/// Init has the streams of a unit of systemd's, as `lxc-start` leaves them to it where there is no
/// console: CRIU does not even find that socket, for it is of the host's network.
pub fn names_streams_of_a_unit(world: &World) {
    let container = world.container();
    let (ours, journal) = UnixStream::pair().unwrap();
    let mut command = Command::new("lxc-start");
    command
        .args(["-F", "-C", "-n", container.name(), "-P"])
        .arg(world.lxcpath())
        .env_clear()
        .env("PATH", PATH);
    let streams = (ours.try_clone().unwrap(), ours);
    command.stdin(Stdio::null()).stdout(OwnedFd::from(streams.0)).stderr(OwnedFd::from(streams.1));
    let mut started = command.spawn().unwrap();
    drop(command);
    container.wait_state("RUNNING");
    container.witness();
    let (code, findings) = check(&container);
    let forced = container
        .ours("lxc-checkpoint")
        .args(["--force", "-D"])
        .arg(world.images("d").join("c"))
        .output();
    container.kill();
    started.wait().unwrap();
    drop(journal);
    forced.assert_code(5);
    assert!(
        forced.stderr.contains("a unix socket is connected to a process outside the container"),
        "{forced}"
    );
    assert_eq!((code, findings.len()), (4, 1), "{findings:#?}");
    assert!(has(&findings[0], "what", "standard output"), "{findings:#?}");
    assert!(has(&findings[0], "remedy", "StandardOutput=null"), "{findings:#?}");
}

/// Init at a terminal that LXC holds the other end of: our monitor will hold it.
pub fn lets_terminals_of_lxc_be(world: &World) {
    let container = world.container();
    container.append_config("lxc.console.path =\nlxc.tty.max = 1\nlxc.pty.max = 8\n");
    container.start();
    let (code, findings) = check(&container);
    assert_eq!((code, findings.len()), (0, 0), "{findings:#?}");
    container.kill();
}

/// Interfaces, and a bridge that will be missing.
pub fn names_interfaces(world: &World) {
    let container = world.container();
    container.start();
    let init = container.init_pid().to_string();
    let ip = |line: &str| {
        Run::new("nsenter").args(["-t", &init, "-n", "ip"]).args(line.split(' ')).output()
    };
    for (line, name, criu) in [
        ("link add x0 type vxlan id 4 dstport 4789 dev eth0", "x0", "Unsupported link"),
        ("link add i0 type ifb", "i0", "Unsupported link"),
        ("link add d0 type dummy", "d0", "Unsupported link"),
    ] {
        if !ip(line).success() {
            eprintln!("not tried here: {line}");
            continue;
        }
        let (code, findings) = check(&container);
        assert_eq!((code, findings.len()), (4, 1), "{findings:#?}");
        assert_eq!(findings[0]["where"]["interface"], name);
        let forced = container
            .ours("lxc-checkpoint")
            .args(["--force", "-D"])
            .arg(world.images("d").join(name))
            .output();
        forced.assert_code(5);
        assert!(forced.stderr.contains(criu), "{forced}");
        assert!(ip(&format!("link del {name}")).success());
    }
    for line in ["link add b0 type bridge", "tuntap add t0 mode tun"] {
        assert!(ip(line).success());
    }
    assert_healthy(&container);
    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("link = br0", "link = br7")).unwrap();
    let (code, findings) = check(&container);
    assert_eq!((code, findings.len()), (0, 1), "{findings:#?}");
    assert!(has(&findings[0], "remedy", "ip link add br7 type bridge"), "{findings:#?}");
    container.kill();
}

/// More memory than there is room.
pub fn names_a_place_that_is_too_small(world: &World) {
    let container = world.container().memory(16);
    container.start();
    container.witness();
    let small = world.images("small");
    Run::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"]).arg(&small).ok();
    let told = container.lxc_cr("check").arg("-D").arg(small.join("c")).output();
    let refused = container.ours("lxc-checkpoint").arg("-D").arg(small.join("c")).output();
    let left = fs::read_dir(&small).unwrap().count();
    Run::new("umount").arg(&small).ok();
    told.assert_code(4);
    assert!(
        told.stdout.contains("there is room for 4.0 MiB") && told.stdout.contains("-D DIR"),
        "{told}"
    );
    refused.assert_code(4);
    assert_eq!(left, 0);
    assert_healthy(&container);
    container.kill();
}

/// What was lent by the host and unmounted there since.
pub fn names_what_the_host_has_unmounted(world: &World) {
    let lent = world.images("lent");
    Run::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&lent).ok();
    fs::create_dir(lent.join("piece")).unwrap();
    let container = world.container();
    container
        .append_config(&format!("lxc.mount.entry = {}/piece mnt none bind 0 0\n", lent.display()));
    container.start();
    assert_healthy(&container);
    Run::new("umount").arg("-l").arg(&lent).ok();
    let (code, findings) = check(&container);
    assert_eq!((code, findings.len()), (4, 1), "{findings:#?}");
    assert_eq!(findings[0]["where"]["mount"], "/mnt");
    let forced = container
        .ours("lxc-checkpoint")
        .args(["--force", "-D"])
        .arg(world.images("d").join("c"))
        .output();
    forced.assert_code(5);
    assert!(forced.stderr.contains("proper root mount"), "{forced}");
    container.kill();
}

/// What only the restart fails on: it is refused before there is only a checkpoint left.
pub fn names_what_cannot_be_restored(world: &World) {
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    for (kinds, words, criu) in [
        (&["overlay-disk"][..], "an overlay is mounted on /tmp/m", "Can't mount at"),
        (&["bind-deleted", "mnt"], "deleted directory", "Can't re-create deleted directory"),
        (&["thread-proc"], "a file of the thread", "Can't open file"),
    ] {
        container.start();
        for kind in kinds {
            culprits.make(kind).unwrap();
        }
        let (code, findings) = check(&container);
        assert_eq!((code, findings.len()), (4, 1), "{kinds:?}: {findings:#?}");
        assert!(has(&findings[0], "what", words), "{findings:#?}");
        assert_eq!(findings[0]["fails"], "restore", "{findings:#?}");
        container.ours("lxc-checkpoint").output().assert_code(4);
        // Whatever is asked, it is not stopped; a checkpoint of one that goes on may be had.
        let forced = container.ours("lxc-checkpoint").arg("--force").output();
        forced.assert_code(4);
        assert!(
            forced.stderr.contains("could not be restored") && !forced.stderr.contains("--force"),
            "{forced}"
        );
        assert_eq!(container.state(), "RUNNING");
        let images = world.images("lost").join(kinds[0]);
        container.ours("lxc-checkpoint").args(["--force", "-D"]).arg(&images).ok();
        container.kill();
        let restart = container.ours("lxc-restart").arg("-D").arg(&images).output();
        restart.assert_code(5);
        assert!(restart.stderr.contains(criu), "{restart}");
        let _ = fs::remove_dir_all(container.rootfs().join("tmp/m"));
    }
}

/// What CRIU restores, but not as it was: it would be lost without a word.
pub fn names_what_would_be_lost(world: &World) {
    let container = world.container();
    let culprits = Culprits::put_into(&container);
    container.start();
    for (kind, words, severity) in [
        ("thread-directory", "a thread with a root, working directory", "blocker"),
        ("thread-files", "a thread with descriptors of its own", "blocker"),
        ("landlocked", "is confined by Landlock", "blocker"),
        ("nfqueue", "receives packets from rules of the firewall (NFQUEUE)", "blocker"),
        ("thread-umask", "the same as its main thread's", "warning"),
        ("unix-request", "has not yet accepted a request", "warning"),
    ] {
        let Some(pid) = culprits.make(kind) else { continue };
        let (code, findings) = check(&container);
        let blocks = severity == "blocker";
        assert_eq!(
            (code, findings.len()),
            (if blocks { 4 } else { 0 }, 1),
            "{kind}: {findings:#?}"
        );
        assert!(
            has(&findings[0], "what", words) && findings[0]["severity"] == severity,
            "{findings:#?}"
        );
        assert!(findings[0]["where"]["pid_inside"] == pid, "{pid}: {findings:#?}");
        if blocks {
            assert_eq!(findings[0]["fails"], "restore", "{findings:#?}");
            container.ours("lxc-checkpoint").arg("--force").output().assert_code(4);
            assert_eq!(container.state(), "RUNNING");
        }
        culprits.end();
    }
    container.kill();
}

/// The host itself.
pub fn names_what_the_host_lacks(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let images = |name: &str| world.images("d").join(name);
    // What CRIU has found out about the kernel; with it, it needs no test.
    fs::remove_file("/run/criu.kdat").unwrap();
    Run::new("ip").args(["link", "set", "lo", "down"]).ok();
    let (code, findings) = check(&container);
    // It waits for an answer for minutes.
    let criu = Run::new("timeout").args(["1", "criu", "check"]).output();
    Run::new("ip").args(["link", "set", "lo", "up"]).ok();
    assert_eq!((code, findings.len()), (4, 1), "{findings:#?}");
    assert!(has(&findings[0], "remedy", "ip link set lo up"));
    assert!(!criu.success(), "{criu}");
    Run::new("criu").arg("check").ok();

    for (program, path) in [("ip", "/usr/bin/ip"), ("tar", "/usr/bin/tar")] {
        let places: Vec<_> = [path, &path.replace("/bin/", "/sbin/")]
            .into_iter()
            .map(str::to_owned)
            .filter(|p| Path::new(p).exists())
            .collect();
        for place in &places {
            fs::rename(place, format!("{place}.away")).unwrap();
        }
        let (code, findings) = check(&container);
        let forced =
            container.ours("lxc-checkpoint").args(["--force", "-D"]).arg(images(program)).output();
        for place in &places {
            fs::rename(format!("{place}.away"), place).unwrap();
        }
        assert_eq!((code, findings.len()), (4, 1), "{findings:#?}");
        assert!(has(&findings[0], "what", &format!("'{program}'")), "{findings:#?}");
        forced.assert_code(5);
    }
    assert_healthy(&container);
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// As soon as `lxc-start` has returned its init is not yet what it will be: that is waited for, not
/// refused.
pub fn waits_for_one_that_has_just_been_started(world: &World) {
    let container = world.container();
    container.append_config("lxc.console.path =\nlxc.tty.max = 1\n");
    for round in 0..5 {
        container.lxc("lxc-start").arg("-d").ok();
        let told = container.ours("lxc-checkpoint").output();
        assert!(told.success(), "round {round}: {told}");
    }
}
