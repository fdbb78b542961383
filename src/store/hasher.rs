//! Take the checksums of memory images while CRIU still writes them.
//!
//! Images of memory are as large as the container. Reading them again when the dump is done would
//! add a second per gigabyte to the time in which the container stands still; a second processor
//! can do it meanwhile, out of the page cache, and end while CRIU ends the tasks. Where the end is
//! a sync, writing out to the disk is begun at the same time, so that little is left for it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::criu::images;
use crate::store::checksums::{Checksum, Image};
use crate::store::page_cache::AsWritten;
use crate::sys::files;

/// How long to wait for more when all that is there has been read.
const INTERVAL: Duration = Duration::from_millis(10);
/// Read in pieces of this size, in bytes.
const PIECE: usize = 1 << 18;
/// Write-out is begun each time this many bytes have come, so that the disk is neither idle nor
/// asked all the time.
const WRITE_OUT_STEP: u64 = 32 << 20;

/// Whether images are to be on the disk in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// They are: writing them out is begun while they grow.
    IsWaitedFor,
    /// When the kernel likes.
    IsNotWaitedFor,
}

/// A thread that follows the memory images of a directory.
#[derive(Debug)]
pub(crate) struct Sealer {
    finish: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Image>>>,
}

/// One image that grows.
struct Followed {
    name: String,
    file: File,
    sum: Checksum,
    /// So many bytes of it are on their way to the disk.
    written_out: u64,
    /// How it was when CRIU had written it.
    as_written: Option<AsWritten>,
}

impl Sealer {
    /// Begins to follow the images in this directory, which may still be empty, and may be renamed
    /// meanwhile.
    pub(crate) fn start(dir: &Path, disk: Disk) -> Result<Sealer> {
        let finish = Arc::new(AtomicBool::new(false));
        let (told, dir) = (Arc::clone(&finish), files::open_dir(dir)?);
        let thread = std::thread::Builder::new()
            .name("seal".to_owned())
            .spawn(move || follow(&dir, disk, &told))
            .context("start a thread")?;
        Ok(Sealer { finish, thread })
    }

    /// The images are complete: waits for the rest to be read, and gives their checksums.
    #[expect(clippy::disallowed_methods, reason = "it reads what is there and ends")]
    pub(crate) fn finish(self) -> Result<Vec<Image>> {
        self.finish.store(true, Ordering::Release);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(images) => images,
            Err(_) => Err(anyhow::anyhow!("the thread that takes checksums has crashed")),
        }
    }
}

fn follow(dir: &File, disk: Disk, finish: &AtomicBool) -> Result<Vec<Image>> {
    // The directory itself, whatever its name is by now.
    let dir = &PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let mut followed: Vec<Followed> = Vec::new();
    let mut buffer = vec![0; PIECE];
    loop {
        // Looked at before the files: what was written before this moment is then surely read.
        let last = finish.load(Ordering::Acquire);
        for name in memory_images(dir)? {
            if !followed.iter().any(|f| f.name == name) {
                let path = dir.join(&name);
                let file =
                    files::open_file(&path).with_context(|| format!("open {}", path.display()))?;
                let sum = Checksum::for_image(&name);
                followed.push(Followed { name, file, sum, written_out: 0, as_written: None });
            }
        }
        if last {
            // Without this a restart compares the checksum: it may be missing.
            followed.iter_mut().for_each(|one| one.as_written = AsWritten::of(&one.file).ok());
        }
        let mut read = 0;
        for one in &mut followed {
            read +=
                one.catch_up(disk, &mut buffer).with_context(|| format!("read {}", one.name))?;
        }
        if last {
            break;
        }
        if read == 0 {
            std::thread::park_timeout(INTERVAL);
        }
    }
    Ok(followed.into_iter().map(|one| one.into_image(dir)).collect())
}

fn memory_images(dir: &Path) -> Result<Vec<String>> {
    let names = files::names(dir)?.into_iter().filter(|name| images::holds_pages(name));
    Ok(names.filter_map(|name| name.into_os_string().into_string().ok()).collect())
}

impl Followed {
    /// Reads what has come; says how many bytes.
    fn catch_up(&mut self, disk: Disk, buffer: &mut [u8]) -> io::Result<u64> {
        let before = self.sum.length();
        let mut asked = before;
        loop {
            if disk == Disk::IsWaitedFor && self.sum.length() >= asked {
                self.begin_writing_out()?;
                asked = self.sum.length() + WRITE_OUT_STEP;
            }
            if self.sum.update(&mut self.file, buffer)? == 0 {
                return Ok(self.sum.length() - before);
            }
        }
    }

    /// Has what was written since sent to the disk: more at a time than is read in between. The
    /// checksum takes longer than CRIU, and in the end it is the disk that is waited for; but a
    /// slow disk is not to keep the checksum back.
    fn begin_writing_out(&mut self) -> io::Result<()> {
        let length =
            self.file.metadata()?.len().saturating_sub(self.written_out).min(2 * WRITE_OUT_STEP);
        if length >= WRITE_OUT_STEP {
            files::begin_writing_out(&self.file, self.written_out, length);
            self.written_out += length;
        }
        Ok(())
    }

    /// All of it was read. If somebody has changed it meanwhile, the checksum may be of neither.
    fn into_image(self, dir: &Path) -> Image {
        let as_written =
            self.as_written.filter(|then| AsWritten::of(&self.file).is_ok_and(|now| now == *then));
        let size = self.sum.length();
        let (sum, blocks) = self.sum.sum_and_blocks();
        // Without them it is restored eagerly.
        if let Some(Err(e)) = blocks.map(|blocks| blocks.write(dir, &self.name)) {
            log::info!("{} has no checksums of its blocks: {e:#}", self.name);
        }
        Image { name: self.name, size, sum: Some(sum), as_written }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_growing_image_gets_the_sum_of_all_that_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::start(dir.path(), Disk::IsWaitedFor).unwrap();
        let mut file = File::create(dir.path().join("pages-1.img")).unwrap();
        for piece in 0..200u8 {
            file.write_all(&[piece; 5000]).unwrap();
        }
        let mut known = sealer.finish().unwrap();
        assert!(known[0].is_as_written(dir.path()).unwrap());
        known[0].as_written = None;
        let again = crate::store::checksums::measure_images(
            dir.path(),
            crate::store::checksums::Memory::WithSums,
        )
        .unwrap();
        assert_eq!(known, again);
        assert_eq!(known[0].size, 1_000_000);
    }
}
