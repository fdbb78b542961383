//! Sockets: what they are, whom they are bound to, what waits in them, and every option that
//! getsockopt(2) knows.
//!
//! A socket that several descriptors refer to is read once, at the first of them.

mod address;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;

use super::compare::plain;
use super::family::Family;
use super::open::{self, Open};
use super::proc::{Numbers, digest, note, processes};
use super::snapshot::{Snapshot, Standing};
use super::state::{Class, PutBack, State, states};
use crate::sys::{kernel_state, multicast, netlink};
use options::{OPTIONS, Of, SocketOption};

/// Sockets.
pub(crate) const FAMILY: Family = Family { name: "sockets", states: rows, read };

states! { own_rows;
    LOCAL = "socket.address", PutBack::Criu, Class::Breaks, "it cannot be reached";
    PEER = "socket.peer", PutBack::Criu, Class::Breaks, "it is connected to another one, or to none";
    UNIX_NAME =
        "socket.unix-name", PutBack::Cannot("CRIU connects it by socketpair(2)"), Class::Bearable,
        "getsockname(2) of a connection says nothing";
    UNIX_PEER_NAME =
        "socket.unix-peer-name", PutBack::Cannot("CRIU connects it by socketpair(2)"), Class::Bearable,
        "getpeername(2) of a connection says nothing";
    PEER_USER =
        "peer-credentials", PutBack::Cannot("the kernel takes it from who connects"), Class::Weakens,
        "it takes its peer for another user";
    PEER_PID =
        "peer-pid", PutBack::Cannot("the kernel takes it from who connects"), Class::Bearable,
        "it takes its peer for another process";
    UNIX_PEER = "socket.unix-peer", PutBack::Criu, Class::Breaks, "its other end is another one";
    UNREAD = "socket.unread", PutBack::Criu, Class::Breaks, "data that has arrived is lost";
    UNSENT = "socket.unsent", PutBack::Criu, Class::Varies, "peers outside confirm data while the container stands still";
    FILTER = "socket.filter", PutBack::Criu, Class::Weakens, "packets reach it that did not";
    GROUPS = "socket.groups", PutBack::Us, Class::Breaks, "multicast does not reach it";
    TCP_STATE = "tcp.state", PutBack::Criu, Class::Breaks, "the connection is in another state";
    TCP_OPTIONS = "tcp.options", PutBack::Criu, Class::Breaks, "both ends no longer understand each other";
    TCP_SCALE = "tcp.window-scale", PutBack::Criu, Class::Breaks, "both ends no longer understand each other";
    TCP_KEYS = "tcp.md5-keys", PutBack::Us, Class::Weakens, "unsigned peers are served";
}

fn rows() -> Vec<&'static State> {
    own_rows().into_iter().chain(OPTIONS.iter().map(|option| &option.state)).collect()
}

/// No option is longer, in bytes, but for what is cut off.
const BUFFER: usize = 256;

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let numbers = Numbers::of(standing);
    let all: Vec<Open> = open::all(standing)
        .into_iter()
        .filter(|open| open.target.starts_with("socket:["))
        .collect();
    let mut first: BTreeMap<&str, &Open> = BTreeMap::new();
    for open in &all {
        first.entry(&open.target).or_insert(open);
    }
    let around = Around::of(standing, &first);
    for (target, open) in &first {
        match open.duplicate() {
            Ok(fd) => of_socket(open, target, &fd, &numbers, &around, snapshot),
            Err(e) => snapshot.miss(open.subject(), &LOCAL, e),
        }
    }
}

/// What the network namespaces say of their sockets.
#[derive(Debug, Default)]
struct Around {
    /// The other end of a unix socket that is connected: inode by inode.
    peers: BTreeMap<u32, u32>,
    /// The first descriptor of each socket.
    names: BTreeMap<u32, String>,
    /// The groups that anybody in those namespaces has joined.
    groups: BTreeSet<multicast::Group>,
    /// The keys of TCP sockets.
    keys: BTreeMap<u32, String>,
    /// What could not be read.
    errors: Vec<(&'static State, String)>,
}

impl Around {
    fn of(standing: &Standing, first: &BTreeMap<&str, &Open>) -> Around {
        let names =
            first.iter().filter_map(|(target, open)| Some((inode(target)?, open.name()))).collect();
        let mut around = Around { names, ..Around::default() };
        let mut seen = BTreeSet::new();
        for process in processes(standing) {
            let Ok(namespace) = std::fs::read_link(process.path("ns/net")) else { continue };
            if !seen.insert(namespace) {
                continue;
            }
            match multicast::joined(process.host_pid) {
                Ok(groups) => around.groups.extend(groups),
                Err(e) => around.errors.push((&GROUPS, e.to_string())),
            }
            let net = [("net", CloneFlags::CLONE_NEWNET)];
            let asked = kernel_state::within(process.host_pid, &net, || {
                Ok((netlink::unix_peers(), netlink::tcp_keys()))
            });
            match asked {
                Ok((peers, keys)) => {
                    around.note(peers, &UNIX_PEER, |around, peers| around.peers.extend(peers));
                    around.note(keys, &TCP_KEYS, |around, keys| around.keys.extend(keys));
                }
                Err(e) => around.errors.push((&UNIX_PEER, e.to_string())),
            }
        }
        around
    }

    fn note<T>(
        &mut self,
        read: Result<T, netlink::Error>,
        state: &'static State,
        keep: impl FnOnce(&mut Around, T),
    ) {
        match read {
            Ok(found) => keep(self, found),
            Err(e) => self.errors.push((state, e.to_string())),
        }
    }
}

/// `socket:[4711]`.
fn inode(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn of_socket(
    open: &Open,
    target: &str,
    socket: &OwnedFd,
    numbers: &Numbers,
    around: &Around,
    snapshot: &mut Snapshot,
) {
    let (subject, fd) = (|| open.subject(), socket.as_fd());
    let kind = Kind::of(fd);
    of_ends(open, fd, kind, numbers, snapshot);
    for option in OPTIONS.iter().filter(|option| kind.has(option.of)) {
        if let Some(value) = value_of(option, fd) {
            snapshot.enter(subject(), &option.state, value);
        }
    }
    for (request, state) in [(libc::FIONREAD, &UNREAD), (libc::TIOCOUTQ, &UNSENT)] {
        // A listening socket, for one, has neither.
        if let Ok(bytes) = kernel_state::request::<4>(fd, request) {
            snapshot.enter(subject(), state, i32::from_ne_bytes(bytes).to_string());
        }
    }
    // A filter that bpf(2) has made cannot be read so.
    match kernel_state::socket_filter(fd) {
        Ok(code) if code.is_empty() => {}
        Ok(code) => snapshot.enter(subject(), &FILTER, digest(&code)),
        Err(e) => snapshot.miss(subject(), &FILTER, e),
    }
    of_tcp(open, fd, snapshot);
    of_surroundings(open, target, socket, around, snapshot);
}

/// What decides which options are states of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    is_inet: bool,
    is_unix: bool,
    is_stream: bool,
    has_peer: bool,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> Kind {
        let number = |option| {
            let mut value = vec![0; 4];
            kernel_state::socket_option(fd, libc::SOL_SOCKET, option, &mut value).ok()?;
            value.try_into().ok().map(i32::from_ne_bytes)
        };
        let (family, kind) = (number(libc::SO_DOMAIN), number(libc::SO_TYPE));
        Kind {
            is_inet: [libc::AF_INET, libc::AF_INET6].map(Some).contains(&family),
            is_unix: family == Some(libc::AF_UNIX),
            is_stream: [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(Some).contains(&kind),
            has_peer: kernel_state::socket_address(fd, true).is_ok(),
        }
    }

    fn has(self, of: Of) -> bool {
        match of {
            Of::Any => true,
            Of::Inet => self.is_inet,
            Of::Unconnected => self.is_inet && !self.has_peer,
            Of::Connected => self.is_inet && self.has_peer,
            Of::Datagrams => !self.is_stream,
            Of::Streams => self.is_stream,
        }
    }
}

/// Names and credentials. Where nothing is accepted, chance decides what the kernel has of a peer.
fn of_ends(
    open: &Open,
    fd: BorrowedFd<'_>,
    kind: Kind,
    numbers: &Numbers,
    snapshot: &mut Snapshot,
) {
    let subject = || open.subject();
    let (local, peer) = match kind {
        Kind { is_unix: true, has_peer: true, .. } => (&UNIX_NAME, &UNIX_PEER_NAME),
        _ => (&LOCAL, &PEER),
    };
    let address = kernel_state::socket_address(fd, false).map(|address| address::shown(&address));
    note(snapshot, subject(), local, address);
    // Without a peer there is no such address.
    if let Ok(address) = kernel_state::socket_address(fd, true) {
        snapshot.enter(subject(), peer, address::shown(&address));
    }
    let mut credentials = vec![0u8; 12];
    if !(kind.is_unix && kind.is_stream)
        || kernel_state::socket_option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut credentials)
            .is_err()
    {
        return;
    }
    let number = |at: usize| {
        credentials.get(at..at + 4).and_then(|n| n.try_into().ok()).map_or(0, i32::from_ne_bytes)
    };
    let pid = if number(0) == 0 { "none".to_owned() } else { numbers.owner(number(0)) };
    snapshot.enter(subject(), &PEER_PID, pid);
    let (uid, gid) = (number(4).cast_unsigned(), number(8).cast_unsigned());
    snapshot.enter(subject(), &PEER_USER, format!("uid {uid} gid {gid}"));
}

fn value_of(option: &SocketOption, fd: BorrowedFd<'_>) -> Option<String> {
    let mut value = vec![0u8; BUFFER];
    // What the socket does not have is no state of it.
    kernel_state::socket_option(fd, option.level, option.number, &mut value).ok()?;
    let number = |at: usize| value.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    Some(match value.len() {
        1 => value[0].to_string(),
        4 => number(0)?.to_string(),
        _ if is_text(&value) => plain(value.split(|byte| *byte == 0).next().unwrap_or_default()),
        _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Printable, up to a NUL at least.
fn is_text(value: &[u8]) -> bool {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    !text.is_empty()
        && text.iter().all(u8::is_ascii_graphic)
        && value[text.len()..].iter().all(|byte| *byte == 0)
}

/// What `struct tcp_info` begins with: state, congestion, retransmits, probes, backoff, options,
/// and both window scales.
fn of_tcp(open: &Open, fd: BorrowedFd<'_>, snapshot: &mut Snapshot) {
    let mut value = vec![0u8; BUFFER];
    let asked = kernel_state::socket_option(fd, libc::SOL_TCP, libc::TCP_INFO, &mut value);
    if let (Ok(()), [state, _, _, _, _, options, scales, ..]) = (asked, value.as_slice()) {
        const ESTABLISHED: u8 = 1;
        snapshot.enter(open.subject(), &TCP_STATE, state.to_string());
        if *state == ESTABLISHED {
            // Without what depends on packets of the moment: ECN seen, data in the first one.
            const LASTING: u8 = 0x0f;
            snapshot.enter(open.subject(), &TCP_OPTIONS, format!("{:#x}", options & LASTING));
            snapshot.enter(open.subject(), &TCP_SCALE, format!("{:#x}", scales));
        }
    }
}

fn of_surroundings(
    open: &Open,
    target: &str,
    socket: &OwnedFd,
    around: &Around,
    snapshot: &mut Snapshot,
) {
    let Some(inode) = inode(target) else { return };
    if let Some(peer) = around.peers.get(&inode) {
        let name = around.names.get(peer).map_or("outside of the container", String::as_str);
        snapshot.enter(open.subject(), &UNIX_PEER, name);
    }
    if let Some(keys) = around.keys.get(&inode) {
        snapshot.enter(open.subject(), &TCP_KEYS, keys.clone());
    }
    for group in around.groups.iter().filter(|group| multicast::is_member(socket, **group)) {
        snapshot.enter(open.subject(), &GROUPS, format!("{} on {}", group.1, group.0));
    }
    for (state, error) in &around.errors {
        snapshot.miss(open.subject(), state, error);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_socket_of_our_own_is_read_with_its_options() {
        let me = std::process::id().cast_signed();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_ttl(33).unwrap();
        let mut snapshot = Snapshot::new();
        read(&Standing { init: me, tasks: vec![me] }, &mut snapshot);
        let subject = Subject::Descriptor { pid: me, fd: socket.as_raw_fd() };
        let value = |name| snapshot.value(&subject, super::super::state::by_name(name).unwrap());
        assert_eq!((value("socket.ip-ttl"), value("socket.so-type")), (Some("33"), Some("2")));
        assert_eq!(
            value("socket.address"),
            Some(socket.local_addr().unwrap().to_string().as_str())
        );
        assert_eq!(value("socket.unread"), Some("0"));
    }

    #[test]
    fn text_is_told_from_numbers() {
        assert!(is_text(b"cubic\0\0") && !is_text(b"\0\0") && !is_text(b"ab\0c"));
        assert_eq!((inode("socket:[12]"), inode("pipe:[12]")), (Some(12), None));
    }
}
