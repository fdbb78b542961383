//! Where pages come from: the checkpoint's memory images, each block verified before it is used.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::criu::images::{self, PageMap};
use crate::store::blocks::{BLOCK, Blocks};
use crate::store::checksums::{Image, Sum};
use crate::store::record::{Damage, Record};
use crate::sys::files;

use super::pending::Pending;

/// The memory images of a checkpoint, for the tasks whose memory comes later.
#[derive(Debug)]
pub struct Source {
    tasks: BTreeMap<u32, Task>,
    images: Vec<PageImage>,
    /// The block that was read last: of which image, which one, how long.
    cached: Option<(usize, u64, usize)>,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Task {
    image: usize,
    pending: Pending,
}

#[derive(Debug)]
struct PageImage {
    name: String,
    file: File,
    blocks: Blocks,
    /// Which parts of it come later; CRIU reads all others.
    lazy: Vec<Range<u64>>,
}

impl Source {
    /// Opens them. `None` where some image has no checksums of its blocks, or holds not all pages.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn open(record: &Record, dir: &Path) -> Result<Option<Source>> {
        let mut source = Source { tasks: BTreeMap::new(), images: Vec::new(), cached: None, buffer: Vec::new() };
        let Some(mut maps) = page_maps(dir)? else { return Ok(None) };
        // That of a task all of whose memory is files' has no bytes, and its map no pages.
        for image in record.images.iter().filter(|image| image.is_memory() && image.size > 0) {
            let Some(opened) = PageImage::open(dir, image)? else { return Ok(None) };
            let number = source.images.len();
            source.images.push(opened);
            let Some((pid, map)) = maps.remove(&image.name) else { continue };
            if !fits(&map, image.size) {
                return Ok(None);
            }
            source.images[number].lazy = lazy_parts(&map);
            source.tasks.insert(pid, Task { image: number, pending: Pending::of(&map.runs) });
        }
        if maps.values().any(|(_, map)| !map.runs.is_empty()) {
            return Ok(None);
        }
        let nothing = |(pid, _)| (pid, Task { image: 0, pending: Pending::default() });
        source.tasks.extend(maps.into_values().map(nothing));
        Ok(Some(source))
    }

    /// The bytes that come later, of each task.
    pub fn bytes_of_tasks(&self) -> Vec<u64> {
        self.tasks.values().map(|task| task.pending.bytes()).collect()
    }

    /// What a task misses at first, and in which image it is; none of a pid that the images do not know.
    pub fn task(&self, pid: u32) -> Option<(usize, Pending)> {
        self.tasks.get(&pid).map(|task| (task.image, task.pending.clone()))
    }

    /// Bytes of an image, which must lie in one block.
    ///
    /// # Errors
    /// A [`Damage`] where the block is not what it was.
    pub fn read(&mut self, image: usize, offset: u64, length: u64) -> Result<&[u8]> {
        let number = offset / BLOCK;
        let size = match self.cached {
            Some((at, block, size)) if (at, block) == (image, number) => size,
            _ => {
                self.cached = None;
                let size = self.images.get(image).context("no such image")?.read(number, &mut self.buffer)?;
                self.cached = Some((image, number, size));
                size
            }
        };
        let start = usize::try_from(offset - number * BLOCK)?;
        let end = start + usize::try_from(length)?;
        self.buffer[..size].get(start..end).context("a page lies outside of its image")
    }

    /// Verifies what CRIU reads itself: the blocks that hold anything else than what comes later.
    pub fn verifier(&self) -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
        let mut images = Vec::new();
        for image in &self.images {
            let file = image.file.try_clone().context("duplicate a descriptor")?;
            let (name, blocks, lazy) = (image.name.clone(), image.blocks.clone(), image.lazy.clone());
            images.push(PageImage { name, file, blocks, lazy });
        }
        Ok(move || {
            let mut buffer = Vec::new();
            for image in &images {
                for number in (0..image.blocks.count()).filter(|number| !image.is_lazy(*number)) {
                    image.read(number, &mut buffer)?;
                }
            }
            Ok(())
        })
    }
}

impl PageImage {
    fn open(dir: &Path, image: &Image) -> Result<Option<PageImage>> {
        let Some(Sum::Blake3(hash)) = &image.sum else { return Ok(None) };
        let Some(blocks) = Blocks::of(dir, &image.name, image.size, hash)? else { return Ok(None) };
        let path = dir.join(&image.name);
        let file = files::open_file(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Some(PageImage { name: image.name.clone(), file, blocks, lazy: Vec::new() }))
    }

    /// Reads a block into the buffer; says how many bytes it has.
    fn read(&self, number: u64, buffer: &mut Vec<u8>) -> Result<usize> {
        let size = usize::try_from(self.blocks.length_of(number))?;
        buffer.resize(buffer.len().max(size), 0);
        let block = &mut buffer[..size];
        self.file.read_exact_at(block, number * BLOCK).with_context(|| format!("read {}", self.name))?;
        match self.blocks.is_right(number, block) {
            true => Ok(size),
            false => Err(Damage::Checksum(self.name.clone()).into()),
        }
    }

    fn is_lazy(&self, number: u64) -> bool {
        let block = number * BLOCK..number * BLOCK + self.blocks.length_of(number);
        let after = self.lazy.partition_point(|part| part.start <= block.start);
        self.lazy[..after].last().is_some_and(|part| block.end <= part.end)
    }
}

/// The page maps of all tasks, by the images of their pages; none where some pages are not here.
fn page_maps(dir: &Path) -> Result<Option<BTreeMap<String, (u32, PageMap)>>> {
    let number = |name: PathBuf| name.to_str()?.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse().ok();
    let mut maps = BTreeMap::new();
    for pid in files::names(dir)?.into_iter().filter_map(number) {
        let Some(map) = images::page_map(dir, pid)? else { return Ok(None) };
        maps.insert(map.image.clone(), (pid, map));
    }
    Ok(Some(maps))
}

/// Whether the pages are all in the image, each as long as it is in memory.
fn fits(map: &PageMap, size: u64) -> bool {
    let bytes = map.runs.iter().map(|run| run.addresses.end - run.addresses.start).fold(0, u64::saturating_add);
    bytes == size
}

/// The parts of an image that come later, adjoining ones as one.
fn lazy_parts(map: &PageMap) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    for run in map.runs.iter().filter(|run| run.lazy) {
        let end = run.offset + (run.addresses.end - run.addresses.start);
        match parts.last_mut() {
            Some(before) if before.end == run.offset => before.end = end,
            _ => parts.push(run.offset..end),
        }
    }
    parts
}
