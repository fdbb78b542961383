//! What a person sees while a command works: phases on a terminal, CRIU's log with `-v`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::common::print_error;
use super::logger;
use crate::report::{Report, bytes, seconds, shown, shown_lines};
use crate::sys::journal::Priority;

/// Tells a person on standard error.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    log: bool,
    terminal: bool,
    begin: Instant,
    phase: String,
    /// The bytes of memory that were told last.
    amount: Option<u64>,
    /// Whether a phase stands on the last line of the terminal.
    shown: bool,
}

impl Progress {
    /// `log` passes CRIU's log on.
    pub fn new(quiet: bool, log: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal() && !quiet && !log;
        Progress { quiet, log, terminal, begin: Instant::now(), phase: String::new(), amount: None, shown: false }
    }

    /// Wipes the phase off the terminal, so that the next line begins at the left.
    pub fn clear(&mut self) {
        if self.shown {
            print_error("\r\x1b[K");
            self.shown = false;
        }
    }
}

/// What a terminal shows: "dumping the memory … 512.0 MiB, 1.204 s".
fn line(phase: &str, amount: Option<u64>, since: Duration) -> String {
    let amount = amount.map(|count| format!("{}, ", bytes(count))).unwrap_or_default();
    format!("{} … {amount}{}", shown(phase), seconds(since))
}

impl Progress {
    fn show(&mut self) {
        if self.terminal {
            print_error(&format!("\r\x1b[K{}", line(&self.phase, self.amount, self.begin.elapsed())));
            self.shown = true;
        }
    }
}

impl Report for Progress {
    fn phase(&mut self, text: &str) {
        text.clone_into(&mut self.phase);
        self.show();
    }

    fn amount(&mut self, bytes: u64) {
        self.amount = Some(bytes);
        self.show();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_shown_with_its_size_and_time() {
        let since = Duration::from_millis(1204);
        assert_eq!(line("freezing", None, since), "freezing … 1.204 s");
        assert_eq!(line("dumping the memory", Some(512 << 20), since), "dumping the memory … 512.0 MiB, 1.204 s");
    }
}
