//! The container of the recipe: busybox, its configuration in the old spelling, the witness running
//! in it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cgroups;
use super::enter::{BRIDGE, WITNESS};
use super::run::{Output, Run, wait_for};
use super::witness::Witness;
use super::world::World;

/// `IFA_F_TENTATIVE`.
const TENTATIVE: u32 = 0x40;
/// For LXC to get a container from one state into another.
const STATE_LIMIT: Duration = Duration::from_secs(20);
/// What of busybox the container offers; all of it is in `/bin`.
const APPLETS: &[&str] = &[
    "sh", "cat", "date", "df", "echo", "env", "false", "free", "grep", "halt", "head", "hostname",
    "id", "ifconfig", "init", "ip", "kill", "ln", "logger", "ls", "mkdir", "mount", "nc", "ping",
    "poweroff", "ps", "pwd", "readlink", "reboot", "rm", "route", "sed", "sleep", "sort", "stat",
    "syslogd", "tail", "test", "top", "touch", "true", "umount", "uname", "wc", "wget",
];
const DIRECTORIES: &[&str] = &[
    "bin", "sbin", "etc", "dev/pts", "dev/shm", "proc", "sys", "tmp", "root", "var/log", "var/run",
    "mnt",
];
/// `once`, not `respawn`: a witness that dies must be missed.
const INITTAB: &str =
    "::once:/bin/syslogd -n -O /var/log/messages\n::once:/bin/witness MEBIBYTES\n";
/// The recipe's. It was written for LXC without `lxc.autodev`, whose `/dev` of its own has no
/// `shm`: so `create=dir`.
const FSTAB: &str = "\
devpts dev/pts devpts defaults 0 0
proc proc proc defaults 0 0
sysfs sys sysfs defaults 0 0
tmpfs dev/shm tmpfs defaults,create=dir 0 0
";

/// A container of a [`World`].
#[derive(Debug)]
pub struct Container<'w> {
    world: &'w World,
    name: String,
    address: Ipv4Addr,
}

impl<'w> Container<'w> {
    pub(super) fn make(world: &'w World, name: &str, address: Ipv4Addr) -> Container<'w> {
        let container = Container { world, name: name.to_owned(), address };
        let rootfs = container.rootfs();
        for dir in DIRECTORIES {
            fs::create_dir_all(rootfs.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        fs::copy(WITNESS, rootfs.join("bin/witness")).unwrap();
        fs::set_permissions(rootfs.join("bin/witness"), fs::Permissions::from_mode(0o755)).unwrap();
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        symlink("/bin/busybox", rootfs.join("sbin/init")).unwrap();
        fs::write(container.dir().join("fstab"), FSTAB).unwrap();
        container.memory(0).configure("")
    }

    /// Mebibytes of incompressible memory that the witness holds.
    pub fn memory(self, mebibytes: usize) -> Self {
        let text = INITTAB.replace("MEBIBYTES", &mebibytes.to_string());
        fs::write(self.rootfs().join("etc/inittab"), text).unwrap();
        self
    }

    /// Writes the configuration: the recipe's with `more` lines in its spelling as `config.legacy`,
    /// and what `lxc-update-config` makes of it as `config`.
    pub fn configure(self, more: &str) -> Self {
        let (dir, name, address) = (self.dir(), &self.name, self.address);
        let text = format!(
            "lxc.utsname = {name}
lxc.console = none
lxc.network.type = veth
lxc.network.flags = up
lxc.network.link = {BRIDGE}
lxc.network.name = eth0
lxc.network.ipv4 = {address}/24
lxc.mount = {dir}/fstab
lxc.rootfs = {dir}/rootfs
{more}",
            dir = dir.display()
        );
        fs::write(self.dir().join("config.legacy"), &text).unwrap();
        fs::write(self.dir().join("config"), &text).unwrap();
        Run::new("lxc-update-config").arg("-c").arg(dir.join("config")).ok();
        fs::remove_file(dir.join("config.backup")).unwrap();
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its eth0.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `LXCPATH/NAME`.
    pub fn dir(&self) -> PathBuf {
        self.world.lxcpath().join(&self.name)
    }

    /// Its root.
    pub fn rootfs(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    /// Starts it with LXC and waits until it runs.
    pub fn start(&self) -> &Self {
        let log = self.dir().join("lxc.log");
        let log = log.to_string_lossy();
        self.lxc("lxc-start").args(["-d", "-o", &log, "-l", "DEBUG"]).ok();
        self.wait_state("RUNNING");
        self
    }

    /// A command of LXC on it.
    pub fn lxc(&self, program: &str) -> Run {
        self.world.lxc(program, &self.name)
    }

    /// One of our commands on it.
    pub fn ours(&self, program: &str) -> Run {
        self.world.ours(program, &self.name)
    }

    /// A subcommand of `lxc-cr` on it.
    pub fn lxc_cr(&self, subcommand: &str) -> Run {
        self.world.lxc_cr(subcommand, &self.name)
    }

    /// Adds lines to its configuration.
    pub fn append_config(&self, lines: &str) {
        let path = self.dir().join("config");
        let text = fs::read_to_string(&path).unwrap();
        // An empty value does not take back what came before; the console's must go.
        let kept = text
            .lines()
            .filter(|l| !lines.contains("lxc.console.path") || !l.starts_with("lxc.console.path"));
        let kept: Vec<&str> = kept.collect();
        fs::write(&path, format!("{}\n{lines}", kept.join("\n"))).unwrap();
    }

    /// Its state as `lxc-info` tells it.
    pub fn state(&self) -> String {
        self.lxc("lxc-info").args(["-s", "-H"]).ok().stdout.trim().to_owned()
    }

    /// Waits until `lxc-info` tells this state.
    pub fn wait_state(&self, state: &str) {
        let reached = wait_for(&format!("{} to be {state}", self.name), STATE_LIMIT, || {
            (self.state() == state).then_some(())
        });
        reached.unwrap_or_else(|e| panic!("{e}; it is {}", self.state()));
    }

    /// The pid of its init in the test host.
    pub fn init_pid(&self) -> u32 {
        let told = self.lxc("lxc-info").args(["-p", "-H"]).ok();
        told.stdout.trim().parse().unwrap_or_else(|e| panic!("{e}: {told}"))
    }

    /// Runs a command in it with `lxc-attach`.
    pub fn exec<A: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = A>) -> Output {
        self.lxc("lxc-attach").arg("--").args(command).output()
    }

    /// Opens a connection to its witness.
    pub fn witness(&self) -> Witness {
        Witness::connect(self.address)
    }

    /// The host side of its eth0: the port of the bridge that is the other end of it.
    pub fn veth(&self) -> String {
        let inside = format!("/proc/{}/root/sys/class/net/eth0/iflink", self.init_pid());
        let index = fs::read_to_string(&inside).unwrap_or_else(|e| panic!("{inside}: {e}"));
        let links = fs::read_dir("/sys/class/net").unwrap().flatten();
        let found = links
            .filter(|l| fs::read_to_string(l.path().join("ifindex")).is_ok_and(|i| i == index));
        let names: Vec<_> = found.map(|l| l.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(names.len(), 1, "ports with index {index}: {names:?}");
        names.concat()
    }

    /// Waits until its syslogd has written a line with this text.
    pub fn wait_syslog(&self, text: &str) {
        let read =
            || fs::read_to_string(self.rootfs().join("var/log/messages")).unwrap_or_default();
        let written = wait_for(&format!("'{text}' in the syslog"), STATE_LIMIT, || {
            read().contains(text).then_some(())
        });
        written.unwrap_or_else(|e| panic!("{e}:\n{}", read()));
    }

    /// Waits until the kernel has looked for duplicates of its addresses of IPv6, a second or two
    /// after its start: until then they cannot be used, and their routes are missing.
    pub fn wait_settled(&self) {
        wait_addresses(&format!("/proc/{}/net/if_inet6", self.init_pid()));
    }

    /// Runs LXC's own `lxc-checkpoint` on it.
    pub fn stock_checkpoint<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        stock(self.lxc("lxc-checkpoint").args(arguments))
    }

    /// Stops it as a user does and waits until it is.
    pub fn stop(&self) {
        self.lxc("lxc-stop").ok();
        self.wait_state("STOPPED");
    }

    /// Stops it at once.
    pub fn kill(&self) {
        self.lxc("lxc-stop").arg("-k").ok();
        self.wait_state("STOPPED");
    }
}

/// Runs LXC's own `lxc-checkpoint`.
pub fn stock(checkpoint: Run) -> Output {
    with_processes_in_the_root_cgroup(|| checkpoint.output())
}

/// What LXC's own `lxc-checkpoint` needs: it moves to the root of the cgroup tree, which is
/// forbidden in a cgroup namespace whose root hands on controllers, and LXC makes it do so whenever
/// it can: it cannot while it is used.
pub fn with_processes_in_the_root_cgroup<T>(work: impl FnOnce() -> T) -> T {
    let root = cgroups::unified();
    let scope = root.join("init.scope");
    let control = root.join("cgroup.subtree_control");
    for controller in fs::read_to_string(&control).unwrap().split_whitespace() {
        fs::write(&control, format!("-{controller}")).unwrap();
    }
    move_processes(&scope, &root);
    let result = work();
    move_processes(&root, &scope);
    result
}

fn move_processes(from: &Path, to: &Path) {
    for pid in fs::read_to_string(from.join("cgroup.procs")).unwrap().lines() {
        match fs::write(to.join("cgroup.procs"), pid) {
            // It has ended meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
            moved => moved.unwrap_or_else(|e| panic!("move {pid} to {}: {e}", to.display())),
        }
    }
}

/// Waits until the kernel has found no other owner of the addresses in a list of
/// /proc/net/if_inet6.
pub fn wait_addresses(path: &str) {
    let tentative = |line: &str| {
        let flags =
            line.split_whitespace().nth(4).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.unwrap_or_default() & TENTATIVE != 0
    };
    let settled =
        || (!fs::read_to_string(path).unwrap_or_default().lines().any(tentative)).then_some(());
    let list = || fs::read_to_string(path).unwrap_or_default();
    wait_for("the addresses to be settled", STATE_LIMIT, settled)
        .unwrap_or_else(|e| panic!("{e}: {}", list()));
}
