//! One client's connection: reads its request without ever blocking, sends the answer in one piece.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::socket::sockopt::{PassCred, PeerCredentials, SndBufForce};
use nix::sys::socket::{getsockopt, setsockopt};
use nix::unistd::{Gid, Uid};

use crate::lxc::protocol::{Command, Header, PAYLOAD_MAX, REQUEST_LEN, Wanted};
use crate::sys::fdpass::{Credentials, recv_with_fds, send_with_fds};

/// Who is served: root, and the user that the monitor runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// This process.
    pub(super) fn current() -> Owner {
        Owner { uid: Uid::current().as_raw(), gid: Gid::current().as_raw() }
    }

    /// Whether LXC's rule lets this sender in.
    pub(super) fn admits(self, sender: Credentials) -> bool {
        sender.uid() == 0 || (sender.uid() == self.uid && sender.gid() == self.gid)
    }
}

/// A connection that is kept without being read.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// Its client waits for the monitor to end.
    Stop,
    /// Its client waits for one of these states.
    StateClient(Wanted),
    /// Its client has been told the state and may close when it likes.
    Told,
    /// Its client has this tty until it closes.
    Tty(i32),
}

/// What a connection is doing.
#[derive(Debug)]
pub(super) enum Phase {
    Reading(Reading),
    Held(Held),
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) phase: Phase,
}

/// A request that is not complete yet.
#[derive(Debug)]
pub(super) struct Reading {
    /// When patience ends.
    pub(super) deadline: Instant,
    /// Whether the process that connected is one that is served: the others have few places, so
    /// that they can't take all of them. What counts for the answer are the credentials of the
    /// request.
    pub(super) trusted: bool,
    header: [u8; REQUEST_LEN],
    /// How many bytes have come of the header.
    have: usize,
    denied: bool,
    /// Once the header is complete: the payload's full length of bytes, and how many of them have
    /// come.
    payload: Option<(Vec<u8>, usize)>,
}

/// A complete request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: i32,
    pub(super) value: i32,
    pub(super) payload: Vec<u8>,
}

/// How far a request is.
#[derive(Debug)]
pub(super) enum Progress {
    /// More has to come.
    Waiting,
    /// The sender is not one that is served. Its payload was not read.
    Denied,
    /// It is complete.
    Complete(Request),
    /// The client is gone, or sends what is no request.
    Lost,
}

/// What is sent back.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    pub(super) code: i32,
    pub(super) value: i32,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<BorrowedFd<'a>>,
}

impl Connection {
    /// Prepares an accepted socket.
    pub(super) fn new(
        stream: UnixStream,
        owner: Owner,
        deadline: Instant,
    ) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        setsockopt(&stream, PassCred, &true)?;
        let trusted = owner.admits(getsockopt(&stream, PeerCredentials)?);
        let header = [0; REQUEST_LEN];
        let reading = Reading { deadline, trusted, header, have: 0, denied: false, payload: None };
        Ok(Connection { stream, phase: Phase::Reading(reading) })
    }

    /// Reads as much of the request as is there.
    pub(super) fn read(&mut self, owner: Owner) -> Progress {
        match &mut self.phase {
            Phase::Reading(reading) => {
                reading.advance(&self.stream, owner).unwrap_or_else(|e| match e.kind() {
                    io::ErrorKind::WouldBlock => Progress::Waiting,
                    _ => Progress::Lost,
                })
            }
            Phase::Held(_) => Progress::Waiting,
        }
    }

    /// Sends header and payload in one message, since a client takes each with one read. False if
    /// the client is gone or does not take them at once; then there is nothing more to do for it.
    pub(super) fn send(&self, answer: &Answer<'_>) -> bool {
        let Ok(datalen) = i32::try_from(answer.payload.len()) else { return false };
        // Only the console's ring buffer is as large as that. What a socket holds is counted with
        // the kernel's own share of it, hence twice as much.
        if answer.payload.len() > PAYLOAD_MAX
            && let Err(e) = setsockopt(&self.stream, SndBufForce, &(4 * answer.payload.len()))
        {
            log::debug!("make room for a long answer: {e}");
        }
        let header = Header { code: answer.code, datalen, value: answer.value }.encode();
        let bufs = [IoSlice::new(&header), IoSlice::new(&answer.payload)];
        let sent = send_with_fds(self.stream.as_fd(), &bufs, &answer.fds, None);
        sent.is_ok_and(|n| n == header.len() + answer.payload.len())
    }

    /// Sends bytes that are no answer: a state message.
    pub(super) fn tell(&self, message: &[u8]) -> bool {
        send_with_fds(self.stream.as_fd(), &[IoSlice::new(message)], &[], None)
            .is_ok_and(|n| n == message.len())
    }
}

impl Reading {
    fn advance(&mut self, stream: &UnixStream, owner: Owner) -> io::Result<Progress> {
        while let Some(rest) = self.header.get_mut(self.have..).filter(|rest| !rest.is_empty()) {
            let (n, _, sender) = recv_with_fds(stream.as_fd(), rest, 0)?;
            if n == 0 {
                return Ok(Progress::Lost);
            }
            // Pid 0: it was sent between accept and SO_PASSCRED, when the kernel noted no sender.
            let sender = match sender {
                Some(sender) if sender.pid() != 0 => sender,
                _ => getsockopt(stream, PeerCredentials)?,
            };
            self.denied |= !owner.admits(sender);
            self.have += n;
        }
        if self.denied {
            return Ok(Progress::Denied);
        }
        let header = Header::decode(&self.header);
        let (bytes, filled) = match &mut self.payload {
            Some(payload) => payload,
            none => match payload_len(header) {
                Some(len) => none.insert((vec![0; len], 0)),
                None => return Ok(Progress::Lost),
            },
        };
        while let Some(rest) = bytes.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
            match recv_with_fds(stream.as_fd(), rest, 0)? {
                (0, ..) => return Ok(Progress::Lost),
                (n, ..) => *filled += n,
            }
        }
        let payload = std::mem::take(bytes);
        Ok(Progress::Complete(Request { number: header.code, value: header.value, payload }))
    }
}

/// How many bytes follow a request's header; `None` if it is not to be listened to any longer.
fn payload_len(header: Header) -> Option<usize> {
    let len = usize::try_from(header.datalen).ok().filter(|n| *n <= PAYLOAD_MAX)?;
    // This one's descriptor comes with a byte of its own that is not announced. Not to read it
    // would reset the connection before its client has the answer.
    let unannounced = header.code == Command::SeccompNotifyAddListener.number();
    Some(if unannounced { len.max(1) } else { len })
}
