//! TCP sockets of another process that CRIU has left in repair mode.
//!
//! CRIU puts a connection into repair mode (`TCP_REPAIR`, tcp(7)) to read its state, and back when
//! it lets the network go. If it is killed in between, reads and writes fail with `EPERM` and
//! `EINVAL` and nothing is sent or acknowledged any more (net/ipv4/tcp.c: `tcp_recvmsg_locked`,
//! `tcp_sendmsg_locked`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::process::Process;

/// Ends the repair mode of each TCP socket of a process; says how many were in it.
///
/// The kernel then sends a window probe, as after CRIU's own end of the repair: the peer learns
/// that all is well.
pub(crate) fn end_repair(pid: i32) -> io::Result<usize> {
    let process = Process::open(pid)?;
    let mut ended = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // Descriptors come and go: one that cannot be read any more is none.
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|t| t.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        if is_socket
            && let Some(socket) = get(&process, number)?
            && is_in_repair(&socket)?
        {
            setsockopt(&socket, TcpRepair, &0)?;
            ended += 1;
        }
    }
    Ok(ended)
}

fn get(process: &Process, number: i32) -> io::Result<Option<OwnedFd>> {
    match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e == rustix::io::Errno::BADF => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Only a TCP socket knows the option.
fn is_in_repair(socket: &OwnedFd) -> io::Result<bool> {
    match getsockopt(socket, TcpRepair) {
        Ok(mode) => Ok(mode == 1),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_that_are_well_are_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _other = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(end_repair(std::process::id() as i32).unwrap(), 0);
    }
}
