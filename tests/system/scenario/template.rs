//! Containers as a user has them: LXC's own configuration, as its download template writes it, and
//! a root with systemd, made ready by `lxc-cr prepare` alone, on a host that systemd has booted.

use crate::harness::World;
use crate::harness::machine::{Host, Machine};
use crate::harness::mounts::{describe, differences};
use crate::harness::run::Run;
use crate::harness::template::Template;

/// One is started by `lxc@.service`, with an id map, the other by hand. Each is suspended, resumed
/// and checkpointed again, and has the same mounts each time, with what they receive from the host.
pub fn of_lxc_come_back_on_a_host_with_systemd(world: &World) {
    if Machine::is_missing() {
        return;
    }
    let in_unit = Template::unprivileged(world, "in-unit", 71);
    let by_hand = Template::privileged(world, "by-hand", 72);
    let machine = Machine::install(world, &[in_unit.name()]);
    let installed = world.installed();
    for container in [&in_unit, &by_hand] {
        let prepare = Run::new(&installed.lxc_cr().to_string_lossy())
            .args(["prepare", "-P"])
            .arg(world.lxcpath());
        prepare.args(["-n", container.name()]).ok();
    }
    let host = machine.boot();
    host.in_it(by_hand.lxc("lxc-start")).ok();
    for container in [&in_unit, &by_hand] {
        comes_back(&host, container);
    }
    host.run("systemctl", &["is-active", "lxc-cr-resume.service"]);
    assert_eq!(host.run("systemctl", &["--failed", "--no-legend"]).stdout, "");
    host.in_it(by_hand.lxc("lxc-stop")).ok();
    host.shut_down();
}

fn comes_back(host: &Host, container: &Template<'_>) {
    let name = container.name();
    let ours = |program: &str| host.in_it(container.ours(program)).ok();
    let lxc_cr = |subcommand: &str| host.in_it(container.lxc_cr(subcommand)).ok();
    let mut witness = container.witness();
    let state = container.wait_up(host);
    let before = mounts(host, container);
    assert!(
        before.iter().any(|line| line.contains("receives from the host's")),
        "{name}: {before:#?}"
    );
    let mut status = witness.status();
    for how in ["suspend", "checkpoint"] {
        let told = lxc_cr("check");
        assert!(told.stdout.contains("can be checkpointed"), "{told}");
        if how == "suspend" {
            lxc_cr("suspend");
            lxc_cr("resume");
        } else {
            ours("lxc-checkpoint");
            ours("lxc-restart");
        }
        let wrong = differences(&before, &mounts(host, container));
        assert!(wrong.is_empty(), "{name} after {how}:\n{}", wrong.join("\n"));
        assert_eq!(container.wait_up(host), state, "{name} after {how}");
        status = witness.assert_goes_on_from(&status);
    }
}

fn mounts(host: &Host, container: &Template<'_>) -> Vec<String> {
    let init = host.in_it(container.lxc("lxc-info").args(["-p", "-H"])).ok().stdout;
    describe(&host.proc(&format!("{}/mountinfo", init.trim())), &host.proc("1/mountinfo"))
}
