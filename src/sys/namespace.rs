//! Whose a process's namespaces are, by what the kernel says of them. What it says nobody can make
//! up.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};

use super::process::own_fd;
use super::thread::on_a_thread;

/// include/uapi/linux/nsfs.h.
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// Whether only root can have made the namespaces in which a process is the first.
///
/// A user who is not root has to make a user namespace to be allowed a pid namespace, and that one
/// says for ever whose it is. So either the process is in our user namespace, and so is its pid
/// namespace; or its user namespace is a child of ours that root has made.
pub(crate) fn are_of_root(pid: i32) -> io::Result<bool> {
    let ours = identity(&File::open("/proc/self/ns/user")?)?;
    let user = File::open(format!("/proc/{pid}/ns/user"))?;
    if identity(&user)? == ours {
        let owner = related(&File::open(format!("/proc/{pid}/ns/pid"))?, NS_GET_USERNS)?;
        return Ok(identity(&owner.into())? == ours);
    }
    let parent = related(&user, NS_GET_PARENT)?;
    Ok(identity(&parent.into())? == ours && owner(&user)? == nix::unistd::geteuid().as_raw())
}

/// The network namespace of a process.
///
/// # Errors
/// As opening /proc/PID/ns/net: `NotFound` when the process has ended.
pub(crate) fn network_of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// A namespace of ours as a device and an inode.
fn identity(namespace: &File) -> io::Result<(u64, u64)> {
    let found = namespace.metadata()?;
    Ok((found.dev(), found.ino()))
}

fn related(namespace: &File, question: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open; this ioctl takes no argument and returns a new descriptor.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), question) } {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(own_fd(fd)),
    }
}

/// The user who has made a user namespace.
fn owner(namespace: &File) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the descriptor is open; the kernel writes a uid to a local that lives through the
    // call.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(uid),
    }
}

/// Runs `f` on a thread of its own in another UTS, network, IPC or cgroup namespace.
pub(crate) fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    f: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let enter = move || setns(namespace, CloneFlags::empty()).map(|()| f());
    Ok(on_a_thread("namespace", enter)??)
}

/// The inode of the socket that listens at an abstract address in our network namespace.
pub(crate) fn listener(address: &str) -> io::Result<Option<u64>> {
    let table = fs::read("/proc/net/unix")?;
    Ok(find_listener(&String::from_utf8_lossy(&table), address))
}

fn find_listener(table: &str, address: &str) -> Option<u64> {
    /// `__SO_ACCEPTCON`: it listens.
    const LISTENS: u32 = 1 << 16;
    table.lines().skip(1).find_map(|line| {
        // Num RefCount Protocol Flags Type St Inode Path; in the name of an abstract one, each NUL
        // is shown as '@'.
        let mut fields = line.splitn(7, ' ');
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let (inode, name) = fields.nth(2)?.trim_start().split_once(' ')?;
        let name = name.strip_prefix('@')?.trim_end_matches('@');
        (flags & LISTENS != 0 && name == address).then(|| inode.parse().ok())?
    })
}

/// Whether a process has this socket open.
pub(crate) fn has_socket(pid: i32, inode: u64) -> io::Result<bool> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // It closes and opens others meanwhile.
        if fs::read_link(entry?.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 1716 @/var/lib/lxc/web/command
0000000000000000: 00000003 00000000 00000000 0001 03    99 @/var/lib/lxc/db/command
0000000000000000: 00000002 00000000 00010000 0001 01     7 @/var/lib/lxc/with space/command@@@
0000000000000000: 00000002 00000000 00010000 0001 01 8 /var/lib/lxc/file/command
0000000000000000: 00000002 00000000 00000000 0002 01 9
";

    #[test]
    fn a_listener_is_found_by_its_whole_name() {
        let find = |address| find_listener(TABLE, address);
        assert_eq!(find("/var/lib/lxc/web/command"), Some(1716));
        assert_eq!(find("/var/lib/lxc/with space/command"), Some(7));
        for none in ["/var/lib/lxc/db/command", "web/command", "/var/lib/lxc/file/command", ""] {
            assert_eq!(find(none), None, "{none}");
        }
    }

    #[test]
    fn we_have_our_own_sockets_and_namespaces() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = std::process::id().cast_signed();
        let inode = rustix::fs::fstat(&one).unwrap().st_ino;
        assert!(has_socket(own, inode).unwrap());
        assert!(!has_socket(own, inode + 1_000_000).unwrap());
        if nix::unistd::geteuid().is_root() {
            assert!(are_of_root(own).unwrap());
        }
    }
}
