//! A container's init that does what it is told, and stays as it then is.
//!
//! `/plan` has a step a line: a verb and its arguments, `%XX` for bytes that would part them.
//! `task` begins another process, which does the steps up to the next `task`; what is opened stays
//! open. When all is done, `/answer` has a line for each step that failed, and `ready` as the last.
//! A line written to the fifo `/more` is another step, done by init; the answer to it follows in
//! `/answer`.
//!
//! A program of its own, static, for the container has no libraries.

use std::ffi::{CString, OsString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, chroot, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::ptr;

#[rustfmt::skip]
unsafe extern "C" {
    fn fork() -> c_int;
    fn pause() -> c_int;
    fn setsid() -> c_int;
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn mkfifo(path: *const c_char, mode: u32) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn prctl(option: c_int, value: *const c_char) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn inotify_init1(flags: c_int) -> c_int;
    fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int;
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn chmod(path: *const c_char, mode: u32) -> c_int;
}

const MS_BIND: c_ulong = 4096;
const MS_PRIVATE: c_ulong = 1 << 18;
const MS_REC: c_ulong = 16384;
const MNT_DETACH: c_int = 2;
const O_NONBLOCK: i32 = 0o4000;
const O_PATH: i32 = 0o10_000_000;
const PR_SET_NAME: c_int = 15;
const SIGCHLD: c_int = 17;
const SIG_IGN: usize = 1;

fn main() {
    let plan = fs::read("/plan").unwrap_or_default();
    let mut answer = match OpenOptions::new().create(true).append(true).open("/answer") {
        Ok(answer) => answer,
        Err(_) => return,
    };
    // Nobody waits for what ends.
    unsafe { signal(SIGCHLD, SIG_IGN) };
    // What is mounted here stays here.
    let _ = mounted("none", "/", MS_PRIVATE | MS_REC);
    let lines: Vec<&[u8]> = plan.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut tasks = lines.split(|line| *line == b"task");
    let own = tasks.next().unwrap_or_default();
    perform(own, &mut answer);
    for steps in tasks {
        // One after the other: the child says that it has come to its end.
        let (reader, writer) = match io::pipe() {
            Ok(ends) => ends,
            Err(_) => return,
        };
        if unsafe { fork() } == 0 {
            drop(reader);
            unsafe { setsid() };
            perform(steps, &mut answer);
            drop(writer);
            wait();
        }
        drop(writer);
        let _ = io::read_to_string(reader);
    }
    let _ = writeln!(answer, "ready");
    loop {
        let Ok(more) = File::open("/more") else { wait() };
        for line in BufReader::new(more).split(b'\n').map_while(Result::ok) {
            perform(&[&line], &mut answer);
            let _ = writeln!(answer, "ready");
        }
    }
}

fn wait() -> ! {
    loop {
        unsafe { pause() };
    }
}

fn perform(steps: &[&[u8]], answer: &mut File) {
    for step in steps {
        let words: Vec<OsString> = step.split(|byte| *byte == b' ').map(decode).collect();
        let verb = words.first().and_then(|word| word.to_str()).unwrap_or_default();
        let path = |number: usize| PathBuf::from(words.get(number).cloned().unwrap_or_default());
        if let Err(e) = one(verb, &path(1), &path(2)) {
            let _ = writeln!(answer, "{}: {e}", String::from_utf8_lossy(step));
        }
    }
}

fn decode(word: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn one(verb: &str, first: &PathBuf, second: &PathBuf) -> io::Result<()> {
    let c = |path: &PathBuf| CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other);
    match verb {
        "mkdir" => fs::create_dir_all(first),
        "rmdir" => fs::remove_dir(first),
        "unlink" => fs::remove_file(first),
        "rename" => fs::rename(first, second),
        "link" => fs::hard_link(first, second),
        "symlink" => symlink(first, second),
        "chmod" => done(unsafe { chmod(c(first)?.as_ptr(), 0o1777) }),
        // What is opened is never closed.
        "open" => keep(OpenOptions::new().read(true).open(first)?),
        "path" => keep(OpenOptions::new().read(true).custom_flags(O_PATH).open(first)?),
        "create" => {
            let mut file = OpenOptions::new().create(true).read(true).write(true).open(first)?;
            file.write_all(b"of the container\n")?;
            keep(file)
        }
        "map" => {
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(first)?;
            file.set_len(8192)?;
            let fd = file.into_raw_fd();
            // Read and write, shared.
            let mapped = unsafe { mmap(ptr::null_mut(), 8192, 3, 1, fd, 0) };
            if mapped.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
        "fifo" => {
            done(unsafe { mkfifo(c(first)?.as_ptr(), 0o644) })?;
            keep(OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(first)?)
        }
        // /dev/null, by another name.
        "device" => {
            done(unsafe { mknod(c(first)?.as_ptr(), 0o20666, 0x103) })?;
            keep(OpenOptions::new().read(true).write(true).open(first)?)
        }
        "stream" => Ok(std::mem::forget(UnixListener::bind(first)?)),
        "datagram" => Ok(std::mem::forget(UnixDatagram::bind(first)?)),
        "watch" => {
            let fd = unsafe { inotify_init1(0) };
            done(unsafe { inotify_add_watch(fd, c(first)?.as_ptr(), 0xfff) }.min(0))
        }
        "bind" => mounted_from(&c(first)?, &c(second)?, MS_BIND),
        "tmpfs" => {
            let (source, target) = (CString::default(), c(first)?);
            let kind = c"tmpfs".as_ptr();
            done(unsafe { mount(source.as_ptr(), target.as_ptr(), kind, 0, ptr::null()) })
        }
        "umount" => done(unsafe { umount2(c(first)?.as_ptr(), MNT_DETACH) }),
        "cd" => std::env::set_current_dir(first),
        "chroot" => chroot(first).and_then(|()| std::env::set_current_dir("/")),
        "name" => done(unsafe { prctl(PR_SET_NAME, c(first)?.as_ptr()) }),
        _ => Err(io::Error::other("no such verb")),
    }
}

fn keep(file: File) -> io::Result<()> {
    file.into_raw_fd();
    Ok(())
}

fn mounted(source: &str, target: &str, flags: c_ulong) -> io::Result<()> {
    let (source, target) = (CString::new(source)?, CString::new(target)?);
    mounted_from(&source, &target, flags)
}

fn mounted_from(source: &CString, target: &CString, flags: c_ulong) -> io::Result<()> {
    done(unsafe { mount(source.as_ptr(), target.as_ptr(), ptr::null(), flags, ptr::null()) })
}

fn done(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
