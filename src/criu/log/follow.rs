//! Reads a log while CRIU writes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::LONGEST;

/// The most that one call reads; the rest comes with the next.
const STEP: u64 = 1 << 20;

/// Follows a growing log file and hands out its lines as they are completed.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl Follower {
    /// Follows the file from its beginning. It need not exist yet.
    pub(crate) fn new(path: &Path) -> Follower {
        Follower::from_offset(path, 0)
    }

    /// Follows the file from this byte on.
    pub(crate) fn from_offset(path: &Path, offset: u64) -> Follower {
        Follower { path: path.to_owned(), offset, rest: Vec::new() }
    }

    /// How many bytes were read, those of an incomplete last line among them.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How long the log is by now, in bytes; one that is not there has none.
    pub(crate) fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// The lines that were completed since the last call.
    ///
    /// A file that is shorter than what was read is a new one: CRIU empties an old log when it
    /// starts.
    ///
    /// # Errors
    /// When the file cannot be opened (other than because it is not there yet) or read.
    pub(crate) fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.take(STEP).read_to_end(&mut self.rest)? as u64;
        let end = match self.rest.iter().rposition(|b| *b == b'\n') {
            Some(at) => at + 1,
            // A line without an end must not fill the memory.
            None if self.rest.len() > LONGEST => self.rest.len(),
            None => return Ok(Vec::new()),
        };
        let complete: Vec<u8> = self.rest.drain(..end).collect();
        Ok(String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect())
    }
}
