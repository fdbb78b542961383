//! What a person sees while a command works: phases on a terminal, CRIU's log with `-v`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::common::{print_error, print_error_line};
use super::logger;
use crate::report::{Report, bytes, seconds, shown, shown_lines};
use crate::sys::systemd_journal::Priority;

/// Tells a person on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    log: bool,
    terminal: bool,
    begin: Instant,
    phase: String,
    /// The bytes of memory that were told last.
    amount: Option<u64>,
    /// The bytes that the phase has to move, where they are known.
    total: Option<u64>,
    /// When the phase began.
    phase_begin: Instant,
    /// Whether a phase stands on the last line of the terminal.
    shown: bool,
}

impl Progress {
    /// `log` passes CRIU's log on.
    pub(crate) fn new(quiet: bool, log: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal() && !quiet && !log;
        let begin = Instant::now();
        let phase = String::new();
        Progress {
            quiet,
            log,
            terminal,
            begin,
            phase,
            amount: None,
            total: None,
            phase_begin: begin,
            shown: false,
        }
    }

    /// The phase that has begun is to move this many bytes: it is shown with what is left of them.
    pub(crate) fn total(&mut self, bytes: u64) {
        (self.total, self.amount, self.phase_begin) = (Some(bytes), Some(0), Instant::now());
        self.show();
    }

    /// Wipes the phase off the terminal, so that the next line begins at the left.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            print_error("\r\x1b[K");
            self.shown = false;
        }
    }
}

/// What a terminal shows: "dumping the memory … 512.0 MiB, 1.204 s".
fn line(phase: &str, amount: Option<String>, since: Duration) -> String {
    let amount = amount.map(|amount| format!("{amount}, ")).unwrap_or_default();
    format!("{} … {amount}{}", shown(phase), seconds(since))
}

/// What is done of a known number of bytes, and how long the rest takes at that rate: "512.0 MiB of
/// 2.0 GiB (25 %), 9 s left".
fn share(done: u64, total: u64, since: Duration) -> String {
    let of = format!("{} of {}", bytes(done), bytes(total));
    match (done.saturating_mul(100).checked_div(total), total.saturating_sub(done)) {
        (Some(percent @ 1..), rest @ 1..) => {
            let left = since.as_secs_f64() * rest as f64 / done as f64;
            format!("{of} ({percent} %), {left:.0} s left")
        }
        (Some(percent), _) => format!("{of} ({percent} %)"),
        (None, _) => of,
    }
}

impl Progress {
    fn show(&mut self) {
        if self.terminal {
            let amount = match (self.amount, self.total) {
                (Some(done), Some(total)) => Some(share(done, total, self.phase_begin.elapsed())),
                (done, _) => done.map(bytes),
            };
            print_error(&format!("\r\x1b[K{}", line(&self.phase, amount, self.begin.elapsed())));
            self.shown = true;
        }
    }
}

impl Report for Progress {
    fn phase(&mut self, text: &str) {
        text.clone_into(&mut self.phase);
        logger::step(text);
        self.total = None;
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
            print_error_line(&format!("note: {text}"));
        }
    }

    fn log_line(&mut self, line: &str) {
        // With its tabs.
        print_error(&(shown_lines(line) + "\n"));
    }

    fn wants_log(&self) -> bool {
        self.log
    }

    fn wants_phases(&self) -> bool {
        self.terminal || logger::is_in_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_shown_with_its_size_and_time() {
        let since = Duration::from_millis(1204);
        assert_eq!(line("freezing", None, since), "freezing … 1.204 s");
        let amount = Some("512.0 MiB".to_owned());
        assert_eq!(
            line("dumping the memory", amount, since),
            "dumping the memory … 512.0 MiB, 1.204 s"
        );
    }

    #[test]
    fn what_is_left_is_shown_where_the_total_is_known() {
        let since = Duration::from_secs(3);
        assert_eq!(share(512 << 20, 2 << 30, since), "512.0 MiB of 2.0 GiB (25 %), 9 s left");
        assert_eq!(share(0, 2 << 30, since), "0 bytes of 2.0 GiB (0 %)");
        assert_eq!(share(2 << 30, 2 << 30, since), "2.0 GiB of 2.0 GiB (100 %)");
        assert_eq!(share(0, 0, since), "0 bytes of 0 bytes");
    }
}
