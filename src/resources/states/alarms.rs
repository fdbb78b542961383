//! POSIX timers (timer_create(2)) that are set to a time of day. CRIU (4.2, timer.c) saves the time
//! that was left: they would come late by the time for which the container did not run.
//!
//! Whether a timer was set to a time of day or to some time from then on, its owner cannot ask. But
//! the kernel keeps the former by the time of day, and shows these in `/proc/timer_list`: one of
//! them is a process's if it is due when CRIU says that the process's timer is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::criu::images::{PosixTimer, posix_timers};
use crate::sys::inject::Stopped;
use crate::sys::{timer_list, timerfd};

/// A timer that is due at a time of day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The process, by its number in the container.
    pub pid: i32,
    /// The timer's number there.
    pub id: u32,
    /// When it is due, since 1970.
    pub due: Duration,
    /// From one expiration to the next; zero when it expires once.
    pub interval: Duration,
}

/// Those of tasks that stand still, of which CRIU has written the images since this time of day.
pub(crate) fn of_tasks(images: &Path, since: Duration) -> Result<Vec<Alarm>> {
    let timers = posix_timers(images).context("read its timers from the images")?;
    if !timers.iter().any(may_be_of_the_day) {
        return Ok(Vec::new());
    }
    let due = match timer_list::due_at_a_time_of_day() {
        Ok(due) => due,
        // Not every kernel shows it; CRIU restores what was left.
        Err(e) => {
            log::warn!("read /proc/timer_list: {e}");
            return Ok(Vec::new());
        }
    };
    Ok(matched(&timers, &due, since..=timerfd::now(libc::CLOCK_REALTIME)?))
}

fn may_be_of_the_day(timer: &PosixTimer) -> bool {
    timer.clock == libc::CLOCK_REALTIME.cast_unsigned() && !timer.left.is_zero()
}

/// Which timers are due at one of these times, if each was read at some time in a range. Pure.
fn matched(
    timers: &[PosixTimer],
    due: &[Duration],
    read: std::ops::RangeInclusive<Duration>,
) -> Vec<Alarm> {
    let alarm = |timer: &PosixTimer| {
        let PosixTimer { pid, id, left, interval, .. } = *timer;
        let (first, last) = (read.start().saturating_add(left), read.end().saturating_add(left));
        let due = due.iter().find(|due| (first..=last).contains(due))?;
        Some(Alarm { pid, id, due: *due, interval })
    };
    timers.iter().filter(|timer| may_be_of_the_day(timer)).filter_map(alarm).collect()
}

/// Has its process set a timer.
pub(crate) fn set(stopped: &Stopped, alarm: &Alarm) -> Result<()> {
    const TIMER_ABSTIME: u64 = 1;
    // struct itimerspec.
    let [interval, due] =
        [alarm.interval, alarm.due].map(|time| [time.as_secs(), time.subsec_nanos().into()]);
    let mut times: Vec<u8> = interval.into_iter().chain(due).flat_map(u64::to_ne_bytes).collect();
    let arguments = |address| vec![alarm.id.into(), TIMER_ABSTIME, address, 0];
    let set = stopped.call_with(libc::SYS_timer_settime, &mut times, arguments);
    set.with_context(|| format!("set its timer {}", alarm.id))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_one_of_those_that_are_due_when_it_is() {
        let second = Duration::from_secs(1);
        let noon = Duration::from_secs(1_790_000_000);
        let timer = PosixTimer { pid: 7, id: 0, clock: 0, left: 100 * second, interval: second };
        let relative = PosixTimer { id: 1, left: 50 * second, ..timer };
        let monotonic = PosixTimer { id: 2, clock: 1, ..timer };
        let off = PosixTimer { id: 3, left: Duration::ZERO, ..timer };
        let due = noon + 100 * second + second / 2;
        let found = matched(&[timer, relative, monotonic, off], &[due, noon], noon..=noon + second);
        assert_eq!(found, [Alarm { pid: 7, id: 0, due, interval: second }]);
    }
}
