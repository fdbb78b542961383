//! A host that systemd boots, with LXC's units of Debian and ours.
//!
//! It is the test host once more: its file system with another /etc, in pid, mount and cgroup
//! namespaces of its own, whose first process is systemd, and with shared mounts, as on any host
//! with systemd. The network is the test host's, which stays: a connection into it outlives a
//! reboot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::enter::PROGRAMS;
use super::run::{Output, Run, ends_within, wait_for};
use super::{World, cgroups};

/// From pid 1 to the last unit, and from there to the end.
pub const LIMIT: Duration = Duration::from_secs(40);
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const UNITS: &[(&str, &str)] = &[
    ("lxc-cr-resume.service", include_str!("../../../packaging/systemd/lxc-cr-resume.service")),
    ("lxc-cr-suspend.service", include_str!("../../../packaging/systemd/lxc-cr-suspend.service")),
    ("lxc@.service.d/lxc-cr.conf", include_str!("../../../packaging/systemd/lxc@.conf")),
];
/// What would put its hands on the machine's terminals, or only takes time.
const MASKED: &[&str] =
    &["getty.target", "console-getty.service", "ldconfig.service", "systemd-sysctl.service"];

/// The cgroup that is the booted host's root.
pub const CGROUP: &str = "booted";

/// What of the booted host outlives a reboot.
pub struct Machine {
    /// Its files.
    pub dir: PathBuf,
}

impl Machine {
    /// Whether the test host has no systemd to boot; says so.
    pub fn is_missing() -> bool {
        let missing = !Path::new(SYSTEMD).exists();
        if missing {
            eprintln!("not tried here: the test host has no systemd");
        }
        missing
    }

    /// Writes its /etc: LXC's containers are those of the world, our units are enabled.
    pub fn install(world: &World, in_units: &[&str]) -> Machine {
        let dir = world.images("machine");
        let etc = dir.join("etc");
        let units = etc.join("systemd/system");
        let wanted = units.join("multi-user.target.wants");
        Run::new("cp").args(["-a", "/etc"]).arg(&etc).ok();
        for place in [&dir.join("log/journal"), &wanted, &units.join("lxc@.service.d")] {
            fs::create_dir_all(place).unwrap();
        }
        fs::write(etc.join("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(etc.join("default/lxc-net"), "USE_LXC_BRIDGE=false\n").unwrap();
        fs::write(
            etc.join("lxc/lxc.conf"),
            format!("lxc.lxcpath = {}\n", world.lxcpath().display()),
        )
        .unwrap();
        fs::write(etc.join("lxc/lxc-cr.toml"), "suspend = true\n").unwrap();
        for (name, text) in UNITS {
            fs::write(units.join(name), text.replace("@BINDIR@", PROGRAMS)).unwrap();
            if name.ends_with(".service") {
                symlink(format!("../{name}"), wanted.join(name)).unwrap();
            }
        }
        for name in in_units {
            symlink(
                "/usr/lib/systemd/system/lxc@.service",
                wanted.join(format!("lxc@{name}.service")),
            )
            .unwrap();
        }
        symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target")).unwrap();
        for unit in MASKED {
            symlink("/dev/null", units.join(unit)).unwrap();
        }
        let init = format!(
            "set -e
mount --make-rshared /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount --bind {etc} /etc
mount --bind {log} /var/log
exec env -i container=other PATH=/usr/sbin:/usr/bin {SYSTEMD} --system --show-status=0 --log-target=journal
",
            etc = etc.display(),
            log = dir.join("log").display()
        );
        fs::write(dir.join("init.sh"), init).unwrap();
        Machine { dir }
    }

    /// Boots it, and waits until all units are started.
    pub fn boot(&self) -> Host {
        let host = self.start();
        let is_up = || {
            host.command("systemctl", &["is-active", "multi-user.target"]).success().then_some(())
        };
        let up = wait_for("the host to be up", LIMIT, is_up);
        up.unwrap_or_else(|e| {
            panic!("{e}\n{}\n{}", host.command("systemctl", &["list-jobs"]), self.journal(&[]))
        });
        host
    }

    /// Boots it, and waits for its first process.
    pub fn start(&self) -> Host {
        let cgroup = cgroups::unified().join(CGROUP);
        fs::create_dir_all(&cgroup).unwrap();
        let line = format!(
            "echo $$ > {}/cgroup.procs && exec unshare --mount --pid --cgroup --fork --kill-child \
             --propagation private sh {}/init.sh",
            cgroup.display(),
            self.dir.display()
        );
        // It dies with the trial.
        let unshare = Run::new("setpriv").args(["--pdeathsig", "KILL", "sh", "-c", &line]).spawn();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut host = Host { unshare, init: 0, cgroup };
        let first = || fs::read_to_string(&children).ok()?.trim().parse().ok();
        host.init = wait_for("its first process", LIMIT, first).unwrap();
        host
    }

    /// What its journal shows, also when it is off.
    pub fn journal(&self, which: &[&str]) -> String {
        let told = Run::new("journalctl")
            .arg("-D")
            .arg(self.dir.join("log/journal"))
            .arg("--no-pager")
            .args(which);
        told.output().stdout
    }
}

/// A host that runs.
pub struct Host {
    unshare: Child,
    /// Its pid 1, as we see it.
    init: u32,
    cgroup: PathBuf,
}

impl Host {
    pub fn command(&self, program: &str, arguments: &[&str]) -> Output {
        self.in_it(Run::new(program).args(arguments)).output()
    }

    /// The same command for a process in it.
    pub fn in_it(&self, run: Run) -> Run {
        Run::new("nsenter").args(["-t", &self.init.to_string(), "-m", "-p", "-C"]).args(run.words())
    }

    /// A file of its `/proc`.
    pub fn proc(&self, file: &str) -> String {
        self.run("cat", &[&format!("/proc/{file}")]).stdout
    }

    /// Runs a program in it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let told = self.command(program, arguments);
        assert!(told.success(), "{told}");
        told
    }

    /// As `poweroff`, and waits until nothing of it is left.
    pub fn shut_down(self) {
        self.ask_to_shut_down();
        self.wait_for_its_end();
    }

    pub fn ask_to_shut_down(&self) {
        // It may be gone before it has answered.
        self.command("systemctl", &["poweroff", "--no-block"]);
    }

    pub fn wait_for_its_end(self) {
        assert!(ends_within(&self.unshare, LIMIT), "it does not go down");
    }

    /// Waits for a unit to get into a state.
    pub fn wait_until(&self, unit: &str, state: &str) {
        let is = || self.command("systemctl", &["is-active", unit]).stdout.trim() == state;
        wait_for(&format!("{unit} to be {state}"), LIMIT, || is().then_some(())).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its pid 1 goes with it, and all that is in its pid namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let gone =
            wait_for("its cgroups to be empty", LIMIT, || remove_tree(&self.cgroup).then_some(()));
        if let Err(e) = gone {
            eprintln!("{e}");
        }
    }
}

/// Removes a cgroup and those below it; false while something is in one.
fn remove_tree(dir: &Path) -> bool {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    for dir in below.filter(|path| path.is_dir()) {
        remove_tree(&dir);
    }
    // Not as long as one below it is there.
    fs::remove_dir(dir).is_ok() || !dir.exists()
}
