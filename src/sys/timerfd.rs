//! Timers that live in descriptors, of our own process or of another one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::process::Process;

/// `TFD_IOC_SET_TICKS`, include/uapi/linux/timerfd.h: `_IOW('T', 0, __u64)`.
const SET_TICKS: libc::Ioctl = 0x4008_5400;

/// A timer as /proc/PID/fdinfo shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// Expirations that nobody has read yet.
    pub ticks: u64,
    /// Until the next expiration; zero when it has expired or is off.
    pub value: (i64, i64),
    /// From one expiration to the next, seconds and nanoseconds.
    pub interval: (i64, i64),
}

/// The timer descriptors of a process, with their numbers there.
pub fn timers(pid: i32) -> io::Result<Vec<(i32, Timer)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // Descriptors come and go: one that cannot be read any more is none.
        if !fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[timerfd]") {
            continue;
        }
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else { continue };
        if let Some(timer) = parse(&info) {
            found.push((number, timer));
        }
    }
    Ok(found)
}

fn parse(info: &str) -> Option<Timer> {
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let pair = |text: &str| -> Option<(i64, i64)> {
        let (seconds, nanoseconds) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
        Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
    };
    Some(Timer {
        ticks: field("ticks:")?.parse().ok()?,
        value: pair(field("it_value:")?)?,
        interval: pair(field("it_interval:")?)?,
    })
}

/// Sets a timer of another process going: it expires after one interval and so on, and has these ticks unread.
pub fn rearm(process: &Process, number: i32, timer: Timer) -> io::Result<()> {
    let fd: OwnedFd = pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty())?;
    let (tv_sec, tv_nsec) = timer.interval;
    let interval = libc::timespec { tv_sec, tv_nsec };
    let new = libc::itimerspec { it_interval: interval, it_value: interval };
    // SAFETY: the descriptor is ours, `new` lives through the call, and the old value is not asked for.
    if unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &new, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the ioctl reads one u64, which lives through the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), SET_TICKS, &raw const timer.ticks) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let info = "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 00\nit_value: (0, 0)\nit_interval: (0, 20000000)\n";
        assert_eq!(parse(info), Some(Timer { ticks: 3, value: (0, 0), interval: (0, 20_000_000) }));
        assert_eq!(parse("pos: 0"), None);
    }

    #[test]
    fn a_timer_that_is_off_is_set_going_with_its_ticks() {
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        let me = Process::open(std::process::id() as i32).unwrap();
        let number = timer.as_fd().as_raw_fd();
        rearm(&me, number, Timer { ticks: 7, value: (0, 0), interval: (50, 0) }).unwrap();
        let (_, now) = timers(me.pid()).unwrap().into_iter().find(|(n, _)| *n == number).unwrap();
        assert_eq!((now.ticks, now.interval), (7, (50, 0)));
        assert_eq!(now.value.0, 49);
    }
}
