//! What a story tells while it goes on. `cli` decides what of it a person sees, and how.

/// Somebody who is told.
pub trait Report: std::fmt::Debug {
    /// A phase begins: "writing memory".
    fn phase(&mut self, text: &str);

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

/// Nobody listens: for tests and for clean-ups.
#[derive(Debug)]
pub struct Silent;

impl Report for Silent {
    fn phase(&mut self, _text: &str) {}
    fn note(&mut self, _text: &str) {}
}

/// A number of bytes as a person reads it: "6.2 MiB".
pub fn bytes(count: u64) -> String {
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
pub fn seconds(time: std::time::Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_get_the_unit_that_reads_best() {
        assert_eq!(bytes(17), "17 bytes");
        assert_eq!(bytes(6_500_000), "6.2 MiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
