//! Datagrams: to one address, and to a group.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use super::super::{Finish, Place};
use super::Connection;
use super::lines::check;
use crate::harness::enter::BRIDGE;
use crate::harness::run::wait_for;

/// Until a datagram is sent again: they may be lost, and a bridge takes a while to know who listens
/// to a group.
const AGAIN: Duration = Duration::from_millis(200);
/// No time in which a group is joined is longer.
const LIMIT: Duration = Duration::from_secs(10);

pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 99, 1, 1);
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x99);

/// UDP over IPv4 and IPv6.
pub fn udp(place: &Place) -> Finish {
    let targets = [
        SocketAddr::from((place.address, place.port)),
        SocketAddr::from((place.address6, place.port)),
    ];
    echoes(place, targets.to_vec())
}

/// A group of IPv4. The host's route to it leads over the bridge.
pub fn multicast(place: &Place) -> Finish {
    echoes(place, vec![(GROUP, place.port).into()])
}

/// A group of IPv6.
pub fn multicast6(place: &Place) -> Finish {
    let index = std::fs::read_to_string(format!("/sys/class/net/{BRIDGE}/ifindex"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    echoes(place, vec![SocketAddrV6::new(GROUP6, place.port, 0, index).into()])
}

/// Asks from the same sockets before and after.
fn echoes(place: &Place, targets: Vec<SocketAddr>) -> Finish {
    let mut connection = Connection::open(place.address, place.port);
    let pid = check(&mut connection);
    let sockets: Vec<(UdpSocket, SocketAddr)> = targets
        .into_iter()
        .map(|target| {
            let any: IpAddr = if target.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(AGAIN)).unwrap();
            (socket, target)
        })
        .collect();
    let ask = move |word: &str| {
        for (socket, target) in &sockets {
            let answered = wait_for(&format!("an echo from {target}"), LIMIT, || {
                socket
                    .send_to(word.as_bytes(), target)
                    .unwrap_or_else(|e| panic!("send to {target}: {e}"));
                let mut buffer = [0; 64];
                let (length, _) = socket.recv_from(&mut buffer).ok()?;
                (&buffer[..length] == word.as_bytes()).then_some(())
            });
            answered.unwrap_or_else(|e| panic!("{e}"));
        }
    };
    ask("before");
    Box::new(move || {
        assert_eq!(check(&mut connection), pid);
        ask("after");
    })
}
