//! TCP connections of a checkpoint with the world outside.
//!
//! CRIU can bring all connections back, or none (`--tcp-close`). Those within the container, over
//! its loopback interface or an address of its own, have both their ends in the checkpoint: no copy
//! is in their way, and nobody wants them closed. So the others are closed one by one, by showing
//! CRIU unconnected sockets, and it brings back the rest.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::criu::images::{
    self, Becomes, Error, FileKind, InetSocket, Inventory, NamespaceIds, Shown,
};

/// The image of all open files.
const FILES: &str = "files.img";

/// The addresses of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own(Vec<IpAddr>);

impl Own {
    /// Those of a checkpoint.
    pub(super) fn of(dir: &Path) -> Result<Own, Error> {
        let netns = NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?.net;
        let addresses =
            netns.map(|netns| images::addresses(dir, netns)).transpose()?.unwrap_or_default();
        Ok(Own(addresses.into_iter().map(|a| a.ip).collect()))
    }

    /// The other end of a connection with somebody else.
    fn outside(&self, socket: &InetSocket) -> Option<SocketAddr> {
        socket.connected_to().filter(|remote| {
            let ip = remote.ip().to_canonical();
            !ip.is_loopback() && !self.0.contains(&ip)
        })
    }
}

/// Whether the checkpoint was made without its connections (`lxc-checkpoint --tcp-close`).
pub(super) fn were_closed(dir: &Path) -> Result<bool, Error> {
    Ok(Inventory::read(dir)?.tcp_close)
}

/// The other ends of its connections with somebody else.
pub(super) fn outside(dir: &Path) -> Result<Vec<SocketAddr>, Error> {
    let own = Own::of(dir)?;
    let files = images::open_files(dir)?;
    let other_end = |kind: &FileKind| match kind {
        FileKind::Inet(socket) => own.outside(socket),
        _ => None,
    };
    Ok(files.iter().filter_map(|file| other_end(&file.kind)).collect())
}

/// Shows CRIU the sockets with other addresses, and those that are connected with somebody else
/// closed, if so wished.
pub(super) fn show(
    shown: &mut Shown,
    close: bool,
    moved: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Result<(), Error> {
    let own = Own::of(shown.dir())?;
    shown.change(FILES, |path, bytes| {
        images::with_sockets(path, bytes, |socket| becomes(socket, &own, close, &moved))
    })
}

fn becomes(
    socket: &InetSocket,
    own: &Own,
    close: bool,
    moved: &impl Fn(IpAddr) -> Option<IpAddr>,
) -> Becomes {
    if close && own.outside(socket).is_some() {
        return Becomes::Closed;
    }
    let Some(local) = socket.local.map(|l| l.ip()) else { return Becomes::Same };
    let moved = |ip| moved_within(ip, moved);
    // Without another end, there is that of nobody.
    let remote = socket.remote.map_or_else(|| nobody(local), |r| r.ip());
    match (moved(local), moved(remote)) {
        (None, None) => Becomes::Same,
        (new_local, new_remote) => {
            Becomes::At { local: new_local.unwrap_or(local), remote: new_remote.unwrap_or(remote) }
        }
    }
}

/// An address of IPv4 may stand in one of IPv6.
fn moved_within(ip: IpAddr, moved: &impl Fn(IpAddr) -> Option<IpAddr>) -> Option<IpAddr> {
    match (ip, ip.to_canonical()) {
        (IpAddr::V6(_), plain @ IpAddr::V4(_)) => match moved(plain)? {
            IpAddr::V4(new) => Some(new.to_ipv6_mapped().into()),
            IpAddr::V6(_) => None,
        },
        _ => moved(ip),
    }
}

fn nobody(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: &'static str, local: &str, remote: Option<&str>) -> InetSocket {
        let address = |text: &str| text.parse().unwrap();
        InetSocket {
            protocol: "tcp",
            state,
            local: Some(address(local)),
            remote: remote.map(address),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn told(socket: &InetSocket, close: bool) -> Becomes {
        let own = Own(vec![ip("10.0.0.5"), ip("127.0.0.1")]);
        becomes(socket, &own, close, &|from| (from == ip("10.0.0.5")).then(|| ip("10.0.0.9")))
    }

    #[test]
    fn only_connections_with_others_are_closed() {
        for (local, remote, closed) in [
            ("10.0.0.5:80", Some("10.0.0.1:4000"), true),
            ("[::ffff:10.0.0.5]:80", Some("[::ffff:10.0.0.1]:4000"), true),
            ("127.0.0.1:80", Some("127.0.0.1:4000"), false),
            ("[::ffff:127.0.0.1]:80", Some("[::ffff:127.0.0.1]:4000"), false),
            ("10.0.0.5:80", Some("10.0.0.5:4000"), false),
            ("0.0.0.0:80", None, false),
        ] {
            let state = if remote.is_some() { "established" } else { "listen" };
            let socket = socket(state, local, remote);
            assert_eq!(told(&socket, true) == Becomes::Closed, closed, "{socket:?}");
            assert_ne!(told(&socket, false), Becomes::Closed);
        }
        let datagrams = InetSocket {
            protocol: "udp",
            ..socket("established", "10.0.0.6:80", Some("10.0.0.1:53"))
        };
        assert_eq!(told(&datagrams, true), Becomes::Same);
    }

    #[test]
    fn what_bears_an_address_follows_it() {
        let at = |local: &str, remote: &str| Becomes::At { local: ip(local), remote: ip(remote) };
        assert_eq!(told(&socket("listen", "10.0.0.5:80", None), true), at("10.0.0.9", "0.0.0.0"));
        assert_eq!(told(&socket("listen", "0.0.0.0:80", None), true), Becomes::Same);
        let within = socket("established", "10.0.0.5:80", Some("10.0.0.5:4000"));
        assert_eq!(told(&within, true), at("10.0.0.9", "10.0.0.9"));
        let mapped = socket("listen", "[::ffff:10.0.0.5]:80", None);
        assert_eq!(told(&mapped, true), at("::ffff:10.0.0.9", "::"));
    }
}
