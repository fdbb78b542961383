//! What happened to a checkpoint after it was made: when it was verified, and when it was restored.
//!
//! The record is written once and never changes, for other checkpoints name its checksum. What
//! comes later stands in a file beside it. Nothing depends on that file: where it is missing or
//! cannot be read, nothing is known.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::store::layout::HISTORY;
use crate::sys::files;

/// No file of ours is longer, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// What happened; each time in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// When all images were last read from the disk and had their checksums.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<u64>,
    /// When the container was last restored from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
    /// Whether the host's shutdown has suspended the container: it comes back at boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_shutdown: bool,
    /// When the container was started afresh, while this was its only state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<u64>,
}

impl History {
    /// Reads the history of a checkpoint. Anything that is not one is no history.
    pub(crate) fn read(dir: &Path) -> History {
        let path = dir.join(HISTORY);
        let mut text = String::new();
        match files::open_file(&path).and_then(|file| file.take(MAX_SIZE).read_to_string(&mut text))
        {
            Err(e) if e.kind() == ErrorKind::NotFound => return History::default(),
            Err(e) => {
                log::warn!("read {}: {e}", path.display());
                return History::default();
            }
            Ok(_) => {}
        }
        toml::from_str(&text).unwrap_or_else(|e| {
            log::warn!("{} cannot be used: {}", path.display(), e.message());
            History::default()
        })
    }

    /// Changes the history of a checkpoint. The caller holds the checkpoint's directory.
    ///
    /// # Errors
    /// Where the file cannot be written, as on a file system that is mounted read-only.
    pub(crate) fn change(dir: &Path, change: impl FnOnce(&mut History)) -> Result<()> {
        let mut history = History::read(dir);
        change(&mut history);
        let text = toml::to_string(&history).context("serialize the history")?;
        files::write_atomically(&dir.join(HISTORY), text.as_bytes())
    }
}

/// The time now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(History::read(dir.path()), History::default());
        History::change(dir.path(), |history| history.verified = Some(7)).unwrap();
        History::change(dir.path(), |history| history.restored = Some(8)).unwrap();
        assert_eq!(
            History::read(dir.path()),
            History { verified: Some(7), restored: Some(8), ..History::default() }
        );
    }

    #[test]
    fn an_unreadable_file_is_no_history() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(HISTORY), "verified = 'yes'").unwrap();
        assert_eq!(History::read(dir.path()), History::default());
    }
}
