//! What a container has mounted from the host, and the host has changed: it is known beforehand,
//! and nothing else is mounted in silence.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::mounts::of;
use crate::harness::run::{Output, Run};

/// A container with a file and a directory of the host.
struct Bound<'w> {
    container: Container<'w>,
    dir: PathBuf,
}

impl<'w> Bound<'w> {
    fn start(world: &'w World) -> Bound<'w> {
        let dir = world.images("host");
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("data/whose"), "the first").unwrap();
        fs::write(dir.join("resolv.conf"), "first").unwrap();
        let container = world.container().configure(&format!(
            "lxc.mount.entry = {at}/data mnt/data none bind,create=dir 0 0\n\
             lxc.mount.entry = {at}/resolv.conf mnt/resolv.conf none bind,create=file 0 0\n",
            at = dir.display()
        ));
        container.start();
        Bound { container, dir }
    }

    /// As programs write a file that others read.
    fn replace_file(&self, text: &str) {
        fs::write(self.dir.join("new"), text).unwrap();
        fs::rename(self.dir.join("new"), self.dir.join("resolv.conf")).unwrap();
    }

    fn reads(&self, name: &str) -> String {
        self.container.exec(["/bin/cat", &format!("/mnt/{name}")]).stdout
    }
}

fn says(told: &Output, code: i32, words: &str) {
    told.assert_code(code);
    assert!(
        told.stderr.contains(words) || told.stdout.contains(words),
        "'{words}' is missing: {told}"
    );
}

/// A file that was replaced while the container ran is the new one after a restart, as is said
/// before.
pub fn that_were_replaced_are_named(world: &World) {
    let bound = Bound::start(world);
    let container = &bound.container;
    let mut witness = container.witness();
    let before = witness.status();
    bound.replace_file("second");
    assert_eq!(bound.reads("resolv.conf"), "first");
    says(
        &container.lxc_cr("check").output(),
        0,
        "was replaced on the host since the container was started",
    );
    let told = container.ours("lxc-checkpoint").ok();
    assert!(
        told.stderr.contains("after a restore the container sees the file that is there now"),
        "{told}"
    );
    container.ours("lxc-restart").ok();
    let status = witness.assert_goes_on_from(&before);
    assert_eq!(bound.reads("resolv.conf"), "second");

    // Not to be made again: a restart would mount it over the other one.
    fs::remove_file(bound.dir.join("resolv.conf")).unwrap();
    says(&container.ours("lxc-checkpoint").output(), 4, "was deleted on the host");
    witness.assert_goes_on_from(&status);
    assert!(!bound.dir.join("resolv.conf").exists());
    container.kill();
}

/// The same while it stands still: a file may be replaced, a directory and a file system may not.
pub fn that_are_others_at_a_restart_are_refused(world: &World) {
    let bound = Bound::start(world);
    let container = &bound.container;
    let mut witness = container.witness();
    let mut status = witness.status();
    container.ours("lxc-checkpoint").ok();
    bound.replace_file("second");
    says(&container.ours("lxc-restart").ok(), 0, "the container sees the new file");
    status = witness.assert_goes_on_from(&status);
    assert_eq!(bound.reads("resolv.conf"), "second");

    container.ours("lxc-checkpoint").ok();
    let data = bound.dir.join("data");
    Run::new("mount").args(["-t", "tmpfs", "another"]).arg(&data).ok();
    says(
        &container.ours("lxc-restart").output(),
        9,
        "is on another file system now (tmpfs; it was ",
    );
    Run::new("umount").arg(&data).ok();
    fs::rename(&data, bound.dir.join("away")).unwrap();
    fs::create_dir(&data).unwrap();
    says(&container.ours("lxc-restart").output(), 9, "is another directory now");
    fs::remove_dir(&data).unwrap();
    fs::write(&data, "").unwrap();
    says(
        &container.ours("lxc-restart").arg("--force").output(),
        9,
        "was a directory and is a file now",
    );
    fs::remove_file(&data).unwrap();
    fs::rename(bound.dir.join("away"), &data).unwrap();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&status);
    assert_eq!(bound.reads("data/whose"), "the first");
    container.kill();
}

/// What the host has hidden under another mount while the container ran.
pub fn that_are_hidden_stand_in_the_way(world: &World) {
    let bound = Bound::start(world);
    let mut witness = bound.container.witness();
    let before = witness.status();
    // A mount below would reach the container, one above only hides.
    Run::new("mount").args(["-t", "tmpfs", "over"]).arg(&bound.dir).ok();
    says(
        &bound.container.ours("lxc-checkpoint").output(),
        4,
        "which the host has hidden under a mount on",
    );
    Run::new("umount").arg(&bound.dir).ok();
    bound.container.ours("lxc-checkpoint").ok();
    bound.container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    bound.container.kill();
}

/// What CRIU does not save of a mount stands in the way, or comes back by us.
pub fn of_which_criu_saves_too_little(world: &World) {
    let dir = world.images("host");
    let container = world.container().configure(&format!(
        "lxc.mount.entry = {at} mnt/plain none bind,create=dir 0 0\n\
         lxc.mount.entry = hugetlbfs mnt/huge hugetlbfs create=dir 0 0\n\
         lxc.mount.entry = ramfs mnt/ram ramfs create=dir 0 0\n",
        at = dir.display()
    ));
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let within = |command: &str| container.exec(["/bin/sh", "-c", command]).assert_code(0);
    within("mount -o remount,bind,nosymfollow /mnt/plain");
    for (fill, clear, words) in [
        ("echo x > /mnt/ram/file", "rm /mnt/ram/file", "there are files in the ramfs on /mnt/ram"),
        (
            "mkdir /mnt/huge/dir",
            "rmdir /mnt/huge/dir",
            "there are files in the hugetlbfs on /mnt/huge",
        ),
        ("mount -t tracefs tracefs /mnt", "umount /mnt", "a tracefs is mounted on /mnt"),
    ] {
        within(fill);
        says(&container.ours("lxc-checkpoint").output(), 4, words);
        within(clear);
    }
    let before = of(container.init_pid());
    assert!(
        before.iter().any(|line| line.starts_with("/mnt/plain ") && line.contains("nosymfollow")),
        "{before:#?}"
    );
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        status = witness.assert_goes_on_from(&status);
        let after = of(container.init_pid());
        let flags = |lines: &[String]| lines.iter().find(|l| l.starts_with("/mnt/plain ")).cloned();
        assert_eq!(flags(&before), flags(&after));
    }
    container.kill();
}

/// A mount with an id map of its own.
pub fn with_an_id_map_of_their_own_stand_in_the_way(world: &World) {
    let dir = world.images("share");
    let container = world.container().configure(&format!(
        "lxc.id_map = u 0 100000 65536\nlxc.id_map = g 0 100000 65536\n\
         lxc.mount.entry = {} mnt/share none bind,idmap=container,create=dir 0 0\n",
        dir.display()
    ));
    Run::new("chown").args(["-R", "100000:100000"]).arg(container.rootfs()).ok();
    container.start();
    container.witness();
    let id_mapped =
        fs::read_to_string(format!("/proc/{}/mountinfo", container.init_pid())).unwrap();
    assert!(id_mapped.contains("idmapped"), "{id_mapped}");
    says(
        &container.ours("lxc-checkpoint").output(),
        4,
        "/mnt/share is mounted with an id map of its own",
    );
    container.kill();
}

/// An image file that a mount hook has mounted, and a root that a pre-mount hook has.
pub fn that_hooks_have_mounted_stand_in_the_way(world: &World) {
    let container = world.container();
    let image = container.dir().join("image");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    Run::new("busybox").args(["mke2fs", "-F"]).arg(&image).ok();
    let hook = |name: &str, text: &str| {
        let path = container.dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        Run::new("chmod").arg("755").arg(&path).ok();
        path
    };
    let mounts =
        hook("mount-hook", &format!("mount -o loop {} $LXC_ROOTFS_MOUNT/mnt", image.display()));
    let plain = fs::read_to_string(container.dir().join("config")).unwrap();
    let with = |line: &str, path: &Path| {
        fs::write(container.dir().join("config"), format!("{plain}{line} = {}\n", path.display()))
            .unwrap();
    };
    with("lxc.hook.mount", &mounts);
    container.start();
    container.witness();
    says(&container.ours("lxc-checkpoint").output(), 4, "/mnt is an image file that");
    container.kill();

    let root = container.dir().join("other-root");
    Run::new("cp").arg("-a").args([&container.rootfs(), &root]).ok();
    let binds = hook(
        "pre-mount",
        &format!("mount --bind {} {}", root.display(), container.rootfs().display()),
    );
    with("lxc.hook.pre-mount", &binds);
    container.start();
    container.witness();
    says(
        &container.ours("lxc-checkpoint").output(),
        4,
        "was mounted by a hook (lxc.hook.pre-mount)",
    );
    container.kill();
}

/// A container's directory that is a link, an LXC path with `..` in it, a checkpoint's directory
/// behind a link.
pub fn are_found_behind_links(world: &World) {
    let container = world.container();
    let elsewhere = world.images("elsewhere");
    let name = container.name().to_owned();
    fs::rename(container.dir(), elsewhere.join(&name)).unwrap();
    std::os::unix::fs::symlink(elsewhere.join(&name), container.dir()).unwrap();
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let link = world.images("real").with_file_name("link");
    std::os::unix::fs::symlink(world.images("real"), &link).unwrap();
    for images in [None, Some(link.join("dump"))] {
        let with = |run: Run| images.iter().fold(run, |run, dir| run.arg("-D").arg(dir));
        with(container.ours("lxc-checkpoint").arg("-s")).ok();
        with(container.ours("lxc-restart")).ok();
        status = witness.assert_goes_on_from(&status);
    }
    container.kill();

    let dotted = world.lxcpath().join("images/..");
    let run = |run: Run| run.arg("-P").arg(&dotted).args(["-n", &name]);
    run(Run::new("lxc-start").arg("-d")).ok();
    let mut witness = container.witness();
    let mut status = witness.status();
    for _ in 0..2 {
        run(Run::ours("lxc-checkpoint")).ok();
        run(Run::ours("lxc-restart")).ok();
        status = witness.assert_goes_on_from(&status);
    }
    run(Run::new("lxc-stop").arg("-k")).ok();
    fs::remove_file(container.dir()).unwrap();
}
