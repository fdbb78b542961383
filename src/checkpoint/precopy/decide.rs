//! Whether another round is worth it. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::report::{bytes, seconds};

/// A round has shrunk what is left if it wrote at most this part of what the one before did, in
/// percent.
const SHRINKS: u64 = 75;
/// What must be left of the time limit for another round: the longest one so often. The dump has to
/// come after it, and what makes it complete.
const SPARE_ROUNDS: u32 = 3;

/// A round as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// What it wrote, in bytes: what had changed since the round before began; in the first round,
    /// all.
    pub written: u64,
    /// How long the processes stood still for it.
    pub frozen: Duration,
    /// How long it took CRIU to collect and write that.
    pub copying: Duration,
    /// All of it, up to the beginning of the next one.
    pub took: Duration,
}

/// What bounds the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// At most so many.
    pub rounds: u32,
    /// How long the processes may stand still while what is left is written.
    pub downtime: Duration,
    /// The time until all is given up; none where there is no limit.
    pub time_left: Option<Duration>,
}

/// What is known after some rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Bytes that will have changed when the next copying begins.
    pub left: u64,
    /// Bytes that change in a second; none after the first round, which cannot tell.
    pub changing: Option<u64>,
    /// Bytes that are copied in a second.
    pub rate: u64,
    /// How long what is left takes to be written.
    pub downtime: Duration,
}

/// Why the rounds ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// What is left is written within the downtime that was asked for.
    Fits,
    /// What is left no longer shrinks.
    NoLongerShrinks,
    /// There were as many as are allowed.
    Enough,
    /// The time limit is near.
    TimeIsShort,
    /// One has failed.
    Failed,
}

/// What follows some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one.
    Round,
    /// The dump.
    Dump(Why),
}

impl Forecast {
    /// After these rounds.
    pub(crate) fn after(rounds: &[Round]) -> Forecast {
        let Some(last) = rounds.last() else { return Forecast::default() };
        let all: u64 = rounds.iter().map(|round| round.written).fold(0, u64::saturating_add);
        let rate = per_second(all, rounds.iter().map(|round| round.copying).sum());
        let changing = match rounds {
            [.., before, last] => Some(per_second(last.written, before.took)),
            _ => None,
        };
        // Nothing can be left but what there is.
        let most = rounds.iter().map(|round| round.written).max().unwrap_or_default();
        let left = changing.map_or(most, |rate| within(rate, last.took).min(most));
        let downtime = Duration::from_secs_f64(left as f64 / rate.max(1) as f64);
        Forecast { left, changing, rate, downtime }
    }
}

/// What follows these rounds, of which there is at least one.
pub(super) fn next(rounds: &[Round], bounds: &Bounds) -> Next {
    let longest = rounds.iter().map(|round| round.took).max().unwrap_or_default();
    if Forecast::after(rounds).downtime <= bounds.downtime {
        return Next::Dump(Why::Fits);
    }
    if rounds.len() >= bounds.rounds as usize {
        return Next::Dump(Why::Enough);
    }
    if let [.., before, last] = rounds
        && last.written > before.written / 100 * SHRINKS
    {
        return Next::Dump(Why::NoLongerShrinks);
    }
    match bounds.time_left.is_some_and(|left| left < longest * SPARE_ROUNDS) {
        true => Next::Dump(Why::TimeIsShort),
        false => Next::Round,
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(1e-6)) as u64
}

fn within(rate: u64, time: Duration) -> u64 {
    (rate as f64 * time.as_secs_f64()) as u64
}

impl fmt::Display for Forecast {
    /// "1.5 MiB left (expected downtime 0.012 s), 800.0 KiB/s change, 300.0 MiB/s are copied".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { left, changing, rate, downtime } = self;
        match changing {
            // What has changed meanwhile is known after the next one.
            None => write!(f, "at most {} left", bytes(*left))?,
            Some(changing) => write!(
                f,
                "{} left (expected downtime {}), {}/s change",
                bytes(*left),
                seconds(*downtime),
                bytes(*changing)
            )?,
        }
        write!(f, ", {}/s are copied", bytes(*rate))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Fits => "the rest fits into the downtime",
            Why::NoLongerShrinks => "the rest no longer shrinks",
            Why::Enough => "all rounds are used up",
            Why::TimeIsShort => "the time limit is near",
            Why::Failed => "a round has failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds =
        Bounds { rounds: 8, downtime: Duration::from_millis(300), time_left: None };

    /// One that writes 100 MiB a second, and takes a tenth of a second besides.
    fn round(mebibytes: u64) -> Round {
        let copying = Duration::from_millis(mebibytes * 10);
        Round {
            written: mebibytes * MIB,
            frozen: Duration::from_millis(5),
            copying,
            took: copying + Duration::from_millis(100),
        }
    }

    /// The rounds of a container with so much memory, of which so much changes in a second.
    fn rounds_of(memory: u64, changing: u64, bounds: &Bounds) -> (Vec<Round>, Why) {
        let mut rounds = vec![round(memory)];
        loop {
            match next(&rounds, bounds) {
                Next::Dump(why) => return (rounds, why),
                Next::Round => {
                    let before = rounds[rounds.len() - 1].took.as_secs_f64();
                    let changed = ((changing as f64 * before) as u64).min(memory);
                    rounds.push(round(changed));
                }
            }
        }
    }

    #[test]
    fn rounds_go_on_while_they_help() {
        for (memory, changing, count, why) in [
            // So little that it is written at once.
            (20, 500, 1, Why::Fits),
            // Idle.
            (1024, 0, 2, Why::Fits),
            (1024, 1, 2, Why::Fits),
            // Half of what is copied.
            (1024, 50, 6, Why::Fits),
            // Faster than it is copied.
            (1024, 90, 2, Why::NoLongerShrinks),
            (1024, 500, 2, Why::NoLongerShrinks),
        ] {
            let (rounds, ended) = rounds_of(memory, changing, &BOUNDS);
            let told = Forecast::after(&rounds);
            assert_eq!((rounds.len(), ended), (count, why), "{memory} {changing}: {told}");
        }
    }

    #[test]
    fn rounds_end_at_their_number_and_at_the_time_limit() {
        let three = Bounds { rounds: 3, ..BOUNDS };
        assert_eq!(rounds_of(1024, 60, &three).1, Why::Enough);
        assert_eq!(rounds_of(1024, 60, &three).0.len(), 3);
        let short = Bounds { time_left: Some(Duration::from_secs(30)), ..BOUNDS };
        assert_eq!(rounds_of(1024, 60, &short), (vec![round(1024)], Why::TimeIsShort));
        let one = Bounds { rounds: 1, ..BOUNDS };
        assert_eq!(rounds_of(1024, 0, &one), (vec![round(1024)], Why::Enough));
    }

    #[test]
    fn what_is_left_is_what_changes_while_a_round_takes_its_time() {
        let rounds = [round(1000), round(101)];
        let forecast = Forecast::after(&rounds);
        assert_eq!(forecast.changing.map(|rate| rate / MIB), Some(10));
        assert_eq!(forecast.rate / MIB, 100);
        assert_eq!(forecast.left / MIB, 11);
        assert_eq!(forecast.downtime.as_millis(), 110);
        assert_eq!(
            forecast.to_string(),
            "11.1 MiB left (expected downtime 0.111 s), 10.0 MiB/s change, 100.0 MiB/s are copied"
        );
        // A measurement that took no time says nothing that is infinite.
        let none = Round {
            written: 5,
            frozen: Duration::ZERO,
            copying: Duration::ZERO,
            took: Duration::ZERO,
        };
        assert!(Forecast::after(&[none, none]).downtime < Duration::from_secs(1));
        assert_eq!(Forecast::after(&[]).left, 0);
    }
}
