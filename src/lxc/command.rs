//! Asks a container's monitor over LXC's command socket, without liblxc.
//!
//! One connection for each question, as the protocol has it. A client never waits longer than its
//! limit, always sends the payload that it announces (a monitor up to LXC 7.0.0 dies if it does not
//! come, and its container with it), and does not believe a socket that another user has put where
//! the container's should be: abstract names are free for anybody to take while the container is
//! stopped.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, getsockopt, socket};
use nix::unistd::{Pid, getuid};

use super::protocol::{
    self, Command, ConsoleLog, Header, MESSAGE_LEN, Message, News, PAYLOAD_MAX, RESPONSE_LEN,
    State, Wanted, c_string, to_c_string,
};
use crate::sys::fdpass::{Credentials, MAX_FDS, recv_with_fds, send_with_fds};

/// How long a monitor may take to answer, unless said otherwise.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a monitor may take to end after a stop: its hooks run in that time.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or stopped listening while asked: the container is stopped.
    #[error("the container is not running")]
    NotRunning,
    /// The monitor does not serve this user.
    #[error("the container's monitor denies access")]
    Denied,
    /// The monitor said no.
    #[error("the container's monitor refuses: {0}")]
    Refused(Errno),
    /// The answer is none; or the socket belongs to a user who cannot be the container's.
    #[error("{0}")]
    Protocol(&'static str),
    /// No answer in this time.
    #[error("the container's monitor does not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The result of a question.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An answer that came: what `Header` says, its payload, its descriptors.
#[derive(Debug)]
struct Answer {
    header: Header,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// What came back.
#[derive(Debug)]
enum Reply {
    Answer(Answer),
    /// The monitor closed the connection without a word, which for some commands is an answer.
    Closed,
}

/// Asks one container's monitor.
#[derive(Clone, Debug)]
pub struct Client {
    lxcpath: String,
    name: String,
    limit: Duration,
}

/// A wait for states, registered with the monitor.
#[derive(Debug)]
pub struct StateClient {
    stream: UnixStream,
    now: Option<State>,
}

/// A terminal that a monitor has lent. It goes back when this is dropped.
#[derive(Debug)]
pub struct LentTty {
    /// Its number.
    pub number: i32,
    /// The user's end of it.
    pub end: OwnedFd,
    /// The monitor lends it as long as this is open.
    connection: UnixStream,
}

impl AsFd for LentTty {
    /// The connection: it ends when the monitor does.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Client {
    /// A client of the container `name` below `lxcpath`, which must be spelt as it was for
    /// `lxc-start`.
    pub fn new(lxcpath: &str, name: &str) -> Client {
        Client { lxcpath: lxcpath.to_owned(), name: name.to_owned(), limit: ANSWER_LIMIT }
    }

    /// Sets how long the monitor may take for each answer (5 s if not set).
    pub fn with_limit(mut self, limit: Duration) -> Client {
        self.limit = limit;
        self
    }

    /// What the container does. If nobody listens it is [`State::Stopped`], which is no error.
    pub fn state(&self) -> Result<State> {
        match self.ask_value(Command::GetState, 0) {
            Ok(number) => State::from_number(number)
                .ok_or(Error::Protocol("the monitor names an unknown state")),
            Err(Error::NotRunning) => Ok(State::Stopped),
            Err(e) => Err(e),
        }
    }

    /// The pid of the container's init, in the monitor's pid namespace.
    pub fn init_pid(&self) -> Result<Pid> {
        match self.ask_value(Command::GetInitPid, 0)? {
            pid if pid > 0 => Ok(Pid::from_raw(pid)),
            _ => Err(Error::Protocol("the monitor names no pid")),
        }
    }

    /// A pidfd of the container's init; `None` if the monitor has none, as after a restore by LXC
    /// itself.
    pub fn init_pidfd(&self) -> Result<Option<OwnedFd>> {
        self.ask_fd(Command::GetInitPidfd)
    }

    /// The CLONE_NEW* flags of the namespaces that are the container's own.
    pub fn clone_flags(&self) -> Result<u32> {
        // Bit 31 is no namespace flag, so the int is never negative in earnest.
        Ok(self.ask_value(Command::GetCloneFlags, 0)?.cast_unsigned())
    }

    /// The path of the container's cgroup in the hierarchy of this controller, below the
    /// hierarchy's mount: with a leading slash on v1, without one on v2. `None` if the monitor does
    /// not know the controller.
    pub fn cgroup(&self, controller: Option<&str>) -> Result<Option<String>> {
        self.ask_cgroup(Command::GetCgroup, controller)
    }

    /// As [`Client::cgroup`], for the cgroup that carries the limits (another one only with
    /// `lxc.cgroup.dir.container.inner`).
    pub fn limit_cgroup(&self, controller: Option<&str>) -> Result<Option<String>> {
        self.ask_cgroup(Command::GetLimitCgroup, controller)
    }

    /// The directory (O_PATH) of the cgroup that carries the limits; `None` where the host is not
    /// pure cgroup2.
    pub fn limit_cgroup2_fd(&self) -> Result<Option<OwnedFd>> {
        match self.ask_fd(Command::GetLimitCgroup2Fd) {
            Err(Error::Refused(Errno::EINVAL)) => Ok(None),
            other => other,
        }
    }

    /// The value of a key in the monitor's configuration; `None` if it is unset, empty or unknown.
    pub fn config_item(&self, key: &str) -> Result<Option<String>> {
        match self.ask(Command::GetConfigItem, 0, &to_c_string(key))? {
            Reply::Closed => Err(Error::Protocol("the monitor closed the connection")),
            Reply::Answer(a) if a.header.code == -1 => Ok(None),
            Reply::Answer(a) => {
                a.check()?;
                a.text()
            }
        }
    }

    /// The name that the monitor serves. Of use where only a hashed address is known.
    pub fn name(&self) -> Result<Option<String>> {
        self.ask_text(Command::GetName)
    }

    /// The lxcpath that the monitor serves.
    pub fn lxcpath(&self) -> Result<Option<String>> {
        self.ask_text(Command::GetLxcpath)
    }

    /// Stops the container at once (SIGKILL, or its `lxc.signal.stop`) and waits until its monitor
    /// is gone too, at most 60 s: then its hooks have run and its cgroups are removed.
    pub fn stop(&self) -> Result<()> {
        self.stop_within(STOP_LIMIT)
    }

    /// As [`Client::stop`], with another limit.
    pub fn stop_within(&self, limit: Duration) -> Result<()> {
        let stream = self.send(Command::Stop, 0, &[])?;
        // No answer: the end of the connection is the end of the monitor.
        match receive_end(&stream, limit) {
            Ok(None) | Err(Error::NotRunning) => Ok(()),
            Ok(Some(header)) => match refusal(header) {
                Some(e) => Err(e),
                None => Err(Error::Protocol("the monitor answers a stop with a value")),
            },
            Err(e) => Err(e),
        }
    }

    /// Tells the monitor, and by it all who wait, that the container is in this state. Who freezes
    /// a container by its cgroup says FREEZING before and FROZEN after; who thaws it says THAWED,
    /// then RUNNING.
    pub fn serve_state(&self, state: State) -> Result<()> {
        self.ask_value(Command::ServeStateClients, state.number()).map(drop)
    }

    /// Asks to be told of states: see [`Wanted`].
    pub fn add_state_client(&self, wanted: &Wanted) -> Result<StateClient> {
        let stream = self.send(Command::AddStateClient, 0, &protocol::encode_wanted(wanted))?;
        let Reply::Answer(answer) = self.receive(&stream)? else {
            return Err(Error::Protocol("the monitor closed the connection"));
        };
        answer.check()?;
        Ok(StateClient { stream, now: State::from_number(answer.header.value) })
    }

    /// The end of a terminal at which a user sits: 0 is the console, -1 any tty that is free.
    /// `None` if there is none, or somebody else has it.
    pub fn tty(&self, number: i32) -> Result<Option<LentTty>> {
        let stream = self.send(Command::GetTtyFd, number, &[])?;
        let Reply::Answer(answer) = self.receive(&stream)? else { return Ok(None) };
        match answer.check() {
            Ok(()) => {}
            Err(Error::Refused(Errno::EBADF)) => return Ok(None),
            Err(e) => return Err(e),
        }
        let number = answer.header.value;
        Ok(answer.fds.into_iter().next().map(|end| LentTty { number, end, connection: stream }))
    }

    /// Takes what the console's ring buffer holds; `None` if there is none or it is empty.
    pub fn console_log(&self, clear: bool) -> Result<Option<Vec<u8>>> {
        let request = ConsoleLog { clear, read: true, most: 0 }.encode();
        match self.ask(Command::ConsoleLog, 0, &request)? {
            Reply::Closed => Err(Error::Protocol("the monitor closed the connection")),
            Reply::Answer(a) => match a.check() {
                Ok(()) => Ok(Some(a.payload)),
                Err(Error::Refused(Errno::EFAULT | Errno::ENODATA)) => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    /// Says that the window of who has the console has another size now.
    pub fn window_changed(&self) -> Result<()> {
        self.ask(Command::TerminalWinch, 0, &[]).map(drop)
    }

    fn ask_value(&self, command: Command, value: i32) -> Result<i32> {
        self.expect(command, value).map(|a| a.header.value)
    }

    fn ask_text(&self, command: Command) -> Result<Option<String>> {
        self.expect(command, 0)?.text()
    }

    fn ask_fd(&self, command: Command) -> Result<Option<OwnedFd>> {
        match self.ask(command, 0, &[])? {
            Reply::Answer(a) => match a.check() {
                Ok(()) if a.fds.len() > 1 => {
                    Err(Error::Protocol("the monitor sends too many descriptors"))
                }
                Ok(()) => Ok(a.fds.into_iter().next()),
                Err(Error::Refused(Errno::EBADF | Errno::ENOSYS)) => Ok(None),
                Err(e) => Err(e),
            },
            // How a monitor before LXC 4.0.7 answers what it does not know.
            Reply::Closed => Ok(None),
        }
    }

    fn ask_cgroup(&self, command: Command, controller: Option<&str>) -> Result<Option<String>> {
        match self.ask(command, 0, &controller.map(to_c_string).unwrap_or_default())? {
            Reply::Closed => Ok(None),
            Reply::Answer(a) => {
                a.check()?;
                a.text()
            }
        }
    }

    /// Asks what must be answered.
    fn expect(&self, command: Command, value: i32) -> Result<Answer> {
        match self.ask(command, value, &[])? {
            Reply::Answer(a) => a.check().map(|()| a),
            Reply::Closed => Err(Error::Protocol("the monitor closed the connection")),
        }
    }

    fn ask(&self, command: Command, value: i32, payload: &[u8]) -> Result<Reply> {
        let stream = self.send(command, value, payload)?;
        self.receive(&stream)
    }

    /// Connects and sends a request with its payload, which goes in the same message: LXC reads
    /// them one after the other from the stream.
    fn send(&self, command: Command, value: i32, payload: &[u8]) -> Result<UnixStream> {
        let too_long = || Error::Io(io::ErrorKind::InvalidInput.into());
        let datalen = i32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= PAYLOAD_MAX)
            .ok_or_else(too_long)?;
        let stream = self.connect()?;
        let header = Header { code: command.number(), datalen, value }.encode();
        let bufs = [IoSlice::new(&header), IoSlice::new(payload)];
        let sent = send_with_fds(stream.as_fd(), &bufs, &[], Some(Credentials::new()));
        match sent {
            Ok(n) if n == header.len() + payload.len() => Ok(stream),
            Ok(_) => Err(Error::Timeout(self.limit)),
            Err(e) => Err(self.failed(e)),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the socket has limits")]
    fn connect(&self) -> Result<UnixStream> {
        let address = protocol::address(&self.lxcpath, &self.name).map_err(io::Error::from)?;
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .map_err(io::Error::from)?;
        let stream = UnixStream::from(fd);
        // The limit for sending is also the one for connecting, which waits while the backlog is
        // full.
        stream.set_write_timeout(Some(self.limit))?;
        stream.set_read_timeout(Some(self.limit))?;
        loop {
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(self.failed(e.into())),
            }
        }
        let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
        if peer.uid() != 0 && peer.uid() != getuid().as_raw() {
            return Err(Error::Protocol("the container's socket belongs to another user"));
        }
        Ok(stream)
    }

    fn receive(&self, stream: &UnixStream) -> Result<Reply> {
        let mut bytes = [0; RESPONSE_LEN];
        let (n, fds, _) =
            recv_with_fds(stream.as_fd(), &mut bytes, MAX_FDS).map_err(|e| self.failed(e))?;
        match n {
            0 => return Ok(Reply::Closed),
            RESPONSE_LEN => {}
            _ => return Err(Error::Protocol("the monitor's answer is truncated")),
        }
        let header = Header::decode(&bytes);
        let len = usize::try_from(header.datalen).ok().filter(|n| *n <= PAYLOAD_MAX);
        let mut payload =
            vec![0; len.ok_or(Error::Protocol("the monitor's answer has no sane length"))?];
        (&mut &*stream).read_exact(&mut payload).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::Protocol("the monitor's answer is truncated"),
            _ => self.failed(e),
        })?;
        Ok(Reply::Answer(Answer { header, payload, fds }))
    }

    /// What an error of the socket means for the question.
    fn failed(&self, e: io::Error) -> Error {
        classify(e, self.limit)
    }
}

impl Answer {
    /// An error if the monitor refused.
    fn check(&self) -> Result<()> {
        refusal(self.header).map_or(Ok(()), Err)
    }

    /// The payload as text; `None` if there is none or it is empty.
    fn text(self) -> Result<Option<String>> {
        if self.payload.is_empty() {
            return Ok(None);
        }
        match c_string(&self.payload) {
            Some(text) => Ok(Some(text.to_owned()).filter(|t| !t.is_empty())),
            None => Err(Error::Protocol("the monitor's answer is not clean text")),
        }
    }
}

impl StateClient {
    /// The state, if the container was in one that was asked for with 1.
    pub fn now(&self) -> Option<State> {
        self.now
    }

    /// Waits for a state that was asked for. The end of the connection is [`State::Stopped`].
    pub fn wait(&mut self, limit: Duration) -> Result<State> {
        if let Some(state) = self.now {
            return Ok(state);
        }
        let mut bytes = [0; MESSAGE_LEN];
        match read_within(&self.stream, &mut bytes, limit)? {
            0 => Ok(State::Stopped),
            MESSAGE_LEN => match Message::decode(&bytes) {
                Some(Message { news: News::State(state), .. }) => Ok(state),
                _ => Err(Error::Protocol("the monitor's message is none")),
            },
            _ => Err(Error::Protocol("the monitor's message is truncated")),
        }
    }
}

/// What a response's header refuses, if it does.
fn refusal(header: Header) -> Option<Error> {
    match header.code {
        0.. => None,
        // -1 is also what LXC says for "failed" where it has no errno; nothing that we ask fails so
        // but by denial.
        -1 => Some(Error::Denied),
        code => Some(Error::Refused(Errno::from_raw(code.saturating_neg()))),
    }
}

fn classify(e: io::Error, limit: Duration) -> Error {
    match e.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => Error::NotRunning,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(limit),
        _ => Error::Io(e),
    }
}

/// Waits for the end of the connection; a header that comes instead is returned.
fn receive_end(stream: &UnixStream, limit: Duration) -> Result<Option<Header>> {
    let mut bytes = [0; RESPONSE_LEN];
    match read_within(stream, &mut bytes, limit)? {
        0 => Ok(None),
        RESPONSE_LEN => Ok(Some(Header::decode(&bytes))),
        _ => Err(Error::Protocol("the monitor's answer is truncated")),
    }
}

/// Fills the buffer or reads to the end, within the limit altogether.
fn read_within(mut stream: &UnixStream, buf: &mut [u8], limit: Duration) -> Result<usize> {
    let end = Instant::now().checked_add(limit);
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::Timeout(limit));
        }
        stream.set_read_timeout(left)?;
        match stream.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(classify(e, limit)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
