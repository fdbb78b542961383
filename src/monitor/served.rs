//! What LXC's tools can learn of a restored container, and do to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::cgroup;
use crate::devices::Attached;
use crate::lxc::config::SignalKind;
use crate::lxc::defined::Defined;
use crate::lxc::protocol::{ConsoleLog, DeviceItem};
use crate::lxc::server::Served;
use crate::net::Port;
use crate::sys::process::Process;
use crate::ttys::Terminal;

use super::console::Terminals;

/// Namespace files of /proc and the flag that LXC's protocol has for each.
const NAMESPACES: [(&str, i32); 8] = [
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("net", libc::CLONE_NEWNET),
    ("user", libc::CLONE_NEWUSER),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];
/// How long a freeze that was asked for over the socket is waited for at most: the monitor has other clients.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// The container that the monitor speaks for.
#[derive(Debug)]
pub(super) struct Container {
    pub defined: Defined,
    pub init: Process,
    clone_flags: u32,
    cgroup_dir: PathBuf,
    cgroup_path: String,
    cgroup_fd: Option<OwnedFd>,
    devpts: Option<OwnedFd>,
    controllers: Vec<String>,
    devices: Attached,
    pub terminals: Terminals,
}

impl Container {
    pub fn new(
        mut defined: Defined,
        init: Process,
        terminals: Vec<Terminal>,
        mount: &Path,
        payload: &Path,
        ports: &[Port],
        devices: Attached,
    ) -> anyhow::Result<Container> {
        // lxc-info reads the traffic of the interface that these name.
        let names: Vec<(u32, String)> = defined
            .config
            .nics()
            .iter()
            .filter_map(|nic| {
                let inside = nic.name.clone().unwrap_or_else(|| format!("eth{}", nic.index));
                ports.iter().find(|p| p.inside == inside).map(|p| (nic.index, p.host.clone()))
            })
            .collect();
        for (index, host) in names {
            defined.config.set_veth_pair(index, &host);
        }
        let relative = payload.strip_prefix(mount).unwrap_or(payload);
        Ok(Container {
            clone_flags: own_namespaces(init.pid())?,
            cgroup_path: relative.to_string_lossy().into_owned(),
            cgroup_fd: Some(cgroup::open_path(payload)?),
            devpts: match defined.config.pty_max() {
                0 => None,
                _ => open_devpts(init.pid()),
            },
            controllers: controllers(payload),
            cgroup_dir: payload.to_owned(),
            devices,
            terminals: Terminals::new(terminals, &defined.config),
            defined,
            init,
        })
    }

    pub fn is_frozen(&self) -> bool {
        cgroup::is_frozen(&self.cgroup_dir).unwrap_or(false)
    }

    /// The container has ended: lets its cgroup and devpts go, which are about to be removed, and its terminals.
    pub fn close(self) -> (Defined, Process) {
        self.terminals.close();
        (self.defined, self.init)
    }

    fn set_frozen(&self, frozen: bool, limit: Option<Duration>) -> io::Result<()> {
        cgroup::set_frozen(&self.cgroup_dir, frozen).map_err(io::Error::other)?;
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let end = Instant::now() + limit.unwrap_or(FREEZE_LIMIT).min(FREEZE_LIMIT);
        while !fs::read_to_string(self.cgroup_dir.join("cgroup.events"))?.contains(wanted) {
            if Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The namespaces that init does not share with us.
fn own_namespaces(init: i32) -> anyhow::Result<u32> {
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let theirs = match fs::read_link(format!("/proc/{init}/ns/{name}")) {
            Ok(link) => link,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("read /proc/{init}/ns/{name}")),
        };
        if fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|ours| ours != theirs) {
            flags |= flag.cast_unsigned();
        }
    }
    Ok(flags)
}

fn open_devpts(init: i32) -> Option<OwnedFd> {
    cgroup::open_path(&PathBuf::from(format!("/proc/{init}/root/dev/pts"))).ok()
}

/// What liblxc counts as controllers on pure cgroup2: those of the kernel and two of its own.
fn controllers(payload: &Path) -> Vec<String> {
    let text = fs::read_to_string(payload.join("cgroup.controllers")).unwrap_or_default();
    let mut names: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
    names.extend(["devices".to_owned(), "freezer".to_owned()]);
    names
}

impl Served for Container {
    fn init_pid(&self) -> Pid {
        Pid::from_raw(self.init.pid())
    }

    fn init_pidfd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.init.as_fd())
    }

    fn clone_flags(&self) -> u32 {
        self.clone_flags
    }

    fn config_item(&self, key: &str) -> Option<String> {
        self.defined.config.item(key)
    }

    fn cgroup_path(&self) -> String {
        self.cgroup_path.clone()
    }

    fn cgroup_fd(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup_fd.as_ref().map(AsFd::as_fd)
    }

    fn cgroup_controllers(&self) -> Vec<String> {
        self.controllers.clone()
    }

    fn devpts_fd(&self) -> Option<BorrowedFd<'_>> {
        self.devpts.as_ref().map(AsFd::as_fd)
    }

    fn tty_count(&self) -> i32 {
        self.terminals.count()
    }

    fn lend_tty(&mut self, number: i32) -> Option<BorrowedFd<'_>> {
        self.terminals.lend(number)
    }

    fn keep_lent(&mut self, numbers: &[i32]) {
        self.terminals.keep_lent(numbers);
    }

    fn window_changed(&mut self) {
        self.terminals.take_window_size();
    }

    fn console_log(&mut self, asked: ConsoleLog) -> Option<Result<Vec<u8>, Errno>> {
        self.terminals.read_log(asked)
    }

    fn on_stop(&mut self) -> io::Result<()> {
        let signal = self.defined.config.signal(SignalKind::Stop).unwrap_or(libc::SIGKILL);
        self.init.signal(signal)?;
        // A frozen task does not even die.
        cgroup::set_frozen(&self.cgroup_dir, false).map_err(io::Error::other)
    }

    fn freeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.set_frozen(true, limit)
    }

    fn unfreeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.set_frozen(false, limit)
    }

    fn add_device_rule(&mut self, rule: &DeviceItem) -> io::Result<()> {
        self.devices.request(rule)
    }
}
