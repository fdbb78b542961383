//! The C library as far as std does not have it, and what every kind uses.
#![allow(missing_docs)]

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// Says what it has seen, or what is wrong.
pub type Check = Box<dyn FnMut() -> Result<String, String>>;
pub type Made = io::Result<Check>;

/// For something that goes on by itself to go on.
const PATIENCE: Duration = Duration::from_secs(10);

#[rustfmt::skip]
unsafe extern "C" {
    pub fn fork() -> c_int;
    pub fn _exit(code: c_int) -> !;
    pub fn setsid() -> c_int;
    pub fn getppid() -> c_int;
    pub fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn syscall(number: c_long, ...) -> c_long;
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn flock(fd: c_int, operation: c_int) -> c_int;
    pub fn ioctl(fd: c_int, request: u64, ...) -> c_int;
    pub fn poll(fds: *mut [c_int; 2], number: u64, timeout: c_int) -> c_int;
    pub fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    pub fn mkfifo(path: *const c_char, mode: c_uint) -> c_int;
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn eventfd(value: c_uint, flags: c_int) -> c_int;
    pub fn epoll_create1(flags: c_int) -> c_int;
    pub fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut [u32; 3]) -> c_int;
    pub fn epoll_wait(epoll: c_int, events: *mut [u32; 3], number: c_int, timeout: c_int) -> c_int;
    pub fn inotify_init1(flags: c_int) -> c_int;
    pub fn inotify_add_watch(fd: c_int, path: *const c_char, mask: c_uint) -> c_int;
    pub fn signalfd(fd: c_int, mask: *const [u64; 16], flags: c_int) -> c_int;
    pub fn sigprocmask(how: c_int, set: *const [u64; 16], old: *mut [u64; 16]) -> c_int;
    pub fn sigqueue(pid: c_int, signal: c_int, value: *mut c_void) -> c_int;
    pub fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    pub fn timerfd_create(clock: c_int, flags: c_int) -> c_int;
    pub fn timerfd_settime(fd: c_int, flags: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    pub fn timerfd_gettime(fd: c_int, now: *mut [i64; 4]) -> c_int;
    pub fn timer_create(clock: c_int, event: *mut [u64; 8], timer: *mut *mut c_void) -> c_int;
    pub fn timer_settime(timer: *mut c_void, flags: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    pub fn timer_gettime(timer: *mut c_void, now: *mut [i64; 4]) -> c_int;
    pub fn setitimer(which: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    pub fn setrlimit(which: c_int, limit: *const [u64; 2]) -> c_int;
    pub fn getrlimit(which: c_int, limit: *mut [u64; 2]) -> c_int;
    pub fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut [c_int; 2]) -> c_int;
    pub fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    pub fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize;
    pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    pub fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut c_uint) -> c_int;
    pub fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: c_uint) -> c_int;
    pub fn shmget(key: c_int, size: usize, flags: c_int) -> c_int;
    pub fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void;
    pub fn semget(key: c_int, number: c_int, flags: c_int) -> c_int;
    pub fn semctl(id: c_int, number: c_int, command: c_int, ...) -> c_int;
    pub fn msgget(key: c_int, flags: c_int) -> c_int;
    pub fn msgsnd(id: c_int, message: *const [u64; 2], size: usize, flags: c_int) -> c_int;
    pub fn msgrcv(id: c_int, message: *mut [u64; 2], size: usize, kind: c_long, flags: c_int) -> isize;
    pub fn pthread_mutexattr_init(attributes: *mut [u64; 8]) -> c_int;
    pub fn pthread_mutexattr_setrobust(attributes: *mut [u64; 8], robust: c_int) -> c_int;
    pub fn pthread_mutex_init(mutex: *mut [u64; 8], attributes: *const [u64; 8]) -> c_int;
    pub fn pthread_mutex_lock(mutex: *mut [u64; 8]) -> c_int;
    pub fn pthread_mutex_trylock(mutex: *mut [u64; 8]) -> c_int;
    pub fn pthread_mutex_unlock(mutex: *mut [u64; 8]) -> c_int;
    pub fn pthread_mutex_consistent(mutex: *mut [u64; 8]) -> c_int;
}

/// struct msghdr.
#[repr(C)]
pub struct Message {
    pub name: *mut c_void,
    pub name_length: c_uint,
    pub pieces: *mut [usize; 2],
    pub number: usize,
    pub control: *mut c_void,
    pub control_length: usize,
    pub flags: c_int,
}

pub fn checked(result: impl Into<i64>) -> io::Result<c_int> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

pub fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A descriptor that a call has given.
pub fn file(result: c_int) -> io::Result<File> {
    // The call has given it to nobody else.
    checked(result).map(|fd| unsafe { File::from_raw_fd(fd) })
}

/// Memory that is mapped for ever.
pub fn map(length: usize, flags: c_int, fd: c_int) -> io::Result<&'static mut [u64]> {
    const READ_WRITE: c_int = 3;
    let at = unsafe { mmap(std::ptr::null_mut(), length, READ_WRITE, flags, fd, 0) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), length / 8) })
}

/// Wrong unless `condition`.
pub fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}

/// Wrong unless both are the same.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, now: T, before: T) -> Result<(), String> {
    ensure(now == before, || format!("{what} is {now:?} and not {before:?}"))
}

/// Waits until `read` gives more than it does now.
pub fn grows(what: &str, read: impl Fn() -> u64) -> Result<u64, String> {
    let (first, started) = (read(), Instant::now());
    while read() <= first {
        ensure(started.elapsed() < PATIENCE, || format!("{what} stands still at {first}"))?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(read())
}

/// Whether a descriptor can be read.
pub fn readable(fd: c_int) -> bool {
    // struct pollfd: the descriptor, then POLLIN and what came of it.
    let mut fds = [[fd, 1]];
    unsafe { poll(fds.as_mut_ptr(), 1, 0) == 1 }
}

/// A child that does `work` for ever, or until it returns.
pub fn child(work: impl FnOnce()) -> io::Result<c_int> {
    let pid = checked(unsafe { fork() })?;
    if pid == 0 {
        work();
        unsafe { _exit(0) }
    }
    Ok(pid)
}

pub fn said(error: io::Error) -> String {
    error.to_string()
}
