//! Where a container's monitor listens, and where it tells of states.

use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;

/// From this length on, a socket's name is replaced by its hash: `sizeof(sun_path) - 2`.
const HASHED_FROM: usize = 106;

/// FNV-1a, 64 bits, as LXC hashes long names.
pub(crate) fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// An lxcpath as it stands in a socket's name: without trailing slashes, otherwise untouched,
/// because LXC does not resolve it either: the monitor's spelling must be the user's.
pub(crate) fn trim_lxcpath(lxcpath: &str) -> &str {
    lxcpath.trim_end_matches('/')
}

/// The abstract name of a container's command socket, without the NUL that leads it in the address.
pub fn socket_name(lxcpath: &str, name: &str) -> String {
    let container = format!("{}/{name}", trim_lxcpath(lxcpath));
    let literal = format!("{container}/command");
    if literal.len() < HASHED_FROM {
        return literal;
    }
    format!("lxc/{:016x}/command", fnv1a64(container.as_bytes()))
}

/// The address of a container's command socket. Its length is that of the name, without NUL or
/// padding at the end.
pub(crate) fn address(lxcpath: &str, name: &str) -> nix::Result<UnixAddr> {
    UnixAddr::new_abstract(socket_name(lxcpath, name).as_bytes())
}

/// The fifo by which a monitor tells `lxc-monitord` of states: below `run`, which is `/run` on a
/// real host.
pub(crate) fn fifo_path(run: &Path, lxcpath: &str) -> PathBuf {
    // Not `Path::join`: the lxcpath begins with a slash, and joining would throw the front away.
    let mut path = run.as_os_str().to_owned();
    path.push("/lxc/");
    path.push(trim_lxcpath(lxcpath));
    path.push("/monitor-fifo");
    PathBuf::from(path)
}
