//! What CRIU does not bring back as it was, and we can.
//!
//! It is read when all tasks are dumped and stand still, kept in the record as [`States`], and set
//! while the restored tasks still stand still, so that none of them ever sees the difference.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) mod alarms;
pub(crate) mod core_filters;
pub(crate) mod keyrings;
pub(crate) mod own_calls;
pub(crate) mod personality;
pub(crate) mod scheduling;
pub(crate) mod sealed;
pub(crate) mod shm;
pub(crate) mod sockets;
pub(crate) mod timers;
pub(crate) mod tmpfs;

use alarms::Alarm;
use own_calls::OwnCalls;
use scheduling::Scheduling;
use shm::Segment;
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
    /// Timers of timer_create(2) that are due at a time of day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// Threads that are scheduled otherwise than a new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduling: Vec<Scheduling>,
    /// Segments of shared memory that are not as they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

/// What is known of a container that is being dumped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dumped<'a> {
    /// The cgroup of its tasks.
    pub payload: &'a Path,
    /// The first of them.
    pub init: i32,
    /// What they were asked for before.
    pub own_calls: &'a own_calls::Read,
    /// The images, which are complete.
    pub images: &'a Path,
    /// The time of day when the dump began, since 1970.
    pub since: Duration,
}

impl States {
    /// Those of the tasks of a container, which stand still.
    pub(crate) fn of_tasks(dumped: &Dumped<'_>) -> Result<States> {
        let Dumped { payload, init, own_calls, images, since } = *dumped;
        Ok(States {
            own_calls: own_calls::of_tasks(payload, own_calls)?,
            alarms: alarms::of_tasks(images, since)?,
            scheduling: scheduling::of_tasks(payload)?,
            segments: shm::read(init)?,
            timers: timers::of_tasks(payload).context("read its timers")?,
            sockets: sockets::of_tasks(payload, init).context("read the options of its sockets")?,
        })
    }

    /// Gives the restored tasks what they need before packets reach them. Gives what could not be
    /// done, in words.
    ///
    /// # Errors
    /// When they would be less safe than before.
    pub fn restore_early(states: Option<&States>, payload: &Path) -> Result<Vec<String>> {
        sockets::restore(payload, states.map(|s| s.sockets.as_slice()).unwrap_or_default())
    }

    /// Whether the tasks have to set some of them by calls of their own.
    pub fn need_calls(&self) -> bool {
        !self.own_calls.is_empty() || !self.alarms.is_empty()
    }

    /// Gives the restored tasks the rest before they run. None where the checkpoint has no record
    /// of them.
    pub fn restore(states: Option<&States>, payload: &Path, init: Option<i32>) -> Result<()> {
        let scheduled =
            scheduling::set(payload, states.map(|s| s.scheduling.as_slice()).unwrap_or_default());
        let segments = states.map(|s| s.segments.as_slice()).unwrap_or_default();
        let segments = init.map_or(Ok(()), |init| shm::restore(init, segments));
        timers::set(payload, states.map(|s| s.timers.as_slice())).and(scheduled).and(segments)
    }
}
