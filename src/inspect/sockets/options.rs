//! Every option of every level that getsockopt(2) knows and that is a state: a line each.
//!
//! Left out is what reading changes (SO_ERROR, PACKET_STATISTICS, TCP_SAVED_SYN, SO_PEERPIDFD,
//! which opens a descriptor) or moves (TCP_ZEROCOPY_RECEIVE), what says of a group only whether it
//! was joined (multicast.rs of `sys`), and what exists for CRIU alone (TCP_REPAIR).

use super::super::state::{Class, PutBack, State};

/// An option: its row, its level and number.
#[derive(Debug)]
pub(super) struct SocketOption {
    /// Its row.
    pub state: State,
    /// The level, as in getsockopt(2).
    pub level: i32,
    /// The number.
    pub number: i32,
    /// Whose.
    pub of: Of,
}

const SOCKET: i32 = libc::SOL_SOCKET;
const IP: i32 = libc::SOL_IP;
const IPV6: i32 = libc::SOL_IPV6;
const TCP: i32 = libc::SOL_TCP;
const UDP: i32 = libc::SOL_UDP;
const UDPLITE: i32 = 136;
const SCTP: i32 = 132;
const RAW: i32 = 255;
const ICMPV6: i32 = 58;
const PACKET: i32 = libc::SOL_PACKET;
const NETLINK: i32 = libc::SOL_NETLINK;
const CRIU: PutBack = PutBack::Criu;
const US: PutBack = PutBack::Us;
use Class::{Bearable, Breaks, Varies, Weakens};
use Of::{Any, Connected, Datagrams, Inet, Streams, Unconnected};

/// Which sockets an option is a state of; on others chance or the kernel sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// All that have it.
    Any,
    /// Those of IPv4 and IPv6 without a connection.
    Unconnected,
    /// Those of IPv4 and IPv6 with a connection.
    Connected,
    /// Those of IPv4 and IPv6.
    Inet,
    /// All but streams.
    Datagrams,
    /// Streams, which have one peer.
    Streams,
}

const fn row(
    of: Of,
    name: &'static str,
    level: i32,
    number: i32,
    put_back: PutBack,
    class: Class,
    loss: &'static str,
) -> SocketOption {
    SocketOption { state: State { name, put_back, class, loss }, level, number, of }
}

/// All of them.
#[rustfmt::skip]
pub(super) static OPTIONS: &[SocketOption] = &[
    row(Any, "socket.so-debug", SOCKET, 1, US, Bearable, "the kernel records what it did not, or the reverse"),
    row(Inet, "socket.so-reuseaddr", SOCKET, 2, CRIU, Breaks, "its address cannot be bound again at once"),
    row(Any, "socket.so-type", SOCKET, 3, CRIU, Breaks, "it is of another type"),
    row(Any, "socket.so-dontroute", SOCKET, 5, CRIU, Breaks, "packets leave by another way"),
    row(Any, "socket.so-broadcast", SOCKET, 6, CRIU, Breaks, "broadcasts cannot be sent, or can"),
    row(Any, "socket.so-sndbuf", SOCKET, 7, CRIU, Bearable, "a writer waits sooner or later"),
    row(Any, "socket.so-rcvbuf", SOCKET, 8, CRIU, Bearable, "the sender waits sooner or later"),
    row(Any, "socket.so-keepalive", SOCKET, 9, CRIU, Breaks, "dead peers are no longer noticed"),
    row(Any, "socket.so-oobinline", SOCKET, 10, CRIU, Breaks, "urgent data is found elsewhere"),
    row(Any, "socket.so-no-check", SOCKET, 11, CRIU, Breaks, "datagrams have a checksum, or none"),
    row(Any, "socket.so-priority", SOCKET, 12, CRIU, Bearable, "its packets are queued otherwise"),
    row(Any, "socket.so-linger", SOCKET, 13, CRIU, Breaks, "closing waits, or loses data"),
    row(Unconnected, "socket.so-reuseport", SOCKET, 15, CRIU, Breaks, "other processes cannot share its port"),
    row(Any, "socket.so-passcred", SOCKET, 16, CRIU, Breaks, "it does not learn who sends"),
    row(Any, "socket.so-rcvlowat", SOCKET, 18, CRIU, Breaks, "a read returns sooner or later"),
    row(Any, "socket.so-sndlowat", SOCKET, 19, CRIU, Bearable, "it is writable sooner or later"),
    row(Any, "socket.so-rcvtimeo", SOCKET, 20, CRIU, Breaks, "a read waits longer or shorter"),
    row(Any, "socket.so-sndtimeo", SOCKET, 21, CRIU, Breaks, "a write waits longer or shorter"),
    row(Any, "socket.so-bindtodevice", SOCKET, 25, CRIU, Weakens, "packets of other interfaces reach it"),
    row(Any, "socket.so-timestamp", SOCKET, 29, US, Breaks, "it does not learn when packets came"),
    row(Any, "socket.so-acceptconn", SOCKET, 30, CRIU, Breaks, "it does not listen"),
    row(Streams, "socket.so-peersec", SOCKET, 31, PutBack::Cannot("the kernel takes it from who connects"), Weakens, "it takes its peer for another label"),
    row(Any, "socket.so-passsec", SOCKET, 34, CRIU, Breaks, "it does not learn the label of who sends"),
    row(Any, "socket.so-timestampns", SOCKET, 35, US, Breaks, "it does not learn when packets came"),
    row(Any, "socket.so-mark", SOCKET, 36, CRIU, Breaks, "rules of the firewall and routes do not match its packets"),
    row(Any, "socket.so-timestamping", SOCKET, 37, US, Breaks, "it does not learn when packets came or left"),
    row(Any, "socket.so-protocol", SOCKET, 38, CRIU, Breaks, "it speaks another protocol"),
    row(Any, "socket.so-domain", SOCKET, 39, CRIU, Breaks, "it is of another family"),
    row(Any, "socket.so-rxq-ovfl", SOCKET, 40, US, Breaks, "it does not learn how many packets were dropped"),
    row(Any, "socket.so-wifi-status", SOCKET, 41, US, Bearable, "it does not learn what became of packets over wireless"),
    row(Any, "socket.so-peek-off", SOCKET, 42, US, Breaks, "peeking begins elsewhere"),
    row(Any, "socket.so-nofcs", SOCKET, 43, US, Breaks, "frames are sent with a checksum of the interface, or without"),
    row(Any, "socket.so-lock-filter", SOCKET, 44, US, Weakens, "its filter can be removed"),
    row(Any, "socket.so-select-err-queue", SOCKET, 45, US, Breaks, "it is not notified of errors"),
    row(Any, "socket.so-busy-poll", SOCKET, 46, US, Bearable, "it waits in another way"),
    row(Any, "socket.so-max-pacing-rate", SOCKET, 47, US, Bearable, "it sends faster or slower"),
    row(Any, "socket.so-incoming-cpu", SOCKET, 49, US, Varies, "the kernel sets it with each packet"),
    row(Any, "socket.so-meminfo", SOCKET, 55, CRIU, Varies, "what buffers take now"),
    row(Any, "socket.so-incoming-napi-id", SOCKET, 56, CRIU, Varies, "the kernel sets it with each packet"),
    row(Any, "socket.so-cookie", SOCKET, 57, PutBack::Cannot("the kernel counts sockets"), Varies, "the kernel counts sockets"),
    row(Streams, "socket.so-peergroups", SOCKET, 59, PutBack::Cannot("the kernel takes it from who connects"), Weakens, "it takes its peer for a member of other groups"),
    row(Any, "socket.so-zerocopy", SOCKET, 60, US, Breaks, "sending without a copy is refused"),
    row(Any, "socket.so-txtime", SOCKET, 61, US, Breaks, "packets leave at another time"),
    row(Any, "socket.so-bindtoifindex", SOCKET, 62, CRIU, Weakens, "packets of other interfaces reach it"),
    row(Any, "socket.so-detach-reuseport-bpf", SOCKET, 68, CRIU, Varies, "it cannot be read"),
    row(Any, "socket.so-prefer-busy-poll", SOCKET, 69, US, Bearable, "it waits in another way"),
    row(Any, "socket.so-busy-poll-budget", SOCKET, 70, US, Bearable, "it waits in another way"),
    row(Any, "socket.so-netns-cookie", SOCKET, 71, PutBack::Cannot("the kernel counts network namespaces"), Varies, "the kernel counts network namespaces"),
    row(Any, "socket.so-buf-lock", SOCKET, 72, CRIU, Bearable, "the kernel sizes its buffers otherwise"),
    row(Any, "socket.so-reserve-mem", SOCKET, 73, US, Bearable, "it is slower under load"),
    row(Any, "socket.so-txrehash", SOCKET, 74, US, Bearable, "it finds another path around failures, or does not"),
    row(Any, "socket.so-rcvmark", SOCKET, 75, US, Breaks, "it does not learn the mark of packets"),
    row(Any, "socket.so-passpidfd", SOCKET, 76, US, Breaks, "it does not learn who sends"),
    row(Any, "socket.so-rcvpriority", SOCKET, 82, US, Breaks, "it does not learn the priority of packets"),
    row(Any, "socket.so-passrights", SOCKET, 83, US, Weakens, "others can pass descriptors to it"),
    row(Any, "socket.so-inq", SOCKET, 84, US, Breaks, "it does not learn how much is left to read"),
    row(Connected, "socket.so-reuseport-connected", SOCKET, 15, US, Bearable, "others may listen at the port of a connection"),
    row(Any, "socket.ip-tos", IP, 1, CRIU, Bearable, "its packets are treated otherwise on their way"),
    row(Any, "socket.ip-ttl", IP, 2, CRIU, Breaks, "its packets reach further, or less far"),
    row(Any, "socket.ip-hdrincl", IP, 3, CRIU, Breaks, "headers are added to its packets, or are missing"),
    row(Any, "socket.ip-options", IP, 4, US, Breaks, "its packets carry other options"),
    row(Any, "socket.ip-recvopts", IP, 6, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ip-retopts", IP, 7, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ip-pktinfo", IP, 8, CRIU, Breaks, "it does not learn where packets came in"),
    row(Any, "socket.ip-mtu-discover", IP, 10, US, Breaks, "large packets are split, or refused"),
    row(Any, "socket.ip-recverr", IP, 11, US, Breaks, "it does not learn of errors"),
    row(Any, "socket.ip-recvttl", IP, 12, US, Breaks, "it does not learn how far packets came"),
    row(Any, "socket.ip-recvtos", IP, 13, US, Breaks, "it does not learn how packets were treated"),
    row(Any, "socket.ip-mtu", IP, 14, CRIU, Varies, "the kernel learns it of the path"),
    row(Any, "socket.ip-freebind", IP, 15, CRIU, Breaks, "an address that is not there yet cannot be bound"),
    row(Any, "socket.ip-xfrm-policy", IP, 17, US, Weakens, "its packets are not encrypted"),
    row(Any, "socket.ip-passsec", IP, 18, US, Breaks, "it does not learn the label of packets"),
    row(Any, "socket.ip-transparent", IP, 19, US, Breaks, "a proxy cannot use addresses of others"),
    row(Any, "socket.ip-origdstaddr", IP, 20, US, Breaks, "a proxy does not learn where packets were sent"),
    row(Any, "socket.ip-minttl", IP, 21, US, Weakens, "packets from far away are accepted"),
    row(Any, "socket.ip-nodefrag", IP, 22, US, Breaks, "fragments are joined before it sees them"),
    row(Any, "socket.ip-checksum", IP, 23, US, Breaks, "it does not learn the checksum of packets"),
    row(Any, "socket.ip-bind-address-no-port", IP, 24, US, Breaks, "connecting fails for lack of ports"),
    row(Any, "socket.ip-recvfragsize", IP, 25, US, Breaks, "it does not learn the size of fragments"),
    row(Any, "socket.ip-recverr-rfc4884", IP, 26, US, Breaks, "it learns less of errors"),
    row(Datagrams, "socket.ip-multicast-if", IP, 32, US, Breaks, "multicast leaves by another interface"),
    row(Datagrams, "socket.ip-multicast-ttl", IP, 33, US, Breaks, "multicast reaches further, or less far"),
    row(Datagrams, "socket.ip-multicast-loop", IP, 34, US, Breaks, "the host itself hears its multicast, or does not"),
    row(Datagrams, "socket.ip-multicast-all", IP, 49, US, Breaks, "it hears groups that others have joined"),
    row(Any, "socket.ip-unicast-if", IP, 50, US, Breaks, "packets leave by another interface"),
    row(Any, "socket.ip-local-port-range", IP, 51, US, Breaks, "connections come from other ports"),
    row(Any, "socket.ip-protocol", IP, 52, CRIU, Breaks, "it speaks another protocol"),
    row(Any, "socket.ipv6-addrform", IPV6, 1, CRIU, Varies, "a family cannot change"),
    row(Any, "socket.ipv6-2292pktinfo", IPV6, 2, US, Breaks, "it does not learn where packets came in"),
    row(Any, "socket.ipv6-2292hopopts", IPV6, 3, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ipv6-2292dstopts", IPV6, 4, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ipv6-2292rthdr", IPV6, 5, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ipv6-checksum", IPV6, 7, US, Breaks, "checksums are not computed"),
    row(Any, "socket.ipv6-2292hoplimit", IPV6, 8, US, Breaks, "it does not learn how far packets came"),
    row(Any, "socket.ipv6-flowinfo", IPV6, 11, US, Breaks, "it does not learn the flow of packets"),
    row(Any, "socket.ipv6-unicast-hops", IPV6, 16, US, Breaks, "its packets reach further, or less far"),
    row(Datagrams, "socket.ipv6-multicast-if", IPV6, 17, US, Breaks, "multicast leaves by another interface"),
    row(Datagrams, "socket.ipv6-multicast-hops", IPV6, 18, US, Breaks, "multicast reaches further, or less far"),
    row(Datagrams, "socket.ipv6-multicast-loop", IPV6, 19, US, Breaks, "the host itself hears its multicast, or does not"),
    row(Any, "socket.ipv6-router-alert-isolate", IPV6, 30, US, Breaks, "it hears packets of other sockets"),
    row(Any, "socket.ipv6-mtu-discover", IPV6, 23, US, Breaks, "large packets are split, or refused"),
    row(Any, "socket.ipv6-mtu", IPV6, 24, US, Varies, "the kernel learns it of the path"),
    row(Any, "socket.ipv6-recverr", IPV6, 25, US, Breaks, "it does not learn of errors"),
    row(Any, "socket.ipv6-v6only", IPV6, 26, CRIU, Breaks, "it accepts IPv4, too, or no longer"),
    row(Datagrams, "socket.ipv6-multicast-all", IPV6, 29, US, Breaks, "it hears groups that others have joined"),
    row(Any, "socket.ipv6-recverr-rfc4884", IPV6, 31, US, Breaks, "it learns less of errors"),
    row(Any, "socket.ipv6-flowlabel-mgr", IPV6, 32, US, Bearable, "its packets carry another flow label"),
    row(Any, "socket.ipv6-hdrincl", IPV6, 36, US, Breaks, "headers are added to its packets, or are missing"),
    row(Any, "socket.ipv6-recvpktinfo", IPV6, 49, CRIU, Breaks, "it does not learn where packets came in"),
    row(Any, "socket.ipv6-recvhoplimit", IPV6, 51, US, Breaks, "it does not learn how far packets came"),
    row(Any, "socket.ipv6-recvhopopts", IPV6, 53, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ipv6-hopopts", IPV6, 54, US, Breaks, "its packets carry other options"),
    row(Any, "socket.ipv6-rthdrdstopts", IPV6, 55, US, Breaks, "its packets carry other options"),
    row(Any, "socket.ipv6-recvrthdr", IPV6, 56, US, Breaks, "it does not learn the route of packets"),
    row(Any, "socket.ipv6-rthdr", IPV6, 57, US, Breaks, "its packets take another route"),
    row(Any, "socket.ipv6-recvdstopts", IPV6, 58, US, Breaks, "it does not learn the options of packets"),
    row(Any, "socket.ipv6-dstopts", IPV6, 59, US, Breaks, "its packets carry other options"),
    row(Any, "socket.ipv6-recvpathmtu", IPV6, 60, US, Breaks, "it does not learn the size of packets"),
    row(Any, "socket.ipv6-dontfrag", IPV6, 62, US, Breaks, "large packets are split, or refused"),
    row(Any, "socket.ipv6-recvtclass", IPV6, 66, US, Breaks, "it does not learn how packets were treated"),
    row(Any, "socket.ipv6-tclass", IPV6, 67, US, Bearable, "its packets are treated otherwise on their way"),
    row(Any, "socket.ipv6-autoflowlabel", IPV6, 70, US, Bearable, "its packets carry another flow label"),
    row(Any, "socket.ipv6-addr-preferences", IPV6, 72, US, Breaks, "connections come from other addresses"),
    row(Any, "socket.ipv6-minhopcount", IPV6, 73, US, Weakens, "packets from far away are accepted"),
    row(Any, "socket.ipv6-origdstaddr", IPV6, 74, US, Breaks, "a proxy does not learn where packets were sent"),
    row(Any, "socket.ipv6-transparent", IPV6, 75, US, Breaks, "a proxy cannot use addresses of others"),
    row(Any, "socket.ipv6-unicast-if", IPV6, 76, US, Breaks, "packets leave by another interface"),
    row(Any, "socket.ipv6-recvfragsize", IPV6, 77, US, Breaks, "it does not learn the size of fragments"),
    row(Any, "socket.ipv6-freebind", IPV6, 78, US, Breaks, "an address that is not there yet cannot be bound"),
    row(Any, "socket.tcp-nodelay", TCP, 1, CRIU, Bearable, "small pieces wait, or no longer do"),
    row(Unconnected, "socket.tcp-maxseg", TCP, 2, US, Varies, "the kernel learns it of the path"),
    row(Any, "socket.tcp-cork", TCP, 3, CRIU, Breaks, "pieces are held back, or no longer are"),
    row(Any, "socket.tcp-keepidle", TCP, 4, CRIU, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.tcp-keepintvl", TCP, 5, CRIU, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.tcp-keepcnt", TCP, 6, CRIU, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.tcp-syncnt", TCP, 7, US, Breaks, "connecting is given up sooner or later"),
    row(Any, "socket.tcp-linger2", TCP, 8, US, Bearable, "closed connections take memory longer or shorter"),
    row(Any, "socket.tcp-defer-accept", TCP, 9, US, Breaks, "it accepts connections before there is data"),
    row(Unconnected, "socket.tcp-window-clamp", TCP, 10, US, Bearable, "its peer sends less at once, or more"),
    row(Any, "socket.tcp-quickack", TCP, 12, US, Varies, "the kernel changes it with each packet"),
    row(Any, "socket.tcp-congestion", TCP, 13, US, Bearable, "it sends faster or slower"),
    row(Any, "socket.tcp-thin-linear-timeouts", TCP, 16, US, Bearable, "lost pieces are sent again sooner or later"),
    row(Any, "socket.tcp-user-timeout", TCP, 18, US, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.tcp-fastopen", TCP, 23, US, Bearable, "connections begin slower"),
    row(Any, "socket.tcp-timestamp", TCP, 24, CRIU, Varies, "it counts the time"),
    row(Any, "socket.tcp-notsent-lowat", TCP, 25, US, Bearable, "it is writable sooner or later"),
    row(Any, "socket.tcp-save-syn", TCP, 27, US, Breaks, "it does not learn how connections began"),
    row(Any, "socket.tcp-fastopen-connect", TCP, 30, US, Bearable, "connections begin slower"),
    row(Any, "socket.tcp-ulp", TCP, 31, PutBack::Cannot("CRIU refuses kernel TLS"), Weakens, "its data is not encrypted"),
    row(Any, "socket.tcp-fastopen-key", TCP, 33, US, Bearable, "connections begin slower"),
    row(Any, "socket.tcp-fastopen-no-cookie", TCP, 34, US, Weakens, "connections with data are accepted from forged addresses"),
    row(Any, "socket.tcp-inq", TCP, 36, US, Breaks, "it does not learn how much is left to read"),
    row(Any, "socket.tcp-tx-delay", TCP, 37, US, Bearable, "it sends faster or slower"),
    row(Any, "socket.tcp-ao-info", TCP, 40, PutBack::Cannot("keys cannot be read"), Weakens, "unsigned peers are served"),
    row(Any, "socket.tcp-is-mptcp", TCP, 43, CRIU, Breaks, "it uses one path only"),
    row(Any, "socket.tcp-rto-max-ms", TCP, 44, US, Bearable, "lost pieces are sent again sooner or later"),
    row(Any, "socket.tcp-rto-min-us", TCP, 45, US, Bearable, "lost pieces are sent again sooner or later"),
    row(Any, "socket.tcp-delack-max-us", TCP, 46, US, Bearable, "it confirms sooner or later"),
    row(Any, "socket.udp-cork", UDP, 1, US, Breaks, "pieces are held back, or no longer are"),
    row(Any, "socket.udp-encap", UDP, 100, US, Weakens, "a tunnel does not work"),
    row(Any, "socket.udp-no-check6-tx", UDP, 101, US, Breaks, "datagrams have a checksum, or none"),
    row(Any, "socket.udp-no-check6-rx", UDP, 102, US, Breaks, "datagrams without a checksum are dropped"),
    row(Any, "socket.udp-segment", UDP, 103, US, Breaks, "what is sent is not split"),
    row(Any, "socket.udp-gro", UDP, 104, US, Breaks, "datagrams arrive one by one"),
    row(Any, "socket.udplite-send-cscov", UDPLITE, 10, US, Breaks, "other parts of packets are protected"),
    row(Any, "socket.udplite-recv-cscov", UDPLITE, 11, US, Breaks, "damaged packets are dropped, or accepted"),
    row(Any, "socket.icmp-filter", RAW, 1, US, Weakens, "it hears messages that it did not want"),
    row(Any, "socket.icmpv6-filter", ICMPV6, 1, US, Weakens, "it hears messages that it did not want"),
    row(Any, "socket.packet-copy-thresh", PACKET, 7, US, Bearable, "fewer packets are kept"),
    row(Any, "socket.packet-auxdata", PACKET, 8, CRIU, Breaks, "it does not learn of tags and checksums"),
    row(Any, "socket.packet-origdev", PACKET, 9, CRIU, Breaks, "it learns of another interface"),
    row(Any, "socket.packet-version", PACKET, 10, CRIU, Breaks, "its ring is laid out otherwise"),
    row(Any, "socket.packet-reserve", PACKET, 12, CRIU, Breaks, "its ring is laid out otherwise"),
    row(Any, "socket.packet-loss", PACKET, 14, CRIU, Breaks, "bad packets stop its ring"),
    row(Any, "socket.packet-vnet-hdr", PACKET, 15, CRIU, Breaks, "packets begin otherwise"),
    row(Any, "socket.packet-timestamp", PACKET, 17, CRIU, Breaks, "it does not learn when packets came"),
    row(Any, "socket.packet-fanout", PACKET, 18, CRIU, Breaks, "packets are not shared out"),
    row(Any, "socket.packet-tx-has-off", PACKET, 19, US, Breaks, "its ring is read otherwise"),
    row(Any, "socket.packet-qdisc-bypass", PACKET, 20, US, Bearable, "its packets are queued"),
    row(Any, "socket.packet-ignore-outgoing", PACKET, 23, US, Breaks, "it hears what the host sends"),
    row(Any, "socket.packet-vnet-hdr-sz", PACKET, 24, US, Breaks, "packets begin otherwise"),
    row(Any, "socket.netlink-pktinfo", NETLINK, 3, US, Breaks, "it does not learn the group of messages"),
    row(Any, "socket.netlink-broadcast-error", NETLINK, 4, US, Bearable, "it learns less of lost messages"),
    row(Any, "socket.netlink-no-enobufs", NETLINK, 5, US, Breaks, "it learns of lost messages, or no longer"),
    row(Any, "socket.netlink-listen-all-nsid", NETLINK, 8, US, Weakens, "it hears other network namespaces"),
    row(Any, "socket.netlink-list-memberships", NETLINK, 9, US, Breaks, "it is not notified of events"),
    row(Any, "socket.netlink-cap-ack", NETLINK, 10, US, Breaks, "answers have another length"),
    row(Any, "socket.netlink-ext-ack", NETLINK, 11, US, Bearable, "errors are not explained"),
    row(Any, "socket.netlink-get-strict-chk", NETLINK, 12, US, Breaks, "answers hold more than was asked for"),
    row(Any, "socket.sctp-rtoinfo", SCTP, 0, US, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.sctp-associnfo", SCTP, 1, US, Breaks, "dead peers are noticed later, or live ones given up"),
    row(Any, "socket.sctp-initmsg", SCTP, 2, US, Breaks, "it has another number of streams"),
    row(Any, "socket.sctp-nodelay", SCTP, 3, US, Bearable, "small pieces wait, or no longer do"),
    row(Any, "socket.sctp-autoclose", SCTP, 4, US, Breaks, "idle peers are given up, or no longer"),
];
