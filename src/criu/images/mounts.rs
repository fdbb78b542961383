//! `mountpoints-MNTNS.img`: what was mounted in the container, in each of its mount namespaces.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use prost::Message;

use super::{Error, Head, bytes_of, change, decode, read};

pub(super) const MNTS_MAGIC: u32 = 0x5556_3928;
/// The number of [`MntEntry::flags`].
const FLAGS_TAG: u32 = 5;
/// `MS_NOSYMFOLLOW`, include/uapi/linux/mount.h.
const NOSYMFOLLOW: u32 = 256;

#[derive(Clone, PartialEq, Message)]
pub(super) struct MntEntry {
    #[prost(uint32, required, tag = "1")]
    pub fstype: u32,
    #[prost(uint32, required, tag = "2")]
    pub mnt_id: u32,
    /// The device of its file system.
    #[prost(uint32, required, tag = "3")]
    pub root_dev: u32,
    #[prost(uint32, required, tag = "4")]
    pub parent_mnt_id: u32,
    #[prost(uint32, required, tag = "5")]
    pub flags: u32,
    #[prost(bytes = "vec", required, tag = "6")]
    pub root: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "7")]
    pub mountpoint: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "8")]
    pub source: Vec<u8>,
    #[prost(uint32, optional, tag = "10")]
    pub shared_id: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    pub master_id: Option<u32>,
    #[prost(bool, optional, tag = "13")]
    pub ext_mount: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub fsname: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "16")]
    pub deleted: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "18")]
    pub ext_key: Option<Vec<u8>>,
}

/// A mount of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// CRIU's number for it.
    pub id: u32,
    /// The number of the mount that it is mounted on.
    pub parent: u32,
    /// The number of its file system.
    pub device: u32,
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
pub(crate) fn mounts(dir: &Path, mntns: u32) -> Result<Vec<Mount>, Error> {
    let entries: Vec<MntEntry> =
        read(&dir.join(format!("mountpoints-{mntns}.img")), Head::Common(MNTS_MAGIC))?;
    Ok(entries.into_iter().map(Mount::from).collect())
}

/// The mounts of each mount namespace, by the name of the image.
pub(crate) fn all_mounts(dir: &Path) -> Result<Vec<(String, Vec<Mount>)>, Error> {
    let all = all_entries(dir)?.into_iter();
    Ok(all
        .map(|(name, _, entries)| (name, entries.into_iter().map(Mount::from).collect()))
        .collect())
}

/// An image of mounts: its name, its content, and what that says.
pub(super) type MountImage = (String, Vec<u8>, Vec<MntEntry>);

/// All images of mounts.
pub(super) fn all_entries(dir: &Path) -> Result<Vec<MountImage>, Error> {
    let mut images = Vec::new();
    let list = fs::read_dir(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    for entry in list {
        let name = entry.map_err(|source| Error::Io { path: dir.to_owned(), source })?.file_name();
        let Some(name) =
            name.to_str().filter(|n| n.starts_with("mountpoints-") && n.ends_with(".img"))
        else {
            continue;
        };
        let path = dir.join(name);
        let bytes = bytes_of(&path)?;
        let entries: Vec<MntEntry> = decode(&path, &bytes, Head::Common(MNTS_MAGIC))?;
        images.push((name.to_owned(), bytes, entries));
    }
    Ok(images)
}

/// An image in which these mounts follow no symbolic links.
pub(crate) fn without_links(
    path: &Path,
    bytes: &[u8],
    ids: &BTreeSet<u32>,
) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(MNTS_MAGIC), |message| {
        let entry = MntEntry::decode(message)?;
        Ok(ids.contains(&entry.mnt_id).then(|| {
            let mut message = message.to_vec();
            change::put_number(FLAGS_TAG, (entry.flags | NOSYMFOLLOW).into(), &mut message);
            message
        }))
    })
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
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
            device: entry.root_dev,
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
