//! What CRIU does not bring back as it was, and we can.
//!
//! It is read when all tasks are dumped and stand still, kept in the record as [`States`], and set while the restored
//! tasks still stand still, so that none of them ever sees the difference.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub mod core_filters;
pub mod own_calls;
pub mod personality;
pub mod sockets;
pub mod timers;
pub mod tmpfs;

use own_calls::OwnCalls;
use sockets::Socket;
use timers::TimerFd;

/// States of the tasks of a container that CRIU does not bring back as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    /// Timers in descriptors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerFd>,
    /// Sockets with options that a new one does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<Socket>,
    /// Processes with states that only their own system calls set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_calls: Vec<OwnCalls>,
}

impl States {
    /// Those of the tasks in a cgroup and below it, which stand still; `init` is the first of them, and `own_calls` what was
    /// read of them before.
    pub fn of_tasks(payload: &Path, init: i32, own_calls: &own_calls::Read) -> Result<States> {
        Ok(States {
            own_calls: own_calls::of_tasks(payload, own_calls)?,
            timers: timers::of_tasks(payload).context("read its timers")?,
            sockets: sockets::of_tasks(payload, init).context("read the options of its sockets")?,
        })
    }

    /// Gives the restored tasks what they need before packets reach them. Gives what could not be done, in words.
    ///
    /// # Errors
    /// When they would be less safe than before.
    pub fn restore_early(states: Option<&States>, payload: &Path) -> Result<Vec<String>> {
        sockets::restore(payload, states.map(|s| s.sockets.as_slice()).unwrap_or_default())
    }

    /// Gives the restored tasks the rest before they run. None where the checkpoint has no record of them.
    pub fn restore(states: Option<&States>, payload: &Path) -> Result<()> {
        timers::set(payload, states.map(|s| s.timers.as_slice()))
    }
}
