//! `files.img`, `fdinfo-ID.img`, `remap-fpath.img`: what the processes of a checkpoint had open.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use prost::Message;

use super::{Error, Head, decode, read};

pub(super) const FILES_MAGIC: u32 = 0x5630_3138;
const FDINFO_MAGIC: u32 = 0x5621_3732;
const REMAP_FPATH_MAGIC: u32 = 0x5913_3954;

/// `S_IFMT` and `S_IFREG` of the recorded modes.
const KIND_MASK: u32 = 0o170_000;
const KIND_REGULAR: u32 = 0o100_000;
/// `O_ACCMODE` of the recorded flags; nothing of it is set where a file was only read.
const ACCESS_MODE: u32 = 0o3;

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(uint32, required, tag = "1")]
    kind: u32,
    #[prost(uint32, required, tag = "2")]
    id: u32,
    #[prost(message, optional, tag = "3")]
    reg: Option<RegFileEntry>,
    #[prost(message, optional, tag = "4")]
    isk: Option<InetSkEntry>,
    #[prost(message, optional, tag = "16")]
    usk: Option<UnixSkEntry>,
    #[prost(message, optional, tag = "18")]
    pipe: Option<PipeEntry>,
}

// The strings of these messages are whatever bytes the kernel takes for a name: they are read as
// bytes.
#[derive(Clone, PartialEq, Message)]
struct RegFileEntry {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(uint32, required, tag = "2")]
    flags: u32,
    #[prost(uint64, required, tag = "3")]
    pos: u64,
    #[prost(bytes = "vec", required, tag = "6")]
    name: Vec<u8>,
    #[prost(sint32, optional, tag = "7")]
    mnt_id: Option<i32>,
    #[prost(uint64, optional, tag = "8")]
    size: Option<u64>,
    #[prost(bool, optional, tag = "9")]
    ext: Option<bool>,
    #[prost(uint32, optional, tag = "10")]
    mode: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InetSkEntry {
    #[prost(uint32, required, tag = "3")]
    family: u32,
    #[prost(uint32, required, tag = "4")]
    kind: u32,
    #[prost(uint32, required, tag = "5")]
    proto: u32,
    #[prost(uint32, required, tag = "6")]
    state: u32,
    #[prost(uint32, required, tag = "7")]
    src_port: u32,
    #[prost(uint32, required, tag = "8")]
    dst_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    pub src_addr: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    pub dst_addr: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct UnixSkEntry {
    #[prost(uint32, required, tag = "3")]
    kind: u32,
    #[prost(uint32, required, tag = "4")]
    state: u32,
    #[prost(uint32, required, tag = "8")]
    peer: u32,
    #[prost(bytes = "vec", required, tag = "11")]
    name: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "14")]
    name_dir: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct PipeEntry {
    #[prost(uint32, required, tag = "2")]
    pipe_id: u32,
}

#[derive(Clone, PartialEq, Message)]
struct FdinfoEntry {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(uint32, required, tag = "3")]
    kind: u32,
    #[prost(uint32, required, tag = "4")]
    fd: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RemapFilePathEntry {
    #[prost(uint32, required, tag = "1")]
    orig_id: u32,
    #[prost(uint32, optional, tag = "3")]
    kind: Option<u32>,
}

/// [`RemapFilePathEntry::kind`] of a file that CRIU makes again.
const GHOST: u32 = 1;

/// Something that was open. Several descriptors can share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// CRIU's number for it.
    pub id: u32,
    /// What it is.
    pub kind: FileKind,
}

/// What was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file, directory or device with a path.
    Path(PathFile),
    /// A socket of IPv4 or IPv6.
    Inet(InetSocket),
    /// A unix socket.
    Unix(UnixSocket),
    /// An end of a pipe, with CRIU's number for the pipe.
    Pipe(u32),
    /// Something else: "eventfd", "timerfd", "terminal", …
    Other(&'static str),
}

/// A file that was opened by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFile {
    /// Its path in the container.
    pub path: PathBuf,
    /// CRIU's number for its mount; none for a container in the host's mount namespace.
    pub mount: Option<u32>,
    /// Its size in bytes, if it was a regular file whose size must be the same at the restore
    /// (files-reg.c, `validate_file`): all but those that are only added to.
    pub size: Option<u64>,
    /// Its type and permissions, which must be the same at the restore, too.
    pub mode: Option<u32>,
    /// Handed to CRIU by its caller.
    pub external: bool,
    /// Whether it was open for writing.
    pub written: bool,
}

/// A socket of IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetSocket {
    /// "tcp", "udp", …
    pub protocol: &'static str,
    /// Its state, as `ss` calls it: "listen", "established", …
    pub state: &'static str,
    /// Its own address; none for one that cannot be read.
    pub local: Option<SocketAddr>,
    /// The other end, if there is one.
    pub remote: Option<SocketAddr>,
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// "stream", "dgram", "seqpacket".
    pub kind: &'static str,
    /// Whether it listens.
    pub listens: bool,
    /// Its name, with `@` before an abstract one; empty if it has none.
    pub name: String,
    /// The inode of its peer; 0 without one.
    pub peer: u32,
    /// The directory in which its name was given, if that has no slash at its beginning.
    pub directory: Option<PathBuf>,
}

impl UnixSocket {
    /// Where its name is in the file system, if it is there.
    pub fn path(&self) -> Option<PathBuf> {
        let has_path = !self.name.is_empty() && !self.name.starts_with('@');
        has_path.then(|| self.directory.as_deref().unwrap_or(Path::new("/")).join(&self.name))
    }
}

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Its number.
    pub fd: u32,
    /// What it leads to: the [`OpenFile::id`].
    pub file: u32,
}

/// All that was open. (A directory that CRIU before 3.7 wrote has no `files.img`; such an old one
/// is not read.)
pub fn open_files(dir: &Path) -> Result<Vec<OpenFile>, Error> {
    let entries: Vec<FileEntry> = read(&dir.join("files.img"), Head::Common(FILES_MAGIC))?;
    Ok(entries.into_iter().map(OpenFile::from).collect())
}

/// The descriptors of a table, by its number in `ids-PID.img`. A process without any has no such
/// image.
pub(crate) fn descriptors(dir: &Path, table: u32) -> Result<Vec<Descriptor>, Error> {
    let entries: Vec<FdinfoEntry> =
        match read(&dir.join(format!("fdinfo-{table}.img")), Head::Common(FDINFO_MAGIC)) {
            Ok(entries) => entries,
            Err(e) if e.is_not_found() => Vec::new(),
            Err(e) => return Err(e),
        };
    Ok(entries.into_iter().map(|e| Descriptor { fd: e.fd, file: e.id }).collect())
}

/// The [`OpenFile::id`]s of files that had no name any more: CRIU brings these back itself.
pub(crate) fn without_name(dir: &Path) -> Result<BTreeSet<u32>, Error> {
    let entries: Vec<RemapFilePathEntry> =
        match read(&dir.join("remap-fpath.img"), Head::Common(REMAP_FPATH_MAGIC)) {
            Ok(entries) => entries,
            Err(e) if e.is_not_found() => Vec::new(),
            Err(e) => return Err(e),
        };
    Ok(entries.into_iter().map(|e| e.orig_id).collect())
}

/// The files and directories that had no name any more, and that CRIU makes again under the one
/// that they had last.
pub(crate) fn made_again(dir: &Path) -> Result<Vec<PathFile>, Error> {
    let entries: Vec<RemapFilePathEntry> =
        match read(&dir.join("remap-fpath.img"), Head::Common(REMAP_FPATH_MAGIC)) {
            Ok(entries) => entries,
            Err(e) if e.is_not_found() => Vec::new(),
            Err(e) => return Err(e),
        };
    let ids: BTreeSet<u32> =
        entries.into_iter().filter(|e| e.kind == Some(GHOST)).map(|e| e.orig_id).collect();
    let files = open_files(dir)?.into_iter().filter(|file| ids.contains(&file.id));
    Ok(files
        .filter_map(|file| if let FileKind::Path(path) = file.kind { Some(path) } else { None })
        .collect())
}

impl PathFile {
    /// Whether it was a regular file.
    pub fn is_regular(&self) -> bool {
        self.mode.is_some_and(|m| m & KIND_MASK == KIND_REGULAR)
    }
}

impl From<FileEntry> for OpenFile {
    fn from(entry: FileEntry) -> OpenFile {
        let kind = match entry {
            FileEntry { reg: Some(reg), .. } => FileKind::Path(reg.into()),
            FileEntry { isk: Some(isk), .. } => FileKind::Inet(isk.into()),
            FileEntry { usk: Some(usk), .. } => FileKind::Unix(usk.into()),
            FileEntry { pipe: Some(pipe), .. } => FileKind::Pipe(pipe.pipe_id),
            FileEntry { kind, .. } => FileKind::Other(kind_in_words(kind)),
        };
        OpenFile { id: entry.id, kind }
    }
}

/// CRIU's `fd_types`.
fn kind_in_words(kind: u32) -> &'static str {
    match kind {
        1 => "file",
        2 => "pipe",
        3 => "fifo",
        4 => "socket",
        5 => "unix socket",
        6 => "eventfd",
        7 => "epoll",
        8 => "inotify",
        9 => "signalfd",
        10 => "packet socket",
        11 => "terminal",
        12 => "fanotify",
        13 => "netlink socket",
        14 => "namespace",
        15 => "tun",
        16 => "external file",
        17 => "timerfd",
        18 => "memfd",
        19 => "BPF map",
        20 => "pidfd",
        _ => "something unknown",
    }
}

impl From<RegFileEntry> for PathFile {
    fn from(entry: RegFileEntry) -> PathFile {
        PathFile {
            path: PathBuf::from(OsString::from_vec(entry.name)),
            mount: entry.mnt_id.and_then(|id| u32::try_from(id).ok()),
            size: entry.size,
            mode: entry.mode,
            external: entry.ext.unwrap_or(false),
            written: entry.flags & ACCESS_MODE != 0,
        }
    }
}

impl From<InetSkEntry> for InetSocket {
    fn from(entry: InetSkEntry) -> InetSocket {
        let protocol = match (entry.proto, entry.kind) {
            (6, _) => "tcp",
            (17, _) => "udp",
            (136, _) => "udplite",
            (1, _) => "icmp",
            (58, _) => "icmpv6",
            (_, 3) => "raw",
            _ => "other",
        };
        // The kernel's TCP states; a datagram socket that is connected counts as established, any
        // other as closed.
        let state = match entry.state {
            1 => "established",
            2 => "syn-sent",
            3 => "syn-recv",
            4 => "fin-wait-1",
            5 => "fin-wait-2",
            6 => "time-wait",
            7 => "unconnected",
            8 => "close-wait",
            9 => "last-ack",
            10 => "listen",
            11 => "closing",
            _ => "unknown",
        };
        let remote = address(entry.family, &entry.dst_addr, entry.dst_port);
        InetSocket {
            protocol,
            state,
            local: address(entry.family, &entry.src_addr, entry.src_port),
            remote: remote.filter(|a| a.port() != 0 || !a.ip().is_unspecified()),
        }
    }
}

/// Addresses are the kernel's words as they lay in memory, which is little-endian on all that CRIU
/// knows but s390.
fn address(family: u32, words: &[u32], port: u32) -> Option<SocketAddr> {
    let port = u16::try_from(port).ok()?;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let ip = match family {
        2 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        10 => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

impl From<UnixSkEntry> for UnixSocket {
    fn from(entry: UnixSkEntry) -> UnixSocket {
        let name = match entry.name.split_first() {
            Some((0, rest)) => format!("@{}", String::from_utf8_lossy(rest)),
            _ => String::from_utf8_lossy(&entry.name).into_owned(),
        };
        UnixSocket {
            kind: match entry.kind {
                1 => "stream",
                2 => "dgram",
                5 => "seqpacket",
                _ => "other",
            },
            // As `ss`: TCP_LISTEN.
            listens: entry.state == 10,
            name: name.trim_end_matches('\0').to_owned(),
            peer: entry.peer,
            directory: entry.name_dir.map(|dir| PathBuf::from(OsString::from_vec(dir))),
        }
    }
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    if let Ok(entries) = decode::<FileEntry>(path, bytes, Head::Common(FILES_MAGIC)) {
        entries.into_iter().map(OpenFile::from).for_each(drop);
    }
    let _ = decode::<FdinfoEntry>(path, bytes, Head::Common(FDINFO_MAGIC));
    let _ = decode::<RemapFilePathEntry>(path, bytes, Head::Common(REMAP_FPATH_MAGIC));
}
