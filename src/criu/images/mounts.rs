//! `mountpoints-MNTNS.img`: what was mounted in the container.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use prost::Message;

use super::{Error, Head, decode, read};

const MNTS_MAGIC: u32 = 0x5556_3928;

#[derive(Clone, PartialEq, Message)]
struct MntEntry {
    #[prost(uint32, required, tag = "1")]
    fstype: u32,
    #[prost(uint32, required, tag = "2")]
    mnt_id: u32,
    #[prost(bytes = "vec", required, tag = "6")]
    root: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "7")]
    mountpoint: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "8")]
    source: Vec<u8>,
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

impl From<MntEntry> for Mount {
    fn from(entry: MntEntry) -> Mount {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        let external = match (entry.ext_key, entry.ext_mount) {
            (Some(key), _) => Some(text(key)),
            (None, Some(true)) => Some(String::new()),
            _ => None,
        };
        Mount {
            id: entry.mnt_id,
            point: path(entry.mountpoint),
            root: path(entry.root),
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
