//! The options that are read and set, in the order in which they are set.
//!
//! Left out is what cannot be read (`SO_ATTACH_REUSEPORT_EBPF`, an interface of `IP_MULTICAST_IF`
//! without an address), what is no state of its owner's (`SO_INCOMING_CPU` and `SO_TXREHASH` of a
//! connection, `TCP_QUICKACK`), and what CRIU saves together with the socket's place in the network
//! (names, devices, buffers and their contents, `IP_HDRINCL`).

use super::{Of, SocketOption};

const SOCKET: libc::c_int = libc::SOL_SOCKET;
const IP: libc::c_int = libc::IPPROTO_IP;
const IPV6: libc::c_int = libc::IPPROTO_IPV6;
const TCP: libc::c_int = libc::IPPROTO_TCP;
const UDP: libc::c_int = libc::IPPROTO_UDP;
const UDPLITE: libc::c_int = 136;
const ICMPV6: libc::c_int = 58;
const RAW: libc::c_int = 255;
const PACKET: libc::c_int = 263;
const NETLINK: libc::c_int = 270;
const UNIX: libc::c_int = libc::AF_UNIX;

const fn option(
    name: &'static str,
    level: libc::c_int,
    number: libc::c_int,
    of: Of,
) -> SocketOption {
    SocketOption { name, level, number, of }
}

const fn socket(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, SOCKET, number, Of::All)
}

const fn ip(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, IP, number, Of::Ip)
}

const fn ipv6(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, IPV6, number, Of::Family(libc::AF_INET6))
}

const fn tcp(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, TCP, number, Of::Protocol(TCP))
}

const fn listening(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, TCP, number, Of::Listening)
}

const fn udp(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, UDP, number, Of::Protocol(UDP))
}

const fn packet(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, PACKET, number, Of::Family(libc::AF_PACKET))
}

const fn netlink(name: &'static str, number: libc::c_int) -> SocketOption {
    option(name, NETLINK, number, Of::Family(libc::AF_NETLINK))
}

const DATAGRAM: Of = Of::Datagram(&[libc::AF_INET, libc::AF_INET6]);
const DATAGRAM_6: Of = Of::Datagram(&[libc::AF_INET6]);

/// All of them. Numbers are those of include/uapi/linux and asm-generic/socket.h.
pub(crate) const OPTIONS: &[SocketOption] = &[
    ip("IP_TOS", 1),
    ip("IP_TTL", 2),
    ip("IP_OPTIONS", 4),
    ip("IP_RECVOPTS", 6),
    ip("IP_RETOPTS", 7),
    ip("IP_PKTINFO", 8),
    ip("IP_MTU_DISCOVER", 10),
    ip("IP_RECVERR", 11),
    ip("IP_RECVTTL", 12),
    ip("IP_RECVTOS", 13),
    ip("IP_FREEBIND", 15),
    ip("IP_PASSSEC", 18),
    ip("IP_TRANSPARENT", 19),
    ip("IP_RECVORIGDSTADDR", 20),
    ip("IP_MINTTL", 21),
    ip("IP_NODEFRAG", 22),
    ip("IP_CHECKSUM", 23),
    ip("IP_BIND_ADDRESS_NO_PORT", 24),
    ip("IP_RECVFRAGSIZE", 25),
    ip("IP_RECVERR_RFC4884", 26),
    option("IP_MULTICAST_IF", IP, 32, DATAGRAM),
    option("IP_MULTICAST_TTL", IP, 33, DATAGRAM),
    ip("IP_MULTICAST_LOOP", 34),
    ip("IP_MULTICAST_ALL", 49),
    ip("IP_UNICAST_IF", 50),
    ip("IP_LOCAL_PORT_RANGE", 51),
    ipv6("IPV6_2292PKTINFO", 2),
    ipv6("IPV6_2292HOPOPTS", 3),
    ipv6("IPV6_2292DSTOPTS", 4),
    ipv6("IPV6_2292RTHDR", 5),
    ipv6("IPV6_2292HOPLIMIT", 8),
    ipv6("IPV6_FLOWINFO", 11),
    ipv6("IPV6_UNICAST_HOPS", 16),
    option("IPV6_MULTICAST_IF", IPV6, 17, DATAGRAM_6),
    option("IPV6_MULTICAST_HOPS", IPV6, 18, DATAGRAM_6),
    ipv6("IPV6_MULTICAST_LOOP", 19),
    ipv6("IPV6_MTU_DISCOVER", 23),
    ipv6("IPV6_RECVERR", 25),
    ipv6("IPV6_MULTICAST_ALL", 29),
    ipv6("IPV6_RECVERR_RFC4884", 31),
    ipv6("IPV6_FLOWINFO_SEND", 33),
    ipv6("IPV6_RECVPKTINFO", 49),
    ipv6("IPV6_RECVHOPLIMIT", 51),
    ipv6("IPV6_RECVHOPOPTS", 53),
    ipv6("IPV6_RECVRTHDR", 56),
    ipv6("IPV6_RECVDSTOPTS", 58),
    ipv6("IPV6_RECVPATHMTU", 60),
    ipv6("IPV6_DONTFRAG", 62),
    ipv6("IPV6_RECVTCLASS", 66),
    ipv6("IPV6_TCLASS", 67),
    ipv6("IPV6_AUTOFLOWLABEL", 70),
    ipv6("IPV6_ADDR_PREFERENCES", 72),
    ipv6("IPV6_MINHOPCOUNT", 73),
    ipv6("IPV6_RECVORIGDSTADDR", 74),
    ipv6("IPV6_TRANSPARENT", 75),
    ipv6("IPV6_UNICAST_IF", 76),
    ipv6("IPV6_RECVFRAGSIZE", 77),
    ipv6("IPV6_FREEBIND", 78),
    option("IPV6_CHECKSUM", IPV6, 7, Of::Raw(libc::AF_INET6)),
    option("ICMP_FILTER", RAW, 1, Of::Raw(libc::AF_INET)),
    option("ICMPV6_FILTER", ICMPV6, 1, Of::Raw(libc::AF_INET6)),
    tcp("TCP_NODELAY", 1),
    listening("TCP_MAXSEG", 2),
    tcp("TCP_CORK", 3),
    tcp("TCP_KEEPIDLE", 4),
    tcp("TCP_KEEPINTVL", 5),
    tcp("TCP_KEEPCNT", 6),
    tcp("TCP_SYNCNT", 7),
    tcp("TCP_LINGER2", 8),
    listening("TCP_DEFER_ACCEPT", 9),
    listening("TCP_WINDOW_CLAMP", 10),
    tcp("TCP_CONGESTION", 13),
    tcp("TCP_THIN_LINEAR_TIMEOUTS", 16),
    tcp("TCP_USER_TIMEOUT", 18),
    listening("TCP_FASTOPEN", 23),
    tcp("TCP_NOTSENT_LOWAT", 25),
    tcp("TCP_SAVE_SYN", 27),
    listening("TCP_FASTOPEN_KEY", 33),
    tcp("TCP_FASTOPEN_NO_COOKIE", 34),
    tcp("TCP_INQ", 36),
    tcp("TCP_TX_DELAY", 37),
    tcp("TCP_RTO_MAX_MS", 44),
    tcp("TCP_RTO_MIN_US", 45),
    tcp("TCP_DELACK_MAX_US", 46),
    udp("UDP_CORK", 1),
    udp("UDP_ENCAP", 100),
    udp("UDP_NO_CHECK6_TX", 101),
    udp("UDP_NO_CHECK6_RX", 102),
    udp("UDP_SEGMENT", 103),
    udp("UDP_GRO", 104),
    option("UDPLITE_SEND_CSCOV", UDPLITE, 10, Of::Protocol(UDPLITE)),
    option("UDPLITE_RECV_CSCOV", UDPLITE, 11, Of::Protocol(UDPLITE)),
    packet("PACKET_AUXDATA", 8),
    packet("PACKET_ORIGDEV", 9),
    packet("PACKET_VERSION", 10),
    packet("PACKET_RESERVE", 12),
    packet("PACKET_LOSS", 14),
    packet("PACKET_VNET_HDR", 15),
    packet("PACKET_TIMESTAMP", 17),
    packet("PACKET_TX_HAS_OFF", 19),
    packet("PACKET_QDISC_BYPASS", 20),
    packet("PACKET_IGNORE_OUTGOING", 23),
    netlink("NETLINK_PKTINFO", 3),
    netlink("NETLINK_BROADCAST_ERROR", 4),
    netlink("NETLINK_NO_ENOBUFS", 5),
    netlink("NETLINK_LISTEN_ALL_NSID", 8),
    netlink("NETLINK_CAP_ACK", 10),
    netlink("NETLINK_EXT_ACK", 11),
    netlink("NETLINK_GET_STRICT_CHK", 12),
    option("SO_PASSPIDFD", SOCKET, 76, Of::Family(UNIX)),
    option("SO_PASSRIGHTS", SOCKET, 83, Of::Family(UNIX)),
    option("SO_PEEK_OFF", SOCKET, 42, Of::Family(UNIX)),
    socket("SO_DEBUG", 1),
    socket("SO_DONTROUTE", 5),
    socket("SO_OOBINLINE", 10),
    // Set by IP_TOS, too: so it comes after that.
    socket("SO_PRIORITY", 12),
    socket("SO_PASSCRED", 16),
    socket("SO_RCVLOWAT", 18),
    socket("SO_TIMESTAMP_OLD", 29),
    socket("SO_PASSSEC", 34),
    socket("SO_TIMESTAMPNS_OLD", 35),
    socket("SO_MARK", 36),
    socket("SO_TIMESTAMPING_OLD", 37),
    socket("SO_RXQ_OVFL", 40),
    socket("SO_WIFI_STATUS", 41),
    socket("SO_NOFCS", 43),
    socket("SO_SELECT_ERR_QUEUE", 45),
    socket("SO_BUSY_POLL", 46),
    socket("SO_MAX_PACING_RATE", 47),
    socket("SO_ZEROCOPY", 60),
    socket("SO_TXTIME", 61),
    socket("SO_TIMESTAMP_NEW", 63),
    socket("SO_TIMESTAMPNS_NEW", 64),
    socket("SO_TIMESTAMPING_NEW", 65),
    socket("SO_PREFER_BUSY_POLL", 69),
    socket("SO_BUSY_POLL_BUDGET", 70),
    socket("SO_RESERVE_MEM", 73),
    socket("SO_RCVPRIORITY", 82),
    socket("SO_LOCK_FILTER", 44),
];
