//! A host that systemd has booted goes down and comes back, with LXC's units of Debian and ours.
//!
//! It is the test host once more: its file system with another /etc, in pid, mount and cgroup namespaces of its own, whose
//! first process is systemd. The network is the test host's, which stays: so a connection into it outlives a reboot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::enter::PROGRAMS;
use crate::harness::run::{Output, Run, ends_within, wait_for};
use crate::harness::{World, cgroups};

/// From pid 1 to the last unit, and from there to the end.
const LIMIT: Duration = Duration::from_secs(40);
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const UNITS: &[(&str, &str)] = &[
    ("lxc-cr-resume.service", include_str!("../../../packaging/systemd/lxc-cr-resume.service")),
    ("lxc-cr-suspend.service", include_str!("../../../packaging/systemd/lxc-cr-suspend.service")),
    ("lxc@.service.d/lxc-cr.conf", include_str!("../../../packaging/systemd/lxc@.conf")),
];
/// What would put its hands on the machine's terminals, or only takes time.
const MASKED: &[&str] = &["getty.target", "console-getty.service", "ldconfig.service", "systemd-sysctl.service"];

/// Three come back as they were, one of them in a unit of its own; one cannot, boots, and the journal says why.
pub fn a_host_with_systemd_goes_down_and_comes_back(world: &World) {
    if !Path::new(SYSTEMD).exists() {
        eprintln!("not tried here: the test host has no systemd");
        return;
    }
    let container = |name: &str, auto: &str| {
        let hook = format!("{PROGRAMS}/lxc-cr-pre-start");
        world.container_named(name).configure(&format!("lxc.hook.pre-start = {hook}\nlxc.start.auto = {auto}\n"))
    };
    let (one, two) = (container("one", "1").memory(16), container("two", "1"));
    let (in_unit, cannot) = (container("in-unit", "0"), container("cannot", "1"));
    let culprits = Culprits::put_into(&cannot);
    let machine = Machine::install(world, "in-unit");

    let host = machine.boot();
    let mut connections = [&one, &two, &in_unit].map(Container::witness);
    let before = connections.each_mut().map(|witness| witness.status());
    culprits.make("uts").unwrap();
    host.shut_down();
    for container in [&one, &two, &in_unit] {
        assert!(container.dir().join("dump/lxc-cr.resume").exists(), "{}:\n{}", container.name(), machine.journal(&[]));
    }
    assert!(!cannot.dir().join("dump").exists());
    let why = machine.journal(&["CONTAINER_NAME=cannot", "-p", "err"]);
    assert!(why.contains("not suspended: it cannot be checkpointed: process "), "{why}");
    let goodbye = fs::read_to_string(cannot.rootfs().join("var/log/messages")).unwrap();
    assert!(goodbye.contains("syslogd exiting"), "it was not shut down cleanly: {goodbye}");
    connections.iter_mut().for_each(|witness| witness.send("said while all was off"));

    let host = machine.boot();
    for (witness, before) in connections.iter_mut().zip(&before) {
        assert_eq!(witness.receive(), "said while all was off");
        witness.assert_goes_on_from(before);
    }
    cannot.witness().echo("booted afresh");
    assert_eq!(host.run("systemctl", &["--failed", "--no-legend"]).stdout, "");
    for name in ["one", "two", "in-unit"] {
        let told = machine.journal(&[&format!("CONTAINER_NAME={name}"), "-b"]);
        assert!(told.contains("it runs again from "), "{name}: {told}");
        // The monitor is nobody's but the container's.
        let monitor = format!("/sys/fs/cgroup/{CGROUP}/lxc.monitor.{name}");
        assert!(Path::new(&monitor).is_dir(), "{}", host.run("systemd-cgls", &["--no-pager"]));
    }
    // The units that have brought them back may be stopped: they go on.
    host.run("systemctl", &["restart", "lxc-cr-resume.service"]);
    host.run("systemctl", &["stop", "lxc@in-unit.service"]);
    for (witness, before) in connections.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }
    host.shut_down();
    assert!(one.dir().join("dump/lxc-cr.resume").exists());
}

/// The cgroup that is the booted host's root.
const CGROUP: &str = "booted";

/// What of the booted host outlives a reboot.
struct Machine {
    dir: PathBuf,
}

impl Machine {
    /// Writes its /etc: LXC's containers are those of the world, our units are enabled.
    fn install(world: &World, in_unit: &str) -> Machine {
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
        fs::write(etc.join("lxc/lxc.conf"), format!("lxc.lxcpath = {}\n", world.lxcpath().display())).unwrap();
        fs::write(etc.join("lxc/lxc-cr.toml"), "suspend = true\n").unwrap();
        for (name, text) in UNITS {
            fs::write(units.join(name), text.replace("@BINDIR@", PROGRAMS)).unwrap();
            if name.ends_with(".service") {
                symlink(format!("../{name}"), wanted.join(name)).unwrap();
            }
        }
        symlink("/usr/lib/systemd/system/lxc@.service", wanted.join(format!("lxc@{in_unit}.service"))).unwrap();
        symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target")).unwrap();
        for unit in MASKED {
            symlink("/dev/null", units.join(unit)).unwrap();
        }
        let init = format!(
            "set -e
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
    fn boot(&self) -> Host {
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
        let mut host = Host { unshare, init: 0, cgroup };
        let children = format!("/proc/{0}/task/{0}/children", host.unshare.id());
        let is_up = || {
            host.init = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            let told = host.command("systemctl", &["is-active", "multi-user.target"]);
            told.success().then_some(())
        };
        let up = wait_for("the host to be up", LIMIT, is_up);
        up.unwrap_or_else(|e| panic!("{e}\n{}\n{}", host.command("systemctl", &["list-jobs"]), self.journal(&[])));
        host
    }

    /// What its journal shows, also when it is off.
    fn journal(&self, which: &[&str]) -> String {
        let told = Run::new("journalctl").arg("-D").arg(self.dir.join("log/journal")).arg("--no-pager").args(which);
        told.output().stdout
    }
}

/// A host that runs.
struct Host {
    unshare: Child,
    /// Its pid 1, as we see it.
    init: u32,
    cgroup: PathBuf,
}

impl Host {
    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        let target = self.init.to_string();
        Run::new("nsenter").args(["-t", &target, "-m", "-p", "-C", program]).args(arguments).output()
    }

    /// Runs a program in it.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let told = self.command(program, arguments);
        assert!(told.success(), "{told}");
        told
    }

    /// As `poweroff`, and waits until nothing of it is left.
    fn shut_down(self) {
        // It may be gone before it has answered.
        self.command("systemctl", &["poweroff", "--no-block"]);
        assert!(ends_within(&self.unshare, LIMIT), "it does not go down");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its pid 1 goes with it, and all that is in its pid namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let gone = wait_for("its cgroups to be empty", LIMIT, || remove_tree(&self.cgroup).then_some(()));
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
