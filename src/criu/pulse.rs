//! Whether a CRIU gets on: it uses time, its images or its log grow, or what it has restored so far
//! does something.

use std::time::{Duration, Instant};

/// Something that changes as long as a work gets on.
#[derive(Debug)]
pub(crate) struct Pulse {
    known: Option<u64>,
    since: Instant,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { known: None, since: Instant::now() }
    }
}

impl Pulse {
    /// For how long it has been what it is now. What cannot be known counts as a change.
    pub(crate) fn stands_still_for(&mut self, now: Option<u64>) -> Duration {
        if now.is_none() || self.known != now {
            self.known = now;
            self.since = Instant::now();
        }
        self.since.elapsed()
    }

    /// Something has been done that shows nowhere else.
    pub(crate) fn beat(&mut self) {
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_change_stands_still() {
        let mut pulse = Pulse { known: Some(1), since: Instant::now() - Duration::from_secs(9) };
        assert!(pulse.stands_still_for(Some(1)) >= Duration::from_secs(9));
        assert!(pulse.stands_still_for(Some(2)) < Duration::from_secs(1));
        pulse.since -= Duration::from_secs(9);
        assert!(pulse.stands_still_for(None) < Duration::from_secs(1));
        pulse.since -= Duration::from_secs(9);
        pulse.beat();
        assert!(pulse.stands_still_for(None) < Duration::from_secs(1));
    }
}
