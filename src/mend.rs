//! What CRIU does not bring back as it was, and we can.
//!
//! It is done while the restored tasks still stand still, so that none of them ever sees the difference.

pub mod core_filters;
pub mod groups;
pub mod personality;

use anyhow::{Context, Result};

use crate::cgroup;
use crate::error::ErrorList;
use crate::sys::process::Process;
use crate::sys::timerfd::{self, Timer};
use std::path::Path;

/// Mends all tasks in a cgroup and below it.
pub fn tasks_of(payload: &Path) -> Result<()> {
    let mut errors = ErrorList::default();
    for pid in cgroup::tasks(payload)? {
        errors.note(restart_timers(pid).with_context(|| format!("mend the timers of process {pid}")));
    }
    errors.into_result()
}

/// Sets timers going that CRIU has left standing.
///
/// A periodic timer that has expired and not been read is shown by the kernel with no time left until its next
/// expiration. CRIU (4.2, timerfd.c) sets exactly that, and to set no time is to switch a timer off: it would never
/// expire again, and whoever reads it would wait for ever.
fn restart_timers(pid: i32) -> Result<()> {
    let standing: Vec<(i32, Timer)> = timerfd::timers(pid)?.into_iter().filter(|(_, t)| stands_still(t)).collect();
    if standing.is_empty() {
        return Ok(());
    }
    let process = Process::open(pid)?;
    for (number, timer) in standing {
        timerfd::rearm(&process, number, timer).with_context(|| format!("set timer {number} going"))?;
    }
    Ok(())
}

/// A timer that its owner has switched off has no ticks: the kernel forgets them then.
fn stands_still(timer: &Timer) -> bool {
    timer.ticks > 0 && timer.value == (0, 0) && timer.interval != (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_expired_periodic_timer_stands_still() {
        let expired = Timer { ticks: 1, value: (0, 0), interval: (0, 20_000_000) };
        assert!(stands_still(&expired));
        assert!(!stands_still(&Timer { ticks: 0, ..expired }), "its owner has switched it off");
        assert!(!stands_still(&Timer { interval: (0, 0), ..expired }), "it was to expire once");
        assert!(!stands_still(&Timer { value: (0, 5), ..expired }), "it goes on by itself");
    }
}
