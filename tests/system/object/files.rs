//! Files: locked, deleted, FIFOs, and very many.

use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process;

use crate::sys::{Check, Made, checked, child, ensure, fcntl, flock, getrlimit, map, mkfifo, readable, said, same, setrlimit, text, waitpid};

/// struct flock: type and whence, start, length, pid.
type Range = [i64; 4];
const WRITE: i64 = 1;
const READ: i64 = 0;
const UNLOCKED: i64 = 2;

fn new_file(name: &str, content: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(name)?;
    file.write_all(content.as_bytes())?;
    Ok(file)
}

/// What another process finds out; `None` if it cannot say.
fn asked_by_another(question: impl FnOnce() -> i32) -> io::Result<i32> {
    let pid = child(|| process::exit(question()))?;
    let mut status = 0;
    checked(unsafe { waitpid(pid, &mut status, 0) })?;
    Ok(status >> 8 & 0xff)
}

/// flock(2), both sorts of fcntl(2), and a lease.
pub fn locks() -> Made {
    const SET: c_int = 6;
    const GET: c_int = 5;
    const SET_OPEN: c_int = 37;
    const GET_OPEN: c_int = 36;
    const SET_LEASE: c_int = 1024;
    const GET_LEASE: c_int = 1025;
    const EXCLUSIVE_NOW: c_int = 2 | 4;
    let whole = new_file("flock", "")?;
    checked(unsafe { flock(whole.as_raw_fd(), EXCLUSIVE_NOW) })?;
    let posix = new_file("posix", "")?;
    for range in [[WRITE, 0, 10, 0], [READ, 20, 10, 0]] {
        checked(unsafe { fcntl(posix.as_raw_fd(), SET, &raw const range) })?;
    }
    let open = new_file("open", "")?;
    let range: Range = [WRITE, 5, 5, 0];
    checked(unsafe { fcntl(open.as_raw_fd(), SET_OPEN, &raw const range) })?;
    drop(new_file("lease", "")?);
    let lease = File::open("lease")?;
    checked(unsafe { fcntl(lease.as_raw_fd(), SET_LEASE, READ as c_int) })?;
    Ok(Box::new(move || {
        let kept = [&whole, &posix, &open];
        let refused = asked_by_another(|| match OpenOptions::new().write(true).open("flock") {
            Ok(file) => unsafe { flock(file.as_raw_fd(), EXCLUSIVE_NOW) == -1 }.into(),
            Err(_) => 2,
        });
        same("whether flock is refused", refused.map_err(said)?, 1)?;
        // 1: a lock for writing is told, 0: for reading, 2: none; and whether it is ours.
        let owner = process::id() as i64;
        let told = |name: &'static str, command: c_int, start: i64, owner: i64| {
            asked_by_another(move || {
                let Ok(file) = OpenOptions::new().read(true).write(true).open(name) else { return 90 };
                let mut range: Range = [WRITE, start, 1, 0];
                if unsafe { fcntl(file.as_raw_fd(), command, &raw mut range) } < 0 {
                    return 91;
                }
                let kind = range[0] & 0xffff;
                if kind != UNLOCKED && i64::from(range[3] as i32) != owner { 92 } else { kind as i32 }
            })
            .map_err(said)
        };
        same("posix at 0", told("posix", GET, 0, owner)?, WRITE as i32)?;
        same("posix at 15", told("posix", GET, 15, owner)?, UNLOCKED as i32)?;
        same("posix at 20", told("posix", GET, 20, owner)?, READ as i32)?;
        same("OFD at 5", told("open", GET_OPEN, 5, -1)?, WRITE as i32)?;
        same("OFD at 0", told("open", GET_OPEN, 0, -1)?, UNLOCKED as i32)?;
        same("the lease", unsafe { fcntl(lease.as_raw_fd(), GET_LEASE) }, READ as c_int)?;
        Ok(format!("{} files", kept.len() + 1))
    }))
}

/// Without a name: plain, mapped, with another name left, in a deleted directory.
pub fn deleted() -> Made {
    let mut plain = new_file("plain", "plain")?;
    fs::remove_file("plain")?;
    let mapped = new_file("mapped", "")?;
    mapped.set_len(1 << 16)?;
    let words = map(1 << 16, 1, mapped.as_raw_fd())?;
    words.fill(0x5a5a);
    fs::remove_file("mapped")?;
    let mut linked = new_file("linked", "linked")?;
    fs::hard_link("linked", "other-name")?;
    fs::remove_file("linked")?;
    fs::create_dir("directory")?;
    let mut inside = new_file("directory/inside", "inside")?;
    fs::remove_file("directory/inside")?;
    let directory = File::open("directory")?;
    fs::remove_dir("directory")?;
    Ok(Box::new(move || {
        let read = |file: &mut File, expected: &str, links: u64| {
            let mut content = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut content)).map_err(said)?;
            same("content", content.as_str(), expected)?;
            same("links", file.metadata().map_err(said)?.nlink(), links)
        };
        read(&mut plain, "plain", 0)?;
        read(&mut inside, "inside", 0)?;
        read(&mut linked, "linked", 1)?;
        same("the other name", fs::read_to_string("other-name").map_err(said)?.as_str(), "linked")?;
        let same_file = fs::metadata("other-name").map_err(said)?.ino() == linked.metadata().map_err(said)?.ino();
        ensure(same_file, || "the other name is another file".to_owned())?;
        ensure(words.iter().all(|w| *w == 0x5a5a), || "other memory".to_owned())?;
        same("the links of the directory", directory.metadata().map_err(said)?.nlink(), 0)?;
        for name in ["plain", "mapped", "linked", "directory"] {
            ensure(fs::symlink_metadata(name).is_err(), || format!("{name} is there again"))?;
        }
        mapped.metadata().map_err(said)?;
        Ok(String::new())
    }))
}

/// With something in it: one with a name, and one without.
pub fn fifo() -> Made {
    let make = |name: &str| {
        checked(unsafe { mkfifo(text(name).as_ptr(), 0o600) })?;
        OpenOptions::new().read(true).write(true).open(name)
    };
    let mut named = make("named")?;
    let mut deleted = make("deleted")?;
    fs::remove_file("deleted")?;
    let mut number = 1_u64;
    for fifo in [&mut named, &mut deleted] {
        fifo.write_all(&number.to_ne_bytes())?;
    }
    Ok(Box::new(move || {
        for (fifo, what) in [(&mut named, "a FIFO"), (&mut deleted, "a deleted FIFO")] {
            ensure(readable(fifo.as_raw_fd()), || format!("{what} is empty"))?;
            let mut got = [0; 8];
            fifo.read_exact(&mut got).map_err(said)?;
            same(what, u64::from_ne_bytes(got), number)?;
            fifo.write_all(&(number + 1).to_ne_bytes()).map_err(said)?;
        }
        number += 1;
        Ok(format!("{number}"))
    }))
}

/// So many descriptors: files at an offset of their own, and pipes with something in them.
pub fn descriptors(number: &str) -> Made {
    const NOFILE: c_int = 7;
    let number: usize = number.parse().map_err(io::Error::other)?;
    let mut limit = [0; 2];
    checked(unsafe { getrlimit(NOFILE, &mut limit) })?;
    checked(unsafe { setrlimit(NOFILE, &[limit[1], limit[1]]) })?;
    let content = vec![b'x'; number];
    fs::write("content", &content)?;
    let mut files = Vec::new();
    let mut pipes = Vec::new();
    for at in 0..number / 3 {
        let mut file = File::open("content")?;
        file.seek(SeekFrom::Start(at as u64))?;
        files.push(file);
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&at.to_ne_bytes())?;
        pipes.push((reader, writer));
    }
    let check: Check = Box::new(move || {
        for (at, file) in files.iter_mut().enumerate() {
            same("an offset", file.stream_position().map_err(said)?, at as u64)?;
        }
        for (at, (reader, writer)) in pipes.iter_mut().enumerate() {
            ensure(readable(reader.as_raw_fd()), || format!("pipe {at} is empty"))?;
            let mut got = [0; 8];
            reader.read_exact(&mut got).map_err(said)?;
            same("a pipe", usize::from_ne_bytes(got), at)?;
            writer.write_all(&got).map_err(said)?;
        }
        let open = fs::read_dir("/proc/self/fd").map_err(said)?.count();
        ensure(open >= files.len() * 3, || format!("{open} descriptors are open"))?;
        Ok(format!("{open} descriptors"))
    });
    Ok(check)
}
