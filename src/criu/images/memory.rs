//! `mm-PID.img` and `pagemap-PID.img`: the memory of a process.

use std::ops::Range;
use std::path::Path;

use prost::Message;

use super::{Error, Head, bytes_of, decode, messages, read_one};

pub(super) const MM_MAGIC: u32 = 0x5749_2820;
pub(super) const PAGEMAP_MAGIC: u32 = 0x5608_4025;

/// `PE_PARENT`, `PE_LAZY` and `PE_PRESENT` of CRIU's pagemap.h.
pub(super) const IN_PARENT: u32 = 1;
pub(super) const LAZY: u32 = 2;
const PRESENT: u32 = 4;

#[derive(Clone, PartialEq, Message)]
pub(super) struct MmEntry {
    #[prost(uint32, required, tag = "12")]
    pub(super) exe_file_id: u32,
    #[prost(message, repeated, tag = "14")]
    pub(super) vmas: Vec<VmaEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VmaEntry {
    #[prost(uint64, required, tag = "1")]
    pub(super) start: u64,
    #[prost(uint64, required, tag = "2")]
    pub(super) end: u64,
    /// Of a mapped file, the id of that.
    #[prost(uint64, optional, tag = "4")]
    pub(super) shmid: Option<u64>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) prot: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    pub(super) flags: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    pub(super) status: Option<u32>,
}

/// `PROT_WRITE`, mman(2).
const WRITABLE: u32 = 2;
/// `VMA_FILE_SHARED` of CRIU's image.h.
const SHARED_FILE: u32 = 1 << 7;

#[derive(Clone, PartialEq, Message)]
pub(super) struct PagemapEntry {
    #[prost(uint64, required, tag = "1")]
    pub(super) vaddr: u64,
    #[prost(uint32, required, tag = "2")]
    pub(super) compat_nr_pages: u32,
    #[prost(bool, optional, tag = "3")]
    pub(super) in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) nr_pages: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PagemapHead {
    #[prost(uint32, required, tag = "1")]
    pub(super) pages_id: u32,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The [`id`](super::files::OpenFile::id) of its program's file.
    pub program: u32,
    /// Bytes of its address space.
    pub mapped: u64,
    /// Pages of it that stand in this checkpoint. What can be read again from files does not.
    pub pages: u64,
    /// Pages of it that stand in an earlier one on which this one builds.
    pub pages_in_parent: u64,
}

/// Whether an image of this name holds pages of memory. Those are as large as the container, all
/// others are small.
pub(crate) fn holds_pages(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("pages-") && name.ends_with(".img"))
}

/// The memory that the images of a directory hold by now, in bytes.
pub(crate) fn bytes_of_pages(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if holds_pages(Path::new(&entry.file_name())) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// The memory of a process; none for one that has none: a zombie.
pub(crate) fn memory(dir: &Path, pid: u32) -> Result<Option<Memory>, Error> {
    let mm: MmEntry = match read_one(&dir.join(format!("mm-{pid}.img")), Head::Common(MM_MAGIC)) {
        Ok(mm) => mm,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e),
    };
    let path = dir.join(format!("pagemap-{pid}.img"));
    let (pages, pages_in_parent) = match bytes_of(&path) {
        Ok(bytes) => count_pages(&path, &bytes)?,
        Err(e) if e.is_not_found() => (0, 0),
        Err(e) => return Err(e),
    };
    let mapped = mm.vmas.iter().map(|v| v.end.saturating_sub(v.start)).fold(0, u64::saturating_add);
    Ok(Some(Memory { program: mm.exe_file_id, mapped, pages, pages_in_parent }))
}

/// The [`id`](super::files::OpenFile::id)s of the files that a process has mapped so that what it
/// writes to its memory goes to them.
pub(crate) fn files_written_through_memory(dir: &Path, pid: u32) -> Result<Vec<u32>, Error> {
    let mm: MmEntry = match read_one(&dir.join(format!("mm-{pid}.img")), Head::Common(MM_MAGIC)) {
        Ok(mm) => mm,
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let has = |flags: Option<u32>, flag: u32| flags.unwrap_or_default() & flag != 0;
    let written = mm.vmas.iter().filter(|v| has(v.status, SHARED_FILE) && has(v.prot, WRITABLE));
    Ok(written.filter_map(|v| u32::try_from(v.shmid?).ok()).collect())
}

/// The addresses of a process whose pages stand in this checkpoint, in bytes, adjoining ones as
/// one; none for a process without memory.
pub(crate) fn present(dir: &Path, pid: u32) -> Result<Vec<Range<u64>>, Error> {
    let path = dir.join(format!("pagemap-{pid}.img"));
    let bytes = match bytes_of(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for entry in entries(&path, &bytes)? {
        let entry = entry?;
        let end = entry.vaddr.saturating_add(entry.pages().saturating_mul(procfs::page_size()));
        match ranges.last_mut() {
            _ if !entry.is_here() => {}
            Some(before) if before.end == entry.vaddr => before.end = end,
            _ => ranges.push(entry.vaddr..end),
        }
    }
    Ok(ranges)
}

pub(super) fn read_head(path: &Path, bytes: &[u8]) -> Result<PagemapHead, Error> {
    let messages =
        messages(bytes, Head::Common(PAGEMAP_MAGIC)).map_err(|flaw| flaw.of(path, bytes))?;
    let head = messages.first().copied().unwrap_or_default();
    PagemapHead::decode(head).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

impl PagemapEntry {
    pub(super) fn pages(&self) -> u64 {
        self.nr_pages.unwrap_or(u64::from(self.compat_nr_pages))
    }

    pub(super) fn kind(&self) -> u32 {
        self.flags.unwrap_or(if self.in_parent == Some(true) { IN_PARENT } else { PRESENT })
    }

    pub(super) fn is_in_parent(&self) -> bool {
        self.kind() & IN_PARENT != 0
    }

    pub(super) fn is_here(&self) -> bool {
        !self.is_in_parent() && self.kind() & PRESENT != 0
    }
}

/// Pages here, and pages in the parent.
fn count_pages(path: &Path, bytes: &[u8]) -> Result<(u64, u64), Error> {
    let (mut here, mut in_parent) = (0u64, 0u64);
    for entry in entries(path, bytes)? {
        let entry = entry?;
        if entry.is_in_parent() {
            in_parent = in_parent.saturating_add(entry.pages());
        } else if entry.is_here() {
            here = here.saturating_add(entry.pages());
        }
    }
    Ok((here, in_parent))
}

/// The entries of a page map. The first message is a head of another kind.
pub(super) fn entries<'a>(
    path: &'a Path,
    bytes: &'a [u8],
) -> Result<impl Iterator<Item = Result<PagemapEntry, Error>> + 'a, Error> {
    let messages =
        messages(bytes, Head::Common(PAGEMAP_MAGIC)).map_err(|flaw| flaw.of(path, bytes))?;
    let damaged = |source| Error::Damaged { path: path.to_owned(), source };
    Ok(messages
        .into_iter()
        .skip(1)
        .map(move |message| PagemapEntry::decode(message).map_err(damaged)))
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<MmEntry>(path, bytes, Head::Common(MM_MAGIC));
    let _ = count_pages(path, bytes);
}
