//! What we ask of CRIU, as a value, and the command line that says it. Pure: no file is read here.
//!
//! CRIU is run as a program, so that `--dry-run` can print the very line that would be run and
//! anyone can repeat it by hand. The options' meaning and the release that brought each: criu(8)
//! and `criu/config.c`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The log that a dump writes into the image directory.
pub(crate) const DUMP_LOG: &str = "dump.log";
/// The log that a pre-dump writes.
pub(crate) const PRE_DUMP_LOG: &str = "pre-dump.log";
/// The log that a restore writes.
pub(crate) const RESTORE_LOG: &str = "restore.log";

/// Something of the container that lives outside it, and the key under which the images name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum External {
    /// A bind mount from the host. At the dump: the mount point inside; at the restore: the source.
    Mount {
        /// The name in the images.
        key: String,
        /// The mount point in the container (dump), the path on the host (restore).
        path: PathBuf,
    },
    /// An open file of the host that is in no mount of the container, as `/dev/null` under
    /// `lxc.autodev = 0`.
    File {
        /// The host's mount id.
        mount_id: u64,
        /// The inode.
        inode: u64,
    },
    /// A terminal whose other end is outside. At the restore it is an [`InheritedFd`].
    Tty {
        /// The terminal's device numbers, as stat(2) gives them.
        rdev: u64,
        /// Those of the file system that its file is in.
        dev: u64,
    },
}

/// What the images call a terminal whose other end is outside.
pub(crate) fn tty_resource(rdev: u64, dev: u64) -> String {
    format!("tty[{rdev:x}:{dev:x}]")
}

/// What becomes of the tasks when their images are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterDump {
    /// They are ended: the container is stopped.
    Stop,
    /// They go on.
    LeaveRunning,
}

/// What keeps packets from a container while it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkLock {
    /// Not CRIU: the bridge port is the lock (`--network-lock skip`, CRIU ≥ 3.19).
    Skip,
    /// Rules of nftables in its network namespace; they are in the images, and go when its restore
    /// is complete.
    Nftables,
    /// What CRIU does unless it is told otherwise: rules of iptables.
    Default,
}

/// Options that a dump and its restore have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    /// The image directory; logs and statistics are written there too.
    pub images: PathBuf,
    /// Our action script, and the user's.
    pub action_scripts: Vec<PathBuf>,
    /// What lives outside the container.
    pub externals: Vec<External>,
    /// Options that the user adds, as they are.
    pub extra: Vec<OsString>,
}

/// A dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    /// What it shares with a restore.
    pub common: Common,
    /// Init's pid on the host.
    pub tree: i32,
    /// What becomes of the tasks.
    pub after: AfterDump,
    /// Deleted files that are still open are copied up to this size, in bytes.
    pub ghost_limit: u64,
    /// The payload cgroup, when it is frozen: CRIU waits for ever for a frozen task otherwise.
    pub freeze_cgroup: Option<PathBuf>,
    /// The cgroups below which the container's own cgroups are dumped; none where CRIU itself is in
    /// the container's cgroup namespace.
    pub cgroup_roots: Vec<CgroupRoot>,
    /// What keeps packets from the container.
    pub network_lock: NetworkLock,
    /// The images of the pre-dump that this dump builds on, relative to the image directory.
    pub parent_images: Option<PathBuf>,
    /// TCP connections are left out of the images.
    pub tcp_close: bool,
}

/// A round of copying memory while the tasks run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreDump {
    /// The image directory.
    pub images: PathBuf,
    /// Init's pid on the host.
    pub tree: i32,
    /// The images of the round before, relative to the image directory.
    pub parent_images: Option<PathBuf>,
    /// The cgroup of a container that is frozen: CRIU would wait for its tasks for ever.
    pub freeze_cgroup: Option<PathBuf>,
    /// Options that the user adds, as they are.
    pub extra: Vec<OsString>,
}

/// A container's cgroup in one hierarchy, as CRIU is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupRoot {
    /// The hierarchy, by its v1 controllers as /proc/PID/cgroup names them; empty for cgroup2.
    pub hierarchy: String,
    /// The cgroup's path, for example `/lxc.payload.NAME`.
    pub path: String,
}

impl CgroupRoot {
    /// Of the hierarchy with these controllers.
    pub(crate) fn of(controllers: &[String], path: &Path) -> CgroupRoot {
        CgroupRoot { hierarchy: controllers.join(","), path: path.to_string_lossy().into_owned() }
    }
}

/// How the restored tasks come into their cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// CRIU is born in the one cgroup that all tasks have, in a cgroup namespace rooted there; the
    /// tasks inherit both.
    Inherited,
    /// CRIU moves each task into its cgroup, which is there already.
    Moved {
        /// The roots to put before the cgroups in the images; none where CRIU itself is in a cgroup
        /// namespace with those roots.
        roots: Vec<CgroupRoot>,
    },
}

/// A descriptor that the restored tasks take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InheritedFd {
    /// Its number in CRIU.
    pub number: i32,
    /// What the images call it, for example `file[1f:3]`.
    pub resource: String,
}

/// A restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restore {
    /// What it shares with a dump.
    pub common: Common,
    /// The container's root: a mount in CRIU's mount namespace.
    pub root: PathBuf,
    /// Where CRIU writes init's pid.
    pub pidfile: PathBuf,
    /// How tasks come into their cgroups.
    pub cgroups: Cgroups,
    /// TCP connections are not in the images: their sockets come back unconnected.
    pub tcp_close: bool,
    /// Descriptors to hand over.
    pub inherited: Vec<InheritedFd>,
    /// The network namespace is left empty: we fill it.
    pub empty_network: bool,
    /// CRIU's older way of making mounts.
    pub older_mount_engine: bool,
    /// Private memory comes later, from whoever listens on the lazy-pages socket in the working
    /// directory.
    pub lazy: bool,
    /// LSM label to give instead of the dumped one, as CRIU's `TYPE:NAME`.
    pub lsm_profile: Option<String>,
}

impl Dump {
    /// The command line, without the program.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut line = Line::new("dump");
        line.value("--tree", self.tree.to_string());
        line.common(&self.common, DUMP_LOG);
        // These four change nothing where they are not needed; a container that needs one cannot be
        // dumped without it.
        line.tcp(self.tcp_close);
        line.flag("--file-locks");
        line.flag("--link-remap");
        line.value("--enable-fs", "all");
        line.value("--ghost-limit", self.ghost_limit.to_string());
        match self.network_lock {
            NetworkLock::Skip => line.value("--network-lock", "skip"),
            NetworkLock::Nftables => line.value("--network-lock", "nftables"),
            NetworkLock::Default => {}
        }
        line.cgroup_roots(&self.cgroup_roots);
        if let Some(cgroup) = &self.freeze_cgroup {
            line.value("--freeze-cgroup", cgroup);
        }
        if let Some(parent) = &self.parent_images {
            line.flag("--track-mem");
            line.value("--prev-images-dir", parent);
        }
        for external in &self.common.externals {
            match external {
                External::Mount { key, path } => {
                    line.external(format!("mnt[{}]:{key}", path.display()));
                }
                External::File { mount_id, inode } => {
                    line.external(format!("file[{mount_id:x}:{inode:x}]"))
                }
                External::Tty { rdev, dev } => line.external(tty_resource(*rdev, *dev)),
            }
        }
        if self.after == AfterDump::LeaveRunning {
            line.flag("--leave-running");
        }
        line.end(&self.common.extra)
    }
}

impl PreDump {
    /// The command line, without the program.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut line = Line::new("pre-dump");
        line.value("--tree", self.tree.to_string());
        line.place(&self.images, PRE_DUMP_LOG);
        line.flag("--track-mem");
        if let Some(cgroup) = &self.freeze_cgroup {
            line.value("--freeze-cgroup", cgroup);
        }
        if let Some(parent) = &self.parent_images {
            line.value("--prev-images-dir", parent);
        }
        line.end(&self.extra)
    }
}

impl Restore {
    /// The command line, without the program.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut line = Line::new("restore");
        line.common(&self.common, RESTORE_LOG);
        // Init has a parent-death signal: its parent must be the monitor, not CRIU, which ends.
        line.flag("--restore-detached");
        line.flag("--restore-sibling");
        line.value("--pidfile", &self.pidfile);
        line.value("--root", &self.root);
        line.tcp(self.tcp_close);
        line.flag("--file-locks");
        line.flag("--link-remap");
        line.value("--enable-fs", "all");
        match &self.cgroups {
            Cgroups::Inherited => line.value("--manage-cgroups=ignore", ""),
            Cgroups::Moved { roots } => {
                line.value("--manage-cgroups=soft", "");
                line.cgroup_roots(roots);
            }
        }
        if self.empty_network {
            line.value("--empty-ns", "net");
        }
        if self.older_mount_engine {
            line.flag("--mntns-compat-mode");
        }
        if self.lazy {
            line.flag("--lazy-pages");
        }
        if let Some(profile) = &self.lsm_profile {
            line.value("--lsm-profile", profile);
        }
        for external in &self.common.externals {
            match external {
                External::Mount { key, path } => {
                    line.external(format!("mnt[{key}]:{}", path.display()))
                }
                External::File { .. } | External::Tty { .. } => {}
            }
        }
        for fd in &self.inherited {
            line.value("--inherit-fd", format!("fd[{}]:{}", fd.number, fd.resource));
        }
        line.end(&self.common.extra)
    }
}

/// A command line while it grows.
struct Line(Vec<OsString>);

impl Line {
    fn new(command: &str) -> Line {
        Line(vec![command.into()])
    }

    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    /// An option and its value; an empty value adds the option alone.
    fn value(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        let value = value.into();
        if !value.is_empty() {
            self.0.push(value);
        }
    }

    /// What becomes of TCP connections.
    fn tcp(&mut self, close: bool) {
        self.flag(if close { "--tcp-close" } else { "--tcp-established" });
    }

    fn external(&mut self, resource: String) {
        self.value("--external", resource);
    }

    fn cgroup_roots(&mut self, roots: &[CgroupRoot]) {
        for CgroupRoot { hierarchy, path } in roots {
            self.value("--cgroup-root", format!("{hierarchy}:{path}"));
        }
    }

    fn place(&mut self, images: &Path, log: &str) {
        // Without this, files in /etc/criu and $HOME would change what we ask for.
        self.flag("--no-default-config");
        self.value("--images-dir", images);
        self.value("--log-file", log);
        // The reason of a failure often stands in a debug line; the log costs nothing measurable.
        self.flag("-v4");
    }

    fn common(&mut self, common: &Common, log: &str) {
        self.place(&common.images, log);
        for script in &common.action_scripts {
            self.value("--action-script", script);
        }
    }

    fn end(mut self, extra: &[OsString]) -> Vec<OsString> {
        self.0.extend(extra.iter().cloned());
        self.0
    }
}

/// A command line as a person would type it: words that a shell would split or change are quoted.
pub(crate) fn printable(program: &Path, args: &[OsString]) -> String {
    let mut words = vec![quoted(program.as_os_str().to_string_lossy().as_ref())];
    words.extend(args.iter().map(|a| quoted(a.to_string_lossy().as_ref())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common() -> Common {
        Common {
            images: "/var/lib/lxc/t/dump.partial".into(),
            action_scripts: vec!["/usr/libexec/lxc-cr/lxc-cr-action".into()],
            externals: vec![
                External::Mount { key: "dev_null".into(), path: "/dev/null".into() },
                External::File { mount_id: 0x1f, inode: 0xab },
            ],
            extra: vec![],
        }
    }

    #[test]
    fn a_dump_names_what_is_outside_and_switches_the_lock_off() {
        let dump = Dump {
            common: common(),
            tree: 812,
            after: AfterDump::LeaveRunning,
            ghost_limit: 1 << 20,
            freeze_cgroup: None,
            cgroup_roots: vec![CgroupRoot::of(&[], Path::new("/lxc.payload.t"))],
            network_lock: NetworkLock::Skip,
            parent_images: None,
            tcp_close: false,
        };
        insta::assert_snapshot!(printable(Path::new("criu"), &dump.args()), @"criu dump --tree 812 --no-default-config --images-dir /var/lib/lxc/t/dump.partial --log-file dump.log -v4 --action-script /usr/libexec/lxc-cr/lxc-cr-action --tcp-established --file-locks --link-remap --enable-fs all --ghost-limit 1048576 --network-lock skip --cgroup-root :/lxc.payload.t --external 'mnt[/dev/null]:dev_null' --external 'file[1f:ab]' --leave-running");
    }

    #[test]
    fn a_restore_maps_the_mounts_back() {
        let restore = Restore {
            common: common(),
            root: "/r".into(),
            pidfile: "/run/lxc-cr/t/pid".into(),
            cgroups: Cgroups::Inherited,
            tcp_close: false,
            inherited: vec![InheritedFd { number: 20, resource: "file[1f:ab]".into() }],
            empty_network: false,
            older_mount_engine: false,
            lazy: false,
            lsm_profile: None,
        };
        insta::assert_snapshot!(printable(Path::new("criu"), &restore.args()), @"criu restore --no-default-config --images-dir /var/lib/lxc/t/dump.partial --log-file restore.log -v4 --action-script /usr/libexec/lxc-cr/lxc-cr-action --restore-detached --restore-sibling --pidfile /run/lxc-cr/t/pid --root /r --tcp-established --file-locks --link-remap --enable-fs all --manage-cgroups=ignore --external 'mnt[dev_null]:/dev/null' --inherit-fd 'fd[20]:file[1f:ab]'");
    }

    #[test]
    fn words_that_a_shell_would_change_are_quoted() {
        assert_eq!(
            printable(Path::new("criu"), &["a b".into(), "it's".into(), "".into()]),
            r"criu 'a b' 'it'\''s' ''"
        );
    }
}
