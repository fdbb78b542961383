//! Copies of memory that are taken while the container runs, so that it stands still for a shorter
//! time.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::run::Run;

/// Mebibytes that do not change.
const MEMORY: u64 = 32;

/// Two copies, each of what has changed, and the checkpoint that builds on them. Where the kernel
/// cannot tell what has changed, the copy is refused and the container is still running.
pub fn a_checkpoint_builds_on_copies_of_memory(world: &World) {
    let container = world.container().memory(MEMORY as usize);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let images = world.lxcpath().join("images");
    let dir = |name: &str| images.join(name);

    let copied = container.ours("lxc-checkpoint").args(["-p", "-D"]).arg(dir("first")).output();
    let before = witness.assert_goes_on_from(&before);
    if !kernel_tracks_memory() {
        copied.assert_code(5);
        assert!(copied.stderr.contains("CONFIG_MEM_SOFT_DIRTY"), "{copied}");
        assert!(!dir("first").exists());
        container.kill();
        return;
    }
    copied.assert_code(0);
    assert!(mebibytes(&dir("first")) >= MEMORY);
    let after = |name: &str| vec!["--predump-dir".to_owned(), format!("../{name}")];
    container
        .ours("lxc-checkpoint")
        .args(["-p", "-D"])
        .arg(dir("second"))
        .args(after("first"))
        .ok();
    let before = witness.assert_goes_on_from(&before);
    container.ours("lxc-checkpoint").args(["-s", "-D"]).arg(dir("last")).args(after("second")).ok();
    for name in ["second", "last"] {
        assert!(
            mebibytes(&dir(name)) < MEMORY / 2,
            "{name} holds what an earlier copy holds already"
        );
    }

    container.ours("lxc-restart").arg("-D").arg(dir("last")).ok();
    let before = witness.assert_goes_on_from(&before);

    // Without one of its parts it is no checkpoint.
    fs::rename(dir("first"), dir("moved")).unwrap();
    let refused =
        container.ours("lxc-restart").arg("-D").arg(dir("last")).arg("--replace").output();
    refused.assert_code(9);
    assert!(refused.stderr.contains("first"), "{refused}");
    // Another copy in the place of one is not that one.
    fs::rename(dir("moved"), dir("first")).unwrap();
    fs::rename(dir("second"), dir("moved")).unwrap();
    container
        .ours("lxc-checkpoint")
        .args(["-p", "-D"])
        .arg(dir("second"))
        .args(after("first"))
        .ok();
    let refused =
        container.ours("lxc-restart").arg("-D").arg(dir("last")).arg("--replace").output();
    refused.assert_code(9);
    assert!(refused.stderr.contains("another one is there now"), "{refused}");
    fs::remove_dir_all(dir("second")).unwrap();
    fs::rename(dir("moved"), dir("second")).unwrap();
    // And what has changed in one of them is found.
    let pages = dir("first").join("pages-1.img");
    let mut bytes = fs::read(&pages).unwrap();
    bytes[4096] ^= 1;
    fs::write(&pages, bytes).unwrap();
    let refused =
        container.ours("lxc-restart").arg("-D").arg(dir("last")).arg("--replace").output();
    refused.assert_code(9);
    assert!(refused.stderr.contains("checksum"), "{refused}");
    let _ = before;
    container.kill();
}

/// What `criu check` says of CONFIG_MEM_SOFT_DIRTY.
fn kernel_tracks_memory() -> bool {
    Run::new("criu").args(["check", "--feature", "mem_dirty_track"]).output().success()
}

fn mebibytes(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
        >> 20
}
