//! `lxc-cr prepare`: what it makes of a container, by what LXC and our other commands can do with it then.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::systemd::{ADDRESS, Debian, NAME, SHIFT, id_map};
use crate::harness::World;
use crate::harness::installed::Installed;
use crate::harness::run::{Output, Run};
use crate::harness::witness::Witness;

/// `lxc-cr prepare` of an installation.
fn prepare(world: &World, installed: &Installed, name: &str, arguments: &[&str]) -> Output {
    let run = Run::new(&installed.lxc_cr().to_string_lossy()).arg("prepare").arg("-P").arg(world.lxcpath());
    run.args(["-n", name]).args(arguments).output()
}

/// Five commands and no editor: an unprivileged container as debootstrap made it.
pub fn makes_a_fresh_debian_ready(world: &World) {
    let (installed, debian) = (world.installed(), Debian::fresh(world, SHIFT, &id_map()));
    let before = fs::read(debian.config()).unwrap();

    let shown = prepare(world, &installed, NAME, &["--dry-run"]);
    shown.assert_code(0);
    let line = format!("+lxc.include = {}\n", installed.config("lxc-cr-systemd.conf").display());
    assert!(
        shown.stdout.contains(&line) && shown.stdout.contains("nothing was changed (systemd, with an id map)"),
        "{shown}"
    );
    assert_eq!(fs::read(debian.config()).unwrap(), before, "by a dry run");

    let told = prepare(world, &installed, NAME, &[]);
    told.assert_code(0);
    assert!(told.stdout.contains(&line) && told.stdout.contains("prepared (systemd, with an id map)"), "{told}");
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

/// `--undo` gives the same bytes, and a container that starts as before; what was edited meanwhile stays.
pub fn is_taken_back(world: &World) {
    let (installed, debian) = (world.installed(), Debian::fresh(world, SHIFT, &id_map()));
    let config = debian.config();
    let before = (fs::read(&config).unwrap(), fs::metadata(&config).unwrap());
    let mount_points = ["etc/systemd/system/service.d", "etc/systemd/system.conf.d", "etc/systemd/user.conf.d"];

    prepare(world, &installed, NAME, &[]).assert_code(0);
    let again = prepare(world, &installed, NAME, &[]);
    assert!(
        again.success() && again.stdout.ends_with("nothing to do: it is prepared (systemd, with an id map)\n"),
        "{again}"
    );
    debian.start();
    let state = debian.system_state();
    debian.lxc("lxc-stop").ok();
    let made = |dir: &&str| debian.root().join(dir).exists();
    assert!(mount_points.iter().all(made), "LXC makes what is mounted upon");
    let undone = prepare(world, &installed, NAME, &["--undo"]);
    undone.assert_code(0);
    let after = (fs::read(&config).unwrap(), fs::metadata(&config).unwrap());
    assert_eq!(String::from_utf8_lossy(&after.0), String::from_utf8_lossy(&before.0), "{undone}");
    assert_eq!((after.1.mode(), after.1.uid(), after.1.gid()), (before.1.mode(), before.1.uid(), before.1.gid()));
    assert!(!mount_points.iter().any(made));
    let kept = config.with_file_name("lxc-cr.prepare");
    assert!(!kept.exists());
    let nothing = prepare(world, &installed, NAME, &["--undo"]);
    assert!(nothing.success() && nothing.stdout.ends_with("nothing to undo\n"), "{nothing}");
    debian.start();
    assert_eq!(debian.system_state(), state);
    debian.lxc("lxc-stop").ok();

    prepare(world, &installed, NAME, &[]).assert_code(0);
    let meta = fs::metadata(&kept).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o600));
    let edited = format!("# mine\n{}lxc.start.auto = 1\n", fs::read_to_string(&config).unwrap());
    fs::write(&config, edited).unwrap();
    let undone = prepare(world, &installed, NAME, &["--undo"]);
    assert!(undone.success() && undone.stdout.contains("was edited since"), "{undone}");
    let left = format!("# mine\n{}lxc.start.auto = 1\n", String::from_utf8_lossy(&before.0));
    assert_eq!(fs::read_to_string(&config).unwrap(), left);
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
    refused(&name, 3, "it is running");
    prepare(world, &installed, &name, &["--undo"]).assert_code(3);
    container.kill();
    // What is not installed is not included.
    let built = world.lxc_cr("prepare", &name).output();
    assert!(built.code() == 1 && built.stderr.contains("is not installed"), "{built}");

    // A root that leads elsewhere: nothing is made there, by us or by the LXC that is told to mount.
    let root = container.rootfs();
    let outside = world.images("outside");
    for (link, target) in [("sbin/init", "/usr/lib/systemd/systemd"), ("etc/systemd", outside.to_str().unwrap())] {
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
