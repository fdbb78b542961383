//! Descriptors that tell of events: inotify, epoll, eventfd, signalfd, pidfd.

use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::{process, ptr, thread};

use crate::sys::{Check, Made, checked, child, ensure, epoll_create1, epoll_ctl, epoll_wait, eventfd, file, inotify_add_watch, inotify_init1, kill, readable, said, same, signalfd, sigprocmask, sigqueue, syscall, text, waitpid};

/// A directory and a file are watched; both still have their watches.
pub fn inotify() -> Made {
    const IN_CREATE: u32 = 0x100;
    const IN_MODIFY: u32 = 0x2;
    fs::create_dir("watched")?;
    fs::write("file", "")?;
    let mut watcher = file(unsafe { inotify_init1(0) })?;
    let directory = checked(unsafe { inotify_add_watch(watcher.as_raw_fd(), text("watched").as_ptr(), IN_CREATE) })?;
    let one = checked(unsafe { inotify_add_watch(watcher.as_raw_fd(), text("file").as_ptr(), IN_MODIFY) })?;
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        let mut event = |what: &str, watch: c_int, mask: u32| {
            ensure(readable(watcher.as_raw_fd()), || format!("{what}: nothing was told"))?;
            let mut buffer = [0; 512];
            let length = watcher.read(&mut buffer).map_err(said)?;
            let word = |at: usize| u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
            same(what, (word(0), word(4) & mask), (watch as u32, mask))?;
            Ok::<usize, String>(length)
        };
        File::create(format!("watched/{number}")).map_err(said)?;
        event("a new file", directory, IN_CREATE)?;
        fs::write("file", "more").map_err(said)?;
        event("a change", one, IN_MODIFY)?;
        Ok(format!("{number}"))
    }))
}

/// A level, an edge and a single shot; and a descriptor that is only known by the number it was
/// added under.
pub fn epoll() -> Made {
    const ADD: c_int = 1;
    const MODIFY: c_int = 3;
    const IN: u32 = 1;
    const ONE_SHOT: u32 = 1 << 30;
    const EDGE: u32 = 1 << 31;
    let epoll = file(unsafe { epoll_create1(0) })?;
    let put = move |epoll: &File, operation: c_int, fd: c_int, events: u32, data: u32| {
        checked(unsafe { epoll_ctl(epoll.as_raw_fd(), operation, fd, &mut [events, data, 0]) })
    };
    let (mut level, mut to_level) = io::pipe()?;
    let (mut edge, mut to_edge) = io::pipe()?;
    let (mut once, mut to_once) = io::pipe()?;
    let (moved, mut to_moved) = io::pipe()?;
    put(&epoll, ADD, level.as_raw_fd(), IN, 1)?;
    put(&epoll, ADD, edge.as_raw_fd(), IN | EDGE, 2)?;
    put(&epoll, ADD, once.as_raw_fd(), IN | ONE_SHOT, 3)?;
    put(&epoll, ADD, moved.as_raw_fd(), IN, 4)?;
    // The number under which it was added is another file's now.
    let mut moved_to = moved.try_clone()?;
    let number = moved.into_raw_fd();
    drop(unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(number) });
    let taken = File::open("/dev/null")?;
    same("the number", taken.as_raw_fd(), number).map_err(io::Error::other)?;
    let write = |pipe: &mut PipeWriter| pipe.write_all(b"x");
    let mut all = move || -> io::Result<()> {
        [&mut to_level, &mut to_edge, &mut to_once, &mut to_moved].into_iter().try_for_each(write)
    };
    all()?;
    Ok(Box::new(move || {
        let _ = &taken;
        let mut events = [[0; 3]; 8];
        let number = unsafe { epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 8, 1000) };
        let mut told: Vec<u32> = events.iter().take(number.max(0) as usize).map(|e| e[1]).collect();
        told.sort_unstable();
        same("what is told", told, vec![1, 2, 3, 4])?;
        let mut byte = [0];
        for pipe in [&mut level, &mut edge, &mut once, &mut moved_to] {
            pipe.read_exact(&mut byte).map_err(said)?;
        }
        put(&epoll, MODIFY, once.as_raw_fd(), IN | ONE_SHOT, 3).map_err(said)?;
        all().map_err(said)?;
        Ok(String::new())
    }))
}

fn take(fd: &mut File) -> Result<u64, String> {
    ensure(readable(fd.as_raw_fd()), || "an eventfd is empty".to_owned())?;
    let mut value = [0; 8];
    fd.read_exact(&mut value).map_err(said)?;
    Ok(u64::from_ne_bytes(value))
}

/// A counter that gives one at a time.
pub fn semaphore() -> Made {
    const SEMAPHORE: c_int = 1;
    let mut semaphore = file(unsafe { eventfd(3, SEMAPHORE) })?;
    Ok(Box::new(move || {
        for _ in 0..3 {
            same("the semaphore", take(&mut semaphore)?, 1)?;
        }
        ensure(!readable(semaphore.as_raw_fd()), || "the semaphore has too many".to_owned())?;
        semaphore.write_all(&3_u64.to_ne_bytes()).map_err(said)?;
        Ok(String::new())
    }))
}

/// A counter.
pub fn eventfds() -> Made {
    let mut counter = file(unsafe { eventfd(0, 0) })?;
    let mut expected: u64 = 5;
    counter.write_all(&expected.to_ne_bytes())?;
    Ok(Box::new(move || {
        same("the counter", take(&mut counter)?, expected)?;
        expected += 1;
        counter.write_all(&expected.to_ne_bytes()).map_err(said)?;
        Ok(format!("{expected}"))
    }))
}

/// Signals that pend, of both sorts and with their values, for the process and for one of its
/// threads; a signalfd.
pub fn signals() -> Made {
    const SIGUSR1: c_int = 10;
    const REAL_TIME: c_int = 40;
    let mask = [1 << (SIGUSR1 - 1) | 1 << (REAL_TIME - 1), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    checked(unsafe { sigprocmask(0, &mask, ptr::null_mut()) })?;
    let mut fd = file(unsafe { signalfd(-1, &mask, 0) })?;
    let mut value = 1_usize;
    let queue = |number: c_int, value: usize| {
        checked(unsafe { sigqueue(process::id().cast_signed(), number, value as *mut c_void) })
    };
    queue(SIGUSR1, 1)?;
    queue(REAL_TIME, 1)?;
    queue(REAL_TIME, 2)?;
    Ok(Box::new(move || {
        for expected in [(SIGUSR1, value), (REAL_TIME, value), (REAL_TIME, value + 1)] {
            ensure(readable(fd.as_raw_fd()), || format!("signal {expected:?} is lost"))?;
            let mut info = [0; 128];
            fd.read_exact(&mut info).map_err(said)?;
            let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
            same("the signal", (word(0) as c_int, word(44) as usize), expected)?;
        }
        value += 1;
        for (number, value) in [(SIGUSR1, value), (REAL_TIME, value), (REAL_TIME, value + 1)] {
            queue(number, value).map_err(said)?;
        }
        Ok(format!("{value}"))
    }))
}

/// Of a child that lives, and of one that is gone.
pub fn pidfds() -> Made {
    const PIDFD_OPEN: i64 = 434;
    const SEND_SIGNAL: i64 = 424;
    let open = |pid: c_int| file(unsafe { syscall(PIDFD_OPEN, pid, 0) } as c_int);
    let new = move || -> io::Result<(c_int, File)> {
        let pid = child(|| {
            loop {
                thread::park();
            }
        })?;
        Ok((pid, open(pid)?))
    };
    let end = |pid: c_int| -> io::Result<()> {
        checked(unsafe { kill(pid, 9) })?;
        checked(unsafe { waitpid(pid, ptr::null_mut(), 0) }).map(drop)
    };
    let (mut pid, mut living) = new()?;
    let (gone_pid, gone) = new()?;
    end(gone_pid)?;
    let check: Check = Box::new(move || {
        let send = |fd: &File, signal: c_int| {
            checked(unsafe { syscall(SEND_SIGNAL, fd.as_raw_fd(), signal, 0_usize, 0) })
        };
        ensure(send(&gone, 0).is_err_and(|e| e.raw_os_error() == Some(3)), || "a dead child lives".to_owned())?;
        send(&living, 0).map_err(|e| format!("the living child: {e}"))?;
        ensure(!readable(living.as_raw_fd()), || "a child that lives is told to be dead".to_owned())?;
        send(&living, 9).map_err(said)?;
        checked(unsafe { waitpid(pid, ptr::null_mut(), 0) }).map_err(said)?;
        ensure(readable(living.as_raw_fd()), || "the end of a child is not told".to_owned())?;
        (pid, living) = new().map_err(said)?;
        Ok(format!("child {pid}"))
    });
    Ok(check)
}
