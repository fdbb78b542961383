//! Verification of checkpoints at rest: every image is read from the disk and compared with its
//! checksum.
//!
//! A restore compares what it reads; a checkpoint that lies for months is read by no one until it
//! is needed. Pages that the kernel has cached are dropped first, so that the disk is read, and
//! again afterwards, so that the host's cache keeps what it was good for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::store::parents::Parents;
use crate::store::record::{Damage, Record};

/// What was read of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// How many images.
    pub images: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Images of which no checksum was taken, because the command that made them died.
    pub without_checksum: usize,
}

/// Why a checkpoint was not found whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    /// It has no record, and so no checksums.
    #[error("it has no record of ours, so there are no checksums to compare")]
    NoRecord,
    /// It is not what was written, or cannot be read.
    #[error("{0}")]
    Damaged(String),
}

/// Verifies checkpoints one after the other. Those that several build on are read once.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// Directories that were read, each with its damage.
    parents: BTreeMap<PathBuf, Option<String>>,
}

impl Scrub {
    /// How many bytes [`Scrub::verify`] is going to read.
    pub(crate) fn amount(&self, dir: &Path) -> u64 {
        let own = Record::read(dir).ok().flatten().map_or(0, |record| record.size());
        let line = Parents::of(dir).unwrap_or_default();
        let unread = line.recorded().filter(|(parent, _)| !self.parents.contains_key(*parent));
        own.saturating_add(unread.map(|(_, record)| record.size()).sum())
    }

    /// Reads all images of a checkpoint and of what it builds on. `read` is called with the bytes
    /// of each piece.
    ///
    /// # Errors
    /// A [`Flaw`] where one of them is not what was written, or cannot be read.
    pub(crate) fn verify(
        &mut self,
        dir: &Path,
        read: &mut dyn FnMut(u64),
    ) -> Result<Content, Flaw> {
        let damaged = |e: anyhow::Error| Flaw::Damaged(format!("{e:#}"));
        let record = Record::read(dir).map_err(damaged)?.ok_or(Flaw::NoRecord)?;
        let content = images(&record, dir, read).map_err(damaged)?;
        for (parent, record) in Parents::of(dir).map_err(damaged)?.recorded() {
            if !self.parents.contains_key(parent) {
                let damage = images(record, parent, read).err().map(|e| format!("{e:#}"));
                self.parents.insert(parent.to_owned(), damage);
            }
            if let Some(Some(damage)) = self.parents.get(parent) {
                return Err(Flaw::Damaged(format!("it builds on {}: {damage}", parent.display())));
            }
        }
        Ok(content)
    }
}

/// Reads the images of one directory.
fn images(record: &Record, dir: &Path, read: &mut dyn FnMut(u64)) -> Result<Content> {
    record.check_sizes(dir)?;
    let mut content = Content::default();
    for image in &record.images {
        if !image.has_its_sum_on_disk(dir, read)? {
            return Err(Damage::Checksum(image.name.clone()).into());
        }
        content.images += 1;
        content.bytes = content.bytes.saturating_add(image.size);
        content.without_checksum += usize::from(image.sum.is_none());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::checksums::{Memory, measure_images};
    use crate::store::parents::parent_of;
    use crate::store::record::tests::sample;
    use crate::sys::files;

    fn checkpoint(dir: &Path, parent: Option<&str>) {
        files::make_private_dir(dir).unwrap();
        fs::write(dir.join("inventory.img"), "inventory").unwrap();
        fs::write(dir.join("pages-1.img"), vec![7; 600_000]).unwrap();
        if let Some(parent) = parent {
            symlink(format!("../{parent}"), dir.join("parent")).unwrap();
        }
        let images = measure_images(dir, Memory::WithSums).unwrap();
        Record { images, builds_on: parent_of(dir).unwrap(), ..sample() }.write(dir).unwrap();
    }

    /// Writes to an image without a change of its size.
    fn damage(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        bytes[3] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_found_where_it_is() {
        let top = tempfile::tempdir().unwrap();
        let (base, next) = (top.path().join("base"), top.path().join("next"));
        checkpoint(&base, None);
        checkpoint(&next, Some("base"));
        let mut bytes = 0;
        let mut scrub = Scrub::default();
        assert_eq!(scrub.amount(&next), 2 * 600_009);
        let content = scrub.verify(&next, &mut |read| bytes += read).unwrap();
        assert_eq!(content, Content { images: 2, bytes: 600_009, without_checksum: 0 });
        assert_eq!((bytes, scrub.amount(&next)), (2 * 600_009, 600_009), "the parent is read once");

        damage(&base.join("pages-1.img"));
        assert!(scrub.verify(&next, &mut |_| ()).is_ok(), "known from before");
        let error = Scrub::default().verify(&next, &mut |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("it builds on ") && error.contains("'pages-1.img'"), "{error}");
        let error = Scrub::default().verify(&base, &mut |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("image 'pages-1.img' was changed"), "{error}");
    }

    #[test]
    fn what_has_no_record_has_no_checksums() {
        let top = tempfile::tempdir().unwrap();
        assert!(matches!(Scrub::default().verify(top.path(), &mut |_| ()), Err(Flaw::NoRecord)));
    }
}
