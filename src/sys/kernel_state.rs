//! What the kernel keeps of another task and has no file in /proc for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What two tasks, or two descriptors, may share (`enum kcmp_type` of linux/kcmp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as the kernel names them")]
pub(crate) enum Shared {
    File = 0,
    Vm = 1,
    Files = 2,
    Fs = 3,
    Sighand = 4,
    Io = 5,
    Sysvsem = 6,
}

/// Whether two threads, by their numbers on the host, share something; descriptors are theirs.
///
/// # Errors
/// Those of kcmp(2): `ESRCH` for one that is gone, `EBADF` for a descriptor that is not open.
pub(crate) fn are_same(
    one: i32,
    other: i32,
    what: Shared,
    descriptors: (i32, i32),
) -> io::Result<bool> {
    // SAFETY: kcmp takes numbers only.
    let result = unsafe {
        libc::syscall(libc::SYS_kcmp, one, other, what as i32, descriptors.0, descriptors.1)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
}

/// `struct sched_attr` of linux/sched/types.h, as long as Linux 5.3 knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as the kernel names them")]
pub(crate) struct Scheduling {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub clamp_min: u32,
    pub clamp_max: u32,
}

/// How a thread is scheduled (sched_getattr(2)).
///
/// # Errors
/// `ESRCH` for one that is gone.
pub(crate) fn scheduling(tid: i32) -> io::Result<Scheduling> {
    let mut attributes = Scheduling::default();
    let size = size_of::<Scheduling>();
    // SAFETY: the kernel writes at most `size` bytes into `attributes`, which lives through the
    // call.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attributes, size, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

/// Class and level of a thread's I/O priority (ioprio_get(2)).
///
/// # Errors
/// `ESRCH` for one that is gone.
pub(crate) fn io_priority(tid: i32) -> io::Result<(u32, u32)> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_get takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, tid) };
    let value = u32::try_from(result).map_err(|_| io::Error::last_os_error())?;
    Ok((value >> 13, value & 0x1fff))
}

/// Sets a thread's I/O priority (ioprio_set(2)).
///
/// # Errors
/// `ESRCH` for one that is gone, `EPERM` for the real-time class without CAP_SYS_NICE.
pub(crate) fn set_io_priority(tid: i32, class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_set takes numbers only.
    let result = unsafe {
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, tid, class << 13 | level & 0x1fff)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Address and length of a thread's list of robust futexes (get_robust_list(2)).
///
/// # Errors
/// `ESRCH` for one that is gone.
pub(crate) fn robust_list(tid: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut length) = (0u64, 0u64);
    // SAFETY: the kernel writes a pointer and a size, 8 bytes each, into variables that live on.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((head, length)) }
}

/// A number that fcntl(2) knows of a descriptor, for commands without an argument.
///
/// # Errors
/// Those of the command; most are only for some kinds of files.
pub(crate) fn control(fd: BorrowedFd<'_>, command: libc::c_int) -> io::Result<i32> {
    // SAFETY: the commands that read take no argument.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Who gets the signals of a descriptor (`F_GETOWN_EX`): the kind of number and the number, as the
/// caller's pid namespace has it.
///
/// # Errors
/// Those of fcntl(2).
pub(crate) fn owner(fd: BorrowedFd<'_>) -> io::Result<(i32, i32)> {
    const F_GETOWN_EX: libc::c_int = 16;
    let mut owner = [0i32; 2];
    // SAFETY: the kernel writes a `struct f_owner_ex`, two ints, into an array that lives on.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((owner[0], owner[1])) }
}

/// How a file's contents are going to live (`F_GET_RW_HINT`).
///
/// # Errors
/// Those of fcntl(2).
pub(crate) fn write_hint(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const F_GET_RW_HINT: libc::c_int = 1035;
    let mut hint = 0u64;
    // SAFETY: the kernel writes 8 bytes into a variable that lives on.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_GET_RW_HINT, &raw mut hint) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(hint) }
}

/// What an ioctl(2) that writes at most `N` bytes leaves in a buffer.
///
/// Only for requests that read a state and write no more than that.
///
/// # Errors
/// Those of the request.
pub(crate) fn request<const N: usize>(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
) -> io::Result<[u8; N]> {
    let mut buffer = Aligned([0u8; N]);
    // SAFETY: the callers pass requests that write at most `N` bytes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, buffer.0.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(buffer.0) }
}

#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// An option of a socket; `value` holds what the kernel is to read first, and becomes what it says.
///
/// # Errors
/// Those of getsockopt(2); `ENOPROTOOPT` where the socket has no such option.
pub(crate) fn socket_option(
    fd: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &mut Vec<u8>,
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes at most `length` bytes of `value`, which lives on.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Some options say how much there is, though it did not fit.
    value.truncate(length as usize);
    Ok(())
}

/// Instructions of a socket's filter (`SO_GET_FILTER`), 8 bytes each; empty for a socket without
/// one.
///
/// # Errors
/// `EACCES` for a filter that was not set as instructions of the old kind.
pub(crate) fn socket_filter(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    const SO_GET_FILTER: i32 = 26;
    const MOST: usize = 4096;
    let mut code = vec![0u8; MOST * 8];
    // The length counts instructions here, and is how many there are.
    let mut length = libc::socklen_t::try_from(MOST).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` instructions of 8 bytes, for which there is room.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_GET_FILTER,
            code.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    code.truncate(length as usize * 8);
    Ok(code)
}

/// A socket's own address, or that of its peer, as bytes.
///
/// # Errors
/// `ENOTCONN` for a socket without a peer.
pub(crate) fn socket_address(fd: BorrowedFd<'_>, of_peer: bool) -> io::Result<Vec<u8>> {
    let mut address = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = libc::socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    let call = if of_peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: the kernel writes at most `length` bytes into `address`, which lives on.
    if unsafe { call(fd.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    address.truncate(length as usize);
    Ok(address)
}

/// The values of a set of System V semaphores in the caller's IPC namespace, and of each the
/// process that changed it last.
///
/// # Errors
/// Those of semctl(2).
pub(crate) fn semaphores(id: i32, count: usize) -> io::Result<Vec<(u16, i32)>> {
    const GETPID: libc::c_int = 11;
    const GETALL: libc::c_int = 13;
    let mut values = vec![0u16; count];
    // SAFETY: the kernel writes as many values as the set has; it was asked how many just now, and
    // that number never changes.
    if unsafe { libc::semctl(id, 0, GETALL, values.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let last = |at: usize| {
        // SAFETY: this command takes no argument.
        unsafe { libc::semctl(id, at as libc::c_int, GETPID) }
    };
    Ok(values.into_iter().enumerate().map(|(at, value)| (value, last(at))).collect())
}

/// A descriptor of another process, duplicated.
///
/// # Errors
/// `EBADF` for a number that is not open, `ESRCH` for a process that is gone.
pub(crate) fn duplicate(process: BorrowedFd<'_>, number: i32) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::process::pidfd_getfd(process, number, rustix::process::PidfdGetfdFlags::empty())?)
}

/// Runs `work` in namespaces of another process (but not its user namespace), in a thread that
/// ends.
///
/// # Errors
/// Those of setns(2) and of `work`.
pub(crate) fn within<T: Send>(
    pid: i32,
    namespaces: &[(&str, nix::sched::CloneFlags)],
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let open = |(name, kind): &(&str, nix::sched::CloneFlags)| {
        std::fs::File::open(format!("/proc/{pid}/ns/{name}")).map(|file| (file, *kind))
    };
    let files = namespaces.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let enter = move || {
        for (file, kind) in files {
            nix::sched::setns(file, kind)?;
        }
        work()
    };
    super::thread::on_a_thread("within", enter)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn our_own_thread_is_known() {
        let me = std::process::id().cast_signed();
        assert!(are_same(me, me, Shared::Vm, (0, 0)).unwrap());
        assert_eq!(scheduling(me).unwrap().policy, 0);
        assert!(io_priority(me).unwrap().0 <= 3);
        assert_eq!(robust_list(me).unwrap().1, 24);
    }

    #[test]
    fn descriptors_of_ours_are_compared_and_asked() {
        let me = std::process::id().cast_signed();
        let (from, to) = std::io::pipe().unwrap();
        let copy = from.try_clone().unwrap();
        let same = |a: BorrowedFd<'_>, b: BorrowedFd<'_>| {
            are_same(me, me, Shared::File, (a.as_raw_fd(), b.as_raw_fd())).unwrap()
        };
        assert!(same(from.as_fd(), copy.as_fd()) && !same(from.as_fd(), to.as_fd()));
        assert!(control(from.as_fd(), libc::F_GETPIPE_SZ).unwrap() >= 4096);
        assert_eq!(owner(from.as_fd()).unwrap().1, 0);
    }

    #[test]
    fn a_socket_answers() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut value = vec![0; 4];
        socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE, &mut value).unwrap();
        assert_eq!(value, libc::SOCK_DGRAM.to_ne_bytes());
        assert!(socket_filter(socket.as_fd()).unwrap().is_empty());
        assert_eq!(socket_address(socket.as_fd(), false).unwrap().len(), 16);
        assert!(socket_address(socket.as_fd(), true).is_err());
    }
}
