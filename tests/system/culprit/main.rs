//! Processes that have what CRIU cannot dump.
//!
//! `culprit serve` reads lines from the fifo `/tmp/culprit.in`: `make KIND [ARGUMENT]` starts a
//! process of its own session that makes it and waits for ever; `end` ends those processes and
//! cleans up. The answer to each is the file `/tmp/culprit`: `KIND PID`, `KIND unavailable: WHY`
//! where the kernel does not offer it here, or `ended`.
//!
//! A program of its own, static, for the container has no libraries.

mod unusual;

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::time::Duration;
use std::{env, process, ptr, thread};

#[rustfmt::skip]
unsafe extern "C" {
    fn unshare(flags: c_int) -> c_int;
    fn fork() -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: c_uint) -> c_int;
    fn bind(fd: c_int, address: *const c_void, length: c_uint) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: u64, data: *const c_char) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn ptrace(request: c_int, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn setsid() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn ioctl(fd: c_int, request: u64, ...) -> c_int;
    fn inotify_init1(flags: c_int) -> c_int;
    fn inotify_add_watch(fd: c_int, path: *const c_char, mask: c_uint) -> c_int;
}

/// Where it is talked to, and where it makes its files.
const DIR: &str = "/tmp";

/// Things that last as long as the process.
type Made = Result<(), io::Error>;

fn checked(result: impl Into<i64>) -> io::Result<c_int> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn namespace(flag: c_int) -> Made {
    checked(unsafe { unshare(flag) }).map(drop)
}

fn open_socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<c_int> {
    checked(unsafe { socket(domain, kind, protocol) })
}

/// bpf(2): the command and its attributes as bytes.
fn bpf(command: c_int, attributes: &[u64]) -> io::Result<c_int> {
    checked(unsafe { syscall(321, command, attributes.as_ptr(), attributes.len() * 8) })
}

/// Two instructions: r0 = 1; exit.
const PROGRAM: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

fn bpf_program(kind: u64) -> io::Result<c_int> {
    let license = text("GPL");
    bpf(5, &[kind | (PROGRAM.len() as u64) << 32, PROGRAM.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0])
}

fn write_file(path: &str, mebibytes: usize) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    for number in 0..mebibytes {
        file.write_all(&vec![number as u8 + 1; 1 << 20])?;
    }
    Ok(file)
}

fn node(path: &str, mode: c_uint, major: u64, minor: u64) -> io::Result<()> {
    let device = (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12;
    let _ = fs::remove_file(path);
    checked(unsafe { mknod(text(path).as_ptr(), mode | 0o600, device) }).map(drop)
}

fn mounted(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Made {
    fs::create_dir_all(target)?;
    let (source, target, kind, data) = (text(source), text(target), text(kind), text(data));
    checked(unsafe { mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr()) }).map(drop)
}

/// A new pair of terminals; the container may have no /dev/ptmx.
fn terminal() -> io::Result<(c_int, c_int)> {
    let master = OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx")?.into_raw_fd();
    let locked = 0 as c_int;
    checked(unsafe { ioctl(master, 0x4004_5431, &raw const locked) })?;
    // TIOCGPTPEER, O_RDWR | O_NOCTTY
    let slave = checked(unsafe { ioctl(master, 0x5441, 0x102 as c_int) })?;
    Ok((master, slave))
}

/// Keeps a file open for ever.
fn keep(file: impl IntoRawFd) {
    let _ = file.into_raw_fd();
}

/// No culprit: a connection within the container, whose round trips are counted in a file, and a
/// socket that listens at one address only.
fn tcp_within(address: &str) -> Made {
    let echo = |listener: TcpListener| {
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        })
    };
    echo(TcpListener::bind((address, 7007))?);
    // Of IPv6 all is at that address.
    let within = if address.contains(':') { address } else { "127.0.0.1" };
    let listener = TcpListener::bind((within, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    echo(listener);
    thread::spawn(move || -> Made {
        for number in 0_u64.. {
            stream.write_all(&number.to_le_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            fs::write(format!("{DIR}/within.new"), number.to_string())?;
            fs::rename(format!("{DIR}/within.new"), format!("{DIR}/within"))?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    });
    Ok(())
}

/// Has a thread do something and go on for ever.
fn in_a_thread(work: impl FnOnce() -> Made + Send + 'static) -> Made {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(work());
        loop {
            thread::park();
        }
    });
    told.recv().map_err(io::Error::other)?
}

fn make(kind: &str, argument: &str) -> Made {
    const STREAM: c_int = 1;
    const DATAGRAM: c_int = 2;
    const RAW: c_int = 3;
    // CRIU cannot have two deleted directories of one name.
    let gone = format!("{DIR}/gone-{kind}");
    match kind {
        "uts" => namespace(0x0400_0000),
        "ipc" => namespace(0x0800_0000),
        "user" => namespace(0x1000_0000),
        "net" => namespace(0x4000_0000),
        "mnt" => namespace(0x0002_0000),
        "cgroup" => namespace(0x0200_0000),
        "time-child" => {
            namespace(0x80)?;
            if checked(unsafe { fork() })? != 0 {
                loop {
                    thread::park();
                }
            }
            Ok(())
        }
        "pid" => {
            namespace(0x2000_0000)?;
            if checked(unsafe { fork() })? != 0 {
                loop {
                    thread::park();
                }
            }
            Ok(())
        }
        "packet-mmap" => {
            let fd = open_socket(17, RAW, 0x0300)?;
            let ring: [c_uint; 4] = [4096, 4, 2048, 8];
            checked(unsafe { setsockopt(fd, 263, 5, ring.as_ptr().cast(), 16) })?;
            let at = unsafe { mmap(ptr::null_mut(), 4 * 4096, 3, 1, fd, 0) };
            checked(at as i64).map(drop)
        }
        "raw" => open_socket(2, RAW, 1).map(drop),
        "raw6" => open_socket(10, RAW, 58).map(drop),
        "ping" => {
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 100")?;
            open_socket(2, DATAGRAM, 1).map(drop)
        }
        "mptcp" => open_socket(2, STREAM, 262).map(drop),
        "sctp" => open_socket(2, STREAM, 132).map(drop),
        "vsock" => open_socket(40, STREAM, 0).map(drop),
        "alg" => open_socket(38, 5, 0).map(drop),
        "xdp" => open_socket(44, RAW, 0).map(drop),
        "udplite" => open_socket(2, DATAGRAM, 136).map(drop),
        "in-flight" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            keep(TcpStream::connect(listener.local_addr()?)?);
            keep(listener);
            Ok(())
        }
        "tcp-within" => tcp_within(argument),
        "netlink-queue" => {
            let fd = open_socket(16, RAW, 0)?;
            let request: [u32; 8] = [20, 18 | 0x0301 << 16, 1, 0, 0, 0, 0, 0];
            let mut file = unsafe { File::from_raw_fd(fd) };
            file.write_all(unsafe { std::slice::from_raw_parts(request.as_ptr().cast(), 20) })?;
            keep(file);
            Ok(())
        }
        "credentials-queue" => {
            let (sender, receiver) = std::os::unix::net::UnixDatagram::pair()?;
            // SO_PASSCRED of SOL_SOCKET.
            let on: c_int = 1;
            checked(unsafe { setsockopt(receiver.as_raw_fd(), 1, 16, (&raw const on).cast(), 4) })?;
            sender.send(b"unread")?;
            keep(sender);
            keep(receiver);
            Ok(())
        }
        "netlink-generic" => open_socket(16, RAW, 16).map(drop),
        "uevent" => {
            let fd = open_socket(16, DATAGRAM, 15)?;
            let address: [u32; 3] = [16, 0, 1];
            checked(unsafe { bind(fd, address.as_ptr().cast(), 12) }).map(drop)
        }
        "unix-external" => {
            keep(std::os::unix::net::UnixStream::connect(argument)?);
            Ok(())
        }
        "unix-pair-half" => {
            let (one, other) = std::os::unix::net::UnixStream::pair()?;
            drop(other);
            keep(one);
            Ok(())
        }
        "unix-deleted" => {
            let listener = std::os::unix::net::UnixListener::bind("/tmp/deleted.sock")?;
            fs::remove_file("/tmp/deleted.sock")?;
            keep(listener);
            Ok(())
        }
        "bpf-prog" => bpf_program(1).map(drop),
        "bpf-map" => bpf(0, &[2 | 4 << 32, 4 | 4 << 32, 0, 0, 0, 0, 0, 0, 0]).map(drop),
        "io_uring" => {
            let parameters = [0u8; 120];
            checked(unsafe { syscall(425, 4, parameters.as_ptr()) }).map(drop)
        }
        "io_uring-mmap" => {
            let parameters = [0u8; 120];
            let fd = checked(unsafe { syscall(425, 4, parameters.as_ptr()) })?;
            let at = unsafe { mmap(ptr::null_mut(), 4096, 3, 1, fd, 0) };
            checked(at as i64).map(drop)
        }
        "aio" => {
            let mut context = 0u64;
            checked(unsafe { syscall(206, 16, &raw mut context) }).map(drop)
        }
        "perf" => {
            let mut attributes = [0u64; 16];
            attributes[0] = 1 | 128 << 32;
            checked(unsafe { syscall(298, attributes.as_ptr(), 0, -1, -1, 0) }).map(drop)
        }
        "userfaultfd" => checked(unsafe { syscall(323, 1) }).map(drop),
        "pidfd" => checked(unsafe { syscall(434, process::id(), 0) }).map(drop),
        "pidfd-dead" => {
            let child = process::Command::new("/bin/true").spawn()?;
            checked(unsafe { syscall(434, child.id(), 0) })?;
            let mut child = child;
            child.wait().map(drop)
        }
        "landlock" => {
            let attributes: [u64; 3] = [1, 0, 0];
            checked(unsafe { syscall(444, attributes.as_ptr(), 8, 0) }).map(drop)
        }
        "landlocked" => {
            let attributes: [u64; 3] = [1, 0, 0];
            let fd = checked(unsafe { syscall(444, attributes.as_ptr(), 8, 0) })?;
            checked(unsafe { prctl(38, 1u64, 0u64, 0u64, 0u64) })?;
            checked(unsafe { syscall(446, fd, 0) })?;
            drop(unsafe { File::from_raw_fd(fd) });
            Ok(())
        }
        "memfd-secret" => checked(unsafe { syscall(447, 0) }).map(drop),
        "fscontext" => checked(unsafe { syscall(430, text("tmpfs").as_ptr(), 0) }).map(drop),
        "fanotify" => checked(unsafe { syscall(300, 0, 0) }).map(drop),
        "seccomp-notify" => {
            // ld [0]; jeq #12345 (no such call) → user notification; else allow.
            let filter: [u64; 4] = [0x0000_0000_0000_0020, 0x0000_3039_0100_0015, 0x7fc0_0000_0000_0006, 0x7fff_0000_0000_0006];
            let program: (u16, *const u64) = (4, filter.as_ptr());
            checked(unsafe { prctl(38, 1u64, 0u64, 0u64, 0u64) })?;
            checked(unsafe { syscall(317, 1, 8, &raw const program) }).map(drop)
        }
        "seccomp" => {
            let filter: [u64; 1] = [0x7fff_0000_0000_0006];
            let program: (u16, *const u64) = (1, filter.as_ptr());
            checked(unsafe { prctl(38, 1u64, 0u64, 0u64, 0u64) })?;
            checked(unsafe { syscall(317, 1, 0, &raw const program) }).map(drop)
        }
        "device" => {
            let (major, minor) = argument.split_once(':').unwrap();
            let path = format!("/tmp/device-{argument}");
            node(&path, 0o020_000, major.parse().unwrap(), minor.parse().unwrap())?;
            keep(OpenOptions::new().read(true).open(path)?);
            Ok(())
        }
        "block" => {
            let (major, minor) = argument.split_once(':').unwrap();
            node("/tmp/device", 0o060_000, major.parse().unwrap(), minor.parse().unwrap())?;
            keep(OpenOptions::new().read(true).open("/tmp/device")?);
            Ok(())
        }
        "ghost" => {
            keep(write_file("/tmp/ghost", argument.parse().unwrap())?);
            fs::remove_file("/tmp/ghost")
        }
        "ghost-sparse" => {
            let file = write_file("/tmp/ghost", 1)?;
            file.set_len(argument.parse::<u64>().unwrap() << 20)?;
            keep(file);
            fs::remove_file("/tmp/ghost")
        }
        "ghost-mapped" => {
            let megabytes: usize = argument.parse().unwrap();
            let file = write_file("/tmp/ghost", megabytes)?;
            let at = unsafe { mmap(ptr::null_mut(), megabytes << 20, 1, 2, file.as_raw_fd(), 0) };
            checked(at as i64)?;
            fs::remove_file("/tmp/ghost")
        }
        "linked-ghost" => {
            keep(write_file("/tmp/ghost", 1)?);
            fs::hard_link("/tmp/ghost", "/tmp/other-name")?;
            fs::remove_file("/tmp/ghost")
        }
        "deleted-directory" => {
            fs::create_dir(&gone)?;
            keep(File::open(&gone)?);
            fs::remove_dir(&gone)
        }
        "deleted-cwd" => {
            fs::create_dir(&gone)?;
            env::set_current_dir(&gone)?;
            fs::remove_dir(&gone)
        }
        "chroot" => {
            fs::create_dir_all("/tmp/chroot")?;
            // Afterwards there is no place for the answer.
            answer(&format!("chroot {}", process::id()));
            std::os::unix::fs::chroot("/tmp/chroot")
        }
        "pty" | "pty-slave" | "pty-master" => {
            let (master, slave) = terminal()?;
            if kind == "pty-slave" {
                drop(unsafe { File::from_raw_fd(master) });
            }
            if kind == "pty-master" {
                drop(unsafe { File::from_raw_fd(slave) });
            }
            Ok(())
        }
        "ctty" => {
            let (_, slave) = terminal()?;
            if checked(unsafe { fork() })? != 0 {
                loop {
                    thread::park();
                }
            }
            checked(unsafe { setsid() })?;
            checked(unsafe { ioctl(slave, 0x540e, 0) })?;
            Ok(())
        }
        "open" => {
            keep(File::open(argument)?);
            Ok(())
        }
        "traced" => {
            let child = checked(unsafe { fork() })?;
            if child == 0 {
                loop {
                    thread::park();
                }
            }
            checked(unsafe { ptrace(0x4206, child, ptr::null_mut(), ptr::null_mut()) }).map(drop)
        }
        "dead-proc" => {
            let mut child = process::Command::new("/bin/cat").stdin(process::Stdio::piped()).spawn()?;
            keep(File::open(format!("/proc/{}/status", child.id()))?);
            child.kill()?;
            child.wait().map(drop)
        }
        "inotify-deleted" => {
            fs::write("/tmp/watched", "")?;
            let fd = checked(unsafe { inotify_init1(0) })?;
            keep(File::open("/tmp/watched")?);
            checked(unsafe { inotify_add_watch(fd, text("/tmp/watched").as_ptr(), 2) })?;
            fs::remove_file("/tmp/watched")
        }
        "tmpfs" => mounted("tmpfs", "/tmp/m-tmpfs", "tmpfs", 0, ""),
        "overlay-disk" => {
            for dir in ["/mnt/l", "/mnt/u", "/mnt/w"] {
                fs::create_dir_all(dir)?;
            }
            mounted("overlay", "/tmp/m", "overlay", 0, "lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w")
        }
        "fuse-mount-only" => {
            node("/tmp/fuse", 0o020_000, 10, 229)?;
            let file = OpenOptions::new().read(true).write(true).open("/tmp/fuse")?;
            let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", file.as_raw_fd());
            mounted("culprit", "/tmp/m", "fuse", 0, &data)
        }
        "mount" => mounted("none", &format!("/tmp/m-{argument}"), argument, 0, ""),
        "bind" => {
            fs::create_dir_all(&format!("/tmp/source-{kind}"))?;
            mounted(&format!("/tmp/source-{kind}"), &format!("/tmp/m-{kind}"), "", 4096, "")
        }
        "bind-deleted" => {
            fs::create_dir_all(&format!("/tmp/source-{kind}"))?;
            mounted(&format!("/tmp/source-{kind}"), &format!("/tmp/m-{kind}"), "", 4096, "")?;
            fs::remove_dir(&format!("/tmp/source-{kind}"))
        }
        "sharing" => {
            // As systemd gives units their own piece of /run/systemd/propagate: slaves of one group
            // with other roots.
            const BIND: u64 = 4096;
            const RECURSIVE: u64 = 16384;
            const SLAVE: u64 = 1 << 19;
            const SHARED: u64 = 1 << 20;
            fs::create_dir_all("/tmp/p/a")?;
            fs::create_dir_all("/tmp/p/b")?;
            mounted("/tmp/p", "/tmp/p", "", BIND, "")?;
            mounted("", "/tmp/p", "", SHARED, "")?;
            for piece in ["/tmp/p/a", "/tmp/p/b"] {
                if checked(unsafe { fork() })? == 0 {
                    namespace(0x0002_0000)?;
                    mounted("", "/", "", RECURSIVE | SLAVE, "")?;
                    mounted(piece, "/tmp/incoming", "", BIND, "")?;
                    checked(unsafe { umount2(text("/tmp/p").as_ptr(), 2) })?;
                    break;
                }
            }
            Ok(())
        }
        "overmounted" => {
            fs::create_dir_all("/tmp/m")?;
            fs::write("/tmp/m/file", "")?;
            keep(File::open("/tmp/m/file")?);
            mounted("tmpfs", "/tmp/m", "tmpfs", 0, "")
        }
        "overmounted-deleted" => {
            mounted("tmpfs", "/tmp/m", "tmpfs", 0, "")?;
            fs::write("/tmp/m/file", "")?;
            keep(File::open("/tmp/m/file")?);
            mounted("tmpfs", "/tmp/m", "tmpfs", 0, "")
        }
        "detached" => {
            mounted("tmpfs", "/tmp/m", "tmpfs", 0, "")?;
            fs::write("/tmp/m/file", "")?;
            keep(File::open("/tmp/m/file")?);
            checked(unsafe { syscall(166, text("/tmp/m").as_ptr(), 2) }).map(drop)
        }
        "mqueue" => checked(unsafe { syscall(240, text("culprit").as_ptr(), 0o102, 0o600, 0u64) }).map(drop),
        "thread-directory" => in_a_thread(|| {
            namespace(0x200)?;
            env::set_current_dir("/proc")
        }),
        "thread-umask" => in_a_thread(|| namespace(0x200)),
        "thread-files" => in_a_thread(|| {
            namespace(0x400)?;
            keep(File::open("/dev/null")?);
            Ok(())
        }),
        "thread-proc" => {
            let (tell, told) = std::sync::mpsc::channel();
            thread::spawn(move || {
                let _ = tell.send(unsafe { syscall(186) });
                loop {
                    thread::park();
                }
            });
            keep(File::open(format!("/proc/self/task/{}/stat", told.recv().map_err(io::Error::other)?))?);
            Ok(())
        }
        "headless" => {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(100));
                answer(&format!("headless {}", process::id()));
                loop {
                    thread::park();
                }
            });
            // exit(2) of this thread alone.
            unsafe { syscall(60, 0) };
            Ok(())
        }
        "epoll-shared" => {
            let epoll = checked(unsafe { syscall(291, 0) })?;
            let (mut reader, writer) = io::pipe()?;
            if checked(unsafe { fork() })? != 0 {
                drop(writer);
                return reader.read_to_end(&mut Vec::new()).map(drop);
            }
            for _ in 0..20 {
                keep(File::open("/dev/null")?);
            }
            let timer = checked(unsafe { syscall(283, 1, 0) })?;
            let event = [1_u32, timer.cast_unsigned(), 0];
            checked(unsafe { syscall(233, epoll, 1, timer, event.as_ptr()) })?;
            drop(writer);
            loop {
                thread::park();
            }
        }
        "unix-request" => {
            let listener = std::os::unix::net::UnixListener::bind("/tmp/request.sock")?;
            let mut client = std::os::unix::net::UnixStream::connect("/tmp/request.sock")?;
            client.write_all(b"request")?;
            keep(listener);
            keep(client);
            Ok(())
        }
        "nfqueue" => {
            let fd = open_socket(16, RAW, 12)?;
            let mut socket = unsafe { File::from_raw_fd(fd) };
            // struct nlmsghdr, struct nfgenmsg, and an attribute: bind queue 5.
            let message: [u8; 28] =
                [28, 0, 0, 0, 2, 3, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 8, 0, 1, 0, 1, 0, 0, 2];
            socket.write_all(&message)?;
            let mut answer = [0; 64];
            socket.read(&mut answer)?;
            let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            keep(socket);
            if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) }
        }
        _ => Err(io::Error::other("no such kind")),
    }
}

/// Says what has become of it. Under another name first, so that nobody reads half of it.
fn answer(text: &str) {
    let answered = fs::write(format!("{DIR}/culprit.new"), text);
    answered.and_then(|()| fs::rename(format!("{DIR}/culprit.new"), format!("{DIR}/culprit"))).unwrap();
}

/// Ends the processes and all of their sessions, and takes away what they left.
fn end(children: &mut Vec<process::Child>) {
    for mut child in children.drain(..) {
        unsafe { kill(-child.id().cast_signed(), 9) };
        let _ = child.wait();
    }
    for entry in fs::read_dir(DIR).unwrap().flatten() {
        let path = entry.path();
        let point = text(path.to_str().unwrap());
        // Until no mount is left on it.
        while unsafe { umount2(point.as_ptr(), 2) } == 0 {}
        if path.is_dir() {
            let _ = fs::remove_dir_all(path);
        } else if entry.file_name() != "culprit.in" {
            let _ = fs::remove_file(path);
        }
    }
}

fn serve() -> ! {
    let mut children = Vec::new();
    loop {
        // Each line comes from a writer of its own.
        for line in fs::read_to_string(format!("{DIR}/culprit.in")).unwrap().lines() {
            match line.strip_prefix("make ") {
                Some(rest) => {
                    let mut command = process::Command::new("/bin/culprit");
                    children.push(command.args(rest.split(' ')).spawn().unwrap());
                }
                None => {
                    end(&mut children);
                    answer("ended");
                }
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let kind = arguments.get(1).map_or("none", String::as_str);
    if kind == "serve" {
        serve();
    }
    unsafe { setsid() };
    if kind == "unusual" {
        unusual::run(|| answer(&format!("{kind} {}", process::id()))).unwrap();
        loop {
            thread::park();
        }
    }
    let argument = arguments.get(2).map_or("", String::as_str);
    match make(kind, argument) {
        Ok(()) if kind == "chroot" => {}
        Ok(()) => answer(&format!("{kind} {}", process::id())),
        Err(error) => answer(&format!("{kind} unavailable: {error}")),
    }
    loop {
        thread::park();
    }
}
