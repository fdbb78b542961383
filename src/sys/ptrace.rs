//! ptrace(2), as far as [`inject`](super::inject) uses it.

use std::io;

/// ptrace(2) with its third and fourth argument, which may be addresses of ours.
pub(super) fn trace(
    request: libc::c_uint,
    tid: i32,
    address: usize,
    data: usize,
) -> io::Result<()> {
    // SAFETY: all requests of `inject` and `inject_arch` take numbers, or addresses of local
    // variables that live through the call and have the size that the request writes.
    if unsafe { libc::ptrace(request, tid, address, data) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
