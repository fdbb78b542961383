//! A host that systemd has booted goes down and comes back, with LXC's units of Debian and ours.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::enter::PROGRAMS;
use crate::harness::gate::Gate;
use crate::harness::machine::{CGROUP, Host, LIMIT, Machine};
use crate::harness::run::wait_for;
use crate::scenario::suspend::{marker, prepared};

/// Three come back as they were, one of them in a unit of its own; two cannot, boot, and the
/// journal says why. What the check says to do for one of them helps.
pub fn a_host_with_systemd_goes_down_and_comes_back(world: &World) {
    if Machine::is_missing() {
        return;
    }
    let (one, two) = (with_mac(world, "one", "").memory(16), with_mac(world, "two", ""));
    let (in_unit, cannot) =
        (with_mac(world, "in-unit", "lxc.start.auto = 0\n"), with_mac(world, "cannot", ""));
    let at_journal = with_mac(world, "at-journal", "lxc.start.auto = 0\n");
    let culprits = Culprits::put_into(&cannot);
    let machine = Machine::install(world, &["in-unit", "at-journal"]);
    // As without our drop-in, which comes before by its name.
    let own = machine.dir.join("etc/systemd/system/lxc@at-journal.service.d");
    fs::create_dir(&own).unwrap();
    fs::write(
        own.join("made-as-debian.conf"),
        "[Service]\nStandardOutput=journal\nStandardError=inherit\n",
    )
    .unwrap();

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
    for container in [&cannot, &at_journal] {
        let goodbye = fs::read_to_string(container.rootfs().join("var/log/messages")).unwrap();
        assert!(
            goodbye.contains("syslogd exiting"),
            "{} was not shut down cleanly: {goodbye}",
            container.name()
        );
    }
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

/// A prepared container with a hardware address that outlives a boot: others go on sending to the
/// one that they know.
fn with_mac<'w>(world: &'w World, name: &str, more: &str) -> Container<'w> {
    let number =
        name.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [high, low] = number.to_be_bytes();
    prepared(world, name, &format!("lxc.network.hwaddr = 00:16:3e:00:{high:02x}:{low:02x}\n{more}"))
}

/// What the only finding on a container says can be done: the command after the words.
fn remedy(host: &Host, container: &Container) -> String {
    let lxcpath = container.dir().parent().unwrap().to_string_lossy().into_owned();
    let program = format!("{PROGRAMS}/lxc-cr");
    let told = host.command(&program, &["check", "--json", "-P", &lxcpath, "-n", container.name()]);
    let json: serde_json::Value =
        serde_json::from_str(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(1), "{json:#}");
    json["findings"][0]["remedy"].as_str().unwrap().split_once(": ").unwrap().1.to_owned()
}

/// Each is suspended or runs, never between, whatever comes in the middle: at boot and at shutdown,
/// a second shutdown, one that waits for nobody, and both units stopped. What was suspended is
/// there after the next boot.
pub fn a_second_shutdown_leaves_nothing_between(world: &World) {
    if Machine::is_missing() {
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
    assert_all_are("STOPPED", &all, &machine);
    host.run("systemctl", &["stop", "lxc-cr-resume.service"]);
    gate.arm();
    host.run(
        "systemctl",
        &["start", "--no-block", "lxc-cr-resume.service", "lxc-cr-suspend.service"],
    );
    let waiting = gate.wait();
    host.run(
        "systemctl",
        &["stop", "--no-block", "lxc-cr-resume.service", "lxc-cr-suspend.service"],
    );
    host.wait_until("lxc-cr-resume.service", "deactivating");
    waiting.let_through();
    host.wait_until("lxc-cr-resume.service", "failed");
    assert_all_are("STOPPED", &all, &machine);
    host.run("systemctl", &["start", "lxc-cr-resume.service", "lxc-cr-suspend.service"]);
    for (witness, before) in witnesses.iter_mut().zip(&before) {
        witness.assert_goes_on_from(before);
    }
    host.run("systemctl", &["stop", "--no-block", "lxc-cr-suspend.service"]);
    wait_for("something to be half done", LIMIT, || half_done(&all).then_some(())).unwrap();
    // What works for it, not CRIU.
    host.run("systemctl", &["kill", "--kill-whom", "control", "lxc-cr-suspend.service"]);
    host.wait_until("lxc-cr-suspend.service", "failed");
    assert_none_is_between(&all, &machine);
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
    // A unit of LXC's has started as soon as lxc-start has, which then starts the container.
    all.iter().for_each(|container| container.wait_state("RUNNING"));
    assert_all_are("RUNNING", &all, &machine);
    for ((container, witness), (before, suspended)) in
        all.iter().zip(&mut witnesses).zip(before.iter().zip(suspended))
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

#[track_caller]
fn assert_all_are(state: &str, containers: &[&Container; 3], machine: &Machine) {
    assert_none_is_between(containers, machine);
    for container in containers {
        let journal = || machine.journal(&["-b"]);
        assert!(container.state() == state, "{}:\n{}", container.name(), journal());
    }
}

/// Either suspended, or running and not to be resumed.
#[track_caller]
fn assert_none_is_between(containers: &[&Container; 3], machine: &Machine) {
    for container in containers {
        let expected = if marker(container).exists() { "STOPPED" } else { "RUNNING" };
        let state = container.state();
        let journal = || machine.journal(&["-b"]);
        assert!(state == expected, "{} is {state}:\n{}", container.name(), journal());
    }
    assert!(!half_done(containers));
}
