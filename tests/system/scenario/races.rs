//! Local users who try to get in: what is refused, and what nobody wins however fast he is.
//!
//! An attacker is a thread with another user's credentials that changes names as fast as it can
//! while root's commands run. `make test-races` lets each go on for a minute.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::{Output, Run, wait_for};
use crate::harness::trial::RACE;

/// A user of the host.
const ALICE: u32 = 1000;
/// The container's root.
const GUEST: u32 = 100_000;
/// How long an attack goes on where it is not said.
const SHORT: Duration = Duration::from_millis(1500);
/// What somebody wants to have overwritten.
const VICTIM: &str = "root:*:20000:0:99999:7:::\n";
const LIMIT: Duration = Duration::from_secs(20);

fn duration() -> Duration {
    let asked = std::env::var(RACE).ok().and_then(|text| text.parse().ok());
    asked.map_or(SHORT, Duration::from_secs)
}

/// Somebody who acts again and again until this is dropped.
struct Attacker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Attacker {
    fn start(uid: u32, mut act: impl FnMut() + Send + 'static) -> Attacker {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = thread::spawn(move || {
            become_user(uid);
            let mut times = 0;
            while !seen.load(Ordering::Relaxed) {
                act();
                times += 1;
                // The commands have to get a word in, on however few processors.
                thread::yield_now();
            }
            times
        });
        Attacker { stop, thread: Some(thread) }
    }

    /// How often it has tried.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The system calls, not the C library's, which change all threads.
fn become_user(uid: u32) {
    // SAFETY: numbers only, and an empty list of groups.
    let failed = unsafe {
        libc::syscall(libc::SYS_setgroups, 0, 0) < 0
            || libc::syscall(libc::SYS_setresgid, uid, uid, uid) < 0
            || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
    };
    assert!(!failed, "become user {uid}: {}", io::Error::last_os_error());
}

/// Runs commands until the time is over; how many there were.
fn until_over(mut command: impl FnMut()) -> u32 {
    let end = Instant::now() + duration();
    let mut times = 0;
    while Instant::now() < end {
        command();
        times += 1;
    }
    times
}

/// What is not ours, and what is ours in a directory that is not.
fn find_stolen(dir: &Path, theirs: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        if theirs && meta.uid() == 0 {
            found.push(entry.path());
        }
        if meta.is_dir() {
            find_stolen(&entry.path(), meta.uid() != 0, found);
        }
    }
}

/// Anybody may make names beside the images, and swaps what he can.
pub fn nobody_swaps_the_images(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let (open, victim) = (world.images("open"), world.images("victim").join("shadow"));
    fs::write(&victim, VICTIM).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    let (images, below) = (open.join("web1"), open.join("back/web1"));

    let (top, goal) = (open.clone(), victim.clone());
    let attacker = Attacker::start(ALICE, move || swap_names(&top, &goal));
    let mut made = 0;
    let times = until_over(|| {
        for target in [&images, &below] {
            let told = container.ours("lxc-checkpoint").arg("-D").arg(target).output();
            assert!(matches!(told.code(), 0 | 1 | 4), "{told}");
            if told.success() {
                let meta = fs::symlink_metadata(target).unwrap();
                assert_eq!(
                    (meta.uid(), meta.mode() & 0o7777, meta.is_dir()),
                    (0, 0o700, true),
                    "{}",
                    target.display()
                );
                fs::remove_dir_all(target).unwrap();
                made += 1;
            }
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM);
        let mut stolen = Vec::new();
        find_stolen(&open, false, &mut stolen);
        assert!(stolen.is_empty(), "in directories of others: {stolen:?}");
    });
    println!(
        "images: {} swaps, {} commands, {made} checkpoints, 0 wins",
        attacker.end(),
        2 * times
    );
    assert_eq!(fs::read_dir(victim.parent().unwrap()).unwrap().count(), 1);
    assert_eq!(container.state(), "RUNNING");
    witness.assert_goes_on_from(&before);
    fs::remove_dir_all(&open).unwrap();
    container.kill();
}

/// One round: a directory where the images' is about to be made, a link, an exchange. What fails
/// fails.
fn swap_names(top: &Path, victim: &Path) {
    let back = top.join("back");
    let _ = fs::create_dir(&back);
    let _ = fs::set_permissions(&back, fs::Permissions::from_mode(0o755));
    for dir in [top, &back] {
        let (partial, mine) = (dir.join("web1.partial"), dir.join("mine"));
        let _ = fs::create_dir(&mine);
        for name in ["dump.log", "lxc-cr.toml", "inventory.img", "pages-1.img"] {
            let _ = symlink(victim, mine.join(name));
        }
        let _ = renameat_with(CWD, &mine, CWD, &partial, RenameFlags::EXCHANGE);
        let _ = fs::rename(&partial, dir.join("taken"));
        let _ = fs::create_dir(&partial);
        let _ = symlink(victim, partial.join("dump.log"));
        let _ = fs::remove_dir_all(&partial);
        let _ = symlink(victim.parent().unwrap(), &partial);
        let _ = fs::remove_file(&partial);
        let _ = fs::remove_dir_all(&mine);
        let _ = fs::remove_dir_all(dir.join("taken"));
    }
    let _ = fs::remove_dir_all(&back);
}

/// A directory that is missing above the images is made for nobody: it may be that of a disk that
/// is not mounted.
pub fn a_missing_directory_is_not_made(world: &World) {
    let container = world.container();
    container.start();
    let disk = world.images("disk");
    let told =
        container.ours("lxc-checkpoint").arg("-D").arg(disk.join("backups/web/one")).output();
    told.assert_code(4);
    let above = disk.join("backups/web");
    assert!(told.stderr.contains(&format!("there is no directory {}", above.display())), "{told}");
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    let remedy = told.stderr.lines().find_map(|line| line.split_once("or make it: ")).unwrap().1;
    Run::new("sh").args(["-c", remedy]).ok();
    container.ours("lxc-checkpoint").arg("-D").arg(above.join("one")).ok();
    // In its own directory nothing is missing by mistake.
    container
        .ours("lxc-checkpoint")
        .arg("-D")
        .arg(container.dir().join("checkpoints/today/one"))
        .ok();
    container.kill();
}

/// A user's process with the container's root directory, first of its own namespaces.
pub fn nobody_passes_for_a_container(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    let mut decoy = Run::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "chroot"])
        .arg(container.rootfs())
        .args(["/bin/sleep", "600"])
        .spawn();
    let root = fs::metadata(container.rootfs()).unwrap();
    wait_for("the decoy", LIMIT, || first_with_root(root.dev(), root.ino())).unwrap();

    let told = container.ours("lxc-checkpoint").output();
    told.assert_code(3);
    assert!(told.stderr.contains("it is not running"), "{told}");
    let times = until_over(|| {
        container.ours("lxc-restart").ok();
        container.ours("lxc-checkpoint").ok();
    });
    println!("decoy: {times} restarts, 0 wins");
    decoy.kill().unwrap();
    decoy.wait().unwrap();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// The first of a pid namespace that has this directory as its root.
fn first_with_root(dev: u64, inode: u64) -> Option<u32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let is_first = status
            .lines()
            .any(|line| line.starts_with("NSpid:") && line.split_whitespace().nth(2) == Some("1"));
        let root = fs::metadata(entry.path().join("root")).ok()?;
        (is_first && (root.dev(), root.ino()) == (dev, inode)).then_some(pid)
    })
}

/// Another program of root's, as in a container that shares the host's network, takes the address
/// of a stopped container and names the init of one that runs.
pub fn nobody_names_the_init_of_another(world: &World) {
    let (stopped, running) = (world.container(), world.container());
    running.start();
    let mut witness = running.witness();
    let before = witness.status();
    let init = running.init_pid();
    let address = format!("{}/{}/command", world.lxcpath().display(), stopped.name());
    let listener = listen(&address);
    let end = Arc::new(AtomicBool::new(false));
    let seen = end.clone();
    let liar = thread::spawn(move || name_this_init(&listener, init, &seen));
    let told = stopped.ours("lxc-checkpoint").output();
    told.assert_code(3);
    assert!(told.stderr.contains("it is not running"), "{told}");
    assert!(!stopped.dir().join("dump").exists());
    let times = until_over(|| stopped.ours("lxc-checkpoint").output().assert_code(3));
    end.store(true, Ordering::Relaxed);
    println!("command socket: {} commands, 0 wins; {} lies", times + 1, liar.join().unwrap());
    assert_eq!(running.init_pid(), init);
    witness.assert_goes_on_from(&before);
    running.kill();
}

fn listen(address: &str) -> UnixListener {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(address).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Answers every question of LXC's protocol with this number; how often it did.
fn name_this_init(listener: &UnixListener, init: u32, end: &AtomicBool) -> u32 {
    use std::io::{Read, Write};
    let mut lies = 0;
    while !end.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            let mut fds =
                [libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            // SAFETY: one entry, which lives through the call.
            unsafe { libc::poll(fds.as_mut_ptr(), 1, 50) };
            continue;
        };
        let mut request = [0; 64];
        let _ = stream.set_nonblocking(false).and_then(|()| stream.read(&mut request));
        // A response: ret, datalen, and data, which is the number itself.
        let mut answer = [0; 16];
        answer[8..12].copy_from_slice(&init.to_ne_bytes());
        let _ = stream.write_all(&answer);
        lies += 1;
    }
    lies
}

/// The container's directory is its root's, and a user of the host is that root: he swaps the
/// configuration.
pub fn nobody_swaps_the_configuration(world: &World) {
    let container = unprivileged(world);
    let owned = world.images("victim").join("owned");
    let (config, evil) = (container.dir().join("config"), container.dir().join("evil"));
    let hook = format!("lxc.hook.pre-start = /bin/touch {}\n", owned.display());
    fs::write(&evil, fs::read_to_string(&config).unwrap() + &hook).unwrap();
    std::os::unix::fs::chown(&evil, Some(GUEST), Some(GUEST)).unwrap();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();

    let (good, bad) = (config.clone(), evil.clone());
    let attacker = Attacker::start(GUEST, move || {
        let _ = renameat_with(CWD, &good, CWD, &bad, RenameFlags::EXCHANGE);
    });
    let (mut done, mut refused) = (0, 0);
    let mut is_running = true;
    let mut attempt = || {
        let told =
            container.ours(if is_running { "lxc-checkpoint" } else { "lxc-restart" }).output();
        match told.code() {
            0 => {
                done += 1;
                is_running = !is_running;
            }
            4 => {
                refused += 1;
                assert!(told.stderr.contains("not trusted"), "{told}");
            }
            _ => panic!("{told}"),
        }
        assert!(!owned.exists(), "a hook of the attacker's has run: {told}");
    };
    until_over(&mut attempt);
    let swaps = attacker.end();
    if fs::metadata(&config).unwrap().uid() != 0 {
        renameat_with(CWD, &config, CWD, &evil, RenameFlags::EXCHANGE).unwrap();
    }
    println!("configuration: {swaps} swaps, {done} done, {refused} refused, 0 wins");
    if container.state() != "RUNNING" {
        container.ours("lxc-restart").ok();
    }
    witness.assert_goes_on_from(&before);
    container.kill();
    give_back(&container);
}

/// As `lxc-create` makes one with an id map.
fn unprivileged<'w>(world: &'w World) -> Container<'w> {
    let container = world
        .container()
        .configure("lxc.id_map = u 0 100000 65536\nlxc.id_map = g 0 100000 65536\n");
    Run::new("chown").args(["-R", "100000:100000"]).arg(container.rootfs()).ok();
    Run::new("chown").arg("100000:0").arg(container.dir()).ok();
    fs::set_permissions(container.dir(), fs::Permissions::from_mode(0o770)).unwrap();
    container
}

fn give_back(container: &Container<'_>) {
    Run::new("chown").arg("0:0").arg(container.dir()).ok();
}

/// That directory is trusted only as long as nobody of the host can act as the container's root;
/// the remedy works.
pub fn a_directory_that_a_user_can_change_is_refused(world: &World) {
    const RANGES: &str = "/etc/subuid";
    let container = unprivileged(world);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let kept = fs::read(RANGES).ok();
    fs::write(RANGES, "root:200000:65536\nalice:100000:65536\n").unwrap();
    let told = container.ours("lxc-checkpoint").output();
    let remedied = told.stderr.lines().find_map(|line| line.split_once("give it to root: ")).map(
        |(_, remedy)| {
            Run::new("sh").args(["-c", remedy]).ok();
            container.ours("lxc-checkpoint").ok();
            container.ours("lxc-restart").ok()
        },
    );
    match kept {
        Some(text) => fs::write(RANGES, text).unwrap(),
        None => fs::remove_file(RANGES).unwrap(),
    }
    told.assert_code(4);
    assert!(
        told.stderr.contains("the container's root, user 100000, as whom alice may act, too"),
        "{told}"
    );
    assert!(remedied.is_some(), "{told}");
    witness.assert_goes_on_from(&before);
    container.kill();
    give_back(&container);
}

/// `setfacl -m u:1000:rw`: the mode says nothing of it but a group that may write.
pub fn an_acl_lets_others_write(world: &World) {
    let container = world.container();
    container.start();
    let config = container.dir().join("config");
    let refused = |what: &Path| {
        let told = container.ours("lxc-checkpoint").output();
        told.assert_code(4);
        assert!(
            told.stderr.contains("by its ACL") && told.stderr.contains(&*what.to_string_lossy()),
            "{told}"
        );
    };
    for what in [&config, &container.dir()] {
        let mode = fs::metadata(what).unwrap().permissions();
        let (entry, name) = (acl_for(ALICE), OsStr::new("system.posix_acl_access"));
        rustix::fs::setxattr(what, name, &entry, rustix::fs::XattrFlags::empty()).unwrap();
        refused(what);
        rustix::fs::removexattr(what, name).unwrap();
        fs::set_permissions(what, mode).unwrap();
    }
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    container.kill();
}

/// `user::rwx user:UID:rwx group::r-x mask::rwx other::r-x` as the kernel keeps it.
fn acl_for(uid: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 7, uid),
        (4, 5, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 5, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Anybody can fill /tmp, with bytes or with names.
pub fn a_full_tmp_stops_nothing(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    for (options, fill) in [
        ("size=64k", "dd if=/dev/zero of=/tmp/full bs=4k 2>/dev/null"),
        ("nr_inodes=16", "i=0; while touch /tmp/$i 2>/dev/null; do i=$((i+1)); done"),
    ] {
        in_full_tmp(&container.ours("lxc-checkpoint"), options, fill).assert_code(0);
        in_full_tmp(&container.ours("lxc-restart"), options, fill).assert_code(0);
        before = witness.assert_goes_on_from(&before);
    }
    container.kill();
}

/// Runs a command where /tmp is full; nobody else sees that one.
fn in_full_tmp(run: &Run, options: &str, fill: &str) -> Output {
    let script = format!(
        "mount -t tmpfs -o mode=1777,{options} full /tmp; {fill}; (echo x > /tmp/one) 2>/dev/null \
         && exit 99; exec \"$@\""
    );
    Run::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .args(run.words())
        .env("TMPDIR", "/tmp")
        .output()
}
