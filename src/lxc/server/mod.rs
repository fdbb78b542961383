//! Answers for a container on LXC's command socket, so that all of LXC's tools work on what we
//! restored.
//!
//! The server owns the listening socket, the connections and the container's state. What it knows
//! about the container it asks a [`Served`]. It has an epoll of its own; the monitor's loop watches
//! that one descriptor ([`AsFd`]), calls [`Server::on_ready`] when it is readable, and
//! [`Server::expire`] at [`Server::next_deadline`].
//!
//! A monitor of LXC reads requests blocking, so one stuck client stops it. Here nothing blocks: who
//! does not send its request in time, or does not take its answer at once, is dropped; clients who
//! are not served anyway have few places; and the number of connections has a limit.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket};

use super::protocol::{self, Message, News, State};
use commands::Response;
use connection::{Answer, Connection, Held, Owner, Phase, Progress};

pub use backend::{Hierarchy, Served};

mod backend;
mod commands;
mod connection;
#[cfg(test)]
mod tests;

/// How many clients may wait to be accepted (LXC's number).
const BACKLOG: i32 = 100;
/// How long a client may take for its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How many connections of root, or of the monitor's user, may be without a complete request.
const MAX_READING: usize = 64;
/// How many connections of other users, who are only ever denied.
const MAX_STRANGERS: usize = 8;
/// How many connections are kept for waiting clients and lent ttys.
const MAX_HELD: usize = 256;
/// How many clients are accepted before the monitor's loop has its turn again.
const ACCEPT_AT_ONCE: usize = 16;
/// How long accepting rests when the system has no descriptor or memory left for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The listening socket's mark in the epoll; connections count from 1.
const LISTENER: u64 = 0;

/// Why a container's socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody listens there: the container has a monitor.
    #[error("the container is already running")]
    AlreadyRunning,
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The command socket of one container.
#[derive(Debug)]
pub struct Server {
    lxcpath: String,
    name: String,
    fifo: PathBuf,
    owner: Owner,
    epoll: Epoll,
    listener: Option<UnixListener>,
    /// Accepting rests until then.
    resting: Option<Instant>,
    state: State,
    /// By their mark, and so in the order of their coming.
    connections: BTreeMap<u64, Connection>,
    last_mark: u64,
}

impl Server {
    /// Takes a container's address. Clients can connect from now on; they are answered once the
    /// loop runs, as it is with LXC during a start. The state is [`State::Starting`], and told to
    /// nobody yet.
    pub fn bind(lxcpath: &str, name: &str) -> Result<Server, Error> {
        let address = protocol::address(lxcpath, name).map_err(io::Error::from)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(io::Error::from)?;
        match bind(fd.as_raw_fd(), &address) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => return Err(Error::AlreadyRunning),
            Err(e) => return Err(Error::Io(e.into())),
        }
        Ok(Server::adopt(fd, lxcpath, name)?)
    }

    /// Serves on a socket that is bound already: one that came through an exec.
    pub fn adopt(socket: OwnedFd, lxcpath: &str, name: &str) -> io::Result<Server> {
        listen(&socket, Backlog::new(BACKLOG)?)?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Server {
            lxcpath: protocol::trim_lxcpath(lxcpath).to_owned(),
            name: name.to_owned(),
            fifo: protocol::fifo_path(Path::new("/run"), lxcpath),
            owner: Owner::current(),
            epoll,
            listener: Some(listener),
            resting: None,
            state: State::Starting,
            connections: BTreeMap::new(),
            last_mark: LISTENER,
        })
    }

    /// Looks for lxc-monitord's fifo below this directory instead of `/run`.
    pub fn with_run_dir(mut self, run: &Path) -> Server {
        self.fifo = protocol::fifo_path(run, &self.lxcpath);
        self
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container's lxcpath as it stands in the address.
    pub fn lxcpath(&self) -> &str {
        &self.lxcpath
    }

    /// The listening socket, to hand it through an exec (it is CLOEXEC) to [`Server::adopt`].
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// What clients are told the container does. lxc-freeze and lxc-unfreeze change it, and any
    /// client of root's can: whether init lives is to be read from its pidfd, not here.
    pub fn state(&self) -> State {
        self.state
    }

    /// The container is in a new state: tells all who wait for it, and lxc-monitor. THAWED is told,
    /// RUNNING kept.
    pub fn set_state(&mut self, state: State) {
        self.tell_clients(state);
        self.write_fifo(News::State(state));
    }

    /// Init has ended with this status, as wait(2) gives it: tells lxc-monitor.
    pub fn send_exit_code(&self, raw_status: i32) {
        self.write_fifo(News::ExitCode(raw_status));
    }

    /// The container has stopped for good: stops listening, then tells lxc-monitor. Clients who
    /// wait for STOPPED are not told; they see it in the end of their connection, when the server
    /// is dropped: then post-stop hooks have run. (At a reboot it is `set_state(State::Stopped)`.)
    pub fn end(&mut self) {
        self.close_listener();
        self.state = State::Stopped;
        self.write_fifo(News::State(State::Stopped));
    }

    /// Closes the listening socket: new clients, and those who were not accepted yet, see a stopped
    /// container.
    pub fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Closing alone would not do if a child that has not called exec yet shares the socket.
            let _ = self.epoll.delete(&listener);
            self.resting = None;
        }
    }

    /// The container has stopped and will be started afresh, by a monitor that listens in our
    /// place: tells all, and keeps only those who wait for RUNNING after the reboot (`lxc-stop
    /// -r`).
    pub fn end_for_reboot(&mut self) {
        self.close_listener();
        self.set_state(State::Stopped);
        self.drop_state_clients_for_reboot();
    }

    /// The container runs again: tells those who have waited for that. lxc-monitor hears it from
    /// the new monitor.
    pub fn started_afresh(mut self) {
        self.tell_clients(State::Running);
    }

    /// Drops who waits for a state, but for those that wait for RUNNING after a reboot.
    pub(super) fn drop_state_clients_for_reboot(&mut self) {
        let gone = self.marks(|c| match &c.phase {
            Phase::Held(Held::StateClient(wanted)) => {
                wanted.get(State::Running.index()) != Some(&2)
            }
            Phase::Held(_) | Phase::Reading(_) => false,
        });
        gone.into_iter().for_each(|mark| self.remove(mark));
    }

    /// Does what is to be done without waiting. Errors are the epoll's own, never a client's.
    #[expect(clippy::disallowed_methods, reason = "a timeout of zero")]
    pub fn on_ready(&mut self, served: &mut dyn Served) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 32];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        for event in events.iter().take(ready) {
            match event.data() {
                LISTENER => self.accept(served),
                mark => self.serve(mark, served),
            }
        }
        let lent: Vec<i32> = self.lent_ttys().collect();
        served.keep_lent(&lent);
        Ok(())
    }

    /// When [`Server::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.connections.values().filter_map(|c| match &c.phase {
            Phase::Reading(reading) => Some(reading.deadline),
            Phase::Held(_) => None,
        });
        deadlines.chain(self.resting).min()
    }

    /// Drops the clients whose time is over.
    pub fn expire(&mut self, now: Instant) {
        let late = self.marks(|c| matches!(&c.phase, Phase::Reading(r) if r.deadline <= now));
        late.into_iter().for_each(|mark| self.remove(mark));
        if self.resting.is_some_and(|until| until <= now) {
            let added = self
                .listener
                .as_ref()
                .map(|l| self.epoll.add(l, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)));
            self.resting = match added {
                Some(Err(_)) => now.checked_add(ACCEPT_PAUSE),
                Some(Ok(())) | None => None,
            };
        }
    }

    /// The marks of the connections for which `is` holds, the oldest first.
    fn marks(&self, is: impl Fn(&Connection) -> bool) -> Vec<u64> {
        self.connections.iter().filter(|(_, c)| is(c)).map(|(mark, _)| *mark).collect()
    }

    fn held_count(&self) -> usize {
        self.connections.values().filter(|c| matches!(c.phase, Phase::Held(_))).count()
    }

    fn lent_ttys(&self) -> impl Iterator<Item = i32> {
        self.connections.values().filter_map(|c| match c.phase {
            Phase::Held(Held::Tty(number)) => Some(number),
            Phase::Held(_) | Phase::Reading(_) => None,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the listener does not block")]
    fn accept(&mut self, served: &mut dyn Served) {
        for _ in 0..ACCEPT_AT_ONCE {
            // An earlier client's request can't close the listener, but it may have gone to rest.
            let Some(listener) = self.listener.as_ref().filter(|_| self.resting.is_none()) else {
                return;
            };
            let now = Instant::now();
            let deadline = now.checked_add(REQUEST_LIMIT).unwrap_or(now);
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Ok(connection) = Connection::new(stream, self.owner, deadline) {
                        self.welcome(connection, served);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Without a rest the waiting client would keep the loop spinning.
                Err(e) if is_shortage(&e) => {
                    let _ = self.epoll.delete(listener);
                    self.resting = now.checked_add(ACCEPT_PAUSE);
                    return;
                }
                // The client's own trouble: the next one is none the worse for it.
                Err(_) => {}
            }
        }
    }

    /// Takes a new client in. Its request is mostly there already.
    fn welcome(&mut self, connection: Connection, served: &mut dyn Served) {
        let Phase::Reading(new) = &connection.phase else { return };
        let same_kind = self.marks(
            |c| matches!(&c.phase, Phase::Reading(reading) if reading.trusted == new.trusted),
        );
        let most = if new.trusted { MAX_READING } else { MAX_STRANGERS };
        if same_kind.len() >= most {
            // The one that has had the longest time.
            same_kind.into_iter().take(1).for_each(|mark| self.remove(mark));
        }
        self.last_mark += 1;
        let mark = self.last_mark;
        if self.epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, mark)).is_ok() {
            self.connections.insert(mark, connection);
            self.advance(mark, served);
        }
    }

    /// Something happened on a connection.
    fn serve(&mut self, mark: u64, served: &mut dyn Served) {
        match self.connections.get(&mark).map(|c| &c.phase) {
            Some(Phase::Reading(_)) => self.advance(mark, served),
            // Nothing is read from it, so its only event is its end.
            Some(Phase::Held(_)) => self.remove(mark),
            None => {}
        }
    }

    /// Reads what there is of a request, and does it when it is complete.
    fn advance(&mut self, mark: u64, served: &mut dyn Served) {
        let Some(connection) = self.connections.get_mut(&mark) else { return };
        match connection.read(self.owner) {
            Progress::Waiting => {}
            Progress::Lost => self.remove(mark),
            Progress::Denied => {
                connection.send(&Answer { code: -(Errno::EPERM as i32), ..Answer::default() });
                self.remove(mark);
            }
            Progress::Complete(request) => {
                let response = self.answer(served, &request);
                self.respond(mark, response);
            }
        }
    }

    fn respond(&mut self, mark: u64, response: Response<'_>) {
        let Some(connection) = self.connections.get_mut(&mark) else { return };
        let keep = match response {
            Response::Close => false,
            Response::Say(answer) => {
                connection.send(&answer);
                false
            }
            Response::Hold(held, answer) => {
                connection.phase = Phase::Held(held);
                // No events but the end, which always comes: what a waiting client still sends is
                // not our business.
                let mut only_end = EpollEvent::new(EpollFlags::empty(), mark);
                answer.is_none_or(|a| connection.send(&a))
                    && self.epoll.modify(&connection.stream, &mut only_end).is_ok()
            }
        };
        if !keep {
            self.remove(mark);
        }
    }

    fn remove(&mut self, mark: u64) {
        if let Some(connection) = self.connections.remove(&mark) {
            let _ = self.epoll.delete(&connection.stream);
        }
    }

    /// Takes over a state and tells it to those who wait for it, who are then done.
    fn tell_clients(&mut self, state: State) {
        self.state = if state == State::Thawed { State::Running } else { state };
        let message = Message { name: self.name.clone(), news: News::State(state) }.encode();
        let waiting = self.marks(|c| match &c.phase {
            Phase::Held(Held::StateClient(wanted)) => {
                wanted.get(state.index()).is_some_and(|want| *want != 0)
            }
            Phase::Held(_) | Phase::Reading(_) => false,
        });
        for mark in waiting {
            if let Some(connection) = self.connections.get(&mark) {
                connection.tell(&message);
            }
            self.remove(mark);
        }
    }

    /// Tells lxc-monitord, if it runs. LXC's monitor would wait for it to read; ours does not.
    fn write_fifo(&self, news: News) {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
        let Ok(mut fifo) =
            OpenOptions::new().write(true).custom_flags(flags.bits()).open(&self.fifo)
        else {
            return;
        };
        if fifo.metadata().is_ok_and(|m| m.file_type().is_fifo()) {
            let _ = fifo.write(&Message { name: self.name.clone(), news }.encode());
        }
    }
}

/// Whether the system has run out of something that it may have again later.
fn is_shortage(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
    )
}

impl AsFd for Server {
    /// The descriptor to watch for reading.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
