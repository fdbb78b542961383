//! Start a program in the place in which it has to live: session, cgroup, namespaces, descriptors.
//!
//! `std::process::Command` does the start. What it cannot do is done between fork and exec, where only
//! system calls are allowed: every string and descriptor is made ready before.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};

use super::mount::Detached;

/// The environment of every program we start: nothing of the caller's is trusted.
pub const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A mount that exists only in the started program's own mount namespace.
#[derive(Debug)]
pub struct PrivateMount {
    what: Mounted,
    target: CString,
}

#[derive(Debug)]
enum Mounted {
    Bind(CString),
    Detached(OwnedFd),
}

impl PrivateMount {
    /// `source` with all that is mounted below it, seen at `target`.
    pub fn bind(source: &Path, target: &Path) -> io::Result<PrivateMount> {
        Ok(PrivateMount { what: Mounted::Bind(c_string(source.as_os_str())?), target: c_string(target.as_os_str())? })
    }

    /// A mount that is in no namespace yet; it goes there.
    pub fn of(detached: &Detached, target: &Path) -> io::Result<PrivateMount> {
        let tree = detached.as_fd().try_clone_to_owned()?;
        Ok(PrivateMount { what: Mounted::Detached(tree), target: c_string(target.as_os_str())? })
    }
}

/// Where a program starts its life.
#[derive(Debug, Default)]
pub struct Place {
    session: bool,
    keyring: bool,
    cgroup_procs: Vec<OwnedFd>,
    cgroup_namespace: bool,
    joined: Option<OwnedFd>,
    private_mounts: Vec<PrivateMount>,
    dies_with_us: bool,
    kept: Vec<(OwnedFd, RawFd)>,
    search_path: Option<String>,
}

impl Place {
    /// Our own place: same session, cgroup and namespaces, no descriptors but the standard ones.
    pub fn here() -> Place {
        Place::default()
    }

    /// In a session of its own, so that a terminal's Ctrl-C does not reach it.
    pub fn own_session(mut self) -> Place {
        self.session = true;
        self
    }

    /// With a session keyring of its own, so that it and its children have no part in the keys of our caller.
    pub fn own_keyring(mut self) -> Place {
        self.keyring = true;
        self
    }

    /// Born in the cgroups whose `cgroup.procs` files these are (opened for writing).
    pub fn in_cgroups(mut self, procs: Vec<OwnedFd>) -> Place {
        self.cgroup_procs = procs;
        self
    }

    /// In a new cgroup namespace, rooted where [`Place::in_cgroups`] has put it.
    pub fn own_cgroup_namespace(mut self) -> Place {
        self.cgroup_namespace = true;
        self
    }

    /// In this existing namespace.
    pub fn in_namespace(mut self, namespace: OwnedFd) -> Place {
        self.joined = Some(namespace);
        self
    }

    /// In a new mount namespace that hears of the host's mounts but tells none, with these added.
    pub fn private_mounts(mut self, mounts: Vec<PrivateMount>) -> Place {
        self.private_mounts = mounts;
        self
    }

    /// Killed when the thread that starts it ends, however that happens.
    pub fn dies_with_us(mut self) -> Place {
        self.dies_with_us = true;
        self
    }

    /// Hands a descriptor over under the number that it has here.
    pub fn keep_open(self, fd: OwnedFd) -> Place {
        let number = fd.as_raw_fd();
        self.keep(fd, number)
    }

    /// Hands a descriptor over under this number.
    pub fn keep(mut self, fd: OwnedFd, number: RawFd) -> Place {
        self.kept.push((fd, number));
        self
    }

    /// With these directories in its `PATH` instead of those of [`SAFE_PATH`].
    pub fn search_path(mut self, directories: String) -> Place {
        self.search_path = Some(directories);
        self
    }

    /// Starts the command there. Its environment is emptied of the caller's; `PATH` is [`SAFE_PATH`] and
    /// what the command itself was given stays.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        let Place {
            session,
            keyring,
            cgroup_procs,
            cgroup_namespace,
            joined,
            private_mounts,
            dies_with_us,
            kept,
            search_path,
        } = self;
        let parent = std::process::id().cast_signed();
        let namespace: Option<RawFd> = joined.as_ref().map(AsRawFd::as_raw_fd);
        let numbers: Vec<(RawFd, RawFd)> = kept.iter().map(|(fd, n)| (fd.as_raw_fd(), *n)).collect();
        let procs: Vec<RawFd> = cgroup_procs.iter().map(AsRawFd::as_raw_fd).collect();
        let enter = move || -> io::Result<()> {
            if session {
                // SAFETY: setsid(2) has no arguments and touches no memory.
                check(unsafe { libc::setsid() })?;
            }
            if dies_with_us {
                die_with(parent)?;
            }
            unblock_signals()?;
            if keyring {
                join_new_keyring()?;
            }
            for fd in &procs {
                // "0" is the writing process itself.
                // SAFETY: the descriptor is open (its owner outlives the fork) and the buffer is static.
                check(unsafe { libc::write(*fd, b"0".as_ptr().cast(), 1) } as libc::c_int)?;
            }
            if cgroup_namespace {
                // SAFETY: unshare(2) of a namespace in a process with one thread; no memory is touched.
                check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })?;
            }
            if let Some(fd) = namespace {
                // SAFETY: the descriptor is open (its owner outlives the fork); no memory is touched.
                check(unsafe { libc::setns(fd, 0) })?;
            }
            if !private_mounts.is_empty() {
                enter_private_mounts(&private_mounts)?;
            }
            for (from, to) in &numbers {
                if from == to {
                    // SAFETY: clears CLOEXEC of a descriptor that we own.
                    check(unsafe { libc::fcntl(*from, libc::F_SETFD, 0) })?;
                } else {
                    // SAFETY: both are plain numbers; dup2's copy has no CLOEXEC.
                    check(unsafe { libc::dup2(*from, *to) })?;
                }
            }
            Ok(())
        };
        command.env("PATH", search_path.as_deref().unwrap_or(SAFE_PATH));
        // SAFETY: `enter` makes only system calls on memory and descriptors that were prepared before the
        // fork; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        let child = command.spawn();
        // These must stay open until the child has used them.
        drop((kept, cgroup_procs, joined));
        child
    }
}

/// `KEYCTL_JOIN_SESSION_KEYRING`, include/uapi/linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_long = 1;

fn join_new_keyring() -> io::Result<()> {
    let none: libc::c_long = 0;
    // SAFETY: a name of null asks for a new keyring without one; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none, none, none, none) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result >= 0 => Ok(()),
        // A kernel without keys, or a host that forbids them: nobody has any.
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Ok(()),
        _ => Err(error),
    }
}

fn enter_private_mounts(mounts: &[PrivateMount]) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: no memory is touched.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: the target is a static C string, the other pointers may be null for a change of propagation.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_SLAVE, none.cast()) })?;
    for PrivateMount { what, target } in mounts {
        match what {
            Mounted::Bind(source) => {
                let flags = libc::MS_BIND | libc::MS_REC;
                // SAFETY: both strings live in the mount, which the closure owns.
                check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, flags, none.cast()) })?;
            }
            Mounted::Detached(tree) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(tree, c"", CWD, target.as_c_str(), flags)?;
            }
        }
    }
    Ok(())
}

fn die_with(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: a number is set; no memory is touched.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // It may have ended before the kernel knew.
    // SAFETY: getppid(2) has no arguments and cannot fail.
    if unsafe { libc::getppid() } != parent { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// A child inherits the signal mask; a program that we start must be able to be ended.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is a valid set, and sigemptyset makes it the empty one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local that lives through both calls.
    unsafe {
        libc::sigemptyset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::other("a path holds a NUL byte"))
}
