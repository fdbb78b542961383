//! Roots that are more than a directory, and what is mounted in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::container::Container;
use crate::harness::run::{Run, wait_for};
use crate::harness::{World, cgroups};
use crate::scenario::others::start_and_kill_the_monitor;

/// For a container to come up anew.
const LIMIT: Duration = Duration::from_secs(20);

/// An overlay of two layers; the container has changed a file of the lower one.
pub fn an_overlay_comes_back(world: &World) {
    let container = world.container();
    let dir = container.dir();
    let root = format!("overlay:{}/rootfs:{}/delta", dir.display(), dir.display());
    goes_on(&container, &root);
    assert!(dir.join("delta/letter").exists() && !dir.join("rootfs/letter").exists());
}

/// A file system in a file, on a loop device.
pub fn an_image_comes_back(world: &World) {
    let container = world.container();
    let image = image_of(&container);
    goes_on(&container, &format!("loop:{}", image.display()));
    assert_eq!(loop_device_of(&image), None, "the loop device is free again");
}

/// A block device. (A loop device that the host has set up takes the place of a logical volume.)
pub fn a_block_device_comes_back(world: &World) {
    let container = world.container();
    let image = image_of(&container);
    let device = Run::new("losetup").args(["-f", "--show"]).arg(&image).ok().stdout;
    goes_on(&container, &format!("lvm:{}", device.trim()));
    Run::new("losetup").args(["-d", device.trim()]).ok();
}

/// Where LXC's monitor has died the container is found by its root all the same: nobody starts a
/// second one upon it, and it goes to disk and comes back.
pub fn a_container_without_a_monitor_is_found_by_its_root(world: &World) {
    for kind in ["overlay", "loop", "dir"] {
        let container = world.container();
        let dir = container.dir().display().to_string();
        let root = match kind {
            "overlay" => format!("overlay:{dir}/rootfs:{dir}/delta"),
            "loop" => format!("loop:{}", image_of(&container).display()),
            _ => format!("dir:{dir}/rootfs"),
        };
        container.append_config(&format!("lxc.rootfs.path = {root}\n"));
        let mut witness = start_and_kill_the_monitor(&container);
        cgroups::remove_all(&format!("lxc.monitor.{}", container.name()));
        let before = witness.status();
        let images = world.images(kind).join("c");
        container.ours("lxc-checkpoint").arg("-D").arg(&images).ok();
        let told = container.ours("lxc-restart").arg("-D").arg(&images).output();
        told.assert_code(3);
        assert!(told.stderr.contains("its monitor is gone"), "{kind}: {told}");
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        witness.assert_goes_on_from(&before);
        container.kill();
    }
}

/// Twice suspended, with a deleted file open (the witness has one); then a reboot, by which LXC
/// mounts it anew.
fn goes_on(container: &Container<'_>, root: &str) {
    container.append_config(&format!("lxc.rootfs.path = {root}\n"));
    container.start();
    let mut witness = container.witness();
    let mut before = witness.status();
    container.exec(["/bin/sh", "-c", "echo dear > /letter"]).assert_code(0);
    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        before = witness.assert_goes_on_from(&before);
        before.assert_sound();
        assert_eq!(container.exec(["/bin/cat", "/letter"]).stdout, "dear\n");
    }
    let init = container.init_pid();
    container.exec(["/bin/reboot"]);
    let asked = || container.lxc("lxc-info").args(["-p", "-H"]).output().stdout.trim().parse().ok();
    wait_for("a new init", LIMIT, || asked().filter(|now: &u32| *now != init)).unwrap();
    container.wait_state("RUNNING");
    container.witness().status().assert_sound();
    assert_eq!(container.exec(["/bin/cat", "/letter"]).stdout, "dear\n");
    container.kill();
}

/// A file system with the container's root in it.
fn image_of(container: &Container<'_>) -> PathBuf {
    let (image, place) = (container.dir().join("root.img"), container.dir().join("place"));
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    Run::new("busybox").args(["mke2fs", "-F"]).arg(&image).ok();
    fs::create_dir(&place).unwrap();
    Run::new("mount").args(["-o", "loop"]).args([&image, &place]).ok();
    Run::new("cp").arg("-a").arg(container.rootfs().join(".")).arg(&place).ok();
    Run::new("umount").arg(&place).ok();
    // Nothing of the container can be in the directory by mistake.
    fs::remove_dir_all(container.rootfs()).unwrap();
    image
}

fn loop_device_of(image: &Path) -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten().map(|e| e.path());
    let holds = |device: &PathBuf| {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        Path::new(file.trim()) == image
    };
    devices.into_iter().find(holds)
}

/// A failed restart leaves neither a mount nor a loop device, and names what is wrong with the
/// root.
pub fn one_that_cannot_be_mounted_is_told(world: &World) {
    let container = world.container();
    let image = image_of(&container);
    container.append_config(&format!("lxc.rootfs.path = loop:{}\n", image.display()));
    container.start();
    container.witness();
    container.ours("lxc-checkpoint").ok();
    let away = image.with_extension("away");
    fs::rename(&image, &away).unwrap();
    fs::write(&image, "no file system").unwrap();
    let told = container.ours("lxc-restart").output();
    told.assert_code(9);
    assert!(
        told.stderr.contains(&format!("mount the image {} as its root", image.display())),
        "{told}"
    );
    assert_eq!(loop_device_of(&image), None);
    // Another one in its place: doubtful.
    fs::copy(&away, &image).unwrap();
    let told = container.ours("lxc-restart").output();
    told.assert_code(9);
    assert!(told.stderr.contains("is not the one of the checkpoint"), "{told}");
    fs::rename(&away, &image).unwrap();
    container.ours("lxc-restart").ok();
    container.kill();
    assert_eq!(loop_device_of(&image), None);
}

/// What the kernel alone cannot mount is refused while the container runs.
pub fn one_of_a_kind_that_only_lxc_mounts_is_refused(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let config = container.dir().join("config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("lxc.rootfs.path = ", "lxc.rootfs.path = nbd:")).unwrap();
    let told = container.ours("lxc-checkpoint").output();
    told.assert_code(4);
    assert!(told.stderr.contains("of the kind nbd"), "{told}");
    witness.assert_goes_on_from(&before);
    fs::write(&config, text).unwrap();
    container.kill();
}

/// What LXC was asked to mount and is gone at the restart: all of it is named, and nothing is
/// touched.
pub fn mounts_that_are_gone_are_named(world: &World) {
    let shared = world.images("shared");
    fs::write(shared.join("file"), "dear").unwrap();
    fs::create_dir(shared.join("dir")).unwrap();
    let container = world.container().configure(&format!(
        "lxc.mount.entry = {dir}/dir mnt/dir none bind,create=dir 0 0\n\
         lxc.mount.entry = {dir}/file mnt/file none bind,create=file 0 0\n\
         lxc.mount.entry = /nowhere mnt/nowhere none bind,create=dir,optional 0 0\n",
        dir = shared.display()
    ));
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    fs::rename(shared.join("dir"), shared.join("away")).unwrap();
    fs::remove_file(container.rootfs().join("mnt/file")).unwrap();
    let told = container.ours("lxc-restart").output();
    told.assert_code(9);
    for gone in [
        format!("{}/dir, which was mounted on /mnt/dir, is gone", shared.display()).as_str(),
        "/mnt/file, on which something was mounted, is gone",
    ] {
        assert!(told.stderr.contains(gone), "{told}");
    }
    fs::rename(shared.join("away"), shared.join("dir")).unwrap();
    fs::write(container.rootfs().join("mnt/file"), "").unwrap();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// What the host mounts later reaches the container as before, and nothing the other way round.
pub fn later_mounts_pass_as_before(world: &World) {
    let host = world.images("host");
    let places = ["slave/early", "slave/late", "shared/early", "shared/late"];
    Run::new("mount").args(["-t", "tmpfs", "host"]).arg(&host).ok();
    Run::new("mount").arg("--make-shared").arg(&host).ok();
    for place in places {
        fs::create_dir_all(host.join(place)).unwrap();
    }
    let container = world.container().configure(&format!(
        "lxc.mount.entry = {host}/slave mnt/slave none rbind,create=dir,rslave 0 0\n\
         lxc.mount.entry = {host}/shared mnt/shared none rbind,create=dir,rshared 0 0\n",
        host = host.display()
    ));
    container.start();
    container.witness();
    let mount =
        |place: &str| Run::new("mount").args(["-t", "tmpfs", "passed"]).arg(host.join(place)).ok();
    let passed_in = |place: &str| {
        container
            .exec(["/bin/cat", "/proc/mounts"])
            .stdout
            .contains(&format!("passed /mnt/{place} "))
    };
    mount("slave/early");
    for _ in 0..2 {
        assert!(passed_in("slave/early"));
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
    }
    for place in ["slave/late", "shared/late"] {
        mount(place);
        assert!(passed_in(place), "{place}");
    }
    // LXC makes all of the host's a slave before it shares it among the container's own.
    container.exec(["/bin/mount", "-t", "tmpfs", "own", "/mnt/shared/early"]).assert_code(0);
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains("/host/shared/early "));
    container.kill();
    Run::new("umount").arg("-R").arg(&host).ok();
}

/// Binds of every kind are as writable, and forbid as much, as before: see `probe`.
pub fn entries(world: &World) -> String {
    let shared = world.images("entries");
    fs::create_dir_all(shared.join("dir")).unwrap();
    fs::write(shared.join("file"), "dear").unwrap();
    symlink("dir", shared.join("link")).unwrap();
    let at = shared.display();
    format!(
        "lxc.mount.entry = {at}/dir mnt/a none ro,bind,create=dir 0 0\nlxc.mount.entry = {at}/link \
         mnt/b none ro,bind,create=dir 0 0\nlxc.mount.entry = {at}/dir mnt/c none bind,create=dir \
         0 0\nlxc.mount.entry = {at}/link mnt/d none \
         bind,ro,nosuid,nodev,noexec,noatime,create=dir 0 0\nlxc.mount.entry = {at}/file mnt/file \
         none bind,ro,create=file 0 0\nlxc.mount.entry = /lib lib none ro,bind,create=dir 0 \
         0\nlxc.mount.entry = /usr/lib usr/lib none ro,bind,create=dir 0 0\nlxc.mount.entry = \
         tmpfs mnt/t tmpfs size=1m,mode=700,nosuid,create=dir 0 0\nlxc.mount.entry = mnt/t mnt/u \
         none bind,relative,create=dir 0 0\nlxc.mount.entry = mqueue dev/mqueue mqueue \
         rw,nodev,noexec,nosuid,optional,create=dir 0 0\nlxc.autodev.tmpfs.size = \
         1000000\nlxc.rootfs.options = noatime,nodev\n"
    )
}
