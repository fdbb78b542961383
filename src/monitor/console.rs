//! The console and the ttys of a restored container: the monitor holds the ends at which a user
//! sits.
//!
//! As in liblxc (terminal.c), a tty's end is handed out as it is. The console has one of its own
//! for whoever asks, and the monitor passes on what goes through: it also goes to the log and to
//! the ring buffer, and is read even when nobody asks, so that a container that writes to its
//! console never has to wait.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::OFlags;

use crate::lxc::config::{Config, Console};
use crate::lxc::protocol::ConsoleLog;
use crate::resources::terminals::Terminal;
use crate::sys::files;
use crate::sys::path_trust::{self, Guest};
use crate::sys::pty::{self, Pty};

/// The console's number; the ttys count from 1.
const CONSOLE: i32 = 0;
/// Read at once, in bytes.
const PIECE: usize = 4096;
/// Pieces that are passed on before the monitor's loop has its turn again.
const PIECES: usize = 16;

/// A container's terminals.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    ttys: Vec<Terminal>,
    console: Option<Terminal>,
    peer: Option<Peer>,
    log: Option<Log>,
    ring: Ring,
}

/// Who is at the console.
#[derive(Debug)]
enum Peer {
    /// A client of the command socket, which has the master of this pty.
    Client(Pty),
    /// The terminal that `lxc.console.path` names, with the settings it had.
    Fixed(OwnedFd, pty::Settings),
}

impl Peer {
    fn end(&self) -> BorrowedFd<'_> {
        match self {
            Peer::Client(pty) => pty.slave.as_fd(),
            Peer::Fixed(fd, _) => fd.as_fd(),
        }
    }
}

impl Terminals {
    /// Begins to serve them.
    pub(super) fn new(terminals: Vec<Terminal>, config: &Config) -> Terminals {
        let (mut consoles, ttys): (Vec<_>, Vec<_>) =
            terminals.into_iter().partition(|t| t.tty.number == 0);
        let mut all = Terminals { ttys, console: consoles.pop(), ..Terminals::default() };
        if all.console.is_some() {
            all.ring = Ring::new(config.console_buffer_size());
            all.log = config.console_logfile().and_then(|path| told(path, Log::open(path, config)));
            if let Console::Path(path) = config.console_path() {
                all.peer = told(path, fixed_peer(path));
                all.take_window_size();
            }
        }
        all
    }

    /// How many ttys there are.
    pub(super) fn count(&self) -> i32 {
        self.ttys.iter().filter_map(|t| i32::try_from(t.tty.number).ok()).max().unwrap_or(0)
    }

    /// What is to be watched for reading.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let console = self.console.as_ref().map(|c| c.pty.master.as_fd());
        console.into_iter().chain(self.peer.as_ref().map(Peer::end))
    }

    /// Passes on what has come.
    pub(super) fn pass_on(&mut self) {
        let Some(console) = &self.console else { return };
        let mut bytes = [0; PIECE];
        for _ in 0..PIECES {
            let Ok(Some(piece)) = read(console.pty.master.as_fd(), &mut bytes) else { break };
            if let Some(peer) = &self.peer {
                write(peer.end(), piece);
            }
            self.ring.push(piece);
            if let Some(Err(e)) = self.log.as_mut().map(|l| l.write(piece)) {
                log::debug!("write the console's log: {e}");
            }
        }
        for _ in 0..PIECES {
            match self.peer.as_ref().map(|p| read(p.end(), &mut bytes)) {
                Some(Ok(Some(piece))) => {
                    // lxc-console sizes the window of what it was given, and says nothing.
                    self.take_window_size();
                    write(console.pty.master.as_fd(), piece);
                }
                Some(Err(_)) => self.peer = None,
                Some(Ok(None)) | None => break,
            }
        }
    }

    /// The end that is handed out.
    pub(super) fn lend(&mut self, number: i32) -> Option<BorrowedFd<'_>> {
        if number != CONSOLE {
            let tty = self.ttys.iter().find(|t| i32::try_from(t.tty.number) == Ok(number))?;
            return Some(tty.pty.master.as_fd());
        }
        if self.console.is_none() || self.peer.is_some() {
            return None;
        }
        match client_peer() {
            Ok(peer) => self.peer = Some(peer),
            Err(e) => log::warn!("open a terminal for the console: {e}"),
        }
        match &self.peer {
            Some(Peer::Client(pty)) => Some(pty.master.as_fd()),
            _ => None,
        }
    }

    /// Those that are handed out now; others have come back.
    pub(super) fn keep_lent(&mut self, numbers: &[i32]) {
        if matches!(self.peer, Some(Peer::Client(_))) && !numbers.contains(&CONSOLE) {
            self.peer = None;
        }
    }

    /// Gives the console the window of who is there. (The kernel tells nobody if it is of the same
    /// size.)
    pub(super) fn take_window_size(&self) {
        let (Some(console), Some(peer)) = (&self.console, &self.peer) else { return };
        if let Err(e) = pty::copy_window_size(peer.end(), console.pty.master.as_fd()) {
            log::debug!("set the console's window size: {e}");
        }
    }

    /// What the ring buffer holds; `None` if there is none.
    pub(super) fn read_log(&mut self, asked: ConsoleLog) -> Option<Result<Vec<u8>, Errno>> {
        self.pass_on();
        self.ring.exists().then(|| self.ring.read(asked))
    }

    /// The container has ended: the last of its output goes to the log, and a terminal of the
    /// host's gets its settings back.
    pub(super) fn close(mut self) {
        self.pass_on();
        if let Some(log) = &mut self.log
            && let Err(e) = log.finish(&self.ring)
        {
            log::debug!("write the console's log: {e}");
        }
        if let Some(Peer::Fixed(fd, settings)) = &self.peer
            && let Err(e) = pty::restore_settings(fd.as_fd(), settings)
        {
            log::debug!("give a terminal its settings back: {e}");
        }
    }
}

/// Something that a container can be without.
fn told<T>(path: &Path, result: io::Result<T>) -> Option<T> {
    result.inspect_err(|e| log::warn!("the console is without {}: {e}", path.display())).ok()
}

/// A new terminal for a client.
fn client_peer() -> io::Result<Peer> {
    let pty = Pty::open()?;
    pty::pass_keys_on(pty.slave.as_fd())?;
    pty::never_wait(pty.slave.as_fd())?;
    Ok(Peer::Client(pty))
}

/// The terminal that the configuration names.
fn fixed_peer(path: &Path) -> io::Result<Peer> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let fd =
        OwnedFd::from(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?);
    let settings = pty::pass_keys_on(fd.as_fd())?;
    Ok(Peer::Fixed(fd, settings))
}

/// Reads what is there; `None` if there is nothing.
fn read<'b>(fd: BorrowedFd<'_>, bytes: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
    match rustix::io::read(fd, &mut *bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(bytes.get(..n)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Writes what is taken at once. A reader who does not read must not stop the container: the rest
/// is lost, as with liblxc.
fn write(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(_) => return,
        }
    }
}

/// `lxc.console.logfile`.
#[derive(Debug)]
struct Log {
    file: File,
    path: PathBuf,
    /// The container's root, whose directory it may lie in.
    guest: Option<Guest>,
    /// `lxc.console.size`: the most bytes it may have; 0 is no limit.
    limit: u64,
    /// `lxc.console.rotate`: a full one becomes `PATH.1`.
    rotate: bool,
}

impl Log {
    fn open(path: &Path, config: &Config) -> io::Result<Log> {
        let (limit, rotate) = (config.console_size(), config.console_rotate());
        let guest = config.guest();
        Ok(Log { file: Log::open_file(guest, path)?, path: path.to_owned(), guest, limit, rotate })
    }

    fn open_file(guest: Option<Guest>, path: &Path) -> io::Result<File> {
        // A FIFO without a reader would wait.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
        path_trust::open_or_make(guest, path, flags, 0o640).map_err(io::Error::other)
    }

    /// liblxc's `lxc_terminal_write_log_file`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let meta = self.file.metadata()?;
        if self.limit == 0 {
            return self.file.write_all(bytes);
        }
        if !meta.is_file() {
            return Err(io::Error::other("only a regular file can have a limit"));
        }
        let left = self.limit.saturating_sub(meta.len());
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = bytes.split_at(fits);
        self.file.write_all(now)?;
        if rest.is_empty() {
            return Ok(());
        }
        if self.rotate {
            std::fs::rename(&self.path, files::with_suffix(&self.path, ".1"))?;
            self.file = Log::open_file(self.guest, &self.path)?;
        } else {
            self.file.set_len(0)?;
        }
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX).min(rest.len());
        self.file.write_all(rest.get(..most).unwrap_or_default())
    }

    /// At the end, a log with a limit becomes what the ring buffer holds (liblxc,
    /// `lxc_terminal_write_ringbuffer`).
    fn finish(&mut self, ring: &Ring) -> io::Result<()> {
        if self.limit == 0 || ring.bytes.is_empty() {
            return Ok(());
        }
        self.file.set_len(0)?;
        let mut bytes = Vec::new();
        self.limited(ring).read_to_end(&mut bytes)?;
        self.file.write_all(&bytes)
    }

    fn limited<'r>(&self, ring: &'r Ring) -> impl Read + 'r {
        let (front, back) = ring.bytes.as_slices();
        front.chain(back).take(self.limit)
    }
}

/// `lxc.console.buffer.size`: the last bytes that came out of the console.
#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    size: usize,
}

impl Ring {
    fn new(size: u64) -> Ring {
        Ring { bytes: VecDeque::new(), size: usize::try_from(size).unwrap_or(0) }
    }

    fn exists(&self) -> bool {
        self.size > 0
    }

    fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(self.size)..).unwrap_or_default();
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.size);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }

    /// liblxc's `lxc_cmd_console_log_callback`: what was read is gone.
    fn read(&mut self, asked: ConsoleLog) -> Result<Vec<u8>, Errno> {
        if asked.read && self.bytes.is_empty() {
            return Err(Errno::ENODATA);
        }
        let all = self.bytes.len();
        let most =
            if asked.most == 0 { all } else { usize::try_from(asked.most).unwrap_or(all).min(all) };
        let taken = if asked.read { self.bytes.drain(..most).collect() } else { Vec::new() };
        if asked.clear {
            self.bytes.clear();
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: ConsoleLog = ConsoleLog { clear: false, read: true, most: 0 };

    #[test]
    fn the_ring_keeps_the_last_bytes_until_they_are_read() {
        let mut ring = Ring::new(8);
        assert_eq!(ring.read(READ), Err(Errno::ENODATA));
        ring.push(b"abcdef");
        ring.push(b"ghij");
        assert_eq!(ring.read(ConsoleLog { most: 3, ..READ }).unwrap(), b"cde");
        ring.push(b"0123456789");
        assert_eq!(ring.read(ConsoleLog { most: 99, ..READ }).unwrap(), b"23456789");
        ring.push(b"x");
        assert_eq!(ring.read(ConsoleLog { read: false, clear: true, most: 0 }).unwrap(), b"");
        assert_eq!(ring.read(READ), Err(Errno::ENODATA));
    }

    #[test]
    fn a_full_log_is_rotated_or_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (rotate, old) in [(true, Some("abcdefgh")), (false, None)] {
            let mut log = Log {
                file: Log::open_file(None, &path).unwrap(),
                path: path.clone(),
                guest: None,
                limit: 8,
                rotate,
            };
            log.file.set_len(0).unwrap();
            log.write(b"abcdef").unwrap();
            log.write(b"ghij").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "ij");
            let kept = files::with_suffix(&path, ".1");
            assert_eq!(std::fs::read_to_string(&kept).ok().as_deref(), old);
            let _ = std::fs::remove_file(kept);
        }
    }

    #[test]
    fn what_the_container_writes_reaches_who_asks_for_the_console() {
        let tty = crate::resources::terminals::Tty {
            number: 0,
            rdev: 0,
            dev: 0,
            points: vec![],
            owner: None,
            session: None,
        };
        let terminal = Terminal { tty, pty: Pty::open().unwrap() };
        let inside = terminal.pty.slave.try_clone().unwrap();
        let config =
            Config::parse(Path::new("config"), b"lxc.console.buffer.size = 4096\n").unwrap();
        let mut terminals = Terminals::new(vec![terminal], &config);
        let outside = terminals.lend(0).unwrap().try_clone_to_owned().unwrap();
        assert!(terminals.lend(0).is_none(), "it is taken");
        write(inside.as_fd(), b"login:");
        terminals.pass_on();
        let mut bytes = [0; 64];
        assert_eq!(read(outside.as_fd(), &mut bytes).unwrap(), Some(&b"login:"[..]));
        write(outside.as_fd(), b"root\r");
        terminals.pass_on();
        assert_eq!(read(inside.as_fd(), &mut bytes).unwrap(), Some(&b"root\n"[..]));
        terminals.keep_lent(&[]);
        assert!(terminals.lend(0).is_some(), "it has come back");
        assert_eq!(terminals.read_log(READ).unwrap().unwrap(), b"login:root\r\n", "with the echo");
    }
}
