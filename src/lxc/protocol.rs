//! The wire of LXC's per-container command socket: numbers, structures, addresses. Pure: no I/O
//! here.
//!
//! It mirrors `src/lxc/commands.h`, `commands.c`, `cgroups/cgroup.h` and `monitor.c` of LXC 5.0 to
//! 7.0, whose layouts are those of a C compiler for an LP64 target: host byte order, 4-byte `int`,
//! 8-byte pointer. The pointers in there are the sender's own addresses; they mean nothing and are
//! ignored.

use std::fmt;

pub use address::socket_name;
pub(crate) use address::{address, fifo_path, trim_lxcpath};

mod address;
#[cfg(test)]
mod tests;

/// Length of a request's header (`struct lxc_cmd_req`).
pub(crate) const REQUEST_LEN: usize = 16;
/// Length of a response's header (`struct lxc_cmd_rsp`).
pub(crate) const RESPONSE_LEN: usize = 16;
/// The longest payload either way, `LXC_CMD_DATA_MAX`. Only the answer to CONSOLE_LOG may be
/// longer.
pub(crate) const PAYLOAD_MAX: usize = 8192;
/// Length of `struct cgroup_ctx`.
pub(crate) const CGROUP_CTX_LEN: usize = 96;
/// Length of `struct cgroup_fd`.
pub(crate) const CGROUP_FD_LEN: usize = 80;
/// Length of `struct device_item`.
pub(crate) const DEVICE_ITEM_LEN: usize = 40;
/// Length of `struct lxc_cmd_console_log`.
pub(crate) const CONSOLE_LOG_LEN: usize = 24;
/// Length of the list of wanted states: one `int` for each state.
pub(crate) const WANTED_LEN: usize = 4 * State::COUNT;
/// Length of `struct lxc_msg`. Below PIPE_BUF, so that it is written to the fifo in one piece.
pub(crate) const MESSAGE_LEN: usize = 264;
/// Most hierarchies, and so descriptors, in one `cgroup_ctx` (`CGROUP_CTX_MAX_FD`).
pub(crate) const CGROUP_CTX_MAX_FD: usize = 20;
/// What ADD_STATE_CLIENT answers when the client has to wait: the number after the last state,
/// `MAX_STATE`.
pub(crate) const MAX_STATE: i32 = State::COUNT as i32;

/// Length of the name in a state message, with its NUL (`NAME_MAX + 1`).
const NAME_LEN: usize = 256;
/// Length of the controller's name in `cgroup_fd`, with its NUL.
const CONTROLLER_LEN: usize = 64;

/// What a client asks for (`lxc_cmd_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(
    missing_docs,
    reason = "the names are LXC's, without LXC_CMD_; server::answer says what each does"
)]
pub(crate) enum Command {
    GetTtyFd = 0,
    TerminalWinch = 1,
    Stop = 2,
    GetState = 3,
    GetInitPid = 4,
    GetCloneFlags = 5,
    GetCgroup = 6,
    GetConfigItem = 7,
    GetName = 8,
    GetLxcpath = 9,
    AddStateClient = 10,
    ConsoleLog = 11,
    ServeStateClients = 12,
    SeccompNotifyAddListener = 13,
    AddBpfDeviceCgroup = 14,
    Freeze = 15,
    Unfreeze = 16,
    GetCgroup2Fd = 17,
    GetInitPidfd = 18,
    GetLimitCgroup = 19,
    GetLimitCgroup2Fd = 20,
    GetDevptsFd = 21,
    GetSeccompNotifyFd = 22,
    GetCgroupCtx = 23,
    GetCgroupFd = 24,
    GetLimitCgroupFd = 25,
    GetSystemdScope = 26,
}

impl Command {
    /// Every command in the order of its number.
    pub(crate) const ALL: [Command; 27] = [
        Command::GetTtyFd,
        Command::TerminalWinch,
        Command::Stop,
        Command::GetState,
        Command::GetInitPid,
        Command::GetCloneFlags,
        Command::GetCgroup,
        Command::GetConfigItem,
        Command::GetName,
        Command::GetLxcpath,
        Command::AddStateClient,
        Command::ConsoleLog,
        Command::ServeStateClients,
        Command::SeccompNotifyAddListener,
        Command::AddBpfDeviceCgroup,
        Command::Freeze,
        Command::Unfreeze,
        Command::GetCgroup2Fd,
        Command::GetInitPidfd,
        Command::GetLimitCgroup,
        Command::GetLimitCgroup2Fd,
        Command::GetDevptsFd,
        Command::GetSeccompNotifyFd,
        Command::GetCgroupCtx,
        Command::GetCgroupFd,
        Command::GetLimitCgroupFd,
        Command::GetSystemdScope,
    ];

    /// The command of this number, if LXC 7.0 or older has one.
    pub(crate) fn from_number(number: i32) -> Option<Command> {
        usize::try_from(number).ok().and_then(|n| Command::ALL.get(n)).copied()
    }

    /// Its number on the wire.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }
}

/// What a container does (`lxc_state_t`; unchanged since LXC 0.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are what lxc-info prints")]
pub enum State {
    Stopped = 0,
    Starting = 1,
    Running = 2,
    Stopping = 3,
    Aborting = 4,
    Freezing = 5,
    Frozen = 6,
    /// Only ever told to those who wait for it: a thawed container is RUNNING.
    Thawed = 7,
}

impl State {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them in the order of their numbers.
    pub const ALL: [State; State::COUNT] = [
        State::Stopped,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Aborting,
        State::Freezing,
        State::Frozen,
        State::Thawed,
    ];

    /// The state of this number.
    pub fn from_number(number: i32) -> Option<State> {
        usize::try_from(number).ok().and_then(|n| State::ALL.get(n)).copied()
    }

    /// Its number on the wire.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Its place in a list of wanted states.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Stopped => "STOPPED",
            State::Starting => "STARTING",
            State::Running => "RUNNING",
            State::Stopping => "STOPPING",
            State::Aborting => "ABORTING",
            State::Freezing => "FREEZING",
            State::Frozen => "FROZEN",
            State::Thawed => "THAWED",
        })
    }
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A C structure under construction: fields in the order of their offsets, the gaps and the end
/// zero.
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Bytes<N> {
    fn new() -> Self {
        Bytes([0; N])
    }

    /// Puts the field at its offset; what would go beyond the structure is cut off.
    fn put(mut self, at: usize, field: &[u8]) -> Self {
        for (to, from) in self.0.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
        self
    }
}

/// The header of a request or of a response: they are alike but for the meaning of the first field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Request: the command's number. Response: 0, or a negative errno.
    pub code: i32,
    /// How many bytes follow.
    pub datalen: i32,
    /// With `datalen` 0 the value itself, which is an `int`; else the sender's pointer, without
    /// meaning.
    pub value: i32,
}

impl Header {
    /// The 16 bytes. The value is sign-extended, as the C cast from `int` to pointer does it.
    pub fn encode(self) -> [u8; REQUEST_LEN] {
        Bytes::new()
            .put(0, &self.code.to_ne_bytes())
            .put(4, &self.datalen.to_ne_bytes())
            .put(8, &i64::from(self.value).to_ne_bytes())
            .0
    }

    /// Reads the 16 bytes; any contents are a header.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Header {
        let field = |at| i32_at(bytes, at).unwrap_or_default();
        let value = bytes.last_chunk().copied().map(i64::from_ne_bytes).unwrap_or_default();
        // An int travels in a pointer: its lower half is what was sent, on either byte order.
        Header { code: field(0), datalen: field(4), value: value as i32 }
    }
}

/// How the host's cgroups are mounted (`cgroup_layout_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Layout {
    /// Only v1.
    Legacy = 0,
    /// v1 with a v2 tree beside it.
    Hybrid = 1,
    /// Only v2.
    Unified = 2,
}

/// The kind of one hierarchy: the magic number of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum HierarchyKind {
    /// `CGROUP_SUPER_MAGIC`
    V1 = 0x0027_e0eb,
    /// `CGROUP2_SUPER_MAGIC`
    V2 = 0x6367_7270,
}

/// A bit of `utilities`: device rules can be set (by a BPF program).
pub(crate) const UTILITY_DEVICES: u32 = 1;
/// A bit of `utilities`: the container can be frozen by `cgroup.freeze`.
pub(crate) const UTILITY_FREEZER: u32 = 2;

/// The container's cgroup in every hierarchy (`struct cgroup_ctx`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupCtx {
    /// A [`Layout`], as a number.
    pub layout: i32,
    /// `UTILITY_*` bits.
    pub utilities: u32,
    /// The server's numbers of the descriptors that come along; at most [`CGROUP_CTX_MAX_FD`].
    pub fds: Vec<i32>,
}

impl CgroupCtx {
    /// The 96 bytes.
    pub fn encode(&self) -> [u8; CGROUP_CTX_LEN] {
        let fds = self.fds.get(..CGROUP_CTX_MAX_FD).unwrap_or(&self.fds);
        let mut bytes = Bytes::new()
            .put(0, &self.layout.to_ne_bytes())
            .put(4, &self.utilities.to_ne_bytes())
            .put(8, &(fds.len() as u32).to_ne_bytes());
        for (i, fd) in fds.iter().enumerate() {
            bytes = bytes.put(12 + 4 * i, &fd.to_ne_bytes());
        }
        bytes.0
    }

    /// Reads the structure; `None` if it is too short or claims too many descriptors.
    pub fn decode(bytes: &[u8]) -> Option<CgroupCtx> {
        let bytes = bytes.get(..CGROUP_CTX_LEN)?;
        let count = usize::try_from(u32_at(bytes, 8)?).ok().filter(|n| *n <= CGROUP_CTX_MAX_FD)?;
        let fds = (0..count).map(|i| i32_at(bytes, 12 + 4 * i)).collect::<Option<Vec<i32>>>()?;
        Some(CgroupCtx { layout: i32_at(bytes, 0)?, utilities: u32_at(bytes, 4)?, fds })
    }
}

/// The container's cgroup in the hierarchy of one controller (`struct cgroup_fd`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupFd {
    /// A [`Layout`], as a number.
    pub layout: i32,
    /// `UTILITY_*` bits.
    pub utilities: u32,
    /// A [`HierarchyKind`], as a number; 0 in a request: any.
    pub kind: i32,
    /// The server's number of the descriptor that comes along.
    pub fd: i32,
    /// The controller's name.
    pub controller: String,
}

impl CgroupFd {
    /// The 80 bytes; a controller's name beyond 63 bytes is cut.
    pub fn encode(&self) -> [u8; CGROUP_FD_LEN] {
        let name = self.controller.as_bytes();
        Bytes::new()
            .put(0, &self.layout.to_ne_bytes())
            .put(4, &self.utilities.to_ne_bytes())
            .put(8, &self.kind.to_ne_bytes())
            .put(12, &self.fd.to_ne_bytes())
            .put(16, name.get(..CONTROLLER_LEN - 1).unwrap_or(name))
            .0
    }

    /// Reads the structure. A shorter one, of an older client, is filled up with zeros; a longer
    /// one counts as all zeros, as LXC has it (`lxc_cmd` "extensible structs"). A name without NUL
    /// or not in UTF-8 is no name.
    pub fn decode(bytes: &[u8]) -> CgroupFd {
        let usable = if bytes.len() > CGROUP_FD_LEN { &[] } else { bytes };
        let bytes = Bytes::<CGROUP_FD_LEN>::new().put(0, usable).0;
        let field = |at| i32_at(&bytes, at).unwrap_or_default();
        let controller = bytes.get(16..).and_then(c_prefix).unwrap_or_default();
        CgroupFd {
            layout: field(0),
            utilities: field(4) as u32,
            kind: field(8),
            fd: field(12),
            controller: controller.to_owned(),
        }
    }
}

/// One rule of the device cgroup (`struct device_item`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceItem {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Major number; -1 is any.
    pub major: i32,
    /// Minor number; -1 is any.
    pub minor: i32,
    /// Some of `rwm`.
    pub access: String,
    /// Whether the rule allows or denies.
    pub allow: bool,
}

impl DeviceItem {
    /// The 40 bytes; the two pointers at the end are null.
    pub fn encode(&self) -> [u8; DEVICE_ITEM_LEN] {
        let access = self.access.as_bytes();
        Bytes::new()
            .put(0, &[u8::try_from(self.kind).unwrap_or(b'a')])
            .put(4, &self.major.to_ne_bytes())
            .put(8, &self.minor.to_ne_bytes())
            .put(12, access.get(..3).unwrap_or(access))
            .put(16, &i32::from(self.allow).to_ne_bytes())
            .0
    }

    /// Reads the structure; `None` unless it has exactly its size and makes a rule.
    pub fn decode(bytes: &[u8]) -> Option<DeviceItem> {
        let bytes: &[u8; DEVICE_ITEM_LEN] = bytes.try_into().ok()?;
        let kind = char::from(*bytes.first()?);
        let access = bytes.get(12..16).and_then(c_prefix)?;
        let allow = match i32_at(bytes, 16)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let sound = matches!(kind, 'a' | 'b' | 'c') && access.chars().all(|c| "rwm".contains(c));
        let (major, minor) = (i32_at(bytes, 4)?, i32_at(bytes, 8)?);
        (sound && major >= -1 && minor >= -1).then(|| DeviceItem {
            kind,
            major,
            minor,
            access: access.to_owned(),
            allow,
        })
    }
}

/// What is asked of the console's ring buffer (`struct lxc_cmd_console_log`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLog {
    /// Afterwards it is to be empty.
    pub clear: bool,
    /// Its content is to be sent, and is gone then.
    pub read: bool,
    /// At most so many bytes; 0 is all.
    pub most: u64,
}

impl ConsoleLog {
    /// The 24 bytes. (There is another flag at 16, which no client of LXC 5 to 7 sets.)
    pub fn encode(self) -> [u8; CONSOLE_LOG_LEN] {
        Bytes::new()
            .put(0, &[u8::from(self.clear), u8::from(self.read)])
            .put(8, &self.most.to_ne_bytes())
            .0
    }

    /// Reads the structure; `None` unless it has exactly its size.
    pub fn decode(bytes: &[u8]) -> Option<ConsoleLog> {
        let bytes: &[u8; CONSOLE_LOG_LEN] = bytes.try_into().ok()?;
        let most = bytes.get(8..)?.first_chunk().copied().map(u64::from_ne_bytes)?;
        Some(ConsoleLog { clear: bytes[0] != 0, read: bytes[1] != 0, most })
    }
}

/// Which states a client waits for: 0 no, 1 yes, 2 yes but not if it is so already (it waits for a
/// reboot).
pub(crate) type Wanted = [i32; State::COUNT];

/// The 32 bytes of a list of wanted states.
pub(crate) fn encode_wanted(wanted: &Wanted) -> [u8; WANTED_LEN] {
    let mut bytes = Bytes::new();
    for (i, want) in wanted.iter().enumerate() {
        bytes = bytes.put(4 * i, &want.to_ne_bytes());
    }
    bytes.0
}

/// Reads a list of wanted states; `None` unless it has exactly its size.
pub fn decode_wanted(bytes: &[u8]) -> Option<Wanted> {
    let bytes: &[u8; WANTED_LEN] = bytes.try_into().ok()?;
    let mut wanted = [0; State::COUNT];
    for (i, want) in wanted.iter_mut().enumerate() {
        *want = i32_at(bytes, 4 * i)?;
    }
    Some(wanted)
}

/// What is told to state clients and to lxc-monitor's fifo (`struct lxc_msg`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The container.
    pub name: String,
    /// The news.
    pub news: News,
}

/// The news in a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The container is now in this state.
    State(State),
    /// Init ended with this status, as wait(2) gives it.
    ExitCode(i32),
}

impl Message {
    /// The 264 bytes; a name beyond 255 bytes is cut.
    pub fn encode(&self) -> [u8; MESSAGE_LEN] {
        let (kind, value) = match self.news {
            News::State(state) => (0i32, state.number()),
            News::ExitCode(status) => (2, status),
        };
        let name = self.name.as_bytes();
        Bytes::new()
            .put(0, &kind.to_ne_bytes())
            .put(4, name.get(..NAME_LEN - 1).unwrap_or(name))
            .put(4 + NAME_LEN, &value.to_ne_bytes())
            .0
    }

    /// Reads a message; `None` for a wrong size, an unknown kind or state, or a name that is none.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let bytes: &[u8; MESSAGE_LEN] = bytes.try_into().ok()?;
        let value = i32_at(bytes, 4 + NAME_LEN)?;
        let news = match i32_at(bytes, 0)? {
            0 => News::State(State::from_number(value)?),
            2 => News::ExitCode(value),
            _ => return None,
        };
        let name = bytes.get(4..4 + NAME_LEN).and_then(c_prefix)?;
        Some(Message { name: name.to_owned(), news })
    }
}

/// The text before the first NUL of a fixed-size field; `None` if there is no NUL or it is not
/// UTF-8.
fn c_prefix(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0)?;
    std::str::from_utf8(field.get(..end)?).ok()
}

/// The text of a payload that is one C string: its only NUL is its last byte. `None` if it is not
/// clean.
pub fn c_string(payload: &[u8]) -> Option<&str> {
    c_prefix(payload).filter(|text| text.len() + 1 == payload.len())
}

/// A text as payload: with its NUL.
pub(crate) fn to_c_string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}
