//! The images of a checkpoint: their sizes and checksums.
//!
//! Two kinds of sums. The small images have SHA-256, which `sha256sum` checks everywhere. Those of
//! memory are as large as the container, and SHA-256 is slower than CRIU (on a processor with
//! instructions for it 0.9 s for a GiB, against 0.6 s that CRIU takes to write it; several times
//! that without): they have BLAKE3 (0.55 s), which `b3sum` checks.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::criu::images;
use crate::store::blocks::{BlockHasher, Blocks};
use crate::store::layout::is_image;
use crate::store::page_cache::AsWritten;
use crate::sys::files;

/// Read in pieces of this size, in bytes.
const PIECE: usize = 1 << 18;

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum. Missing only where the command died before it was taken.
    #[serde(flatten)]
    pub sum: Option<Sum>,
    /// Its file when the checksum was taken, where that was while CRIU wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_written: Option<AsWritten>,
}

/// A checksum, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sum {
    /// As `sha256sum` prints it.
    Sha256(String),
    /// As `b3sum` prints it.
    Blake3(String),
}

impl Image {
    /// Whether it holds memory: these are as large as the container, all others are small.
    pub fn is_memory(&self) -> bool {
        images::holds_pages(Path::new(&self.name))
    }

    /// Whether the file is the one of which its checksum was taken a short time ago, and nobody has
    /// changed it since.
    pub fn is_as_written(&self, dir: &Path) -> Result<bool> {
        self.as_written
            .as_ref()
            .map_or(Ok(false), |then| then.is_still_there(&dir.join(&self.name)))
    }

    /// Whether the file has the recorded checksum: reads all of it. One of which none was taken
    /// has.
    pub fn has_its_sum(&self, dir: &Path) -> Result<bool> {
        let Some(sum) = &self.sum else { return Ok(true) };
        Ok(Checksum::like(sum).of_file(&dir.join(&self.name))? == *sum)
    }

    /// As [`Image::has_its_sum`], but reads the disk, not what the kernel has cached of it. Without
    /// a checksum it is read all the same. `read` is called with the bytes of each piece.
    pub fn has_its_sum_on_disk(&self, dir: &Path, read: &mut dyn FnMut(u64)) -> Result<bool> {
        let path = dir.join(&self.name);
        let what = || format!("read {}", path.display());
        let mut file = files::open_file(&path).with_context(what)?;
        files::forget_cached(&file);
        let mut state = self.sum.as_ref().map_or_else(Checksum::blake3, Checksum::like);
        let mut buffer = vec![0; PIECE];
        loop {
            match state.update(&mut file, &mut buffer).with_context(what)? {
                0 => break,
                length => read(length as u64),
            }
        }
        files::forget_cached(&file);
        let found = state.sum();
        Ok(self.sum.as_ref().is_none_or(|sum| *sum == found))
    }
}

/// Whether [`measure_images`] takes the checksums of memory images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Somebody else is at it: see `seal`.
    SumsFollow,
    /// It does.
    WithSums,
}

/// Measures the images of a directory.
pub(crate) fn measure_images(dir: &Path, memory: Memory) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for name in files::names(dir)? {
        let Some(text) = name.to_str().filter(|_| is_image(&name)) else { continue };
        let path = dir.join(text);
        let size =
            fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?.size();
        let sum = match memory {
            Memory::SumsFollow if images::holds_pages(&name) => None,
            _ => Some(Checksum::for_image(text).of_file(&path)?),
        };
        images.push(Image { name: text.to_owned(), size, sum, as_written: None });
    }
    Ok(images)
}

/// A checksum while the file is read.
#[derive(Clone, Debug)]
pub(crate) struct Checksum {
    state: State,
    length: u64,
}

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Blake3(BlockHasher),
}

impl Checksum {
    /// The one that an image of this name gets.
    pub(crate) fn for_image(name: &str) -> Checksum {
        if images::holds_pages(Path::new(name)) { Checksum::blake3() } else { Checksum::sha256() }
    }

    /// One of the same kind as a recorded one.
    fn like(sum: &Sum) -> Checksum {
        match sum {
            Sum::Sha256(_) => Checksum::sha256(),
            Sum::Blake3(_) => Checksum::blake3(),
        }
    }

    pub(crate) fn sha256() -> Checksum {
        Checksum { state: State::Sha256(Sha256::new()), length: 0 }
    }

    fn blake3() -> Checksum {
        Checksum { state: State::Blake3(BlockHasher::default()), length: 0 }
    }

    /// Takes in the next piece; says how many bytes it had.
    pub(crate) fn update(&mut self, file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = file.read(buffer)?;
        let piece = &buffer[..length];
        match &mut self.state {
            State::Sha256(state) => state.update(piece),
            State::Blake3(state) => state.update(piece),
        }
        self.length += length as u64;
        Ok(length)
    }

    pub(crate) fn of_file(mut self, path: &Path) -> Result<Sum> {
        let what = || format!("read {}", path.display());
        let mut file = files::open_file(path).with_context(what)?;
        let mut buffer = vec![0; PIECE];
        while self.update(&mut file, &mut buffer).with_context(what)? > 0 {}
        Ok(self.sum())
    }

    /// The bytes taken in.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The sum.
    pub(crate) fn sum(self) -> Sum {
        self.sum_and_blocks().0
    }

    /// The sum, and those of the blocks where it is one of memory.
    pub(crate) fn sum_and_blocks(self) -> (Sum, Option<Blocks>) {
        match self.state {
            State::Sha256(state) => {
                (Sum::Sha256(state.finalize().iter().map(|b| format!("{b:02x}")).collect()), None)
            }
            State::Blake3(state) => {
                let (sum, blocks) = state.finish();
                (Sum::Blake3(sum), Some(blocks))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_known_programs_print() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pages-1.img", "core-1.img"] {
            fs::write(dir.path().join(name), b"abc").unwrap();
        }
        let images = measure_images(dir.path(), Memory::WithSums).unwrap();
        let told: Vec<_> = images.iter().map(|i| toml::to_string(i).unwrap()).collect();
        assert_eq!(
            told,
            [
                "name = \"core-1.img\"\nsize = 3\n\
                 sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n",
                "name = \"pages-1.img\"\nsize = 3\n\
                 blake3 = \"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"\n",
            ]
        );
        assert_eq!(toml::from_str::<Image>(&told[1]).unwrap(), images[1]);
    }

    #[test]
    fn a_memory_image_with_the_sum_of_an_older_record_is_checked_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pages-1.img"), b"abc").unwrap();
        let text = "name = 'pages-1.img'\nsize = 3\n\
                    sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'";
        let image: Image = toml::from_str(text).unwrap();
        assert!(image.has_its_sum(dir.path()).unwrap());
        fs::write(dir.path().join("pages-1.img"), b"abd").unwrap();
        assert!(!image.has_its_sum(dir.path()).unwrap());
        let without: Image = toml::from_str("name = 'pages-1.img'\nsize = 3").unwrap();
        assert_eq!((without.sum.clone(), without.has_its_sum(dir.path()).unwrap()), (None, true));
    }
}
