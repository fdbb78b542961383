//! What the hooks remember between a container's start and its end, in its state directory.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::resources::network::{Port, ports};
use crate::rollback::lock;
use crate::sys::files;
use crate::sys::namespace;
use crate::sys::netlink::Netlink;
use crate::sys::process::{self, Process};

/// The file of a [`Running`].
const RUNNING: &str = "running";
/// No note of ours is longer.
const NOTE_MAX: u64 = 1 << 20;

/// A process that cannot be mistaken for another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Its pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
}

impl Owner {
    /// The process that runs this hook: the container's monitor. (The shell between them has become
    /// us.)
    pub(crate) fn parent() -> Result<Owner> {
        Owner::of(nix::unistd::getppid().as_raw())
    }

    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Result<Owner> {
        let start_time =
            process::start_time(pid).with_context(|| format!("inspect process {pid}"))?;
        Ok(Owner { pid, start_time })
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(self) -> bool {
        Process::reopen(self.pid, self.start_time).is_ok()
    }
}

/// A container that was started by LXC with our `start-host` hook: `post-stop` looks for what is
/// left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its init.
    pub init: Owner,
    /// The monitor that started it.
    pub monitor: Owner,
    /// The host's ends of its veth pairs.
    #[serde(default)]
    pub ports: Vec<Port>,
}

impl Running {
    /// The container of this init, as it is now.
    pub(crate) fn of(init: i32) -> Result<Running> {
        let found = namespace::network_of(init)
            .context("open the container's network namespace")
            .and_then(|netns| {
                let mut netlink = Netlink::open().context("open a netlink socket")?;
                ports::find(&mut netlink, std::os::fd::AsFd::as_fd(&netns))
            });
        let ports = found.unwrap_or_else(|e| {
            log::warn!("the ports are not noted: {e:#}");
            Vec::new()
        });
        Ok(Running { init: Owner::of(init)?, monitor: Owner::parent()?, ports })
    }

    /// Reads the note in a state directory, if there is one.
    pub(crate) fn read(state: &Path) -> Result<Option<Running>> {
        read(state, RUNNING)
    }

    /// Writes it there.
    pub(crate) fn write(&self, state: &Path) -> Result<()> {
        write(state, RUNNING, self)
    }

    /// Removes it from there.
    pub(crate) fn remove(state: &Path) -> Result<()> {
        remove(state, RUNNING)
    }

    /// Whether init has not ended yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.init.is_alive()
    }
}

/// A container's state directory, if there is one; an error if another user could have changed it.
pub(super) fn state_dir(lxcpath: &Path, name: &str) -> Result<Option<PathBuf>> {
    let dir = Path::new(lock::STATE_ROOT).join(lock::key(lxcpath, name));
    match fs::symlink_metadata(&dir) {
        Ok(_) => {
            files::open_private_dir(Path::new(lock::STATE_ROOT))?;
            files::open_private_dir(&dir)?;
            Ok(Some(dir))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("stat {}", dir.display())),
    }
}

pub(super) fn read<T: DeserializeOwned>(state: &Path, file: &str) -> Result<Option<T>> {
    let path = state.join(file);
    let mut text = String::new();
    let read = files::open_file(&path).and_then(|f| f.take(NOTE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
    }
    // Of toml's message only what is wrong, without its picture of the file.
    toml::from_str(&text)
        .map(Some)
        .map_err(|e| anyhow!("{} cannot be used: {}", path.display(), e.message()))
}

pub(super) fn write<T: Serialize>(state: &Path, file: &str, note: &T) -> Result<()> {
    let text = toml::to_string(note).context("put a note into words")?;
    files::write_atomically(&state.join(file), text.as_bytes())
}

pub(super) fn remove(state: &Path, file: &str) -> Result<()> {
    let path = state.join(file);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_again_and_tells_the_living_from_the_dead() {
        let top = tempfile::tempdir().unwrap();
        assert_eq!(Running::read(top.path()).unwrap(), None);
        let us = Owner::of(std::process::id().cast_signed()).unwrap();
        let mut port = Port::unrecorded("eth0");
        port.host = "vethX".into();
        let mut note = Running { init: us, monitor: us, ports: vec![port] };
        note.write(top.path()).unwrap();
        assert_eq!(Running::read(top.path()).unwrap(), Some(note.clone()));
        assert!(note.is_alive());
        note.init.start_time += 1;
        assert!(!note.is_alive());
        Running::remove(top.path()).unwrap();
        Running::remove(top.path()).unwrap();
    }

    #[test]
    fn rubbish_is_named() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join(RUNNING), "init = 3").unwrap();
        let error = Running::read(top.path()).unwrap_err().to_string();
        assert!(error.contains("running cannot be used: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
