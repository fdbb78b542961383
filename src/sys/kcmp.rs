//! What two tasks share: kcmp(2). CRIU needs a kernel that has it.

use std::io;

use nix::errno::Errno;

/// What may be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// All open descriptors (`CLONE_FILES`).
    Descriptors,
    /// Root, working directory and umask (`CLONE_FS`).
    Directories,
}

impl Shared {
    /// `KCMP_FILES`, … of linux/kcmp.h.
    fn number(self) -> libc::c_int {
        match self {
            Shared::Descriptors => 2,
            Shared::Directories => 3,
        }
    }
}

/// Whether two tasks share something.
///
/// # Errors
/// `ESRCH` when one of them is gone; `EPERM`; `ENOSYS` or `EOPNOTSUPP` from a kernel that cannot
/// say.
pub(crate) fn share(one: i32, other: i32, what: Shared) -> io::Result<bool> {
    compare(one, other, what.number(), 0, 0)
}

/// Whether a descriptor of one task is the same open file as one of another: not another opening of
/// it.
///
/// # Errors
/// Those of [`share`]; `EBADF` where there is no such descriptor.
pub(crate) fn same_file(one: (i32, i32), other: (i32, i32)) -> io::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    compare(one.0, other.0, KCMP_FILE, one.1, other.1)
}

/// Whether a descriptor of a task is what its epoll watches under a number: `occurrence` counts
/// from 0 those that have been added under the same number.
///
/// # Errors
/// Those of [`share`]; `ENOENT` where the epoll does not watch such a number, `EBADF` where there
/// is no such descriptor.
pub(crate) fn is_watched(
    pid: i32,
    epoll: i32,
    number: i32,
    occurrence: u32,
    descriptor: i32,
) -> io::Result<bool> {
    const KCMP_EPOLL_TFD: libc::c_int = 7;
    // struct kcmp_epoll_slot.
    let slot = [epoll.cast_unsigned(), number.cast_unsigned(), occurrence];
    // SAFETY: the kernel reads three numbers at the address, which live through the call.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            KCMP_EPOLL_TFD,
            libc::c_ulong::from(descriptor.cast_unsigned()),
            slot.as_ptr(),
        )
    };
    Ok(Errno::result(order)? == 0)
}

fn compare(one: i32, other: i32, kind: libc::c_int, first: i32, second: i32) -> io::Result<bool> {
    let number = |n: i32| libc::c_ulong::from(n.cast_unsigned());
    // SAFETY: the call takes numbers alone.
    let order =
        unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, number(first), number(second)) };
    Ok(Errno::result(order)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn threads_share_their_descriptors_and_processes_do_not() {
        let me = std::process::id().cast_signed();
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let other = child.id().cast_signed();
        assert!(share(me, me, Shared::Descriptors).unwrap());
        assert!(!share(me, other, Shared::Descriptors).unwrap());
        let (file, again) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let copy = file.try_clone().unwrap();
        assert!(same_file((me, file.as_raw_fd()), (me, copy.as_raw_fd())).unwrap());
        assert!(!same_file((me, file.as_raw_fd()), (me, again.as_raw_fd())).unwrap());
        assert!(same_file((me, 9999), (me, 0)).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
