//! Sockets beside the connection that all is asked on: unix, UDP, multicast.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, ptr, thread};

use crate::sys::{Check, Made, Message, checked, ensure, file, getsockopt, readable, recvmsg, said, same, sendmsg, setsockopt, socket, socketpair};

const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;

/// A message with a descriptor; struct cmsghdr with one number, aligned.
fn send_descriptor(socket: &File, descriptor: c_int) -> io::Result<()> {
    let mut byte = [b'd'];
    let mut pieces = [byte.as_mut_ptr() as usize, 1];
    let mut control = [20_u64, (SCM_RIGHTS as u64) << 32 | SOL_SOCKET as u64, descriptor as u64];
    let message = message(&mut pieces, &mut control);
    checked(unsafe { sendmsg(socket.as_raw_fd(), &message, 0) } as i64).map(drop)
}

fn receive_descriptor(socket: &File) -> io::Result<File> {
    let mut byte = [0];
    let mut pieces = [byte.as_mut_ptr() as usize, 1];
    let mut control = [0_u64; 3];
    let mut message = message(&mut pieces, &mut control);
    checked(unsafe { recvmsg(socket.as_raw_fd(), &mut message, 0) } as i64)?;
    if control[1] as u32 as c_int != SOL_SOCKET {
        return Err(io::Error::other("no descriptor came"));
    }
    // The kernel has given it to us.
    Ok(unsafe { File::from_raw_fd(control[2] as c_int) })
}

fn message(pieces: &mut [usize; 2], control: &mut [u64; 3]) -> Message {
    let control = control.as_mut_ptr().cast();
    Message { name: ptr::null_mut(), name_length: 0, pieces, number: 1, control, control_length: 24, flags: 0 }
}

/// A stream, datagrams and packets with something on their way, a descriptor among it; a listening
/// one with a name.
pub fn unix() -> Made {
    const UNIX: c_int = 1;
    const PACKETS: c_int = 5;
    let mut fds = [0; 2];
    checked(unsafe { socketpair(UNIX, PACKETS, 0, &mut fds) })?;
    let (sender, receiver) = (file(fds[0])?, file(fds[1])?);
    let (mut near, mut far) = UnixStream::pair()?;
    let datagrams = UnixDatagram::bind("datagrams")?;
    let to_datagrams = UnixDatagram::unbound()?;
    to_datagrams.connect("datagrams")?;
    let listener = UnixListener::bind("stream")?;
    let mut number = 1_u64;
    let mut send = move |number: u64| -> io::Result<()> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&number.to_ne_bytes())?;
        // The pipe is nobody's but the message's.
        send_descriptor(&sender, reader.as_raw_fd())?;
        near.write_all(&number.to_ne_bytes())?;
        to_datagrams.send(&number.to_ne_bytes())?;
        Ok(())
    };
    send(number)?;
    let check: Check = Box::new(move || {
        let mut got = [0; 8];
        ensure(readable(receiver.as_raw_fd()), || "a descriptor is lost".to_owned())?;
        let mut pipe = receive_descriptor(&receiver).map_err(said)?;
        pipe.read_exact(&mut got).map_err(|e| format!("the pipe that was passed: {e}"))?;
        same("the pipe that was passed", u64::from_ne_bytes(got), number)?;
        ensure(readable(far.as_raw_fd()), || "the stream is empty".to_owned())?;
        far.read_exact(&mut got).map_err(said)?;
        same("the stream", u64::from_ne_bytes(got), number)?;
        ensure(readable(datagrams.as_raw_fd()), || "a datagram is lost".to_owned())?;
        datagrams.recv(&mut got).map_err(said)?;
        same("the datagram", u64::from_ne_bytes(got), number)?;
        let mut client = UnixStream::connect("stream").map_err(|e| format!("connect: {e}"))?;
        let (mut server, _) = listener.accept().map_err(said)?;
        client.write_all(b"?").and_then(|()| server.read_exact(&mut got[..1])).map_err(said)?;
        number += 1;
        send(number).map_err(said)?;
        Ok(format!("{number}"))
    });
    Ok(check)
}

/// Sends back what comes, and counts it.
fn echo(socket: UdpSocket) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counting = count.clone();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counting.fetch_add(1, Ordering::SeqCst);
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    count
}

/// Echoes on the same port, over IPv4 and, where there is any, IPv6.
pub fn udp(port: u16) -> Made {
    let four = echo(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?);
    let six = fs::exists("/proc/net/if_inet6")?.then(|| {
        // Not both: that would be the same port.
        let socket = crate::sys::file(unsafe { socket6(port) })?;
        Ok::<_, io::Error>(echo(UdpSocket::from(std::os::fd::OwnedFd::from(socket))))
    });
    let six = six.transpose()?;
    Ok(Box::new(move || {
        let count = |c: &Arc<AtomicU64>| c.load(Ordering::SeqCst);
        Ok(format!("{} {}", count(&four), six.as_ref().map_or(0, count)))
    }))
}

/// Echoes what comes to a group.
pub fn multicast(port: u16, group: &str) -> Made {
    let socket = match group.parse().map_err(io::Error::other)? {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            join_on_eth0(&socket, group)?;
            socket
        }
        IpAddr::V6(group) => {
            let socket = file(unsafe { socket6(port) })?;
            let socket = UdpSocket::from(std::os::fd::OwnedFd::from(socket));
            socket.join_multicast_v6(&group, eth0()?)?;
            socket
        }
    };
    let count = echo(socket);
    Ok(Box::new(move || Ok(format!("{}", count.load(Ordering::SeqCst)))))
}

/// The index of the interface.
fn eth0() -> io::Result<u32> {
    fs::read_to_string("/sys/class/net/eth0/ifindex")?.trim().parse().map_err(io::Error::other)
}

/// By its index: there may be no route to the group.
fn join_on_eth0(socket: &UdpSocket, group: Ipv4Addr) -> io::Result<()> {
    const ADD_MEMBERSHIP: c_int = 35;
    // struct ip_mreqn.
    let request = [u32::from_ne_bytes(group.octets()), 0, eth0()?];
    checked(unsafe { setsockopt(socket.as_raw_fd(), 0, ADD_MEMBERSHIP, request.as_ptr().cast(), 12) }).map(drop)
}

/// A datagram socket of IPv6 alone on a port of all addresses.
///
/// # Safety
/// Only system calls on memory of its own.
unsafe fn socket6(port: u16) -> c_int {
    unsafe extern "C" {
        fn bind(fd: c_int, address: *const [u16; 14], length: u32) -> c_int;
    }
    const INET6: c_int = 10;
    const DATAGRAM: c_int = 2;
    const IPPROTO_IPV6: c_int = 41;
    const V6_ONLY: c_int = 26;
    unsafe {
        let (fd, yes) = (socket(INET6, DATAGRAM, 0), 1 as c_int);
        if fd < 0 || setsockopt(fd, IPPROTO_IPV6, V6_ONLY, (&raw const yes).cast(), 4) < 0 {
            return -1;
        }
        let mut address = [0; 14];
        address[0] = INET6 as u16;
        address[1] = port.to_be();
        if bind(fd, &address, 28) < 0 { -1 } else { fd }
    }
}

/// An option: its name, the socket that has it (an index into those of [`options`]), level, number
/// and an unusual value.
type SocketOption = (&'static str, usize, c_int, c_int, c_int);

const UDP4: usize = 0;
const UDP6: usize = 1;
const LISTENER: usize = 2;
const CONNECTION: usize = 3;
const PACKETS: usize = 4;
const KERNEL: usize = 5;

#[rustfmt::skip]
const OPTIONS: &[SocketOption] = &[
    ("IP_TOS", UDP4, 0, 1, 0x10), ("IP_TTL", UDP4, 0, 2, 33), ("IP_PKTINFO", UDP4, 0, 8, 1), ("IP_MTU_DISCOVER", UDP4, 0, 10, 2),
    ("IP_RECVERR", UDP4, 0, 11, 1), ("IP_RECVTTL", UDP4, 0, 12, 1), ("IP_FREEBIND", UDP4, 0, 15, 1), ("IP_TRANSPARENT", UDP4, 0, 19, 1),
    ("IP_MINTTL", UDP4, 0, 21, 254), ("IP_MULTICAST_TTL", UDP4, 0, 33, 5), ("IP_MULTICAST_LOOP", UDP4, 0, 34, 0),
    ("IP_MULTICAST_ALL", UDP4, 0, 49, 0), ("SO_TIMESTAMPNS", UDP4, 1, 35, 1), ("SO_PRIORITY", UDP4, 1, 12, 5), ("SO_RXQ_OVFL", UDP4, 1, 40, 1),
    ("UDP_GRO", UDP4, 17, 104, 1), ("IPV6_UNICAST_HOPS", UDP6, 41, 16, 44), ("IPV6_MULTICAST_HOPS", UDP6, 41, 18, 7),
    ("IPV6_MULTICAST_LOOP", UDP6, 41, 19, 0), ("IPV6_MTU_DISCOVER", UDP6, 41, 23, 2), ("IPV6_RECVPKTINFO", UDP6, 41, 49, 1),
    ("IPV6_RECVHOPLIMIT", UDP6, 41, 51, 1), ("IPV6_TCLASS", UDP6, 41, 67, 0x20), ("IPV6_MINHOPCOUNT", UDP6, 41, 73, 200),
    ("SO_TIMESTAMP", UDP6, 1, 29, 1), ("TCP_DEFER_ACCEPT", LISTENER, 6, 9, 7), ("TCP_FASTOPEN", LISTENER, 6, 23, 16),
    ("TCP_MAXSEG", LISTENER, 6, 2, 1000), ("TCP_KEEPIDLE", LISTENER, 6, 4, 77), ("TCP_SYNCNT", CONNECTION, 6, 7, 3),
    ("TCP_USER_TIMEOUT", CONNECTION, 6, 18, 45_000), ("TCP_LINGER2", CONNECTION, 6, 8, 9), ("TCP_NOTSENT_LOWAT", CONNECTION, 6, 25, 16_384),
    ("TCP_KEEPINTVL", CONNECTION, 6, 5, 13), ("IP_TTL", CONNECTION, 0, 2, 77), ("IP_TOS", CONNECTION, 0, 1, 0x08), ("SO_MAX_PACING_RATE", CONNECTION, 1, 47, 1 << 24),
    ("PACKET_AUXDATA", PACKETS, 263, 8, 1), ("PACKET_ORIGDEV", PACKETS, 263, 9, 1), ("PACKET_IGNORE_OUTGOING", PACKETS, 263, 23, 1),
    ("SO_LOCK_FILTER", PACKETS, 1, 44, 1), ("NETLINK_EXT_ACK", KERNEL, 270, 11, 1), ("NETLINK_NO_ENOBUFS", KERNEL, 270, 5, 1),
    ("NETLINK_GET_STRICT_CHK", KERNEL, 270, 12, 1),
];

/// Sockets of many kinds with options that a new one does not have, and a TCP connection whose
/// congestion control was chosen.
pub fn options() -> Made {
    const DATAGRAM: c_int = 2;
    const RAW: c_int = 3;
    const PACKET: c_int = 17;
    const NETLINK: c_int = 16;
    let four = File::from(std::os::fd::OwnedFd::from(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let connection = std::net::TcpStream::connect(listener.local_addr()?)?;
    let accepted = listener.accept()?;
    let packets = file(unsafe { socket(PACKET, RAW, 0) })?;
    // One instruction of BPF that lets all pass, as SO_ATTACH_FILTER wants it: struct sock_fprog.
    let program = [0xffff_ffff_0000_0006_u64];
    let filter = [1, program.as_ptr() as u64];
    checked(unsafe { setsockopt(packets.as_raw_fd(), 1, 26, filter.as_ptr().cast(), 16) })?;
    let sockets = [
        four,
        file(unsafe { socket(10, DATAGRAM, 0) })?,
        File::from(std::os::fd::OwnedFd::from(listener)),
        File::from(std::os::fd::OwnedFd::from(connection)),
        packets,
        file(unsafe { socket(NETLINK, RAW, 0) })?,
    ];
    for (name, of, level, number, value) in OPTIONS {
        let set = unsafe { setsockopt(sockets[*of].as_raw_fd(), *level, *number, ptr::from_ref(value).cast(), 4) };
        checked(set).map_err(|e| io::Error::other(format!("set {name}: {e}")))?;
    }
    const CONGESTION: c_int = 13;
    let connection = &sockets[CONNECTION];
    checked(unsafe { setsockopt(connection.as_raw_fd(), 6, CONGESTION, c"reno".as_ptr().cast(), 4) })?;
    let read = |socket: &File, level: c_int, number: c_int| -> Result<[u8; 16], String> {
        let (mut value, mut length) = ([0; 16], 16);
        let read = unsafe { getsockopt(socket.as_raw_fd(), level, number, value.as_mut_ptr().cast(), &mut length) };
        checked(read).map_err(said).map(|_| value)
    };
    let all = move || -> Result<Vec<(&str, [u8; 16])>, String> {
        let options = OPTIONS.iter().map(|(name, of, level, number, _)| Ok((*name, read(&sockets[*of], *level, *number)?)));
        let congestion = std::iter::once(Ok(("TCP_CONGESTION", read(&sockets[CONNECTION], 6, CONGESTION)?)));
        options.chain(congestion).collect()
    };
    let before = all().map_err(io::Error::other)?;
    Ok(Box::new(move || {
        let _keep = &accepted;
        let now = all()?;
        let wrong = before.iter().zip(&now).filter(|(before, now)| before != now);
        let wrong: Vec<String> = wrong.map(|(before, now)| format!("{}: {:?} -> {:?}", before.0, before.1, now.1)).collect();
        ensure(wrong.is_empty(), || wrong.join(", "))?;
        Ok(format!("{} options", now.len()))
    }))
}
