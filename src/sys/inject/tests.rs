use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;

use super::*;

/// One system call in a thread that is held for it alone.
fn call(tid: i32, number: libc::c_long, arguments: &[u64]) -> io::Result<i64> {
    with(tid, |stopped| stopped.call(number, arguments))
}

/// A child that runs `work`, which may only make system calls, and tells its result.
struct Child {
    pid: i32,
    result: PipeReader,
}

impl Child {
    fn run(work: impl FnOnce() -> u64) -> Child {
        let (result, mut told) = std::io::pipe().unwrap();
        // SAFETY: the child only makes system calls until it ends.
        match unsafe { libc::fork() } {
            0 => {
                let value = work();
                let _ = told.write_all(&value.to_ne_bytes());
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            pid => Child { pid, result },
        }
    }

    /// Waits until it is in this system call.
    fn wait_in(&self, number: libc::c_long) {
        let file = format!("/proc/{}/syscall", self.pid);
        let end = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(&file).unwrap().starts_with(&format!("{number} ")) {
            assert!(Instant::now() < end, "it does not come to {number}");
            std::thread::yield_now();
        }
    }

    fn result(mut self) -> u64 {
        let mut value = [0; 8];
        self.result.read_exact(&mut value).unwrap();
        u64::from_ne_bytes(value)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nothing else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// What prctl(2) calls the death signal; a number that children do not have by themselves.
const DEATH_SIGNAL: u64 = 10;

/// Sets and reads a state that only the thread itself can.
fn set_and_read_death_signal(pid: i32) {
    let set = [libc::PR_SET_PDEATHSIG as u64, DEATH_SIGNAL];
    assert_eq!(call(pid, libc::SYS_prctl, &set).unwrap(), 0);
    let mut value = [0; 4];
    let get = |at| vec![libc::PR_GET_PDEATHSIG as u64, at];
    with(pid, |stopped| stopped.call_with(libc::SYS_prctl, &mut value, get)).unwrap();
    assert_eq!(u64::from(u32::from_ne_bytes(value)), DEATH_SIGNAL);
    assert_eq!(call(pid, libc::SYS_getpid, &[]).unwrap(), i64::from(pid));
}

fn milliseconds(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

#[test]
fn a_child_that_sleeps_sleeps_on_as_long_as_it_wanted() {
    let child = Child::run(|| {
        let (start, time) = (Instant::now(), libc::timespec { tv_sec: 0, tv_nsec: 600_000_000 });
        // SAFETY: both structures live through the call.
        let slept = unsafe {
            libc::syscall(libc::SYS_nanosleep, &raw const time, std::ptr::null_mut::<()>())
        };
        if slept == 0 { milliseconds(start) } else { 0 }
    });
    child.wait_in(libc::SYS_nanosleep);
    for _ in 0..10 {
        set_and_read_death_signal(child.pid);
    }
    let slept = child.result();
    assert!((600..5000).contains(&slept), "{slept}");
}

#[test]
fn a_child_that_reads_gets_what_is_written_later() {
    let (from, mut to) = std::io::pipe().unwrap();
    let child = Child::run(|| {
        let mut value = [0u8; 8];
        // SAFETY: reads into a buffer that lives through the call.
        let read = unsafe { libc::read(from.as_raw_fd(), value.as_mut_ptr().cast(), value.len()) };
        if read == 8 { u64::from_ne_bytes(value) } else { 0 }
    });
    child.wait_in(libc::SYS_read);
    for _ in 0..10 {
        set_and_read_death_signal(child.pid);
    }
    to.write_all(&4711u64.to_ne_bytes()).unwrap();
    assert_eq!(child.result(), 4711);
}

#[test]
fn a_child_that_waits_for_a_futex_waits_on_until_its_time_is_over() {
    let child = Child::run(|| {
        let (start, word) = (Instant::now(), 0u32);
        let time = libc::timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        // SAFETY: the word and the time live through the call.
        let waited = unsafe {
            libc::syscall(libc::SYS_futex, &raw const word, libc::FUTEX_WAIT, 0, &raw const time)
        };
        let is_timeout =
            waited < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT);
        if is_timeout { milliseconds(start) } else { 0 }
    });
    child.wait_in(libc::SYS_futex);
    for _ in 0..10 {
        set_and_read_death_signal(child.pid);
    }
    let waited = child.result();
    assert!((500..5000).contains(&waited), "{waited}");
}

#[test]
fn a_child_that_waits_with_another_mask_has_both_masks_as_before() {
    let child = Child::run(|| {
        let (all, none) = (u64::MAX, 0u64);
        let mut mask = 0u64;
        let time = libc::timespec { tv_sec: 0, tv_nsec: 400_000_000 };
        // SAFETY: all structures live through the calls and have the sizes that these are given.
        unsafe {
            let (set, nothing) = (libc::SIG_SETMASK, std::ptr::null_mut::<u64>());
            libc::syscall(libc::SYS_rt_sigprocmask, set, &raw const all, nothing, 8);
            let fds = std::ptr::null_mut::<()>();
            if libc::syscall(libc::SYS_ppoll, fds, 0, &raw const time, &raw const none, 8) != 0 {
                return 0;
            }
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                set,
                std::ptr::null_mut::<u64>(),
                &raw mut mask,
                8,
            );
        }
        mask
    });
    child.wait_in(libc::SYS_ppoll);
    set_and_read_death_signal(child.pid);
    // SIGKILL and SIGSTOP cannot be blocked.
    assert_eq!(child.result(), !(1 << (libc::SIGKILL - 1)) & !(1 << (libc::SIGSTOP - 1)));
}

#[test]
fn a_child_that_computes_computes_the_same() {
    let work =
        || (0..40_000_000u64).fold(1u64, |sum, n| sum.rotate_left(5) ^ n.wrapping_mul(sum | 1));
    let child = Child::run(work);
    for _ in 0..50 {
        // It may have ended.
        let _ = call(child.pid, libc::SYS_getpid, &[]);
    }
    assert_eq!(child.result(), work());
}

#[test]
fn a_filter_does_not_judge_our_calls() {
    let (from, mut to) = std::io::pipe().unwrap();
    let child = Child::run(|| {
        let mut byte = 0u8;
        // SAFETY: from here on the child may only read and write; then it is ended.
        unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, 1 /* SECCOMP_MODE_STRICT */, 0, 0, 0);
            libc::read(from.as_raw_fd(), (&raw mut byte).cast(), 1);
        }
        u64::from(byte)
    });
    child.wait_in(libc::SYS_read);
    set_and_read_death_signal(child.pid);
    to.write_all(&[42]).unwrap();
    assert_eq!(child.result(), 42);
}

#[test]
fn a_child_that_is_stopped_stays_so_and_one_that_is_gone_is_an_error() {
    let child = Child::run(|| {
        // SAFETY: stops the child itself.
        unsafe { libc::raise(libc::SIGSTOP) };
        7
    });
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
    let wait_stopped = || {
        let end = Instant::now() + Duration::from_secs(10);
        while !state().contains(") T ") {
            assert!(Instant::now() < end, "{}", state());
            std::thread::yield_now();
        }
    };
    wait_stopped();
    set_and_read_death_signal(child.pid);
    wait_stopped();
    // SAFETY: a child of ours.
    unsafe { libc::kill(child.pid, libc::SIGCONT) };
    let pid = child.pid;
    assert_eq!(child.result(), 7);
    // Reaped: no such process.
    let error = call(pid, libc::SYS_getpid, &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn a_call_that_does_not_return_is_given_up_and_leaves_no_harm() {
    let (from, mut to) = std::io::pipe().unwrap();
    let child = Child::run(|| {
        let mut byte = 0u8;
        // SAFETY: reads into a buffer that lives through the call.
        let read = unsafe { libc::read(from.as_raw_fd(), (&raw mut byte).cast(), 1) };
        if read == 1 { u64::from(byte) } else { 0 }
    });
    child.wait_in(libc::SYS_read);
    let error = call(child.pid, libc::SYS_pause, &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    set_and_read_death_signal(child.pid);
    to.write_all(&[9]).unwrap();
    assert_eq!(child.result(), 9);
}
