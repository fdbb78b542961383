//! What came of a row, and whether it may.

use super::{Expected, Row};

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as LXC made it.
    Same,
    /// Refused before the container was touched: the words.
    Refused(String),
    /// What differs was named before the container was stopped: the words.
    Named(String),
    /// LXC does not start it here: its words.
    NotHere(String),
    /// Something differs that nobody was told of. This must not be.
    Silent(String),
    /// It was stopped, and its restart fails. This must not be.
    Lost(String),
    /// The trial itself failed.
    Broken(String),
}

impl Outcome {
    /// The name under which it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Same => "same",
            Outcome::Refused(_) => "refused beforehand",
            Outcome::Named(_) => "named beforehand",
            Outcome::NotHere(_) => "not to be had here",
            Outcome::Silent(_) => "DIFFERENT IN SILENCE",
            Outcome::Lost(_) => "STOPPED AND CANNOT RETURN",
            Outcome::Broken(_) => "TRIAL FAILED",
        }
    }

    /// What was said.
    pub fn words(&self) -> &str {
        match self {
            Outcome::Same => "",
            Outcome::Refused(words) | Outcome::Named(words) | Outcome::NotHere(words) => words,
            Outcome::Silent(words) | Outcome::Lost(words) | Outcome::Broken(words) => words,
        }
    }

    /// Whether it is what the row says.
    pub fn is_as_expected(&self, row: &Row) -> bool {
        match (self, row.expected) {
            (Outcome::Same, Expected::Same) | (Outcome::NotHere(_), Expected::NotHere(_)) => true,
            (Outcome::Refused(words), Expected::Refused(expected)) => words.contains(expected),
            (Outcome::Named(words), Expected::Named(_, expected)) => words.contains(expected),
            _ => false,
        }
    }
}
