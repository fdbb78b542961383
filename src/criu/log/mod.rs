//! CRIU's log: how far it came, and what stopped it, in plain words.
//!
//! CRIU's exit status is 1 whatever happened; the reason stands only in its log. An error line is
//! `(00.012345) Error (criu/file.c:123): subsystem: text`; without the time at a low verbosity,
//! with `   37: ` before `Error` when a task being restored wrote it, with `pie: 37: ` when the
//! code that CRIU puts into a task did. The first error is mostly the reason and the later ones are
//! its echo, but not always (`exited, status=1` comes before `Script … exited with -1`): so the
//! first line that a rule of [`rules`] knows is taken as the reason.

mod class;
mod follow;
mod phase;
mod rules;

pub(crate) use class::Class;
pub(crate) use follow::Follower;
pub(crate) use phase::Phase;
pub use phase::phase_of_line;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the end of a log is read. An error ends a run, so it stands near the end; the memory
/// maps of a large process, the longest thing between two errors, take some hundred KiB.
const TAIL: u64 = 2 << 20;

/// How many lines of the end a summary keeps.
const LAST_LINES: usize = 10;

/// The longest line that is kept; CRIU's own buffer has 1024 bytes.
const LONGEST: usize = 2048;

/// What CRIU was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `criu dump` or `criu pre-dump`.
    Dump,
    /// `criu restore`.
    Restore,
}

/// How it ended, as far as the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// CRIU says that it finished successfully.
    Succeeded,
    /// CRIU says that it failed.
    Failed,
    /// The log ends without a word: CRIU was killed, crashed, gave up before its work began, or
    /// still runs.
    Unfinished,
}

/// An error line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// The source file that wrote it, for example `criu/mount.c`.
    pub file: String,
    /// The line in that file.
    pub line: u32,
    /// The part of CRIU, where the message names one: `mnt`, `tty`, `net`, …
    pub subsystem: Option<String>,
    /// The message without all that.
    pub text: String,
}

impl fmt::Display for LogError {
    /// The message without the place in the sources, which tells a user nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subsystem {
            Some(subsystem) => write!(f, "{subsystem}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What a log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// What CRIU was at when the first real error came, or at the end of the log.
    pub phase: Option<Phase>,
    /// The first error that is not known to be harmless.
    pub first_error: Option<LogError>,
    /// The line by which the class was found; mostly the first error.
    pub reason: Option<LogError>,
    /// What kind of failure it is; [`Class::Unknown`] also after a success.
    pub class: Class,
    /// The end of the log.
    pub last_lines: Vec<String>,
}

impl Summary {
    /// The line to show: the one that tells the reason, else the first error.
    pub fn shown_error(&self) -> Option<&LogError> {
        self.reason.as_ref().or(self.first_error.as_ref())
    }
}

/// How bad a line of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Other,
}

/// A line without its time and task.
fn strip_prefixes(line: &str) -> &str {
    let mut rest = line.trim_end();
    if let Some((time, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')'))
        && time.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        rest = after;
    }
    rest = rest.trim_start();
    rest = rest.strip_prefix("pie: ").unwrap_or(rest);
    match rest.split_once(": ") {
        Some((pid, after)) if !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) => after,
        _ => rest,
    }
}

fn level(stripped: &str) -> Level {
    if stripped.starts_with("Error (") {
        Level::Error
    } else if stripped.starts_with("Warn  (") {
        Level::Warning
    } else {
        Level::Other
    }
}

/// Reads an `Error (file:line): …` or `Warn  (file:line): …` line.
fn parse_error(stripped: &str) -> Option<LogError> {
    let (place, text) = stripped.split_once('(')?.1.split_once("): ")?;
    let (file, line) = place.rsplit_once(':')?;
    let is_subsystem = |word: &str| {
        (2..=12).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && word.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let (subsystem, text) = match text.split_once(": ") {
        Some((word, text)) if is_subsystem(word) => (Some(word.to_owned()), text),
        _ => (None, text),
    };
    Some(LogError {
        file: file.to_owned(),
        line: line.parse().ok()?,
        subsystem,
        text: text.trim().to_owned(),
    })
}

/// The last word of a run, if this line is it.
fn outcome_of(stripped: &str) -> Option<Outcome> {
    const GOOD: &[&str] = &[
        "Dumping finished successfully",
        "Pre-dumping finished successfully",
        "Restore finished successfully",
    ];
    const BAD: &[&str] = &["Dumping FAILED.", "Pre-dumping FAILED.", "Restoring FAILED."];
    if GOOD.iter().any(|good| stripped.starts_with(good)) {
        Some(Outcome::Succeeded)
    } else if level(stripped) == Level::Error && BAD.iter().any(|bad| stripped.ends_with(bad)) {
        Some(Outcome::Failed)
    } else {
        None
    }
}

/// Tells what a log means. Any text will do; lines that are not CRIU's are passed over.
pub fn summarise(text: &str, operation: Operation) -> Summary {
    let mut outcome = Outcome::Unfinished;
    let mut phase = None;
    let mut first_error = None;
    let mut best: Option<(rules::Weight, Class, Option<LogError>, Option<Phase>)> = None;
    for line in text.lines() {
        let stripped = strip_prefixes(line);
        let last_word = outcome_of(stripped);
        outcome = last_word.unwrap_or(outcome);
        let level = level(stripped);
        // What CRIU does after an error is undoing.
        if level == Level::Other && first_error.is_none() {
            phase = phase_of_line(line).or(phase);
        }
        let error = if level == Level::Other { None } else { parse_error(stripped) };
        if last_word.is_some() || rules::is_harmless(stripped) {
            continue;
        }
        if let Some((weight, class)) = rules::classify(stripped, level, operation)
            && best.as_ref().is_none_or(|(old, ..)| weight > *old)
        {
            best = Some((weight, class, error.clone(), phase));
        }
        if level == Level::Error && first_error.is_none() {
            first_error = error;
        }
    }
    // A run that succeeded may have logged errors on its way; they were not its end.
    let (class, reason) = match best {
        Some((weight, class, error, at)) if outcome != Outcome::Succeeded => {
            // A warning comes before the error that it explains, and undoing may lie between them.
            phase = if weight == rules::Weight::Hint { at } else { phase };
            (class, error)
        }
        _ => (Class::Unknown, None),
    };
    if outcome == Outcome::Succeeded {
        first_error = None;
    }
    Summary { outcome, phase, first_error, reason, class, last_lines: last_lines(text) }
}

fn last_lines(text: &str) -> Vec<String> {
    let kept = text.lines().rev().filter(|l| !l.trim().is_empty()).take(LAST_LINES);
    let mut lines: Vec<String> = kept.map(|l| l.chars().take(LONGEST).collect()).collect();
    lines.reverse();
    lines
}

/// Tells what a log file means, from its last 2 MiB.
///
/// # Errors
/// When the file cannot be opened or read.
pub(crate) fn summarise_file(path: &Path, operation: Operation) -> io::Result<Summary> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    let start = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // The file may grow meanwhile.
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have lost its beginning.
    let whole = if start == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(summarise(whole, operation))
}

pub(crate) mod reader;
#[cfg(test)]
mod tests;
