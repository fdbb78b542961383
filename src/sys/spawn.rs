//! Start a program in the place in which it has to live: session, cgroup, namespaces, descriptors.
//!
//! `std::process::Command` does the start. What it cannot do is done between fork and exec, where
//! only system calls are allowed: every string and descriptor is made ready before.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::clean_start::default_signals;
use super::nudge::Nudger;
use super::sandbox::{Sandbox, check};

/// The environment of every program we start: nothing of the caller's is trusted.
pub(crate) const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program starts its life.
#[derive(Debug, Default)]
pub(crate) struct Place {
    session: bool,
    keyring: bool,
    personality: u32,
    cgroup_procs: Vec<OwnedFd>,
    cgroup_namespace: bool,
    joined: Option<OwnedFd>,
    sandbox: Option<Sandbox>,
    dies_with_us: bool,
    heeds_no_file_limit: bool,
    spared: bool,
    small_pages: bool,
    kept: Vec<(OwnedFd, RawFd)>,
    search_path: Option<String>,
}

impl Place {
    /// Our own place: same session, cgroup and namespaces, no descriptors but the standard ones.
    pub(crate) fn here() -> Place {
        Place::default()
    }

    /// In a session of its own, so that a terminal's Ctrl-C does not reach it.
    pub(crate) fn own_session(mut self) -> Place {
        self.session = true;
        self
    }

    /// With a session keyring of its own, so that it and its children have no part in the keys of
    /// our caller.
    pub(crate) fn own_keyring(mut self) -> Place {
        self.keyring = true;
        self
    }

    /// With this personality, which its children inherit; 0 for ours.
    pub(crate) fn personality(mut self, personality: u32) -> Place {
        self.personality = personality;
        self
    }

    /// Born in the cgroups whose `cgroup.procs` files these are (opened for writing).
    pub(crate) fn in_cgroups(mut self, procs: Vec<OwnedFd>) -> Place {
        self.cgroup_procs = procs;
        self
    }

    /// In a new cgroup namespace, rooted where [`Place::in_cgroups`] has put it.
    pub(crate) fn own_cgroup_namespace(mut self) -> Place {
        self.cgroup_namespace = true;
        self
    }

    /// In this existing namespace.
    pub(crate) fn in_namespace(mut self, namespace: OwnedFd) -> Place {
        self.joined = Some(namespace);
        self
    }

    /// Where nothing is mounted but this.
    pub(crate) fn within(mut self, sandbox: Sandbox) -> Place {
        self.sandbox = Some(sandbox);
        self
    }

    /// Killed when the thread that starts it ends, however that happens.
    pub(crate) fn dies_with_us(mut self) -> Place {
        self.dies_with_us = true;
        self
    }

    /// What it writes beyond the size that it may write up to fails, instead of ending it.
    pub(crate) fn heeds_no_file_limit(mut self) -> Place {
        self.heeds_no_file_limit = true;
        self
    }

    /// Not to be ended where the host runs out of memory, as far as we may ask for that.
    pub(crate) fn spared(mut self) -> Place {
        self.spared = true;
        self
    }

    /// Without transparent huge pages, which its children do not get either: a page that is touched
    /// makes no other.
    pub(crate) fn small_pages(mut self) -> Place {
        self.small_pages = true;
        self
    }

    /// Hands a descriptor over under this number.
    pub(crate) fn keep(mut self, fd: OwnedFd, number: RawFd) -> Place {
        self.kept.push((fd, number));
        self
    }

    /// With these directories in its `PATH` instead of those of [`SAFE_PATH`].
    pub(crate) fn search_path(mut self, directories: String) -> Place {
        self.search_path = Some(directories);
        self
    }

    /// Starts the command there. Its environment is emptied of the caller's; `PATH` is
    /// [`SAFE_PATH`] and what the command itself was given stays. Its directory is `/`, where it
    /// was not given another.
    pub(crate) fn spawn(self, command: &mut Command) -> io::Result<Child> {
        let Place {
            session,
            keyring,
            personality,
            cgroup_procs,
            cgroup_namespace,
            joined,
            sandbox,
            dies_with_us,
            heeds_no_file_limit,
            spared,
            small_pages,
            kept,
            search_path,
        } = self;
        let parent = std::process::id().cast_signed();
        let namespace: Option<RawFd> = joined.as_ref().map(AsRawFd::as_raw_fd);
        let numbers: Vec<(RawFd, RawFd)> =
            kept.iter().map(|(fd, n)| (fd.as_raw_fd(), *n)).collect();
        let procs: Vec<RawFd> = cgroup_procs.iter().map(AsRawFd::as_raw_fd).collect();
        let enter = move || -> io::Result<()> {
            if session {
                // SAFETY: setsid(2) has no arguments and touches no memory.
                check(unsafe { libc::setsid() })?;
            }
            if dies_with_us {
                die_with(parent)?;
            }
            // None of ours: a program that we start must be able to be ended, and to wait for its
            // own children.
            default_signals()?;
            if heeds_no_file_limit {
                // SAFETY: no handler of ours is named, and no memory is touched.
                unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            }
            if spared {
                spare_us();
            }
            if small_pages {
                // SAFETY: a number is set; no memory is touched.
                check(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) })?;
            }
            if keyring {
                join_new_keyring()?;
            }
            if personality != 0 {
                // SAFETY: a number is set; no memory is touched.
                check(unsafe { libc::personality(personality.into()) })?;
            }
            for fd in &procs {
                // "0" is the writing process itself. SAFETY: the descriptor is open (its owner
                // outlives the fork) and the buffer is static.
                check(unsafe { libc::write(*fd, b"0".as_ptr().cast(), 1) } as libc::c_int)?;
            }
            if cgroup_namespace {
                // SAFETY: unshare(2) of a namespace in a process with one thread; no memory is
                // touched.
                check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })?;
            }
            if let Some(fd) = namespace {
                // SAFETY: the descriptor is open (its owner outlives the fork); no memory is
                // touched.
                check(unsafe { libc::setns(fd, 0) })?;
            }
            if let Some(sandbox) = &sandbox {
                sandbox.enter()?;
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
        if command.get_current_dir().is_none() {
            command.current_dir("/");
        }
        // SAFETY: `enter` makes only system calls on memory and descriptors that were prepared
        // before the fork; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        let nudger = Nudger::start()?;
        let child = command.spawn();
        drop(nudger);
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
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none, none, none, none) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result >= 0 => Ok(()),
        // A kernel without keys, or a host that forbids them: nobody has any.
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Ok(()),
        _ => Err(error),
    }
}

/// Only who has CAP_SYS_RESOURCE may; without it we are as likely to be ended as all others.
fn spare_us() {
    const LEAST_LIKELY: &[u8] = b"-1000";
    // SAFETY: the path is a static C string; the descriptor is ours, written from static memory,
    // and closed.
    unsafe {
        let file =
            libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, LEAST_LIKELY.as_ptr().cast(), LEAST_LIKELY.len());
            libc::close(file);
        }
    }
}

fn die_with(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: a number is set; no memory is touched.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // It may have ended before the kernel knew.
    // SAFETY: getppid(2) has no arguments and cannot fail.
    if unsafe { libc::getppid() } != parent {
        Err(io::ErrorKind::BrokenPipe.into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_stopped_before_its_program_goes_on() {
        let mut command = Command::new("/bin/true");
        // SAFETY: raise(2) alone is called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::raise(libc::SIGSTOP);
                Ok(())
            });
        }
        let mut child = Place::here().spawn(&mut command).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
