//! The device rules of cgroup2: what a container may open and make, before and after.

use std::fs;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::wait_for;

/// Devices that every container has, and what is tried with them.
const TRIED: &str = "\
for device in null zero full random urandom tty; do
    test -c /dev/$device || continue
    ( : < /dev/$device ) 2>/dev/null && echo $device r
    ( : > /dev/$device ) 2>/dev/null && echo $device w
done
for numbers in '1 3' '1 5' '5 0' '10 229'; do
    mknod /tmp/node c $numbers 2>/dev/null && echo $numbers m && rm /tmp/node
done
true
";
/// Opens what it may not, as fast as it can, and writes down when it could.
const ATTACKER: &str = "\
while true; do
    ( : < /dev/zero ) 2>/dev/null && echo opened >> /var/opened
    echo x >> /var/tried
done
";

/// What is allowed, `null r null w …`.
fn allowed(container: &Container) -> String {
    let told = container.exec(["/bin/sh", "-c", TRIED]);
    told.assert_code(0);
    told.stdout.lines().collect::<Vec<_>>().join(", ")
}

/// Rules of the configuration, and those that were added and taken back since, are in force after a
/// restart; LXC's tools change them on a restored container, and that survives, too.
pub fn are_in_force_again(world: &World) {
    let container = world.container().configure(
        "lxc.cgroup2.devices.deny = a\n\
         lxc.cgroup2.devices.allow = c 1:3 rw\n\
         lxc.cgroup2.devices.allow = c 1:9 r\n\
         lxc.cgroup2.devices.allow = /dev/tty rwm\n",
    );
    std::os::unix::fs::symlink("busybox", container.rootfs().join("bin/mknod")).unwrap();
    container.start();
    assert_eq!(allowed(&container), "null r, null w, urandom r, 5 0 m");
    container.lxc("lxc-device").args(["add", "/dev/full"]).ok();
    container.lxc("lxc-cgroup").args(["devices.allow", "c 1:5 rm"]).ok();
    container.lxc("lxc-cgroup").args(["devices.deny", "c 1:9 r"]).ok();
    let expected = "null r, null w, zero r, full r, full w, 1 5 m, 5 0 m";
    assert_eq!(allowed(&container), expected);

    for _ in 0..2 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        assert_eq!(allowed(&container), expected);
    }

    container.lxc("lxc-cgroup").args(["devices.deny", "c 1:5 rm"]).ok();
    container.lxc("lxc-device").args(["add", "/dev/random"]).ok();
    container.lxc("lxc-device").args(["del", "/dev/full"]).ok();
    assert!(!container.lxc("lxc-cgroup").args(["devices.allow", "nonsense"]).output().success());
    let expected = "null r, null w, random r, random w, 5 0 m";
    assert_eq!(allowed(&container), expected);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(allowed(&container), expected);
    // All is allowed, but for one.
    container.lxc("lxc-cgroup").args(["devices.allow", "a"]).ok();
    container.lxc("lxc-cgroup").args(["devices.deny", "c 10:229 rwm"]).ok();
    let expected = allowed(&container);
    assert!(expected.ends_with("1 3 m, 1 5 m, 5 0 m"), "{expected}");
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(allowed(&container), expected);
    container.kill();
}

/// A container without rules may do what it could, and gets its first rule as one that LXC has
/// started.
pub fn that_are_none_stay_none(world: &World) {
    let container = world.container();
    std::os::unix::fs::symlink("busybox", container.rootfs().join("bin/mknod")).unwrap();
    container.start();
    let all = allowed(&container);
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(allowed(&container), all);
    container.lxc("lxc-cgroup").args(["devices.allow", "c 1:3 rw"]).ok();
    // As on a container that LXC has started: the first rule denies all others.
    assert_eq!(allowed(&container), "null r, null w");
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_eq!(allowed(&container), "null r, null w");
    container.kill();
}

/// No process of the container runs a single instruction without them.
pub fn hold_from_the_first_instruction_on(world: &World) {
    let container = world.container().configure(
        "lxc.cgroup2.devices.deny = a\nlxc.cgroup2.devices.allow = c 1:3 \
         rwm\nlxc.cgroup2.devices.allow = c 5:0 rwm\n",
    );
    fs::write(container.rootfs().join("bin/attacker"), ATTACKER).unwrap();
    let inittab = container.rootfs().join("etc/inittab");
    let text = fs::read_to_string(&inittab).unwrap();
    fs::write(&inittab, text + "::once:/bin/sh /bin/attacker\n").unwrap();
    container.start();
    let tried =
        || fs::metadata(container.rootfs().join("var/tried")).map(|m| m.len()).unwrap_or_default();
    for _ in 0..3 {
        container.ours("lxc-checkpoint").ok();
        let before = tried();
        container.ours("lxc-restart").ok();
        wait_for("the attacker to go on", Duration::from_secs(10), || {
            (tried() > before + 20).then_some(())
        })
        .unwrap();
        assert!(
            !container.rootfs().join("var/opened").exists(),
            "a device that is denied was opened"
        );
    }
    container.kill();
}
