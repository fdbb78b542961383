//! What LXC's tools can learn of a restored container, and do to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::lxc::config::SignalKind;
use crate::lxc::definition::Defined;
use crate::lxc::protocol::{ConsoleLog, DeviceItem, Layout};
use crate::lxc::server::{Hierarchy, Served};
use crate::resources::cgroup::Cgroup;
use crate::resources::cgroup::devices::Attached;
use crate::resources::mounts;
use crate::resources::network::Port;
use crate::resources::terminals::Terminal;
use crate::sys::in_root::Below;
use crate::sys::process::Process;

use super::cgroups::Cgroups;
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

/// The container that the monitor speaks for.
#[derive(Debug)]
pub(super) struct Container {
    pub defined: Defined,
    pub init: Process,
    clone_flags: u32,
    cgroups: Cgroups,
    devpts: Option<OwnedFd>,
    devices: Attached,
    pub terminals: Terminals,
}

impl Container {
    pub(super) fn new(
        mut defined: Defined,
        init: Process,
        terminals: Vec<Terminal>,
        payload: &[Cgroup],
        ports: &[Port],
        devices: Attached,
    ) -> anyhow::Result<Container> {
        // lxc-info reads the traffic of the interface that these name.
        let names: Vec<(u32, String)> = defined
            .config
            .nics()
            .iter()
            .filter_map(|nic| {
                let inside = nic.name_inside();
                ports.iter().find(|p| p.inside == inside).map(|p| (nic.index, p.host.clone()))
            })
            .collect();
        for (index, host) in names {
            defined.config.set_veth_pair(index, &host);
        }
        Ok(Container {
            clone_flags: own_namespaces(init.pid())?,
            cgroups: Cgroups::new(payload)?,
            devpts: match defined.config.pty_max() {
                0 => None,
                _ => open_devpts(init.pid())?,
            },
            devices,
            terminals: Terminals::new(terminals, &defined.config),
            defined,
            init,
        })
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.cgroups.is_frozen()
    }

    /// The container has ended: lets its cgroup and devpts go, which are about to be removed, and
    /// its terminals.
    pub(super) fn close(self) -> (Defined, Process) {
        self.terminals.close();
        (self.defined, self.init)
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

/// The container's devpts, in which lxc-attach has a terminal made for it. It is served to programs
/// of root's: what else the container has at /dev/pts, a link to the host's directories above all,
/// is not.
fn open_devpts(init: i32) -> anyhow::Result<Option<OwnedFd>> {
    let root = Below::of_process(init).context("open the container's root")?;
    let Ok((devpts, mount)) = root.directory_itself(Path::new("dev/pts")) else { return Ok(None) };
    let table = mounts::table(init)?;
    let is_devpts = table.iter().any(|m| {
        u64::try_from(m.id) == Ok(mount) && m.kind == "devpts" && m.root == Path::new("/")
    });
    Ok(is_devpts.then_some(devpts))
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

    fn layout(&self) -> Layout {
        self.cgroups.layout()
    }

    fn hierarchies(&self) -> Vec<Hierarchy<'_>> {
        self.cgroups.hierarchies()
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
        self.cgroups.thaw()
    }

    fn freeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.cgroups.set_frozen(true, limit)
    }

    fn unfreeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.cgroups.set_frozen(false, limit)
    }

    fn add_device_rule(&mut self, rule: &DeviceItem) -> io::Result<()> {
        // v1 has files for it, to which the client writes.
        if self.cgroups.layout() != Layout::Unified {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.devices.request(rule)
    }
}
