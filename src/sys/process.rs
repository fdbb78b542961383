//! A process that cannot be mistaken for another one: held by a pidfd, told apart by its start
//! time.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};

use super::poll;
use super::thread::on_a_thread;

/// A process, alive when it was opened. Its number may be taken again later; the pidfd may not.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    start_time: u64,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process that has this number now.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub(crate) fn open(pid: i32) -> io::Result<Process> {
        let number = Pid::from_raw(pid).ok_or_else(|| io::Error::from(Errno::ESRCH))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty())?;
        // The start time is read after the pidfd is held: if the process had ended in between, its
        // number could not have been given away while we see it alive through the pidfd.
        let start_time = start_time(pid)?;
        let process = Process { pid, start_time, pidfd };
        if process.is_alive() { Ok(process) } else { Err(Errno::ESRCH.into()) }
    }

    /// Holds a child, which may have ended already: its number cannot be given away before it is
    /// waited for.
    pub(crate) fn of_child(child: &std::process::Child) -> io::Result<Process> {
        let pid = child.id().cast_signed();
        let number = Pid::from_raw(pid).ok_or_else(|| io::Error::from(Errno::ESRCH))?;
        Ok(Process {
            pid,
            start_time: start_time(pid)?,
            pidfd: pidfd_open(number, PidfdFlags::empty())?,
        })
    }

    /// Opens the process only if it is the one that was seen before, by its start time.
    pub(crate) fn reopen(pid: i32, start_time: u64) -> io::Result<Process> {
        let process = Process::open(pid)?;
        if process.start_time == start_time { Ok(process) } else { Err(Errno::ESRCH.into()) }
    }

    /// The number in our own pid namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// When it was started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Whether it has not ended yet (a zombie has ended).
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.wait_exit(Duration::ZERO), Ok(false))
    }

    /// Whether it will be alive a moment later, too: nothing is ending it.
    pub(crate) fn goes_on(&self) -> bool {
        self.is_alive() && !is_killed(self.pid)
    }

    /// Sends a signal by number, real-time signals included.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        if (1..=libc::SIGRTMAX()).contains(&number) {
            // SAFETY: the number is a valid signal; rustix only passes it on to the kernel, it
            // installs no handler for it.
            let signal = unsafe { Signal::from_raw_unchecked(number) };
            return Ok(pidfd_send_signal(&self.pidfd, signal)?);
        }
        Err(Errno::EINVAL.into())
    }

    /// Waits until the process has ended, at most this long; says whether it has.
    pub(crate) fn wait_exit(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match poll::readable([self.pidfd.as_fd()], left)? {
                [true] => return Ok(true),
                [false] if Instant::now() >= end => return Ok(false),
                [false] => {}
            }
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The start time of a process in clock ticks since boot.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    stat_field(pid, 22)
}

/// The session of a process: its leader's number.
pub(crate) fn session(pid: i32) -> io::Result<i32> {
    stat_field(pid, 6)
}

/// From now on what a process writes to files fails, if it heeds no signal of that
/// ([`spawn::Place::heeds_no_file_limit`]).
///
/// [`spawn::Place::heeds_no_file_limit`]: super::spawn::Place::heeds_no_file_limit
pub(crate) fn forbid_writing(pid: i32) -> io::Result<()> {
    limit_files(pid, |_| Some(0))
}

/// Takes that back.
pub(crate) fn allow_writing(pid: i32) -> io::Result<()> {
    limit_files(pid, |most| most)
}

/// Changes the size up to which a process may write files, by the most that it may be given.
fn limit_files(pid: i32, size: impl Fn(Option<u64>) -> Option<u64>) -> io::Result<()> {
    let process = Some(Pid::from_raw(pid).ok_or_else(|| io::Error::from(Errno::ESRCH))?);
    // The hard limit is the same for all that CRIU is a child of.
    let most = getrlimit(Resource::Fsize).maximum;
    prlimit(process, Resource::Fsize, Rlimit { current: size(most), maximum: most })?;
    Ok(())
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> io::Result<i32> {
    stat_field(pid, 4)
}

/// The children of a process. CRIU needs a kernel that tells them (`CONFIG_PROC_CHILDREN`).
pub(crate) fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children
            .extend(text.split_ascii_whitespace().filter_map(|number| number.parse::<i32>().ok()));
    }
    Ok(children)
}

/// The number of a process in the innermost of its pid namespaces; none for one that is gone.
pub(crate) fn number_inside(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether a process has ended or is about to: the kernel has begun to take it apart (`PF_EXITING`,
/// linux/sched.h), however long that takes.
pub(crate) fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    stat_field::<u64>(pid, 9).map_or(true, |flags| flags & PF_EXITING != 0)
}

/// Whether somebody has stopped a process (SIGSTOP).
pub(crate) fn is_stopped(pid: i32) -> bool {
    state(pid).is_ok_and(|state| state == 'T')
}

/// What a process does: `R`, `S`, `D`, `T`, `t`, `Z`, … as in proc(5).
pub(crate) fn state(pid: i32) -> io::Result<char> {
    stat_field(pid, 3)
}

/// Whether SIGKILL is on its way to a process, or has reached it.
pub(crate) fn is_killed(pid: i32) -> bool {
    const BIT: u64 = 1 << (libc::SIGKILL - 1);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    is_ending(pid)
        || pending
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_some_and(|set| set & BIT != 0)
}

/// A numeric field of /proc/PID/stat, by its number in proc(5).
fn stat_field<T: std::str::FromStr>(pid: i32, number: usize) -> io::Result<T> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 2, the command in parentheses, may hold anything, blanks and parentheses too: the
    // others count from its end.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(number - 3)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no field {number}")))
}

/// `/proc/PID/cgroup` as the process itself reads it: paths begin where its cgroup namespace does.
/// None if that is ours.
pub(crate) fn cgroups_within(pid: i32) -> io::Result<Option<String>> {
    let path = format!("/proc/{pid}/ns/cgroup");
    let theirs = match fs::read_link(&path) {
        // A kernel without them.
        Err(e)
            if e.kind() == io::ErrorKind::NotFound
                && Path::new(&format!("/proc/{pid}")).exists() =>
        {
            return Ok(None);
        }
        link => link?,
    };
    if fs::read_link("/proc/self/ns/cgroup")? == theirs {
        return Ok(None);
    }
    let namespace = fs::File::open(&path)?;
    // Only this thread goes there, and ends.
    let read = move || {
        setns(namespace, CloneFlags::CLONE_NEWCGROUP)?;
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
    };
    on_a_thread("cgroups", read)?.map(Some)
}

/// Takes a descriptor that a call has just returned and that nothing else owns.
///
/// The numbers that `nix` returns for accepted sockets are such.
pub(crate) fn own_fd(just_returned: RawFd) -> OwnedFd {
    // SAFETY: the caller hands over a descriptor that it got from the kernel and keeps no copy of.
    unsafe { OwnedFd::from_raw_fd(just_returned) }
}

/// Puts this descriptor in place of standard input, output and error.
pub(crate) fn replace_standard_streams(with: BorrowedFd<'_>) -> io::Result<()> {
    for number in 0..3 {
        // SAFETY: dup2 on the three standard numbers; nothing in this program owns them as an
        // `OwnedFd`.
        if unsafe { libc::dup2(with.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the name that `ps` shows beside the command line (at most 15 bytes are kept).
pub(crate) fn set_own_name(name: &str) -> io::Result<()> {
    fs::write("/proc/self/comm", name)
}

/// The effective user of this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_alive_and_keeps_its_start_time() {
        let me = Process::open(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(Process::reopen(me.pid(), me.start_time()).is_ok());
        assert!(Process::reopen(me.pid(), me.start_time() + 1).is_err());
        assert!(!is_ending(me.pid()) && !is_killed(me.pid()) && me.goes_on());
    }

    #[test]
    fn an_ended_child_is_seen_and_no_number_is_trusted() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let process = Process::open(child.id() as i32);
        child.wait().unwrap();
        if let Ok(process) = process {
            assert!(process.wait_exit(Duration::from_secs(5)).unwrap());
            assert!(process.signal(libc::SIGTERM).is_err());
        }
        assert!(Process::open(0).is_err());
    }
}
