//! What CRIU does not bring back as it was, and we can.
//!
//! It is read when all tasks are dumped and stand still, kept in the record as [`States`], and set while the restored
//! tasks still stand still, so that none of them ever sees the difference.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;

pub mod core_filters;
pub mod personality;
pub mod timers;

use timers::TimerFd;

/// States of the tasks of a container that CRIU does not bring back as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    /// Timers in descriptors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerFd>,
}

impl States {
    /// Those of the tasks in a cgroup and below it, which stand still.
    pub fn of_tasks(payload: &Path) -> Result<States> {
        Ok(States { timers: timers::of_tasks(payload).context("read its timers")? })
    }

    /// Gives them to the restored tasks. None where the checkpoint has no record of them.
    pub fn restore(states: Option<&States>, payload: &Path) -> Result<()> {
        let mut errors = ErrorList::default();
        errors.note(timers::set(payload, states.map(|s| s.timers.as_slice())));
        errors.into_result()
    }
}
