//! A service that uses what a checkpoint must carry over, and says on request how all of it does.
//!
//! Built by `rustc` alone into one static program: it runs in a container that has no library. A
//! line `status` is answered with lines `key=value` and a line `end`; any other line comes back as
//! it is.

mod probe;

use std::env;
use std::ffi::{c_int, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Where it listens.
const PORT: u16 = 7000;
/// Held with flock(2).
const FLOCK: &str = "/var/flock";
/// Held with fcntl(2), a POSIX lock.
const POSIX_LOCK: &str = "/var/posix-lock";
/// A counter mapped by two processes.
const SHARED: &str = "/dev/shm/witness";
/// Created, filled, and removed while it stays open.
const DELETED: &str = "/var/deleted";
/// Larger than a pipe or a page.
const DELETED_SIZE: usize = 100_000;

const COUNT_EVERY: Duration = Duration::from_millis(10);
const TICK_NS: c_long = 20_000_000;

#[repr(C)]
struct Flock {
    kind: i16,
    whence: i16,
    start: i64,
    length: i64,
    pid: c_int,
}

#[repr(C)]
struct ItimerSpec {
    interval: [c_long; 2],
    value: [c_long; 2],
}

unsafe extern "C" {
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn fcntl(fd: c_int, command: c_int, lock: *mut Flock) -> c_int;
    fn timerfd_create(clock: c_int, flags: c_int) -> c_int;
    fn timerfd_settime(fd: c_int, flags: c_int, new: *const ItimerSpec, old: *mut ItimerSpec) -> c_int;
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The counter in shared memory.
fn shared_counter() -> io::Result<&'static AtomicU64> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(SHARED)?;
    file.set_len(4096)?;
    // SAFETY: a new mapping (PROT_READ|PROT_WRITE, MAP_SHARED) of a file of that length, which
    // nothing unmaps.
    let at = unsafe { mmap(std::ptr::null_mut(), 4096, 3, 1, file.as_raw_fd(), 0) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, mapped for ever, and only used as this atomic by both processes.
    Ok(unsafe { &*at.cast::<AtomicU64>() })
}

/// Sets (F_SETLK) or asks for (F_GETLK) a write lock on the whole file.
fn posix_lock(file: &File, command: c_int) -> io::Result<Flock> {
    let mut lock = Flock { kind: 1, whence: 0, start: 0, length: 0, pid: 0 };
    // SAFETY: an open descriptor and a structure laid out as the C library's on 64-bit Linux.
    checked(unsafe { fcntl(file.as_raw_fd(), command, &mut lock) })?;
    Ok(lock)
}

/// A file that can be read every `TICK_NS`.
fn timer() -> io::Result<File> {
    let spec = ItimerSpec { interval: [0, TICK_NS], value: [0, TICK_NS] };
    // SAFETY: CLOCK_MONOTONIC, no flags; the descriptor is new and owned by the file from here on.
    let file = unsafe { File::from_raw_fd(checked(timerfd_create(1, 0))?) };
    // SAFETY: the structure lives through the call and is laid out as the kernel's.
    checked(unsafe { timerfd_settime(file.as_raw_fd(), 0, &spec, std::ptr::null_mut()) })?;
    Ok(file)
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Memory that no page looks like another of.
fn incompressible(mebibytes: usize) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..mebibytes << 17).map(next).collect()
}

#[derive(Debug)]
struct Service {
    started: Instant,
    counter: AtomicU64,
    ticks: AtomicU64,
    round_trips: AtomicU64,
    wrong_answers: AtomicU64,
    shared: &'static AtomicU64,
    flock: File,
    posix: File,
    deleted: File,
    log: UnixDatagram,
    memory: Vec<u64>,
}

impl Service {
    fn start(mebibytes: usize) -> io::Result<Arc<Service>> {
        let create = |path| OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let (flock, posix, deleted) = (create(FLOCK)?, create(POSIX_LOCK)?, create(DELETED)?);
        flock.try_lock()?;
        posix_lock(&posix, 6)?;
        let content: Vec<u8> = (0..DELETED_SIZE).map(|i| (i * 7 % 251) as u8).collect();
        deleted.write_all_at(&content, 0)?;
        fs::remove_file(DELETED)?;
        let log = UnixDatagram::unbound()?;
        // syslogd is started beside us.
        while log.connect("/dev/log").is_err() {
            thread::sleep(COUNT_EVERY);
        }
        let zero = AtomicU64::default;
        let service = Arc::new(Service {
            started: Instant::now(),
            counter: zero(),
            ticks: zero(),
            round_trips: zero(),
            wrong_answers: zero(),
            shared: shared_counter()?,
            flock,
            posix,
            deleted,
            log,
            memory: incompressible(mebibytes),
        });
        let counting = service.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(COUNT_EVERY);
                counting.counter.fetch_add(1, SeqCst);
            }
        });
        let (ticking, mut timer) = (service.clone(), timer()?);
        thread::spawn(move || {
            let mut expirations = [0; 8];
            while timer.read_exact(&mut expirations).is_ok() {
                ticking.ticks.fetch_add(u64::from_ne_bytes(expirations), SeqCst);
            }
        });
        service.clone().play_ball()?;
        Ok(service)
    }

    /// Bytes go to another process and back through two pipes; that process counts them in the
    /// shared memory.
    fn play_ball(self: Arc<Self>) -> io::Result<()> {
        let mut partner = Command::new(env::current_exe()?).arg("--partner").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (mut out, mut back) = (partner.stdin.take().unwrap(), partner.stdout.take().unwrap());
        thread::spawn(move || {
            let mut ball = [0];
            loop {
                thread::sleep(COUNT_EVERY);
                let sent = ball[0];
                if out.write_all(&ball).and_then(|()| back.read_exact(&mut ball)).is_err() {
                    return;
                }
                if ball[0] != sent.wrapping_add(1) {
                    self.wrong_answers.fetch_add(1, SeqCst);
                }
                self.round_trips.fetch_add(1, SeqCst);
            }
        });
        Ok(())
    }

    /// Whether another process finds both locks held, the POSIX one by us.
    fn locks(&self) -> io::Result<String> {
        let found = Command::new(env::current_exe()?).arg("--locks").output()?;
        Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
    }

    fn status(&self) -> io::Result<String> {
        let proc_status = fs::read_to_string("/proc/self/status")?;
        let threads = proc_status.lines().find_map(|l| l.strip_prefix("Threads:")).unwrap_or("").trim();
        let mut content = vec![0; DELETED_SIZE];
        self.deleted.read_exact_at(&mut content, 0)?;
        let links = fs::read_link(format!("/proc/self/fd/{}", self.deleted.as_raw_fd()))?;
        let sum = self.memory.iter().fold(0_u64, |sum, word| sum.rotate_left(1).wrapping_add(*word));
        let elapsed = self.started.elapsed().as_millis();
        let sent = self.log.send(format!("<13>witness: status at {elapsed}").as_bytes());
        let lines = [
            ("pid", std::process::id().to_string()),
            ("threads", threads.to_owned()),
            ("counter", self.counter.load(SeqCst).to_string()),
            ("elapsed_ms", elapsed.to_string()),
            ("ticks", self.ticks.load(SeqCst).to_string()),
            ("round_trips", self.round_trips.load(SeqCst).to_string()),
            ("wrong_answers", self.wrong_answers.load(SeqCst).to_string()),
            ("shared", self.shared.load(SeqCst).to_string()),
            ("locks", self.locks()?),
            ("lock_fds", format!("{},{}", self.flock.as_raw_fd(), self.posix.as_raw_fd())),
            ("deleted", format!("{:x}", hash(&content))),
            ("deleted_is_gone", (!links.exists()).to_string()),
            ("memory", format!("{}:{sum:x}", self.memory.len() >> 17)),
            ("syslog", sent.map_or_else(|e| e.to_string(), |_| "ok".to_owned())),
        ];
        Ok(lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>() + "end\n")
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut answers = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let answer = match line.as_str() {
                "status" => self.status().unwrap_or_else(|e| format!("error={e}\nend\n")),
                "probe" => probe::all(),
                _ => line + "\n",
            };
            answers.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

fn partner() -> io::Result<()> {
    let shared = shared_counter()?;
    let mut ball = [0];
    while io::stdin().read_exact(&mut ball).is_ok() {
        shared.fetch_add(1, SeqCst);
        io::stdout().write_all(&[ball[0].wrapping_add(1)])?;
        io::stdout().flush()?;
    }
    Ok(())
}

/// Tells how another process sees the locks.
fn locks() -> io::Result<()> {
    let flock = if File::open(FLOCK)?.try_lock().is_err() { "held" } else { "free" };
    // 2 is F_UNLCK: nobody holds it.
    let posix = posix_lock(&OpenOptions::new().read(true).write(true).open(POSIX_LOCK)?, 5)?;
    let posix = if posix.kind == 2 { "free".to_owned() } else { format!("held by {}", posix.pid) };
    println!("flock {flock}, posix {posix}");
    Ok(())
}

fn main() -> io::Result<()> {
    let argument = env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "--partner" => return partner(),
        "--locks" => return locks(),
        _ => {}
    }
    let service = Service::start(argument.parse().unwrap_or(0))?;
    for stream in TcpListener::bind(("0.0.0.0", PORT))?.incoming() {
        let (service, stream) = (service.clone(), stream?);
        thread::spawn(move || service.serve(stream));
    }
    Ok(())
}
