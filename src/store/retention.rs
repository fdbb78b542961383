//! Which of many checkpoints are kept, counted as restic counts snapshots
//! (internal/restic/snapshot_policy.go there).
//!
//! Each rule goes through them from the newest to the oldest, and keeps the newest of each hour,
//! day, week (ISO 8601), month or year until it has kept as many as it says. What one rule keeps is
//! kept. The oldest of all is kept by each rule that has kept fewer than it may: else a history
//! that is still short would not grow.

use serde::{Deserialize, Serialize};

use super::calendar::Calendar;
use crate::settings::Settings;

/// How many each rule keeps; a rule of 0 keeps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// The last ones.
    pub last: u64,
    /// The last one of each hour.
    pub hourly: u64,
    /// The last one of each day.
    pub daily: u64,
    /// The last one of each week, which begins on a Monday.
    pub weekly: u64,
    /// The last one of each month.
    pub monthly: u64,
    /// The last one of each year.
    pub yearly: u64,
}

/// The parts of time that rules count in.
#[derive(Clone, Copy, Debug)]
enum Period {
    /// Each checkpoint is one of its own.
    Each,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// A number that two moments share when they are in the same period. `index` is the place in
    /// the list.
    fn of(self, seconds: u64, index: usize, calendar: &Calendar) -> i64 {
        let at = calendar.civil(seconds);
        let (year, month) = (i64::from(at.year()), i64::from(at.month()));
        let day = (year * 100 + month) * 100 + i64::from(at.day());
        match self {
            Period::Each => i64::try_from(index).unwrap_or(i64::MAX),
            Period::Hour => day * 100 + i64::from(at.hour()),
            Period::Day => day,
            Period::Week => {
                let week = at.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Period::Month => year * 100 + month,
            Period::Year => year,
        }
    }
}

impl Policy {
    /// What the settings say.
    pub(crate) fn of(settings: &Settings) -> Policy {
        Policy {
            last: settings.keep_last,
            hourly: settings.keep_hourly,
            daily: settings.keep_daily,
            weekly: settings.keep_weekly,
            monthly: settings.keep_monthly,
            yearly: settings.keep_yearly,
        }
    }

    /// Whether it keeps nothing, because no rule was given.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Policy::default()
    }

    /// Says of each checkpoint by which rules it is kept; one that none keeps may go. `created` has
    /// the time of each in seconds since 1970, the newest first.
    pub(crate) fn judge(&self, created: &[u64], calendar: &Calendar) -> Vec<Vec<&'static str>> {
        let rules = [
            ("last", self.last, Period::Each),
            ("hourly", self.hourly, Period::Hour),
            ("daily", self.daily, Period::Day),
            ("weekly", self.weekly, Period::Week),
            ("monthly", self.monthly, Period::Month),
            ("yearly", self.yearly, Period::Year),
        ];
        let mut kept = vec![Vec::new(); created.len()];
        for (name, mut left, period) in rules {
            let mut before = None;
            for (index, (seconds, reasons)) in created.iter().zip(&mut kept).enumerate() {
                let now = period.of(*seconds, index, calendar);
                let is_oldest = index + 1 == created.len();
                if left > 0 && (before != Some(now) || is_oldest) {
                    reasons.push(name);
                    (before, left) = (Some(now), left - 1);
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::tests::berlin;
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    /// Monday, 2026-11-30 00:00 UTC.
    const MONDAY: u64 = 1_795_996_800;

    /// Which are kept, by their places.
    fn kept(policy: Policy, created: &[u64]) -> Vec<usize> {
        let judged = policy.judge(created, &Calendar::utc());
        judged
            .iter()
            .enumerate()
            .filter(|(_, reasons)| !reasons.is_empty())
            .map(|(index, _)| index)
            .collect()
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        // Every six hours for twenty days, the newest first.
        let created: Vec<u64> = (0..80).map(|n| MONDAY + 20 * DAY - n * 6 * HOUR - HOUR).collect();
        assert_eq!(kept(Policy { last: 3, ..Policy::default() }, &created), [0, 1, 2]);
        assert_eq!(kept(Policy { daily: 3, ..Policy::default() }, &created), [0, 4, 8]);
        // 2026-12-19 is a Saturday: six days of its week, then whole ones.
        assert_eq!(kept(Policy { weekly: 2, ..Policy::default() }, &created), [0, 24]);
        assert_eq!(kept(Policy { last: 2, daily: 2, ..Policy::default() }, &created), [0, 1, 4]);
    }

    #[test]
    fn the_oldest_is_kept_while_a_rule_has_some_left() {
        // restic's rule: a history that is short grows from its oldest snapshot.
        let created = [MONDAY + 3 * HOUR, MONDAY + 2 * HOUR, MONDAY + HOUR];
        assert_eq!(kept(Policy { daily: 7, ..Policy::default() }, &created), [0, 2]);
        assert_eq!(kept(Policy { daily: 1, ..Policy::default() }, &created), [0]);
        assert_eq!(kept(Policy { yearly: 1, hourly: 2, ..Policy::default() }, &created), [0, 1]);
    }

    #[test]
    fn days_begin_at_midnight_of_the_host() {
        // 00:30 in Berlin is 23:30 of the day before in UTC.
        let created = [MONDAY + 23 * HOUR + HOUR / 2, MONDAY + 22 * HOUR];
        let policy = Policy { daily: 2, ..Policy::default() };
        let older = [created[0], created[1], MONDAY - 9 * DAY];
        assert_eq!(kept(policy, &older), [0, 2]);
        let judged = policy.judge(&older, &berlin());
        assert_eq!(judged, [vec!["daily"], vec!["daily"], vec![]]);
    }

    #[test]
    fn without_rules_none_is_kept_by_a_rule() {
        assert!(
            Policy::default().is_empty() && !Policy { yearly: 1, ..Policy::default() }.is_empty()
        );
        assert_eq!(kept(Policy::default(), &[MONDAY]), Vec::<usize>::new());
        assert!(Policy { last: 1, ..Policy::default() }.judge(&[], &Calendar::utc()).is_empty());
    }
}
