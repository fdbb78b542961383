//! `lxc-restart --replace`: a container that runs goes back to a checkpoint, and is not lost for a
//! bad one.

use std::fs;
use std::path::Path;

use crate::harness::World;
use crate::harness::run::Run;

/// Whatever can be known of a checkpoint is found out before the container is stopped.
pub fn only_by_a_checkpoint_that_is_good(world: &World) {
    let container = world.container().memory(16);
    container.start();
    let mut witness = container.witness();
    let init = container.init_pid();
    let images = world.lxcpath().join("images");
    let good = images.join("good");
    container.ours("lxc-checkpoint").arg("-D").arg(&good).ok();
    let mut before = witness.status();
    let replace = |dir: &Path| container.ours("lxc-restart").arg("--replace").arg("-D").arg(dir);

    let damaged = images.join("damaged");
    Run::new("cp").arg("-a").arg(&good).arg(&damaged).ok();
    let pages = damaged.join("pages-1.img");
    let mut bytes = fs::read(&pages).unwrap();
    bytes[4096] ^= 1;
    fs::write(&pages, bytes).unwrap();
    let config = fs::read_to_string(container.dir().join("config")).unwrap();
    let of_another = images.join("config");
    fs::write(&of_another, format!("{config}lxc.mount.entry = /srv mnt none bind 0 0\n")).unwrap();
    for (command, words) in [
        (replace(&images.join("typo")), "typo"),
        (replace(&damaged), "checksum"),
        (replace(&good).arg("--rcfile").arg(&of_another), "the configuration has changed"),
    ] {
        let refused = command.output();
        refused.assert_code(9);
        assert!(refused.stderr.contains(words), "{refused}");
        before = witness.assert_goes_on_from(&before);
        assert_eq!(container.init_pid(), init, "{refused}");
    }
    for (name, words) in [("eth9=vethweb", "eth9"), ("eth0=a-name-that-is-too-long", "longer")] {
        let refused = replace(&good).args(["--veth", name]).output();
        refused.assert_code(4);
        assert!(refused.stderr.contains(words), "{refused}");
        before = witness.assert_goes_on_from(&before);
    }
    let refused = replace(&damaged).output();
    assert!(
        refused.stderr.contains(&format!("{} is running as before", container.name())),
        "{refused}"
    );

    let planned = replace(&good).arg("--dry-run").ok();
    assert!(planned.stderr.contains("it would be stopped first"), "{planned}");
    assert!(planned.stdout.contains("criu restore"), "{planned}");
    let later = witness.assert_goes_on_from(&before);

    // A good one is of its moment: the container counts on from there.
    replace(&good).ok();
    let mut fresh = container.witness();
    let restored = fresh.status();
    restored.assert_sound();
    assert!(restored.number("counter") < later.number("counter"), "{restored:?} {later:?}");
    assert_ne!(container.init_pid(), init);
    // One that does not run is just restarted.
    container.kill();
    replace(&good).ok();
    container.kill();
}

/// A program in the root is another one by now. That is seen in the root that the container has: an
/// overlay, or what a hook may have put into its place.
pub fn not_where_the_root_has_changed(world: &World) {
    for (name, what) in
        [("overlay", "lxc.rootfs.path = overlay:DIR/rootfs:DIR/delta\n"), ("hook", HOOK)]
    {
        let container = world.container_named(name);
        container.append_config(&what.replace("DIR", &container.dir().display().to_string()));
        container.start();
        let mut witness = container.witness();
        let images = world.images(name);
        container.ours("lxc-checkpoint").arg("-D").arg(&images).ok();
        let before = witness.status();
        container.exec(["/bin/busybox", "chmod", "700", "/bin/witness"]).assert_code(0);
        let refused =
            container.ours("lxc-restart").arg("--replace").arg("-D").arg(&images).output();
        refused.assert_code(9);
        assert!(
            refused.stderr.contains("/bin/witness, which was open, had mode 100755 and has 100700"),
            "{refused}"
        );
        assert!(
            refused.stderr.contains(&format!("{} is running as before", container.name())),
            "{refused}"
        );
        witness.assert_goes_on_from(&before);
        container.exec(["/bin/busybox", "chmod", "755", "/bin/witness"]).assert_code(0);
        container.ours("lxc-restart").arg("--replace").arg("-D").arg(&images).ok();
        container.witness().status().assert_sound();
        container.kill();
    }
}

/// A hook of which nobody knows what it does.
const HOOK: &str = "lxc.hook.pre-start = /bin/true\n";
