//! Checkpoints that are looked at, removed, and not believed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::BRIDGE;
use crate::harness::run::{Output, Run};

/// What somebody wants to have overwritten.
const VICTIM: &str = "root:*:20000:0:99999:7:::\n";

fn refused(told: &Output, code: i32, words: &[&str]) {
    told.assert_code(code);
    for word in words {
        assert!(told.stderr.contains(word), "'{word}' is missing: {told}");
    }
    assert!(!told.stderr.contains("panicked"), "{told}");
}

/// `lxc-cr` on the checkpoints of a world's containers.
fn lxc_cr(world: &World, subcommand: &str) -> Run {
    Run::ours("lxc-cr").arg(subcommand).arg("-P").arg(world.lxcpath())
}

fn restart(container: &Container<'_>, images: &Path) -> Run {
    container.ours("lxc-restart").arg("-D").arg(images)
}

/// A suspended container whose checkpoint lies in `DIR/c`.
fn suspended<'w>(world: &'w World) -> (Container<'w>, PathBuf) {
    let container = world.container();
    container.start();
    let images = world.images("d").join("c");
    container.ours("lxc-checkpoint").args(["-s", "-D"]).arg(&images).ok();
    (container, images)
}

/// The container has run in between, as far as a file says that is as large as it was: memory of
/// the past does not go with it.
pub fn what_was_written_since_is_told(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    let program = container.rootfs().join("bin/witness");
    Run::new("touch").args(["-d", "+1 minute"]).arg(&program).ok();
    let told = container.ours("lxc-restart").output();
    refused(&told, 9, &["/bin/witness was written to since", "--force"]);
    let told = container.ours("lxc-restart").arg("--force").ok();
    assert!(
        told.stderr.contains("going ahead although /bin/witness was written to since"),
        "{told}"
    );
    let before = witness.assert_goes_on_from(&before);

    // One that goes on writes to its files, and whoever goes back knows that.
    container
        .ours("lxc-checkpoint")
        .arg("--leave-running")
        .arg("-D")
        .arg(world.images("back"))
        .ok();
    Run::new("touch").args(["-d", "+1 hour"]).arg(&program).ok();
    witness.assert_goes_on_from(&before);
    let back =
        || container.ours("lxc-restart").arg("--replace").arg("-D").arg(world.images("back"));
    let told = back().output();
    refused(&told, 9, &["/bin/witness was written to since", "--force"]);
    let told = back().arg("--force").ok();
    assert!(
        told.stderr.contains("going ahead although /bin/witness was written to since"),
        "{told}"
    );
    container.kill();
}

/// `list`, `show` and `remove`, of our own checkpoints and of what LXC's tool has written.
pub fn checkpoints_are_listed_shown_and_removed(world: &World) {
    let container = world.container();
    container.start();
    let _connection = container.witness();
    let dir = container.dir();
    container.ours("lxc-checkpoint").arg("-D").arg(dir.join("one")).ok();
    container.stock_checkpoint(["-D", &dir.join("lxcs").to_string_lossy()]);
    fs::create_dir(dir.join("two.partial")).unwrap();

    let listed: serde_json::Value =
        serde_json::from_str(&lxc_cr(world, "list").arg("--json").ok().stdout).unwrap();
    let state_of = |name: &str| {
        let entry = listed["checkpoints"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e["directory"] == dir.join(name).to_str().unwrap());
        let entry = entry.unwrap_or_else(|| panic!("{name} is not listed: {listed:#}"));
        assert_eq!(entry["container"], container.name(), "{entry}");
        entry["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [state_of("one"), state_of("lxcs"), state_of("two.partial")],
        ["complete", "without-record", "partial"]
    );
    let words = lxc_cr(world, "list").ok().stdout;
    assert!(
        words.contains("one") && words.contains("without record") && words.contains("half-written"),
        "{words}"
    );

    for name in ["one", "lxcs"] {
        let shown = lxc_cr(world, "show").arg("--all").arg(dir.join(name)).ok().stdout;
        for word in ["witness", "/bin/busybox", "tcp", "eth0", "/proc (proc)"] {
            assert!(shown.contains(word), "'{word}' is missing of {name}: {shown}");
        }
        let json = lxc_cr(world, "show").arg("--json").arg(dir.join(name)).ok().stdout;
        let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(shown["processes"].as_array().is_some_and(|p| p.len() >= 3), "{shown:#}");
    }
    fs::remove_file(dir.join("lxcs/core-1.img")).unwrap();
    lxc_cr(world, "show").arg(dir.join("lxcs")).output().assert_code(9);

    fs::write(dir.join("lxcs/letter"), "mine").unwrap();
    refused(
        &lxc_cr(world, "remove").arg(dir.join("lxcs")).output(),
        4,
        &["letter", "left as it is"],
    );
    refused(&lxc_cr(world, "remove").arg(container.rootfs()).output(), 4, &["is not a checkpoint"]);
    assert!(dir.join("lxcs/letter").exists() && container.rootfs().join("bin/busybox").exists());
    fs::remove_file(dir.join("lxcs/letter")).unwrap();
    for name in ["one", "lxcs", "two.partial"] {
        lxc_cr(world, "remove").arg(dir.join(name)).ok();
        assert!(!dir.join(name).exists());
    }
    container.kill();
}

/// Each is named before anything is touched, and afterwards the container comes back.
pub fn what_has_changed_is_named_before_a_restart(world: &World) {
    let (container, images) = suspended(world);

    let program = container.rootfs().join("bin/witness");
    let content = fs::read(&program).unwrap();
    // With its times, which tell whether it was written to since.
    let aside = container.dir().join("witness");
    Run::new("cp").arg("-p").args([&program, &aside]).ok();
    fs::write(&program, [content.as_slice(), b"more"].concat()).unwrap();
    refused(
        &restart(&container, &images).output(),
        9,
        &["/bin/witness, which was open, had", "bytes and has"],
    );
    fs::remove_file(&program).unwrap();
    refused(&restart(&container, &images).output(), 9, &["/bin/witness, which was open, is gone"]);
    Run::new("cp").arg("-p").args([&aside, &program]).ok();
    fs::remove_file(&aside).unwrap();

    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("10.99.0.11/24", "10.99.0.111/24")).unwrap();
    refused(
        &restart(&container, &images).output(),
        9,
        &["the configuration has changed", "10.99.0.111/24", "--force"],
    );
    let forced = container
        .ours("lxc-checkpoint")
        .args(["-r", "--force", "--dry-run", "-D"])
        .arg(&images)
        .ok();
    assert!(
        forced.stderr.contains("going ahead although the configuration has changed"),
        "{forced}"
    );
    fs::write(&config, &text).unwrap();

    let root = container.rootfs();
    fs::rename(&root, root.with_file_name("away")).unwrap();
    refused(&restart(&container, &images).output(), 9, &["rootfs"]);
    fs::rename(root.with_file_name("away"), &root).unwrap();

    Run::new("ip").args(["link", "set", BRIDGE, "name", "elsewhere"]).ok();
    let told = restart(&container, &images).output();
    Run::new("ip").args(["link", "set", "elsewhere", "name", BRIDGE]).ok();
    refused(&told, 4, &[BRIDGE]);

    let record = images.join("lxc-cr.toml");
    let text = fs::read_to_string(&record).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&record, text.replacen(from, to, 1)).unwrap();
        let told = restart(&container, &images).output();
        fs::write(&record, &text).unwrap();
        told
    };
    refused(&with("version = 1", "version = 99"), 9, &["version 99", "up to version 1"]);
    refused(&with("version = 1", "version = one"), 9, &["lxc-cr.toml"]);

    let core = images.join("core-1.img");
    fs::rename(&core, images.with_file_name("core")).unwrap();
    refused(&restart(&container, &images).output(), 9, &["core-1.img"]);
    fs::rename(images.with_file_name("core"), &core).unwrap();

    restart(&container, &images).ok();
    container.exec(["/bin/true"]).assert_code(0);
    container.kill();
}

/// Links and directories of others in the way: nothing is followed, and what they lead to is as it
/// was.
pub fn nobody_gets_in(world: &World) {
    let (container, images) = suspended(world);
    let victim = world.images("victim").join("shadow");
    fs::write(&victim, VICTIM).unwrap();
    let whole = |what: &str| assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{what}");
    for entry in fs::read_dir(&images).unwrap().flatten() {
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            entry.path().display()
        );
    }
    assert_eq!(fs::metadata(&images).unwrap().permissions().mode() & 0o777, 0o700);

    // In the images.
    for name in ["core-1.img", "restore.log", "lxc-cr.toml"] {
        let (path, aside) = (images.join(name), images.with_file_name("aside"));
        let there = path.exists();
        if there {
            fs::rename(&path, &aside).unwrap();
        }
        symlink(&victim, &path).unwrap();
        refused(&restart(&container, &images).output(), 9, &[name]);
        fs::remove_file(&path).unwrap();
        if there {
            fs::rename(&aside, &path).unwrap();
        }
        whole(name);
    }
    for mode in [0o777, 0o770] {
        fs::set_permissions(&images, fs::Permissions::from_mode(mode)).unwrap();
        refused(&restart(&container, &images).output(), 9, &["can be written by others"]);
    }
    fs::set_permissions(&images, fs::Permissions::from_mode(0o700)).unwrap();

    // In the record.
    let record = images.join("lxc-cr.toml");
    let text = fs::read_to_string(&record).unwrap();
    for (from, to, word) in [
        (
            format!("name = \"{}\"", container.name()),
            "name = \"../../etc\"".to_owned(),
            "not a name of a container",
        ),
        ("rootfs = \"".to_owned(), "rootfs = \"/srv/../".to_owned(), "not a plain path"),
        (
            "[container]".to_owned(),
            "[[host_files]]\nmount_id = 1\ninode = 2\npath = \"/etc/shadow\"\n\n[container]"
                .to_owned(),
            "/etc/shadow",
        ),
    ] {
        assert!(text.contains(&from), "{from}: {text}");
        fs::write(&record, text.replacen(&from, &to, 1)).unwrap();
        refused(&restart(&container, &images).output(), 9, &[word]);
    }
    fs::write(&record, &text).unwrap();

    // Beside the images.
    let pidfile = world.images("d").join("pid");
    symlink(&victim, &pidfile).unwrap();
    restart(&container, &images).arg("--pidfile").arg(&pidfile).ok();
    assert!(!pidfile.is_symlink() && pidfile.is_file(), "the link was replaced, not followed");
    whole("the pid file");
    let next = world.images("d").join("next");
    for suffix in ["partial", "failed.log"] {
        let link = next.with_extension(suffix);
        symlink(victim.parent().unwrap(), &link).unwrap();
        let told = container.ours("lxc-checkpoint").arg("-D").arg(&next).output();
        whole(suffix);
        assert_eq!(fs::read_dir(victim.parent().unwrap()).unwrap().count(), 1, "{told}");
        fs::remove_file(&link).unwrap();
        if told.success() {
            fs::remove_dir_all(&next).unwrap();
        }
    }
    let log = world.images("d").join("log");
    symlink(&victim, &log).unwrap();
    container
        .ours("lxc-checkpoint")
        .arg("-o")
        .arg(&log)
        .args(["-l", "DEBUG", "-D"])
        .arg(&next)
        .output();
    whole("the log");

    // On the way.
    let open = world.images("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let told = container.ours("lxc-checkpoint").arg("-D").arg(open.join("c")).output();
    refused(&told, 4, &["could be replaced", "others can write"]);
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    let config = container.dir().join("config");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    refused(
        &container.ours("lxc-checkpoint").arg("-D").arg(world.images("d").join("x")).output(),
        4,
        &["config"],
    );
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();

    // In the configuration.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\nlxc.include = {}\n", config.display())).unwrap();
    refused(&container.ours("lxc-checkpoint").output(), 1, &["includes itself"]);
    fs::write(&config, "#".repeat(17 << 20)).unwrap();
    container.ours("lxc-checkpoint").output().assert_code(1);
    fs::write(&config, &text).unwrap();
    container.exec(["/bin/true"]).assert_code(0);
    container.kill();
}

/// The directory that `lxc-create` makes for a container with an id map belongs to its root.
pub fn a_directory_of_an_unprivileged_container_is_trusted(world: &World) {
    let container = world
        .container()
        .configure("lxc.id_map = u 0 100000 65536\nlxc.id_map = g 0 100000 65536\n");
    Run::new("chown").args(["-R", "100000:100000"]).arg(container.rootfs()).ok();
    Run::new("chown").arg("100000:0").arg(container.dir()).ok();
    fs::set_permissions(container.dir(), fs::Permissions::from_mode(0o770)).unwrap();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    let images = container.dir().join("dump");
    assert_eq!(
        fs::metadata(&images).unwrap().permissions().mode() & 0o777,
        0o700,
        "lent for the restore only"
    );
    container.kill();
    Run::new("chown").arg("0:0").arg(container.dir()).ok();
}
