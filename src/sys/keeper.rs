//! A process that keeps our descriptors open when we die, and ends a cgroup then.
//!
//! It shares our table of descriptors (`CLONE_FILES`, clone(2)), also those that are made later: a
//! userfaultfd that the kernel makes for whoever reads a fork event is there for both at once. So
//! there is no moment at which our death closes the last one and lets a process read zeroes where
//! its memory is missing. It does nothing but wait for our end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use super::poll;

/// How often, and how many times, it asks whether the cgroup is empty: 30 s.
const PAUSE: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
const TRIES: usize = 3000;
/// How long it may take to be gone when it was killed.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// The process. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    process: OwnedFd,
    pid: libc::pid_t,
    us: OwnedFd,
    kill: File,
    events: File,
}

/// `struct clone_args`, as its first version has it.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

impl Keeper {
    /// Starts one that ends the processes in this cgroup2 directory if we die.
    ///
    /// # Errors
    /// Where the cgroup has no `cgroup.kill` (Linux < 5.14), or no process can be made.
    pub(crate) fn start(cgroup: &Path) -> io::Result<Keeper> {
        let kill = File::options().write(true).open(cgroup.join("cgroup.kill"))?;
        let events = File::open(cgroup.join("cgroup.events"))?;
        // SAFETY: pidfd_open(2) takes numbers and returns a new descriptor.
        let us = new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })?;
        let mut number: RawFd = -1;
        let mut arguments = CloneArguments {
            flags: (libc::CLONE_FILES | libc::CLONE_PIDFD).cast_unsigned().into(),
            pidfd: &raw mut number as u64,
            exit_signal: libc::SIGCHLD.cast_unsigned().into(),
            ..CloneArguments::default()
        };
        let watched =
            Watched { us: us.as_raw_fd(), kill: kill.as_raw_fd(), events: events.as_raw_fd() };
        // SAFETY: without CLONE_VM the child has a copy of our memory, as after fork(2). In a
        // process of several threads it may only make system calls, and `keep` does nothing else;
        // it never returns, so nothing that we own is dropped twice. The kernel reads `arguments`
        // and writes `number`, which outlive the call.
        let pid = unsafe {
            libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>())
        };
        match pid {
            0 => keep(watched),
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(Keeper {
                process: new_fd(number.into())?,
                pid: pid as libc::pid_t,
                us,
                kill,
                events,
            }),
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

impl AsFd for Keeper {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        log::trace!(
            "the keeper, process {}, watched {:?} with {:?}, {:?}",
            self.pid,
            self.us,
            self.kill,
            self.events
        );
        let none: libc::c_long = 0;
        // SAFETY: the descriptor is open; the signal carries no data.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.process.as_raw_fd(),
                libc::SIGKILL,
                none,
                none,
            );
        }
        if !matches!(poll::readable([self.process.as_fd()], AFTER_KILL), Ok([true])) {
            log::debug!("the keeper, process {}, was killed and does not end", self.pid);
        }
        #[expect(clippy::disallowed_methods, reason = "WNOHANG")]
        // SAFETY: no memory is named. Its status is taken, and not wanted.
        unsafe {
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG)
        };
    }
}

fn new_fd(number: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(number) {
        // SAFETY: the kernel has just returned it, and nobody else has seen it.
        Ok(number @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Descriptors of the table that both have.
#[derive(Clone, Copy)]
struct Watched {
    us: RawFd,
    kill: RawFd,
    events: RawFd,
}

/// The keeper's life: only system calls on what was made ready.
#[expect(clippy::disallowed_methods, reason = "to wait for our end is all it does")]
fn keep(watched: Watched) -> ! {
    // SAFETY: each call gets numbers, or pointers to locals and static memory that outlive it; the
    // descriptors are open for as long as this process, which shares the table, is not ended by its
    // owner.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"lxc-cr-keeper".as_ptr());
        let pause = PAUSE;
        let mut ended = libc::pollfd { fd: watched.us, events: libc::POLLIN, revents: 0 };
        while libc::poll(&raw mut ended, 1, -1) < 1 {}
        libc::write(watched.kill, b"1".as_ptr().cast(), 1);
        // A task that is being ended may still be in a system call, and must not find zeroes there.
        for _ in 0..TRIES {
            let mut text = [0u8; 128];
            let length = libc::pread(watched.events, text.as_mut_ptr().cast(), text.len(), 0);
            let text = &text[..usize::try_from(length).unwrap_or(0).min(128)];
            if text.is_empty() || text.windows(11).any(|part| part == b"populated 0") {
                break;
            }
            libc::nanosleep(&raw const pause, std::ptr::null_mut());
        }
        libc::_exit(0)
    }
}
