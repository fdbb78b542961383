//! Mounts of a container whose configuration is LXC's own, on a host whose mounts are shared, as
//! systemd makes them.

use std::fs;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::BRIDGE;
use crate::harness::mounts::{differences, of};
use crate::harness::run::Run;
use crate::scenario::copies::copy_of;

/// Where the ids of an unprivileged container begin on the host.
const SHIFT: u32 = 100_000;
/// Where LXC's configuration files are.
const CONFIGS: &str = "/usr/share/lxc/config";

/// Through LXC's own configuration.
pub fn of_lxcs_common_configuration_come_back(world: &World) {
    come_back(world, as_lxc_creates(world, world.container(), 0, ""));
}

/// The same with an id map.
pub fn of_lxcs_common_configuration_come_back_with_an_id_map(world: &World) {
    come_back(world, as_lxc_creates(world, world.container(), SHIFT, ""));
}

/// Each kernel file system of the host's that can be bound into a container, and several pieces of
/// one file system of which some lie in the root's own.
pub fn that_the_host_shares_come_back(world: &World) {
    come_back(world, as_lxc_creates(world, world.container(), 0, &binds(world)));
}

/// The same with an id map.
pub fn that_the_host_shares_come_back_with_an_id_map(world: &World) {
    come_back(world, as_lxc_creates(world, world.container(), SHIFT, &binds(world)));
}

fn binds(world: &World) -> String {
    let shared = world.images("shared");
    for dir in ["one", "two/deep", "three"] {
        fs::create_dir_all(shared.join(dir)).unwrap();
    }
    let mut text = format!(
        "lxc.mount.entry = {at}/one mnt/one none bind,create=dir 0 0\n\
         lxc.mount.entry = {at}/two mnt/two none rbind,ro,create=dir 0 0\n\
         lxc.mount.entry = {at}/two/deep mnt/deep none bind,nosuid,nodev,create=dir 0 0\n\
         lxc.mount.entry = {at}/three mnt/three none rbind,rprivate,create=dir 0 0\n\
         lxc.mount.entry = /dev/null mnt/null none bind,create=file 0 0\n\
         lxc.mount.entry = /dev/zero mnt/zero none bind,create=file 0 0\n\
         lxc.mount.entry = /proc mnt/proc none rbind,create=dir 0 0\n",
        at = shared.display()
    );
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    for (kind, place) in [
        ("debugfs", "/sys/kernel/debug"),
        ("securityfs", "/sys/kernel/security"),
        ("pstore", "/sys/fs/pstore"),
        ("bpf", "/sys/fs/bpf"),
        ("mqueue", "/dev/mqueue"),
        ("hugetlbfs", "/dev/hugepages"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("devpts", "/dev/pts"),
    ] {
        if table.contains(&format!(" {place} {kind} ")) {
            text += &format!("lxc.mount.entry = {place} mnt/{kind} none bind,create=dir 0 0\n");
        }
    }
    text
}

/// The configuration that `lxc-create -t download` writes, with an address and what a
/// distribution's init mounts. Of a host that has AppArmor in force the profile would be made up
/// for it; here there is none.
fn as_lxc_creates<'w>(
    world: &World,
    container: Container<'w>,
    shift: u32,
    more: &str,
) -> Container<'w> {
    let (name, address) = (container.name(), container.address());
    let users = match shift {
        0 => String::new(),
        shift => format!(
            "lxc.include = {CONFIGS}/userns.conf\nlxc.idmap = u 0 {shift} 65536\nlxc.idmap = g 0 \
             {shift} 65536\n"
        ),
    };
    let text = format!(
        "# Distribution configuration\n\
         lxc.include = {CONFIGS}/common.conf\n\
         {users}\
         lxc.arch = linux64\n\
         lxc.apparmor.profile = generated\n\
         lxc.apparmor.allow_nesting = 1\n\
         lxc.rootfs.path = dir:{root}\n\
         lxc.uts.name = {name}\n\
         lxc.net.0.type = veth\n\
         lxc.net.0.link = {BRIDGE}\n\
         lxc.net.0.flags = up\n\
         lxc.net.0.name = eth0\n\
         lxc.net.0.ipv4.address = {address}/24\n\
         lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,create=dir 0 0\n\
         {more}",
        root = container.rootfs().display()
    );
    fs::write(container.dir().join("config"), text).unwrap();
    if shift > 0 {
        Run::new("chown").args(["-R", &format!("{shift}:{shift}")]).arg(container.rootfs()).ok();
        // LXC's root in the container has to get there.
        Run::new("chmod").arg("755").args([world.lxcpath(), &container.dir()]).ok();
    }
    container
}

/// Two rounds, then a copy of it: each time the mounts are the same.
fn come_back(world: &World, container: Container<'_>) {
    container.start();
    let mut witness = container.witness();
    let mut status = witness.status();
    let before = of(container.init_pid());
    assert!(before.iter().any(|line| line.contains("receives from the host's")), "{before:#?}");
    let same = |container: &Container<'_>, what: &str| {
        let wrong = differences(&before, &of(container.init_pid()));
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    };
    for round in 1..=2 {
        let told = container.lxc_cr("check").ok();
        assert!(told.stdout.contains("can be checkpointed"), "{told}");
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
        same(&container, &format!("round {round}"));
        status = witness.assert_goes_on_from(&status);
    }
    container.ours("lxc-checkpoint").ok();
    let copy = copy_of(world, &container, "copied");
    copy.ours("lxc-restart").arg("-D").arg(container.dir().join("dump")).arg("--tcp-close").ok();
    let theirs = of(copy.init_pid())
        .into_iter()
        .map(|line| line.replace("copied", container.name()))
        .collect::<Vec<_>>();
    let wrong = differences(&before, &theirs);
    assert!(wrong.is_empty(), "the copy:\n{}", wrong.join("\n"));
    copy.kill();
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&status);
    container.stop();
}

/// What was shared by the host when the container was dumped is private now: that is told, and all
/// else is as before.
pub fn of_what_is_private_now_receive_nothing(world: &World) {
    let host = world.images("host");
    Run::new("mount").args(["-t", "tmpfs", "host"]).arg(&host).ok();
    fs::create_dir(host.join("slave")).unwrap();
    let container = world.container().configure(&format!(
        "lxc.mount.entry = {host}/slave mnt/slave none rbind,create=dir,rslave 0 0\n",
        host = host.display()
    ));
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    Run::new("mount").arg("--make-private").arg(&host).ok();
    let told = container.ours("lxc-restart").ok();
    assert!(
        told.stderr.contains(&format!("{}/slave is on a private mount now", host.display())),
        "{told}"
    );
    let after = witness.assert_goes_on_from(&before);
    fs::write(host.join("slave/file"), "dear").unwrap();
    assert_eq!(container.exec(["/bin/cat", "/mnt/slave/file"]).stdout, "dear");
    container.ours("lxc-checkpoint").ok();
    let told = container.ours("lxc-restart").ok();
    assert!(!told.stderr.contains("private"), "{told}");
    witness.assert_goes_on_from(&after);
    container.kill();
    Run::new("umount").arg("-R").arg(&host).ok();
}
