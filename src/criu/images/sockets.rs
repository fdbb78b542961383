//! `files.img`: sockets of IPv4 and IPv6 that come back otherwise than they were.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use prost::Message;

use super::files::{FILES_MAGIC, InetSkEntry, InetSocket};
use super::rtnetlink::octets;
use super::{Error, Head, change};

/// Of `file_entry`.
const SOCKET_TAG: u32 = 4;
/// Of `inet_sk_entry`.
const STATE_TAG: u32 = 6;
const LOCAL_PORT_TAG: u32 = 7;
const REMOTE_PORT_TAG: u32 = 8;
const LOCAL_TAG: u32 = 11;
const REMOTE_TAG: u32 = 12;
/// The kernel's `TCP_CLOSE`: what CRIU makes a new socket of.
const UNCONNECTED: u64 = 7;

/// What becomes of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// It stays.
    Same,
    /// It is connected to nobody any more, as after `--tcp-close`.
    Closed,
    /// It has these addresses, if it had one there.
    At {
        /// Its own.
        local: IpAddr,
        /// The other end's.
        remote: IpAddr,
    },
}

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(bytes = "vec", optional, tag = "4")]
    socket: Option<Vec<u8>>,
}

/// The image with each socket as `becomes` says.
pub fn with_sockets(
    path: &Path,
    bytes: &[u8],
    becomes: impl Fn(&InetSocket) -> Becomes,
) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(FILES_MAGIC), |message| {
        let Some(socket) = FileEntry::decode(message)?.socket else { return Ok(None) };
        let entry = InetSkEntry::decode(socket.as_slice())?;
        let changed = match becomes(&entry.clone().into()) {
            Becomes::Same => return Ok(None),
            Becomes::Closed => closed(&socket, &entry)?,
            Becomes::At { local, remote } => at(&socket, local, remote)?,
        };
        let mut file = change::without(message, &[SOCKET_TAG])?;
        change::put_bytes(SOCKET_TAG, &changed, &mut file);
        Ok(Some(file))
    })
}

fn closed(socket: &[u8], entry: &InetSkEntry) -> Result<Vec<u8>, prost::DecodeError> {
    let mut changed = change::without(socket, &[LOCAL_TAG, REMOTE_TAG])?;
    change::put_number(STATE_TAG, UNCONNECTED, &mut changed);
    change::put_number(LOCAL_PORT_TAG, 0, &mut changed);
    change::put_number(REMOTE_PORT_TAG, 0, &mut changed);
    for (tag, words) in [(LOCAL_TAG, entry.src_addr.len()), (REMOTE_TAG, entry.dst_addr.len())] {
        (0..words).for_each(|_| change::put_number(tag, 0, &mut changed));
    }
    Ok(changed)
}

fn at(socket: &[u8], local: IpAddr, remote: IpAddr) -> Result<Vec<u8>, prost::DecodeError> {
    let mut changed = change::without(socket, &[LOCAL_TAG, REMOTE_TAG])?;
    for (tag, ip) in [(LOCAL_TAG, local), (REMOTE_TAG, remote)] {
        for word in octets(ip).chunks_exact(size_of::<u32>()) {
            let word = word.first_chunk().map_or(0, |w| u32::from_ne_bytes(*w));
            change::put_number(tag, word.into(), &mut changed);
        }
    }
    Ok(changed)
}

impl InetSocket {
    /// The other end of its TCP connection, if it has one.
    pub fn connected_to(&self) -> Option<SocketAddr> {
        // Without a port there is nobody, whatever the state.
        self.remote
            .filter(|remote| self.protocol == "tcp" && self.state != "listen" && remote.port() != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::files::OpenFile;
    use crate::criu::images::{FileKind, bytes_of, open_files};
    use std::fs;
    use std::path::PathBuf;

    /// `files.img` of the recipe's container, whose witness listens.
    fn listening() -> Vec<u8> {
        bytes_of(
            &PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/criu-4.2.1/suspended/files.img"),
        )
        .unwrap()
    }

    /// The same, as if it had accepted a connection there.
    fn connected() -> Vec<u8> {
        changed(&listening(), |message, socket| {
            let mut socket = change::without(socket, &[LOCAL_TAG, REMOTE_TAG]).unwrap();
            change::put_number(STATE_TAG, 1, &mut socket);
            change::put_number(REMOTE_PORT_TAG, 40000, &mut socket);
            change::put_number(LOCAL_TAG, u32::from_ne_bytes([10, 99, 0, 11]).into(), &mut socket);
            change::put_number(REMOTE_TAG, u32::from_ne_bytes([10, 99, 0, 1]).into(), &mut socket);
            let mut file = change::without(message, &[SOCKET_TAG]).unwrap();
            change::put_bytes(SOCKET_TAG, &socket, &mut file);
            file
        })
    }

    fn changed(bytes: &[u8], socket: impl Fn(&[u8], &[u8]) -> Vec<u8>) -> Vec<u8> {
        change::each(Path::new("files.img"), bytes, Head::Common(FILES_MAGIC), |message| {
            Ok(FileEntry::decode(message)?.socket.map(|s| socket(message, &s)))
        })
        .unwrap()
    }

    fn files(bytes: &[u8]) -> Vec<OpenFile> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("files.img"), bytes).unwrap();
        open_files(dir.path()).unwrap()
    }

    fn socket(bytes: &[u8]) -> InetSocket {
        let inet = |file: OpenFile| match file.kind {
            FileKind::Inet(socket) => Some(socket),
            _ => None,
        };
        files(bytes).into_iter().find_map(inet).unwrap()
    }

    fn with(bytes: &[u8], becomes: Becomes) -> Vec<u8> {
        with_sockets(Path::new("files.img"), bytes, |_| becomes).unwrap()
    }

    #[test]
    fn only_a_connection_is_one() {
        assert_eq!(socket(&listening()).connected_to(), None);
        assert_eq!(socket(&connected()).connected_to(), Some("10.99.0.1:40000".parse().unwrap()));
        assert_eq!(socket(&with(&connected(), Becomes::Closed)).connected_to(), None);
    }

    #[test]
    fn a_closed_socket_is_like_a_new_one() {
        let after = socket(&with(&connected(), Becomes::Closed));
        let nowhere = Some("0.0.0.0:0".parse().unwrap());
        assert_eq!(
            after,
            InetSocket { protocol: "tcp", state: "unconnected", local: nowhere, remote: None }
        );
    }

    #[test]
    fn addresses_change_and_ports_and_all_else_stay() {
        let [local, remote] = ["10.1.2.3", "10.4.5.6"].map(|ip| ip.parse().unwrap());
        let before = connected();
        assert_eq!(with(&before, Becomes::Same), before);
        let after = with(&before, Becomes::At { local, remote });
        let wanted =
            [(local, 7000), (remote, 40000)].map(|(ip, port)| Some(SocketAddr::new(ip, port)));
        assert_eq!([socket(&after).local, socket(&after).remote], wanted);
        let back = with(
            &after,
            Becomes::At { local: [10, 99, 0, 11].into(), remote: [10, 99, 0, 1].into() },
        );
        assert_eq!(files(&back), files(&before));
        assert_eq!(back.len(), before.len());
    }
}
