//! CRIU's log while it grows, told as phases and, if wanted, line by line.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::criu::images;
use crate::criu::log::{Follower, phase_of_line};
use crate::report::Report;

/// How CRIU begins its last words (common/bug.h).
const CRASH: &str = "): BUG at ";

/// How often an amount is told that does not change: a monitor tells it over a pipe, and must not
/// wait for who has stopped reading.
const AMOUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Who reads it.
#[derive(Debug)]
pub(crate) struct LogReader<'a> {
    follower: Follower,
    /// Who is told.
    pub report: &'a mut dyn Report,
    phase: String,
    /// The amount that was told last, and when.
    amount: Option<(u64, Instant)>,
    crashed: bool,
}

impl<'a> LogReader<'a> {
    /// Reads this log, which need not be there yet.
    pub(crate) fn new(path: PathBuf, report: &'a mut dyn Report) -> LogReader<'a> {
        LogReader {
            follower: Follower::new(&path),
            report,
            phase: String::new(),
            amount: None,
            crashed: false,
        }
    }

    /// The log has another name now.
    pub(crate) fn moved(&mut self, path: &Path) {
        self.follower = Follower::from_offset(path, self.follower.offset());
    }

    /// Whether CRIU has run into what it takes for impossible (`BUG()`), as far as the log was
    /// read. A task that it is restoring then neither goes on nor ends, and CRIU waits for it for
    /// ever.
    pub(crate) fn tells_of_a_crash(&self) -> bool {
        self.crashed
    }

    /// How long it is by now.
    pub(crate) fn size(&self) -> u64 {
        self.follower.size()
    }

    /// Whether anybody wants to be told.
    pub(crate) fn wanted(&self) -> bool {
        self.report.wants_log() || self.report.wants_phases()
    }

    /// Tells how much memory the images in this directory hold: when it is more than before, and
    /// else once a second, for the time to be seen. It is nothing before they are written, and
    /// where the directory has another name by now.
    pub(crate) fn tell_amount(&mut self, dir: &Path) {
        if !self.report.wants_phases() {
            return;
        }
        let bytes = images::bytes_of_pages(dir).unwrap_or_default();
        let is_old = |(told, at): (u64, Instant)| told != bytes || at.elapsed() >= AMOUNT_INTERVAL;
        if bytes > 0 && self.amount.is_none_or(is_old) {
            self.report.amount(bytes);
            self.amount = Some((bytes, Instant::now()));
        }
    }

    /// Tells what has come.
    pub(crate) fn read(&mut self) {
        // A log that cannot be read now is told of when CRIU has ended.
        for line in self.follower.lines().unwrap_or_default() {
            self.crashed |= line.contains(CRASH);
            if self.report.wants_log() {
                self.report.log_line(&line);
            }
            if let Some(phase) = phase_of_line(&line) {
                let text = phase.to_string();
                if text != self.phase {
                    self.report.phase(&text);
                    self.phase = text;
                }
            }
        }
    }
}
