//! `mountpoints-MNTNS.img`: what was mounted in the container, in each of its mount namespaces.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Error, Head, bytes_of, decode, messages, read};

const MNTS_MAGIC: u32 = 0x5556_3928;
/// The number of [`MntEntry::shared_id`].
const SHARED_ID_TAG: u32 = 10;

#[derive(Clone, PartialEq, Message)]
struct MntEntry {
    #[prost(uint32, required, tag = "1")]
    fstype: u32,
    #[prost(uint32, required, tag = "2")]
    mnt_id: u32,
    #[prost(uint32, required, tag = "4")]
    parent_mnt_id: u32,
    #[prost(uint32, required, tag = "5")]
    flags: u32,
    #[prost(bytes = "vec", required, tag = "6")]
    root: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "7")]
    mountpoint: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "8")]
    source: Vec<u8>,
    #[prost(uint32, optional, tag = "10")]
    shared_id: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    master_id: Option<u32>,
    #[prost(bool, optional, tag = "13")]
    ext_mount: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "14")]
    fsname: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "18")]
    ext_key: Option<Vec<u8>>,
}

/// A mount of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// CRIU's number for it.
    pub id: u32,
    /// The number of the mount that it is mounted on.
    pub parent: u32,
    /// What it forbids (`MS_RDONLY`, `MS_NOSUID`, …).
    pub flags: u32,
    /// Where it is in the container.
    pub point: PathBuf,
    /// What of its file system is mounted.
    pub root: PathBuf,
    /// The file system.
    pub kind: String,
    /// What was mounted, as the mount table told.
    pub source: String,
    /// Under which name the restore is told what to mount: it comes from the host.
    pub external: Option<String>,
}

/// The mounts of a mount namespace.
pub fn mounts(dir: &Path, mntns: u32) -> Result<Vec<Mount>, Error> {
    let entries: Vec<MntEntry> = read(&dir.join(format!("mountpoints-{mntns}.img")), Head::Common(MNTS_MAGIC))?;
    Ok(entries.into_iter().map(Mount::from).collect())
}

/// The images of mounts as CRIU can restore them, by name; only those that have to differ.
///
/// Slaves of one mount are a group to CRIU, and it copies their place in the propagation tree from the first to the
/// others, which the kernel allows only below the first one's root (criu/mount-v2.c, `restore_one_sharing_group`).
/// systemd makes such a group whose roots have nothing in common: `/run/systemd/incoming` of each service that has a
/// mount namespace is a slave of `/run`, and its root is a directory of its own. A slave that is the only one in a peer
/// group, too, is a group by itself: it still receives what is mounted at its master, and sends it to nobody.
pub fn with_slaves_apart(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut images = Vec::new();
    let list = fs::read_dir(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    for entry in list {
        let name = entry.map_err(|source| Error::Io { path: dir.to_owned(), source })?.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with("mountpoints-") && n.ends_with(".img")) else {
            continue;
        };
        let path = dir.join(name);
        let bytes = bytes_of(&path)?;
        let entries: Vec<MntEntry> = decode(&path, &bytes, Head::Common(MNTS_MAGIC))?;
        images.push((name.to_owned(), bytes, entries));
    }
    let all: Vec<&MntEntry> = images.iter().flat_map(|(_, _, entries)| entries).collect();
    let apart = masters_of_unlike(&all);
    let taken: BTreeSet<u32> = all.iter().flat_map(|e| [e.shared_id, e.master_id]).flatten().collect();
    let mut free = (1_u32..).filter(|id| !taken.contains(id));
    let mut changed = Vec::new();
    for (name, bytes, entries) in &images {
        let Ok(found) = messages(bytes, Head::Common(MNTS_MAGIC)) else { continue };
        let is_one = |e: &MntEntry| is_mere_slave(e) && e.master_id.is_some_and(|m| apart.contains(&m));
        if !entries.iter().any(is_one) {
            continue;
        }
        let first = found.first().map_or(bytes.len(), |m| m.as_ptr().addr() - bytes.as_ptr().addr() - size_of::<u32>());
        let mut image = bytes[..first].to_vec();
        for (entry, message) in entries.iter().zip(found) {
            let mut message = message.to_vec();
            if is_one(entry)
                && let Some(id) = free.next()
            {
                // What comes last counts.
                encode_key(SHARED_ID_TAG, WireType::Varint, &mut message);
                encode_varint(id.into(), &mut message);
            }
            image.extend((message.len() as u32).to_le_bytes());
            image.extend(message);
        }
        changed.push((name.clone(), image));
    }
    Ok(changed)
}

/// Whether it receives what is mounted elsewhere, and sends nothing.
fn is_mere_slave(entry: &MntEntry) -> bool {
    entry.shared_id.unwrap_or(0) == 0 && entry.master_id.unwrap_or(0) != 0
}

/// The masters of which there are slaves whose roots have nothing in common. With a master outside of the container CRIU
/// has another way.
fn masters_of_unlike(all: &[&MntEntry]) -> BTreeSet<u32> {
    let masters: BTreeSet<u32> = all.iter().filter_map(|e| e.shared_id).filter(|id| *id != 0).collect();
    let unlike = |master: &u32| {
        let mut roots = all.iter().filter(|e| is_mere_slave(e) && e.master_id == Some(*master)).map(|e| path(&e.root));
        let Some(first) = roots.next() else { return false };
        roots.any(|root| !root.starts_with(&first) && !first.starts_with(&root))
    };
    masters.into_iter().filter(unlike).collect()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

impl From<MntEntry> for Mount {
    fn from(entry: MntEntry) -> Mount {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let external = match (entry.ext_key, entry.ext_mount) {
            (Some(key), _) => Some(text(key)),
            (None, Some(true)) => Some(String::new()),
            _ => None,
        };
        Mount {
            id: entry.mnt_id,
            parent: entry.parent_mnt_id,
            flags: entry.flags,
            point: path(&entry.mountpoint),
            root: path(&entry.root),
            kind: entry.fsname.map_or_else(|| kind_in_words(entry.fstype).to_owned(), text),
            source: text(entry.source),
            external,
        }
    }
}

/// CRIU's `fstype`; those that it does not know carry their name.
fn kind_in_words(kind: u32) -> &'static str {
    match kind {
        1 => "proc",
        2 => "sysfs",
        3 => "devtmpfs",
        4 => "binfmt_misc",
        5 => "tmpfs",
        6 => "devpts",
        7 => "simfs",
        8 => "pstore",
        9 => "securityfs",
        10 => "fusectl",
        11 => "debugfs",
        12 => "cgroup",
        13 => "aufs",
        14 => "mqueue",
        15 => "fuse",
        17 => "overlay",
        18 => "autofs",
        19 => "tracefs",
        23 => "cgroup2",
        _ => "other",
    }
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    if let Ok(entries) = decode::<MntEntry>(path, bytes, Head::Common(MNTS_MAGIC)) {
        entries.into_iter().map(Mount::from).for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, root: &str, shared: u32, master: u32) -> MntEntry {
        MntEntry {
            mnt_id: id,
            root: root.into(),
            mountpoint: "/x".into(),
            shared_id: (shared > 0).then_some(shared),
            master_id: (master > 0).then_some(master),
            ..MntEntry::default()
        }
    }

    fn write(path: &Path, entries: &[MntEntry]) {
        let mut bytes = [super::super::COMMON_MAGIC, MNTS_MAGIC].map(u32::to_le_bytes).concat();
        for entry in entries {
            bytes.extend((entry.encoded_len() as u32).to_le_bytes());
            bytes.extend(entry.encode_to_vec());
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn slaves_with_nothing_in_common_become_groups_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let main = [entry(1, "/", 0, 0), entry(2, "/", 25, 0), entry(3, "/", 26, 0)];
        let of_one = [entry(4, "/propagate/one", 0, 25), entry(5, "/", 0, 26), entry(6, "/", 9, 25)];
        let of_two = [entry(7, "/propagate/two", 0, 25), entry(8, "/below", 0, 26)];
        write(&at("mountpoints-1.img"), &main);
        write(&at("mountpoints-2.img"), &of_one);
        assert_eq!(with_slaves_apart(dir.path()).unwrap(), []);
        write(&at("mountpoints-3.img"), &of_two);
        let mut changed = with_slaves_apart(dir.path()).unwrap();
        changed.sort();
        let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mountpoints-2.img", "mountpoints-3.img"]);
        let mut fresh = BTreeSet::new();
        for ((name, bytes), before) in changed.iter().zip([&of_one[..], &of_two[..]]) {
            let after: Vec<MntEntry> = decode(&at(name), bytes, Head::Common(MNTS_MAGIC)).unwrap();
            for (after, before) in after.iter().zip(before) {
                let is_one = before.root.starts_with(b"/propagate");
                assert_eq!(is_one, after.shared_id != before.shared_id, "{after:?}");
                assert_eq!(MntEntry { shared_id: before.shared_id, ..after.clone() }, *before);
                if is_one {
                    assert!(
                        after.shared_id.is_some_and(|id| ![9, 25, 26].contains(&id) && fresh.insert(id)),
                        "{after:?}"
                    );
                }
            }
        }
        assert_eq!(fresh.len(), 2);
    }
}
