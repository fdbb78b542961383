//! `lxc-cr prepare`: what it makes of a container, by what LXC and our other commands can do with
//! it then.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::systemd::{ADDRESS, Debian, NAME, SHIFT, id_map};
use crate::harness::World;
use crate::harness::installed::Installed;
use crate::harness::run::{Output, Run};
use crate::harness::witness::Witness;

/// `lxc-cr prepare` of an installation.
fn prepare(world: &World, installed: &Installed, name: &str, arguments: &[&str]) -> Output {
    let run = Run::new(&installed.lxc_cr().to_string_lossy())
        .arg("prepare")
        .arg("-P")
        .arg(world.lxcpath());
    run.args(["-n", name]).args(arguments).output()
}

/// Five commands and no editor: an unprivileged container as debootstrap made it. Then `--undo`
/// gives the same bytes, and a container that starts as before.
pub fn makes_a_fresh_debian_ready_and_is_undone(world: &World) {
    let (installed, debian) = (world.installed(), Debian::fresh(world, SHIFT, &id_map()));
    let config = debian.config();
    let read = || (fs::read_to_string(&config).unwrap(), owner_and_mode(&config));
    let before = read();

    let shown = prepare(world, &installed, NAME, &["--dry-run"]);
    let line = format!("+lxc.include = {}\n", installed.config("lxc-cr-systemd.conf").display());
    let words = "nothing was changed (systemd, with an id map)";
    assert!(
        shown.success() && shown.stdout.contains(&line) && shown.stdout.contains(words),
        "{shown}"
    );
    assert_eq!(read(), before, "by a dry run");

    let told = prepare(world, &installed, NAME, &[]);
    let words = "prepared (systemd, with an id map)";
    assert!(told.success() && told.stdout.contains(&line) && told.stdout.contains(words), "{told}");
    let kept = config.with_file_name("lxc-cr.prepare");
    assert_eq!(owner_and_mode(&kept), (0, 0, 0o600));
    let again = prepare(world, &installed, NAME, &[]);
    let words = "nothing to do: it is prepared (systemd, with an id map)\n";
    assert!(again.success() && again.stdout.ends_with(words), "{again}");
    debian.start();
    let state = debian.system_state();
    let mut witness = Witness::connect(ADDRESS);
    let status = witness.status();
    debian.ours("lxc-checkpoint").ok();
    debian.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&status);
    assert_eq!(debian.system_state(), state);
    debian.systemctl(["restart", "shut-in-1"]);
    debian.lxc("lxc-stop").ok();

    let mount_points =
        ["etc/systemd/system/service.d", "etc/systemd/system.conf.d", "etc/systemd/user.conf.d"];
    let made = |dir: &&str| debian.root().join(dir).exists();
    assert!(mount_points.iter().all(made), "LXC makes what is mounted upon");
    prepare(world, &installed, NAME, &["--undo"]).assert_code(0);
    assert_eq!(read(), before);
    assert!(!mount_points.iter().any(made) && !kept.exists());
    let nothing = prepare(world, &installed, NAME, &["--undo"]);
    assert!(nothing.success() && nothing.stdout.ends_with("nothing to undo\n"), "{nothing}");
    debian.start();
    assert_eq!(debian.system_state(), state);
    debian.lxc("lxc-stop").ok();
}

/// What was edited after it stays, and what it added goes.
pub fn leaves_what_was_edited_since(world: &World) {
    let (installed, container) = (world.installed(), world.container());
    let (name, config) = (container.name(), container.dir().join("config"));
    let before = fs::read_to_string(&config).unwrap();
    prepare(world, &installed, name, &[]).assert_code(0);
    fs::write(
        &config,
        format!("# mine\n{}lxc.start.auto = 1\n", fs::read_to_string(&config).unwrap()),
    )
    .unwrap();
    let undone = prepare(world, &installed, name, &["--undo"]);
    assert!(undone.success() && undone.stdout.contains("was edited since"), "{undone}");
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        format!("# mine\n{before}lxc.start.auto = 1\n")
    );

    prepare(world, &installed, name, &[]).assert_code(0);
    let text = fs::read_to_string(&config).unwrap().replace("lxc-cr.conf", "./lxc-cr.conf");
    fs::write(&config, &text).unwrap();
    let undone = prepare(world, &installed, name, &["--undo"]);
    undone.assert_code(8);
    assert!(undone.stderr.contains("was edited since, and is left as it is"), "{undone}");
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    container.start();
    container.kill();
}

/// A network script and a hook that insist on their arguments get them, whatever version their
/// container has.
pub fn leaves_hooks_their_arguments(world: &World) {
    let installed = world.installed();
    let script = |name: &str, insists: &str| {
        let path = world.images("scripts").join(name);
        fs::write(&path, format!("#!/bin/sh\n{insists}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    for (version, net, hook) in [
        (0, "[ $# -ge 5 ] && [ \"$2 $3 $4\" = 'net up veth' ]", "[ \"$2 $3\" = 'lxc pre-start' ]"),
        (1, "[ \"$1\" = veth ]", "[ $# = 0 ] && [ \"$LXC_HOOK_TYPE\" = pre-start ]"),
    ] {
        let (net, hook) = (script("net-up", net), script("pre-start", hook));
        let version = if version == 0 { "" } else { "lxc.hook.version = 1\n" };
        let text = format!("{version}lxc.network.script.up = {net}\nlxc.hook.pre-start = {hook}\n");
        let container = world.container().configure(&text);
        let told = prepare(world, &installed, container.name(), &[]);
        assert!(told.success() && !told.stdout.contains("+lxc.hook"), "{told}");
        container.start();
        let mut witness = Witness::connect(container.address());
        let status = witness.status();
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        witness.assert_goes_on_from(&status);
        container.kill();
    }
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// LXC's own profile gives way to ours, which denies all that it does.
pub fn makes_systemd_without_an_id_map_ready(world: &World) {
    let (installed, debian) = (world.installed(), Debian::fresh(world, 0, ""));
    debian.only_roots_tasks();
    let told = prepare(world, &installed, NAME, &[]);
    let line = format!("+lxc.seccomp.profile = {}\n", installed.profile().display());
    assert!(told.success() && told.stdout.contains(&line), "{told}");
    debian.start();
    let state = debian.system_state();
    debian.ours("lxc-checkpoint").ok();
    debian.ours("lxc-restart").ok();
    assert_eq!(debian.system_state(), state);
    debian.lxc("lxc-stop").ok();
}

pub fn refuses_what_it_must_not_change(world: &World) {
    let installed = world.installed();
    let refused = |name: &str, code: i32, words: &str| {
        let config = fs::read(world.lxcpath().join(name).join("config")).ok();
        let told = prepare(world, &installed, name, &[]);
        told.assert_code(code);
        assert!(told.stderr.contains(words), "{told}");
        assert_eq!(fs::read(world.lxcpath().join(name).join("config")).ok(), config, "{told}");
        assert!(!world.lxcpath().join(name).join("lxc-cr.prepare").exists());
    };
    refused("nobody", 3, "there is no container of this name");
    let container = world.container();
    let name = container.name().to_owned();
    container.start();
    // It takes effect at the next start; what it would take back may be in use.
    let told = prepare(world, &installed, &name, &[]);
    assert!(told.success() && told.stdout.contains("takes effect at its next start"), "{told}");
    prepare(world, &installed, &name, &["--undo"]).assert_code(3);
    assert_eq!(container.state(), "RUNNING");
    container.kill();
    prepare(world, &installed, &name, &["--undo"]).assert_code(0);
    // What is not installed is not included.
    let built = world.lxc_cr("prepare", &name).output();
    assert!(built.code() == 1 && built.stderr.contains("is not installed"), "{built}");

    // A root that leads elsewhere: nothing is made there, by us or by the LXC that is told to
    // mount.
    let root = container.rootfs();
    let outside = world.images("outside");
    for (link, target) in
        [("sbin/init", "/usr/lib/systemd/systemd"), ("etc/systemd", outside.to_str().unwrap())]
    {
        let _ = fs::remove_file(root.join(link));
        symlink(target, root.join(link)).unwrap();
    }
    refused(&name, 1, "its root has no /sbin/init");
    fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
    fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
    refused(&name, 4, "a symbolic link is in the way of /etc/systemd/system/service.d/lxc-cr.conf");
    assert_eq!(tree(&outside), [""; 0]);
    // Somebody else's file in place of what is kept.
    fs::remove_file(root.join("etc/systemd")).unwrap();
    let kept = container.dir().join("lxc-cr.prepare");
    symlink("/etc/shadow", &kept).unwrap();
    let told = prepare(world, &installed, &name, &[]);
    assert!(!told.success() && kept.is_symlink(), "{told}");
    fs::remove_file(kept).unwrap();
}

/// The bridge is there at once, and after a boot by whoever looks after the network; then all is as
/// before.
pub fn sets_up_the_host(_: &World) {
    let host = |arguments: &[&str]| {
        Run::ours("lxc-cr").args(["prepare", "--host"]).args(arguments).output()
    };
    let bridge = ["--bridge", "br7", "--address", "10.77.0.1/24"];
    let ids = fs::read_to_string("/etc/subuid").unwrap_or_default();
    fs::create_dir("/run/NetworkManager").unwrap();
    let told = host(&bridge);
    assert!(told.success() && told.stdout.contains("warning: there is no bridge br7"), "{told}");
    assert!(told.stdout.contains("set up the bridge br7 with 10.77.0.1/24"), "{told}");
    assert!(
        !Path::new("/sys/class/net/br7").exists() && !Path::new("/etc/NetworkManager").exists(),
        "only looked at"
    );

    let told = host(&[&["--apply"], &bridge[..]].concat());
    assert!(
        told.success() && told.stdout.ends_with("this host has what checkpoints need\n"),
        "{told}"
    );
    Run::new("ping").args(["-c", "1", "-W", "5", "10.77.0.1"]).ok();
    let file = Path::new("/etc/NetworkManager/system-connections/lxc-cr-br7.nmconnection");
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o600);
    let again = host(&["--apply", "--bridge", "br7"]);
    assert!(again.success() && !again.stdout.contains("br7"), "{again}");
    let json = host(&["--json", "--bridge", "br7"]);
    assert!(
        json.success()
            && json.stdout.contains("\"ready\": true")
            && json.stdout.contains("\"changes\": []"),
        "{json}"
    );

    // The interface of the default route is nobody's port by accident.
    Run::new("ip").args(["route", "add", "default", "via", "10.77.0.2"]).ok();
    let refused = host(&["--apply", "--bridge", "br8", "--port", "br7"]);
    refused.assert_code(2);
    assert!(refused.stderr.contains("the host's default route goes over br7"), "{refused}");

    // A bridge that is in use stays, and the rest is undone.
    Run::new("ip")
        .args(["link", "add", "port7", "master", "br7", "type", "veth", "peer", "name", "peer7"])
        .ok();
    let undone = host(&["--undo"]);
    undone.assert_code(8);
    assert!(
        undone.stderr.contains("br7 stays up until a reboot: it has ports (port7)"),
        "{undone}"
    );
    assert!(!Path::new("/etc/NetworkManager").exists());
    assert_eq!(fs::read_to_string("/etc/subuid").unwrap_or_default(), ids);
    Run::new("ip").args(["link", "del", "port7"]).ok();
    let undone = host(&["--undo"]);
    assert!(undone.success() && undone.stdout == "host: bridge br7 removed\n", "{undone}");
    assert!(!Path::new("/sys/class/net/br7").exists());
    fs::remove_dir("/run/NetworkManager").unwrap();
}

/// All names below a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}
