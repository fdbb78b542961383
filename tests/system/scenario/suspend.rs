//! A shutdown and the next boot: `lxc-cr suspend --all`, `lxc-cr resume --all`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::enter::PROGRAMS;
use crate::harness::gate::Gate;
use crate::harness::run::{Output, Run, wait_for};

/// For a command to get somewhere.
const LIMIT: Duration = Duration::from_secs(20);
/// For many containers, one after the other.
const LONG: Duration = Duration::from_secs(90);

/// The administrator's settings, as long as this lives.
pub struct Settings;

impl Settings {
    const FILE: &'static str = "/etc/lxc/lxc-cr.toml";

    pub fn with(text: &str) -> Settings {
        fs::write(Self::FILE, text).unwrap();
        fs::set_permissions(Self::FILE, fs::Permissions::from_mode(0o644)).unwrap();
        Settings
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::FILE);
    }
}

/// A container that is prepared, and has these lines besides.
pub fn prepared<'w>(world: &'w World, name: &str, more: &str) -> Container<'w> {
    let hook = format!("lxc.hook.pre-start = {PROGRAMS}/lxc-cr-pre-start\n");
    world.container_named(name).configure(&format!("{hook}lxc.start.auto = 1\n{more}"))
}

fn all(world: &World, subcommand: &str) -> Run {
    Run::ours("lxc-cr").args([subcommand, "--all", "-P"]).arg(world.lxcpath()).limit(LONG)
}

pub fn marker(container: &Container) -> PathBuf {
    container.dir().join("dump/lxc-cr.resume")
}

/// What `lxc-cr list` and `lxc-cr show` say of its checkpoint, to people and to programs: all four
/// the same.
fn is_told_to_be_resumed(container: &Container) -> bool {
    let json = |subcommand| -> serde_json::Value {
        serde_json::from_str(&container.lxc_cr(subcommand).arg("--json").ok().stdout).unwrap()
    };
    let told = [
        container.lxc_cr("list").ok().stdout.contains(" to be resumed "),
        container.lxc_cr("show").ok().stdout.contains("\nmarked      to be resumed"),
        json("list")["checkpoints"][0]["to_be_resumed"].as_bool().unwrap(),
        json("show")["to_be_resumed"].as_bool().unwrap(),
    ];
    assert!(told.iter().all(|t| *t == told[0]), "{told:?}");
    told[0]
}

/// The names with which lines begin, in their order.
fn order(output: &Output) -> Vec<&str> {
    output
        .stdout
        .lines()
        .filter_map(|l| l.split_once(": "))
        .map(|(name, _)| name)
        .filter(|n| *n != "hint")
        .collect()
}

/// Those that can go to the disk and come back as they were; one that cannot is shut down and
/// boots. Nobody else is touched.
pub fn all_come_back_as_they_were(world: &World) {
    let _settings = Settings::with("suspend = true\n[container.stays]\nsuspend = false\n");
    let early = prepared(world, "early", "lxc.start.order = 1\n").memory(16);
    let late = prepared(world, "late", "lxc.start.order = 7\n");
    let middle = prepared(world, "middle", "lxc.start.order = 5\n");
    let blocked = prepared(world, "blocked", "lxc.start.order = 6\n");
    let culprits = Culprits::put_into(&blocked);
    let stays = prepared(world, "stays", "");
    let unnoticed = world.container_named("unnoticed");
    let not_at_boot = prepared(world, "not-at-boot", "lxc.start.auto = 0\nlxc.start.order = 9\n");
    for container in [&early, &late, &middle, &blocked, &stays, &unnoticed, &not_at_boot] {
        container.start();
    }
    culprits.make("uts").unwrap();
    let mut connections: Vec<_> =
        [&early, &late, &middle, &not_at_boot].map(|c| (c.witness(), c)).into();
    let before: Vec<_> = connections.iter_mut().map(|(witness, _)| witness.status()).collect();
    let stayed = stays.init_pid();

    let told = all(world, "suspend").output();
    told.assert_code(4);
    assert_eq!(order(&told)[..3], ["not-at-boot", "late", "lxc-cr"], "{told}");
    assert_eq!(
        order(&told).iter().filter(|n| ["middle", "early"].contains(n)).collect::<Vec<_>>(),
        [&"middle", &"early"]
    );
    for text in [
        "lxc-cr: blocked: not suspended: it cannot be checkpointed: process ",
        "now: it was shut down",
        "lxc-cr: unnoticed: not suspended: lxc-cr-pre-start is not among its hooks",
        "late: suspended: ",
    ] {
        assert!(told.stdout.contains(text), "{text}: {told}");
    }
    assert_eq!(stays.init_pid(), stayed);
    for container in [&early, &late, &middle, &not_at_boot] {
        assert_eq!(container.state(), "STOPPED");
        assert!(marker(container).exists());
    }
    for container in [&blocked, &unnoticed] {
        assert_eq!(container.state(), "STOPPED");
        assert!(!container.dir().join("dump").exists());
    }
    let goodbye = fs::read_to_string(blocked.rootfs().join("var/log/messages")).unwrap();
    assert!(goodbye.contains("syslogd exiting"), "it was not shut down cleanly: {goodbye}");
    connections.iter_mut().for_each(|(witness, _)| witness.send("said meanwhile"));

    let told = all(world, "resume").ok();
    // What the shutdown has suspended comes back, whatever LXC starts by itself.
    assert_eq!(order(&told), ["early", "middle", "late", "not-at-boot"], "{told}");
    for ((witness, container), before) in connections.iter_mut().zip(&before) {
        assert_eq!(witness.receive(), "said meanwhile");
        witness.assert_goes_on_from(before);
        assert!(!marker(container).exists());
    }
    // What LXC does at boot then.
    let running = [early.init_pid(), late.init_pid(), middle.init_pid()];
    assert_eq!(blocked.state(), "STOPPED");
    Run::new("lxc-autostart").arg("-P").arg(world.lxcpath()).ok();
    assert_eq!([early.init_pid(), late.init_pid(), middle.init_pid()], running);
    blocked.wait_state("RUNNING");
    blocked.witness().echo("booted");
    assert_eq!(order(&all(world, "resume").ok()), [""; 0]);
    // What was suspended by hand waits for that hand.
    not_at_boot.lxc_cr("suspend").ok();
    let told = all(world, "resume").ok();
    assert!(told.stdout.contains("not-at-boot: it stays suspended: "), "{told}");
    not_at_boot.lxc_cr("resume").ok();
    for container in [&early, &late, &middle, &blocked, &stays, &not_at_boot] {
        container.kill();
    }
}

/// The groups and the order among them are those of `lxc-autostart`, a delay is waited.
pub fn groups_and_delays_are_those_of_lxc(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let plain = prepared(world, "plain", "");
    let onboot = prepared(
        world,
        "onboot",
        "lxc.start.order = 9\nlxc.start.delay = 1\nlxc.group = onboot other\n",
    );
    let foreign = prepared(world, "foreign", "lxc.group = onboot2\n");
    for container in [&plain, &onboot, &foreign] {
        container.start();
    }
    all(world, "suspend").ok();
    let told = all(world, "resume").args(["-g", "onboot,"]).ok();
    assert_eq!(order(&told), ["onboot", "plain"], "{told}");
    assert!(told.took >= Duration::from_secs(1), "the delay was not waited: {told}");
    assert!(marker(&foreign).exists());
    assert_eq!(order(&all(world, "resume").ok()), ["foreign"]);
    for container in [&plain, &onboot, &foreign] {
        container.kill();
    }
}

/// What was suspended is of the past as soon as the container has run again, however that came.
pub fn nothing_stale_comes_back(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let container = prepared(world, "stale", "");
    let resume = || container.lxc_cr("resume");
    container.start();
    container.lxc_cr("suspend").ok();
    assert!(is_told_to_be_resumed(&container));

    // LXC starts it: what is on its disk is newer now.
    container.start().kill();
    assert!(!marker(&container).exists() && !is_told_to_be_resumed(&container));
    let told = resume().output();
    told.assert_code(3);
    assert!(told.stderr.contains("it is not suspended"), "{told}");
    assert_eq!(
        (order(&all(world, "resume").ok()), container.state()),
        (vec![], "STOPPED".to_owned())
    );

    // A start that fails before anything of it runs has changed nothing.
    container.start();
    container.lxc_cr("suspend").ok();
    Run::new("ip").args(["link", "set", "br0", "name", "br1"]).ok();
    assert!(!container.lxc("lxc-start").args(["-d"]).output().success());
    Run::new("ip").args(["link", "set", "br1", "name", "br0"]).ok();
    resume().ok();

    // A suspension that is not one of ours.
    container.ours("lxc-checkpoint").ok();
    assert!(!marker(&container).exists());
    container.ours("lxc-restart").ok();

    // Restarted by hand, and then killed.
    container.lxc_cr("suspend").ok();
    container.ours("lxc-restart").ok();
    container.kill();
    resume().output().assert_code(3);

    // Started without our hook by another configuration: it runs, and is left alone.
    container.start();
    container.lxc_cr("suspend").ok();
    let config = fs::read_to_string(container.dir().join("config")).unwrap();
    let bare: Vec<&str> = config.lines().filter(|l| !l.contains("lxc-cr-pre-start")).collect();
    let other = world.lxcpath().join("images/other.conf");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, bare.join("\n") + "\n").unwrap();
    container.lxc("lxc-start").arg("-d").arg("-f").arg(&other).ok();
    container.wait_state("RUNNING");
    let init = container.init_pid();
    let told = resume().output();
    told.assert_code(3);
    assert!(told.stderr.contains("it is running"), "{told}");
    assert_eq!(container.init_pid(), init);
    assert!(!marker(&container).exists());
    container.kill();
}

/// What cannot be resumed boots, and the reason is reported.
pub fn what_cannot_be_resumed_boots(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let container = prepared(world, "fails", "");
    container.start();
    let break_it: [(&dyn Fn(), i32, &str); 2] = [
        (&|| container.append_config("lxc.net.0.mtu = 1400\n"), 9, "lxc.net.0.mtu was not set"),
        (&|| damage(&container.dir().join("dump")), 9, "damaged"),
    ];
    for (break_it, code, reason) in break_it {
        let mut old = container.witness();
        old.echo("before");
        container.lxc_cr("suspend").ok();
        break_it();
        let told = all(world, "resume").output();
        told.assert_code(code);
        for text in ["fails: not resumed: ", reason, "now: it was started afresh"] {
            assert!(told.stdout.contains(text), "{text}: {told}");
        }
        assert!(
            !marker(&container).exists() && container.dir().join("dump/inventory.img").exists()
        );
        container.wait_state("RUNNING");
        container.witness().echo("afresh");
    }
    container.kill();
}

fn damage(images: &Path) {
    let pages = fs::read_dir(images).unwrap().flatten().map(|e| e.path());
    let pages = pages
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pages-")))
        .max()
        .unwrap();
    let mut bytes = fs::read(&pages).unwrap();
    bytes[0] ^= 1;
    fs::write(&pages, bytes).unwrap();
}

/// The next shutdown comes while the last one's containers come back; and somebody interrupts a
/// suspension.
pub fn a_shutdown_in_the_middle_loses_nothing(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let gate = Gate::make(&world.images("gate"));
    let first = prepared(world, "first", "lxc.start.order = 1\n");
    let second = prepared(
        world,
        "second",
        &format!("lxc.start.order = 2\nlxc.hook.pre-start = {}\n", gate.script().display()),
    );
    let third = prepared(world, "third", "lxc.start.order = 3\n");
    let containers = [&first, &second, &third];
    for container in &containers {
        container.start();
    }
    let mut witnesses = containers.map(Container::witness);
    let before = witnesses.each_mut().map(|w| w.status());
    all(world, "suspend").ok();

    gate.arm();
    let mut resume = all(world, "resume").spawn();
    let waiting = gate.wait();
    assert_eq!(first.state(), "RUNNING");
    kill(Pid::from_raw(resume.id().cast_signed()), Signal::SIGTERM).unwrap();
    waiting.let_through();
    assert!(!resume.wait().unwrap().success());

    for container in containers {
        assert_eq!(container.state(), "STOPPED", "{}", container.name());
        assert!(marker(container).exists(), "{}", container.name());
    }
    all(world, "resume").ok();
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }

    // Interrupted, the suspension leaves each of them suspended or running, and the next one
    // completes it.
    let mut suspend = all(world, "suspend").args(["--jobs", "1"]).spawn();
    wait_for("the third one to be suspended", LIMIT, || marker(&third).exists().then_some(()))
        .unwrap();
    kill(Pid::from_raw(suspend.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(!suspend.wait().unwrap().success());
    assert_eq!(third.state(), "STOPPED");
    for container in containers {
        assert_eq!(
            marker(container).exists(),
            container.state() == "STOPPED",
            "{}",
            container.name()
        );
    }
    assert_eq!(first.state(), "RUNNING");

    // Killed, with all that works for it: what is half done is undone by the next one.
    let mut suspend = all(world, "suspend").args(["--jobs", "1"]).spawn();
    wait_for("something to be half done", LIMIT, || half_done(&containers).then_some(())).unwrap();
    kill(Pid::from_raw(suspend.id().cast_signed()), Signal::SIGKILL).unwrap();
    suspend.wait().unwrap();
    wait_for("its programs to end", LIMIT, || (!half_done(&containers)).then_some(())).unwrap();
    all(world, "suspend").ok();
    for container in containers {
        assert_eq!(container.state(), "STOPPED", "{}", container.name());
        assert!(marker(container).exists(), "{}", container.name());
    }
    all(world, "resume").ok();
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }
    containers.iter().for_each(|c| c.kill());
}

fn half_done(containers: &[&Container; 3]) -> bool {
    containers.iter().any(|c| c.dir().join("dump.partial").exists())
}

/// Twenty at once and one after the other.
pub fn many_go_side_by_side(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let containers: Vec<_> =
        (1..=20).map(|n| prepared(world, &format!("many-{n:02}"), "").memory(8)).collect();
    for container in &containers {
        container.start();
    }
    let mut witnesses: Vec<_> = containers.iter().map(Container::witness).collect();
    let before: Vec<_> = witnesses.iter_mut().map(|w| w.status()).collect();
    let mut took = [0.0; 2];
    for (jobs, total) in ["1", "0"].iter().zip(&mut took) {
        for subcommand in ["suspend", "resume"] {
            let told = all(world, subcommand).args(["--jobs", jobs]).ok();
            assert_eq!(order(&told).len(), containers.len(), "{told}");
            println!(
                "{} containers, {subcommand} --jobs {jobs}: {:.2} s",
                containers.len(),
                told.took.as_secs_f64()
            );
            *total += told.took.as_secs_f64();
        }
    }
    println!(
        "side by side in {:.0} % of the time that they take one after the other",
        100.0 * took[1] / took[0]
    );
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }
    // What is left of it is the processors' work, and others may have them: only the direction is
    // certain.
    assert!(took[1] < took[0], "{took:?}");
    containers.iter().for_each(Container::kill);
}

/// What `journalctl CONTAINER_NAME=…` shows: a life with a suspension in it, and why one was not
/// suspended.
pub fn the_journal_tells_of_each_container(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let hooks = format!(
        "lxc.hook.start-host = {PROGRAMS}/lxc-cr-start-host\nlxc.hook.post-stop = \
         {PROGRAMS}/lxc-cr-post-stop\n"
    );
    let kept = prepared(world, "kept", &hooks);
    let blocked = prepared(world, "told-why", "");
    let culprits = Culprits::put_into(&blocked);
    // Where nobody listens, nothing is missed.
    kept.start();
    let journal = Journal::listen();
    blocked.start();
    culprits.make("uts").unwrap();
    all(world, "suspend").output().assert_code(4);
    all(world, "resume").ok();
    kept.kill();
    // The monitor says so when all is done.
    kept.start();
    kept.ours("lxc-restart").arg("-D").arg(world.images("none").join("x")).output().assert_code(9);
    let entries = journal.read();
    let shown = |name: &str| -> Vec<String> {
        let of = entries.iter().filter(|e| e.get("CONTAINER_NAME").is_some_and(|n| n == name));
        of.map(|e| format!("{} {}: {}", e["PRIORITY"], e["SYSLOG_IDENTIFIER"], e["MESSAGE"]))
            .collect()
    };
    let of_kept = shown("kept");
    for begin in [
        "6 lxc-cr-post-stop: it has ended",
        "6 lxc-cr: suspended: ",
        "6 lxc-monitor: it runs again from ",
        "6 lxc-monitor: it has ended",
        "6 lxc-cr-start-host: it starts: init is process ",
        "3 lxc-restart: open ",
    ] {
        assert!(of_kept.iter().any(|line| line.starts_with(begin)), "{begin}: {of_kept:#?}");
    }
    let of_blocked = shown("told-why");
    let why = of_blocked.iter().find(|line| line.starts_with("3 lxc-cr: not suspended: ")).unwrap();
    assert!(
        why.contains("a uts namespace of its own") && why.contains("now: it was shut down"),
        "{of_blocked:#?}"
    );
    let path = world.lxcpath().to_string_lossy().into_owned();
    assert!(entries.iter().all(|e| e.get("LXC_PATH").is_none_or(|p| *p == path)), "{entries:#?}");
    kept.kill();
}

/// Stands in for systemd's journal, of which the test host has none.
struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    const DIR: &'static str = "/run/systemd/journal";

    fn listen() -> Journal {
        fs::create_dir_all(Self::DIR).unwrap();
        // As systemd sets it: it is read at the end.
        fs::write("/proc/sys/net/unix/max_dgram_qlen", "512").unwrap();
        let socket = UnixDatagram::bind(format!("{}/socket", Self::DIR)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Journal { socket }
    }

    /// The entries that have come, as fields. (All of ours are on one line.)
    fn read(&self) -> Vec<BTreeMap<String, String>> {
        let mut entries = Vec::new();
        let mut bytes = [0; 65536];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            let fields = text.lines().filter_map(|l| l.split_once('='));
            entries.push(fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
        }
        entries
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Self::DIR);
        let _ = fs::remove_dir("/run/systemd");
    }
}

/// Asked for by name, what cannot be suspended is still running; at the end of the host it is shut
/// down.
pub fn what_cannot_be_suspended_keeps_running(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let told = container.lxc_cr("suspend").output();
    told.assert_code(4);
    let name = container.name();
    assert!(
        told.stderr.contains("lxc-cr prepare")
            && told.stderr.contains(&format!("now: {name} is running")),
        "{told}"
    );
    assert_eq!(container.state(), "RUNNING");
    witness.assert_goes_on_from(&before);
    let told = container.lxc_cr("suspend").arg("--or-shut-down").limit(LONG).output();
    told.assert_code(4);
    assert!(told.stderr.contains("now: it was shut down"), "{told}");
    assert_eq!(container.state(), "STOPPED");
}
