//! Options of sockets (setsockopt(2)): which there are, and how they are read and set as plain
//! bytes.
//!
//! An option is one row of [`OPTIONS`]. A row may name what a kernel does not know, or what a
//! socket does not have: such an option cannot be read, and so is not there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

mod table;

pub(crate) use table::OPTIONS;

/// The longest value of an option in [`OPTIONS`], in bytes: `IP_OPTIONS` has up to 40.
pub(crate) const LONGEST: usize = 64;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketOption {
    /// Its name in the kernel's headers.
    pub name: &'static str,
    /// Its level, as in setsockopt(2).
    pub level: libc::c_int,
    /// Its number.
    pub number: libc::c_int,
    /// Which sockets have it.
    pub of: Of,
}

/// The sockets that have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// All.
    All,
    /// Those of this family (`AF_UNIX`, …).
    Family(libc::c_int),
    /// Those of IPv4 and IPv6.
    Ip,
    /// Those of IPv4 and IPv6 with this protocol.
    Protocol(libc::c_int),
    /// TCP sockets that listen: of a connection, the kernel shows what it has come to.
    Listening,
    /// Raw sockets of this family.
    Raw(libc::c_int),
    /// Those of IPv4 and IPv6, or of IPv6 alone, that are no streams: of a stream the kernel shows
    /// what came with its first packet, and lets nobody set it.
    Datagram(&'static [libc::c_int]),
}

/// What kind of socket it is: the arguments of socket(2), and whether it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// `AF_INET`, …
    pub family: libc::c_int,
    /// `SOCK_STREAM`, …
    pub kind: libc::c_int,
    /// `IPPROTO_TCP`, …; for packet sockets in the network's byte order.
    pub protocol: libc::c_int,
    /// Whether it accepts connections.
    pub listens: bool,
}

impl Kind {
    /// The kind of a socket.
    ///
    /// # Errors
    /// `ENOTSOCK` for another descriptor.
    pub(crate) fn of(socket: &OwnedFd) -> io::Result<Kind> {
        Ok(Kind {
            family: number(socket, libc::SO_DOMAIN)?,
            kind: number(socket, libc::SO_TYPE)?,
            protocol: number(socket, libc::SO_PROTOCOL)?,
            listens: number(socket, libc::SO_ACCEPTCONN)? != 0,
        })
    }

    /// A new socket of this kind, in the network namespace of this thread; it does not listen.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        // SAFETY: the call takes numbers alone.
        let fd =
            unsafe { libc::socket(self.family, self.kind | libc::SOCK_CLOEXEC, self.protocol) };
        Errno::result(fd)?;
        Ok(super::process::own_fd(fd))
    }

    /// The options that such a socket may have.
    pub(crate) fn options(self) -> impl Iterator<Item = &'static SocketOption> {
        OPTIONS.iter().filter(move |option| option.of.includes(&self))
    }
}

impl Of {
    fn includes(self, kind: &Kind) -> bool {
        let is_ip = matches!(kind.family, libc::AF_INET | libc::AF_INET6);
        let has = |protocol| is_ip && kind.kind != libc::SOCK_RAW && kind.protocol == protocol;
        match self {
            Of::All => true,
            Of::Family(family) => kind.family == family,
            Of::Ip => is_ip,
            Of::Protocol(protocol) => has(protocol),
            Of::Listening => has(libc::IPPROTO_TCP) && kind.listens,
            Of::Datagram(families) => {
                families.contains(&kind.family) && kind.kind != libc::SOCK_STREAM
            }
            Of::Raw(family) => kind.family == family && kind.kind == libc::SOCK_RAW,
        }
    }
}

impl SocketOption {
    /// The option with this name.
    pub(crate) fn named(name: &str) -> Option<&'static SocketOption> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// Whether it keeps from a socket what is not for it: without it, its owner is less safe.
    pub(crate) fn guards(&self) -> bool {
        matches!(self.name, "SO_LOCK_FILTER" | "IP_MINTTL" | "IPV6_MINHOPCOUNT" | "SO_PASSRIGHTS")
    }

    /// Its value; none where the socket or the kernel has no such option.
    pub(crate) fn read(&self, socket: &OwnedFd) -> Option<Vec<u8>> {
        let mut value = [0u8; LONGEST];
        let mut length = LONGEST as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `value`, which lives through the
        // call.
        let told = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.level,
                self.number,
                value.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (told == 0).then(|| value.get(..length as usize).map(<[u8]>::to_vec)).flatten()
    }

    /// Sets it.
    pub(crate) fn set(&self, socket: &OwnedFd, value: &[u8]) -> io::Result<()> {
        let length = value.len() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `value`, which lives through the call.
        let told = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                self.level,
                self.number,
                value.as_ptr().cast(),
                length,
            )
        };
        Errno::result(told)?;
        Ok(())
    }
}

/// An option of `SOL_SOCKET` that is a number.
fn number(socket: &OwnedFd, number: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `value`, which lives through the call.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            number,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(told)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn rows_differ() {
        let names: BTreeSet<_> = OPTIONS.iter().map(|o| o.name).collect();
        let numbers: BTreeSet<_> = OPTIONS.iter().map(|o| (o.level, o.number)).collect();
        assert_eq!((names.len(), numbers.len()), (OPTIONS.len(), OPTIONS.len()));
        assert_eq!(
            OPTIONS.last().map(|o| o.name),
            Some("SO_LOCK_FILTER"),
            "nothing can be set after that"
        );
    }

    #[test]
    fn a_new_socket_has_the_same_options_as_another_new_one() {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
                let kind = Kind { family, kind, protocol: 0, listens: false };
                let (one, other) = (kind.open().unwrap(), kind.open().unwrap());
                let kind = Kind::of(&one).unwrap();
                assert!(kind.options().filter(|o| o.read(&one).is_some()).count() > 10);
                for option in kind.options() {
                    assert_eq!(option.read(&one), option.read(&other), "{}", option.name);
                }
            }
        }
    }

    #[test]
    fn what_is_read_can_be_set() {
        let (udp, other) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (udp, other) = (OwnedFd::from(udp), OwnedFd::from(other));
        let ttl = SocketOption::named("IP_TTL").unwrap();
        ttl.set(&udp, &33i32.to_ne_bytes()).unwrap();
        ttl.set(&other, &ttl.read(&udp).unwrap()).unwrap();
        assert_eq!(ttl.read(&other).unwrap(), 33i32.to_ne_bytes());
        let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let kind = Kind::of(&listener).unwrap();
        assert!(kind.listens && kind.options().any(|o| o.name == "TCP_MAXSEG"));
        assert!(Kind::of(&tempfile::tempfile().unwrap().into()).is_err());
    }
}
