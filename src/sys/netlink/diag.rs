//! Who is connected to whom by unix sockets, and who waits to be accepted: sock_diag(7), which the
//! crates of rtnetlink do not speak.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{ANSWER_LIMIT, Error};

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/unix_diag.h: show the other end.
const UDIAG_SHOW_PEER: u32 = 4;
/// Show whose connections wait to be accepted, and the lengths of queues.
const UDIAG_SHOW_ICONS: u32 = 8;
const UDIAG_SHOW_RQLEN: u32 = 16;
/// linux/unix_diag.h: the attribute with the inode of the other end.
const UNIX_DIAG_PEER: u16 = 2;
/// The inodes of the other ends of connections that wait, and two lengths: received, and sent but
/// not yet read.
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
/// linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// The header that every message begins with, nlmsghdr.
const HEADER: usize = 16;
/// What an answer about a unix socket begins with, unix_diag_msg.
const UNIX_MESSAGE: usize = 16;
/// Where inet_diag_msg has the length of the receive queue and the inode.
const INET_QUEUE: usize = 56;
const INET_INODE: usize = 68;
/// What an answer about a TCP socket begins with, inet_diag_msg.
const INET_MESSAGE: usize = 72;
/// linux/inet_diag.h: the attribute with the keys, and how long one of them is there.
const INET_DIAG_MD5SIG: u16 = 18;
const TCP_KEY: usize = 100;
/// Of all states, listening alone: the kernel then need not look through its table of connections.
const LISTENING: u32 = 1 << 10;

/// The connected unix sockets of this thread's network namespace: the inode of each, and of its
/// other end.
///
/// # Errors
/// When the kernel cannot list them (`unix_diag` is a module).
pub(crate) fn unix_peers() -> Result<Vec<(u32, u32)>, Error> {
    let mut peers = Vec::new();
    ask(&unix_question(UDIAG_SHOW_PEER), |message| {
        if let Some(inode) = u32_at(message, 4)
            && let Some(peer) = message.get(UNIX_MESSAGE..).and_then(peer_of)
            && peer != 0
        {
            peers.push((inode, peer));
        }
    })?;
    Ok(peers)
}

/// The listening unix sockets of this thread's network namespace with a connection that no process
/// has accepted and on which something was sent already.
///
/// # Errors
/// Those of [`unix_peers`].
pub(crate) fn unix_requests() -> Result<Vec<u32>, Error> {
    let mut waiting = Vec::new();
    let mut sent = BTreeSet::new();
    ask(&unix_question(UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN), |message| {
        let (Some(inode), Some(attributes)) = (u32_at(message, 4), message.get(UNIX_MESSAGE..))
        else {
            return;
        };
        if let Some(clients) = attribute(attributes, UNIX_DIAG_ICONS) {
            waiting.extend(
                clients.chunks_exact(4).filter_map(|client| Some((inode, u32_at(client, 0)?))),
            );
        } else if attribute(attributes, UNIX_DIAG_RQLEN).and_then(|lengths| u32_at(lengths, 4))
            > Some(0)
        {
            sent.insert(inode);
        }
    })?;
    let listeners: BTreeSet<u32> = waiting
        .into_iter()
        .filter(|(_, client)| sent.contains(client))
        .map(|(listener, _)| listener)
        .collect();
    Ok(listeners.into_iter().collect())
}

/// Family, protocol, padding; all states; any inode; what to show; no cookie.
fn unix_question(show: u32) -> Vec<u8> {
    let mut question = vec![1, 0, 0, 0];
    question.extend(u32::MAX.to_ne_bytes());
    question.extend(0u32.to_ne_bytes());
    question.extend(show.to_ne_bytes());
    question.extend([0xff; 8]);
    question
}

/// The listening TCP sockets of this thread's network namespace: the inode of each, and how many
/// connections wait to be accepted.
///
/// # Errors
/// When the kernel cannot list them (`inet_diag` and `tcp_diag` are modules).
pub(crate) fn tcp_listeners() -> Result<Vec<(u32, u32)>, Error> {
    let mut listeners = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Family, protocol, no extensions, padding; states; any address.
        let mut question = vec![family.to_le_bytes()[0], libc::IPPROTO_TCP.to_le_bytes()[0], 0, 0];
        question.extend(LISTENING.to_ne_bytes());
        question.extend([0; 48]);
        ask(&question, |message| {
            if let (Some(queue), Some(inode)) =
                (u32_at(message, INET_QUEUE), u32_at(message, INET_INODE))
            {
                listeners.push((inode, queue));
            }
        })?;
    }
    Ok(listeners)
}

/// The keys (`TCP_MD5SIG`) of TCP sockets of this thread's network namespace: the inode of each
/// socket, and of each key the peers that it is for, its length and a checksum of it.
///
/// # Errors
/// When the kernel cannot list them (`inet_diag` and `tcp_diag` are modules).
pub(crate) fn tcp_keys() -> Result<Vec<(u32, String)>, Error> {
    let mut keys = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut question = vec![family.to_le_bytes()[0], libc::IPPROTO_TCP.to_le_bytes()[0], 0, 0];
        question.extend(u32::MAX.to_ne_bytes());
        question.extend([0; 48]);
        ask(&question, |message| {
            let found = message
                .get(INET_MESSAGE..)
                .and_then(|attributes| attribute(attributes, INET_DIAG_MD5SIG));
            if let (Some(found), Some(inode)) = (found, u32_at(message, INET_INODE)) {
                let mut shown: Vec<String> = found.chunks_exact(TCP_KEY).map(shown_key).collect();
                shown.sort_unstable();
                keys.push((inode, shown.join("\n")));
            }
        })?;
    }
    Ok(keys)
}

/// A `struct tcp_diag_md5sig`: family, length of the prefix, length of the key, address, key.
fn shown_key(key: &[u8]) -> String {
    let address = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (family, prefix) =
        (key.first().copied().unwrap_or_default(), key.get(1).copied().unwrap_or_default());
    let length = usize::from(u16_at(key, 2).unwrap_or_default());
    let secret = key.get(20..20 + length).unwrap_or_default();
    let sum: String = blake3::hash(secret).to_hex().chars().take(8).collect();
    format!(
        "family {family} {}/{prefix} {length} bytes {sum}",
        address(key.get(4..20).unwrap_or_default())
    )
}

/// Asks for all sockets of a kind, and hands each answer over.
#[expect(clippy::disallowed_methods, reason = "the socket has a limit")]
fn ask(question: &[u8], mut answer: impl FnMut(&[u8])) -> Result<(), Error> {
    let setup = |what: &'static str| move |e: nix::errno::Errno| Error::Setup(what, e.into());
    let fd: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .map_err(setup("open a sock_diag socket"))?;
    setsockopt(
        &fd,
        ReceiveTimeout,
        &TimeVal::seconds(i64::try_from(ANSWER_LIMIT.as_secs()).unwrap_or(1)),
    )
    .map_err(setup("set a time limit"))?;
    let mut request = Vec::with_capacity(HEADER + question.len());
    request.extend(u32::try_from(HEADER + question.len()).unwrap_or_default().to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(question);
    send(fd.as_raw_fd(), &request, MsgFlags::empty()).map_err(|e| Error::Kernel(e.into()))?;
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(|e| match e {
            nix::errno::Errno::EAGAIN => Error::NoAnswer,
            other => Error::Kernel(other.into()),
        })?;
        if !messages(&buffer[..length], &mut answer)? {
            return Ok(());
        }
    }
}

/// Reads what one datagram holds; whether more is to come.
fn messages(mut bytes: &[u8], answer: &mut impl FnMut(&[u8])) -> Result<bool, Error> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let message = bytes.get(HEADER..length).ok_or(Error::Incomplete("end"))?;
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).map_or(0, u32::cast_signed);
                return Err(Error::Kernel(std::io::Error::from_raw_os_error(code.wrapping_neg())));
            }
            _ => answer(message),
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(true)
}

fn peer_of(attributes: &[u8]) -> Option<u32> {
    u32_at(attribute(attributes, UNIX_DIAG_PEER)?, 0)
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length).max(4);
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

/// Messages and attributes begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pair_is_each_others_peer() {
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |s: &UnixStream| {
            let meta = std::fs::metadata(format!("/proc/self/fd/{}", s.as_raw_fd())).unwrap();
            u32::try_from(meta.ino()).unwrap()
        };
        let peers = unix_peers().unwrap();
        assert!(
            peers.contains(&(inode(&one), inode(&other)))
                && peers.contains(&(inode(&other), inode(&one)))
        );
    }

    #[test]
    fn a_connection_waits_until_it_is_accepted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let meta = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = u32::try_from(meta.ino()).unwrap();
        assert!(tcp_listeners().unwrap().contains(&(inode, 0)));
        let _connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(tcp_listeners().unwrap().contains(&(inode, 1)));
    }

    #[test]
    fn a_request_waits_until_it_is_accepted() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let meta = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let waits = || unix_requests().unwrap().contains(&u32::try_from(meta.ino()).unwrap());
        let mut client = UnixStream::connect(dir.path().join("s")).unwrap();
        assert!(!waits(), "nothing was sent");
        client.write_all(b"request").unwrap();
        assert!(waits());
        let _server = listener.accept().unwrap();
        assert!(!waits());
    }

    #[test]
    fn damaged_answers_end_the_reading() {
        let mut answers = 0;
        let mut read = |bytes: &[u8]| messages(bytes, &mut |_| answers += 1);
        assert!(read(&[]).unwrap());
        assert!(read(&[9; 40]).is_err());
        let mut zero = [0; 32];
        zero[0] = 16;
        assert!(read(&zero[..16]).unwrap());
        assert_eq!(answers, 1);
    }
}
