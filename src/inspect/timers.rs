//! Timers: POSIX ones and those that are descriptors.
//!
//! Interval timers (setitimer(2)) and the remaining time of POSIX timers are only told to the
//! process itself; [`asked`](super::asked) reads those.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::compare::near;
use super::family::Family;
use super::open::{self, Open};
use super::proc::{Numbers, field, processes};
use super::snapshot::{Snapshot, Standing};
use super::state::{Class, PutBack, states};

/// Timers.
pub(crate) const FAMILY: Family = Family { name: "timers", states: rows, read };

states! { rows;
    POSIX = "timer", PutBack::Criu, Class::Breaks, "the timer is gone, or signals otherwise";
    CLOCK = "timerfd.clock", PutBack::Criu, Class::Breaks, "it counts by another clock";
    KIND = "timerfd.kind", PutBack::Criu, Class::Breaks, "it no longer follows, or hears of, changes of the clock";
    INTERVAL = "timerfd.interval", PutBack::Criu, Class::Breaks, "it expires more or less often";
    ARMED = "timerfd.armed", PutBack::Us, Class::Breaks, "it never expires";
    REMAINING = "timerfd.remaining", PutBack::Criu, Class::Breaks, "it expires too early or too late";
    DUE = "timerfd.due", PutBack::Us, Class::Breaks, "an alarm at a time of day comes too late";
    TICKS = "timerfd.ticks", PutBack::Criu, Class::Varies, "timers go on while the container stands still";
}

/// A timer goes on while snapshots are taken and while the container is written and restored: how
/// far two readings of what remains may differ, in seconds.
pub(crate) const RUNS_ON: f64 = 20.0;
/// The same of a time of day, which does not depend on when it is read.
pub(crate) const EXACT: f64 = 0.1;

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let numbers = Numbers::of(standing);
    for process in processes(standing) {
        match process.file("timers") {
            Ok(text) => {
                let timers = posix(&text, &numbers);
                if !timers.is_empty() {
                    snapshot.enter(process.process(), &POSIX, timers.join("\n"));
                }
            }
            Err(e) => snapshot.miss(process.process(), &POSIX, e),
        }
    }
    for open in open::all(standing) {
        if open.target == "anon_inode:[timerfd]" {
            of_descriptor(&open, snapshot);
        }
    }
}

/// A line for each POSIX timer: number, signal and value, who gets it, clock.
fn posix(text: &str, numbers: &Numbers) -> Vec<String> {
    let mut timers: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match (name, timers.last_mut()) {
            ("ID", _) => timers.push(format!("{value}:")),
            ("signal", Some(timer)) => *timer += &format!(" signal {value}"),
            ("notify", Some(timer)) => *timer += &format!(" {}", receiver(value, numbers)),
            ("ClockID", Some(timer)) => *timer += &format!(" clock {value}"),
            _ => {}
        }
    }
    timers.sort_unstable();
    timers
}

/// "signal/tid.4711" with the number that the container has for it.
fn receiver(notify: &str, numbers: &Numbers) -> String {
    match notify.rsplit_once('.') {
        Some((how, number)) => {
            format!(
                "{how}.{}",
                number.parse().map_or_else(|_| number.to_owned(), |number| numbers.owner(number))
            )
        }
        None => notify.to_owned(),
    }
}

/// A timer as fdinfo shows it, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Timer {
    clock: i32,
    kind: u32,
    ticks: u64,
    value: f64,
    interval: f64,
}

fn parse(info: &str) -> Option<Timer> {
    let seconds = |name: &str| -> Option<f64> {
        let (seconds, nanoseconds) =
            field(info, name)?.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
        Some(seconds.parse::<f64>().ok()? + nanoseconds.parse::<f64>().ok()? / 1e9)
    };
    Some(Timer {
        clock: field(info, "clockid")?.parse().ok()?,
        kind: u32::from_str_radix(field(info, "settime flags")?, 8).ok()?,
        ticks: field(info, "ticks")?.parse().ok()?,
        value: seconds("it_value")?,
        interval: seconds("it_interval")?,
    })
}

/// What it says and the time of day at that, in seconds; read again if something came in between.
fn read_at_once(open: &Open) -> Option<(Timer, f64)> {
    const TRIES: usize = 5;
    const AT_ONCE: Duration = Duration::from_millis(10);
    let mut last = None;
    for _ in 0..TRIES {
        let start = Instant::now();
        let timer = parse(&open.info().ok()?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        last = Some((timer, now));
        if start.elapsed() < AT_ONCE {
            break;
        }
    }
    last
}

/// A timer that is not set.
const OFF: &str = "off";

fn of_descriptor(open: &Open, snapshot: &mut Snapshot) {
    let Some((timer, now)) = read_at_once(open) else {
        return snapshot.miss(open.subject(), &CLOCK, "no timer in /proc/PID/fdinfo");
    };
    let mut enter = |state, value: String| snapshot.enter(open.subject(), state, value);
    enter(&CLOCK, timer.clock.to_string());
    enter(&KIND, format!("{:#o}", timer.kind));
    enter(&INTERVAL, format!("{:.9}", timer.interval));
    enter(&TICKS, timer.ticks.to_string());
    enter(&ARMED, armed(&timer).to_owned());
    if let Some(due) = due(&timer, now) {
        enter(&DUE, near(due, EXACT));
    } else if armed(&timer) != OFF {
        // Nothing remains of one that has expired: that is near to what was about to.
        enter(&REMAINING, near(timer.value, RUNS_ON.max(timer.interval)));
    }
}

/// What is about to expire may have expired when it is read again.
fn armed(timer: &Timer) -> &'static str {
    match timer {
        Timer { value, ticks, interval, .. } if *interval > 0.0 && (*value > 0.0 || *ticks > 0) => {
            "periodic"
        }
        Timer { value, .. } if *value > RUNS_ON => "once",
        Timer { value, ticks, .. } if *value > 0.0 || *ticks > 0 => "soon or expired",
        _ => OFF,
    }
}

/// When a timer that was set to a time of day expires: seconds since 1970, or where it is periodic,
/// from the middle of an interval.
fn due(timer: &Timer, now: f64) -> Option<f64> {
    const REALTIME: i32 = 0;
    const REALTIME_ALARM: i32 = 8;
    const ABSOLUTE: u32 = 1;
    let at_time_of_day =
        [REALTIME, REALTIME_ALARM].contains(&timer.clock) && timer.kind & ABSOLUTE != 0;
    if !at_time_of_day || timer.value <= 0.0 {
        return None;
    }
    let due = now + timer.value;
    match timer.interval {
        // Times around a full interval are common and must not jump between its ends.
        interval if interval >= 1.0 => Some((due + interval / 2.0) % interval),
        interval if interval > 0.0 => None,
        _ => Some(due),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t1063\nclockid: 0\nticks: \
                        0\nsettime flags: 01\nit_value: (59, 500000000)\nit_interval: (0, 0)\n";

    #[test]
    fn what_the_kernel_writes_is_read() {
        let timer = parse(INFO).unwrap();
        assert_eq!(timer, Timer { clock: 0, kind: 1, ticks: 0, value: 59.5, interval: 0.0 });
        let text = "ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\nID: \
                    0\nsignal: 14/0\nnotify: none/tid.0\nClockID: 1\n";
        let numbers = Numbers::default();
        assert_eq!(
            posix(text, &numbers),
            [
                "0: signal 14/0 none/tid.0 clock 1",
                "1: signal 60/00007fff86e452a8 signal/pid.none of the container clock 0"
            ]
        );
    }

    #[test]
    fn a_time_of_day_is_compared_exactly_and_the_rest_with_tolerance() {
        let timer = parse(INFO).unwrap();
        assert_eq!(due(&timer, 1000.0), Some(1059.5));
        assert_eq!(due(&Timer { clock: 1, ..timer }, 1000.0), None);
        assert_eq!(due(&Timer { kind: 0, ..timer }, 1000.0), None);
        let minutely = Timer { interval: 60.0, ..timer };
        assert!(
            (due(&minutely, 1020.5).unwrap() - 30.0).abs() < 1e-6,
            "in the middle for a full minute"
        );
        assert_eq!((armed(&timer), armed(&minutely)), ("once", "periodic"));
        assert_eq!(
            armed(&Timer { value: 0.0, ticks: 1, ..timer }),
            armed(&Timer { value: 0.3, ..timer })
        );
        assert_eq!(armed(&Timer { value: 0.0, ..timer }), "off");
    }
}
