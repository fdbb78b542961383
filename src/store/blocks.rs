//! Checksums of the blocks of memory images, so that a page can be verified without the rest.
//!
//! BLAKE3 is a tree: the hash of an image is made of the chaining values of its parts
//! (`blake3::hazmat`). Those of blocks of 64 KiB are kept beside the image, in `lxc-cr-blocks-ID`
//! for `pages-ID.img`, 32 bytes each in their order, and nothing else. They vouch for themselves:
//! put together they are the checksum in the record, or they are not used.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::store::layout;
use crate::sys::files;

/// The size of a block, in bytes.
pub(crate) const BLOCK: u64 = 64 << 10;
/// The size of a checksum, in bytes.
const SUM: usize = size_of::<ChainingValue>();

/// The checksums of all blocks of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The image's size in bytes.
    size: u64,
    sums: Vec<ChainingValue>,
}

/// The hash of an image and of its blocks, while it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockHasher {
    block: Box<Hasher>,
    in_block: u64,
    done: Vec<ChainingValue>,
}

impl BlockHasher {
    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Not before more comes: the last block of an image of one block is hashed otherwise.
            if self.in_block == BLOCK {
                self.done.push(self.block.finalize_non_root());
                *self.block = Hasher::new();
                self.block.set_input_offset(self.done.len() as u64 * BLOCK);
                self.in_block = 0;
            }
            let room = usize::try_from(BLOCK - self.in_block).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            self.in_block += now.len() as u64;
            bytes = later;
        }
    }

    /// The hash as `b3sum` prints it, and the checksums of the blocks.
    pub(crate) fn finish(self) -> (String, Blocks) {
        let BlockHasher { block, in_block, mut done } = self;
        if done.is_empty() {
            let sums = if in_block == 0 { Vec::new() } else { vec![block.finalize_non_root()] };
            return (block.finalize().to_string(), Blocks { size: in_block, sums });
        }
        let size = done.len() as u64 * BLOCK + in_block;
        done.push(block.finalize_non_root());
        let blocks = Blocks { size, sums: done };
        (blocks.root().unwrap_or_default(), blocks)
    }
}

impl Blocks {
    /// Reads those of an image of this size in bytes, of which `hash` is recorded (as `b3sum`
    /// prints it); `None` where there are none, or they are not of that.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub(crate) fn of(dir: &Path, image: &str, size: u64, hash: &str) -> Result<Option<Blocks>> {
        let Some(name) = layout::blocks_of(image) else { return Ok(None) };
        let path = dir.join(name);
        let bytes = match files::open_file(&path) {
            Ok(file) => read_all(&file, size),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => Err(e),
        };
        let Some(bytes) = bytes.with_context(|| format!("read {}", path.display()))? else {
            return Ok(None);
        };
        let (sums, _) = bytes.as_chunks::<SUM>();
        let blocks = Blocks { size, sums: sums.to_vec() };
        let right = match blocks.root() {
            Some(root) => root == hash,
            // One block has no tree above it: it is verified as a whole.
            None => blocks.sums.len() == 1 && hash_of(&dir.join(image), size)? == hash,
        };
        Ok(right.then_some(blocks))
    }

    /// Writes them beside their image.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn write(&self, dir: &Path, image: &str) -> Result<()> {
        let Some(name) = layout::blocks_of(image) else { bail!("{image} is not a memory image") };
        files::write_atomically(&dir.join(name), self.sums.as_flattened())
    }

    /// Whether these bytes are the block of this number.
    pub(crate) fn is_right(&self, number: u64, bytes: &[u8]) -> bool {
        let recorded = usize::try_from(number).ok().and_then(|number| self.sums.get(number));
        recorded.is_some_and(|recorded| *recorded == sum_of(number, bytes))
    }

    /// The bytes of the block of this number.
    pub(crate) fn length_of(&self, number: u64) -> u64 {
        self.size.saturating_sub(number.saturating_mul(BLOCK)).min(BLOCK)
    }

    /// The bytes of the image.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.sums.len() as u64
    }

    /// The hash of the whole, as `b3sum` prints it; none of less than two blocks, which have no
    /// tree, and where the size is not theirs.
    fn root(&self) -> Option<String> {
        if self.sums.len() < 2 || self.sums.len() as u64 != self.size.div_ceil(BLOCK) {
            return None;
        }
        let (left, right) = halves(&self.sums, self.size);
        Some(
            merge_subtrees_root(&merged(left.0, left.1), &merged(right.0, right.1), Mode::Hash)
                .to_string(),
        )
    }
}

type Part<'a> = (&'a [ChainingValue], u64);

/// The two subtrees of a tree of more than one block.
fn halves(sums: &[ChainingValue], size: u64) -> (Part<'_>, Part<'_>) {
    let left = left_subtree_len(size);
    let blocks = usize::try_from(left / BLOCK).unwrap_or(usize::MAX);
    let (one, other) = sums.split_at(blocks.min(sums.len()));
    ((one, left), (other, size - left))
}

fn merged(sums: &[ChainingValue], size: u64) -> ChainingValue {
    match sums {
        [one] => *one,
        _ => {
            let (left, right) = halves(sums, size);
            merge_subtrees_non_root(&merged(left.0, left.1), &merged(right.0, right.1), Mode::Hash)
        }
    }
}

fn sum_of(number: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(number * BLOCK);
    hasher.update(bytes).finalize_non_root()
}

/// The hash of a small image.
fn hash_of(image: &Path, size: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let file = files::open_file(image).with_context(|| format!("open {}", image.display()))?;
    file.take(size + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", image.display()))?;
    Ok(blake3::hash(&bytes).to_string())
}

/// The file's content, if it is as long as it has to be for an image of this size.
fn read_all(file: &File, size: u64) -> io::Result<Option<Vec<u8>>> {
    let length = size.div_ceil(BLOCK) * SUM as u64;
    if file.metadata()?.len() != length {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NAME: &str = "pages-1.img";

    fn image(dir: &Path, size: usize) -> (String, Blocks, Vec<u8>) {
        let content: Vec<u8> = (0..size).map(|i| (i * 7 + i / 4096) as u8).collect();
        fs::write(dir.join(NAME), &content).unwrap();
        let mut hasher = BlockHasher::default();
        content.chunks(5000).for_each(|piece| hasher.update(piece));
        let (sum, blocks) = hasher.finish();
        assert_eq!(sum, blake3::hash(&content).to_string(), "{size}");
        (sum, blocks, content)
    }

    #[test]
    fn blocks_make_up_the_checksum_of_the_record() {
        let block = BLOCK as usize;
        let dir = tempfile::tempdir().unwrap();
        for size in [
            1,
            4096,
            block - 1,
            block,
            block + 1,
            2 * block,
            3 * block + 4096,
            16 * block,
            37 * block + 5,
        ] {
            let (hash, blocks, content) = image(dir.path(), size);
            blocks.write(dir.path(), NAME).unwrap();
            let read = Blocks::of(dir.path(), NAME, size as u64, &hash).unwrap().unwrap();
            assert_eq!(read, blocks, "{size}");
            for (number, bytes) in content.chunks(block).enumerate() {
                assert_eq!(read.length_of(number as u64), bytes.len() as u64);
                assert!(read.is_right(number as u64, bytes));
                let mut wrong = bytes.to_vec();
                wrong[bytes.len() / 2] ^= 1;
                assert!(!read.is_right(number as u64, &wrong));
                assert!(!read.is_right(number as u64 + 1, bytes));
            }
        }
    }

    #[test]
    fn blocks_of_another_image_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (hash, blocks, _) = image(dir.path(), 3 * BLOCK as usize);
        let read = |size| Blocks::of(dir.path(), NAME, size, &hash).unwrap();
        assert_eq!(read(3 * BLOCK), None);
        let mut changed = blocks.clone();
        changed.sums[1][0] ^= 1;
        changed.write(dir.path(), NAME).unwrap();
        assert_eq!(read(3 * BLOCK), None);
        blocks.write(dir.path(), NAME).unwrap();
        assert!(read(3 * BLOCK).is_some());
        assert_eq!(read(2 * BLOCK), None);
    }
}
