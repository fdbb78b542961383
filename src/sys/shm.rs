//! Segments of System V's shared memory (shmctl(2)), in the IPC namespace of the calling thread.

use std::io;

/// What is done to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// It goes with its last user; at once if it has none.
    Remove,
    /// It is not swapped out.
    Lock,
}

/// Does it to the segment of this number.
///
/// # Errors
/// `EINVAL` where there is none, `EPERM` without the right to.
pub(crate) fn control(id: i32, what: Control) -> io::Result<()> {
    let command = match what {
        Control::Remove => libc::IPC_RMID,
        Control::Lock => libc::SHM_LOCK,
    };
    // SAFETY: neither command has an argument.
    match unsafe { libc::shmctl(id, command, std::ptr::null_mut()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
