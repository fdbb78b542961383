//! A Debian container with systemd, as debootstrap makes it and with our two includes in its
//! configuration.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::World;
use crate::harness::enter::{BRIDGE, SYSTEMD_ROOT, WITNESS};
use crate::harness::installed::Installed;
use crate::harness::run::{Run, wait_for};
use crate::harness::template::shift_owners;
use crate::harness::witness::Witness;

pub const NAME: &str = "debian";
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 60);
/// Where the ids of an unprivileged container begin on the host.
pub const SHIFT: u32 = 100_000;
/// What systemd has to do within it.
const LIMIT: Duration = Duration::from_secs(30);
/// A service in namespaces of its own, as far as CRIU can.
const SHUT_IN: &str = "[Service]
ExecStart=/usr/bin/sleep infinity
ProtectSystem=strict
ProtectHome=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
";
/// A service that the host is connected to.
const LISTENER: &str = "[Service]
ExecStart=/usr/local/bin/witness 0
";
/// A timer that leaves a trace each second.
const TIMER: &str = "[Timer]
OnActiveSec=1
OnUnitActiveSec=1
AccuracySec=10ms
";
const TICK: &str = "[Unit]
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo tick >> /var/lib/ticks'
";

/// With an id map.
pub fn without_privileges_goes_on(world: &World) {
    goes_on(&Debian::make(world, SHIFT, &id_map(), &world.installed()));
}

/// Without one. systemd loads no eBPF programs then; and on this host, whose root cannot read the
/// limits of other users' processes, all run as root.
pub fn with_privileges_goes_on(world: &World) {
    let installed = world.installed();
    let profile = format!("lxc.seccomp.profile = {}\n", installed.profile().display());
    let debian = Debian::make(world, 0, &profile, &installed);
    debian.only_roots_tasks();
    goes_on(&debian);
}

/// The lines for an id map.
pub fn id_map() -> String {
    format!(
        "lxc.include = /usr/share/lxc/config/userns.conf\nlxc.idmap = u 0 {SHIFT} 65536\nlxc.idmap \
         = g 0 {SHIFT} 65536\n"
    )
}

fn goes_on(debian: &Debian<'_>) {
    debian.start();
    let state = debian.system_state();
    let mut witness = Witness::connect(ADDRESS);
    let mut status = witness.status();
    debian.systemctl(["start", "tick.timer"]);
    let complaints = debian.complaints();
    for round in 0..2 {
        debian.ours("lxc-checkpoint").ok();
        debian.ours("lxc-restart").ok();

        assert_eq!(debian.system_state(), state);
        status = witness.assert_goes_on_from(&status);
        let ticks = debian.ticks();
        wait_for("the timer", LIMIT, || (debian.ticks() > ticks + 1).then_some(())).unwrap();
        debian.systemctl(["is-active", "shut-in-1", "shut-in-2"]);
        debian.systemctl(["restart", "shut-in-1"]);
        debian.systemctl(["stop", "shut-in-2"]);
        debian.systemctl(["start", "shut-in-2"]);
        debian.systemctl(["is-active", "shut-in-1", "shut-in-2", "cron"]);
        let said = format!("said in round {round}");
        if debian.has_bus() {
            let told =
                debian.exec(["systemd-run", "--quiet", "--wait", "--pipe", "echo", &said]).ok();
            assert_eq!(told.stdout.trim(), said);
        }
        debian.exec(["sh", "-c", &format!("echo {said} | systemd-cat -t trial")]).ok();
        wait_for("the journal", LIMIT, || {
            let journal =
                debian.exec(["journalctl", "-b", "--no-pager", "-t", "trial"]).ok().stdout;
            journal.contains(&said).then_some(())
        })
        .unwrap();
        let journal = || debian.exec(["journalctl", "-b", "--no-pager", "-n", "50"]).ok();
        assert_eq!(debian.complaints(), complaints, "{}", journal());
        debian.assert_rests();
    }
    debian.lxc("lxc-stop").ok();
}

/// The container.
pub struct Debian<'w> {
    world: &'w World,
}

impl<'w> Debian<'w> {
    /// With our includes.
    pub fn make(world: &'w World, shift: u32, more: &str, installed: &Installed) -> Debian<'w> {
        let debian = Debian::fresh(world, shift, more);
        let mut text = fs::read_to_string(debian.config()).unwrap();
        for include in ["lxc-cr.conf", "lxc-cr-systemd.conf"] {
            text += &format!("lxc.include = {}\n", installed.config(include).display());
        }
        fs::write(debian.config(), text).unwrap();
        debian
    }

    /// As debootstrap and a short configuration make it.
    pub fn fresh(world: &'w World, shift: u32, more: &str) -> Debian<'w> {
        assert!(
            Path::new(SYSTEMD_ROOT).join("usr").exists(),
            "no root of it: run packaging/test-host.sh --systemd"
        );
        let debian = Debian { world };
        let dir = world.lxcpath().join(NAME);
        fs::create_dir_all(&dir).unwrap();
        Run::new("cp").args(["-a", SYSTEMD_ROOT]).arg(debian.root()).limit(LIMIT).ok();
        fs::write(debian.root().join("etc/machine-id"), "").unwrap();
        let witness = debian.root().join("usr/local/bin/witness");
        fs::copy(WITNESS, &witness).unwrap();
        fs::set_permissions(&witness, fs::Permissions::from_mode(0o755)).unwrap();
        for (unit, text) in [
            ("shut-in-1.service", SHUT_IN),
            ("shut-in-2.service", SHUT_IN),
            ("listener.service", LISTENER),
            ("tick.timer", TIMER),
            ("tick.service", TICK),
        ] {
            fs::write(debian.root().join("etc/systemd/system").join(unit), text).unwrap();
        }
        let wanted = debian.root().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wanted).unwrap();
        for unit in ["shut-in-1.service", "shut-in-2.service", "listener.service"] {
            symlink(format!("../{unit}"), wanted.join(unit)).unwrap();
        }
        let config = format!(
            "lxc.include = /usr/share/lxc/config/common.conf
{more}lxc.uts.name = {NAME}
lxc.rootfs.path = dir:{root}
lxc.net.0.type = veth
lxc.net.0.link = {BRIDGE}
lxc.net.0.name = eth0
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {ADDRESS}/24
",
            root = debian.root().display(),
        );
        fs::write(debian.config(), config).unwrap();
        if shift > 0 {
            shift_owners(&debian.root(), shift);
        }
        debian
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.world.lxcpath().join(NAME).join("config")
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.world.lxcpath().join(NAME).join("rootfs")
    }

    fn has_bus(&self) -> bool {
        self.root().join("etc/systemd/system/dbus.socket").symlink_metadata().is_err()
    }

    /// Leaves out the services whose processes are other users'.
    pub fn only_roots_tasks(&self) {
        for unit in
            ["dbus.service", "dbus.socket", "systemd-logind.service", "systemd-timesyncd.service"]
        {
            symlink("/dev/null", self.root().join("etc/systemd/system").join(unit)).unwrap();
        }
    }

    /// Starts it, and waits until systemd says that it is up.
    pub fn start(&self) {
        self.lxc("lxc-start")
            .args(["-o", &self.world.logs().join("lxc.log").to_string_lossy(), "-l", "DEBUG"])
            .ok();
        wait_for("systemd to be up", LIMIT, || {
            let state = self.exec(["systemctl", "is-system-running"]).output().stdout;
            ["running", "degraded"].contains(&state.trim()).then_some(())
        })
        .unwrap();
    }

    pub fn lxc(&self, program: &str) -> Run {
        self.world.lxc(program, NAME)
    }

    pub fn ours(&self, program: &str) -> Run {
        self.world.ours(program, NAME)
    }

    fn exec<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Run {
        self.lxc("lxc-attach").arg("--").args(command)
    }

    pub fn systemctl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) {
        self.exec(std::iter::once("systemctl").chain(arguments)).ok();
    }

    /// "running", or "degraded" where a kernel of this host has not all that Debian's units want,
    /// and which those are.
    pub fn system_state(&self) -> String {
        let state = self.exec(["systemctl", "is-system-running"]).output().stdout;
        let failed = self
            .exec(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"])
            .ok()
            .stdout;
        let mut units: Vec<&str> =
            failed.lines().filter_map(|l| l.split_whitespace().next()).collect();
        units.sort_unstable();
        format!("{} {}", state.trim(), units.join(" "))
    }

    fn ticks(&self) -> usize {
        fs::read_to_string(self.root().join("var/lib/ticks")).unwrap_or_default().lines().count()
    }

    /// What is wrong, by the journal.
    fn complaints(&self) -> Vec<String> {
        let journal =
            self.exec(["journalctl", "-b", "--no-pager", "-p", "err", "-o", "cat"]).ok().stdout;
        journal.lines().map(str::to_owned).collect()
    }

    /// Nobody in it goes round in circles. (The witness works in turns of some milliseconds.)
    fn assert_rests(&self) {
        let init = self.lxc("lxc-info").args(["-p", "-H"]).ok().stdout.trim().to_owned();
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
            let fields: Vec<u64> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .skip(11)
                .take(2)
                .map(|f| f.parse().unwrap())
                .collect();
            fields.iter().sum::<u64>()
        };
        let (ticks_before, count) = (ticks(), self.ticks());
        wait_for("two seconds of its timer", LIMIT, || (self.ticks() >= count + 2).then_some(()))
            .unwrap();
        let used = ticks() - ticks_before;
        // A unit is started in each of them.
        assert!(used < 30, "PID 1 used {used} ticks in two seconds");
    }
}
