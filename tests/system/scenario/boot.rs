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
use crate::harness::gate::Gate;
use crate::harness::run::{Output, Run, ends_within, wait_for};
use crate::harness::{World, cgroups};
use crate::scenario::suspend::{marker, prepared};

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

/// Three come back as they were, one of them in a unit of its own; two cannot, boot, and the journal says why. What the
/// check says to do for one of them helps.
pub fn a_host_with_systemd_goes_down_and_comes_back(world: &World) {
    if !Path::new(SYSTEMD).exists() {
        eprintln!("not tried here: the test host has no systemd");
        return;
    }
    let (one, two) = (with_mac(world, "one", "").memory(16), with_mac(world, "two", ""));
    let (in_unit, cannot) = (with_mac(world, "in-unit", "lxc.start.auto = 0\n"), with_mac(world, "cannot", ""));
    let at_journal = with_mac(world, "at-journal", "lxc.start.auto = 0\n");
    let culprits = Culprits::put_into(&cannot);
    let machine = Machine::install(world, &["in-unit", "at-journal"]);
    // As without our drop-in, which comes before by its name.
    let own = machine.dir.join("etc/systemd/system/lxc@at-journal.service.d");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("made-as-debian.conf"), "[Service]\nStandardOutput=journal\nStandardError=inherit\n").unwrap();

    let host = machine.boot();
    let mut connections = [&one, &two, &in_unit].map(Container::witness);
    let before = connections.each_mut().map(|witness| witness.status());
    culprits.make("uts").unwrap();
    let remedy = remedy(&host, &at_journal);
    host.shut_down();
    for container in [&one, &two, &in_unit] {
        assert!(marker(container).exists(), "{}:\n{}", container.name(), machine.journal(&[]));
    }
    assert!(!cannot.dir().join("dump").exists() && !at_journal.dir().join("dump").exists());
    let why = machine.journal(&["CONTAINER_NAME=at-journal", "-p", "err"]);
    assert!(why.contains("its standard output") && why.contains("(systemd-journal)"), "{why}");
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
    at_journal.witness().echo("booted afresh");
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
    host.run("sh", &["-c", &remedy]);
    host.run("systemctl", &["restart", "lxc@at-journal.service"]);
    at_journal.witness().echo("without the journal");
    host.shut_down();
    assert!(marker(&one).exists() && marker(&at_journal).exists());
}

/// A prepared container with a hardware address that outlives a boot: others go on sending to the one that they know.
fn with_mac<'w>(world: &'w World, name: &str, more: &str) -> Container<'w> {
    let number = name.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [high, low] = number.to_be_bytes();
    prepared(world, name, &format!("lxc.network.hwaddr = 00:16:3e:00:{high:02x}:{low:02x}\n{more}"))
}

/// What the only finding on a container says can be done: the command after the words.
fn remedy(host: &Host, container: &Container) -> String {
    let lxcpath = container.dir().parent().unwrap().to_string_lossy().into_owned();
    let program = format!("{PROGRAMS}/lxc-cr");
    let told = host.command(&program, &["check", "--json", "-P", &lxcpath, "-n", container.name()]);
    let json: serde_json::Value = serde_json::from_str(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(1), "{json:#}");
    json["findings"][0]["remedy"].as_str().unwrap().split_once(": ").unwrap().1.to_owned()
}

/// Each is suspended or runs, never between, whatever comes in the middle: at boot and at shutdown, a second shutdown,
/// one that waits for nobody, and both units stopped. What was suspended is there after the next boot.
pub fn a_second_shutdown_leaves_nothing_between(world: &World) {
    if !Path::new(SYSTEMD).exists() {
        eprintln!("not tried here: the test host has no systemd");
        return;
    }
    let gate = Gate::make(&world.images("gate"));
    let waits = format!("lxc.hook.pre-start = {}\n", gate.script().display());
    let first = with_mac(world, "first", "lxc.start.order = 1\n").memory(64);
    let second = with_mac(world, "second", &format!("lxc.start.order = 2\n{waits}"));
    let in_unit = with_mac(world, "in-unit", "lxc.start.auto = 0\n");
    let all = [&first, &second, &in_unit];
    let machine = Machine::install(world, &["in-unit"]);
    let host = machine.boot();
    let mut witnesses = all.map(Container::witness);
    let before = witnesses.each_mut().map(|witness| witness.status());
    host.shut_down();

    // The boot has brought back the first of them.
    gate.arm();
    let host = machine.start();
    let waiting = gate.wait();
    assert_eq!(first.state(), "RUNNING");
    host.ask_to_shut_down();
    host.wait_until("lxc-cr-resume.service", "deactivating");
    host.ask_to_shut_down();
    waiting.let_through();
    host.wait_for_its_end();
    for container in all {
        assert!(marker(container).exists(), "{}:\n{}", container.name(), machine.journal(&["-b"]));
    }

    // Both units are stopped while they work.
    let host = machine.boot();
    host.run("systemctl", &["stop", "lxc-cr-suspend.service"]);
    assert_all_are("STOPPED", &all);
    host.run("systemctl", &["stop", "lxc-cr-resume.service"]);
    gate.arm();
    host.run("systemctl", &["start", "--no-block", "lxc-cr-resume.service", "lxc-cr-suspend.service"]);
    let waiting = gate.wait();
    host.run("systemctl", &["stop", "--no-block", "lxc-cr-resume.service", "lxc-cr-suspend.service"]);
    host.wait_until("lxc-cr-resume.service", "deactivating");
    waiting.let_through();
    host.wait_until("lxc-cr-resume.service", "failed");
    assert_all_are("STOPPED", &all);
    host.run("systemctl", &["start", "lxc-cr-resume.service", "lxc-cr-suspend.service"]);
    in_unit.lxc_cr("resume").ok();
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }
    host.run("systemctl", &["stop", "--no-block", "lxc-cr-suspend.service"]);
    wait_for("something to be half done", LIMIT, || half_done(&all).then_some(())).unwrap();
    // What works for it, not CRIU.
    host.run("systemctl", &["kill", "--kill-whom", "control", "lxc-cr-suspend.service"]);
    host.wait_until("lxc-cr-suspend.service", "failed");
    assert_none_is_between(&all);
    for container in all.iter().filter(|c| marker(c).exists()) {
        container.lxc_cr("resume").ok();
    }
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }

    // A shutdown that waits for nobody, in the middle of one: all is killed, CRIU too.
    host.run("systemctl", &["start", "lxc-cr-suspend.service"]);
    host.ask_to_shut_down();
    wait_for("something to be half done", LIMIT, || half_done(&all).then_some(())).unwrap();
    host.command("systemctl", &["poweroff", "--force"]);
    host.wait_for_its_end();
    let suspended = all.map(|container| marker(container).exists());
    let host = machine.boot();
    assert_all_are("RUNNING", &all);
    for ((container, witness), (before, suspended)) in all.iter().zip(&mut witnesses).zip(before.iter().zip(suspended))
    {
        if suspended {
            witness.assert_goes_on_from(before);
        } else {
            container.witness().echo("booted afresh");
        }
    }
    host.shut_down();
}

fn half_done(containers: &[&Container; 3]) -> bool {
    containers.iter().any(|c| c.dir().join("dump.partial").exists())
}

fn assert_all_are(state: &str, containers: &[&Container; 3]) {
    assert_none_is_between(containers);
    containers.iter().for_each(|c| assert_eq!(c.state(), state, "{}", c.name()));
}

/// Either suspended, or running and not to be resumed.
fn assert_none_is_between(containers: &[&Container; 3]) {
    for container in containers {
        let expected = if marker(container).exists() { "STOPPED" } else { "RUNNING" };
        assert_eq!(container.state(), expected, "{}", container.name());
    }
    assert!(!half_done(containers));
}

/// The cgroup that is the booted host's root.
const CGROUP: &str = "booted";

/// What of the booted host outlives a reboot.
struct Machine {
    dir: PathBuf,
}

impl Machine {
    /// Writes its /etc: LXC's containers are those of the world, our units are enabled.
    fn install(world: &World, in_units: &[&str]) -> Machine {
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
        for name in in_units {
            symlink("/usr/lib/systemd/system/lxc@.service", wanted.join(format!("lxc@{name}.service"))).unwrap();
        }
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
        let host = self.start();
        let is_up = || host.command("systemctl", &["is-active", "multi-user.target"]).success().then_some(());
        let up = wait_for("the host to be up", LIMIT, is_up);
        up.unwrap_or_else(|e| panic!("{e}\n{}\n{}", host.command("systemctl", &["list-jobs"]), self.journal(&[])));
        host
    }

    /// Boots it, and waits for its first process.
    fn start(&self) -> Host {
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
        self.ask_to_shut_down();
        self.wait_for_its_end();
    }

    fn ask_to_shut_down(&self) {
        // It may be gone before it has answered.
        self.command("systemctl", &["poweroff", "--no-block"]);
    }

    fn wait_for_its_end(self) {
        assert!(ends_within(&self.unshare, LIMIT), "it does not go down");
    }

    /// Waits for a unit to get into a state.
    fn wait_until(&self, unit: &str, state: &str) {
        let is = || self.command("systemctl", &["is-active", unit]).stdout.trim() == state;
        wait_for(&format!("{unit} to be {state}"), LIMIT, || is().then_some(())).unwrap();
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
