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
use crate::store::parents::Parents;
use crate::store::record::{Damage, Record};
use crate::sys::files;

use super::pending::Pending;

/// The memory images of a checkpoint and of what it builds on, for the tasks whose memory comes
/// later.
///
/// They are laid end to end, each from the begin of a block, so that one number is the place of a
/// page.
#[derive(Debug)]
pub(crate) struct Source {
    tasks: BTreeMap<u32, Pending>,
    /// In the order of their places.
    images: Vec<PageImage>,
    /// Page maps that CRIU is to be shown in place of those in the checkpoint.
    marked: Vec<(String, Vec<u8>)>,
    /// The block that was read last, and how long it is.
    cached: Option<(u64, usize)>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct PageImage {
    name: String,
    /// The place of its first byte.
    place: u64,
    file: File,
    blocks: Blocks,
    /// Which parts of it CRIU reads, in the order of their offsets; none: all.
    eager: Option<Vec<Range<u64>>>,
}

impl Source {
    /// Opens them. `None` where some image has no checksums of its blocks, or a page stands in none
    /// of them.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub(crate) fn open(record: &Record, dir: &Path) -> Result<Option<Source>> {
        let parents = Parents::of(dir)?;
        let line: Vec<&Path> = std::iter::once(dir).chain(parents.directories()).collect();
        let records: Vec<(&Path, &Record)> =
            std::iter::once((dir, record)).chain(parents.recorded()).collect();
        if records.len() != line.len() {
            return Ok(None);
        }
        let Some(maps) = page_maps(&line)? else { return Ok(None) };
        let Some(mut images) = open_images(&records)? else { return Ok(None) };
        let mut source = Source {
            tasks: BTreeMap::new(),
            images: Vec::new(),
            marked: Vec::new(),
            cached: None,
            buffer: Vec::new(),
        };
        for (pid, map) in maps {
            let Some(places) = places(&map, &mut images) else { return Ok(None) };
            source.tasks.insert(pid, Pending::of(&map.runs, &places));
            if map.builds_on_others() {
                source.marked.push(map.marked(dir, pid)?);
            }
        }
        source.images = images.into_iter().map(|(_, image)| image).collect();
        Ok(Some(source))
    }

    /// The page maps that CRIU is to be shown in place of those in the checkpoint, by their names.
    pub(crate) fn take_marked(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.marked)
    }

    /// The addresses of what comes later, those of all tasks together.
    pub(crate) fn addresses(&self) -> Vec<Range<u64>> {
        self.tasks.values().flat_map(Pending::addresses).collect()
    }

    /// What a task misses at first; none of a pid that the images do not know.
    pub(crate) fn task(&self, pid: u32) -> Option<Pending> {
        self.tasks.get(&pid).cloned()
    }

    /// Bytes from a place on, which must lie in one block.
    ///
    /// # Errors
    /// A [`Damage`] where the block is not what it was.
    pub(crate) fn read(&mut self, place: u64, length: u64) -> Result<&[u8]> {
        let number = place / BLOCK;
        let size = match self.cached {
            Some((block, size)) if block == number => size,
            _ => {
                self.cached = None;
                let after = self.images.partition_point(|image| image.place <= place);
                let image = self.images[..after].last().context("no such image")?;
                let size = image.read(number - image.place / BLOCK, &mut self.buffer)?;
                self.cached = Some((number, size));
                size
            }
        };
        let start = usize::try_from(place - number * BLOCK)?;
        let end = start + usize::try_from(length)?;
        self.buffer[..size].get(start..end).context("a page lies outside of its image")
    }

    /// Verifies what CRIU reads itself: the blocks of which it reads anything.
    pub(crate) fn verifier(&self) -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
        let mut images = Vec::new();
        for image in &self.images {
            let file = image.file.try_clone().context("duplicate a descriptor")?;
            let PageImage { name, place, blocks, eager, .. } = image;
            let (name, place) = (name.clone(), *place);
            let (blocks, eager) = (blocks.clone(), eager.clone());
            images.push(PageImage { name, place, file, blocks, eager });
        }
        Ok(move || {
            let mut buffer = Vec::new();
            for image in &images {
                for number in (0..image.blocks.count()).filter(|number| image.is_read(*number)) {
                    image.read(number, &mut buffer)?;
                }
            }
            Ok(())
        })
    }
}

impl PageImage {
    fn open(dir: &Path, image: &Image, place: u64) -> Result<Option<PageImage>> {
        let Some(Sum::Blake3(hash)) = &image.sum else { return Ok(None) };
        let Some(blocks) = Blocks::of(dir, &image.name, image.size, hash)? else { return Ok(None) };
        let path = dir.join(&image.name);
        let file = files::open_file(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Some(PageImage { name: image.name.clone(), place, file, blocks, eager: None }))
    }

    /// Reads a block into the buffer; says how many bytes it has.
    fn read(&self, number: u64, buffer: &mut Vec<u8>) -> Result<usize> {
        let size = usize::try_from(self.blocks.length_of(number))?;
        buffer.resize(buffer.len().max(size), 0);
        let block = &mut buffer[..size];
        self.file
            .read_exact_at(block, number * BLOCK)
            .with_context(|| format!("read {}", self.name))?;
        match self.blocks.is_right(number, block) {
            true => Ok(size),
            false => Err(Damage::Checksum(self.name.clone()).into()),
        }
    }

    /// Whether CRIU reads anything of a block.
    fn is_read(&self, number: u64) -> bool {
        let Some(eager) = &self.eager else { return true };
        let block = number * BLOCK..number * BLOCK + self.blocks.length_of(number);
        let first = eager.partition_point(|part| part.end <= block.start);
        eager.get(first).is_some_and(|part| part.start < block.end)
    }
}

/// The page maps of all tasks, by their pids; none where some page stands in no image.
fn page_maps(line: &[&Path]) -> Result<Option<BTreeMap<u32, PageMap>>> {
    let number =
        |name: PathBuf| name.to_str()?.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse().ok();
    let mut maps = BTreeMap::new();
    let Some(dir) = line.first() else { return Ok(None) };
    for pid in files::names(dir)?.into_iter().filter_map(number) {
        let Some(map) = images::page_map(line, pid)? else { return Ok(None) };
        maps.insert(pid, map);
    }
    Ok(Some(maps))
}

/// The memory images of these directories that hold anything, each with the number of its
/// directory; none where one has no checksums of its blocks. Where each begins is far from the end
/// of the one before: a run of pages does not go on from one to the next.
fn open_images(records: &[(&Path, &Record)]) -> Result<Option<Vec<(usize, PageImage)>>> {
    let (mut opened, mut place) = (Vec::new(), 0u64);
    for (number, (dir, record)) in records.iter().enumerate() {
        // That of a task all of whose memory is files' has no bytes, and its map no pages.
        for image in record.images.iter().filter(|image| image.is_memory() && image.size > 0) {
            let Some(found) = PageImage::open(dir, image, place)? else { return Ok(None) };
            opened.push((number, found));
            place = place.saturating_add((image.size / BLOCK + 2) * BLOCK);
        }
    }
    Ok(Some(opened))
}

/// The places of a map's images, which get to know what of them CRIU reads. None where the pages
/// are not all in them.
fn places(map: &PageMap, images: &mut [(usize, PageImage)]) -> Option<Vec<u64>> {
    let mut places = vec![0; map.images.len()];
    for (number, name) in map.images.iter().enumerate() {
        let runs = || map.runs.iter().filter(|run| run.image == number);
        let Some(name) = name.as_ref().filter(|_| runs().next().is_some()) else { continue };
        let (_, image) = images.iter_mut().find(|(at, i)| *at == number && i.name == *name)?;
        let length = |addresses: &Range<u64>| addresses.end - addresses.start;
        let end = |run: &images::PageRun| run.offset.saturating_add(length(&run.addresses));
        if runs().any(|run| end(run) > image.blocks.size()) {
            return None;
        }
        places[number] = image.place;
        let eager = runs().filter(|run| !run.lazy).map(|run| run.offset..end(run));
        image.eager.get_or_insert_default().extend(eager);
    }
    Some(places)
}
