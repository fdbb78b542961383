//! Addresses of sockets as people write them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::super::compare::plain;

/// An address as the kernel hands it out.
pub(super) fn shown(address: &[u8]) -> String {
    let byte = |at: usize| address.get(at).copied().unwrap_or_default();
    let short = |at: usize| u16::from_ne_bytes([byte(at), byte(at + 1)]);
    let port = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    let word = |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    match i32::from(short(0)) {
        libc::AF_UNIX => unix(address.get(2..).unwrap_or_default()),
        libc::AF_INET => {
            SocketAddrV4::new(Ipv4Addr::new(byte(4), byte(5), byte(6), byte(7)), port(2))
                .to_string()
        }
        libc::AF_INET6 => {
            let mut ip = [0; 16];
            ip.iter_mut().enumerate().for_each(|(at, to)| *to = byte(8 + at));
            SocketAddrV6::new(Ipv6Addr::from(ip), port(2), word(4), word(24)).to_string()
        }
        // The kernel chooses the port where the program does not; CRIU brings back which it was.
        libc::AF_NETLINK => format!("netlink port {} groups {:#x}", word(4), word(8)),
        libc::AF_PACKET => format!("packet protocol {:#x} interface {}", port(2), word(4)),
        _ => address.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A path ends with a NUL, an abstract name begins with one.
fn unix(name: &[u8]) -> String {
    match name {
        [] => "unnamed".to_owned(),
        [0, rest @ ..] => format!("@{}", plain(rest)),
        path => plain(path.split(|byte| *byte == 0).next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let family = |family: i32| u16::try_from(family).unwrap().to_ne_bytes().to_vec();
        let four =
            [family(libc::AF_INET), vec![0, 80, 10, 99, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(shown(&four), "10.99.0.1:80");
        let path = [family(libc::AF_UNIX), b"/run/a\0".to_vec()].concat();
        assert_eq!(shown(&path), "/run/a");
        let name = [family(libc::AF_UNIX), b"\0a\0b".to_vec()].concat();
        assert_eq!(
            (shown(&name).as_str(), shown(&family(libc::AF_UNIX)).as_str()),
            (r"@a\x00b", "unnamed")
        );
        assert_eq!(shown(&[]), "");
    }
}
