//! What the server has to know about the container that it speaks for.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::lxc::protocol::{ConsoleLog, DeviceItem, HierarchyKind, Layout};

/// The container's place in one cgroup hierarchy.
#[derive(Debug)]
pub struct Hierarchy<'a> {
    /// v1 or v2.
    pub kind: HierarchyKind,
    /// The controllers that are found here. On pure v2 the base cgroup's `cgroup.controllers`,
    /// `devices` if device rules can be loaded, and `freezer` if there is a `cgroup.freeze`.
    pub controllers: Vec<String>,
    /// The container's cgroup below the mount, as LXC spells it: `lxc.payload.N` on pure v2,
    /// `/lxc.payload.N` else.
    pub path: String,
    /// The cgroup with the limits, spelt alike.
    pub limit_path: String,
    /// The directory of the container's cgroup (O_PATH).
    pub fd: Option<BorrowedFd<'a>>,
    /// The directory of the cgroup with the limits (O_PATH).
    pub limit_fd: Option<BorrowedFd<'a>>,
}

/// A container that is served. No method may block for long: the server has one thread, and it is
/// the monitor's.
///
/// Container and limit cgroup differ only with `lxc.cgroup.dir.container.inner`.
pub trait Served {
    /// Init's pid as the monitor sees it.
    fn init_pid(&self) -> Pid;

    /// A pidfd of init.
    fn init_pidfd(&self) -> Option<BorrowedFd<'_>>;

    /// The CLONE_NEW* flags of the namespaces in which init and monitor differ. A CLONE_NEWUSER too
    /// many makes lxc-attach fail.
    fn clone_flags(&self) -> u32;

    /// The value of a configuration key as LXC would print it (lists with a newline after each
    /// item; `lxc.arch` only `x86_64` or `i686`); `None` if it is unset, empty or unknown.
    fn config_item(&self, key: &str) -> Option<String>;

    /// How cgroups are mounted here.
    fn layout(&self) -> Layout;

    /// Every hierarchy that the container has a cgroup in.
    fn hierarchies(&self) -> Vec<Hierarchy<'_>>;

    /// The root of the container's devpts (O_PATH), so that lxc-attach gets its terminal inside.
    /// LXC gives it only if `lxc.pty.max` is set.
    fn devpts_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The listener for the container's seccomp notifications.
    fn seccomp_notify_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The scope that systemd made for an unprivileged container.
    fn systemd_scope(&self) -> Option<String> {
        None
    }

    /// How many ttys (`lxc.tty.max`) there are to lend, numbered from 1.
    fn tty_count(&self) -> i32 {
        0
    }

    /// Lends the master side of a tty; number 0 is the console.
    fn lend_tty(&mut self, number: i32) -> Option<BorrowedFd<'_>> {
        let _ = number;
        None
    }

    /// The ttys that are lent now: all others have come back.
    fn keep_lent(&mut self, numbers: &[i32]) {
        let _ = numbers;
    }

    /// The window of whoever has the console has another size.
    fn window_changed(&mut self) {}

    /// What the console's ring buffer holds; `None` if there is none, an error if it is empty.
    fn console_log(&mut self, asked: ConsoleLog) -> Option<Result<Vec<u8>, Errno>> {
        let _ = asked;
        None
    }

    /// `lxc-stop -k`: sends init `lxc.signal.stop` (SIGKILL), then thaws the container so that it
    /// can die.
    fn on_stop(&mut self) -> io::Result<()>;

    /// Freezes the container, as tools of LXC 4.0 ask for it (later ones write `cgroup.freeze`
    /// themselves). The time limit is the client's; a monitor may take less.
    fn freeze(&mut self, limit: Option<Duration>) -> io::Result<()>;

    /// Thaws the container.
    fn unfreeze(&mut self, limit: Option<Duration>) -> io::Result<()>;

    /// Adds a rule to the container's device program (`lxc-device add`, `lxc-cgroup NAME
    /// devices.allow`).
    fn add_device_rule(&mut self, rule: &DeviceItem) -> io::Result<()> {
        let _ = rule;
        Err(io::ErrorKind::Unsupported.into())
    }
}
