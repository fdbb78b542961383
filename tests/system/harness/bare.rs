//! CRIU by itself on the container of the recipe, without LXC's or our programs: what those are
//! measured against.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::cgroups;
use super::container::Container;
use super::enter::BRIDGE;
use super::run::{Output, Run, wait_for};

/// For LXC's monitor to clean up after a container that ended.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// What dump and restore must both be told.
const BOTH: &[&str] = &[
    "-v4",
    "--tcp-established",
    "--file-locks",
    "--link-remap",
    "--enable-fs",
    "all",
    "--manage-cgroups=full",
];

/// Leaves the network to our action script, as under our own commands, but with nobody for it to
/// ask.
pub const WITH_OUR_SCRIPT: &[&str] =
    &["--network-lock", "skip", "--action-script", "/opt/lxc-cr/lxc-cr-action"];

/// Images of a container and what a restore must know of it.
#[derive(Debug)]
pub struct Dumped {
    images: PathBuf,
    rootfs: PathBuf,
    /// For the new host side. A name that is free: the old one may be there for a moment yet.
    pub veth: String,
    cgroup: PathBuf,
    /// The run of `criu dump`.
    pub dump: Output,
}

/// A container that CRIU restored. LXC does not know of it. It is killed when this is dropped.
#[derive(Debug)]
pub struct Restored {
    init: Pid,
    cgroup: PathBuf,
    /// The run of `criu restore`.
    pub restore: Output,
}

/// Dumps a running container into `images`; it is stopped afterwards, and LXC has cleaned up after
/// it.
pub fn dump(container: &Container, images: &Path) -> Dumped {
    dump_with(container, images, &[])
}

/// The same with more options.
pub fn dump_with(container: &Container, images: &Path, more: &[&str]) -> Dumped {
    let init = container.init_pid().to_string();
    let cgroups = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let payload = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let (veth, cgroup) = (format!("veth{init}"), cgroups::unified().join(payload));
    let dump = criu("dump", images).args(["-t", &init]).args(more).ok();
    // LXC's monitor would remove a cgroup that CRIU makes anew before it is done.
    wait_for("LXC to remove the cgroup", GONE_LIMIT, || (!cgroup.exists()).then_some(())).unwrap();
    Dumped { images: images.to_owned(), rootfs: container.rootfs(), veth, cgroup, dump }
}

/// Dumps a container that goes on running.
pub fn dump_leaving_running(container: &Container, images: &Path, more: &[&str]) -> Output {
    criu("dump", images).args(["-t", &container.init_pid().to_string(), "-R"]).args(more).ok()
}

/// Restores as a child of this process: LXC's init dies with its parent, and CRIU brings that back,
/// too. The root must be a mount point; it is one in a mount namespace that goes with CRIU.
pub fn restore(dumped: &Dumped) -> Restored {
    restore_veth(dumped, &format!("{}@{BRIDGE}", dumped.veth), &[])
}

/// The same with our action script: CRIU puts the veth on no bridge.
pub fn restore_with_our_script(dumped: &Dumped) -> Restored {
    restore_veth(dumped, &dumped.veth, WITH_OUR_SCRIPT)
}

fn restore_veth(dumped: &Dumped, veth: &str, more: &[&str]) -> Restored {
    let (images, rootfs) = (&dumped.images, dumped.rootfs.display());
    let pidfile = images.join("init.pid");
    let script = format!("mount --no-mtab --bind {rootfs} {rootfs} && exec \"$@\"");
    let restore = Run::new("unshare")
        .args(["-m", "--propagation", "slave", "sh", "-c", &script, "sh"])
        .args(criu("restore", images).words())
        .args(["-d", "-S", "--external", &format!("veth[eth0]:{veth}")])
        .args(more)
        .args([Path::new("--root"), &dumped.rootfs, Path::new("--pidfile"), &pidfile])
        .ok();
    let init = Pid::from_raw(fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap());
    Restored { init, cgroup: dumped.cgroup.clone(), restore }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = kill(self.init, Signal::SIGKILL);
        let _ = waitpid(self.init, None);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn criu(action: &str, images: &Path) -> Run {
    Run::new("criu")
        .arg(action)
        .args(BOTH)
        .arg("-D")
        .arg(images)
        .args(["-o", &format!("{action}.log")])
}
