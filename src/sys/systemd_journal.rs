//! systemd's journal, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a
//! datagram for each entry.
//!
//! That is the only way to give an entry fields of our own, by which `journalctl` finds it. Nobody
//! is waited for: where there is no journal, or it is too busy, the entry is lost, and the command
//! goes on.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

/// Where the journal listens.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";
/// The variable by which systemd says which stream goes to the journal: its device and inode.
const STREAM: &str = "JOURNAL_STREAM";
/// A longer value is cut, in bytes: a datagram must not become too large for the journal's socket.
const MAX_VALUE: usize = 32 * 1024;

/// How much an entry matters, as in syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Priority {
    /// Something has failed.
    Error = 3,
    /// It went on although something was off.
    Warning = 4,
    /// It went as it should.
    Info = 6,
    /// For those who look for a fault.
    Debug = 7,
}

impl Priority {
    /// In a word, as the levels of a log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Priority::Error => "error",
            Priority::Warning => "warn",
            Priority::Info => "info",
            Priority::Debug => "debug",
        }
    }
}

/// A way to the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The system's journal, whether it is there by now or not.
    pub(crate) fn of_system() -> io::Result<Journal> {
        Journal::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, path: path.to_owned() })
    }

    /// Sends an entry of these fields.
    pub(crate) fn send(&self, fields: &[(&str, &str)]) -> io::Result<()> {
        // By its name each time: a journal that was started anew since listens under the same.
        self.socket.send_to(&encode(fields), &self.path).map(drop)
    }
}

/// A value on one line follows an equals sign; any other its own length.
fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        let value = &value.as_bytes()[..value.len().min(MAX_VALUE)];
        entry.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value);
        entry.push(b'\n');
    }
    entry
}

/// Whether what is written to this stream goes to the journal anyway.
pub(crate) fn is_stream(stream: BorrowedFd<'_>) -> bool {
    let named = std::env::var(STREAM).ok();
    let Some((device, inode)) = named.as_deref().and_then(|text| text.split_once(':')) else {
        return false;
    };
    fstat(stream)
        .is_ok_and(|meta| device.parse() == Ok(meta.st_dev) && inode.parse() == Ok(meta.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_the_journal_reads_it() {
        assert_eq!(encode(&[("MESSAGE", "one"), ("PRIORITY", "6")]), b"MESSAGE=one\nPRIORITY=6\n");
        assert_eq!(encode(&[("MESSAGE", "a\nb")]), b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
        assert_eq!(
            encode(&[("MESSAGE", &"ä".repeat(MAX_VALUE))]).len(),
            "MESSAGE=\n".len() + MAX_VALUE
        );
    }

    #[test]
    fn it_is_sent_where_a_journal_listens_and_lost_where_none_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = Journal::at(&path).unwrap();
        assert_eq!(journal.send(&[("MESSAGE", "x")]).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listening = UnixDatagram::bind(&path).unwrap();
        journal.send(&[("MESSAGE", "x")]).unwrap();
        let mut entry = [0; 32];
        let length = listening.recv(&mut entry).unwrap();
        assert_eq!(&entry[..length], b"MESSAGE=x\n");
    }
}
