//! Timers that live in descriptors, of our own process or of another one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::process::Process;

/// `TFD_IOC_SET_TICKS`, include/uapi/linux/timerfd.h: `_IOW('T', 0, __u64)`.
const SET_TICKS: libc::Ioctl = 0x4008_5400;

/// A timer as /proc/PID/fdinfo shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer {
    /// Its clock: `CLOCK_REALTIME`, `CLOCK_MONOTONIC`, …
    pub clock: i32,
    /// The flags with which it was set (`TFD_TIMER_ABSTIME`, `TFD_TIMER_CANCEL_ON_SET`).
    pub flags: i32,
    /// Expirations that no process has read yet.
    pub ticks: u64,
    /// Until the next expiration; zero when it has expired or is off.
    pub value: Duration,
    /// From one expiration to the next; zero when it expires once.
    pub interval: Duration,
}

impl Timer {
    /// Whether it was set to a time of its clock, rather than to some time from then on.
    pub(crate) fn is_absolute(&self) -> bool {
        self.flags & libc::TFD_TIMER_ABSTIME != 0
    }

    /// Whether its clock is the time of day, which goes on while a container does not run.
    pub(crate) fn is_of_the_day(&self) -> bool {
        matches!(self.clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM)
    }
}

/// The timer descriptors of a process, with their numbers there.
pub(crate) fn timers(pid: i32) -> io::Result<Vec<(i32, Timer)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // Descriptors come and go: one that cannot be read any more is none.
        if !fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[timerfd]")
        {
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
    let pair = |text: &str| -> Option<Duration> {
        let (seconds, nanoseconds) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
        Some(Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?))
    };
    Some(Timer {
        clock: field("clockid:")?.parse().ok()?,
        flags: i32::from_str_radix(field("settime flags:")?, 8).ok()?,
        ticks: field("ticks:")?.parse().ok()?,
        value: pair(field("it_value:")?)?,
        interval: pair(field("it_interval:")?)?,
    })
}

/// A timer of another process as it is now. The kernel first sets going again one that has expired
/// and repeats (fs/timerfd.c: `do_timerfd_gettime`), so that its value is right; its owner sees no
/// difference.
pub(crate) fn current(process: &Process, number: i32) -> io::Result<Timer> {
    let fd = take(process, number)?;
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut now = libc::itimerspec { it_interval: zero, it_value: zero };
    // SAFETY: the descriptor is ours, and `now` lives through the call.
    if unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &mut now) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    parse(&info).ok_or_else(|| io::Error::other("the kernel describes a timer in an unknown way"))
}

/// Sets a timer of another process as `timer` is; its value is a time of its clock if
/// [`Timer::is_absolute`].
pub(crate) fn set(process: &Process, number: i32, timer: &Timer) -> io::Result<()> {
    let fd = take(process, number)?;
    let new = libc::itimerspec {
        it_interval: timespec(timer.interval)?,
        it_value: timespec(timer.value)?,
    };
    // SAFETY: the descriptor is ours, `new` lives through the call, and the old value is not asked
    // for.
    if unsafe { libc::timerfd_settime(fd.as_raw_fd(), timer.flags, &new, std::ptr::null_mut()) } < 0
    {
        return Err(io::Error::last_os_error());
    }
    if timer.ticks == 0 {
        return Ok(());
    }
    // SAFETY: the ioctl reads one u64, which lives through the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), SET_TICKS, &raw const timer.ticks) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The time of a clock of timers, as this process reads it.
pub(crate) fn now(clock: i32) -> io::Result<Duration> {
    let clock = match clock {
        libc::CLOCK_REALTIME_ALARM => libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME_ALARM => libc::CLOCK_BOOTTIME,
        other => other,
    };
    let now = nix::time::clock_gettime(nix::time::ClockId::from_raw(clock))?;
    Ok(now.into())
}

fn take(process: &Process, number: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty())?)
}

fn timespec(time: Duration) -> io::Result<libc::timespec> {
    let tv_sec = time.as_secs().try_into().map_err(io::Error::other)?;
    Ok(libc::timespec { tv_sec, tv_nsec: time.subsec_nanos().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

    #[test]
    fn what_the_kernel_writes_is_read() {
        let info = "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 03\n\
                    it_value: (0, 0)\nit_interval: (0, 20000000)\n";
        let interval = Duration::from_millis(20);
        let timer = Timer { clock: 1, flags: 3, ticks: 3, value: Duration::ZERO, interval };
        assert_eq!(parse(info), Some(timer));
        assert!(timer.is_absolute() && !timer.is_of_the_day());
        assert_eq!(parse("pos: 0"), None);
    }

    #[test]
    fn a_timer_that_is_off_is_set_going_with_its_ticks() {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        let me = Process::open(std::process::id() as i32).unwrap();
        let number = timer.as_fd().as_raw_fd();
        let fifty = Duration::from_secs(50);
        set(&me, number, &Timer { clock: 1, flags: 0, ticks: 7, value: fifty, interval: fifty })
            .unwrap();
        let (_, shown) = timers(me.pid()).unwrap().into_iter().find(|(n, _)| *n == number).unwrap();
        assert_eq!((shown.ticks, shown.interval, shown.value.as_secs()), (7, fifty, 49));
        assert_eq!(current(&me, number).unwrap().value.as_secs(), 49);
    }

    #[test]
    fn a_timer_that_has_expired_and_repeats_says_when_it_is_due_next() {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        let me = Process::open(std::process::id() as i32).unwrap();
        let number = timer.as_fd().as_raw_fd();
        let (value, interval) = (Duration::from_nanos(1), Duration::from_secs(50));
        set(&me, number, &Timer { clock: 1, flags: 0, ticks: 0, value, interval }).unwrap();
        while timers(me.pid()).unwrap().into_iter().any(|(n, t)| n == number && t.ticks == 0) {}
        let now = current(&me, number).unwrap();
        assert_eq!((now.ticks, now.value.as_secs()), (1, 49));
    }
}
