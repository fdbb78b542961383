//! The few of CRIU's images that this program reads.
//!
//! An image is one or two magic numbers (a common one and one that tells the kind; the inventory,
//! which must be readable before the format is known, has only its own), then protobuf messages,
//! each after its length as a little-endian u32 (`criu/protobuf.c`). The messages here name only
//! the fields that are used; their numbers are those of CRIU's `images/*.proto`, which never
//! change.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::sys::files::open_file;

mod addresses;
mod change;
mod exe_descriptors;
mod files;
mod labels;
mod memory;
mod mounts;
mod netdev;
mod nftables;
mod page_map;
mod propagation;
mod readdress;
mod routes;
mod rtnetlink;
mod saved;
mod shown;
mod sockets;
mod stats;
mod terminals;
mod timers;
mod tree;
mod uts;

pub(crate) use addresses::addresses;
pub use addresses::settle;
pub use exe_descriptors::with_openable_executables;
pub use files::{FileKind, InetSocket, open_files};
pub(crate) use files::{PathFile, UnixSocket, descriptors, made_again, without_name};
pub(crate) use labels::{labels, relabel};
pub(crate) use memory::{
    bytes_of_pages, files_written_through_memory, holds_pages, memory, present,
};
pub(crate) use mounts::{Mount, all_mounts, mounts, without_links};
pub(crate) use netdev::file_name as netdev_file_name;
pub use netdev::{interfaces, with_macs, with_ready_made};
pub(crate) use nftables::without_tables;
pub(crate) use page_map::{PageMap, PageRun, page_map};
pub use propagation::with_groups_apart;
pub(crate) use readdress::Readdressed;
pub use readdress::{Family, Net, Readdress, readdressed};
pub(crate) use routes::with_plain_routes;
pub(crate) use saved::{Saved, saved};
pub use shown::Shown;
pub use sockets::{Becomes, with_sockets};
pub(crate) use stats::DumpStats;
pub(crate) use terminals::{Controlling, controlling_resolved};
pub(crate) use timers::{PosixTimer, posix_timers};
pub(crate) use tree::{machine_of, process_tree, root_of_tree};
pub(crate) use uts::{file_name as uts_file_name, with_hostname};

/// More than any image that is read here: a tree of 32768 tasks has a pstree.img of about 1 MiB.
const MAX_IMAGE: u64 = 16 << 20;

const COMMON_MAGIC: u32 = 0x5456_4319;
const SERVICE_MAGIC: u32 = 0x5510_5940;
const INVENTORY_MAGIC: u32 = 0x5831_3116;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error("read {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not begin as this kind of image does.
    #[error("{} is not a CRIU image of this kind (it begins with {magic:#010x})", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Its first four bytes; 0 for a shorter file.
        magic: u32,
    },
    /// It ends in the middle of a message, or holds less than it must.
    #[error("{} is cut off after {size} bytes", path.display())]
    Truncated {
        /// The image.
        path: PathBuf,
        /// Its size.
        size: usize,
    },
    /// It is larger than any real one.
    #[error("{} is larger than {MAX_IMAGE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A message in it cannot be decoded.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
}

impl Error {
    /// Whether the image is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What a file's bytes lack to be an image.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    Magic(u32),
    Truncated,
}

impl Flaw {
    /// As the error of this file.
    fn of(self, path: &Path, bytes: &[u8]) -> Error {
        match self {
            Flaw::Magic(magic) => Error::NotAnImage { path: path.to_owned(), magic },
            Flaw::Truncated => Error::Truncated { path: path.to_owned(), size: bytes.len() },
        }
    }
}

/// Which numbers an image begins with.
#[derive(Clone, Copy, Debug)]
enum Head {
    /// Only the kind.
    Bare(u32),
    /// The common number, then the kind; images of format 1 have only the kind.
    Common(u32),
    /// The number of service files, then the kind.
    Service(u32),
}

/// The messages of an image, still encoded.
fn messages(bytes: &[u8], head: Head) -> Result<Vec<&[u8]>, Flaw> {
    let (first, rest) = take_u32(bytes).ok_or(Flaw::Magic(0))?;
    let (outer, kind) = match head {
        Head::Bare(kind) => (None, kind),
        Head::Common(kind) => (Some(COMMON_MAGIC), kind),
        Head::Service(kind) => (Some(SERVICE_MAGIC), kind),
    };
    let mut rest = match outer {
        Some(outer) if first == outer => match take_u32(rest) {
            Some((second, rest)) if second == kind => rest,
            Some((second, _)) => return Err(Flaw::Magic(second)),
            None => return Err(Flaw::Truncated),
        },
        _ if first == kind => rest,
        _ => return Err(Flaw::Magic(first)),
    };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (size, body) = take_u32(rest).ok_or(Flaw::Truncated)?;
        let size = usize::try_from(size).map_err(|_| Flaw::Truncated)?;
        let (message, next) = body.split_at_checked(size).ok_or(Flaw::Truncated)?;
        found.push(message);
        rest = next;
    }
    Ok(found)
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}

/// Decodes the messages of an image of which nothing but the bytes is known; for the fuzzer.
#[doc(hidden)]
pub fn decode_anything(bytes: &[u8]) {
    let path = Path::new("fuzz");
    let _ = decode::<InventoryEntry>(path, bytes, Head::Bare(INVENTORY_MAGIC));
    addresses::decode_anything(bytes);
    files::decode_anything(path, bytes);
    labels::decode_anything(path, bytes);
    memory::decode_anything(path, bytes);
    mounts::decode_anything(path, bytes);
    netdev::decode_anything(path, bytes);
    rtnetlink::decode_anything(bytes);
    saved::decode_anything(bytes);
    tree::decode_anything(path, bytes);
    stats::decode_anything(path, bytes);
    terminals::decode_anything(path, bytes);
    uts::decode_anything(path, bytes);
}

fn decode<M: Message + Default>(path: &Path, bytes: &[u8], head: Head) -> Result<Vec<M>, Error> {
    let found = messages(bytes, head).map_err(|flaw| flaw.of(path, bytes))?;
    let decoded: Result<Vec<M>, prost::DecodeError> = found.into_iter().map(M::decode).collect();
    decoded.map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

fn read<M: Message + Default>(path: &Path, head: Head) -> Result<Vec<M>, Error> {
    decode(path, &bytes_of(path)?, head)
}

/// All of an image.
fn bytes_of(path: &Path) -> Result<Vec<u8>, Error> {
    let io_error = |source| Error::Io { path: path.to_owned(), source };
    let file = open_file(path).map_err(io_error)?;
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > MAX_IMAGE {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// The first message of an image that has one.
fn read_one<M: Message + Default>(path: &Path, head: Head) -> Result<M, Error> {
    let first = read(path, head)?.into_iter().next();
    first.ok_or_else(|| Error::Truncated { path: path.to_owned(), size: 0 })
}

#[derive(Clone, PartialEq, Message)]
struct InventoryEntry {
    #[prost(uint32, required, tag = "1")]
    img_version: u32,
    #[prost(message, optional, tag = "3")]
    root_ids: Option<KobjIdsEntry>,
    #[prost(uint32, optional, tag = "5")]
    root_cg_set: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    lsmtype: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    dump_uptime: Option<u64>,
    #[prost(uint32, optional, tag = "9")]
    pre_dump_mode: Option<u32>,
    #[prost(bool, optional, tag = "10")]
    tcp_close: Option<bool>,
    #[prost(uint32, optional, tag = "11")]
    network_lock_method: Option<u32>,
    #[prost(message, optional, tag = "12")]
    plugins: Option<PluginsEntry>,
    #[prost(string, optional, tag = "13")]
    dump_criu_run_id: Option<String>,
    #[prost(bool, optional, tag = "14")]
    allow_uprobes: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginsEntry {
    #[prost(string, repeated, tag = "12")]
    plugins: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct KobjIdsEntry {
    #[prost(uint32, optional, tag = "2")]
    files: Option<u32>,
    #[prost(uint32, optional, tag = "5")]
    pid_ns: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    net_ns: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    ipc_ns: Option<u32>,
    #[prost(uint32, optional, tag = "8")]
    uts_ns: Option<u32>,
    #[prost(uint32, optional, tag = "9")]
    mnt_ns: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    user_ns: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    cgroup_ns: Option<u32>,
    #[prost(uint32, optional, tag = "12")]
    time_ns: Option<u32>,
}

/// The security module that was live at the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lsm {
    /// None.
    None,
    /// SELinux.
    Selinux,
    /// AppArmor.
    Apparmor,
    /// One that this program does not know.
    Other(u32),
}

/// How CRIU itself locked the network at the dump; the restore unlocks the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkLock {
    /// With iptables rules.
    Iptables,
    /// With an nftables table.
    Nftables,
    /// Not at all: the caller did it.
    Skip,
    /// A way that this program does not know.
    Other(u32),
}

/// CRIU's numbers for the namespaces of a task, one for each that the kernel knows, and for its
/// table of descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) struct NamespaceIds {
    pub files: Option<u32>,
    pub pid: Option<u32>,
    pub net: Option<u32>,
    pub ipc: Option<u32>,
    pub uts: Option<u32>,
    pub mnt: Option<u32>,
    pub user: Option<u32>,
    pub cgroup: Option<u32>,
    pub time: Option<u32>,
}

/// `inventory.img`: what the whole checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// The format: 1, 2 (which CRIU calls 1.1) up to CRIU 4.2, 3 with compressed pages.
    pub img_version: u32,
    /// CRIU's own namespaces, which the tasks' are compared with.
    pub root_ids: Option<NamespaceIds>,
    /// The security module.
    pub lsm: Lsm,
    /// Seconds since boot, of a dump that tracks memory.
    pub dump_uptime: Option<u64>,
    /// Whether TCP connections were closed (`--tcp-close`), which the restore must name too.
    pub tcp_close: bool,
    /// CRIU's lock of the network; an image without it used iptables.
    pub network_lock: NetworkLock,
    /// The plugins that the restore needs.
    pub plugins: Vec<String>,
    /// Names this run of CRIU, and its nftables table.
    pub run_id: Option<String>,
    /// Whether `--allow-uprobes` was given, which the restore must name too.
    pub allow_uprobes: bool,
}

impl Inventory {
    /// Reads the inventory of an image directory.
    ///
    /// # Errors
    /// [`Error::NotAnImage`] when the file is something else; see [`Error`].
    pub(crate) fn read(dir: &Path) -> Result<Inventory, Error> {
        let entry: InventoryEntry =
            read_one(&dir.join("inventory.img"), Head::Bare(INVENTORY_MAGIC))?;
        Ok(entry.into())
    }
}

impl From<InventoryEntry> for Inventory {
    fn from(entry: InventoryEntry) -> Inventory {
        Inventory {
            img_version: entry.img_version,
            root_ids: entry.root_ids.map(NamespaceIds::from),
            lsm: match entry.lsmtype.unwrap_or(0) {
                0 => Lsm::None,
                1 => Lsm::Selinux,
                2 => Lsm::Apparmor,
                other => Lsm::Other(other),
            },
            dump_uptime: entry.dump_uptime,
            tcp_close: entry.tcp_close.unwrap_or(false),
            network_lock: NetworkLock::from_number(entry.network_lock_method.unwrap_or(0)),
            plugins: entry.plugins.map(|p| p.plugins).unwrap_or_default(),
            run_id: entry.dump_criu_run_id,
            allow_uprobes: entry.allow_uprobes.unwrap_or(false),
        }
    }
}

impl From<KobjIdsEntry> for NamespaceIds {
    fn from(ids: KobjIdsEntry) -> NamespaceIds {
        NamespaceIds {
            files: ids.files,
            pid: ids.pid_ns,
            net: ids.net_ns,
            ipc: ids.ipc_ns,
            uts: ids.uts_ns,
            mnt: ids.mnt_ns,
            user: ids.user_ns,
            cgroup: ids.cgroup_ns,
            time: ids.time_ns,
        }
    }
}

impl NetworkLock {
    fn from_number(number: u32) -> NetworkLock {
        match number {
            0 => NetworkLock::Iptables,
            1 => NetworkLock::Nftables,
            2 => NetworkLock::Skip,
            other => NetworkLock::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{self, File};

    /// Images that CRIU 4.2.1 wrote of `sh -c 'sleep 1000 & sleep 1001 & wait'`.
    pub(super) fn real() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/tree")
    }

    #[test]
    fn reads_a_real_inventory() {
        let inventory = Inventory::read(&real()).unwrap();
        assert_eq!(inventory.img_version, 2);
        assert_eq!(inventory.lsm, Lsm::None);
        assert_eq!(inventory.network_lock, NetworkLock::Skip);
        assert_eq!(
            (inventory.tcp_close, inventory.allow_uprobes, inventory.dump_uptime),
            (false, false, None)
        );
        assert!(inventory.plugins.is_empty());
        assert_eq!(inventory.run_id.as_deref(), Some("9927685c-96cc-4bbb-9371-77c9a86c2c17"));
        assert_eq!(
            inventory.root_ids.map(|ids| (ids.pid, ids.net, ids.time)),
            Some((Some(1), Some(2), Some(5)))
        );
    }

    fn broken(bytes: &[u8]) -> Error {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("inventory.img"), bytes).unwrap();
        Inventory::read(dir.path()).unwrap_err()
    }

    #[test]
    fn tells_what_is_wrong_with_a_file() {
        let good = fs::read(real().join("inventory.img")).unwrap();
        assert!(matches!(broken(b"hello, world"), Error::NotAnImage { magic: 0x6c6c_6568, .. }));
        assert!(matches!(broken(b""), Error::NotAnImage { magic: 0, .. }));
        assert!(matches!(broken(&good[..4]), Error::Truncated { .. }));
        assert!(matches!(broken(&good[..6]), Error::Truncated { .. }));
        assert!(matches!(broken(&good[..40]), Error::Truncated { size: 40, .. }));
        let mut bad = good.clone();
        bad[8] = 0xff;
        assert!(matches!(broken(&bad), Error::Damaged { .. }));
        let missing = Inventory::read(Path::new("/nonexistent")).unwrap_err();
        assert!(missing.is_not_found() && !broken(b"").is_not_found());
    }

    #[test]
    fn refuses_a_huge_file_without_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("inventory.img")).unwrap();
        file.set_len(MAX_IMAGE + 1).unwrap();
        assert!(matches!(Inventory::read(dir.path()), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_length_beyond_the_end_allocates_nothing() {
        let mut bytes = INVENTORY_MAGIC.to_le_bytes().to_vec();
        bytes.extend(u32::MAX.to_le_bytes());
        assert_eq!(messages(&bytes, Head::Bare(INVENTORY_MAGIC)), Err(Flaw::Truncated));
    }

    #[test]
    fn images_of_format_1_have_only_the_magic_of_their_kind() {
        let mut bytes = 7u32.to_le_bytes().to_vec();
        assert_eq!(messages(&bytes, Head::Common(7)), Ok(vec![]));
        bytes.extend(1u32.to_le_bytes());
        bytes.push(42);
        assert_eq!(messages(&bytes, Head::Common(7)), Ok(vec![&[42u8][..]]));
        assert_eq!(messages(&COMMON_MAGIC.to_le_bytes(), Head::Common(7)), Err(Flaw::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100, value: u8) {
            decode_anything(&bytes);
            for name in ["inventory.img", "pstree.img", "core-37.img", "stats-dump"] {
                let mut image = fs::read(real().join(name)).unwrap();
                if let Some(byte) = image.get_mut(at) {
                    *byte = value;
                }
                decode_anything(&image);
            }
        }
    }
}
