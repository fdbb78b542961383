//! A user's action script that does not end.
//!
//! CRIU waits for each script, and hears only at its next action that it is to give up. Until then
//! the container would stand still for as long as the script likes. One that is killed counts as
//! failed, and CRIU puts everything back.

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use super::action_env::{ACTION, Action};
use crate::sys::process::{self, Process};

/// How long a script may go on after CRIU was asked to give up.
const GRACE: Duration = Duration::from_secs(1);
/// Our own script, which waits for nobody but us.
pub(crate) const OURS: &str = "lxc-cr-action";
/// What a script has done to the network it may take back here, however long that takes.
pub(crate) const SPARED: Action = Action::NetworkUnlock;

/// The script that CRIU waits for.
#[derive(Debug, Default)]
pub(super) struct Script(Option<(i32, Instant)>);

impl Script {
    /// CRIU is to give up: ends the script that it waits for, with all that this has started, if
    /// that does not end itself.
    pub(super) fn look(&mut self, criu: i32) {
        let running =
            process::children(criu).unwrap_or_default().into_iter().find(|pid| may_be_ended(*pid));
        self.0 = match (running, self.0) {
            (Some(pid), Some((known, since))) if pid == known => {
                if since.elapsed() >= GRACE {
                    end(pid);
                }
                Some((known, since))
            }
            (running, _) => running.map(|pid| (pid, Instant::now())),
        };
    }
}

/// Whether CRIU waits for a user's script, which may take its time.
pub(crate) fn is_waited_for(criu: i32) -> bool {
    let children = process::children(criu).unwrap_or_default();
    children.into_iter().any(|pid| action_of(pid).is_some() && !is_ours(pid))
}

/// Whether a child of CRIU's is a user's script. It is not before it has its own program: until
/// then it is CRIU's own image.
fn may_be_ended(pid: i32) -> bool {
    action_of(pid).is_some_and(|action| action != SPARED.name().as_bytes()) && !is_ours(pid)
}

/// The action for which CRIU has started a script.
fn action_of(pid: i32) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let value = |variable: &[u8]| {
        variable.strip_prefix(ACTION.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
    };
    environment.split(|byte| *byte == 0).find_map(value)
}

fn is_ours(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name() == Some(OsStr::new(OURS))
}

fn end(script: i32) {
    let mut found = vec![script];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(process::children(*pid).unwrap_or_default());
        next += 1;
    }
    for pid in found {
        log::info!("the action script does not end: process {pid} is killed");
        if let Err(e) = Process::open(pid).and_then(|process| process.signal(libc::SIGKILL)) {
            log::debug!("end process {pid}: {e}");
        }
    }
}
