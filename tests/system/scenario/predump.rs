//! Copies of memory that are taken while the container runs, so that it stands still for a shorter
//! time.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::client::Client;
use crate::harness::run::Run;

/// Mebibytes that do not change.
const MEMORY: u64 = 32;
const SETTINGS: &str = "/etc/lxc/lxc-cr.toml";
/// The same of a container whose client's wait is measured.
const IDLE: usize = 1024;

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

/// In one command: the copies are a part of the checkpoint, wherever it lies. Where the kernel
/// tracks nothing that is said once, and the dump is as ever.
pub fn copies_in_rounds_are_a_part_of_the_checkpoint(world: &World) {
    let container = world.container().memory(MEMORY as usize);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let images = world.lxcpath().join("images");
    let (first, moved) = (images.join("first"), images.join("moved"));
    let made = container
        .ours("lxc-checkpoint")
        .args(["--precopy", "--max-downtime", "1ms", "--json", "-s", "-D"])
        .arg(&first)
        .ok();
    let told: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let rounds = told["precopy"]["rounds"].as_array().map_or(0, Vec::len);
    assert_eq!(rounds > 0, kernel_tracks_memory(), "{made}");
    if rounds == 0 {
        assert_eq!(made.stderr.matches("CONFIG_MEM_SOFT_DIRTY").count(), 1, "{made}");
        container.ours("lxc-restart").arg("-D").arg(&first).ok();
        witness.assert_goes_on_from(&before);
        container.kill();
        return;
    }
    println!("{}", told["precopy"]);
    assert!(mebibytes(&first.join("precopy-1")) >= MEMORY && mebibytes(&first) < MEMORY / 2);
    assert!(told["size_bytes"].as_u64().unwrap() >= MEMORY << 20);

    fs::rename(&first, &moved).unwrap();
    let list = || Run::ours("lxc-cr").args(["list", "--json"]).arg(&images).ok();
    let listed: serde_json::Value = serde_json::from_str(&list().stdout).unwrap();
    assert_eq!(listed["checkpoints"].as_array().unwrap().len(), 1, "{listed}");
    let shown = Run::ours("lxc-cr").arg("show").arg(&moved).ok();
    assert!(
        shown.stdout.contains(" while it ran") && shown.stdout.contains("\nfrozen "),
        "{shown}"
    );
    let verify = || Run::ours("lxc-cr").arg("verify").arg(&moved).output();
    verify().assert_code(0);
    container.ours("lxc-restart").arg("--lazy").arg("-D").arg(&moved).ok();
    let log = fs::read_to_string(moved.join("restore.log")).unwrap();
    let follow: u64 = log
        .lines()
        .filter_map(|line| line.split_once("nr_lazy:")?.1.trim().parse::<u64>().ok())
        .sum();
    assert!(follow << 12 >= MEMORY << 20, "CRIU has left {follow} pages to the pager");
    witness.assert_goes_on_from(&before);
    container.kill();
    // It has written to its files since.
    container.ours("lxc-restart").args(["--force", "-D"]).arg(&moved).ok();
    container.kill();

    // One byte of one of them is one of the checkpoint's.
    let pages = moved.join("precopy-1/pages-1.img");
    let bytes = fs::read(&pages).unwrap();
    let mut wrong = bytes.clone();
    wrong[4096] ^= 1;
    fs::write(&pages, wrong).unwrap();
    verify().assert_code(9);
    container.ours("lxc-restart").args(["--force", "-D"]).arg(&moved).output().assert_code(9);
    fs::write(&pages, bytes).unwrap();
    verify().assert_code(0);
    Run::ours("lxc-cr").arg("remove").arg(&moved).ok();
    assert!(!moved.exists());
}

/// The settings ask for them, too: as at the host's shutdown, where nobody gives options.
pub fn copies_are_made_where_the_settings_say_so(world: &World) {
    let container = world.container().memory(MEMORY as usize);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    fs::write(SETTINGS, "precopy = 2\nmax_downtime = 1\n").unwrap();
    let without = world.lxcpath().join("images/without");
    let plain = container.ours("lxc-checkpoint").args(["--precopy=0", "-D"]).arg(&without).output();
    let suspended = container.ours("lxc-checkpoint").output();
    fs::remove_file(SETTINGS).unwrap();
    for told in [&plain, &suspended] {
        told.assert_code(0);
    }
    assert!(!plain.stderr.contains("CONFIG_MEM_SOFT_DIRTY"), "{plain}");
    assert!(!without.join("precopy-1").exists());
    let tracks = kernel_tracks_memory();
    assert_eq!(container.dir().join("dump/precopy-1").exists(), tracks, "{suspended}");
    assert_eq!(suspended.stderr.contains("CONFIG_MEM_SOFT_DIRTY"), !tracks, "{suspended}");
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// What a client waits for an idle container with much memory: with rounds before, and memory that
/// follows, a part of what it waits otherwise.
pub fn rounds_and_lazy_memory_shorten_the_wait(world: &World) {
    if !kernel_tracks_memory() {
        return;
    }
    let container = world.container().memory(IDLE);
    container.start();
    drop(container.witness());
    let wait = |checkpoint: &[&str], restart: &[&str]| {
        let client = Client::start(container.address());
        container.ours("lxc-checkpoint").args(["--no-rehearse"]).args(checkpoint).ok();
        container.ours("lxc-restart").args(restart).ok();
        client.wait_for_answer();
        client.stop()
    };
    // What is given up in a round leaves nothing.
    let late = world.lxcpath().join("images/late");
    let given_up = container
        .ours("lxc-checkpoint")
        .args(["--precopy", "--timeout", "1", "-s", "-D"])
        .arg(&late)
        .output();
    given_up.assert_code(7);
    assert!(given_up.stderr.contains("is running as before"), "{given_up}");
    assert!(!late.exists() && !late.with_extension("partial").exists());
    let plain = wait(&[], &[]);
    let short = wait(&["--precopy"], &["--lazy"]);
    println!(
        "a client's wait, {IDLE} MiB idle: {} ms, with --precopy and --lazy {} ms",
        plain.as_millis(),
        short.as_millis()
    );
    assert!(short * 10 <= plain * 3, "{short:?} against {plain:?}");
    container.kill();
}

/// What `criu check` says of CONFIG_MEM_SOFT_DIRTY.
fn kernel_tracks_memory() -> bool {
    Run::new("criu").args(["check", "--feature", "mem_dirty_track"]).output().success()
}

fn mebibytes(dir: &Path) -> u64 {
    let sizes = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    sizes.filter(fs::Metadata::is_file).map(|file| file.len()).sum::<u64>() >> 20
}
