//! `pagemap-PID.img` of a checkpoint and of all that it builds on: where each page of a process
//! stands.
//!
//! A page that had not changed since an earlier copy stands there. CRIU says of each page that it
//! writes whether it may come later than the process; of those that stand in an earlier copy it
//! says nothing (page-xfer.c, `get_hole_flags`), and so restores them before the process runs. Here
//! that is added, from the earlier copy and from what the page's area is now.

use std::ops::Range;
use std::path::Path;

use prost::Message;

use super::memory::{
    IN_PARENT, LAZY, MM_MAGIC, MmEntry, PAGEMAP_MAGIC, PagemapEntry, VmaEntry, entries, read_head,
};
use super::{Error, Head, bytes_of, change, read_one};

/// What mmap(2) calls the areas that may be filled later, and those that may not (CRIU's vma.h,
/// `vma_entry_can_be_lazy`). A stack is none of them: CRIU leaves out its page in use, which it
/// knows.
const PRIVATE_ANONYMOUS: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned();
const NOT_LATER: u32 = (libc::MAP_LOCKED | libc::MAP_HUGETLB | libc::MAP_GROWSDOWN).cast_unsigned();
/// `VMA_AREA_VSYSCALL`, `_VDSO`, `_VVAR`, `_AIORING`, `_SHSTK` and `_GUARD` of CRIU's image.h.
const SPECIAL: u32 = 1 << 2 | 1 << 3 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16;

/// Which of a process's pages stand where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageMap {
    /// The names of its images, `pages-ID.img`: in the checkpoint, in what that builds on, and so
    /// on; none where a directory knows no memory of it.
    pub images: Vec<Option<String>>,
    /// Runs of pages, in the order of their addresses.
    pub runs: Vec<PageRun>,
}

/// Adjoining pages that stand side by side in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRun {
    /// Their addresses, in bytes.
    pub addresses: Range<u64>,
    /// In which of the map's images.
    pub image: usize,
    /// Where the first of them stands in that, in bytes.
    pub offset: u64,
    /// Whether they may come later than the process: private memory that is no file's.
    pub lazy: bool,
}

/// One directory's page map.
struct Level {
    image: String,
    entries: Vec<Placed>,
}

/// An entry of a page map, and where its pages stand if they are here.
struct Placed {
    entry: PagemapEntry,
    addresses: Range<u64>,
    offset: u64,
}

/// The pages of a process, in a checkpoint's directory and those that it builds on, the nearest
/// first. None for one without memory, and where a page stands in none of them.
pub(crate) fn page_map(line: &[&Path], pid: u32) -> Result<Option<PageMap>, Error> {
    let levels = levels(line, pid)?;
    if levels.first().is_none_or(Option::is_none) {
        return Ok(None);
    }
    let areas = areas(line, pid, &levels)?;
    let mut below: Option<Vec<PageRun>> = None;
    for (image, level) in levels.iter().enumerate().rev() {
        below = match level {
            Some(level) => match runs(level, image, below.as_deref()) {
                Some(runs) => Some(runs),
                None => return Ok(None),
            },
            None => None,
        };
    }
    let mut runs = below.unwrap_or_default();
    if let Some(areas) = areas {
        runs = with_later(runs, &areas);
    }
    let images = levels.into_iter().map(|level| level.map(|level| level.image)).collect();
    Ok(Some(PageMap { images, runs: joined(runs) }))
}

impl PageMap {
    /// The page map of a checkpoint that builds on others as CRIU is to see it, with each page that
    /// may come later marked so: its name and content.
    pub(crate) fn marked(&self, dir: &Path, pid: u32) -> Result<(String, Vec<u8>), Error> {
        let name = format!("pagemap-{pid}.img");
        let path = dir.join(&name);
        let mut image = bytes_of(&path)?;
        let bytes = image.clone();
        // The head, and then each entry anew.
        image.truncate(change::length_of_first(&path, &bytes, Head::Common(PAGEMAP_MAGIC))?);
        for entry in entries(&path, &bytes)? {
            let entry = entry?;
            match entry.is_in_parent() {
                false => put(&entry, &mut image),
                true => {
                    for (addresses, lazy) in self.parts(&addresses_of(&entry)) {
                        put(&entry.part(&addresses, lazy), &mut image);
                    }
                }
            }
        }
        Ok((name, image))
    }

    /// Whether some of its pages stand elsewhere than in the checkpoint itself.
    pub(crate) fn builds_on_others(&self) -> bool {
        self.runs.iter().any(|run| run.image > 0)
    }

    /// A range of addresses, divided by whether its pages may come later.
    fn parts(&self, range: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut parts: Vec<(Range<u64>, bool)> = Vec::new();
        for run in between(&self.runs, range) {
            match parts.last_mut() {
                Some((before, lazy)) if before.end == run.addresses.start && *lazy == run.lazy => {
                    before.end = run.addresses.end;
                }
                _ => parts.push((run.addresses, run.lazy)),
            }
        }
        parts
    }
}

impl PagemapEntry {
    /// A part of an entry whose pages stand in an earlier copy.
    fn part(&self, addresses: &Range<u64>, lazy: bool) -> PagemapEntry {
        let pages = (addresses.end - addresses.start) / procfs::page_size();
        let count = u32::try_from(pages).unwrap_or(u32::MAX);
        PagemapEntry {
            vaddr: addresses.start,
            compat_nr_pages: if self.compat_nr_pages == 0 { 0 } else { count },
            in_parent: self.in_parent,
            flags: Some(IN_PARENT | if lazy { LAZY } else { 0 }),
            nr_pages: Some(pages),
        }
    }
}

fn put(entry: &PagemapEntry, to: &mut Vec<u8>) {
    let message = entry.encode_to_vec();
    to.extend((message.len() as u32).to_le_bytes());
    to.extend(message);
}

/// The page maps of a process, of each directory.
fn levels(line: &[&Path], pid: u32) -> Result<Vec<Option<Level>>, Error> {
    let mut levels = Vec::new();
    for dir in line {
        let path = dir.join(format!("pagemap-{pid}.img"));
        levels.push(match bytes_of(&path) {
            Ok(bytes) => Some(Level::read(&path, &bytes)?),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        });
    }
    Ok(levels)
}

impl Level {
    fn read(path: &Path, bytes: &[u8]) -> Result<Level, Error> {
        let image = format!("pages-{}.img", read_head(path, bytes)?.pages_id);
        let (mut placed, mut offset) = (Vec::new(), 0u64);
        for entry in entries(path, bytes)? {
            let entry = entry?;
            let addresses = addresses_of(&entry);
            let length = if entry.is_here() { addresses.end - addresses.start } else { 0 };
            placed.push(Placed { entry, addresses, offset });
            offset = offset.saturating_add(length);
        }
        Ok(Level { image, entries: placed })
    }
}

fn addresses_of(entry: &PagemapEntry) -> Range<u64> {
    let length = entry.pages().saturating_mul(procfs::page_size());
    entry.vaddr..entry.vaddr.saturating_add(length)
}

/// The areas that may be filled later, where the checkpoint builds on others: else each page map
/// says it all.
fn areas(
    line: &[&Path],
    pid: u32,
    levels: &[Option<Level>],
) -> Result<Option<Vec<Range<u64>>>, Error> {
    let (Some(dir), true) = (line.first(), levels.len() > 1) else { return Ok(None) };
    let mm: MmEntry = read_one(&dir.join(format!("mm-{pid}.img")), Head::Common(MM_MAGIC))?;
    let later = mm.vmas.iter().filter(|area| area.may_come_later());
    Ok(Some(later.map(|area| area.start..area.end).collect()))
}

impl VmaEntry {
    fn may_come_later(&self) -> bool {
        let (flags, status) = (self.flags.unwrap_or_default(), self.status.unwrap_or_default());
        flags & PRIVATE_ANONYMOUS == PRIVATE_ANONYMOUS
            && flags & NOT_LATER == 0
            && status & SPECIAL == 0
    }
}

/// Where the pages of a level stand. None where one of them stands nowhere.
fn runs(level: &Level, image: usize, below: Option<&[PageRun]>) -> Option<Vec<PageRun>> {
    let mut runs = Vec::new();
    for Placed { entry, addresses, offset } in &level.entries {
        if entry.is_here() {
            let lazy = entry.kind() & LAZY != 0;
            runs.push(PageRun { addresses: addresses.clone(), image, offset: *offset, lazy });
            continue;
        }
        if !entry.is_in_parent() {
            return None;
        }
        let found = between(below?, addresses);
        let length = |run: &PageRun| run.addresses.end - run.addresses.start;
        if found.iter().map(length).sum::<u64>() != addresses.end - addresses.start {
            return None;
        }
        runs.extend(found);
    }
    Some(runs)
}

/// What of some runs, in the order of their addresses, lies in a range.
fn between(runs: &[PageRun], range: &Range<u64>) -> Vec<PageRun> {
    let first = runs.partition_point(|run| run.addresses.end <= range.start);
    let within = runs[first..].iter().take_while(|run| run.addresses.start < range.end);
    let cut = |run: &PageRun| {
        let start = run.addresses.start.max(range.start);
        let addresses = start..run.addresses.end.min(range.end);
        PageRun { addresses, offset: run.offset + (start - run.addresses.start), ..run.clone() }
    };
    within.map(cut).collect()
}

/// Pages that stand in an earlier copy come later only where their area still allows it.
fn with_later(runs: Vec<PageRun>, areas: &[Range<u64>]) -> Vec<PageRun> {
    let mut judged = Vec::new();
    for run in runs {
        if run.image == 0 || !run.lazy {
            judged.push(run);
            continue;
        }
        let mut at = run.addresses.start;
        while at < run.addresses.end {
            let after = areas.partition_point(|area| area.end <= at);
            let (end, lazy) = match areas.get(after) {
                Some(area) if area.start <= at => (area.end, true),
                Some(area) => (area.start, false),
                None => (u64::MAX, false),
            };
            let addresses = at..end.min(run.addresses.end);
            at = addresses.end;
            let part = between(std::slice::from_ref(&run), &addresses);
            judged.extend(part.into_iter().map(|part| PageRun { lazy, ..part }));
        }
    }
    judged
}

/// The same with those as one that stand side by side.
fn joined(runs: Vec<PageRun>) -> Vec<PageRun> {
    let mut joined: Vec<PageRun> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(before)
                if before.addresses.end == run.addresses.start
                    && (before.image, before.lazy) == (run.image, run.lazy)
                    && before.offset + (before.addresses.end - before.addresses.start)
                        == run.offset =>
            {
                before.addresses.end = run.addresses.end;
            }
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PRESENT: u32 = 4;
    const PID: u32 = 7;

    fn image(magic: u32, messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = [super::super::COMMON_MAGIC, magic].map(u32::to_le_bytes).concat();
        for message in messages {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        }
        bytes
    }

    /// A directory with a page map of entries: the first page, how many, their flags.
    fn write(dir: &Path, id: u32, pages: &[(u64, u64, u32)], areas: &[(u64, u64, u32)]) {
        fs::create_dir(dir).unwrap();
        let mut messages = vec![super::super::memory::PagemapHead { pages_id: id }.encode_to_vec()];
        let page = procfs::page_size();
        messages.extend(pages.iter().map(|(first, count, flags)| {
            let entry = PagemapEntry {
                vaddr: first * page,
                compat_nr_pages: 0,
                in_parent: None,
                flags: Some(*flags),
                nr_pages: Some(*count),
            };
            entry.encode_to_vec()
        }));
        fs::write(dir.join("pagemap-7.img"), image(PAGEMAP_MAGIC, &messages)).unwrap();
        let vmas = areas.iter().map(|(first, end, flags)| VmaEntry {
            start: first * page,
            end: end * page,
            flags: Some(*flags),
            ..VmaEntry::default()
        });
        let mm = MmEntry { vmas: vmas.collect(), ..MmEntry::default() };
        fs::write(dir.join("mm-7.img"), image(MM_MAGIC, &[mm.encode_to_vec()])).unwrap();
    }

    #[test]
    fn pages_are_found_in_what_a_checkpoint_builds_on() {
        let top = tempfile::tempdir().unwrap();
        let dir = |name: &str| top.path().join(name);
        let (here, parent) = (PRESENT | LAZY, IN_PARENT);
        let locked = PRIVATE_ANONYMOUS | libc::MAP_LOCKED.cast_unsigned();
        let areas = [(10, 20, PRIVATE_ANONYMOUS), (20, 30, locked), (30, 40, PRIVATE_ANONYMOUS)];
        write(&dir("first"), 1, &[(10, 25, here), (35, 1, PRESENT)], &[]);
        write(&dir("second"), 2, &[(10, 5, parent), (15, 2, here), (17, 19, parent)], &[]);
        write(&dir("last"), 3, &[(10, 1, here), (11, 24, parent), (35, 1, parent)], &areas);
        let (first, second, last) = (dir("first"), dir("second"), dir("last"));
        let line = [last.as_path(), second.as_path(), first.as_path()];
        let map = page_map(&line, PID).unwrap().unwrap();
        let names: Vec<_> = map.images.iter().flatten().map(String::as_str).collect();
        assert_eq!(names, ["pages-3.img", "pages-2.img", "pages-1.img"]);
        let page = procfs::page_size();
        let found: Vec<_> = map
            .runs
            .iter()
            .map(|run| {
                let (start, end) = (run.addresses.start / page, run.addresses.end / page);
                (start, end, run.image, run.offset / page, run.lazy)
            })
            .collect();
        assert_eq!(
            found,
            [
                (10, 11, 0, 0, true),
                (11, 15, 2, 1, true),
                (15, 17, 1, 0, true),
                (17, 20, 2, 7, true),
                // Locked by now.
                (20, 30, 2, 10, false),
                (30, 35, 2, 20, true),
                // A stack's page, then.
                (35, 36, 2, 25, false),
            ]
        );

        // CRIU is shown the same.
        let (name, marked) = map.marked(&last, PID).unwrap();
        let told: Vec<_> = entries(Path::new(&name), &marked)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.vaddr / page, entry.pages(), entry.kind()))
            .collect();
        let later = IN_PARENT | LAZY;
        assert_eq!(
            told,
            [(10, 1, here), (11, 9, later), (20, 10, parent), (30, 5, later), (35, 1, parent)]
        );

        // A page that stands nowhere, and a process that another directory does not know.
        fs::remove_file(first.join("pagemap-7.img")).unwrap();
        assert_eq!(page_map(&line, PID).unwrap(), None);
        assert_eq!(page_map(&line[2..], PID).unwrap(), None);
    }

    #[test]
    fn a_checkpoint_that_builds_on_none_is_as_criu_says() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("only");
        write(&dir, 4, &[(10, 3, PRESENT | LAZY), (13, 1, PRESENT | LAZY), (20, 1, PRESENT)], &[]);
        let map = page_map(&[&dir], PID).unwrap().unwrap();
        assert!(!map.builds_on_others());
        let page = procfs::page_size();
        assert_eq!(map.runs.len(), 2);
        assert_eq!(map.runs[0].addresses, 10 * page..14 * page);
        assert_eq!(map.runs[1].offset, 4 * page);
    }
}
