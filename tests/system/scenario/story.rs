//! The main job: a container goes to disk and comes back, and nobody notices.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::run::Run;
use crate::harness::terminal::Terminal;

/// The recipe's story, twice over, read from the file in the old spelling.
pub fn suspended_container_comes_back_with_its_connection(world: &World) {
    let container = world.container().memory(16);
    container.start();
    let mut witness = container.witness();
    let legacy = container.dir().join("config.legacy");
    let mac = inside_mac(&container);
    let mut before = witness.status();
    before.assert_sound();

    for round in 1..=3 {
        // The old spelling and the new one are read alike.
        let more: Vec<&Path> =
            if round == 1 { vec![Path::new("--rcfile"), &legacy] } else { vec![] };
        container.ours("lxc-checkpoint").args(&more).ok();
        assert_eq!(container.state(), "STOPPED");
        assert!(container.dir().join("dump/lxc-cr.toml").exists());
        witness.send("said to a stopped container");

        container.ours("lxc-restart").args(&more).args(["-D", "dump"]).ok();
        assert_eq!(witness.receive(), "said to a stopped container");
        before = witness.assert_goes_on_from(&before);
        assert_eq!(container.state(), "RUNNING");
        assert_eq!(inside_mac(&container), mac);
        container.exec(["/bin/hostname"]).assert_code(0);
        container.wait_syslog(&format!("status at {}", before.get("elapsed_ms")));
    }
    container.stop();
}

/// Somebody who sits before it sees what it is at, how much memory that is, and how long it takes.
pub fn a_terminal_shows_the_phases_with_sizes_and_times(world: &World) {
    let container = world.container().memory(256);
    container.start();
    drop(container.witness());
    for (command, phase, next, end) in [
        (
            "lxc-checkpoint",
            "dumping the memory … ",
            "letting go of the processes … ",
            "the container is stopped",
        ),
        ("lxc-restart", "restoring the memory … ", "resuming the processes … ", "running again"),
    ] {
        let (mut terminal, mut command) = Terminal::of(container.ours(command));
        // How much it is stays there when it is known.
        terminal.see(phase).see(next).see(" MiB, ").see(" s").see(end);
        assert!(command.wait().unwrap().success());
    }
    container.kill();
}

/// With `-D`, as LXC's own tool: the container is still running, its port is back on the bridge as
/// it was.
pub fn a_container_left_running_is_as_before(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let (veth, init) = (container.veth(), container.init_pid());
    fs::write(format!("/sys/class/net/{veth}/brport/hairpin_mode"), "1").unwrap();
    fs::write(format!("/sys/class/net/{veth}/brport/path_cost"), "77").unwrap();
    let before = witness.status();

    let images = world.lxcpath().join("images/kept");
    container.ours("lxc-checkpoint").arg("-D").arg(&images).ok();

    witness.assert_goes_on_from(&before);
    assert_eq!((container.veth(), container.init_pid()), (veth.clone(), init));
    assert_eq!(bridge_of(&veth).as_deref(), Some("br0"));
    assert_eq!(
        fs::read_to_string(format!("/sys/class/net/{veth}/brport/hairpin_mode")).unwrap().trim(),
        "1"
    );
    assert_eq!(
        fs::read_to_string(format!("/sys/class/net/{veth}/brport/path_cost")).unwrap().trim(),
        "77"
    );
    container.kill();
}

/// While the container stands still no packet reaches it: its port is on no bridge.
pub fn the_port_is_off_the_bridge_while_the_container_stands_still(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let log = world.lxcpath().join("images/ports.log");
    fs::create_dir_all(world.lxcpath().join("images")).unwrap();
    let script = world.lxcpath().join("images/watch.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION $(ls /sys/class/net/br0/brif | wc -l) >> {}\n",
            log.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    container.ours("lxc-checkpoint").arg("-A").arg(&script).ok();
    container.ours("lxc-restart").arg("-A").arg(&script).ok();
    witness.assert_goes_on_from(&before);

    let text = fs::read_to_string(&log).unwrap();
    let ports = |action: &str| -> Vec<&str> {
        text.lines()
            .filter_map(|l| l.strip_prefix(action))
            .filter_map(|l| l.strip_prefix(' '))
            .collect()
    };
    assert_eq!(ports("pre-dump"), ["1"], "{text}");
    assert_eq!(ports("post-dump"), ["0"], "{text}");
    assert_eq!(ports("post-restore"), ["0"], "{text}");
    assert_eq!(ports("post-resume"), ["1"], "{text}");
    container.kill();
}

/// A frozen container is dumped frozen and comes back frozen.
pub fn a_frozen_container_comes_back_frozen(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.lxc("lxc-freeze").ok();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(container.state(), "FROZEN");
    container.lxc("lxc-unfreeze").ok();
    assert_eq!(container.state(), "RUNNING");
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// The host's end gets the name that was asked for.
pub fn the_host_side_gets_the_asked_name(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    let refused = container.ours("lxc-restart").args(["--veth", "eth0=br0"]).output();
    refused.assert_code(4);
    assert!(refused.stderr.contains("'br0'"), "{refused}");
    container.ours("lxc-restart").args(["--veth", "eth0=vethweb"]).ok();
    assert_eq!(container.veth(), "vethweb");
    witness.assert_goes_on_from(&before);
    let told = container.lxc("lxc-info").ok().stdout;
    assert!(told.lines().any(|l| l.starts_with("Link:") && l.ends_with("vethweb")), "{told}");
    container.kill();
}

/// Interfaces, bind mounts from the host (one through a symbolic link, one read-only), `lxc.autodev
/// = 0`.
pub fn what_the_host_lends_is_there_again(world: &World) {
    let shared = world.lxcpath().join("images/shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("letter"), "dear").unwrap();
    let link = world.lxcpath().join("images/link");
    std::os::unix::fs::symlink(&shared, &link).unwrap();
    let container = world.container().configure(&format!(
        "lxc.mount.entry = {} mnt none bind,ro 0 0\nlxc.mount.entry = {} data none bind,create=dir \
         0 0\nlxc.network.type = veth\nlxc.network.link = br0\nlxc.network.name = \
         inner1\nlxc.network.flags = up\nlxc.network.hwaddr = 00:16:3e:01:02:03\nlxc.network.mtu = \
         1400\n",
        link.display(),
        shared.display()
    ));
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let seen = |file: &str| container.exec(["/bin/cat", file]).stdout;
    let network = || {
        // `eth0@if26`: the index of the host's end may change. M-DOWN: ip looks that index up among
        // the container's.
        let text = container.exec(["/bin/ip", "-o", "link"]).stdout.replace(",M-DOWN", "");
        text.lines()
            .map(|l| {
                l.split_once('@')
                    .map_or(l.to_owned(), |(a, b)| format!("{a}{}", &b[b.find(':').unwrap()..]))
            })
            .collect::<Vec<_>>()
    };
    let before_network = network();
    assert_eq!(seen("/mnt/letter"), "dear");

    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_eq!(seen("/mnt/letter"), "dear");
        assert_eq!(seen("/data/letter"), "dear");
        assert_ne!(
            container.exec(["/bin/touch", "/mnt/new"]).code(),
            0,
            "the bind mount was read-only"
        );
        assert_eq!(container.exec(["/bin/touch", "/data/new"]).code(), 0);
        assert_eq!(network(), before_network);
    }
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// `lxc.autodev = 0`, as when the recipe was written: init's streams are on the host's /dev/null.
pub fn an_init_on_the_hosts_null_comes_back(world: &World) {
    let container = world.container().configure("lxc.autodev = 0\n");
    for (name, minor) in [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)] {
        let path = container.rootfs().join("dev").join(name);
        let device = nix::sys::stat::makedev(1, minor);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, device).unwrap();
    }
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        before = witness.assert_goes_on_from(&before);
    }
    container.kill();
}

/// `-F` stays until the container ends; without it nobody who reads our output is kept waiting.
pub fn the_command_returns_or_stays_as_asked(world: &World) {
    let container = world.container();
    container.start();
    container.ours("lxc-checkpoint").ok();
    // `cat` ends when the last writer of the pipe has let go of it.
    let restart: Vec<_> = container.ours("lxc-restart").words();
    let words: Vec<String> = restart.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    Run::new("sh").arg("-c").arg(format!("{} 2>&1 </dev/null | cat", words.join(" "))).ok();
    assert_eq!(container.state(), "RUNNING");

    container.ours("lxc-checkpoint").ok();
    let pidfile = world.lxcpath().join("images/monitor.pid");
    fs::create_dir_all(world.lxcpath().join("images")).unwrap();
    let mut child = container.ours("lxc-restart").arg("-F").arg("--pidfile").arg(&pidfile).spawn();
    container.wait_state("RUNNING");
    let monitor = fs::read_to_string(&pidfile).unwrap();
    let title = fs::read_to_string(format!("/proc/{}/cmdline", monitor.trim())).unwrap();
    assert_eq!(
        title,
        format!("[lxc monitor] {} {}\0", world.lxcpath().display(), container.name())
    );
    container.stop();
    assert!(child.wait().unwrap().success());
    assert!(!pidfile.exists());
}

fn inside_mac(container: &crate::harness::container::Container) -> String {
    container.exec(["/bin/cat", "/sys/class/net/eth0/address"]).stdout
}

fn bridge_of(link: &str) -> Option<String> {
    let path = fs::read_link(format!("/sys/class/net/{link}/master")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}
