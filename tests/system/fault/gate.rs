//! A user's action script that stops at one of CRIU's actions.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::harness::run::{Run, ends_within, wait_for};

/// For a command to get to an action.
const LIMIT: Duration = Duration::from_secs(20);

/// The script, and how it is spoken to.
#[derive(Debug)]
pub struct Gate {
    /// What `-A` names.
    pub script: PathBuf,
    told: PathBuf,
    fifo: PathBuf,
}

/// A CRIU that stands still in the script.
#[derive(Debug)]
pub struct Stopped {
    /// CRIU's pid.
    pub criu: u32,
    /// The pid of the container's init; none if there is none yet.
    pub init: Option<u32>,
    gate: File,
}

impl Gate {
    /// Makes a script in an empty directory.
    pub fn at(dir: &Path, action: &str) -> Gate {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).unwrap();
        let (script, told, fifo) = (dir.join("script"), dir.join("told"), dir.join("gate"));
        Run::new("mkfifo").arg(&fifo).ok();
        // Once only: a restart that is tried again must not stop.
        let text = format!(
            "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = {action} ] && [ ! -e {told} ] || exit 0\n\
             echo \"$PPID ${{CRTOOLS_INIT_PID:-0}}\" > {told}\nread end < {fifo}\nexit $end\n",
            told = told.display(),
            fifo = fifo.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Gate { script, told, fifo }
    }

    /// Waits until the script stands still; none if the command ends before.
    pub fn wait(&self, command: &Child) -> Option<Stopped> {
        // Without a reader a FIFO that is opened like this is an error.
        let open = || {
            File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.fifo).ok()
        };
        let gate = wait_for("the action", LIMIT, || {
            open().map(Some).or_else(|| ends_within(command, Duration::ZERO).then_some(None))
        })
        .unwrap_or_else(|e| panic!("{e}"))?;
        let told = fs::read_to_string(&self.told).unwrap();
        let numbers: Vec<u32> = told.split_whitespace().map(|n| n.parse().unwrap()).collect();
        Some(Stopped { criu: numbers[0], init: Some(numbers[1]).filter(|pid| *pid > 0), gate })
    }
}

impl Stopped {
    /// Lets the script end with this status.
    pub fn release(mut self, status: i32) {
        // Nobody reads any more if the script was ended, too.
        let _ = self.gate.write_all(format!("{status}\n").as_bytes());
    }
}
