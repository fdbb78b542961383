//! One operation at a time on a container, and the private directory that it works in.
//!
//! `/run/lxc-cr/NAME-HASH/` belongs to one container (the hash tells equal names in different LXC paths apart). It
//! holds the lock, the journals of changes to the host, and the socket to CRIU's action script.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sys::files;

/// Where the state of all containers is kept; gone after a reboot, like the changes that it speaks of.
pub const STATE_ROOT: &str = "/run/lxc-cr";
/// Names are cut to this, so that the socket's path stays below the kernel's 108 bytes.
const MAX_NAME: usize = 40;

/// Why an operation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another operation holds the container; what it says of itself.
    #[error("{0} holds this container")]
    Busy(String),
    /// The lock could not be looked at.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The right to change a container. It ends when the value is dropped, or with the process.
#[derive(Debug)]
pub struct Operation {
    dir: PathBuf,
    _lock: File,
}

impl Operation {
    /// Takes the lock of a container. `what` is told to those who find it taken: "lxc-checkpoint".
    pub fn begin(lxcpath: &Path, name: &str, what: &str) -> Result<Operation, Error> {
        Operation::begin_at(Path::new(STATE_ROOT), lxcpath, name, what)
    }

    /// As [`Operation::begin`], with the state kept elsewhere.
    pub fn begin_at(root: &Path, lxcpath: &Path, name: &str, what: &str) -> Result<Operation, Error> {
        let dir = make_state_dir_at(root, lxcpath, name)?;
        let path = dir.join("lock");
        let mut lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).context("read who holds the lock")?;
                let holder = holder.trim();
                return Err(Error::Busy(if holder.is_empty() {
                    "another operation".to_owned()
                } else {
                    holder.to_owned()
                }));
            }
            Err(TryLockError::Error(e)) => return Err(Error::Other(e.into())),
        }
        let say = |lock: &mut File| -> std::io::Result<()> {
            lock.set_len(0)?;
            lock.seek(SeekFrom::Start(0))?;
            writeln!(lock, "{what} (pid {})", std::process::id())
        };
        say(&mut lock).with_context(|| format!("write {}", path.display()))?;
        Ok(Operation { dir, _lock: lock })
    }

    /// Who holds a container now, in words; `None` when nobody does.
    pub fn holder(lxcpath: &Path, name: &str) -> Result<Option<String>> {
        let path = Path::new(STATE_ROOT).join(key(lxcpath, name)).join("lock");
        let mut lock = match files::open_file(&path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).context("read who holds the lock")?;
                Ok(Some(holder.trim().to_owned()))
            }
            Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("look at the lock {}", path.display())),
        }
    }

    /// The journal of changes to the host.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// What the monitor of a restored container holds of the host: the journal of its restore.
    pub fn held(&self) -> PathBuf {
        self.dir.join("held")
    }

    /// The socket to CRIU's action script.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// An image that CRIU is shown in place of the checkpoint's own of this name.
    pub fn image(&self, name: &str) -> PathBuf {
        self.dir.join(format!("shown-{name}"))
    }

    /// Where CRIU writes init's pid.
    pub fn pidfile(&self) -> PathBuf {
        self.dir.join("pid")
    }
}

/// The directory's name for a container.
pub fn key(lxcpath: &Path, name: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in lxcpath.join(name).as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let short: String = name.chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME).collect();
    format!("{short}-{hash:016x}")
}

/// The directory of a container's state, made if it is not there; refused if another user could have changed it.
pub fn make_state_dir(lxcpath: &Path, name: &str) -> Result<PathBuf> {
    make_state_dir_at(Path::new(STATE_ROOT), lxcpath, name)
}

fn make_state_dir_at(root: &Path, lxcpath: &Path, name: &str) -> Result<PathBuf> {
    files::make_private_dir(root)?;
    let dir = root.join(key(lxcpath, name));
    files::make_private_dir(&dir)?;
    Ok(dir)
}

/// Where CRIU's version is remembered: asking the program costs more than all the rest of our own work.
pub fn criu_version_cache() -> PathBuf {
    Path::new(STATE_ROOT).join("criu-version")
}

/// Where LXC's version is remembered.
pub fn lxc_version_cache() -> PathBuf {
    Path::new(STATE_ROOT).join("lxc-version")
}

/// The journal of a container, for those who find it after a crash.
pub fn journal_of(lxcpath: &Path, name: &str) -> PathBuf {
    Path::new(STATE_ROOT).join(key(lxcpath, name)).join("journal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_a_container_and_the_other_learns_who() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("state");
        let lxcpath = Path::new("/var/lib/lxc");
        let first = Operation::begin_at(&root, lxcpath, "t", "lxc-checkpoint").unwrap();
        match Operation::begin_at(&root, lxcpath, "t", "lxc-restart") {
            Err(Error::Busy(who)) => assert!(who.starts_with("lxc-checkpoint (pid "), "{who}"),
            other => panic!("{other:?}"),
        }
        // Another container is another matter.
        Operation::begin_at(&root, lxcpath, "u", "lxc-restart").unwrap();
        Operation::begin_at(&root, Path::new("/srv/lxc"), "t", "lxc-restart").unwrap();
        drop(first);
        Operation::begin_at(&root, lxcpath, "t", "lxc-restart").unwrap();
    }

    #[test]
    fn the_sockets_path_stays_short() {
        let dir = Path::new(STATE_ROOT).join(key(Path::new("/var/lib/lxc"), &"n".repeat(200))).join("control");
        assert!(dir.as_os_str().len() < 100);
    }
}
