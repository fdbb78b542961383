//! What a story tells while it goes on. `cli` decides what of it a person sees, and how.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Somebody who is told.
pub(crate) trait Report: std::fmt::Debug {
    /// A phase begins: "writing memory".
    fn phase(&mut self, text: &str);

    /// The phase goes on: so many bytes of memory it has moved, or is to move.
    fn amount(&mut self, _bytes: u64) {}

    /// Something worth knowing that is no failure.
    fn note(&mut self, text: &str);

    /// A line of CRIU's log, in order; only called when [`Report::wants_log`] says so.
    fn log_line(&mut self, _line: &str) {}

    /// Whether CRIU's log is to be passed on as it grows.
    fn wants_log(&self) -> bool {
        false
    }

    /// Whether phases are shown as they pass, so that it is worth to look for them.
    fn wants_phases(&self) -> bool {
        false
    }
}

/// Text that comes from inside a container: the name of a process, a file, a mount, an interface.
/// Shown, nothing of it steers a terminal or begins a line; written for programs (JSON, TOML), it
/// is as it was. There is no other way to its characters than [`Foreign::raw`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Foreign(String);

impl Foreign {
    /// The text itself, to be compared or looked up; never to be shown (tests/layers/foreign.rs).
    pub(crate) fn raw(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without this at its end.
    pub(crate) fn without_end(&self, end: &str) -> Foreign {
        Foreign(self.0.strip_suffix(end).unwrap_or(&self.0).to_owned())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&shown(&self.0))
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.0), f)
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Foreign {
        Foreign(text.to_owned())
    }
}

impl From<String> for Foreign {
    fn from(text: String) -> Foreign {
        Foreign(text)
    }
}

impl From<&Path> for Foreign {
    fn from(path: &Path) -> Foreign {
        Foreign(path.to_string_lossy().into_owned())
    }
}

/// Text that a container may have a part in: nothing of it may steer the terminal that it is shown
/// on.
pub(crate) fn shown(text: &str) -> String {
    replaced(text, steers)
}

/// The same of text that is laid out, on several lines or in columns: line ends and tabs stay.
pub(crate) fn shown_lines(text: &str) -> String {
    replaced(text, |c| steers(c) && !['\n', '\t'].contains(&c))
}

/// JSON in which nothing steers a terminal: what would is escaped, and is read as it was.
///
/// # Errors
/// As serde_json.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    // Within a string alone: JSON itself is printable.
    if text.chars().any(|c| steers(c) && c != '\n') {
        let escaped = |c: char| match steers(c) && c != '\n' {
            true => c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect(),
            false => c.to_string(),
        };
        text = text.chars().map(escaped).collect();
    }
    Ok(text)
}

/// Whether a character moves, hides or turns around what is beside it: control characters, line
/// separators, those that set the direction of text, and those that are not seen.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn replaced(text: &str, bad: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if bad(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A number of bytes as a person reads it: "6.2 MiB".
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration as a person reads it: "0.184 s".
pub(crate) fn seconds(time: std::time::Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// A moment, given in seconds since 1970, as a person reads it: "2026-11-24 08:50:12 UTC".
pub(crate) fn moment(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The Gregorian calendar repeats after 400 years; counted from the 1st of March 0000 a leap day
    // ends a year.
    let since_0000 = days.saturating_add(719_468);
    let (era, day) = (since_0000 / 146_097, since_0000 % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day) =
        (if month < 10 { month + 3 } else { month - 9 }, day - (153 * month + 2) / 5 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// A span of time in a few letters, for a table: "5 min".
pub(crate) fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(shown("a\x1b[2J\u{9b}b\nc\r"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(shown_lines("a\x1b\nb"), "a\u{fffd}\nb");
        // From right to left, of no width, and a line separator.
        assert_eq!(shown("a\u{202e}b\u{200b}c\u{2028}d"), "a\u{fffd}b\u{fffd}c\u{fffd}d");
        assert_eq!(shown("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn foreign_text_is_shown_safely_and_written_as_it_is() {
        let name = Foreign::from("x\nhint: forged\u{202e}");
        assert_eq!(name.to_string(), "x\u{fffd}hint: forged\u{fffd}");
        assert_eq!(format!("{name:?}"), format!("{:?}", name.to_string()));
        assert_eq!(format!("{name:>20}"), format!("{:>20}", name.to_string()));
        let text = to_json(&name).unwrap();
        assert!(!text.chars().any(steers), "{text}");
        assert_eq!(serde_json::from_str::<Foreign>(&text).unwrap(), name);
        let tag = Foreign::from("\u{9b}\u{e0001}");
        assert_eq!(to_json(&[&tag]).unwrap(), "[\n  \"\\u009b\\udb40\\udc01\"\n]");
        assert_eq!(
            serde_json::from_str::<[Foreign; 1]>(&to_json(&[&tag]).unwrap()).unwrap(),
            [tag]
        );
        assert_eq!(name.raw(), "x\nhint: forged\u{202e}");
    }

    #[test]
    fn bytes_get_the_unit_that_reads_best() {
        assert_eq!(bytes(17), "17 bytes");
        assert_eq!(bytes(6_500_000), "6.2 MiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_795_510_212, "2026-11-24 08:50:12 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
        assert!(moment(u64::MAX).ends_with("UTC"));
    }
}
