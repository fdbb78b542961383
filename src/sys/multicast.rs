//! Groups that a socket of IP has joined. No file in /proc says which socket has joined one, but
//! the socket does.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::process::Process;

/// Options of linux/in.h, of both protocols.
const MCAST_JOIN_GROUP: libc::c_int = 42;
const MCAST_MSFILTER: libc::c_int = 48;
/// What it takes to receive whatever is sent to a group: all sources but for none.
const MCAST_EXCLUDE: u32 = 0;

/// `struct group_req`.
#[repr(C)]
struct GroupRequest {
    interface: u32,
    group: libc::sockaddr_storage,
}

/// `struct group_filter` without sources (`GROUP_FILTER_SIZE(0)`).
#[repr(C)]
struct GroupFilter {
    interface: u32,
    group: libc::sockaddr_storage,
    mode: u32,
    sources: u32,
}

/// A group on an interface.
pub(crate) type Group = (u32, IpAddr);

/// The groups that anybody in the network namespace of a process has joined, those of the kernel
/// itself among them.
pub(crate) fn joined(pid: i32) -> io::Result<Vec<Group>> {
    let mut groups = four(&read(pid, "igmp")?);
    groups.extend(six(&read(pid, "igmp6")?));
    Ok(groups)
}

/// A kernel without that protocol has no such file.
fn read(pid: i32, name: &str) -> io::Result<String> {
    match fs::read_to_string(format!("/proc/{pid}/net/{name}")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// A line for each interface, and behind it, indented, one for each group: a word as it lies in
/// memory.
fn four(text: &str) -> Vec<Group> {
    let mut interface = None;
    let mut groups = Vec::new();
    for line in text.lines().skip(1) {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if !line.starts_with(['\t', ' ']) {
            interface = first.parse::<u32>().ok();
        } else if let (Some(index), Ok(group)) = (interface, u32::from_str_radix(first, 16)) {
            groups.push((index, Ipv4Addr::from(group.to_ne_bytes()).into()));
        }
    }
    groups
}

/// A line for each group: the interface's index, its name, the address in 32 digits.
fn six(text: &str) -> Vec<Group> {
    let group = |line: &str| -> Option<Group> {
        let mut words = line.split_ascii_whitespace();
        let index = words.next()?.parse().ok()?;
        let group = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((index, Ipv6Addr::from(group).into()))
    };
    text.lines().filter_map(group).collect()
}

/// A socket of another process; none when that number is no socket, or closed.
pub(crate) fn socket(process: &Process, number: i32) -> io::Result<Option<OwnedFd>> {
    match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::BADF) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whether a netlink socket listens to groups beyond the first 32.
pub(crate) fn has_far_groups(socket: &OwnedFd) -> bool {
    let mut groups = [0u32; 32];
    let mut length = size_of_val(&groups) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `groups`, which lives through the call.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_LIST_MEMBERSHIPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    told == 0 && groups.iter().skip(1).any(|word| *word != 0)
}

/// Whether a socket has joined a group, from all sources.
pub(crate) fn is_member(socket: &OwnedFd, (interface, group): Group) -> bool {
    let (level, group) = address(group);
    let mut filter = GroupFilter { interface, group, mode: 0, sources: 0 };
    let mut length = size_of::<GroupFilter>() as libc::socklen_t;
    // SAFETY: the kernel reads and writes at most `length` bytes of `filter`, which lives through
    // the call.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            MCAST_MSFILTER,
            (&raw mut filter).cast(),
            &raw mut length,
        )
    };
    told == 0 && filter.mode == MCAST_EXCLUDE && filter.sources == 0
}

/// Has a socket join a group. If it has joined it, all is well.
pub(crate) fn join(socket: &OwnedFd, (interface, group): Group) -> io::Result<()> {
    let (level, group) = address(group);
    let request = GroupRequest { interface, group };
    let length = size_of::<GroupRequest>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `request`, which lives through the call.
    let told = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            MCAST_JOIN_GROUP,
            (&raw const request).cast(),
            length,
        )
    };
    match io::Error::last_os_error() {
        _ if told == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
        error => Err(error),
    }
}

/// The level of the options, and the address as they want it.
fn address(group: IpAddr) -> (libc::c_int, libc::sockaddr_storage) {
    // SAFETY: all zeroes is a socket address of no family.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let at = &raw mut storage;
    match group {
        IpAddr::V4(group) => {
            let s_addr = u32::from_ne_bytes(group.octets());
            let sin_addr = libc::in_addr { s_addr };
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: 0,
                sin_addr,
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is made to hold an address of any family.
            unsafe { at.cast::<libc::sockaddr_in>().write(address) };
            (libc::IPPROTO_IP, storage)
        }
        IpAddr::V6(group) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: group.octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(address) };
            (libc::IPPROTO_IPV6, storage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let text = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        \
                    :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n2\teth0      :     \
                    2      V3\n\t\t\t\t010163EF     1 0:00000000\t\t0\n";
        let groups =
            [(1, Ipv4Addr::new(224, 0, 0, 1).into()), (2, Ipv4Addr::new(239, 99, 1, 1).into())];
        assert_eq!(four(text), groups);
        let text = "2    eth0            ff150000000000000000000000000099     1 00000004 0\n";
        assert_eq!(six(text), [(2, "ff15::99".parse::<IpAddr>().unwrap())]);
    }

    #[test]
    fn a_socket_says_what_it_has_joined() {
        let socket = OwnedFd::from(UdpSocket::bind("0.0.0.0:0").unwrap());
        // The loopback interface.
        let group = (1, Ipv4Addr::new(239, 99, 7, 7).into());
        assert!(!is_member(&socket, group));
        join(&socket, group).unwrap();
        join(&socket, group).unwrap();
        assert!(
            is_member(&socket, group)
                && !is_member(&socket, (1, Ipv4Addr::new(239, 99, 7, 8).into()))
        );
        assert!(joined(std::process::id().cast_signed()).unwrap().contains(&group));
    }
}
