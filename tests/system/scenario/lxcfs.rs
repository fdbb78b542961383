//! lxcfs, which Debian installs beside LXC: a file system of a process of the host (FUSE), of which
//! every container has pieces upon its /proc and /sys.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::{Run, wait_for};

/// Where it is: LXC's hook looks nowhere else.
const MOUNTED: &str = "/var/lib/lxcfs";
const CONFIG: &str = "/usr/share/lxc/config/common.conf.d/00-lxcfs.conf";
/// A process in the container that holds one of its files open, and waits for ever. (One that
/// sleeps is woken by the restart.)
const HOLDER: &str = "::once:/bin/sh -c 'exec nc -l -p 7009 3< /proc/uptime'\n";
const LIMIT: Duration = Duration::from_secs(10);

/// The file system, as long as it is held.
struct Lxcfs(Child);

impl Lxcfs {
    fn mount() -> Lxcfs {
        fs::create_dir_all(MOUNTED).unwrap();
        let daemon = Lxcfs(Run::new("lxcfs").arg(MOUNTED).spawn());
        let shown = Path::new(MOUNTED).join("proc/uptime");
        wait_for("lxcfs to show something", LIMIT, || shown.exists().then_some(())).unwrap();
        daemon
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        if let Err(error) = umount2(MOUNTED, MntFlags::MNT_DETACH) {
            eprintln!("unmount lxcfs: {error}");
        }
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("end lxcfs: {error}");
        }
    }
}

/// The mount points at which the container has it.
fn points(container: &Container<'_>) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", container.init_pid())).unwrap();
    let lxcfs = table.lines().filter(|line| line.contains(" - fuse.lxcfs "));
    let mut points: Vec<_> =
        lxcfs.filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
    points.sort_unstable();
    points
}

/// How long the container says that it runs: with lxcfs since its own start, without it the
/// machine's.
fn uptime(container: &Container<'_>) -> f64 {
    let told = container.exec(["/bin/cat", "/proc/uptime"]).stdout;
    told.split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("an uptime: {told}"))
}

/// All of it is there again, for the process that has a piece open, too; and without it a restart
/// says what is missing.
pub fn is_there_again(world: &World) {
    let lxcfs = Lxcfs::mount();
    let container = world.container();
    container.append_config(&format!("lxc.include = {CONFIG}\n"));
    let inittab = container.rootfs().join("etc/inittab");
    fs::write(&inittab, fs::read_to_string(&inittab).unwrap() + HOLDER).unwrap();
    container.start();
    let before = points(&container);
    assert!(before.contains(&"/proc/uptime".to_owned()), "{before:?}");
    let mut witness = container.witness();
    let mut status = witness.status();
    let holds = || {
        let open = container
            .exec(["/bin/sh", "-c", "for fd in /proc/[0-9]*/fd/3; do readlink $fd; done"])
            .stdout;
        open.lines().any(|path| path == "/proc/uptime").then_some(())
    };
    wait_for("a process to open one of its files", LIMIT, holds).unwrap();
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        status = witness.assert_goes_on_from(&status);
        assert_eq!(points(&container), before);
        assert!(holds().is_some());
        assert!(uptime(&container) < status.number("elapsed_ms") as f64);
    }

    container.ours("lxc-checkpoint").ok();
    drop(lxcfs);
    let refused = container.ours("lxc-restart").output();
    refused.assert_code(9);
    assert!(refused.stderr.contains("/var/lib/lxcfs/proc/"), "{refused}");
    let _lxcfs = Lxcfs::mount();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&status);
    container.kill();
}
