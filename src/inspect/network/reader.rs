//! What the readers of a network namespace have in common.

use super::attributes::{self, Names};
use crate::inspect::snapshot::{Snapshot, Subject};
use crate::inspect::state::State;
use crate::sys::netlink::Error;
use crate::sys::netlink::raw::{Message, Protocol, Socket};

/// What reads a namespace, in a thread that is in it.
pub(super) struct Reader<'a> {
    /// What is read goes there.
    pub snapshot: &'a mut Snapshot,
    pid: i32,
    socket: Socket,
    /// The names of links, once they are known.
    pub names: Names,
}

impl<'a> Reader<'a> {
    /// In this thread's network namespace, of which that process is the lowest.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(super) fn open(pid: i32, snapshot: &'a mut Snapshot) -> Result<Reader<'a>, Error> {
        Ok(Reader { pid, socket: Socket::open(Protocol::Route)?, snapshot, names: Names::new() })
    }

    /// A part of this namespace.
    pub(super) fn subject(&self, part: &str) -> Subject {
        Subject::Network { pid: self.pid, part: part.to_owned() }
    }

    /// The name of a link.
    pub(super) fn link(&self, index: u32) -> String {
        attributes::link(index, &self.names)
    }

    /// Lists something by rtnetlink. What this kernel does not have is not there; that it cannot be
    /// listed otherwise is noted as a lack of `state`.
    pub(super) fn dump(
        &mut self,
        question: &Message,
        part: &str,
        state: &'static State,
    ) -> Vec<Message> {
        let found = self.socket.dump(question);
        self.known(found, part, state)
    }

    /// The same by a socket of another protocol.
    pub(super) fn known(
        &mut self,
        found: Result<Vec<Message>, Error>,
        part: &str,
        state: &'static State,
    ) -> Vec<Message> {
        match found {
            Ok(found) => found,
            Err(e) if e.errno().is_some_and(|errno| UNKNOWN.contains(&errno)) => Vec::new(),
            Err(e) => {
                let subject = self.subject(part);
                self.snapshot.miss(subject, state, e);
                Vec::new()
            }
        }
    }
}

/// How a kernel answers that does not have such objects.
const UNKNOWN: [i32; 5] =
    [libc::EOPNOTSUPP, libc::EINVAL, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ENOENT];

/// The name of a part, of words that are not empty.
pub(super) fn part(words: &[&str]) -> String {
    words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ")
}
