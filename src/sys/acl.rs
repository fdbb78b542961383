//! POSIX ACLs: who may write to a file or directory besides what its mode says.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::getxattr;
use rustix::io::Errno;

/// Where the kernel keeps the ACL that counts for access.
const ACCESS: &str = "system.posix_acl_access";
/// Where it keeps the one that a new file in a directory gets.
const DEFAULT: &str = "system.posix_acl_default";
/// The only version that there is (`POSIX_ACL_XATTR_VERSION`,
/// include/uapi/linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
/// Bytes of the header, and of each entry.
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// As large as an extended attribute can be.
const LARGEST: usize = 65536;
/// The permission to write.
const WRITE: u16 = 0o2;

/// Somebody whom an ACL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
}

/// Those whom a file's ACL lets write to it; none where it has no ACL. A descriptor of any kind
/// serves.
pub(crate) fn writers(fd: impl AsFd) -> io::Result<Vec<Named>> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let mut bytes = vec![0; LARGEST];
    match getxattr(path, ACCESS, &mut bytes) {
        Ok(length) => named_writers(bytes.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its ACL cannot be read")),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// Takes off a directory what ACLs it has got from the one above.
pub(crate) fn strip(fd: impl AsFd) -> io::Result<()> {
    for name in [ACCESS, DEFAULT] {
        match rustix::fs::fremovexattr(fd.as_fd(), name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The users and groups by name that may write. Owner, owning group and others are as the mode
/// says.
fn named_writers(bytes: &[u8]) -> Option<Vec<Named>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    let (header, entries) = bytes.split_at_checked(HEADER)?;
    if u32::from_le_bytes(header.try_into().ok()?) != VERSION || entries.len() % ENTRY != 0 {
        return None;
    }
    let half =
        |entry: &[u8], at: usize| Some(u16::from_le_bytes(entry.get(at..at + 2)?.try_into().ok()?));
    let mut mask = WRITE;
    let mut named = Vec::new();
    for entry in entries.chunks_exact(ENTRY) {
        let (tag, permissions) = (half(entry, 0)?, half(entry, 2)?);
        let id = u32::from_le_bytes(entry.get(4..8)?.try_into().ok()?);
        match tag {
            USER if permissions & WRITE != 0 => named.push(Named::User(id)),
            GROUP if permissions & WRITE != 0 => named.push(Named::Group(id)),
            MASK => mask = permissions,
            _ => {}
        }
    }
    Some(if mask & WRITE != 0 { named } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn those_count_whom_the_mask_lets_write() {
        let entries = |mask| {
            acl(&[
                (1, 7, u32::MAX),
                (2, 6, 1000),
                (2, 4, 1001),
                (4, 7, u32::MAX),
                (8, 2, 50),
                (0x10, mask, u32::MAX),
            ])
        };
        assert_eq!(named_writers(&entries(7)).unwrap(), [Named::User(1000), Named::Group(50)]);
        assert_eq!(named_writers(&entries(5)).unwrap(), []);
        assert_eq!(named_writers(&acl(&[(1, 6, 0), (4, 6, 0), (0x20, 6, 0)])).unwrap(), []);
    }

    #[test]
    fn what_is_no_acl_is_not_read_as_one() {
        for bytes in [&[] as &[u8], &[2, 0, 0], &[3, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert_eq!(named_writers(bytes), None, "{bytes:?}");
        }
    }
}
