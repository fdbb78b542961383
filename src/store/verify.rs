//! The comparison of memory images with their checksums: the part of looking at a checkpoint that
//! takes its time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::store::checksums::Image;
use crate::store::page_cache::AsWritten;
use crate::store::parents::Parents;
use crate::store::record::{Damage, Record};
use crate::sys::{files, memory};

/// Memory images that are to be compared.
#[derive(Debug)]
pub(crate) struct Comparison(Vec<Part>);

/// Those of one directory.
#[derive(Debug)]
struct Part {
    dir: PathBuf,
    /// Each with whether its file is the one that was written.
    images: Vec<(Image, bool)>,
    /// Whether another checkpoint builds on it.
    is_built_on: bool,
}

impl Comparison {
    /// Those of a checkpoint and of all that it builds on. Whether the files are as they were
    /// written is asked now.
    pub(crate) fn of_memory(record: &Record, dir: &Path) -> Result<Comparison> {
        let mut parts = vec![Part::of(record, dir, false)];
        for (dir, record) in Parents::of(dir)?.recorded() {
            parts.push(Part::of(record, dir, true));
        }
        Ok(Comparison(parts))
    }

    /// Reads all of them, but for those that are in memory as they were written and will stay there
    /// while CRIU reads them.
    ///
    /// # Errors
    /// A [`Damage`] where one is not what it was.
    pub(crate) fn make(&self) -> Result<()> {
        let bytes = self.0.iter().flat_map(|part| &part.images).map(|(image, _)| image.size).sum();
        let stays = memory::has_room_beside(bytes);
        self.0.iter().try_for_each(|part| part.compare(stays))
    }
}

impl Part {
    fn of(record: &Record, dir: &Path, is_built_on: bool) -> Part {
        let images = record.images.iter().filter(|image| image.is_memory());
        // One that cannot be looked at is compared, and that tells why.
        let images = images.map(|image| (image.clone(), image.is_as_written(dir).unwrap_or(false)));
        Part { dir: dir.to_owned(), images: images.collect(), is_built_on }
    }

    fn compare(&self, stays: bool) -> Result<()> {
        for (image, as_written) in &self.images {
            if *as_written && self.is_in_memory(image)? && stays {
                log::debug!(
                    "{} is in memory as it was written: its checksum need not be compared",
                    image.name
                );
                continue;
            }
            if image.has_its_sum(&self.dir)? {
                continue;
            }
            let damage = Damage::Checksum(image.name.clone());
            match self.is_built_on {
                true => {
                    return Err(damage)
                        .with_context(|| format!("it builds on {}", self.dir.display()));
                }
                false => bail!(damage),
            }
        }
        Ok(())
    }

    /// Whether all of an image is in memory. If not, nobody takes it for that later.
    fn is_in_memory(&self, image: &Image) -> Result<bool> {
        let path = self.dir.join(&image.name);
        // A file system on which that cannot be asked: it is compared.
        let cached =
            files::open_file(&path).and_then(|file| memory::is_cached(&file)).unwrap_or(false);
        if !cached {
            AsWritten::spoil(&path)?;
        }
        Ok(cached)
    }
}
