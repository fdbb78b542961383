//! rtnetlink behind blocking verbs. Nothing above this module knows the crates or their packets.
//!
//! A [`Netlink`] is one socket in the network namespace of the thread that opened it, with an event
//! loop of its own that runs only while a verb waits for its answer: no thread stays behind, and a
//! process that forks later finds nothing running. It is cheap (well under a millisecond), so it is
//! opened where it is needed and not handed around between namespaces.
//!
//! Three traps of the crates below are closed here, in `request` and `answer`: the connection must
//! be spawned or every request waits for ever; a connection that died ends its answers like one
//! that succeeded; and a dump that the kernel calls inconsistent (a link came or went meanwhile) is
//! given to the caller as if it were whole.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use futures_util::StreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::thread;

mod addresses;
mod bridge;
mod diag;
mod links;
mod mac;
pub(crate) mod raw;
mod replay;
mod routes;

pub use bridge::{PortSettings, Vlan};
pub(crate) use diag::{tcp_keys, tcp_listeners, unix_peers, unix_requests};
pub(crate) use links::NewMacvlan;
pub use links::{Link, NewVeth};
pub use mac::Mac;
pub(crate) use replay::Described;
pub(crate) use routes::Route;

/// How long a verb waits for the kernel. It answers within microseconds, unless someone holds the
/// kernel's RTNL lock; a namespace with thousands of links being torn down holds it for a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often an inconsistent dump is asked for again.
const DUMP_TRIES: u32 = 10;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such link (ENODEV).
    #[error("no such link")]
    NotFound,
    /// A link with this name or index is there already (EEXIST).
    #[error("it exists already")]
    Exists,
    /// The kernel does not allow it (EPERM or EACCES).
    #[error("{0}")]
    Denied(io::Error),
    /// Any other answer of the kernel.
    #[error("{0}")]
    Kernel(io::Error),
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {} s", ANSWER_LIMIT.as_secs())]
    NoAnswer,
    /// Links came and went during each of several attempts to list them.
    #[error("the links change too fast to be listed")]
    Unsteady,
    /// The answer was not one to the question.
    #[error("the kernel's answer has no {0}")]
    Incomplete(&'static str),
    /// The socket, or the thread in the other namespace, could not be set up or broke.
    #[error("{0}: {1}")]
    Setup(&'static str, io::Error),
}

impl Error {
    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::NotFound => Some(libc::ENODEV),
            Error::Exists => Some(libc::EEXIST),
            Error::Denied(e) | Error::Kernel(e) | Error::Setup(_, e) => e.raw_os_error(),
            Error::NoAnswer | Error::Unsteady | Error::Incomplete(_) => None,
        }
    }

    fn from_errno(errno: i32) -> Error {
        let cause = io::Error::from_raw_os_error(errno);
        match errno {
            libc::ENODEV => Error::NotFound,
            libc::EEXIST => Error::Exists,
            libc::EPERM | libc::EACCES => Error::Denied(cause),
            _ => Error::Kernel(cause),
        }
    }
}

/// A socket to the kernel's links, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    // Before `runtime`, so that it is dropped first: the connection ends when its last handle does.
    handle: Handle,
    runtime: tokio::runtime::Runtime,
}

/// What came back for one request.
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// The kernel saw the list change while it wrote it.
    interrupted: bool,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace; it stays there.
    pub fn open() -> Result<Netlink, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| Error::Setup("event loop", e))?;
        let entered = runtime.enter();
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(|e| Error::Setup("netlink socket", e))?;
        // Without these two, the end of a broken connection looks like the end of a good answer.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        runtime.spawn(connection);
        drop(entered);
        Ok(Netlink { handle, runtime })
    }

    /// Sends one message and waits for its whole answer.
    #[expect(clippy::disallowed_methods, reason = "ANSWER_LIMIT")]
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let handle = &mut self.handle;
        self.runtime.block_on(async {
            match tokio::time::timeout(ANSWER_LIMIT, answer(handle, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::NoAnswer),
            }
        })
    }

    /// Changes something: the kernel acknowledges or refuses.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.request(message, NLM_F_ACK | flags).map(drop)
    }

    /// Lists something, again if the list changed meanwhile.
    fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_TRIES {
            let answer = self.request(message.clone(), NLM_F_DUMP)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(Error::Unsteady)
    }
}

async fn answer(
    handle: &mut Handle,
    request: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<Answer, Error> {
    let broken = || Error::Setup("netlink socket", io::ErrorKind::BrokenPipe.into());
    let wants_ack = request.header.flags & (NLM_F_ACK | NLM_F_DUMP) != 0;
    let mut stream = handle.request(request).map_err(|_| broken())?;
    let mut answer = Answer { messages: Vec::new(), interrupted: false };
    let mut whole = false;
    while let Some(message) = stream.next().await {
        answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => {
                answer.messages.push(inner);
                whole |= !wants_ack;
            }
            NetlinkPayload::Error(e) => match e.code {
                Some(code) => return Err(Error::from_errno(code.get().abs())),
                None => whole = true,
            },
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(Error::from_errno(done.code.abs()));
            }
            NetlinkPayload::Done(_) => whole = true,
            // A part was lost for want of buffer space: the same cure as for an inconsistent list.
            NetlinkPayload::Overrun(_) => (answer.interrupted, whole) = (true, true),
            _ => {}
        }
    }
    if whole { Ok(answer) } else { Err(broken()) }
}

/// Runs `f` in another network namespace, on a thread of its own: `setns` changes the calling
/// thread only, and a thread that came back by a second `setns` could fail half-way.
pub fn in_netns<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::Setup("enter the network namespace", e.into()))
    };
    on_a_thread(enter, f)
}

/// Runs `f` in a new network namespace that nobody else is in; it goes when `f` is done.
pub(crate) fn in_new_netns<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::Setup("make a network namespace", e.into()))
    };
    on_a_thread(enter, f)
}

fn on_a_thread<T: Send>(
    enter: impl FnOnce() -> Result<(), Error> + Send,
    f: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let enter = move || enter().map(|()| f());
    thread::on_a_thread("netns", enter).map_err(|e| Error::Setup("start a thread", e))?
}
