//! Moments in the host's time zone: how they are written, and in which hour, day, week they fall.

use std::fs;
use std::io::ErrorKind;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The host's time zone, as glibc finds it. The environment (`TZ`) is the caller's and does not
/// count.
const LOCALTIME: &str = "/etc/localtime";

/// A time zone.
#[derive(Clone, Debug)]
pub(crate) struct Calendar(TimeZone);

impl Calendar {
    /// The host's; UTC where it has none.
    pub(crate) fn of_host() -> Calendar {
        let zone = match fs::read(LOCALTIME) {
            Ok(bytes) => TimeZone::tzif("localtime", &bytes).unwrap_or_else(|e| {
                log::warn!("{LOCALTIME}: {e}; times are in UTC");
                TimeZone::UTC
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => TimeZone::UTC,
            Err(e) => {
                log::warn!("read {LOCALTIME}: {e}; times are in UTC");
                TimeZone::UTC
            }
        };
        Calendar(zone)
    }

    /// UTC.
    #[cfg(test)]
    pub(crate) fn utc() -> Calendar {
        Calendar(TimeZone::UTC)
    }

    /// A moment, in seconds since 1970, as the clock on the wall has it.
    pub(crate) fn civil(&self, seconds: u64) -> DateTime {
        self.0.to_datetime(timestamp(seconds))
    }

    /// As a name: `2026-11-30T22:04:10`.
    pub(crate) fn name(&self, seconds: u64) -> String {
        self.civil(seconds).strftime("%Y-%m-%dT%H:%M:%S").to_string()
    }

    /// As a person reads it in a table: `2026-11-30 22:04`.
    pub(crate) fn minute(&self, seconds: u64) -> String {
        self.civil(seconds).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// As RFC 3339 writes it, with the offset of the time zone: `2026-11-30T22:04:10+01:00`.
    pub(crate) fn rfc3339(&self, seconds: u64) -> String {
        let timestamp = timestamp(seconds);
        timestamp.display_with_offset(self.0.to_offset(timestamp)).to_string()
    }
}

/// A moment that no calendar has is the last that it has.
fn timestamp(seconds: u64) -> Timestamp {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One hour east of Greenwich, and two in summer.
    pub(in crate::store) fn berlin() -> Calendar {
        Calendar(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
    }

    #[test]
    fn moments_are_those_of_the_zone() {
        // date -u -d 2026-11-30T21:04:10Z +%s
        let winter = 1_796_072_650;
        assert_eq!(Calendar::utc().name(winter), "2026-11-30T21:04:10");
        assert_eq!(Calendar::utc().rfc3339(winter), "2026-11-30T21:04:10+00:00");
        assert_eq!(berlin().name(winter), "2026-11-30T22:04:10");
        assert_eq!(berlin().minute(winter), "2026-11-30 22:04");
        assert_eq!(berlin().rfc3339(winter), "2026-11-30T22:04:10+01:00");
        // date -u -d 2026-07-01T12:00:00Z +%s
        assert_eq!(berlin().rfc3339(1_782_907_200), "2026-07-01T14:00:00+02:00");
        assert!(Calendar::utc().name(u64::MAX).starts_with("9999-12-30"));
    }
}
