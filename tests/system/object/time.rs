//! Timers of processes and in descriptors.

use std::ffi::{c_int, c_void};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use std::{ptr, thread};

use crate::sys::{Made, checked, ensure, file, grows, readable, said, setitimer, signal, timer_create, timer_gettime, timer_settime, timerfd_create, timerfd_gettime, timerfd_settime};

const MONOTONIC: c_int = 1;
const REALTIME: c_int = 0;
/// Seconds; whoever expires in the middle has lost an hour.
const HOUR: i64 = 3600;
/// struct itimerspec: every 20 ms.
const OFTEN: [i64; 4] = [0, 20_000_000, 0, 20_000_000];

static ALARMS: AtomicU64 = AtomicU64::new(0);
static SIGNALS: AtomicU64 = AtomicU64::new(0);
static SLEPT: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_alarm(_: c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn on_signal(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// setitimer(2), timer_create(2) and a thread that sleeps.
pub fn timers() -> Made {
    const SIGALRM: c_int = 14;
    const SIGUSR2: c_int = 12;
    unsafe {
        signal(SIGALRM, on_alarm);
        signal(SIGUSR2, on_signal);
    }
    // struct itimerval counts microseconds.
    checked(unsafe { setitimer(0, &[0, 20_000, 0, 20_000], ptr::null_mut()) })?;
    let make = |first: &[i64; 4]| {
        let mut timer: *mut c_void = ptr::null_mut();
        // struct sigevent: a value, then the signal; SIGEV_SIGNAL is 0.
        let mut event = [0, SIGUSR2 as u64, 0, 0, 0, 0, 0, 0];
        checked(unsafe { timer_create(MONOTONIC, &mut event, &mut timer) })?;
        checked(unsafe { timer_settime(timer, 0, first, ptr::null_mut()) })?;
        Ok::<*mut c_void, std::io::Error>(timer)
    };
    make(&OFTEN)?;
    let long = make(&[0, 0, HOUR, 0])?;
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(10));
            SLEPT.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Box::new(move || {
        grows("setitimer's timer", || ALARMS.load(Ordering::Relaxed))?;
        grows("timer_create's timer", || SIGNALS.load(Ordering::Relaxed))?;
        grows("a sleeping thread", || SLEPT.load(Ordering::Relaxed))?;
        let mut left = [0; 4];
        checked(unsafe { timer_gettime(long, &mut left) }).map_err(said)?;
        ensure((HOUR - 600..=HOUR).contains(&left[2]), || format!("{} seconds of an hour are left", left[2]))?;
        Ok(String::new())
    }))
}

/// timerfd(2): one that expires all the time, one far away, one that nobody reads.
pub fn timerfd() -> Made {
    let make = |clock: c_int, first: &[i64; 4]| {
        let timer = file(unsafe { timerfd_create(clock, 0) })?;
        checked(unsafe { timerfd_settime(timer.as_raw_fd(), 0, first, ptr::null_mut()) })?;
        Ok::<std::fs::File, std::io::Error>(timer)
    };
    let mut often = make(MONOTONIC, &OFTEN)?;
    let mut unread = make(REALTIME, &OFTEN)?;
    let long = make(MONOTONIC, &[0, 0, HOUR, 0])?;
    let mut ticks = 0;
    Ok(Box::new(move || {
        for timer in [&mut often, &mut unread] {
            for _ in 0..3 {
                let mut number = [0; 8];
                timer.read_exact(&mut number).map_err(said)?;
                ticks += u64::from_ne_bytes(number);
            }
        }
        let mut left = [0; 4];
        checked(unsafe { timerfd_gettime(long.as_raw_fd(), &mut left) }).map_err(said)?;
        ensure((HOUR - 600..=HOUR).contains(&left[2]), || format!("{} seconds of an hour are left", left[2]))?;
        Ok(format!("{ticks} ticks"))
    }))
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// A timer descriptor of the time of day, as systemd has for `OnCalendar=`.
fn alarm() -> std::io::Result<std::fs::File> {
    file(unsafe { timerfd_create(REALTIME, 0) })
}

/// Sets one to a time of day; it repeats every hour if asked to.
fn set_alarm(timer: &std::fs::File, at: Duration, repeats: bool) -> std::io::Result<()> {
    const ABSOLUTE_AND_CANCEL_ON_SET: c_int = 3;
    let interval = if repeats { HOUR } else { 0 };
    let value = [interval, 0, at.as_secs().cast_signed(), at.subsec_nanos().into()];
    checked(unsafe { timerfd_settime(timer.as_raw_fd(), ABSOLUTE_AND_CANCEL_ON_SET, &value, ptr::null_mut()) })?;
    Ok(())
}

/// Alarms at a time of day. One is due this many seconds after a check: the next one wants it to
/// have come.
pub fn alarms(seconds: &str) -> Made {
    const TOLERANCE: Duration = Duration::from_millis(500);
    let seconds = Duration::from_secs(seconds.parse().map_err(std::io::Error::other)?);
    let (mut near, far, often) = (alarm()?, alarm()?, alarm()?);
    let due = now() + Duration::from_secs(HOUR.unsigned_abs());
    set_alarm(&far, due, false)?;
    set_alarm(&often, due, true)?;
    extern "C" fn ignored(_: c_int) {}
    const SIGUSR2: c_int = 12;
    unsafe { signal(SIGUSR2, ignored) };
    let mut posix: *mut c_void = ptr::null_mut();
    checked(unsafe { timer_create(REALTIME, &mut [0, SIGUSR2 as u64, 0, 0, 0, 0, 0, 0], &mut posix) })?;
    let at = [HOUR, 0, due.as_secs().cast_signed(), due.subsec_nanos().into()];
    checked(unsafe { timer_settime(posix, 1, &at, ptr::null_mut()) })?;
    let posix = posix as usize;
    let mut set = false;
    Ok(Box::new(move || {
        if std::mem::replace(&mut set, true) {
            ensure(readable(near.as_raw_fd()), || "what was due meanwhile has not come".to_owned())?;
            near.read_exact(&mut [0; 8]).map_err(said)?;
        }
        for (timer, interval) in [(Some(&far), 0), (Some(&often), HOUR), (None, HOUR)] {
            let mut left = [0; 4];
            let read = match timer {
                Some(timer) => unsafe { timerfd_gettime(timer.as_raw_fd(), &mut left) },
                None => unsafe { timer_gettime(posix as *mut c_void, &mut left) },
            };
            checked(read).map_err(said)?;
            let comes = now() + Duration::new(left[2].unsigned_abs(), left[3] as u32);
            ensure(comes.abs_diff(due) < TOLERANCE, || format!("it comes {:?} late", comes.abs_diff(due)))?;
            ensure(left[0] == interval, || format!("it repeats every {} s", left[0]))?;
        }
        set_alarm(&near, now() + seconds, false).map_err(said)?;
        Ok(String::new())
    }))
}
