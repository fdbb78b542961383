//! The container: unprivileged, with systemd, as the download template writes its configuration,
//! and then prepared.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::root;
use crate::harness::World;
use crate::harness::enter::BRIDGE;
use crate::harness::installed::Installed;
use crate::harness::run::{Output, Run, wait_for};
use crate::scenario::systemd::id_map;

pub const NAME: &str = "programs";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 70);
/// For systemd to boot on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// For a checkpoint or a restart by a debug build.
const LIMIT: Duration = Duration::from_secs(120);

pub struct Guest<'w> {
    world: &'w World,
    installed: Installed,
}

impl<'w> Guest<'w> {
    /// With the servers of a group in it; it is not prepared, and does not run.
    pub fn make(world: &'w World, group: &str) -> Guest<'w> {
        let guest = Guest { world, installed: world.installed() };
        fs::create_dir_all(guest.dir()).unwrap();
        root::make(group, &guest.root());
        let config = format!(
            "lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/nesting.conf
{ids}lxc.uts.name = {NAME}
lxc.rootfs.path = dir:{root}
lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file 0 0
lxc.net.0.type = veth
lxc.net.0.link = {BRIDGE}
lxc.net.0.name = eth0
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {ADDRESS}/24
",
            ids = id_map(),
            root = guest.root().display(),
        );
        fs::write(guest.dir().join("config"), config).unwrap();
        guest
    }

    fn dir(&self) -> PathBuf {
        self.world.lxcpath().join(NAME)
    }

    pub fn root(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    /// `lxc-cr prepare`, as it was installed.
    pub fn prepare(&self) -> Output {
        let run = Run::new(&self.installed.lxc_cr().to_string_lossy())
            .arg("prepare")
            .arg("-P")
            .arg(self.world.lxcpath());
        run.args(["-n", NAME]).output()
    }

    /// Starts it, and waits until systemd is up.
    pub fn start(&self) {
        let log = self.world.logs().join("lxc.log");
        self.world
            .lxc("lxc-start", NAME)
            .args(["-o", &log.to_string_lossy(), "-l", "INFO"])
            .limit(LIMIT)
            .ok();
        self.wait_until_up();
    }

    pub fn wait_until_up(&self) {
        wait_for("systemd to be up", BOOT_LIMIT, || {
            let state = self.exec(["systemctl", "is-system-running"]).stdout;
            ["running", "degraded"].contains(&state.trim()).then_some(())
        })
        .unwrap();
    }

    pub fn runs(&self) -> bool {
        self.world.lxc("lxc-info", NAME).args(["-s", "-H"]).output().stdout.trim() == "RUNNING"
    }

    /// Ends it, whatever state it is in.
    pub fn kill(&self) {
        self.world.lxc("lxc-stop", NAME).arg("-k").output();
        wait_for("it to end", LIMIT, || (!self.runs()).then_some(())).unwrap();
    }

    /// Ends it and takes it away.
    pub fn remove(self) {
        self.kill();
        fs::remove_dir_all(self.dir()).unwrap();
        fs::remove_dir_all(self.world.images("prefix")).unwrap();
    }

    /// Runs a command in it.
    pub fn exec<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        self.world.lxc("lxc-attach", NAME).arg("--").args(command).limit(LIMIT).output()
    }

    /// Runs a line of a shell in it.
    pub fn shell(&self, line: &str) -> Output {
        self.exec(["bash", "-c", line])
    }

    /// Stops it with all that runs in it.
    pub fn suspend(&self) -> Output {
        self.world.ours("lxc-checkpoint", NAME).limit(LIMIT).output()
    }

    pub fn restart(&self) -> Output {
        self.world.ours("lxc-restart", NAME).limit(LIMIT).output()
    }

    /// Runs what was printed, as a user pastes it.
    pub fn paste(&self, command: &str) -> Output {
        let bin = self.installed.lxc_cr();
        let path = format!("{}:{}", bin.parent().unwrap().display(), crate::harness::run::PATH);
        Run::new("sh").args(["-c", command]).env("PATH", &path).limit(LIMIT).output()
    }
}
