//! Threads and what they wait for, children, and a terminal with a session on it.

use std::cell::Cell;
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, ptr};

use crate::sys::{Check, Made, checked, child, ensure, file, grows, ioctl, mmap, pthread_mutex_consistent, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, pthread_mutexattr_init, pthread_mutexattr_setrobust, said, same, setsid, syscall};

/// How many threads pass the turn on.
const RING: u64 = 8;

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// A mutex whose next owner is told that the last one died with it.
struct Robust(Box<[u64; 8]>);

/// The kernel and the C library look after it.
unsafe impl Send for Robust {}
unsafe impl Sync for Robust {}

impl Robust {
    fn new() -> Robust {
        let (mut mutex, mut attributes) = (Box::new([0; 8]), [0; 8]);
        unsafe {
            pthread_mutexattr_init(&mut attributes);
            pthread_mutexattr_setrobust(&mut attributes, 1);
            pthread_mutex_init(&mut *mutex, &attributes);
        }
        Robust(mutex)
    }

    fn at(&self) -> *mut [u64; 8] {
        (&raw const *self.0).cast_mut()
    }
}

/// A thread that holds the mutex until it is told to die with it.
fn hold(mutex: &Arc<Robust>) -> (Sender<()>, JoinHandle<()>) {
    let (told, wait): (Sender<()>, Receiver<()>) = channel();
    let (locked, is_locked) = channel();
    let mutex = mutex.clone();
    let thread = thread::spawn(move || {
        unsafe { pthread_mutex_lock(mutex.at()) };
        let _ = locked.send(());
        let _ = wait.recv();
    });
    let _ = is_locked.recv();
    (told, thread)
}

/// A ring of threads, one that waits for long, a robust mutex whose owner dies after the restart.
pub fn threads() -> Made {
    let turn = Arc::new((Mutex::new(0_u64), Condvar::new()));
    let lost = Arc::new(AtomicU64::new(0));
    for number in 0..RING {
        let (turn, lost) = (turn.clone(), lost.clone());
        thread::spawn(move || {
            OWN.set(number);
            loop {
                let (count, changed) = &*turn;
                let Ok(count) = count.lock() else { return };
                let Ok(mut count) = changed.wait_while(count, |count| *count % RING != number) else { return };
                if OWN.get() != number {
                    lost.fetch_add(1, Ordering::SeqCst);
                }
                *count += 1;
                changed.notify_all();
            }
        });
    }
    let patient = Arc::new((Mutex::new(0_u64), Condvar::new(), AtomicU64::new(0)));
    let waiting = patient.clone();
    thread::spawn(move || {
        let Ok(mut seen) = waiting.0.lock() else { return };
        for number in 1.. {
            let hour = Duration::from_secs(3600);
            let Ok((guard, told)) = waiting.1.wait_timeout_while(seen, hour, |seen| *seen < number) else { return };
            seen = guard;
            if !told.timed_out() {
                waiting.2.store(number, Ordering::SeqCst);
            }
        }
    });
    let mutex = Arc::new(Robust::new());
    let mut holder = Some(hold(&mutex));
    Ok(Box::new(move || {
        const BUSY: c_int = 16;
        const OWNER_DIED: c_int = 130;
        let count = grows("the ring", || turn.0.lock().map_or(0, |c| *c))?;
        same("threads with a lost variable", lost.load(Ordering::SeqCst), 0)?;
        let before = patient.2.load(Ordering::SeqCst);
        if let Ok(mut seen) = patient.0.lock() {
            *seen = before + 1;
        }
        patient.1.notify_all();
        while patient.2.load(Ordering::SeqCst) == before {
            thread::yield_now();
        }
        same("a mutex that is held", unsafe { pthread_mutex_trylock(mutex.at()) }, BUSY)?;
        let (die, thread) = holder.take().ok_or("no holder")?;
        die.send(()).map_err(|e| e.to_string())?;
        thread.join().map_err(|_| "the holder panicked".to_owned())?;
        same("a mutex whose owner died", unsafe { pthread_mutex_lock(mutex.at()) }, OWNER_DIED)?;
        unsafe {
            pthread_mutex_consistent(mutex.at());
            pthread_mutex_unlock(mutex.at());
        }
        holder = Some(hold(&mutex));
        Ok(format!("round {count}"))
    }))
}

/// So many children, each with a socket to its parent; some lead sessions.
pub fn children(number: &str) -> Made {
    let number: usize = number.parse().map_err(io::Error::other)?;
    let mut children: Vec<(c_int, UnixStream)> = Vec::new();
    for at in 0..number {
        let (near, mut far) = UnixStream::pair()?;
        let pid = child(|| {
            // The parent's ends are not for it.
            children.clear();
            if at % 10 == 0 {
                unsafe { setsid() };
            }
            let mut line = [0; 8];
            while far.read_exact(&mut line).is_ok() && far.write_all(&line).is_ok() {}
        })?;
        children.push((pid, near));
    }
    Ok(Box::new(move || {
        for (pid, stream) in &mut children {
            let mut got = [0; 8];
            let asked = i64::from(*pid).to_ne_bytes();
            stream.write_all(&asked).and_then(|()| stream.read_exact(&mut got)).map_err(|e| format!("{pid}: {e}"))?;
            same("an answer", got, asked)?;
        }
        Ok(format!("{} children", children.len()))
    }))
}

/// A terminal with a session on it, which sends back each line; its size and its mode.
pub fn pty() -> Made {
    const UNLOCK: u64 = 0x4004_5431;
    const PEER: u64 = 0x5441;
    const CONTROL: u64 = 0x540e;
    const SET_SIZE: u64 = 0x5414;
    const GET_SIZE: u64 = 0x5413;
    const GET_GROUP: u64 = 0x540f;
    let wanted: [u16; 4] = [43, 132, 0, 0];
    const READ_WRITE: c_int = 0x102;
    let mut master = OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx")?;
    let locked = 0 as c_int;
    checked(unsafe { ioctl(master.as_raw_fd(), UNLOCK, &raw const locked) })?;
    let mut slave = file(unsafe { ioctl(master.as_raw_fd(), PEER, READ_WRITE) })?;
    checked(unsafe { ioctl(master.as_raw_fd(), SET_SIZE, &raw const wanted) })?;
    let (mut wait, mut tell) = io::pipe()?;
    let pid = child(move || {
        unsafe { setsid() };
        unsafe { ioctl(slave.as_raw_fd(), CONTROL, 0) };
        if tell.write_all(b"!").is_err() {
            return;
        }
        drop(tell);
        let mut line = [0; 64];
        while let Ok(length) = slave.read(&mut line) {
            // In capitals, to tell it from the terminal's own echo.
            line[..length].make_ascii_uppercase();
            if slave.write_all(&line[..length]).is_err() {
                break;
            }
        }
    })?;
    // Until the session has the terminal.
    wait.read_exact(&mut [0])?;
    let mut number = 0;
    let check: Check = Box::new(move || {
        number += 1;
        let mut size = [0_u16; 4];
        checked(unsafe { ioctl(master.as_raw_fd(), GET_SIZE, &raw mut size) }).map_err(said)?;
        same("the size", size, wanted)?;
        let mut group = 0 as c_int;
        checked(unsafe { ioctl(master.as_raw_fd(), GET_GROUP, &raw mut group) }).map_err(said)?;
        same("the group in the foreground", group, pid)?;
        // It speaks at once: before, there may be no reader yet.
        master.write_all(format!("line {number}\n").as_bytes()).map_err(said)?;
        let expected = format!("LINE {number}\r\n");
        let told = read_until(&mut master, &expected)?;
        ensure(told.contains(&format!("line {number}\r\n")), || format!("no echo: {told:?}"))?;
        Ok(format!("line {number}"))
    });
    Ok(check)
}

fn read_until(from: &mut File, expected: &str) -> Result<String, String> {
    let mut told = String::new();
    while !told.contains(expected) {
        let mut piece = [0; 256];
        let length = from.read(&mut piece).map_err(said)?;
        told += &String::from_utf8_lossy(&piece[..length]);
    }
    Ok(told)
}

/// prctl(2): what is read, and what was set. The speculation controls are the machine's to allow.
type Guard = (&'static str, [u64; 2], [u64; 3]);

#[rustfmt::skip]
const GUARDS: &[Guard] = &[
    ("PR_SET_MDWE", [66, 0], [65, 1, 0]), ("PR_SET_MEMORY_MERGE", [68, 0], [67, 1, 0]), ("PR_MCE_KILL", [34, 0], [33, 1, 1]),
    ("PR_SPEC_STORE_BYPASS", [52, 0], [53, 0, 8]), ("PR_SPEC_INDIRECT_BRANCH", [52, 1], [53, 1, 8]),
];

fn guards() -> [i64; GUARDS.len()] {
    std::array::from_fn(|at| unsafe { syscall(157, GUARDS[at].1[0], GUARDS[at].1[1], 0u64, 0u64, 0u64) })
}

/// A page that cannot be unmapped any more (mseal(2)); none on a kernel that has no such call.
fn sealed() -> Option<usize> {
    let page = unsafe { mmap(ptr::null_mut(), 4096, 1, 0x22, -1, 0) } as usize;
    (unsafe { syscall(462, page, 4096u64, 0u64) } == 0).then_some(page)
}

/// A segment of shared memory that goes with its last user; its number.
fn doomed() -> i64 {
    const IPC_RMID: u64 = 0;
    let segment = unsafe { syscall(29, 0u64, 4096u64, 0o600u64) };
    unsafe { syscall(30, segment, 0u64, 0u64) };
    unsafe { syscall(31, segment, IPC_RMID, 0u64) };
    segment
}

/// What only a process itself sets: in two processes, one with a thread.
pub fn guarded() -> Made {
    let (page, segment) = (sealed(), doomed());
    let before = guards();
    for (_, _, set) in GUARDS {
        unsafe { syscall(157, set[0], set[1], set[2], 0u64, 0u64) };
    }
    let set = guards();
    if set[..3].iter().zip(&before[..3]).any(|(set, before)| set == before) {
        return Err(std::io::Error::other(format!("{before:?} -> {set:?}")));
    }
    // A child inherits all of it, and writes what it finds.
    fs::write("child", "")?;
    child(|| {
        loop {
            let wrong = if guards() == set { "right".to_owned() } else { format!("{:?}", guards()) };
            let _ = fs::write("child.new", wrong).and_then(|()| fs::rename("child.new", "child"));
            thread::sleep(Duration::from_millis(10));
        }
    })?;
    let (ask, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<[i64; GUARDS.len()]>>();
    thread::spawn(move || asked.iter().for_each(|answer| answer.send(guards()).unwrap()));
    Ok(Box::new(move || {
        let writable_code = unsafe { mmap(ptr::null_mut(), 4096, 7, 0x22, -1, 0) };
        ensure(writable_code as isize == -1, || "memory may be written and executed".to_owned())?;
        let unmapped = page.map(|page| unsafe { syscall(11, page, 4096u64) });
        ensure(unmapped != Some(0), || "memory that was sealed could be unmapped".to_owned())?;
        let segments = fs::read_to_string("/proc/sysvipc/shm").map_err(|e| e.to_string())?;
        let is_doomed = segments.lines().any(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            words.next() == Some(&segment.to_string()) && words.next() == Some("1600")
        });
        ensure(is_doomed, || format!("segment {segment} outlives its last user: {segments}"))?;
        let (answer, told) = std::sync::mpsc::channel();
        ask.send(answer).map_err(|e| e.to_string())?;
        same("the thread's", told.recv().map_err(|e| e.to_string())?, set)?;
        same("the process's", guards(), set)?;
        // What it has written before may be from before.
        let _ = fs::remove_file("child");
        let mut seen = String::new();
        let started = Instant::now();
        while seen.is_empty() && started.elapsed() < Duration::from_secs(10) {
            seen = fs::read_to_string("child").unwrap_or_default();
            thread::sleep(Duration::from_millis(2));
        }
        same("the child's", seen.as_str(), "right")?;
        Ok(format!("{set:?}"))
    }))
}
