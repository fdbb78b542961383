//! The kernel's own list of timers, `/proc/timer_list`: the one place that shows which POSIX timers
//! (timer_create(2)) were set to a time of day, and to which.

use std::fs;
use std::io;
use std::time::Duration;

/// The clocks of the time of day, those of other timers and those that expire in softirqs:
/// `hrtimer_base_type`.
const REALTIME: [&str; 2] = ["1", "5"];
/// What the kernel does when a POSIX timer expires.
const POSIX: &str = "posix_timer_fn";

/// When all POSIX timers of the host that were set to a time of day are due, since 1970.
///
/// # Errors
/// When the kernel does not show them, to this process or at all.
pub(crate) fn due_at_a_time_of_day() -> io::Result<Vec<Duration>> {
    Ok(parse(&fs::read_to_string("/proc/timer_list")?))
}

/// Of each clock all timers: ` #0: <0000>, posix_timer_fn, S:01`, and ` # expires at 17-17 nsecs
/// [in 5 to 5 nsecs]`.
fn parse(list: &str) -> Vec<Duration> {
    let mut found = Vec::new();
    let (mut of_the_day, mut posix) = (false, false);
    for line in list.lines().map(str::trim) {
        if let Some(number) = line.strip_prefix("clock ") {
            of_the_day = REALTIME.contains(&number.trim_end_matches(':'));
            posix = false;
        } else if let Some(times) = line.strip_prefix("# expires at ") {
            let first = times.split('-').next().and_then(|first| first.parse().ok());
            found.extend(first.filter(|_| of_the_day && posix).map(Duration::from_nanos));
        } else if line.starts_with('#') {
            posix = line.contains(POSIX);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_the_day_are_picked() {
        let list = "Timer List Version: v0.10\ncpu: 0\n clock 0:\n  .index: 0\nactive timers:\n \
                    #0: <00000000d9b6bdb1>, posix_timer_fn, S:01\n # expires at 17-17 nsecs [in 5 \
                    to 5 nsecs]\n clock 1:\nactive timers:\n #0: <00000000d9b6bdb2>, \
                    timerfd_tmrproc, S:01\n # expires at 18-18 nsecs [in 5 to 5 nsecs]\n #1: \
                    <00000000d9b6bdb3>, posix_timer_fn, S:01\n # expires at 19-20 nsecs [in 5 to 5 \
                    nsecs]\n";
        assert_eq!(parse(list), [Duration::from_nanos(19)]);
        assert_eq!(parse(" clock 1:\n # expires at x\n"), []);
    }
}
