//! Descriptors and credentials that travel over a unix socket.
//!
//! nix has `recvmsg`, but it hands out raw descriptor numbers, and nothing at all when the kernel
//! had to cut the control data: descriptors that did arrive would then stay open for ever. Here
//! every descriptor that the kernel installed has an owner before anything else happens.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// The pid, uid and gid of a sender as the kernel vouches for them.
pub(crate) use nix::sys::socket::UnixCredentials as Credentials;

/// The most descriptors taken from one message. (LXC's own limit is 20.)
pub(crate) const MAX_FDS: usize = 32;

/// Room for the credentials and `MAX_FDS` descriptors with their headers, aligned as `cmsghdr`
/// wants it.
type Control = [u64; 32];

/// The bytes of control data that hold credentials and this many descriptors.
fn control_len(max_fds: usize) -> usize {
    let fds = max_fds.min(MAX_FDS) * size_of::<RawFd>();
    // SAFETY: CMSG_SPACE only calculates; it is unsafe for being declared as a foreign function.
    let (rights, creds) = unsafe {
        (libc::CMSG_SPACE(fds as u32), libc::CMSG_SPACE(size_of::<libc::ucred>() as u32))
    };
    (if fds == 0 { 0 } else { rights as usize }) + creds as usize
}

/// Receives into `buf` once, with at most `max_fds` descriptors (CLOEXEC, the rest is closed) and
/// the sender's credentials if the socket asks for them (SO_PASSCRED). Blocks as the socket does; 0
/// bytes are the end.
#[expect(clippy::disallowed_methods, reason = "as the socket does, for which callers set a limit")]
pub(crate) fn recv_with_fds(
    sock: BorrowedFd<'_>,
    buf: &mut [u8],
    max_fds: usize,
) -> io::Result<(usize, Vec<OwnedFd>, Option<Credentials>)> {
    let mut control: Control = [0; 32];
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: msghdr is plain integers and pointers, for which all zeros is a valid value (null,
    // length 0).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control_len(max_fds);
    let received = loop {
        // SAFETY: `header` points to `iov`, which describes `buf`, and to `control`, which is
        // longer than `control_len` can say; all three outlive the call.
        let n = unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(n) {
            Ok(n) => break n,
            Err(_) => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    };
    let (mut fds, credentials) = take_control(&header);
    fds.truncate(max_fds);
    Ok((received, fds, credentials))
}

/// Gives the descriptors of a received message their owner, and reads the credentials.
fn take_control(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<Credentials>) {
    let mut fds = Vec::new();
    let mut credentials = None;
    // SAFETY: called once for a header that recvmsg has filled: the kernel wrote well-formed
    // control messages of `msg_controllen` bytes in all, CMSG_FIRSTHDR/NXTHDR stay within them, and
    // the payload is read with its own length and without alignment. The descriptors are new in
    // this process and nobody else has seen them.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(m) = message.as_ref() {
            let data = libc::CMSG_DATA(m);
            let len = m.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            match (m.cmsg_level, m.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for i in 0..len / size_of::<RawFd>() {
                        let fd = data.cast::<RawFd>().add(i).read_unaligned();
                        fds.push(OwnedFd::from_raw_fd(fd));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                    credentials =
                        Some(Credentials::from(data.cast::<libc::ucred>().read_unaligned()));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, m);
        }
    }
    (fds, credentials)
}

/// Sends all of `bufs` as one message, with descriptors and, if wanted, this process's credentials.
/// Blocks as the socket does; a peer that is gone is EPIPE and no signal. Returns how many bytes
/// were taken.
#[expect(clippy::disallowed_methods, reason = "as the socket does, for which callers set a limit")]
pub(crate) fn send_with_fds(
    sock: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    credentials: Option<Credentials>,
) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = Vec::with_capacity(2);
    if !raw.is_empty() {
        control.push(ControlMessage::ScmRights(&raw));
    }
    if let Some(credentials) = &credentials {
        control.push(ControlMessage::ScmCredentials(credentials));
    }
    loop {
        match sendmsg::<()>(sock.as_raw_fd(), bufs, &control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(n) => return Ok(n),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{setsockopt, sockopt::PassCred};

    use super::*;

    #[test]
    fn descriptors_and_credentials_arrive() {
        let (a, b) = UnixStream::pair().unwrap();
        setsockopt(&b, PassCred, &true).unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        let sent = send_with_fds(
            a.as_fd(),
            &[IoSlice::new(b"he"), IoSlice::new(b"llo")],
            &[file.as_fd(), file.as_fd()],
            Some(Credentials::new()),
        );
        assert_eq!(sent.unwrap(), 5);
        let mut buf = [0; 16];
        let (n, fds, credentials) = recv_with_fds(b.as_fd(), &mut buf, 20).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"hello"[..], 2));
        assert_eq!(credentials.unwrap().pid(), std::process::id() as i32);
        for fd in fds {
            assert!(
                FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap())
                    .contains(FdFlag::FD_CLOEXEC)
            );
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
        }
    }

    #[test]
    fn unwanted_descriptors_are_not_kept() {
        for passcred in [false, true] {
            for max in 0..3 {
                let (a, b) = UnixStream::pair().unwrap();
                setsockopt(&b, PassCred, &passcred).unwrap();
                // The far end of a pipe tells whether any copy of the near end is left open.
                let (mut far, near) = std::io::pipe().unwrap();
                let many: Vec<BorrowedFd<'_>> = (0..30).map(|_| near.as_fd()).collect();
                send_with_fds(a.as_fd(), &[IoSlice::new(b"x")], &many, None).unwrap();
                let (n, fds, _) = recv_with_fds(b.as_fd(), &mut [0; 4], max).unwrap();
                assert_eq!((n, fds.len()), (1, max));
                drop((fds, near));
                assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
            }
        }
    }

    #[test]
    fn the_end_and_a_dead_peer_are_no_surprise() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert_eq!(recv_with_fds(b.as_fd(), &mut [0; 4], 4).unwrap().0, 0);
        let e = send_with_fds(b.as_fd(), &[IoSlice::new(b"x")], &[], None).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::BrokenPipe);
    }
}
