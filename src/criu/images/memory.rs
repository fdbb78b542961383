//! `mm-PID.img` and `pagemap-PID.img`: the memory of a process.

use std::path::Path;

use prost::Message;

use super::{Error, Head, bytes_of, decode, messages, read_one};

pub(super) const MM_MAGIC: u32 = 0x5749_2820;
const PAGEMAP_MAGIC: u32 = 0x5608_4025;

/// `PE_PARENT` and `PE_PRESENT` of CRIU's pagemap.h.
const IN_PARENT: u32 = 1;
const PRESENT: u32 = 4;

#[derive(Clone, PartialEq, Message)]
struct MmEntry {
    #[prost(uint32, required, tag = "12")]
    exe_file_id: u32,
    #[prost(message, repeated, tag = "14")]
    vmas: Vec<VmaEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct VmaEntry {
    #[prost(uint64, required, tag = "1")]
    start: u64,
    #[prost(uint64, required, tag = "2")]
    end: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PagemapEntry {
    #[prost(uint32, required, tag = "2")]
    compat_nr_pages: u32,
    #[prost(bool, optional, tag = "3")]
    in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The [`id`](super::OpenFile::id) of its program's file.
    pub program: u32,
    /// Bytes of its address space.
    pub mapped: u64,
    /// Pages of it that stand in this checkpoint. What can be read again from files does not.
    pub pages: u64,
    /// Pages of it that stand in an earlier one on which this one builds.
    pub pages_in_parent: u64,
}

/// The memory of a process; none for one that has none: a zombie.
pub fn memory(dir: &Path, pid: u32) -> Result<Option<Memory>, Error> {
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

/// Pages here, and pages in the parent. The first message is a head of another kind.
fn count_pages(path: &Path, bytes: &[u8]) -> Result<(u64, u64), Error> {
    let head = Head::Common(PAGEMAP_MAGIC);
    let damaged = |source| Error::Damaged { path: path.to_owned(), source };
    let (mut here, mut in_parent) = (0u64, 0u64);
    for message in messages(bytes, head).map_err(|flaw| flaw.of(path, bytes))?.into_iter().skip(1) {
        let entry = PagemapEntry::decode(message).map_err(damaged)?;
        let pages = entry.nr_pages.unwrap_or(u64::from(entry.compat_nr_pages));
        let flags = entry.flags.unwrap_or(if entry.in_parent == Some(true) { IN_PARENT } else { PRESENT });
        if flags & IN_PARENT != 0 {
            in_parent = in_parent.saturating_add(pages);
        } else if flags & PRESENT != 0 {
            here = here.saturating_add(pages);
        }
    }
    Ok((here, in_parent))
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<MmEntry>(path, bytes, Head::Common(MM_MAGIC));
    let _ = count_pages(path, bytes);
}
