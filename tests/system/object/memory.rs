//! Memory: a process's own, huge pages, and what is shared.

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, ptr};

use crate::sys::{Made, checked, child, ensure, fcntl, file, getppid, grows, map, memfd_create, msgget, msgrcv, msgsnd, said, same, semctl, semget, shmat, shmget, text};

const SHARED: c_int = 0x1;
const PRIVATE: c_int = 0x2;
const ANONYMOUS: c_int = 0x20;
const HUGETLB: c_int = 0x40000;
const HUGE_PAGE: usize = 2 << 20;

/// Words that cannot be compressed; the same for the same seed.
fn fill(words: &mut [u64], seed: u64) {
    let mut state = seed | 1;
    for word in words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state;
    }
}

fn is_filled(words: &[u64], seed: u64) -> bool {
    let mut state = seed | 1;
    words.iter().all(|word| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word == state
    })
}

/// So many mebibytes.
pub fn ordinary(mebibytes: &str) -> Made {
    let mebibytes: usize = mebibytes.parse().map_err(io::Error::other)?;
    let words = map(mebibytes << 20, PRIVATE | ANONYMOUS, -1)?;
    fill(words, 7);
    Ok(Box::new(move || {
        ensure(is_filled(words, 7), || "other memory".to_owned())?;
        Ok(format!("{mebibytes} MiB"))
    }))
}

/// Pages of 2 MiB: of its own, shared, and of a memfd.
pub fn huge() -> Made {
    const MFD_HUGETLB: u32 = 4;
    let memfd = file(unsafe { memfd_create(text("huge").as_ptr(), MFD_HUGETLB) })?;
    memfd.set_len(HUGE_PAGE as u64)?;
    let pieces = [
        map(HUGE_PAGE, PRIVATE | ANONYMOUS | HUGETLB, -1)?,
        map(HUGE_PAGE, SHARED | ANONYMOUS | HUGETLB, -1)?,
        map(HUGE_PAGE, SHARED, memfd.as_raw_fd())?,
    ];
    let mut pieces: Vec<_> = pieces.into_iter().zip(1..).collect();
    for (piece, seed) in &mut pieces {
        fill(piece, *seed);
    }
    Ok(Box::new(move || {
        let wrong = pieces.iter().find(|(piece, seed)| !is_filled(piece, *seed));
        ensure(wrong.is_none(), || format!("other memory in piece {:?}", wrong.map(|w| w.1)))?;
        let smaps = fs::read_to_string("/proc/self/smaps").map_err(said)?;
        let huge = smaps.lines().filter(|l| l.starts_with("KernelPageSize:") && l.contains("2048 kB")).count();
        same("the number of mappings of huge pages", huge, pieces.len())?;
        same("the memfd's size", memfd.metadata().map_err(said)?.len(), HUGE_PAGE as u64)?;
        Ok(format!("{huge} mappings"))
    }))
}

/// Shared with a child: an anonymous mapping, a sealed memfd, a file in /dev/shm.
pub fn shared() -> Made {
    const LENGTH: usize = 1 << 20;
    const F_ADD_SEALS: c_int = 1033;
    const F_GET_SEALS: c_int = 1034;
    const SHRINK_AND_GROW: c_int = 2 | 4;
    const ALLOW_SEALING: u32 = 2;
    let memfd = file(unsafe { memfd_create(text("shared").as_ptr(), ALLOW_SEALING) })?;
    memfd.set_len(LENGTH as u64)?;
    checked(unsafe { fcntl(memfd.as_raw_fd(), F_ADD_SEALS, SHRINK_AND_GROW) })?;
    let path = "/dev/shm/object";
    let in_shm = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    in_shm.set_len(LENGTH as u64)?;
    let pieces = [
        map(LENGTH, SHARED | ANONYMOUS, -1)?,
        map(LENGTH, SHARED, memfd.as_raw_fd())?,
        map(LENGTH, SHARED, in_shm.as_raw_fd())?,
    ];
    let counters: Vec<_> = pieces.into_iter().map(|p| unsafe { AtomicU64::from_ptr(p.as_mut_ptr()) }).collect();
    let inherited = counters.clone();
    // The first word goes round: the child counts what the parent has counted.
    let parent = std::process::id().cast_signed();
    child(move || {
        while unsafe { getppid() } == parent {
            for counter in &inherited {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    })?;
    Ok(Box::new(move || {
        for (counter, what) in counters.iter().zip(["shared memory", "the memfd", "/dev/shm"]) {
            grows(what, || counter.load(Ordering::SeqCst))?;
        }
        same("the memfd's seals", unsafe { fcntl(memfd.as_raw_fd(), F_GET_SEALS) }, SHRINK_AND_GROW)?;
        ensure(memfd.set_len(1).is_err(), || "a sealed memfd can shrink".to_owned())?;
        Ok(String::new())
    }))
}

/// System V: a segment, a semaphore, a queue with a message in it; and a memfd that was only
/// written to.
pub fn sysv() -> Made {
    const CREATE: c_int = 0o1600;
    const PRIVATE_KEY: c_int = 0;
    const SETVAL: c_int = 16;
    const GETVAL: c_int = 12;
    let segment = checked(unsafe { shmget(PRIVATE_KEY, 1 << 20, CREATE) })?;
    let at = unsafe { shmat(segment, ptr::null(), 0) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    let words: &'static mut [u64] = unsafe { std::slice::from_raw_parts_mut(at.cast(), 1 << 17) };
    fill(words, 9);
    let semaphore = checked(unsafe { semget(PRIVATE_KEY, 1, CREATE) })?;
    checked(unsafe { semctl(semaphore, 0, SETVAL, 5) })?;
    let queue = checked(unsafe { msgget(PRIVATE_KEY, CREATE) })?;
    let mut sent = 1;
    let send = move |value: u64| checked(unsafe { msgsnd(queue, &[1, value], 8, 0) });
    send(sent)?;
    let mut memfd = file(unsafe { memfd_create(text("written").as_ptr(), 0) })?;
    memfd.write_all(b"written before")?;
    Ok(Box::new(move || {
        ensure(is_filled(words, 9), || "other memory in the segment".to_owned())?;
        same("the semaphore", unsafe { semctl(semaphore, 0, GETVAL) }, 5)?;
        let mut got = [0; 2];
        checked(unsafe { msgrcv(queue, &mut got, 8, 0, 0o4000) } as i64).map_err(|e| format!("the queue: {e}"))?;
        same("the message", got[1], sent)?;
        sent += 1;
        send(sent).map_err(said)?;
        let mut text = String::new();
        memfd.rewind().and_then(|()| memfd.read_to_string(&mut text)).map_err(said)?;
        same("what was written", text.as_str(), "written before")?;
        Ok(format!("message {sent}"))
    }))
}
