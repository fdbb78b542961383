//! A hook of a container's that waits when it is armed, until it is let through.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::{Run, wait_for};

/// For a command to get to the hook.
const LIMIT: Duration = Duration::from_secs(30);

/// The hook.
#[derive(Debug)]
pub struct Gate {
    script: PathBuf,
    fifo: PathBuf,
    armed: PathBuf,
}

/// Somebody waits in it.
#[derive(Debug)]
pub struct Waiting<'g> {
    gate: &'g Gate,
    held: File,
}

impl Gate {
    /// Makes it in a directory, not armed.
    pub fn make(dir: &Path) -> Gate {
        let gate =
            Gate { script: dir.join("wait.sh"), fifo: dir.join("fifo"), armed: dir.join("armed") };
        Run::new("mkfifo").arg(&gate.fifo).ok();
        let wait = format!(
            "#!/bin/sh\n[ ! -e {} ] || read line < {}\n",
            gate.armed.display(),
            gate.fifo.display()
        );
        fs::write(&gate.script, wait).unwrap();
        fs::set_permissions(&gate.script, fs::Permissions::from_mode(0o755)).unwrap();
        gate
    }

    /// What a container's configuration calls.
    pub fn script(&self) -> &Path {
        &self.script
    }

    /// From now on it makes wait.
    pub fn arm(&self) -> &Gate {
        fs::write(&self.armed, "").unwrap();
        self
    }

    /// Waits for somebody to come.
    pub fn wait(&self) -> Waiting<'_> {
        // A fifo can only be opened like this where somebody reads.
        let open = || {
            File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.fifo).ok()
        };
        Waiting { gate: self, held: wait_for("somebody in the gate", LIMIT, open).unwrap() }
    }
}

impl Waiting<'_> {
    /// Lets whoever waits go on, and all others after it.
    pub fn let_through(self) {
        fs::remove_file(&self.gate.armed).unwrap();
        drop(self.held);
    }
}
