//! The register: where checkpoints lie, whatever directory was chosen for them.
//!
//! Each checkpoint is entered when it is made. The register says only where to look: what is there
//! counts. An entry whose directory is gone goes with the next change, unless the file system on
//! which it lay is not mounted: then the checkpoint is known, and said to be not mounted.
//!
//! One line of JSON for each, because a thousand of them are read for each `lxc-cr list`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::resources::mounts::{self, Mount};
use crate::store::record::Record;
use crate::sys::files;

/// Where it is kept.
const STATE: &str = "/var/lib/lxc-cr";
/// Its file there.
const FILE: &str = "checkpoints";
/// The file that is locked while it changes.
const LOCK: &str = "checkpoints.lock";
/// No register is longer, in bytes.
const MAX_SIZE: u64 = 64 << 20;
/// How long another command's change is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// A checkpoint that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its directory.
    pub directory: PathBuf,
    /// The name of its container.
    pub container: String,
    /// The directory that holds the container's directory.
    pub lxcpath: PathBuf,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The bytes of its images.
    pub size: u64,
    /// The mount point of its file system; none for that of `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<PathBuf>,
}

/// The register of this host.
#[derive(Debug)]
pub(crate) struct Register {
    dir: PathBuf,
}

impl Register {
    /// The host's.
    pub(crate) fn of_host() -> Register {
        Register { dir: STATE.into() }
    }

    /// One in another directory.
    #[cfg(test)]
    pub(crate) fn at(dir: &Path) -> Register {
        Register { dir: dir.to_owned() }
    }

    /// All that was entered, in the order of the directories. A line that cannot be read is
    /// skipped.
    pub(crate) fn read(&self) -> Result<Vec<Known>> {
        let path = self.dir.join(FILE);
        let mut text = String::new();
        match files::open_file(&path) {
            Ok(file) => file.take(MAX_SIZE).read_to_string(&mut text),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => Err(e),
        }
        .with_context(|| format!("read {}", path.display()))?;
        let known = |line| {
            serde_json::from_str(line).map_err(|e| log::warn!("{}: {e}", path.display())).ok()
        };
        Ok(text.lines().filter_map(known).collect())
    }

    /// Enters a checkpoint in the place of what was known of its directory.
    pub(crate) fn enter(&self, dir: &Path, record: &Record) -> Result<()> {
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let table = mounts::table(std::process::id().cast_signed())?;
        let entry = Known {
            container: record.container.name.clone(),
            lxcpath: record.container.lxcpath.clone(),
            created: record.created,
            label: record.label.clone(),
            size: record.size(),
            mount: mount_point(&table, &dir),
            directory: dir,
        };
        self.change(&table, |all| {
            all.retain(|known| known.directory != entry.directory);
            all.push(entry);
        })
    }

    /// Forgets checkpoints that were removed.
    pub(crate) fn forget(&self, dirs: &BTreeSet<PathBuf>) -> Result<()> {
        if !self.dir.join(FILE).exists() || dirs.is_empty() {
            return Ok(());
        }
        let table = mounts::table(std::process::id().cast_signed())?;
        self.change(&table, |all| all.retain(|known| !dirs.contains(&known.directory)))
    }

    fn change(&self, table: &[Mount], change: impl FnOnce(&mut Vec<Known>)) -> Result<()> {
        files::make_private_dir(&self.dir)?;
        let _lock = self.lock()?;
        let mut all = self.read()?;
        change(&mut all);
        all.retain(|known| !is_gone(known, table));
        all.sort_by(|a, b| a.directory.cmp(&b.directory));
        let mut text = String::new();
        for known in &all {
            text.push_str(&serde_json::to_string(known).context("serialize the register")?);
            text.push('\n');
        }
        files::write_atomically(&self.dir.join(FILE), text.as_bytes())
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join(LOCK);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let lock = options.open(&path).with_context(|| format!("open {}", path.display()))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(TRY_AGAIN)
                }
                Err(fs::TryLockError::WouldBlock) => {
                    bail!("another command holds {}", path.display())
                }
                Err(fs::TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
    }
}

impl Known {
    /// Whether the file system on which it lies is mounted.
    pub(crate) fn is_mounted(&self, table: &[Mount]) -> bool {
        self.mount.as_ref().is_none_or(|point| table.iter().any(|mount| mount.point == *point))
    }
}

/// Whether there is nothing any more, and nothing that a mount would bring back. A file system that
/// is mounted is asked only where it is one of the host's own: the server of another one may never
/// answer.
fn is_gone(known: &Known, table: &[Mount]) -> bool {
    let asks_a_server = mount_of(table, &known.directory).is_some_and(is_remote);
    known.is_mounted(table)
        && !asks_a_server
        && matches!(known.directory.symlink_metadata(), Err(e) if e.kind() == ErrorKind::NotFound)
}

/// Whether a server answers for a file system.
pub(crate) fn is_remote(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    kind.starts_with("fuse")
        || kind.starts_with("nfs")
        || matches!(kind, "cifs" | "smb3" | "9p" | "ceph" | "afs")
}

/// The mount that a path without links leads to.
pub(crate) fn mount_of<'a>(table: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts::seen_at(table, path)
}

/// The mount point of a path; none for that of `/`.
fn mount_point(table: &[Mount], path: &Path) -> Option<PathBuf> {
    mount_of(table, path).map(|mount| mount.point.clone()).filter(|point| point != Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::tests::sample;

    #[test]
    fn what_is_gone_goes_and_what_is_not_mounted_stays() {
        let top = tempfile::tempdir().unwrap();
        let register = Register::at(&top.path().join("state"));
        assert_eq!(register.read().unwrap(), []);
        let dir = |name: &str| top.path().join(name);
        for name in ["a", "b", "c"] {
            fs::create_dir(dir(name)).unwrap();
            register
                .enter(&dir(name), &Record { label: Some(name.to_owned()), ..sample() })
                .unwrap();
        }
        let all = register.read().unwrap();
        assert_eq!(
            all.iter().map(|known| known.label.as_deref().unwrap()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!((all[0].container.as_str(), all[0].created), ("t", 1_790_000_000));

        // One whose file system is not mounted, as if it had been at that mount point.
        let away = Known {
            directory: "/mnt/nowhere/x".into(),
            mount: Some("/mnt/nowhere".into()),
            ..all[0].clone()
        };
        let text = serde_json::to_string(&away).unwrap() + "\nnonsense\n";
        let path = dir("state").join(FILE);
        fs::write(&path, fs::read_to_string(&path).unwrap() + &text).unwrap();
        fs::remove_dir(dir("b")).unwrap();
        register.forget(&BTreeSet::from([dir("a").canonicalize().unwrap()])).unwrap();
        let left = register.read().unwrap();
        let left: Vec<&Path> = left.iter().map(|known| known.directory.as_path()).collect();
        assert_eq!(left, [Path::new("/mnt/nowhere/x"), &dir("c").canonicalize().unwrap()]);
        assert!(!away.is_mounted(&mounts::table(std::process::id().cast_signed()).unwrap()));
    }

    #[test]
    fn a_checkpoint_that_is_made_again_is_entered_once() {
        let top = tempfile::tempdir().unwrap();
        let register = Register::at(&top.path().join("state"));
        for created in [1, 2] {
            register.enter(top.path(), &Record { created, ..sample() }).unwrap();
        }
        assert_eq!(
            register.read().unwrap().iter().map(|known| known.created).collect::<Vec<_>>(),
            [2]
        );
    }
}
