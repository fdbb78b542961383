//! What a person sees while a command works: phases on a terminal, CRIU's log with `-v`.

use std::io::IsTerminal;
use std::time::Instant;

use super::common::print_error;
use super::logger;
use crate::report::{Report, seconds, shown, shown_lines};
use crate::sys::journal::Priority;

/// Tells a person on standard error.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    log: bool,
    terminal: bool,
    begin: Instant,
    /// Whether a phase stands on the last line of the terminal.
    shown: bool,
}

impl Progress {
    /// `log` passes CRIU's log on.
    pub fn new(quiet: bool, log: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal() && !quiet && !log;
        Progress { quiet, log, terminal, begin: Instant::now(), shown: false }
    }

    /// Wipes the phase off the terminal, so that the next line begins at the left.
    pub fn clear(&mut self) {
        if self.shown {
            print_error("\r\x1b[K");
            self.shown = false;
        }
    }
}

impl Report for Progress {
    fn phase(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        print_error(&format!("\r\x1b[K{} … {}", shown(text), seconds(self.begin.elapsed())));
        self.shown = true;
    }

    fn note(&mut self, text: &str) {
        self.clear();
        logger::keep(Priority::Info, text);
        if !self.quiet {
            print_error(&format!("note: {}\n", shown(text)));
        }
    }

    fn log_line(&mut self, line: &str) {
        print_error(&format!("{}\n", shown_lines(line)));
    }

    fn wants_log(&self) -> bool {
        self.log
    }

    fn wants_phases(&self) -> bool {
        self.terminal
    }
}
