//! Our hook programs, run by real LXC in both hook versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use lxc_cr::api::lxc::config::Config;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::{BRIDGE, PROGRAMS};
use crate::harness::run::{Output, Run, wait_for};

/// For a container to be through with a reboot.
const REBOOT_LIMIT: Duration = Duration::from_secs(20);
/// Where our programs keep their state.
const STATE: &str = "/run/lxc-cr";

pub fn in_version_0(world: &World) {
    whole_life(world, 0);
}

pub fn in_version_1(world: &World) {
    whole_life(world, 1);
}

/// The lines of all our hooks.
fn lines(version: u32) -> String {
    format!(
        "lxc.hook.version = {version}
lxc.hook.pre-start = {PROGRAMS}/lxc-cr-pre-start --bind-root
lxc.hook.start-host = {PROGRAMS}/lxc-cr-start-host
lxc.hook.post-stop = {PROGRAMS}/lxc-cr-post-stop
lxc.network.script.up = {PROGRAMS}/lxc-cr-net-up
lxc.network.script.down = {PROGRAMS}/lxc-cr-net-down
"
    )
}

fn whole_life(world: &World, version: u32) {
    let container = world.container().configure(&lines(version));
    container.start();
    let mut witness = container.witness();
    witness.echo("with hooks");
    assert_eq!(mounts_of_root(&container), 1);
    let init = container.init_pid();
    let noted = note_of_running(&container);
    let veth = container.veth();
    for part in
        [format!("pid = {init}\n"), format!("host = \"{veth}\""), format!("bridge = \"{BRIDGE}\"")]
    {
        assert!(noted.contains(&part), "{part} in {noted}");
    }

    // Once more by hand: nothing changes, and what runs is not taken apart.
    for program in ["pre-start", "start-host", "post-stop", "net-up"] {
        by_hand(&container, program, version).assert_code(0);
    }
    assert_eq!(mounts_of_root(&container), 1);
    witness.echo("still there");
    assert_eq!(container.veth(), veth);
    // Not even if the note is lost: the root was bound for the monitor, which lives.
    fs::remove_file(note(&container, "running")).unwrap();
    by_hand(&container, "post-stop", version).assert_code(0);
    assert_eq!(mounts_of_root(&container), 1);
    by_hand(&container, "start-host", version).assert_code(0);
    assert!(note_of_running(&container).contains(&format!("pid = {init}\n")));

    // A reboot runs post-stop and pre-start.
    container.exec(["/bin/reboot", "-f"]);
    // Not lxc-info: one that asks while the monitor is between two lives waits for ever.
    let anew = wait_for("the container to run again", REBOOT_LIMIT, || {
        let text = fs::read_to_string(note(&container, "running")).ok()?;
        (!text.contains(&format!("pid = {init}\n"))).then_some(())
    });
    anew.unwrap();
    container.wait_state("RUNNING");
    assert_eq!(mounts_of_root(&container), 1);
    assert!(note_of_running(&container).contains(&format!("pid = {}\n", container.init_pid())));

    container.kill();
    assert_eq!(mounts_of_root(&container), 0);
    assert_no_state(&container);
    for program in ["post-stop", "net-down"] {
        by_hand(&container, program, version).assert_code(0);
    }
    // And a pair of them without LXC between.
    by_hand(&container, "pre-start", version).assert_code(0);
    by_hand(&container, "pre-start", version).assert_code(0);
    assert_eq!(mounts_of_root(&container), 1);
    by_hand(&container, "post-stop", version).assert_code(0);
    by_hand(&container, "post-stop", version).assert_code(0);
    assert_eq!(mounts_of_root(&container), 0);
    assert_no_state(&container);
}

/// A root that is a mount already is not ours to touch.
pub fn a_mount_of_somebody_else_stays(world: &World) {
    let container = world.container().configure(&lines(1));
    let root = container.rootfs();
    Run::new("mount").arg("--bind").args([&root, &root]).ok();
    container.start();
    assert_eq!(mounts_of_root(&container), 1);
    container.kill();
    assert_eq!(mounts_of_root(&container), 1);
    Run::new("umount").arg(&root).ok();
}

/// What is mounted below the root is seen in the container, and is still mounted on the host
/// afterwards.
pub fn mounts_below_the_root_are_kept(world: &World) {
    let container = world.container().configure(&lines(0));
    let below = container.rootfs().join("mnt");
    // As on a host with systemd, where mounts of one namespace appear in all.
    Run::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).ok();
    Run::new("mount").args(["--make-shared"]).arg(&below).ok();
    fs::write(below.join("file"), "kept").unwrap();
    container.start();
    assert_eq!(container.exec(["/bin/cat", "/mnt/file"]).stdout, "kept");
    container.kill();
    assert_eq!(mounts_of_root(&container), 0);
    assert_eq!(fs::read_to_string(below.join("file")).unwrap(), "kept");
    Run::new("umount").arg(&below).ok();
}

/// The message stands in LXC's log, with the remedy.
pub fn a_missing_bridge_is_named(world: &World) {
    for version in [0, 1] {
        let container =
            world.container().configure(&format!("{}lxc.network.link = br-none\n", lines(version)));
        let log = container.dir().join("lxc.log");
        let started =
            container.lxc("lxc-start").args(["-d", "-l", "DEBUG", "-o"]).arg(&log).output();
        assert!(!started.success(), "{started}");
        let log = fs::read_to_string(log).unwrap();
        let name = container.name();
        for text in [
            format!("lxc-cr[pre-start {name}]: bridge 'br-none' does not exist"),
            format!(
                "lxc-cr[pre-start {name}]: hint: make it: ip link add br-none type bridge && ip \
                 link set br-none up"
            ),
        ] {
            assert!(log.contains(&text), "{text} in {log}");
        }
        assert_eq!(mounts_of_root(&container), 0);
        assert_no_state(&container);
    }
}

/// While `lxc-restart` holds the container, nobody else starts it; a checkpoint does not matter, a
/// dead one neither.
pub fn a_start_is_refused_during_a_restart(world: &World) {
    let container = world.container().configure(&lines(1));
    let state = state(&container);
    fs::create_dir_all(&state).unwrap();
    for dir in [STATE.as_ref(), state.as_path()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let lock = fs::File::create(state.join("lock")).unwrap();
    // Not an ancestor of the hook: that would be the monitor which restores.
    let mut other = Run::new("sleep").arg("60").spawn();
    lock.lock().unwrap();
    let held_by = |what: &str, pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start_time =
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
        fs::write(state.join("lock"), format!("{what} (pid {pid})\n{start_time}\n")).unwrap();
    };
    held_by("lxc-restart", other.id());
    let refused = by_hand(&container, "pre-start", 1);
    refused.assert_code(1);
    assert!(
        refused.stderr.contains(": the container is being restored: lxc-restart (pid "),
        "{refused}"
    );
    assert!(refused.stderr.contains(": hint: wait until"), "{refused}");
    assert_eq!(mounts_of_root(&container), 0);

    held_by("lxc-restart", std::process::id());
    by_hand(&container, "pre-start", 1).assert_code(0);
    by_hand(&container, "post-stop", 1).assert_code(0);
    held_by("lxc-checkpoint", other.id());
    by_hand(&container, "pre-start", 1).assert_code(0);
    by_hand(&container, "post-stop", 1).assert_code(0);
    lock.unlock().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    fs::write(state.join("lock"), "lxc-restart (pid 1)\n").unwrap();
    by_hand(&container, "pre-start", 1).assert_code(0);
    by_hand(&container, "post-stop", 1).assert_code(0);
    assert_no_state(&container);
}

/// What a command that was killed has left is undone before a start.
pub fn the_journal_of_a_dead_command_is_played_back(world: &World) {
    let container = world.container().configure(&lines(0));
    let (state, half) = (state(&container), world.lxcpath().join("dump.partial"));
    let leave = || {
        for dir in [STATE.as_ref(), state.as_path(), half.as_path()] {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let entry = format!("[[step]]\n[step.remove-images]\npath = \"{}\"\n", half.display());
        fs::write(state.join("journal"), entry).unwrap();
    };
    leave();
    container.start();
    assert!(!half.exists());
    assert!(!state.join("journal").exists());
    // That of a restored container is full while it runs.
    leave();
    by_hand(&container, "pre-start", 0).assert_code(0);
    by_hand(&container, "post-stop", 0).assert_code(0);
    assert!(half.exists());
    container.kill();
    assert!(!half.exists());
    assert_no_state(&container);
}

/// LXC is told of no bridge, our scripts are; under both versions.
pub fn the_network_scripts_know_the_bridge(world: &World) {
    for version in [0, 1] {
        let container = world.container().configure(&format!(
            "lxc.hook.version = {version}
lxc.network.link =
lxc.network.script.up = {PROGRAMS}/lxc-cr-net-up --bridge {BRIDGE}
lxc.network.script.down = {PROGRAMS}/lxc-cr-net-down --bridge {BRIDGE}
"
        ));
        container.start();
        container.witness().echo("over a bridge that LXC does not know");
        let veth = container.veth();
        let port = |direction: &str| {
            let run = hook_run(&container, &format!("net-{direction}"), version);
            let mut words = vec!["--bridge", BRIDGE];
            if version == 0 {
                words.extend([container.name(), "net", direction]);
            }
            words.extend(["veth", &veth]);
            run.args(words)
                .env("LXC_HOOK_TYPE", direction)
                .env("LXC_HOOK_SECTION", "net")
                .env("LXC_NET_TYPE", "veth")
                .env("LXC_NET_PARENT", "")
                .env("LXC_NET_PEER", &veth)
                .ok();
            fs::read_link(format!("/sys/class/net/{veth}/master")).is_ok()
        };
        assert!(port("up"));
        assert!(!port("down"));
        assert!(!port("down"));
        assert!(port("up"));
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        container.witness().echo("over the same one, after a restore");
        container.kill();
    }
}

/// The samples of `lxc-config/` are containers that LXC starts, and the old spelling says what the
/// new one says.
pub fn the_samples_start(world: &World) {
    let container = world.container();
    let (name, dir) = (container.name(), container.dir());
    for (sample, shown) in [
        ("recipe.conf", include_str!("../../../lxc-config/recipe.conf")),
        ("recipe-modern.conf", include_str!("../../../lxc-config/recipe-modern.conf")),
    ] {
        let fill_in = |text: &str| {
            text.replace("@LIBEXECDIR@", PROGRAMS)
                .replace("@CONFIGDIR@", &dir.to_string_lossy())
                .replace("/var/lib/lxc/test-lxc", &dir.to_string_lossy())
                .replace("= test-lxc", &format!("= {name}"))
        };
        fs::write(
            dir.join("lxc-cr.conf"),
            fill_in(include_str!("../../../lxc-config/lxc-cr.conf.in")),
        )
        .unwrap();
        fs::write(dir.join("config"), fill_in(shown)).unwrap();
        let ours = Config::load(&dir.join("config")).unwrap();
        Run::new("lxc-update-config").arg("-c").arg(dir.join("config")).ok();
        container.start();
        assert!(mounts_of_root(&container) == usize::from(sample == "recipe.conf"), "{sample}");
        for (key, value) in [
            ("lxc.uts.name", name),
            ("lxc.console.path", "none"),
            ("lxc.tty.max", "0"),
            ("lxc.net.0.link", BRIDGE),
            ("lxc.net.0.name", "eth0"),
            ("lxc.hook.post-stop", &format!("{PROGRAMS}/lxc-cr-post-stop")),
        ] {
            let told = container.lxc("lxc-info").args(["-c", key]).ok().stdout;
            assert_eq!(told.trim(), format!("{key} = {value}"), "{sample}");
            assert_eq!(ours.item(key).unwrap_or_default().trim(), value, "{key} of {sample}");
        }
        container.kill();
        assert_no_state(&container);
    }
}

/// A checkpoint and a restart take back what the hooks did, and leave nothing behind when the
/// container ends.
pub fn ours_through_a_checkpoint(world: &World) {
    for version in [0, 1] {
        let container = world.container().configure(&lines(version));
        container.start();
        let mut witness = container.witness();
        for _ in 0..2 {
            container.ours("lxc-checkpoint").ok();
            assert_eq!(mounts_of_root(&container), 0);
            assert_no_state(&container);
            container.ours("lxc-restart").ok();
            witness.echo("with hooks");
            // The journal of what runs is not taken for that of a dead command.
            for program in ["pre-start", "post-stop"] {
                by_hand(&container, program, version).assert_code(0);
            }
            witness.echo("still there");
        }
        container.kill();
        assert_eq!(mounts_of_root(&container), 0);
        assert_no_state(&container);
    }
}

/// A program in the wrong line, a typing error, a call by hand: said, and exit code 1.
pub fn wrong_use_is_explained(world: &World) {
    let container = world.container();
    let cases: [(&str, &[&str], &str); 4] = [
        (
            "pre-start",
            &["--bind", "web", "lxc", "pre-start"],
            "lxc-cr[pre-start web]: '--bind' is not an argument of this hook",
        ),
        ("pre-start", &["web", "lxc", "post-stop"], "LXC runs it as 'lxc post-stop'"),
        ("post-stop", &[], "lxc-cr[post-stop]: this program is run by LXC as a hook, not by hand"),
        (
            "net-up",
            &["--brigde", "br0", "web", "net", "up", "veth", "v"],
            "are no arguments of this script",
        ),
    ];
    for (program, words, text) in cases {
        let told = Run::ours(&format!("lxc-cr-{program}")).args(words).output();
        told.assert_code(1);
        assert!(told.stderr.contains(text), "{told}");
    }
    drop(container);
}

/// A hook as LXC runs it, with the words and variables of this version.
fn by_hand(container: &Container, program: &str, version: u32) -> Output {
    let net = program.strip_prefix("net-");
    let (section, kind) = net.map_or(("lxc", program), |direction| ("net", direction));
    let mut run = hook_run(container, program, version);
    if program == "pre-start" {
        run = run.arg("--bind-root");
    }
    if version == 0 {
        run = run.args([container.name(), section, kind]);
    }
    run = run.env("LXC_HOOK_TYPE", kind).env("LXC_HOOK_SECTION", section);
    if net.is_some() {
        run = run.args(["veth", BRIDGE, "vethNone"]);
        run = run
            .env("LXC_NET_TYPE", "veth")
            .env("LXC_NET_PARENT", BRIDGE)
            .env("LXC_NET_PEER", "vethNone");
    }
    if let Some(pid) = pid_if_any(container) {
        run = run.env("LXC_PID", &pid.to_string());
    }
    if program == "post-stop" {
        run = run.env("LXC_TARGET", "stop");
    }
    run.output()
}

fn hook_run(container: &Container, program: &str, version: u32) -> Run {
    Run::ours(&format!("lxc-cr-{program}"))
        .env("LXC_NAME", container.name())
        .env("LXC_HOOK_VERSION", &version.to_string())
        .env("LXC_CONFIG_FILE", &container.dir().join("config").to_string_lossy())
        .env("LXC_ROOTFS_PATH", &container.rootfs().to_string_lossy())
}

fn pid_if_any(container: &Container) -> Option<u32> {
    container.lxc("lxc-info").args(["-p", "-H"]).output().stdout.trim().parse().ok()
}

/// How many mounts are at the root.
fn mounts_of_root(container: &Container) -> usize {
    let root = container.rootfs();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.split(' ').nth(4).is_some_and(|point| root.as_os_str() == point))
        .count()
}

/// The container's state directory.
fn state(container: &Container) -> PathBuf {
    let lxcpath = container.dir().parent().unwrap().to_owned();
    PathBuf::from(STATE).join(lxc_cr::api::rollback::lock::key(&lxcpath, container.name()))
}

fn note(container: &Container, file: &str) -> PathBuf {
    state(container).join(file)
}

fn note_of_running(container: &Container) -> String {
    fs::read_to_string(note(container, "running")).unwrap()
}

fn assert_no_state(container: &Container) {
    for file in ["running", "bound-root", "journal"] {
        assert!(!note(container, file).exists(), "{file}");
    }
}
