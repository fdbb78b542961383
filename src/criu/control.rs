//! The line between a running CRIU's action script and the command that started it.
//!
//! CRIU runs the script with every descriptor closed, so the two meet at a socket in the command's
//! private state directory. One packet asks: the action's name and init's pid; one packet answers:
//! "go on", or the reason why CRIU must not. If nobody answers, the command is dead, and the script
//! decides alone (see `hooks::criu_action`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::action_env::Action;

/// The environment variable that tells the action script where the socket is.
pub(crate) const CONTROL_VARIABLE: &str = "LXC_CR_CONTROL";

/// Longest message of either side; a reason is cut to it.
const MAX_MESSAGE: usize = 2048;

/// The packet that lets CRIU go on. (An empty one would look like the end of the line.)
const GO_ON: &str = "go on";

/// How long a peer that has connected may take to send its one packet.
const PATIENCE: Duration = Duration::from_secs(2);

/// The command's end: it listens as long as its CRIU runs.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    path: PathBuf,
}

/// One action script that waits for its answer.
#[derive(Debug)]
pub(crate) struct Question {
    peer: OwnedFd,
    /// At which moment CRIU calls.
    pub action: Action,
    /// Init's pid on the host, where there is one yet.
    pub init_pid: Option<i32>,
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | flags, None)?)
}

fn limit_waiting(fd: &OwnedFd, limit: Duration) -> io::Result<()> {
    let time = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    setsockopt(fd, sockopt::ReceiveTimeout, &time)?;
    Ok(setsockopt(fd, sockopt::SendTimeout, &time)?)
}

impl Control {
    /// Listens at this path, in a directory that only root can enter. What a dead command left
    /// there is replaced.
    pub(crate) fn listen(path: &Path) -> io::Result<Control> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = new_socket(SockFlag::SOCK_NONBLOCK)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(Control { socket, path: path.to_owned() })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next script that asks; `None` when nobody does or when it was not a question of root's.
    #[expect(
        clippy::disallowed_methods,
        reason = "the listener does not block, its peer has limits"
    )]
    pub(crate) fn next(&self) -> io::Result<Option<Question>> {
        let raw = match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => raw,
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let peer = crate::sys::process::own_fd(raw);
        let who = getsockopt(&peer, sockopt::PeerCredentials)?;
        if who.uid() != nix::unistd::geteuid().as_raw() {
            return Ok(None);
        }
        limit_waiting(&peer, PATIENCE)?;
        let mut buffer = [0; MAX_MESSAGE];
        let length = match recv(peer.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(_) => return Ok(None),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let mut words = text.split_ascii_whitespace();
        let Some(action) = words.next() else { return Ok(None) };
        let init_pid = words.next().and_then(|w| w.parse().ok());
        Ok(Some(Question { action: Action::from_name(action), init_pid, peer }))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            log::debug!("remove {}: {e}", self.path.display());
        }
    }
}

impl Question {
    /// Lets CRIU go on, or tells it why it must not.
    #[expect(clippy::disallowed_methods, reason = "the peer has limits")]
    pub(crate) fn answer(self, answer: Result<(), String>) {
        let text = answer.err().unwrap_or_else(|| GO_ON.into());
        let bytes = text.as_bytes();
        let sent = send(
            self.peer.as_raw_fd(),
            &bytes[..bytes.len().min(MAX_MESSAGE)],
            MsgFlags::MSG_NOSIGNAL,
        );
        match sent {
            Ok(_) => {}
            // It was ended meanwhile, with its CRIU.
            Err(Errno::EPIPE) => {
                log::debug!("the script for CRIU's action '{}' has ended", self.action.name())
            }
            // The script then finds nobody at the other end, which is an answer it can work with.
            Err(e) => log::warn!("answer CRIU's action '{}': {e}", self.action.name()),
        }
    }
}

/// What the action script learns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// CRIU may go on.
    GoOn,
    /// CRIU must not go on, and why.
    Stop(String),
    /// Nobody is there: the command that started CRIU is dead.
    Nobody,
}

/// Asks the command that listens at `path`; waits at most `limit` for its answer.
#[expect(clippy::disallowed_methods, reason = "the socket has limits")]
pub(crate) fn ask(
    path: &Path,
    action: &Action,
    init_pid: Option<i32>,
    limit: Duration,
) -> io::Result<Answer> {
    let socket = new_socket(SockFlag::empty())?;
    // Before it is connected: that waits, too, where the command is not listening any more.
    limit_waiting(&socket, limit)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => {}
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(Answer::Nobody),
        Err(e) => return Err(e.into()),
    }
    let text = format!("{} {}", action.name(), init_pid.map(|p| p.to_string()).unwrap_or_default());
    match send(socket.as_raw_fd(), text.as_bytes(), MsgFlags::MSG_NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(Answer::Nobody),
        Err(e) => return Err(e.into()),
    }
    let mut buffer = [0; MAX_MESSAGE];
    match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        Ok(0) | Err(Errno::ECONNRESET) => Ok(Answer::Nobody),
        Ok(length) if &buffer[..length] == GO_ON.as_bytes() => Ok(Answer::GoOn),
        Ok(length) => Ok(Answer::Stop(String::from_utf8_lossy(&buffer[..length]).into_owned())),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_a_dead_command_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let control = Control::listen(&path).unwrap();
        let asked = path.clone();
        let script = std::thread::spawn(move || {
            let first =
                ask(&asked, &Action::NetworkLock, Some(812), Duration::from_secs(5)).unwrap();
            let second = ask(&asked, &Action::PreRestore, None, Duration::from_secs(5)).unwrap();
            (first, second)
        });
        let mut questions = Vec::new();
        for answer in [Ok(()), Err("no bridge".to_owned())] {
            let question = loop {
                if let Some(question) = control.next().unwrap() {
                    break question;
                }
                std::thread::yield_now();
            };
            questions.push((question.action.clone(), question.init_pid));
            question.answer(answer);
        }
        assert_eq!(questions, [(Action::NetworkLock, Some(812)), (Action::PreRestore, None)]);
        assert_eq!(script.join().unwrap(), (Answer::GoOn, Answer::Stop("no bridge".to_owned())));
        drop(control);
        assert_eq!(
            ask(&path, &Action::PostDump, Some(1), Duration::from_secs(1)).unwrap(),
            Answer::Nobody
        );
    }
}
