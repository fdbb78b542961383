//! CRIU's log while it grows, told as phases and, if wanted, line by line.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::criu::log::{Follower, phase_of_line};
use crate::criu::run::Watch;
use crate::report::Report;

/// How CRIU begins its last words (common/bug.h).
const CRASH: &str = "): BUG at ";

/// Who reads it.
#[derive(Debug)]
pub struct LogReader<'a> {
    follower: Follower,
    /// Who is told.
    pub report: &'a mut dyn Report,
    phase: String,
    crashed: bool,
}

impl<'a> LogReader<'a> {
    /// Reads this log, which need not be there yet.
    pub fn new(path: PathBuf, report: &'a mut dyn Report) -> LogReader<'a> {
        LogReader { follower: Follower::new(&path), report, phase: String::new(), crashed: false }
    }

    /// The log has another name now.
    pub fn moved(&mut self, path: &Path) {
        self.follower = Follower::from_offset(path, self.follower.offset());
    }

    /// Whether CRIU has run into what it takes for impossible (`BUG()`), as far as the log was read. A task that it is
    /// restoring then neither goes on nor ends, and CRIU waits for it for ever.
    pub fn tells_of_a_crash(&self) -> bool {
        self.crashed
    }

    /// Whether anybody wants to be told.
    pub fn wanted(&self) -> bool {
        self.report.wants_log() || self.report.wants_phases()
    }

    /// Tells what has come.
    pub fn read(&mut self) {
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

/// A run in which nothing is to be done but to watch.
impl Watch for LogReader<'_> {
    fn action(&mut self, _action: &str, _init_pid: Option<i32>) -> Result<()> {
        Ok(())
    }

    fn wants_ticks(&self) -> bool {
        self.wanted()
    }

    fn tick(&mut self) {
        self.read();
    }
}
