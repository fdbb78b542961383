//! Memory: what the kernel has to do for it, beside what is in it.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::{Run, patient, wait_for};

/// Of the witness, in MiB.
const MEMORY: usize = 128;
const MIB: u64 = 1 << 20;

/// A process that holds memory, and one that it has forked, which shares it.
const SHARERS: &str = "#!/bin/sh
text=$(/bin/busybox yes 'what is shared' | /bin/busybox head -c 33554432)
(while :; do /bin/busybox sleep 1; done; echo $text) &
echo $$ $! > /sharers
wait
";

/// The task whose memory CRIU reads has to wait for few of its pages: others have made them.
pub fn pages_are_made_ready_beside_criu(world: &World) {
    let container = world.container().memory(MEMORY);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    // Each page that was not there was a fault of the task's own, before anything has asked the
    // witness.
    let faults = faults(&container, before.get("pid"));
    witness.assert_goes_on_from(&before);
    let pages = MEMORY as u64 * MIB / 4096;
    assert!(
        faults < pages / 4 * 3,
        "{faults} faults for {pages} pages (it takes two processors and one memory node)"
    );
    container.kill();
}

/// What a process and its child share until one of them writes is not there twice after a restart.
pub fn pages_that_tasks_share_stay_shared(world: &World) {
    let container = world.container();
    let (root, inittab) = (container.rootfs(), container.rootfs().join("etc/inittab"));
    fs::write(root.join("bin/sharers"), SHARERS).unwrap();
    fs::write(&inittab, fs::read_to_string(&inittab).unwrap() + "::once:/bin/sh /bin/sharers\n")
        .unwrap();
    container.start();
    let _witness = container.witness();
    let told = wait_for("the sharers", patient(Duration::from_secs(30)), || {
        let text = fs::read_to_string(root.join("sharers")).ok()?;
        let (parent, child) = text.trim_end().split_once(' ')?;
        Some([parent.to_owned(), child.to_owned()])
    });
    let sharers = told.unwrap();
    let shared_by_all = || sharers.each_ref().map(|pid| shared(&container, pid));
    let before = shared_by_all();
    assert!(before.iter().all(|bytes| *bytes > 32 * MIB), "the test shares nothing: {before:?}");
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    let after = shared_by_all();
    assert!(
        after.iter().all(|bytes| *bytes > 32 * MIB),
        "shared before: {before:?}, and now: {after:?}"
    );
    container.kill();
}

/// A disk that has lost what it was given: while the images are in the host's memory nothing is
/// wrong with them, and later it is seen, before anything runs.
pub fn a_disk_that_has_gone_bad_is_seen_once_it_is_read(world: &World) {
    let container = world.container().memory(16);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let (disk, place) = (world.images("disk"), world.images("place"));
    let backing = disk.join("file");
    fs::File::create(&backing).unwrap().set_len(128 * MIB).unwrap();
    Run::new("busybox").args(["mke2fs", "-F", "-b", "4096", "-I", "256"]).arg(&backing).ok();
    Run::new("mount").args(["-o", "loop"]).args([&backing, &place]).ok();
    let images = place.join("c");
    container.ours("lxc-checkpoint").args(["-s", "-D"]).arg(&images).ok();

    // The witness's.
    let of_memory =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("pages-");
    let found = fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).filter(of_memory);
    let pages = found.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    assert_ne!(
        fs::metadata(&pages).unwrap().ctime_nsec(),
        0,
        "a file system that knows seconds only is trusted nothing"
    );
    go_bad(&backing, &pages);
    container.ours("lxc-restart").arg("-D").arg(&images).ok();
    witness.assert_goes_on_from(&before);
    container.kill();

    let file = fs::File::open(&pages).unwrap();
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .unwrap();
    drop(file);
    // The first time reads it, so that it is in memory as the disk has it. (It has written to files
    // since.)
    for _ in 0..2 {
        let told = container.ours("lxc-restart").arg("--force").arg("-D").arg(&images).output();
        told.assert_code(9);
        assert!(told.stderr.contains(pages.file_name().unwrap().to_str().unwrap()), "{told}");
        assert_eq!(container.state(), "STOPPED");
    }
    Run::new("umount").arg(&place).ok();
}

/// Changes a byte of an image, on the disk alone.
fn go_bad(backing: &Path, image: &Path) {
    const BLOCK: usize = 4096;
    let image = fs::read(image).unwrap();
    let mut disk = fs::read(backing).unwrap();
    // Of the witness's memory, and nowhere else.
    let is_random = |block: &&[u8]| block.iter().filter(|byte| **byte == 0).count() < BLOCK / 100;
    let wanted = image.chunks_exact(BLOCK).skip(image.len() / BLOCK / 2).find(is_random).unwrap();
    let at = disk.chunks_exact(BLOCK).position(|block| block == wanted).unwrap() * BLOCK;
    disk[at] ^= 1;
    fs::OpenOptions::new()
        .write(true)
        .open(backing)
        .unwrap()
        .write_all_at(&disk[at..=at], at as u64)
        .unwrap();
}

/// How many pages a process of the container's has had to wait for, without the disk (proc(5),
/// `minflt`).
fn faults(container: &Container<'_>, pid: &str) -> u64 {
    let stat = container.exec(["/bin/busybox", "cat", &format!("/proc/{pid}/stat")]).stdout;
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(7).unwrap().parse().unwrap()
}

/// Bytes that a process of the container's shares with others.
fn shared(container: &Container<'_>, pid: &str) -> u64 {
    let text = container.exec(["/bin/busybox", "cat", &format!("/proc/{pid}/smaps_rollup")]).stdout;
    let dirty = text.lines().find_map(|line| line.strip_prefix("Shared_Dirty:")).unwrap();
    dirty.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
