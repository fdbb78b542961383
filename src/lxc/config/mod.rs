//! The configuration of a container, as liblxc reads it.
//!
//! Two languages are read: that of LXC <= 2.0 (`lxc.rootfs`, `lxc.network.*`, …) and that of LXC >=
//! 2.1 (`lxc.rootfs.path`, `lxc.net.N.*`, …). The old names become the new ones on reading
//! ([`Item::written`] keeps what stands in the file). A line changes what the lines before it made,
//! exactly in the order of the files; so the state here is built line by line, as in liblxc, and
//! not looked up in a list of lines afterwards.
//!
//! | file | its story |
//! |---|---|
//! | `parse` | text → items, pure |
//! | `load` | files and includes, with limits |
//! | `legacy` | old names → new names |
//! | `keys`, `value` | which key takes which form, and the forms |
//! | `set` | what an item changes |
//! | `net`, `address`, `mounts` | interfaces; their addresses; mounts |
//! | `item` | what liblxc answers for a key |
//! | `system` | `/etc/lxc/lxc.conf` |
//!
//! Unknown keys are kept and ignored: they belong to an LXC that is newer than we are. What LXC 7.0
//! does in the odd cases was compared with its `lxc-info -c`; `tests/system/config_cases/` holds
//! the cases.

mod address;
mod error;
mod item;
mod keys;
mod legacy;
mod load;
mod mounts;
mod net;
mod parse;
mod set;
pub(crate) mod system;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use address::Gateway;
pub use error::ConfigError;
pub use keys::HookKind;
pub(crate) use keys::SignalKind;
pub(in crate::lxc) use mounts::unescape;
pub(crate) use mounts::{MountAuto, MountEntry, mount_points_of_fstab};
pub(crate) use net::{HwAddr, Nic, NicKind, VethMode};
pub(crate) use parse::Item;
pub use parse::items;
pub(crate) use value::{IdKind, IdMap};

use crate::sys::path_trust::{Guest, Source};

/// A container's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    file: PathBuf,
    /// The files that it was read from.
    sources: Vec<Source>,
    items: Vec<Item>,
    /// Single values, in the form in which liblxc prints them.
    scalars: BTreeMap<&'static str, OsString>,
    lists: BTreeMap<&'static str, Vec<String>>,
    tables: BTreeMap<&'static str, Vec<(String, String)>>,
    /// By ascending index.
    nics: Vec<Nic>,
    /// The `lxc.mount.entry` lines that hold, as indices into `items`.
    mounts: Vec<usize>,
    auto: MountAuto,
    idmap: Vec<IdMap>,
    rootfs_type: Option<String>,
    caps: Vec<String>,
    caps_keep: bool,
    ns_clone: [bool; set::NAMESPACES.len()],
    ns_keep: [bool; set::NAMESPACES.len()],
    ns_share: BTreeMap<&'static str, String>,
    time_boot: set::Offset,
    time_monotonic: set::Offset,
    init_groups: Vec<u32>,
    arch: Option<&'static str>,
    autodev_tmpfs_size: i32,
    log_level: &'static str,
    seccomp_proxy: Option<String>,
}

/// How a root file system is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootfsKind {
    /// Not said; liblxc finds out.
    Unspecified,
    /// A directory.
    Dir,
    /// An overlay, also spelled `overlayfs`; the path is `LOWER[:LOWER…]:UPPER`.
    Overlay,
    /// A file with a file system, on a loop device.
    Loop,
    /// A btrfs subvolume.
    Btrfs,
    /// A ZFS data set.
    Zfs,
    /// A logical volume.
    Lvm,
    /// A network block device.
    Nbd,
    /// Any other word.
    Other(String),
}

/// The root file system of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// How it is stored.
    pub kind: RootfsKind,
    /// Where, without the prefix that names the kind.
    pub path: PathBuf,
    /// `lxc.rootfs.options`: options for its mount.
    pub options: Option<String>,
}

/// What `lxc.console.path` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console<'a> {
    /// Nothing: a pty is made.
    Unset,
    /// `none`: there is no console.
    None,
    /// A terminal or a file on the host.
    Path(&'a Path),
}

impl Config {
    /// Reads a configuration file and all that it includes.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        load::Loader::load(path)
    }

    /// Reads a configuration from memory; `path` is its name in messages. Includes are read from
    /// disk.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Config, ConfigError> {
        load::Loader::parse(path, text)
    }

    fn empty(file: &Path) -> Config {
        Config {
            file: file.to_owned(),
            sources: Vec::new(),
            items: Vec::new(),
            scalars: BTreeMap::new(),
            lists: BTreeMap::new(),
            tables: BTreeMap::new(),
            nics: Vec::new(),
            mounts: Vec::new(),
            auto: MountAuto::default(),
            idmap: Vec::new(),
            rootfs_type: None,
            caps: Vec::new(),
            caps_keep: false,
            ns_clone: Default::default(),
            ns_keep: Default::default(),
            ns_share: BTreeMap::new(),
            time_boot: set::Offset::default(),
            time_monotonic: set::Offset::default(),
            init_groups: Vec::new(),
            arch: None,
            autodev_tmpfs_size: 0,
            log_level: "NOTSET",
            seccomp_proxy: None,
        }
    }

    /// Where it was read from: its own file and all that are included.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The file that was loaded.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Every item of every file in the order of reading, unknown ones and those overridden later
    /// among them.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The last item of a key (in its modern spelling), to say where a value comes from.
    pub fn last_item(&self, key: &str) -> Option<&Item> {
        self.items.iter().rev().find(|item| item.key == key)
    }

    /// The root file system.
    pub fn rootfs(&self) -> Option<Rootfs> {
        let kind = match self.rootfs_type.as_deref() {
            None => RootfsKind::Unspecified,
            Some("dir") => RootfsKind::Dir,
            Some("overlay" | "overlayfs") => RootfsKind::Overlay,
            Some("loop") => RootfsKind::Loop,
            Some("btrfs") => RootfsKind::Btrfs,
            Some("zfs") => RootfsKind::Zfs,
            Some("lvm") => RootfsKind::Lvm,
            Some("nbd") => RootfsKind::Nbd,
            Some(other) => RootfsKind::Other(other.to_owned()),
        };
        let options = self.text("lxc.rootfs.options").map(str::to_owned);
        Some(Rootfs { kind, path: self.path("lxc.rootfs.path")?.to_owned(), options })
    }

    /// Where the root file system is mounted while the container starts; `None` where LXC's own
    /// default holds.
    pub fn rootfs_mount(&self) -> Option<&Path> {
        self.path("lxc.rootfs.mount")
    }

    /// The host name.
    pub fn uts_name(&self) -> Option<&str> {
        self.text("lxc.uts.name")
    }

    /// The network interfaces by ascending index.
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// Notes the name which the host's end of a veth pair really has; `false` if there is no such
    /// veth.
    pub fn set_veth_pair(&mut self, index: u32, name: &str) -> bool {
        let nic = self.nics.iter_mut().find(|nic| nic.index == index && nic.kind == NicKind::Veth);
        nic.map(|nic| nic.veth_pair = Some(net::interface_name(name))).is_some()
    }

    /// Notes the hardware address which was made from a template; `false` if there is no such
    /// interface.
    pub fn set_hwaddr(&mut self, index: u32, address: HwAddr) -> bool {
        let nic = self.nics.iter_mut().find(|nic| nic.index == index);
        nic.map(|nic| nic.hwaddr = Some(address)).is_some()
    }

    /// The mounts of the fstab file and then of `lxc.mount.entry`, in the order in which liblxc
    /// makes them.
    pub fn mount_entries(&self) -> Result<Vec<MountEntry>, ConfigError> {
        let mut entries = match (self.path("lxc.mount.fstab"), self.last_item("lxc.mount.fstab")) {
            (Some(fstab), Some(item)) => mounts::read_fstab(fstab, item.at.clone(), self.guest())?,
            _ => Vec::new(),
        };
        for item in self.mount_items() {
            entries.extend(mounts::of_item(item)?);
        }
        Ok(entries)
    }

    fn mount_items(&self) -> impl Iterator<Item = &Item> {
        self.mounts.iter().filter_map(|index| self.items.get(*index))
    }

    /// The automatic mounts.
    pub fn mount_auto(&self) -> &MountAuto {
        &self.auto
    }

    /// The id map; empty without a user namespace.
    pub fn idmap(&self) -> &[IdMap] {
        &self.idmap
    }

    /// Its root as the host sees it, where a user namespace is configured.
    pub fn guest(&self) -> Option<Guest> {
        let on_host = |kind| {
            let map = self.idmap.iter().find(|m| m.kind == kind && m.inside == 0)?;
            u32::try_from(map.host).ok()
        };
        Some(Guest { uid: on_host(IdKind::Uid)?, gid: on_host(IdKind::Gid)? })
    }

    /// The hooks of one kind, in order.
    pub fn hooks(&self, kind: HookKind) -> &[String] {
        self.list(kind.key())
    }

    /// Whether the monitor, and with it all hooks on the host, has a mount namespace of its own.
    pub fn monitor_unshare(&self) -> bool {
        self.number("lxc.monitor.unshare") != 0
    }

    /// How hooks get their arguments: 0 as arguments, 1 in the environment.
    pub fn hook_version(&self) -> u32 {
        u32::from(self.flag("lxc.hook.version", false))
    }

    /// `lxc.cgroup.dir`.
    pub fn cgroup_dir(&self) -> Option<&str> {
        self.text("lxc.cgroup.dir")
    }

    /// `lxc.cgroup.dir.container`.
    pub fn cgroup_dir_container(&self) -> Option<&str> {
        self.text("lxc.cgroup.dir.container")
    }

    /// `lxc.cgroup.dir.container.inner`.
    pub fn cgroup_dir_inner(&self) -> Option<&str> {
        self.text("lxc.cgroup.dir.container.inner")
    }

    /// `lxc.cgroup.dir.monitor`.
    pub fn cgroup_dir_monitor(&self) -> Option<&str> {
        self.text("lxc.cgroup.dir.monitor")
    }

    /// `lxc.cgroup.dir.monitor.pivot`.
    pub fn cgroup_dir_pivot(&self) -> Option<&str> {
        self.text("lxc.cgroup.dir.monitor.pivot")
    }

    /// Whether cgroup paths are relative to the caller's cgroup.
    pub fn cgroup_relative(&self) -> bool {
        self.flag("lxc.cgroup.relative", false)
    }

    /// The `lxc.cgroup2.KEY` lines, as KEY and value.
    pub fn cgroup2_items(&self) -> &[(String, String)] {
        self.table("lxc.cgroup2")
    }

    /// The `lxc.cgroup.KEY` lines for the cgroup v1 controllers, as KEY and value.
    pub fn cgroup_items(&self) -> &[(String, String)] {
        self.table("lxc.cgroup")
    }

    /// The `lxc.prlimit.KEY` lines, as KEY and `SOFT[:HARD]`.
    pub fn prlimits(&self) -> &[(String, String)] {
        self.table("lxc.prlimit")
    }

    /// The `lxc.sysctl.KEY` lines, as KEY and value.
    pub fn sysctls(&self) -> &[(String, String)] {
        self.table("lxc.sysctl")
    }

    /// The console.
    pub fn console_path(&self) -> Console<'_> {
        match self.path("lxc.console.path") {
            None => Console::Unset,
            Some(path) if path == "none" => Console::None,
            Some(path) => Console::Path(path),
        }
    }

    /// The file to which the console's output is appended.
    pub fn console_logfile(&self) -> Option<&Path> {
        self.path("lxc.console.logfile")
    }

    /// The most bytes that the console's log may have; 0 is no limit.
    pub fn console_size(&self) -> u64 {
        self.long_number("lxc.console.size")
    }

    /// Whether a full log of the console is kept under another name.
    pub fn console_rotate(&self) -> bool {
        self.flag("lxc.console.rotate", false)
    }

    /// How many of the last bytes of the console's output are kept in memory.
    pub fn console_buffer_size(&self) -> u64 {
        self.long_number("lxc.console.buffer.size")
    }

    /// How many ttys the container has.
    pub fn tty_max(&self) -> u32 {
        self.number("lxc.tty.max")
    }

    /// How many ptys the container may have; 0 is LXC's own default.
    pub fn pty_max(&self) -> u32 {
        self.number("lxc.pty.max")
    }

    /// Whether LXC populates `/dev`.
    pub fn autodev(&self) -> bool {
        self.flag("lxc.autodev", true)
    }

    /// Whether it is started at boot.
    pub fn start_auto(&self) -> bool {
        self.flag("lxc.start.auto", false)
    }

    /// Its place among those that are started at boot: a lower number is earlier.
    pub fn start_order(&self) -> i32 {
        self.text("lxc.start.order").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// How many seconds are waited after its start before the next one.
    pub fn start_delay(&self) -> u32 {
        self.number("lxc.start.delay")
    }

    /// The groups that it is in.
    pub fn groups(&self) -> &[String] {
        self.list("lxc.group")
    }

    /// Whether the container is destroyed when it stops.
    pub fn ephemeral(&self) -> bool {
        self.flag("lxc.ephemeral", false)
    }

    /// `lxc.no_new_privs`.
    pub fn no_new_privs(&self) -> bool {
        self.flag("lxc.no_new_privs", false)
    }

    /// Whether the container gets a session keyring of its own: `lxc.keyring.session = 1` is LXC's
    /// word for "no".
    pub fn has_own_keyring(&self) -> bool {
        !self.flag("lxc.keyring.session", false)
    }

    /// `lxc.apparmor.profile`.
    pub fn apparmor_profile(&self) -> Option<&str> {
        self.text("lxc.apparmor.profile")
    }

    /// `lxc.selinux.context`.
    pub fn selinux_context(&self) -> Option<&str> {
        self.text("lxc.selinux.context")
    }

    /// `lxc.seccomp.profile`: a file on the host.
    pub fn seccomp_profile(&self) -> Option<&Path> {
        self.path("lxc.seccomp.profile")
    }

    /// The `lxc.proc.KEY` lines, as KEY and value.
    pub fn proc_items(&self) -> &[(String, String)] {
        self.table("lxc.proc")
    }

    /// The program, with its arguments, that is started as init; `None` where LXC's own default
    /// holds.
    pub fn init_command(&self) -> Option<&str> {
        self.text("lxc.init.cmd")
    }

    /// The signal that init gets when its monitor dies; 0 for none.
    pub fn monitor_death_signal(&self) -> i32 {
        self.text("lxc.monitor.signal.pdeath")
            .and_then(|n| n.parse().ok())
            .unwrap_or(nix::libc::SIGKILL)
    }

    /// `lxc.environment` as names and values. A name alone takes its value from our environment, if
    /// it is there.
    pub fn environment(&self) -> Vec<(String, Option<String>)> {
        let split = |line: &String| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (line.clone(), std::env::var(line).ok()),
        };
        self.list("lxc.environment").iter().map(split).collect()
    }

    /// The container with which a namespace (`net`, `ipc`, …) is shared: a name, a pid or a path.
    pub fn shared_namespace(&self, namespace: &str) -> Option<&str> {
        self.ns_share.get(namespace).map(String::as_str)
    }

    /// Whether a namespace (`net`, `user`, …) is kept from the starter by `lxc.namespace.keep`.
    pub fn keeps_namespace(&self, namespace: &str) -> bool {
        set::NAMESPACES.iter().zip(&self.ns_keep).any(|(name, kept)| *name == namespace && *kept)
    }

    fn path(&self, key: &str) -> Option<&Path> {
        self.scalars.get(key).map(Path::new)
    }

    fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn table(&self, key: &str) -> &[(String, String)] {
        self.tables.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn flag(&self, key: &str, unset: bool) -> bool {
        self.text(key).map_or(unset, |value| value != "0")
    }

    fn number(&self, key: &str) -> u32 {
        self.text(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn long_number(&self, key: &str) -> u64 {
        self.text(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}
