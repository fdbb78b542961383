//! A process that has all kinds of states and, once `/tmp/unusual.go` is there, changes each of
//! them, or those of the groups that the file names.

use std::ffi::{CString, c_int, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use std::thread;

#[rustfmt::skip]
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn raise(number: c_int) -> c_int;
    fn kill(pid: c_int, number: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: u32) -> c_int;
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn madvise(at: *mut c_void, length: usize, advice: c_int) -> c_int;
    fn mprotect(at: *mut c_void, length: usize, protection: c_int) -> c_int;
    fn mlock(at: *const c_void, length: usize) -> c_int;
    fn umask(mask: u32) -> u32;
    fn flock(fd: c_int, how: c_int) -> c_int;
    fn lseek(fd: c_int, to: i64, from: c_int) -> i64;
    fn fchmod(fd: c_int, mode: u32) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
    fn shmget(key: c_int, size: usize, flags: c_int) -> c_int;
    fn shmctl(id: c_int, command: c_int, buffer: *mut c_void) -> c_int;
    fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void;
    fn semget(key: c_int, count: c_int, flags: c_int) -> c_int;
    fn semctl(id: c_int, number: c_int, command: c_int, ...) -> c_int;
    fn msgget(key: c_int, flags: c_int) -> c_int;
    fn msgsnd(id: c_int, message: *const c_void, length: usize, flags: c_int) -> c_int;
    fn setgroups(count: usize, groups: *const u32) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setpriority(which: c_int, who: u32, nice: c_int) -> c_int;
    fn sched_setaffinity(pid: c_int, size: usize, mask: *const c_void) -> c_int;
    fn personality(persona: u64) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setitimer(which: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut [u64; 2]) -> c_int;
    fn setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
}

const NOTHING: *mut c_void = std::ptr::null_mut();
const PAGE: usize = 4096;

/// What the process has before and changes later.
struct Things {
    file: File,
    pipe: (OwnedFd, OwnedFd),
    memory: OwnedFd,
    event: c_int,
    epoll: c_int,
    signals: c_int,
    timer: c_int,
    inotify: c_int,
    tcp: TcpListener,
    udp: UdpSocket,
    udp6: UdpSocket,
    pages: *mut u8,
    ids: [c_int; 3],
}

fn call(number: c_long, arguments: &[i64]) -> c_int {
    let argument = |at: usize| arguments.get(at).copied().unwrap_or_default();
    let result = unsafe { syscall(number, argument(0), argument(1), argument(2), argument(3), argument(4), argument(5)) };
    result as c_int
}

fn make() -> io::Result<Things> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open("/tmp/unusual.file")?;
    let (from, to) = io::pipe()?;
    let name = CString::new("unusual").unwrap();
    let memory = call(319, &[name.as_ptr() as i64, 2]);
    let mask = 0x100u64;
    let pages = unsafe { mmap(NOTHING, 40 * PAGE, 0, 0x22, -1, 0) }.cast::<u8>();
    for number in 0..20 {
        // Between each two there is one that cannot be accessed: they are areas of their own.
        let at = pages.wrapping_add(2 * number * PAGE);
        unsafe { mprotect(at.cast(), PAGE, 3) };
    }
    Ok(Things {
        file,
        pipe: (from.into(), to.into()),
        memory: unsafe { OwnedFd::from_raw_fd(memory) },
        event: call(290, &[1, 0]),
        epoll: call(291, &[0]),
        signals: call(289, &[-1, (&raw const mask) as i64, 8, 0]),
        timer: call(283, &[1, 0]),
        inotify: call(294, &[0]),
        tcp: TcpListener::bind("127.0.0.1:7171")?,
        udp: UdpSocket::bind("127.0.0.1:7172")?,
        udp6: UdpSocket::bind("[::1]:7173")?,
        pages,
        ids: unsafe { [shmget(0x7171, PAGE, 0o1600), semget(0x7172, 1, 0o1600), msgget(0x7173, 0o1600)] },
    })
}

/// Makes everything, says so, and changes it at the sign.
pub fn run(made: impl FnOnce()) -> io::Result<()> {
    let things = make()?;
    unsafe { shmat(things.ids[0], NOTHING, 0) };
    made();
    while !Path::new("/tmp/unusual.go").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    let groups = fs::read_to_string("/tmp/unusual.go")?;
    let is_asked = |group: &str| groups.is_empty() || groups.split_whitespace().any(|asked| asked == group);
    let changes: &[(&str, &dyn Fn())] = &[
        ("descriptors", &|| descriptors(&things)),
        ("sockets", &|| sockets(&things)),
        ("memory", &|| memory(&things)),
        ("objects", &|| objects(&things)),
        ("process", &process),
        ("hostname", &host_name),
        ("users", &users),
        ("confinement", &confinement),
    ];
    for (_, change) in changes.iter().filter(|(group, _)| is_asked(group)) {
        change();
    }
    fs::write("/tmp/unusual.done", "")?;
    std::mem::forget(things);
    Ok(())
}

fn descriptors(things: &Things) {
    let file = things.file.as_raw_fd();
    unsafe {
        lseek(file, 7, 0);
        flock(file, 2);
        fchmod(file, 0o4711);
        fcntl(file, 2, 0);
        let (from, to) = (things.pipe.0.as_raw_fd(), things.pipe.1.as_raw_fd());
        fcntl(from, 1031, 1 << 17);
        fcntl(from, 8, std::process::id() as c_int);
        fcntl(from, 10, 34);
        fcntl(from, 4, 0o4000);
        write(to, c"unread".as_ptr().cast(), 6);
        fcntl(things.memory.as_raw_fd(), 1033, 2);
        write(things.event, (&raw const ONE).cast(), 8);
    }
    let event = [1u32, 0, 0];
    call(233, &[i64::from(things.epoll), 1, i64::from(from_of(things)), (&raw const event) as i64]);
    let mask = 0x200u64;
    call(289, &[i64::from(things.signals), (&raw const mask) as i64, 8, 0]);
    let every = [50i64, 0, 50, 0];
    call(286, &[i64::from(things.timer), 0, every.as_ptr() as i64, 0]);
    let path = CString::new("/tmp").unwrap();
    call(254, &[i64::from(things.inotify), path.as_ptr() as i64, 2]);
}

static ONE: u64 = 1;

fn from_of(things: &Things) -> c_int {
    things.pipe.0.as_raw_fd()
}

fn sockets(things: &Things) {
    let (tcp, udp, udp6) = (things.tcp.as_raw_fd(), things.udp.as_raw_fd(), things.udp6.as_raw_fd());
    let options: &[(c_int, c_int, c_int, c_int)] = &[
        (tcp, 1, 9, 1),
        (tcp, 1, 12, 5),
        (tcp, 6, 4, 77),
        (tcp, 6, 5, 7),
        (tcp, 6, 6, 3),
        (tcp, 6, 18, 45_000),
        (tcp, 6, 9, 7),
        (tcp, 6, 7, 3),
        (tcp, 6, 23, 16),
        (udp, 0, 1, 0x10),
        (udp, 0, 2, 33),
        (udp, 0, 8, 1),
        (udp, 0, 12, 1),
        (udp, 0, 13, 1),
        (udp, 0, 15, 1),
        (udp, 0, 21, 5),
        (udp, 0, 33, 9),
        (udp, 0, 34, 0),
        (udp, 0, 49, 0),
        (udp, 1, 35, 1),
        (udp, 1, 44, 1),
        (udp, 1, 6, 1),
        (udp6, 41, 16, 44),
        (udp6, 41, 18, 12),
        (udp6, 41, 49, 1),
        (udp6, 41, 51, 1),
        (udp6, 41, 67, 8),
        (udp6, 41, 73, 6),
    ];
    for (fd, level, option, value) in options {
        unsafe { setsockopt(*fd, *level, *option, std::ptr::from_ref(value).cast(), 4) };
    }
    // All packets.
    let instruction = 0xffff_0000_0000_0006_u64;
    let program = [1u64, (&raw const instruction) as u64];
    unsafe { setsockopt(udp6, 1, 26, program.as_ptr().cast(), 16) };
}

fn memory(things: &Things) {
    let page = |number: usize| things.pages.wrapping_add(2 * number * PAGE).cast::<c_void>();
    unsafe {
        mprotect(page(0), PAGE, 7);
        mlock(page(1), PAGE);
        // DONTFORK, DONTDUMP, HUGEPAGE, MERGEABLE, RANDOM.
        for (number, advice) in [(2, 10), (3, 16), (4, 14), (5, 12), (6, 1)] {
            madvise(page(number), PAGE, advice);
        }
    }
    call(462, &[page(7) as i64, PAGE as i64, 0]);
}

fn objects(things: &Things) {
    let [shm, sem, msg] = things.ids;
    let message = [1i64, 0];
    unsafe {
        semctl(sem, 0, 16, 3);
        msgsnd(msg, message.as_ptr().cast(), 8, 0);
        shmctl(shm, 0, NOTHING);
    }
}

fn process() {
    let write = |file: &str, value: &str| fs::write(format!("/proc/self/{file}"), value);
    let _ = (write("oom_score_adj", "55"), write("coredump_filter", "7"));
    for resource in 0..16 {
        let mut limit = [0u64; 2];
        unsafe {
            getrlimit(resource, &raw mut limit);
            limit[0] = if limit[0] == u64::MAX { 1 << 40 } else { limit[0].saturating_sub(1) };
            setrlimit(resource, &raw const limit);
        }
    }
    let mask = [1u64; 1];
    let blocked = 1u64 << 9 | 1 << 0;
    let (stack, alarm) = ([0u64; 1024], [0i64, 0, 1000, 0]);
    let alternative = [stack.as_ptr() as u64, 0, 8192];
    std::mem::forget(Box::new(stack));
    unsafe {
        umask(0o77);
        signal(12, 1);
        signal(15, caught as *const () as usize);
        syscall(14, 0, &raw const blocked, NOTHING, 8i64);
        raise(10);
        kill(std::process::id() as c_int, 1);
        setpriority(0, 0, 5);
        sched_setaffinity(0, 8, mask.as_ptr().cast());
        personality(0x0004_0000);
        prctl(15, c"unusual".as_ptr());
        prctl(29, 77_777);
        prctl(33, 1, 1, 0, 0);
        prctl(36, 1, 0, 0, 0);
        prctl(1, 10, 0, 0, 0);
        prctl(41, 1, 0, 0, 0);
        prctl(67, 1, 0, 0, 0);
        syscall(251, 1, 0, 3i64 << 13);
        syscall(131, alternative.as_ptr(), NOTHING);
        for which in 0..3 {
            setitimer(which, &raw const alarm, std::ptr::null_mut());
        }
        // A key in the thread's own keyring.
        syscall(248, c"user".as_ptr(), c"unusual".as_ptr(), c"x".as_ptr(), 1i64, -1i64);
    }
    // 48 bytes; SCHED_BATCH; not for children; nice 5.
    let attributes = [48u64 | 3 << 32, 1, 5, 0, 0, 0];
    call(314, &[0, attributes.as_ptr() as i64, 0]);
}

fn host_name() {
    unsafe { unshare(0x0400_0000) };
}

extern "C" fn caught(_: c_int) {}

fn users() {
    let groups = [7u32, 8];
    unsafe {
        setgroups(2, groups.as_ptr());
        setresgid(0, 0, 5);
        setresuid(0, 0, 6);
    }
}

fn confinement() {
    let header = [0x2008_0522u32, 0];
    let mut sets = [0u32; 6];
    let allow = 0x7fff_0000_0000_0006u64;
    let filter = [1u64, (&raw const allow) as u64];
    let _ = std::env::set_current_dir("/tmp");
    unsafe {
        prctl(24, 25, 0, 0, 0);
        prctl(28, 4, 0, 0, 0);
        // It gives up CAP_SYS_TIME, and CAP_CHOWN becomes inheritable.
        syscall(125, header.as_ptr(), sets.as_mut_ptr());
        sets = [sets[0] & !(1 << 25), sets[1] & !(1 << 25), 1, sets[3], sets[4], 0];
        syscall(126, header.as_ptr(), sets.as_ptr());
        prctl(47, 2, 0, 0, 0);
        prctl(38, 1, 0, 0, 0);
        prctl(53, 0, 8, 0, 0);
        prctl(65, 1, 0, 0, 0);
        prctl(22, 2, filter.as_ptr());
        prctl(4, 0, 0, 0, 0);
    }
}
