//! Messages of netlink byte for byte: what the kernel describes is kept as it is and given back to
//! it later, whatever attributes a newer kernel adds. For tables that have to come back whole
//! (addresses, routes, neighbours, queueing, tracked connections), where parsing into types would
//! drop what the types do not know.
//!
//! A [`Socket`] belongs to the network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ANSWER_LIMIT, DUMP_TRIES, Error};

/// `nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `nlattr`: length, type.
const ATTRIBUTE_HEADER: usize = 4;
/// The bits of an attribute's type that are flags (nested, byte order).
const ATTRIBUTE_FLAGS: u16 = 0xc000;
/// The flag of an attribute that holds others.
pub(crate) const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The object must be new.
pub(crate) const EXCLUSIVE: u16 = 0x200 | CREATE;
/// The object is made if it is not there.
pub(crate) const CREATE: u16 = 0x400;
/// An object that is there becomes this one.
pub(crate) const REPLACE: u16 = 0x100 | CREATE;
/// The object is added after others of the same key.
pub(crate) const APPEND: u16 = 0x800 | CREATE;
/// The kernel answers with at most 32 KiB at a time.
const BUFFER: usize = 128 << 10;

/// A family of netlink (linux/netlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Links, addresses, routes, neighbours, queueing.
    Route,
    /// IPsec.
    Xfrm,
    /// Tracked connections.
    Netfilter,
}

impl Protocol {
    fn number(self) -> libc::c_int {
        match self {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Xfrm => libc::NETLINK_XFRM,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
        }
    }
}

/// A message without its `nlmsghdr`: its type, then a header whose size the type decides, then
/// attributes. In a file it is hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl Message {
    /// A message of this type with this header.
    pub fn new(kind: u16, header: impl Into<Vec<u8>>) -> Message {
        Message { kind, payload: header.into() }
    }

    /// The same with another type.
    pub fn of_kind(&self, kind: u16) -> Message {
        Message { kind, payload: self.payload.clone() }
    }

    /// The same, ended after its header.
    pub fn bare(&self, kind: u16, header: usize) -> Message {
        Message { kind, payload: self.payload.get(..header).unwrap_or(&self.payload).to_vec() }
    }

    /// Its type.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// A byte of its header; 0 behind its end.
    pub fn byte(&self, at: usize) -> u8 {
        self.payload.get(at).copied().unwrap_or_default()
    }

    /// A number of its header; 0 behind its end.
    pub fn number(&self, at: usize) -> u32 {
        number_of(self.payload.get(at..).unwrap_or_default()).unwrap_or_default()
    }

    /// Sets a number of its header.
    pub fn set_number(&mut self, at: usize, number: u32) {
        if let Some(bytes) = self.payload.get_mut(at..at + 4) {
            bytes.copy_from_slice(&number.to_ne_bytes());
        }
    }

    /// Sets a byte of its header.
    pub fn set_byte(&mut self, at: usize, value: u8) {
        if let Some(byte) = self.payload.get_mut(at) {
            *byte = value;
        }
    }

    /// Its attributes behind a header of this size.
    pub fn attributes(&self, header: usize) -> Vec<(u16, &[u8])> {
        attributes(self.payload.get(header..).unwrap_or_default())
    }

    /// One of its attributes.
    pub fn attribute(&self, header: usize, kind: u16) -> Option<&[u8]> {
        self.attributes(header).into_iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// One that is a number.
    pub fn attribute_number(&self, header: usize, kind: u16) -> Option<u32> {
        self.attribute(header, kind).and_then(number_of)
    }

    /// Adds an attribute.
    pub fn push(&mut self, kind: u16, value: &[u8]) {
        push(&mut self.payload, kind, value);
    }

    /// The same with other attributes: each as `change` makes it, without those for which it gives
    /// none.
    pub fn changed(
        &self,
        header: usize,
        change: impl FnMut(u16, &[u8]) -> Option<Vec<u8>>,
    ) -> Message {
        let head = self.payload.get(..header).unwrap_or(&self.payload);
        let mut payload = head.to_vec();
        payload.extend(changed(self.payload.get(header..).unwrap_or_default(), change));
        Message { kind: self.kind, payload }
    }
}

/// The first four bytes as a number.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

/// Attributes, each with its type without flags. What is cut off is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((kind, value, rest)) = next(bytes) {
        found.push((kind & !ATTRIBUTE_FLAGS, value));
        bytes = rest;
    }
    found
}

/// One of some attributes.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// Attributes as `change` makes them, without those for which it gives none; flags of types are
/// kept.
pub(crate) fn changed(
    mut bytes: &[u8],
    mut change: impl FnMut(u16, &[u8]) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let mut made = Vec::new();
    while let Some((kind, value, rest)) = next(bytes) {
        if let Some(value) = change(kind & !ATTRIBUTE_FLAGS, value) {
            push(&mut made, kind, &value);
        }
        bytes = rest;
    }
    made
}

/// Adds an attribute to others.
pub(crate) fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.resize(aligned(bytes.len()), 0);
    // The kernel's own attributes are never longer than 64 KiB.
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [a, b, c, d] = *bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
    let length = usize::from(u16::from_ne_bytes([a, b]));
    let value = bytes.get(ATTRIBUTE_HEADER..length)?;
    Some((u16::from_ne_bytes([c, d]), value, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A socket of netlink.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one in the calling thread's network namespace; it stays there.
    pub(crate) fn open(protocol: Protocol) -> Result<Socket, Error> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol.number()) };
        if fd < 0 {
            return Err(Error::Setup("netlink socket", io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just given us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let limit = TimeVal::seconds(i64::try_from(ANSWER_LIMIT.as_secs()).unwrap_or(1));
        let set = setsockopt(&fd, ReceiveTimeout, &limit)
            .and_then(|()| setsockopt(&fd, SendTimeout, &limit));
        set.map_err(|e| Error::Setup("netlink socket", e.into()))?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Lists something, again if it changed meanwhile.
    pub(crate) fn dump(&mut self, question: &Message) -> Result<Vec<Message>, Error> {
        for _ in 0..DUMP_TRIES {
            self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
            let (found, interrupted) = self.answers()?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Error::Unsteady)
    }

    /// Changes something: the kernel acknowledges or refuses.
    pub(crate) fn change(&mut self, message: &Message, flags: u16) -> Result<(), Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers().map(drop)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel takes it at once or says that it has no room"
    )]
    fn send(&mut self, message: &Message, flags: u16) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + message.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(message.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&message.payload);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())
            .map_err(|e| Error::Kernel(e.into()))?;
        Ok(())
    }

    /// The answer to the last question, and whether what it lists changed meanwhile.
    #[expect(clippy::disallowed_methods, reason = "the socket has a limit")]
    fn answers(&mut self) -> Result<(Vec<Message>, bool), Error> {
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Err(Error::NoAnswer),
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::Kernel(e.into())),
            };
            let mut bytes = &self.buffer[..length];
            while let Some(head) = bytes.first_chunk::<HEADER>() {
                let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *head;
                let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
                let kind = u16::from_ne_bytes([k0, k1]);
                let payload = bytes.get(HEADER..length).ok_or(Error::Incomplete("end"))?;
                let ours = u32::from_ne_bytes([s0, s1, s2, s3]) == self.sequence;
                interrupted |= ours && u16::from_ne_bytes([f0, f1]) & NLM_F_DUMP_INTR != 0;
                match kind {
                    // Of a question that was given up.
                    _ if !ours => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match number_of(payload).map_or(0, u32::cast_signed) {
                            0 => Ok((found, interrupted)),
                            code => Err(Error::from_errno(code.wrapping_neg())),
                        };
                    }
                    _ => found.push(Message { kind, payload: payload.to_vec() }),
                }
                bytes = bytes.get(aligned(length)..).unwrap_or_default();
            }
        }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.kind.to_ne_bytes().into_iter().chain(self.payload.iter().copied());
        serializer.collect_str(&bytes.map(|b| format!("{b:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        match bytes.as_deref() {
            Some([a, b, payload @ ..]) => {
                Ok(Message { kind: u16::from_ne_bytes([*a, *b]), payload: payload.to_vec() })
            }
            _ => Err(D::Error::custom("a netlink message is not written in hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        message: Message,
    }

    #[test]
    fn a_message_is_kept_as_text() {
        let mut message = Message::new(24, [2, 24, 0, 0]);
        message.push(4, &2u32.to_ne_bytes());
        let kept = Kept { message };
        let text = toml::to_string(&kept).unwrap();
        assert_eq!(text, "message = \"1800021800000800040002000000\"\n");
        assert_eq!(toml::from_str::<Kept>(&text).unwrap(), kept);
        for wrong in ["0g00", "021", "02", "ä"] {
            assert!(toml::from_str::<Kept>(&format!("message = \"{wrong}\"")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_are_changed_one_by_one() {
        let mut message = Message::new(36, [0; 4]);
        message.push(1, b"htb\0");
        message.push(3, &[9; 5]);
        message.push(0x8002, &[1, 2, 3, 4]);
        let changed = message.changed(4, |kind, value| match kind {
            3 => None,
            2 => Some([value, &[5]].concat()),
            _ => Some(value.to_vec()),
        });
        assert_eq!(changed.attributes(4), [(1, &b"htb\0"[..]), (2, &[1, 2, 3, 4, 5][..])]);
        assert_eq!(changed.attribute(4, 2), Some(&[1, 2, 3, 4, 5][..]));
        // A length that leads nowhere ends the list.
        assert_eq!(attributes(&[3, 0, 1, 0]), []);
        assert_eq!(attributes(&[9, 0, 1, 0, 7]), []);
    }
}
