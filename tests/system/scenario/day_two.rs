//! The second day: checkpoints that lie for a while, and what is known of them.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::run::Run;

/// `lxc-cr SUBCOMMAND` without a container, below the world's LXC path.
fn lxc_cr(world: &World, subcommand: &str) -> Run {
    Run::ours("lxc-cr").args([subcommand, "-P"]).arg(world.lxcpath())
}

fn json(run: Run) -> serde_json::Value {
    serde_json::from_str(&run.arg("--json").ok().stdout).unwrap()
}

/// Writes to an image without a change of its size.
fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A checkpoint at rest is whole until a bit of it changes; then it is named, and all others are verified all the same.
pub fn verify_finds_a_changed_bit(world: &World) {
    let container = world.container();
    container.start();
    let shelf = world.lxcpath().join("backup");
    fs::create_dir(&shelf).unwrap();
    for name in ["first", "second"] {
        container.ours("lxc-checkpoint").arg("-D").arg(shelf.join(name)).ok();
    }
    let in_shelf = || Run::ours("lxc-cr").arg("verify").arg(&shelf);
    let told = in_shelf().ok();
    assert_eq!(told.stdout.matches(" is whole (").count(), 2, "{told}");
    let listed = json(Run::ours("lxc-cr").arg("list").arg(&shelf));
    assert!(listed.to_string().contains("second"), "{listed}");
    assert!(shelf.join("first/lxc-cr.history").is_file());

    flip_a_bit(&shelf.join("first/pages-1.img"));
    let found = in_shelf().output();
    found.assert_code(9);
    assert!(found.stderr.contains("first is damaged: image 'pages-1.img' was changed"), "{found}");
    assert!(found.stdout.contains("second is whole"), "{found}");
    let outcomes = in_shelf().arg("--json").output();
    outcomes.assert_code(9);
    let outcomes: serde_json::Value = serde_json::from_str(&outcomes.stdout).unwrap();
    let results: Vec<_> = outcomes["checkpoints"].as_array().unwrap().iter().map(|o| o["result"].clone()).collect();
    assert_eq!(results, ["damaged", "whole"]);

    // What is named and is not there.
    for subcommand in ["verify", "list"] {
        let refused = lxc_cr(world, subcommand).arg("nosuch").output();
        refused.assert_code(3);
        assert!(refused.stderr.contains("there is no container nosuch"), "{refused}");
    }
    container.kill();
}
