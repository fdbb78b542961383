//! Containers of Proxmox VE: `pct suspend` and `pct resume`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;

use crate::harness::enter::PROGRAMS;
use crate::harness::pve::{BACKUP, DUMP, Guest, Host, Wish, volumes};
use crate::harness::run::Run;
use crate::harness::witness::Witness;
use crate::harness::{Snapshot, World};

/// Suspends and resumes it again and again; each time all has to be as before, and at the end
/// nothing is left.
fn goes_on(world: &World, host: &Host, wish: &Wish<'_>, cycles: u32) {
    // PVE names no other path to LXC's tools.
    let world = &World::in_default_lxcpath(world.name());
    let look = || {
        Snapshot::take()
            .without(world.lxcpath())
            .without(Path::new("/var/lib/vz"))
            .without(&volumes())
    };
    let wish = &Wish { vlan: wish.vlan && host.vlans, ..wish.clone() };
    let guest = Guest::make(world, wish);
    // Once stopped, for what LXC itself leaves behind.
    guest.container().start();
    guest.stop(None);
    let stopped = Snapshot::without_process("lxc-start", look);
    guest.container().start();
    let before = guest.state();
    let mut witness = Witness::connect(guest.address());
    let mut status = witness.status();
    let mut resumed: Option<Child> = None;
    for _ in 0..cycles {
        guest.suspend().assert_code(0);
        if let Some(child) = resumed.as_mut() {
            assert!(child.wait().unwrap().success());
        }
        stopped.wait_until(look).unwrap();
        resumed = Some(guest.resume());
        status = witness.assert_goes_on_from(&status);
        assert_eq!(guest.state(), before);
    }
    let backup = Path::new(DUMP).join(BACKUP);
    assert_eq!(fs::read_to_string(backup).unwrap(), "a backup");
    guest.stop(resumed);
    stopped.wait_until(look).unwrap();
    guest.container().start();
    guest.stop(None);
}

/// Its root and all that it has are mounted by hooks.
pub fn an_unprivileged_container_goes_on(world: &World) {
    goes_on(world, &Host::make(), &Wish::new(101), 2);
}

/// The same without an id map: its device rules and limits are all that holds it.
pub fn a_privileged_container_goes_on(world: &World) {
    goes_on(world, &Host::make(), &Wish { unprivileged: false, ..Wish::new(102) }, 2);
}

/// Mount points of each kind, and a device that is passed through.
pub fn mount_points_and_devices_come_back(world: &World) {
    let image = Path::new("/srv/disk/pve-image.raw");
    fs::write(image, "").unwrap();
    fs::OpenOptions::new().write(true).open(image).unwrap().set_len(8 << 20).unwrap();
    Run::new("busybox").args(["mke2fs", "-F"]).arg(image).ok();
    for dir in ["/srv/disk/pve-data", "/srv/disk/pve-data/sub"] {
        fs::create_dir_all(dir).unwrap();
    }
    let conf = "mp0: /srv/disk/pve-data,mp=/mnt/data\nmp1: \
                /srv/disk/pve-data/sub,mp=/mnt/ro,ro=1\nmp2: \
                /srv/disk/pve-image.raw,mp=/mnt/image\nmp3: \
                /srv/disk/pve-data,mp=/mnt/image/below\ndev0: /dev/kmsg\ndev1: /dev/zero\n";
    goes_on(world, &Host::make(), &Wish { conf, ..Wish::new(103) }, 2);
    goes_on(world, &Host::make(), &Wish { conf, unprivileged: false, ..Wish::new(104) }, 1);
    fs::remove_file(image).unwrap();
    fs::remove_dir_all("/srv/disk/pve-data").unwrap();
}

/// A VLAN on a bridge that knows them, with trunks and a rate limit.
pub fn vlans_and_rates_come_back(world: &World) {
    goes_on(
        world,
        &Host::make(),
        &Wish { vlan: true, net: ",tag=30,trunks=40;50,rate=10", ..Wish::new(105) },
        2,
    );
}

/// The firewall's bridge, which post-stop removes.
pub fn the_firewalls_bridge_is_made_again(world: &World) {
    goes_on(
        world,
        &Host::make(),
        &Wish { vlan: true, net: ",firewall=1,tag=30", ..Wish::new(106) },
        2,
    );
}

/// `lxc-cr prepare` changes what PVE writes the configuration of, and no snapshot; `--undo` gives
/// the same bytes.
pub fn a_container_is_prepared_in_its_definition(world: &World) {
    let (world, _host) = (&World::in_default_lxcpath(world.name()), Host::make());
    let (installed, wish) = (world.installed(), Wish::new(107));
    let guest = Guest::make(world, &wish);
    let prepare = |arguments: &[&str]| {
        let lxc_cr = installed.lxc_cr();
        Run::new(&lxc_cr.to_string_lossy()).args(["prepare", "-n", "107"]).args(arguments).output()
    };
    let path = guest.definition();
    let current = fs::read_to_string(&path).unwrap();
    let snapshot = "\n[before]\nhostname: old\nsnaptime: 1790000000\n";
    fs::write(&path, format!("{current}{snapshot}")).unwrap();
    let look = || (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().ino());
    let before = look();

    let stopped = prepare(&[]);
    stopped.assert_code(3);
    assert!(stopped.stderr.contains("start it first: pct start 107;"), "{stopped}");
    guest.start(&wish);
    let line = format!("lxc.include: {}\n", installed.config("lxc-cr.conf").display());
    let shown = prepare(&["--dry-run"]);
    let diff = format!("+++ {}\n", path.display());
    assert!(
        shown.success()
            && shown.stdout.contains(&diff)
            && shown.stdout.contains(&format!("+{line}")),
        "{shown}"
    );
    assert_eq!(look(), before, "by a dry run");

    prepare(&[]).assert_code(0);
    let (text, inode) = look();
    let ours = text
        .strip_prefix(&current)
        .and_then(|rest| rest.strip_suffix(snapshot))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(ours.starts_with(&line) && !ours.contains('#'), "{ours}");
    assert_eq!(inode, before.1, "it is written in place");
    let again = prepare(&[]);
    assert!(again.success() && again.stdout.contains("nothing to do"), "{again}");

    guest.stop(None);
    guest.start(&wish);
    let again = prepare(&[]);
    assert!(again.success() && again.stdout.contains("nothing to do"), "{again}");
    let mut witness = Witness::connect(guest.address());
    let status = witness.status();
    guest.suspend().assert_code(0);
    let resumed = guest.resume();
    witness.assert_goes_on_from(&status);

    // A backup keeps everybody from changing it.
    fs::write(&path, format!("lock: backup\n{text}")).unwrap();
    let locked = prepare(&["--undo"]);
    locked.assert_code(3);
    assert!(locked.stderr.contains("Proxmox VE has locked it (backup)"), "{locked}");
    fs::write(&path, &text).unwrap();
    prepare(&["--undo"]).assert_code(0);
    assert_eq!(look(), before);
    let shown = prepare(&["--dry-run"]);
    assert!(
        shown.stdout.contains(&format!("+{line}")),
        "it counts what the next start will say: {shown}"
    );
    guest.stop(Some(resumed));
    guest.start(&wish);
    guest.stop(None);
}

/// The hook script of `docs/proxmox.md`: it suspends when the host goes down, and resumes in place
/// of a start.
pub fn the_hook_script_suspends_and_resumes(world: &World) {
    let (world, _host) = (&World::in_default_lxcpath(world.name()), Host::make());
    let guest = Guest::make(world, &Wish::new(108));
    let page = include_str!("../../../docs/proxmox.md");
    let lines = page
        .lines()
        .skip_while(|line| *line != "    #!/bin/sh")
        .take_while(|line| !line.starts_with("Then "));
    let text: String =
        lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let bin = world.images("bin");
    fs::write(bin.join("hook"), text).unwrap();
    let path = format!("{}:{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let hook = |phase: &str| {
        Run::new("sh").arg(bin.join("hook")).args(["108", phase]).env("PATH", &path).output()
    };
    let host_is = |state: &str| {
        fs::write(bin.join("systemctl"), format!("#!/bin/sh\necho {state}\n")).unwrap();
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    hook("pre-start").assert_code(0);
    guest.container().start();
    let mut witness = Witness::connect(guest.address());
    let status = witness.status();
    host_is("running");
    hook("pre-stop").assert_code(0);
    assert_eq!(guest.container().state(), "RUNNING", "by pct stop");
    host_is("stopping");
    hook("pre-stop").assert_code(0);
    assert_eq!(guest.container().state(), "STOPPED");
    let resumed = hook("pre-start");
    resumed.assert_code(1);
    assert!(resumed.stderr.contains("container 108 is resumed"), "{resumed}");
    witness.assert_goes_on_from(&status);
    guest.stop(None);
    hook("pre-start").assert_code(0);
}
