//! A host like one of Proxmox VE: its hooks and network script in our own words
//! (`tests/system/pve`), and containers whose configuration is written as its `update_lxc_config`
//! writes it.
//!
//! The root of such a container, its mount points and the devices that it is given are mounted by
//! hooks in the mount namespace of its monitor; the host sees an empty directory.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::container::Container;
use super::enter::{BRIDGE, DISK};
use super::run::{Output, Run, wait_for};
use super::world::World;

/// Where `pct suspend` has its images, and where the backups are.
pub const DUMP: &str = "/var/lib/vz/dump";
/// One of the backups.
pub const BACKUP: &str = "vzdump-lxc-100-2026_11_30-10_00_00.tar.zst";
/// What is on a host: a file, and where it goes.
const FILES: &[(&str, &str)] = &[
    (include_str!("../pve/conf.sh"), "/usr/share/lxc/pve-conf.sh"),
    (include_str!("../pve/prestart"), "/usr/share/lxc/hooks/lxc-pve-prestart-hook"),
    (include_str!("../pve/autodev"), "/usr/share/lxc/hooks/lxc-pve-autodev-hook"),
    (include_str!("../pve/poststop"), "/usr/share/lxc/hooks/lxc-pve-poststop-hook"),
    (include_str!("../pve/lxcnetaddbr"), "/usr/share/lxc/lxcnetaddbr"),
    (HOOKS, INCLUDED),
];
/// The lines that PVE has in common.conf.d.
const HOOKS: &str = "lxc.hook.pre-start = /usr/share/lxc/hooks/lxc-pve-prestart-hook
lxc.hook.autodev = /usr/share/lxc/hooks/lxc-pve-autodev-hook
lxc.hook.post-stop = /usr/share/lxc/hooks/lxc-pve-poststop-hook
";
/// Where they are here: only for containers of this kind.
const INCLUDED: &str = "/usr/share/lxc/config/pve.conf";
/// What an unprivileged container's ids begin at.
const BASE: u32 = 100_000;
/// The bridge with VLANs, and the host's place in one of them.
const VLAN_BRIDGE: &str = "vmbr0";
const VLAN: &str = "30";
/// For a monitor to end after its container.
const LIMIT: Duration = Duration::from_secs(20);

/// Such a host.
#[derive(Debug)]
pub struct Host {
    made: Vec<PathBuf>,
    /// Whether the kernel has bridges that know VLANs.
    pub vlans: bool,
}

impl Host {
    /// Makes the host one; it is none any more when this is dropped.
    pub fn make() -> Host {
        let mut made = vec![PathBuf::from("/etc/pve"), PathBuf::from("/var/lib/vz"), volumes()];
        fs::create_dir_all("/etc/pve/lxc").unwrap();
        fs::create_dir_all(DUMP).unwrap();
        // The hooks that LXC runs as the container's root write to it, too.
        fs::write(LOG, "").unwrap();
        fs::set_permissions(LOG, fs::Permissions::from_mode(0o666)).unwrap();
        fs::create_dir_all(volumes()).unwrap();
        for (text, path) in FILES {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            made.push(path.into());
        }
        let backup = Path::new(DUMP).join(BACKUP);
        fs::write(backup, "a backup").unwrap();
        Host { made, vlans: make_vlan_bridge() }
    }
}

fn make_vlan_bridge() -> bool {
    let ip = |words: String| Run::new("ip").args(words.split(' ')).output().success();
    if !ip(format!("link add {VLAN_BRIDGE} type bridge vlan_filtering 1")) {
        return false;
    }
    for words in [
        format!("link set {VLAN_BRIDGE} up"),
        format!("link add link {VLAN_BRIDGE} name {VLAN_BRIDGE}.{VLAN} type vlan id {VLAN}"),
        format!("addr add 10.99.30.1/24 dev {VLAN_BRIDGE}.{VLAN}"),
        format!("link set {VLAN_BRIDGE}.{VLAN} up"),
    ] {
        assert!(ip(words.clone()), "{words}");
    }
    Run::new("bridge")
        .args(["vlan", "add", "dev", VLAN_BRIDGE, "vid", VLAN, "self"])
        .output()
        .success()
}

impl Drop for Host {
    fn drop(&mut self) {
        Run::new("ip").args(["link", "del", VLAN_BRIDGE]).output();
        let scraps = [LOG, "/sys/fs/cgroup/lxc", "/sys/fs/cgroup/lxc.monitor"].map(PathBuf::from);
        for path in self.made.iter().chain(&scraps) {
            let _ = match path.is_dir() {
                true if path.starts_with("/sys") => fs::remove_dir(path),
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
        }
    }
}

/// Where the volumes are.
pub fn volumes() -> PathBuf {
    Path::new(DISK).join("pve")
}

/// What the hooks have been called with.
const LOG: &str = "/run/pve-hooks.log";

/// What a container is to be.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Its number.
    pub id: u32,
    /// With an id map, as PVE makes them unless told otherwise.
    pub unprivileged: bool,
    /// Options of net0, behind name, bridge and hwaddr.
    pub net: &'a str,
    /// Whether it is in the VLAN.
    pub vlan: bool,
    /// More lines of `/etc/pve/lxc/ID.conf`.
    pub conf: &'a str,
    /// More lines of LXC's configuration.
    pub raw: &'a str,
}

impl Wish<'_> {
    /// An unprivileged one on the bridge of the recipe.
    pub fn new(id: u32) -> Wish<'static> {
        Wish { id, unprivileged: true, net: "", vlan: false, conf: "", raw: "" }
    }
}

/// A container of such a host.
#[derive(Debug)]
pub struct Guest<'w> {
    container: Container<'w>,
    id: u32,
    address: Ipv4Addr,
}

impl<'w> Guest<'w> {
    /// Makes it of the recipe's busybox root, which becomes its volume.
    pub fn make(world: &'w World, wish: &Wish<'_>) -> Guest<'w> {
        let id = wish.id;
        let container = world.container_named(&id.to_string());
        let volume = volumes().join(format!("subvol-{id}-disk-0"));
        // Another mount of the same disk: nothing can be renamed over there.
        Run::new("cp").arg("-a").arg(container.rootfs()).arg(&volume).ok();
        fs::remove_dir_all(container.rootfs()).unwrap();
        fs::create_dir(container.rootfs()).unwrap();
        fs::create_dir_all(volume.join("dev")).unwrap();
        if wish.unprivileged {
            shift_owners(&volume, BASE);
        }
        Guest::of_volume(container, &volume, wish)
    }

    fn of_volume(container: Container<'w>, volume: &Path, wish: &Wish<'_>) -> Guest<'w> {
        let id = wish.id;
        let address = if wish.vlan { Ipv4Addr::new(10, 99, 30, 9) } else { container.address() };
        let bridge = if wish.vlan { VLAN_BRIDGE } else { BRIDGE };
        let guest = Guest { container, id, address };
        let (mac, net) = (guest.mac(), wish.net);
        let text = format!(
            "arch: amd64\ncores: 2\nhostname: ct{id}\nmemory: 512\nnet0: \
             name=eth0,bridge={bridge},hwaddr={mac},ip={address}/24,type=veth{net}\nostype: \
             debian\nrootfs: {},size=1G\nswap: 512\nunprivileged: {}\n{}",
            volume.display(),
            u8::from(wish.unprivileged),
            wish.conf,
        );
        fs::write(format!("/etc/pve/lxc/{id}.conf"), text).unwrap();
        fs::write(guest.container.dir().join("config"), guest.config(wish)).unwrap();
        guest
    }

    fn mac(&self) -> String {
        format!("bc:24:11:00:00:{:02x}", self.id % 256)
    }

    /// As `update_lxc_config` writes it, in its order.
    fn config(&self, wish: &Wish<'_>) -> String {
        let (id, share) = (self.id, "/usr/share/lxc/config");
        let dir = self.container.dir();
        let mut text = format!(
            "lxc.cgroup.relative = 0\nlxc.cgroup.dir.monitor = \
             lxc.monitor/{id}\nlxc.cgroup.dir.container = lxc/{id}\nlxc.cgroup.dir.container.inner \
             = ns\nlxc.arch = amd64\nlxc.include = {share}/common.conf\nlxc.include = {INCLUDED}\n"
        );
        if wish.unprivileged {
            text += &format!("lxc.include = {share}/userns.conf\n");
            // As PVE's userns.conf.d: a list of what is denied.
            text += "lxc.cgroup2.devices.deny =\nlxc.cgroup2.devices.allow \
                     =\nlxc.cgroup2.devices.allow = a\n";
            text += "lxc.mount.auto = sys:mixed\n";
        }
        text += "lxc.monitor.unshare = 1\n";
        if wish.unprivileged {
            text += &format!("lxc.idmap = u 0 {BASE} 65536\nlxc.idmap = g 0 {BASE} 65536\n");
        }
        text += &format!(
            "lxc.tty.max = 2\nlxc.environment = TERM=linux\nlxc.uts.name = \
             ct{id}\nlxc.cgroup2.pids.max = 400\nlxc.cgroup2.memory.max = \
             536870912\nlxc.rootfs.path = {dir}/rootfs\nlxc.net.0.type = veth\nlxc.net.0.veth.pair \
             = veth{id}i0\nlxc.net.0.hwaddr = {mac}\nlxc.net.0.name = eth0\nlxc.net.0.mtu = \
             1500\nlxc.net.0.script.up = /usr/share/lxc/lxcnetaddbr\nlxc.net.0.ipv4.address = \
             {address}/24\nlxc.net.0.flags = up\nlxc.mount.entry = tmpfs dev/shm tmpfs \
             nosuid,nodev,create=dir 0 0\n",
            dir = dir.display(),
            mac = self.mac(),
            address = self.address,
        );
        if !controllers().contains(&"memory".to_owned()) {
            text = text
                .lines()
                .filter(|l| !l.contains("memory.max"))
                .map(|l| format!("{l}\n"))
                .collect();
        }
        if !controllers().contains(&"pids".to_owned()) {
            text = text
                .lines()
                .filter(|l| !l.contains("pids.max"))
                .map(|l| format!("{l}\n"))
                .collect();
            text += "lxc.cgroup2.cgroup.max.descendants = 30\n";
        }
        text + wish.raw
    }

    /// Its definition.
    pub fn definition(&self) -> PathBuf {
        format!("/etc/pve/lxc/{}.conf", self.id).into()
    }

    /// `pct start`: the configuration is written anew, with the definition's raw lines at its end.
    pub fn start(&self, wish: &Wish<'_>) {
        let text = fs::read_to_string(self.definition()).unwrap();
        let current = text.lines().take_while(|line| !line.starts_with('['));
        let raw: String = current
            .filter(|line| line.starts_with("lxc."))
            .map(|line| line.replacen(": ", " = ", 1) + "\n")
            .collect();
        fs::write(self.container.dir().join("config"), self.config(wish) + &raw).unwrap();
        self.container.start();
    }

    /// LXC's commands and ours on it.
    pub fn container(&self) -> &Container<'w> {
        &self.container
    }

    /// Where its witness answers.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `pct suspend`.
    pub fn suspend(&self) -> Output {
        Run::ours("lxc-checkpoint").args(["-n", &self.id.to_string(), "-s", "-D", DUMP]).output()
    }

    /// `pct resume`, which stays until the container ends.
    pub fn resume(&self) -> Child {
        let id = self.id.to_string();
        let child =
            Run::ours("lxc-checkpoint").args(["-n", &id, "-r", "--foreground", "-D", DUMP]).spawn();
        let mut child = child;
        let running = wait_for("it to run again", LIMIT, || {
            if let Ok(Some(status)) = child.try_wait() {
                let again =
                    Run::ours("lxc-checkpoint").args(["-n", &id, "-r", "-d", "-D", DUMP]).output();
                panic!("pct resume: {status}; once more: {again}");
            }
            (self.container.state() == "RUNNING").then_some(())
        });
        running.unwrap_or_else(|e| panic!("{e}"));
        child
    }

    /// Stops it, and waits for the command that has resumed it.
    pub fn stop(&self, foreground: Option<Child>) {
        self.container.kill();
        if let Some(mut child) = foreground {
            wait_for("the end of the monitor", LIMIT, || child.try_wait().unwrap()).unwrap();
        }
    }

    /// What must be equal before and after: its mounts, its cgroups with their limits, what devices
    /// it may open, its network inside and on the host.
    pub fn state(&self) -> String {
        let init = self.container.init_pid();
        let mut state = Vec::new();
        for line in fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let source = line.split(" - ").nth(1).unwrap_or_default();
            // What a tmpfs or a device is called is not kept by CRIU, and tells nobody anything.
            let kind = source.split(' ').next().unwrap_or_default();
            state.push(format!("mount {} {} {kind}", fields[4], fields[5]));
        }
        let top = Path::new("/sys/fs/cgroup/lxc").join(self.id.to_string());
        for dir in [top.clone(), top.join("ns")] {
            let meta = fs::metadata(&dir).unwrap();
            state.push(format!("cgroup {} {} {:o}", dir.display(), meta.uid(), meta.mode()));
            for entry in fs::read_dir(&dir).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if [".max", ".descendants", ".subtree_control", ".procs"]
                    .iter()
                    .any(|end| name.ends_with(end))
                {
                    let meta = entry.metadata().unwrap();
                    let value = match name.as_str() {
                        "cgroup.procs" => String::new(),
                        _ => fs::read_to_string(entry.path()).unwrap_or_default(),
                    };
                    state.push(format!(
                        "cgroup {name} {} {:o} {}",
                        meta.uid(),
                        meta.mode(),
                        value.trim()
                    ));
                }
            }
        }
        let host = format!("veth{}i0", self.id);
        for words in [
            vec!["bridge", "vlan", "show"],
            vec!["tc", "qdisc", "show", "dev", &host],
            vec!["tc", "class", "show", "dev", &host],
        ] {
            let told = Run::new(words[0]).args(&words[1..]).output();
            state.push(format!("{words:?} {}", told.stdout.trim()));
        }
        for link in fs::read_dir("/sys/class/net").unwrap().flatten() {
            let name = link.file_name().to_string_lossy().into_owned();
            if name.contains(&self.id.to_string()) {
                let master = fs::read_link(link.path().join("master")).ok();
                let master =
                    master.and_then(|m| Some(m.file_name()?.to_string_lossy().into_owned()));
                let six = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
                let six = fs::read_to_string(six).unwrap_or_default();
                let mtu = fs::read_to_string(link.path().join("mtu")).unwrap();
                state.push(format!(
                    "link {name} {master:?} mtu {} no-ipv6 {}",
                    mtu.trim(),
                    six.trim()
                ));
            }
        }
        for command in [
            "ip addr show eth0 | grep -v valid_lft | sed 's/@if[0-9]*//; s/ tentative//'",
            "ip route",
            "hostname",
        ] {
            state.push(format!(
                "inside {command}: {}",
                self.container.exec(["sh", "-c", command]).stdout.trim()
            ));
        }
        state.sort();
        state.join("\n")
    }
}

fn controllers() -> Vec<String> {
    let text = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn shift_owners(path: &Path, by: u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    lchown(path, Some(meta.uid() + by), Some(meta.gid() + by)).unwrap();
    if !meta.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777)).unwrap();
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            shift_owners(&entry.unwrap().path(), by);
        }
    }
}
