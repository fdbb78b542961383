//! Timers in descriptors (timerfd).
//!
//! CRIU (4.2, timerfd.c) saves what /proc/PID/fdinfo shows, and restores the time that was left.
//! Two kinds do not come back as they were. One that repeats and has expired is shown with no time
//! left until its next expiration, and to set no time is to switch a timer off: it would never
//! expire again. And one that was set to a time of day (systemd's `OnCalendar=`) would come late by
//! the time for which the container did not run.
//!
//! So both are read once more when all tasks stand still, and set from that before they go on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::process::{Process, number_inside};
use crate::sys::timerfd::{self, Timer};

/// How often a timer is read that seems to be off. Between its expiration and the interrupt that
/// counts it the kernel shows the same of one that is not.
const LOOKS: u32 = 3;
/// How long to wait between.
const INTERRUPT: Duration = Duration::from_millis(1);

/// A timer that is set again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFd {
    /// A process that has it, by its number in the container.
    pub pid: i32,
    /// Its number there.
    pub descriptor: i32,
    /// Its clock, as in clock_gettime(2).
    pub clock: i32,
    /// The flags with which it was set, as in timerfd_settime(2).
    pub flags: i32,
    /// Expirations that were not read.
    pub ticks: u64,
    /// From one expiration to the next; zero when it expires once.
    pub interval: Duration,
    /// When it is due next.
    #[serde(flatten)]
    pub due: Due,
}

/// When a timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Due {
    /// At this time of day, whether or not the container runs: since 1970.
    At(Duration),
    /// After it has run for this long.
    In(Duration),
}

impl TimerFd {
    /// What is to be recorded of a timer; none where CRIU restores it as it is.
    fn of(pid: i32, descriptor: i32, timer: &Timer, now: Duration) -> Option<TimerFd> {
        let at_a_time_of_day = timer.is_absolute() && timer.is_of_the_day();
        if timer.value.is_zero() || (timer.interval.is_zero() && !at_a_time_of_day) {
            return None;
        }
        let due = match at_a_time_of_day {
            true => Due::At(now.saturating_add(timer.value)),
            false => Due::In(timer.value),
        };
        let Timer { clock, flags, ticks, interval, .. } = *timer;
        Some(TimerFd { pid, descriptor, clock, flags, ticks, interval, due })
    }

    /// How it is set when its clock shows `now`.
    fn to_be_set(&self, now: Duration) -> Timer {
        let TimerFd { clock, flags, ticks, interval, .. } = *self;
        let mut timer = Timer { clock, flags, ticks, interval, value: Duration::ZERO };
        timer.value = match self.due {
            Due::At(time) => time,
            Due::In(left) if timer.is_absolute() => now.saturating_add(left),
            Due::In(left) => left,
        };
        timer
    }
}

/// Those of the tasks of a container that stands still.
pub(crate) fn of_tasks(payload: &Path) -> Result<Vec<TimerFd>> {
    let mut found = Vec::new();
    for task in cgroup::tasks(payload)? {
        // What has ended has none.
        let (Some(pid), Ok(timers)) = (number_inside(task), timerfd::timers(task)) else {
            continue;
        };
        if timers.is_empty() {
            continue;
        }
        let process = Process::open(task).with_context(|| format!("hold process {task}"))?;
        for (number, _) in timers {
            let read = || -> Result<Option<TimerFd>> {
                let timer = settled(&process, number)?;
                Ok(TimerFd::of(pid, number, &timer, timerfd::now(timer.clock)?))
            };
            found.extend(read().with_context(|| format!("read timer {number} of process {task}"))?);
        }
    }
    Ok(found)
}

/// A timer once no expiration is on its way.
fn settled(process: &Process, number: i32) -> Result<Timer> {
    let mut timer = timerfd::current(process, number)?;
    for _ in 1..LOOKS {
        if !seems_off(&timer) {
            break;
        }
        std::thread::sleep(INTERRUPT);
        timer = timerfd::current(process, number)?;
    }
    Ok(timer)
}

/// Sets the timers of restored tasks. Without a record of them (`recorded`), those that CRIU has
/// left standing start anew.
pub(crate) fn set(payload: &Path, recorded: Option<&[TimerFd]>) -> Result<()> {
    let mut errors = ErrorList::default();
    for task in cgroup::tasks(payload)? {
        let set = match recorded {
            Some(timers) => set_recorded(task, timers),
            None => start_standing(task),
        };
        errors.note(set.with_context(|| format!("set the timers of process {task}")));
    }
    errors.into_result()
}

fn set_recorded(task: i32, timers: &[TimerFd]) -> Result<()> {
    let Some(inside) = number_inside(task).filter(|pid| timers.iter().any(|t| t.pid == *pid))
    else {
        return Ok(());
    };
    let process = Process::open(task)?;
    for timer in timers.iter().filter(|timer| timer.pid == inside) {
        let set =
            timerfd::set(&process, timer.descriptor, &timer.to_be_set(timerfd::now(timer.clock)?));
        set.with_context(|| format!("set timer {}", timer.descriptor))?;
    }
    Ok(())
}

fn start_standing(task: i32) -> Result<()> {
    let standing: Vec<(i32, Timer)> =
        timerfd::timers(task)?.into_iter().filter(|(_, t)| stands_still(t)).collect();
    if standing.is_empty() {
        return Ok(());
    }
    let process = Process::open(task)?;
    for (number, timer) in standing {
        let again = Timer { flags: 0, value: timer.interval, ..timer };
        timerfd::set(&process, number, &again).with_context(|| format!("set timer {number}"))?;
    }
    Ok(())
}

/// What is shown of a timer that was switched off, and for a moment of one that is about to be
/// counted.
fn seems_off(timer: &Timer) -> bool {
    timer.ticks == 0 && timer.value.is_zero() && !timer.interval.is_zero()
}

/// A timer that its owner has switched off has no ticks: the kernel forgets them then.
fn stands_still(timer: &Timer) -> bool {
    timer.ticks > 0 && timer.value.is_zero() && !timer.interval.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOON: Duration = Duration::from_secs(1_790_000_000);

    fn every_second() -> Timer {
        Timer {
            clock: libc::CLOCK_MONOTONIC,
            flags: 0,
            ticks: 0,
            value: SECOND / 2,
            interval: SECOND,
        }
    }

    #[test]
    fn only_an_expired_periodic_timer_stands_still() {
        let expired = Timer { ticks: 1, value: Duration::ZERO, ..every_second() };
        assert!(stands_still(&expired) && !seems_off(&expired));
        let off = Timer { ticks: 0, ..expired };
        assert!(!stands_still(&off) && seems_off(&off));
        assert!(
            !stands_still(&Timer { interval: Duration::ZERO, ..expired }),
            "it was to expire once"
        );
        assert!(!stands_still(&every_second()), "it goes on by itself");
    }

    #[test]
    fn timers_that_criu_restores_are_not_recorded() {
        let recorded = |timer: &Timer| TimerFd::of(7, 3, timer, NOON);
        assert_eq!(recorded(&Timer { interval: Duration::ZERO, ..every_second() }), None);
        assert_eq!(recorded(&Timer { value: Duration::ZERO, ..every_second() }), None, "it is off");
        assert_eq!(recorded(&every_second()).map(|t| t.due), Some(Due::In(SECOND / 2)));
    }

    #[test]
    fn a_time_of_day_stays_and_others_wait() {
        let absolute = libc::TFD_TIMER_ABSTIME;
        let set =
            |timer: &Timer| TimerFd::of(7, 3, timer, NOON).unwrap().to_be_set(NOON + 60 * SECOND);
        let once = Timer {
            clock: libc::CLOCK_REALTIME,
            flags: absolute,
            interval: Duration::ZERO,
            ..every_second()
        };
        assert_eq!(set(&once), Timer { value: NOON + SECOND / 2, ..once });
        let from_then_on = Timer { flags: 0, interval: SECOND, ..once };
        assert_eq!(set(&from_then_on).value, SECOND / 2);
        let monotonic = Timer { flags: absolute, ..every_second() };
        assert_eq!(set(&monotonic).value, NOON + 60 * SECOND + SECOND / 2);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        #[derive(PartialEq, Debug, Serialize, Deserialize)]
        struct File {
            timers: Vec<TimerFd>,
        }
        let realtime =
            Timer { clock: libc::CLOCK_REALTIME, flags: libc::TFD_TIMER_ABSTIME, ..every_second() };
        let timers =
            [every_second(), realtime].iter().filter_map(|t| TimerFd::of(7, 3, t, NOON)).collect();
        let file = File { timers };
        assert_eq!(toml::from_str::<File>(&toml::to_string(&file).unwrap()).unwrap(), file);
    }
}
