//! One operation at a time on a container, and the private directory that it works in; and one
//! restart at a time from a checkpoint, which may be another container's.
//!
//! `/run/lxc-cr/NAME-HASH/` belongs to one container (the hash tells equal names in different LXC
//! paths apart). It holds the lock, the journals of changes to the host, and the socket to CRIU's
//! action script.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::{self, Exit, Failure};
use crate::report::shown;
use crate::rollback::holder::{Command, Holder};
use crate::rollback::{criu_cgroup, filling};
use crate::sys::{files, process};

/// Where the state of all containers is kept; gone after a reboot, like the changes that it speaks
/// of.
pub const STATE_ROOT: &str = "/run/lxc-cr";
/// Names are cut to this, so that the socket's path stays below the kernel's 108 bytes.
const MAX_NAME: usize = 40;
/// The file that says whose state it is.
const CONTAINER: &str = "container";
/// The way out for who comes too early.
const WAIT: &str = "wait until it is done, then try again";
/// The file that is locked.
const LOCK: &str = "lock";
/// No file of these is longer, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// How long one who only looks at a lock may be in the way of who takes it.
const LOOKER_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks at a lock whose end nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Why an operation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another operation holds the container.
    #[error("{0} holds this container")]
    Busy(Holder),
    /// The lock could not be looked at.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Other(e) => Failure::new(Exit::Other, e),
            Error::Busy(_) => Failure::new(Exit::Busy, error).hint(WAIT),
        }
    }
}

/// The container that a state directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    /// Its name.
    pub name: String,
    /// The directory that holds its directory.
    pub lxcpath: PathBuf,
}

/// The right to change a container. It ends when the value is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Operation {
    dir: PathBuf,
    /// Held until we end.
    _lock: File,
}

impl Operation {
    /// Takes the lock of a container. `command` is named to those who find it taken.
    ///
    /// Nobody but a command holds it, and no longer than it lives. What the CRIU of a dead one has
    /// left is cleared.
    pub(crate) fn begin(lxcpath: &Path, name: &str, command: Command) -> Result<Operation, Error> {
        Operation::begin_at(Path::new(STATE_ROOT), lxcpath, name, command)
    }

    /// As [`Operation::begin`], with the state kept elsewhere.
    pub(crate) fn begin_at(
        root: &Path,
        lxcpath: &Path,
        name: &str,
        command: Command,
    ) -> Result<Operation, Error> {
        let dir = make_state_dir_at(root, lxcpath, name)?;
        let operation = Operation::begin_in(&dir, command)?;
        if !dir.join(CONTAINER).exists() {
            let whose = Container { name: name.to_owned(), lxcpath: lxcpath.to_owned() };
            let text = toml::to_string(&whose).context("put the container's name into words")?;
            files::write_atomically(&dir.join(CONTAINER), text.as_bytes())?;
        }
        Ok(operation)
    }

    /// Takes the lock in a state directory, which is there.
    pub(crate) fn begin_in(dir: &Path, command: Command) -> Result<Operation, Error> {
        let path = dir.join(LOCK);
        let mut lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        take(&mut lock, Instant::now() + LOOKER_LIMIT)?;
        let say = |lock: &mut File| -> io::Result<()> {
            let us = process::start_time(std::process::id().cast_signed())?;
            lock.set_len(0)?;
            lock.seek(SeekFrom::Start(0))?;
            lock.write_all(Holder::content(command, std::process::id(), us).as_bytes())
        };
        say(&mut lock).with_context(|| format!("write {}", path.display()))?;
        criu_cgroup::clear(dir)?;
        filling::clear(dir)?;
        Ok(Operation { dir: dir.to_owned(), _lock: lock })
    }

    /// Who holds a container now; `None` when no command does.
    pub(crate) fn holder(lxcpath: &Path, name: &str) -> Result<Option<Holder>> {
        let path = Path::new(STATE_ROOT).join(key(lxcpath, name)).join(LOCK);
        let mut lock = match files::open_file(&path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut lock)?)),
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("inspect the lock {}", path.display()))
            }
        }
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The journal of changes to the host.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// What the monitor of a restored container holds of the host: the journal of its restore.
    pub(crate) fn held(&self) -> PathBuf {
        self.dir.join("held")
    }

    /// The socket to CRIU's action script.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// Where CRIU writes init's pid.
    pub(crate) fn pidfile(&self) -> PathBuf {
        self.dir.join("pid")
    }
}

/// Holds the directory of a checkpoint: a restart writes its log there, and may lend the images to
/// the container's root; and what it reads must not go meanwhile. Another's end is waited for as
/// long as this.
///
/// # Errors
/// Exit 10 when it does not come.
pub(crate) fn hold_images(dir: &Path, patience: Duration) -> error::Result<File> {
    let failed = |e: io::Error| {
        Failure::new(Exit::Other, anyhow::Error::new(e).context(format!("hold {}", dir.display())))
    };
    let end = Instant::now() + patience;
    loop {
        // Opened anew each time: another one may have the name by now.
        let held = File::open(dir).map_err(failed)?;
        match held.try_lock() {
            Ok(()) => return Ok(held),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            // That may take long, and says when it is done.
            Err(TryLockError::WouldBlock) if filling_from(dir)?.is_some() => {
                return Err(at_work(dir)?);
            }
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOOK_AGAIN),
            Err(TryLockError::WouldBlock) => return Err(at_work(dir)?),
        }
    }
}

/// As [`hold_images`], of a directory that is open already. Another's end is not waited for.
pub(crate) fn hold_open_images(dir: File, path: &Path) -> error::Result<File> {
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => Err(at_work(path)?),
        Err(TryLockError::Error(e)) => Err(Failure::new(
            Exit::Other,
            anyhow::Error::new(e).context(format!("hold {}", path.display())),
        )),
    }
}

/// Who holds a checkpoint's directory.
fn at_work(dir: &Path) -> Result<Failure> {
    Ok(match filling_from(dir)? {
        Some((name, percent)) => {
            let text = format!(
                "the memory of {} is still being filled from {} ({percent} %)",
                shown(&name),
                dir.display()
            );
            Failure::msg(Exit::Busy, text).hint(WAIT)
        }
        None => {
            Failure::msg(Exit::Busy, format!("another command is at work in {}", dir.display()))
                .hint(WAIT)
        }
    })
}

/// The container whose memory is being filled from this checkpoint, and how much of it is in, in
/// percent.
///
/// # Errors
/// When the containers' state cannot be read.
pub(crate) fn filling_from(images: &Path) -> Result<Option<(String, u8)>> {
    let Ok(images) = images.canonicalize() else { return Ok(None) };
    for (dir, container) in all()? {
        if let Some(progress) = filling::progress(&dir)?
            && progress.images.canonicalize().is_ok_and(|from| from == images)
        {
            let name =
                container.map_or_else(|| "a container".to_owned(), |container| container.name);
            return Ok(Some((name, progress.percent)));
        }
    }
    Ok(None)
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

/// The directory of a container's state, made if it is not there; refused if another user could
/// have changed it.
pub(crate) fn make_state_dir(lxcpath: &Path, name: &str) -> Result<PathBuf> {
    make_state_dir_at(Path::new(STATE_ROOT), lxcpath, name)
}

fn make_state_dir_at(root: &Path, lxcpath: &Path, name: &str) -> Result<PathBuf> {
    files::make_private_dir(root)?;
    let dir = root.join(key(lxcpath, name));
    files::make_private_dir(&dir)?;
    Ok(dir)
}

/// Where CRIU's version is remembered: asking the program costs more than all the rest of our own
/// work.
pub(crate) fn criu_version_cache() -> PathBuf {
    Path::new(STATE_ROOT).join("criu-version")
}

/// Where LXC's version is remembered.
pub(crate) fn lxc_version_cache() -> PathBuf {
    Path::new(STATE_ROOT).join("lxc-version")
}

/// The state directories that there are, each with the container that it belongs to if it says so.
pub(crate) fn all() -> Result<Vec<(PathBuf, Option<Container>)>> {
    all_at(Path::new(STATE_ROOT))
}

fn all_at(root: &Path) -> Result<Vec<(PathBuf, Option<Container>)>> {
    match fs::symlink_metadata(root) {
        Ok(_) => drop(files::open_private_dir(root)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("stat {}", root.display())),
    }
    let mut found = Vec::new();
    for name in files::names(root)? {
        let dir = root.join(name);
        if fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir()) {
            drop(files::open_private_dir(&dir)?);
            let mut text = String::new();
            let read = files::open_file(&dir.join(CONTAINER))
                .and_then(|f| f.take(MAX_FILE).read_to_string(&mut text));
            found.push((dir, read.ok().and_then(|_| toml::from_str(&text).ok())));
        }
    }
    Ok(found)
}

fn take(lock: &mut File, limit: Instant) -> Result<(), Error> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(Error::Other(e.into())),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = read_holder(lock)?;
        if !holder.has_ended() || Instant::now() >= limit {
            return Err(Error::Busy(holder));
        }
        // Somebody who only looks: the kernel tells nobody when it lets go.
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn read_holder(lock: &mut File) -> Result<Holder> {
    let mut text = String::new();
    lock.seek(SeekFrom::Start(0)).context("read who holds the lock")?;
    lock.take(MAX_FILE).read_to_string(&mut text).context("read who holds the lock")?;
    Ok(Holder::parse(&text))
}

/// The journal of a container, for those who find it after a crash.
pub(crate) fn journal_of(lxcpath: &Path, name: &str) -> PathBuf {
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
        let first = Operation::begin_at(&root, lxcpath, "t", Command::Checkpoint).unwrap();
        match Operation::begin_at(&root, lxcpath, "t", Command::Restore) {
            Err(Error::Busy(who)) => assert!(who.command == Some(Command::Checkpoint), "{who}"),
            other => panic!("{other:?}"),
        }
        // Another container is another matter.
        Operation::begin_at(&root, lxcpath, "u", Command::Restore).unwrap();
        Operation::begin_at(&root, Path::new("/srv/lxc"), "t", Command::Restore).unwrap();
        drop(first);
        Operation::begin_at(&root, lxcpath, "t", Command::Restore).unwrap();
    }

    #[test]
    fn one_who_only_looks_is_waited_for() {
        let top = tempfile::tempdir().unwrap();
        drop(Operation::begin_in(top.path(), Command::Checkpoint).unwrap());
        fs::write(top.path().join("lock"), "lxc-checkpoint (pid 1)\n7\n").unwrap();
        let looker = File::open(top.path().join("lock")).unwrap();
        looker.lock_shared().unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(looker);
        });
        Operation::begin_in(top.path(), Command::Restore).unwrap();
        looking.join().unwrap();
    }

    #[test]
    fn a_checkpoint_is_held_by_one_and_the_name_is_looked_up_again() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("dump");
        fs::create_dir(&dir).unwrap();
        let held = hold_images(&dir, Duration::ZERO).unwrap();
        assert_eq!(hold_images(&dir, Duration::ZERO).unwrap_err().exit, Exit::Busy);
        // What has the name then is another one, which nobody holds.
        fs::rename(&dir, top.path().join("away")).unwrap();
        fs::create_dir(&dir).unwrap();
        hold_images(&dir, Duration::ZERO).unwrap();
        drop(held);
    }

    #[test]
    fn a_state_directory_says_whose_it_is() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("state");
        assert_eq!(all_at(&root).unwrap(), []);
        let held =
            Operation::begin_at(&root, Path::new("/srv/lxc"), "web", Command::Restore).unwrap();
        files::make_private_dir(&root.join("old")).unwrap();
        fs::write(root.join("criu-version"), "").unwrap();
        let whose = Container { name: "web".into(), lxcpath: "/srv/lxc".into() };
        assert_eq!(
            all_at(&root).unwrap(),
            [(root.join("old"), None), (held.dir.clone(), Some(whose))]
        );
    }

    #[test]
    fn the_sockets_path_stays_short() {
        let dir = Path::new(STATE_ROOT)
            .join(key(Path::new("/var/lib/lxc"), &"n".repeat(200)))
            .join("control");
        assert!(dir.as_os_str().len() < 100);
    }
}
