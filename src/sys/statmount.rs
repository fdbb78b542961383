//! What only statmount(2) says of a mount: the id map that it shows files through.
//!
//! The kernel has listmount(2) and statmount(2) since 6.8, for other mount namespaces since 6.11,
//! and tells id maps since 6.15. On an older one nothing is found here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// include/uapi/linux/nsfs.h, `NS_GET_MNTNS_ID`.
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_b705u32 as libc::Ioctl;
/// include/uapi/linux/mount.h.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
const LSMT_ROOT: u64 = u64::MAX;
const STATMOUNT_MNT_BASIC: u64 = 0x2;
const STATMOUNT_MNT_UIDMAP: u64 = 0x2000;
const STATMOUNT_MNT_GIDMAP: u64 = 0x4000;
/// The size of `struct mnt_id_req` with the id of a mount namespace.
const REQUEST_SIZE: u32 = 32;
/// The size of `struct statmount`, and where it has the mask, the id of mountinfo, the number of
/// lines of each map and where these begin.
const HEADER: usize = 512;
const MASK: usize = 8;
const OLD_ID: usize = 56;
const UID_LINES: usize = 152;
const UID_MAP: usize = 156;
const GID_LINES: usize = 160;
const GID_MAP: usize = 164;
/// Ids that are asked for at a time; room for one answer.
const BATCH: usize = 512;
const ROOM: usize = 64 << 10;

/// `struct mnt_id_req`.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
    namespace: u64,
}

/// How a mount shows owners: lines "FROM TO COUNT" of users and of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// Users.
    pub users: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

/// The id maps of the mounts of a mount namespace, by the id that mountinfo gives each. Mounts
/// without one are left out; none where this kernel does not tell.
pub(crate) fn id_maps(namespace: &File) -> io::Result<Option<BTreeMap<i32, IdMap>>> {
    let mut id = 0u64;
    // SAFETY: the descriptor is open; the kernel writes a number to a local that lives through the
    // call.
    if unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) } < 0 {
        return Ok(None);
    }
    let mut found = BTreeMap::new();
    let mut last = 0;
    loop {
        let mounts = match list(id, last) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                return Ok(None);
            }
            other => other?,
        };
        let Some(end) = mounts.last().copied() else { return Ok(Some(found)) };
        last = end;
        for mount in mounts {
            match of_mount(id, mount) {
                Ok(Some((old, map))) => drop(found.insert(old, map)),
                Ok(None) => {}
                // It was unmounted meanwhile.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }
}

fn list(namespace: u64, after: u64) -> io::Result<Vec<u64>> {
    let request =
        Request { size: REQUEST_SIZE, spare: 0, mount: LSMT_ROOT, parameter: after, namespace };
    let mut ids = vec![0u64; BATCH];
    // SAFETY: the request lives through the call and has the size that it names; the kernel writes
    // at most BATCH ids.
    let count =
        unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, ids.as_mut_ptr(), BATCH, 0) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    ids.truncate(count);
    Ok(ids)
}

fn of_mount(namespace: u64, mount: u64) -> io::Result<Option<(i32, IdMap)>> {
    let wanted = STATMOUNT_MNT_BASIC | STATMOUNT_MNT_UIDMAP | STATMOUNT_MNT_GIDMAP;
    let request = Request { size: REQUEST_SIZE, spare: 0, mount, parameter: wanted, namespace };
    let mut answer = vec![0u8; ROOM];
    // SAFETY: as above; the kernel writes at most ROOM bytes.
    let done =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), ROOM, 0) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = |at: usize| {
        answer.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
    };
    let mask =
        answer.get(MASK..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_ne_bytes(*b));
    let map = IdMap {
        users: lines(&answer, mask & STATMOUNT_MNT_UIDMAP != 0, number(UID_LINES), number(UID_MAP)),
        groups: lines(
            &answer,
            mask & STATMOUNT_MNT_GIDMAP != 0,
            number(GID_LINES),
            number(GID_MAP),
        ),
    };
    Ok((map != IdMap::default()).then(|| (number(OLD_ID).cast_signed(), map)))
}

/// Strings that end with a NUL each, behind the header.
fn lines(answer: &[u8], told: bool, count: u32, at: u32) -> Vec<String> {
    if !told {
        return Vec::new();
    }
    let text = answer.get(HEADER + at as usize..).unwrap_or_default();
    let line = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    text.split(|b| *b == 0).take(count as usize).map(line).collect()
}
