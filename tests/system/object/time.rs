//! Timers of processes and in descriptors.

use std::ffi::{c_int, c_void};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{ptr, thread};

use crate::sys::{
    Made, checked, ensure, file, grows, said, setitimer, signal, timer_create, timer_gettime, timer_settime,
    timerfd_create, timerfd_gettime, timerfd_settime,
};

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
