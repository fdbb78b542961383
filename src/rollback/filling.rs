//! The mark of a container whose memory is still being filled: `filling` in its state directory.
//!
//! It is locked for as long as that lasts, and so is void when the monitor has died.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::error::{Exit, Failure};
use crate::sys::files;

const NAME: &str = "filling";
/// The socket to CRIU, beside it. CRIU knows it by this name (criu/uffd.c).
pub(crate) const SOCKET: &str = "lazy-pages.socket";
/// More than any path and a number, in bytes.
const LONGEST: u64 = 8192;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The checkpoint that the memory comes from.
    pub images: PathBuf,
    /// How much of it is in.
    pub percent: u8,
}

/// The mark, while it lasts.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Marks the container of a state directory.
    ///
    /// # Errors
    /// When the mark cannot be written, or another process holds it.
    pub(crate) fn set(state: &Path, images: &Path) -> Result<Mark> {
        let path = state.join(NAME);
        let what = || format!("write {}", path.display());
        let mut how = fs::OpenOptions::new();
        how.write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = how.open(&path).with_context(what)?;
        file.try_lock().with_context(what)?;
        file.set_len(0).with_context(what)?;
        let mark = Mark { file, path: path.clone() };
        mark.tell(0).with_context(what)?;
        mark.file.write_all_at(images.as_os_str().as_bytes(), 4).with_context(what)?;
        Ok(mark)
    }

    /// Says how much is in.
    pub(crate) fn tell(&self, percent: u8) -> io::Result<()> {
        self.file.write_all_at(format!("{percent:3}\n").as_bytes(), 0)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            log::debug!("remove {}: {e}", self.path.display());
        }
    }
}

/// How far a container is whose memory is being filled; none for any other.
///
/// # Errors
/// When the mark cannot be read.
pub(crate) fn progress(state: &Path) -> Result<Option<Progress>> {
    let path = state.join(NAME);
    let what = || format!("read {}", path.display());
    let mut file = match files::open_file(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(what),
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e).with_context(what),
    }
    let mut bytes = Vec::new();
    file.by_ref().take(LONGEST).read_to_end(&mut bytes).with_context(what)?;
    let (percent, images) = bytes.split_at_checked(4).unwrap_or((b"0", b""));
    let percent =
        std::str::from_utf8(percent).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Some(Progress { images: PathBuf::from(std::ffi::OsStr::from_bytes(images)), percent }))
}

/// Removes what a monitor that has died left.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn clear(state: &Path) -> Result<()> {
    if progress(state)?.is_some() {
        return Ok(());
    }
    [NAME, SOCKET].iter().try_for_each(|name| files::remove_if_there(&state.join(name)))
}

/// Refuses what needs all of a container's memory.
///
/// # Errors
/// Exit 10 while it is being filled.
pub(crate) fn refuse(state: &Path) -> crate::error::Result<()> {
    match progress(state)? {
        None => Ok(()),
        Some(progress) => Err(Failure::msg(Exit::Busy, progress.to_string())
            .hint("wait until all of it is in, then try again; lxc-cr list shows how far it is")),
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "its memory is still being filled from {} ({} %)",
            self.images.display(),
            self.percent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_as_long_as_it_is_held() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(progress(state.path()).unwrap(), None);
        let mark = Mark::set(state.path(), Path::new("/srv/images")).unwrap();
        mark.tell(40).unwrap();
        let expected = Progress { images: "/srv/images".into(), percent: 40 };
        assert_eq!(progress(state.path()).unwrap(), Some(expected));
        assert_eq!(refuse(state.path()).unwrap_err().exit, Exit::Busy);
        mark.tell(100).unwrap();
        assert_eq!(progress(state.path()).unwrap().unwrap().percent, 100);
        drop(mark);
        refuse(state.path()).unwrap();
        // Of a monitor that has died.
        fs::write(state.path().join(NAME), " 40\n/srv/images").unwrap();
        refuse(state.path()).unwrap();
        clear(state.path()).unwrap();
        assert!(!state.path().join(NAME).exists());
    }
}
