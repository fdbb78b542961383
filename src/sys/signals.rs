//! Signals as a descriptor: a process that keeps a container blocks them and reads them in its poll
//! loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::clean_start::is_ignored;

/// By this a command tells the monitor that it has started to give up what is not done yet. A
/// signal of its own: it may arrive when the container runs already, and all others are meant for
/// the container's init then. (To a process that knows nothing of it, it does nothing.)
pub(crate) const GIVE_UP: i32 = libc::SIGURG;

/// A signal that was read, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The signal's number; real-time signals included.
    pub number: i32,
    /// The sender's pid, 0 for the kernel.
    pub sender: i32,
}

impl Received {
    /// Whether it asks us to give up what we do.
    pub(crate) fn asks_to_give_up(&self) -> bool {
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, GIVE_UP].contains(&self.number)
    }
}

/// Signals that are blocked for this process and readable here. Dropping it unblocks them; those
/// that have come by then ask for an end that has come, too, and must not keep us from telling how
/// it went.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes the signals that ask a command to end: INT, TERM and HUP; but not those that its
    /// caller has it ignore (`nohup`), which could be read here all the same.
    pub(crate) fn of_termination() -> io::Result<Signals> {
        Signals::take(termination())
    }

    /// As [`Signals::of_termination`], and WINCH: the terminal's window has another size.
    pub(crate) fn of_terminal() -> io::Result<Signals> {
        let mut set = termination();
        set.add(Signal::SIGWINCH);
        Signals::take(set)
    }

    /// Takes all signals but those that report a fault of our own, as LXC's monitor does.
    pub(crate) fn of_monitor() -> io::Result<Signals> {
        let mut set = SigSet::all();
        for fault in [
            Signal::SIGILL,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGWINCH,
            Signal::SIGFPE,
            Signal::SIGABRT,
        ] {
            set.remove(fault);
        }
        Signals::take(set)
    }

    fn take(set: SigSet) -> io::Result<Signals> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { fd, before })
    }

    /// The next signal that has arrived, if any; does not wait.
    pub(crate) fn next(&self) -> io::Result<Option<Received>> {
        match self.fd.read_signal() {
            Ok(Some(info)) => {
                Ok(Some(Received { number: info.ssi_signo as i32, sender: info.ssi_pid as i32 }))
            }
            Ok(None) | Err(Errno::EINTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn termination() -> SigSet {
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    all.into_iter().filter(|signal| !is_ignored(*signal as i32)).collect()
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        while matches!(self.next(), Ok(Some(_))) {}
        if let Err(e) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            log::warn!("unblock signals: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_signal_that_comes_too_late_ends_nobody() {
        let signals = Signals::of_termination().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(signals.next().unwrap().map(|received| received.number), Some(libc::SIGTERM));
        raise(Signal::SIGTERM).unwrap();
        raise(Signal::SIGINT).unwrap();
        drop(signals);
    }
}
