//! LXC's own `lxc-checkpoint` and ours on the same container, and the story of LXC's own test of
//! it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::World;
use crate::harness::run::{Output, PATH, Run, wait_for};

/// For a container to get somewhere.
const LIMIT: Duration = Duration::from_secs(20);

/// Who dumps and who restores takes turns, and the connection goes on.
pub fn lxcs_tool_and_ours_take_turns(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let dir = world.images("turns");
    let images = |name: &str| dir.join(name);
    let of_ours =
        |name: &str| container.ours("lxc-checkpoint").arg("-s").arg("-D").arg(images(name)).ok();
    let of_lxcs = |name: &str| {
        let told = container.stock_checkpoint([Path::new("-s"), Path::new("-D"), &images(name)]);
        assert!(told.success(), "{told}");
        container.wait_state("STOPPED");
        told
    };
    let by_ours = |name: &str| container.ours("lxc-restart").arg("-D").arg(images(name)).ok();
    let by_lxcs = |name: &str| {
        let told = container.stock_checkpoint([Path::new("-r"), Path::new("-D"), &images(name)]);
        assert!(told.success(), "{told}");
        told
    };
    type Step<'a> = &'a dyn Fn(&str) -> Output;
    // Last, LXC's tool dumps what we have restored. What LXC's has restored it cannot dump itself
    // (lxc#4643).
    let rounds: [(&str, Step, Step); 4] = [
        ("ours-lxcs", &of_ours, &by_lxcs),
        ("ours-ours", &of_ours, &by_ours),
        ("lxcs-ours", &of_lxcs, &by_ours),
        ("lxcs-lxcs", &of_lxcs, &by_lxcs),
    ];
    for (name, dump, restore) in rounds {
        dump(name);
        restore(name);
        container.wait_state("RUNNING");
        // Not its timer: after a restore by LXC's tool that may never expire again.
        witness.send(name);
        assert_eq!(witness.receive(), name);
    }
    container.kill();
}

/// `lxc-test-checkpoint-restore` of LXC's sources, with our commands first in PATH: a container as
/// LXC's busybox template makes it, with that test's lines. After that it is as confined as before,
/// and on its bridge.
pub fn the_story_of_lxcs_own_test(world: &World) {
    let _bridge = Bridge::make("lxcbr0");
    let name = "lxc-test-criu";
    let path = format!("/opt/lxc-cr:{PATH}");
    let run = |program: &str, arguments: &[&str]| {
        Run::new(program)
            .env("PATH", &path)
            .arg("-P")
            .arg(world.lxcpath())
            .args(["-n", name])
            .args(arguments)
    };
    run("lxc-create", &["-t", "busybox"]).ok();
    let config = world.lxcpath().join(name).join("config");
    let text = fs::read_to_string(&config).unwrap();
    let lines = "lxc.console.path = none\nlxc.tty.max = 0\nlxc.cgroup2.devices.deny = c 5:1 rwm\n";
    fs::write(&config, format!("{text}# hax for criu\n{lines}")).unwrap();
    run("lxc-start", &["-d"]).ok();
    run("lxc-wait", &["-s", "RUNNING", "-t", "20"]).ok();
    let pid = || run("lxc-info", &["-p", "-H"]).ok().stdout.trim().to_owned();
    wait_for("it to boot", LIMIT, || {
        let told = run("lxc-attach", &["--", "/bin/ps"]).output().stdout;
        told.contains("udhcpc").then_some(())
    })
    .unwrap();
    let before = (mounts(&pid()), denied(&pid()));
    assert!(before.0.iter().any(|m| m.starts_with("/lib ro")), "{:?}", before.0);

    let dir = world.images("checkpoint");
    let images = dir.join("images").to_str().unwrap().to_owned();
    for _ in 0..2 {
        let _ = fs::remove_dir_all(&images);
        run("lxc-checkpoint", &["-v", "-s", "-D", &images]).ok();
        run("lxc-wait", &["-s", "STOPPED"]).ok();
        let told = run("lxc-checkpoint", &["-v", "-r", "-D", &images]).ok();
        assert!(
            !told.stdout.contains("Error (criu/action-scripts")
                && !told.stderr.contains("action script"),
            "{told}"
        );
        assert_eq!(run("lxc-info", &["-s", "-H"]).ok().stdout.trim(), "RUNNING");
        assert_eq!((mounts(&pid()), denied(&pid())), before);
        assert_eq!(fs::read_dir("/sys/class/net/lxcbr0/brif").unwrap().count(), 1);
    }
    run("lxc-stop", &["-k"]).ok();
    run("lxc-destroy", &["-f"]).ok();
}

/// Its mounts from the host: where each is, and what it is forbidden.
fn mounts(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut found: Vec<String> = text
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .map(|fields| format!("{} {}", fields[4], fields[5]))
        .collect();
    found.sort();
    found
}

/// Whether it may not open its own /dev/null: with such rules, LXC denies all devices.
fn denied(pid: &str) -> bool {
    let told =
        Run::new("nsenter").args(["-t", pid, "-a", "/bin/sh", "-c", "exec < /dev/null"]).output();
    !told.success()
}

/// A bridge that is there for the time of a trial.
struct Bridge(&'static str);

impl Bridge {
    fn make(name: &'static str) -> Bridge {
        Run::new("ip").args(["link", "add", name, "type", "bridge"]).ok();
        Run::new("ip").args(["link", "set", name, "up"]).ok();
        Bridge(name)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        Run::new("ip").args(["link", "del", self.0]).output();
    }
}
