//! What ends a command early: a signal, or its time limit.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::criu::failure::in_words;
use crate::criu::run::GiveUp;
use crate::error::{self, Exit, Failure, Interrupted};
use crate::preflight::entry::deadline;
use crate::settings::Settings;
use crate::sys::signals::Signals;

/// How the container is before anything is done.
const UNTOUCHED: &str = "it was not touched";

/// What ends a command before it is done.
#[derive(Debug)]
pub(crate) struct Limits {
    /// The signals that ask it to end. Taken before anything is changed, so that none finds a
    /// change without its undo.
    pub signals: Signals,
    /// When it gives up by itself.
    pub deadline: Option<Instant>,
}

impl Limits {
    /// From now on.
    pub(crate) fn begin(settings: &Settings) -> Result<Limits> {
        Ok(Limits {
            signals: Signals::of_termination().context("take signals")?,
            deadline: deadline(settings),
        })
    }

    /// Whether to go on, while nothing is changed yet.
    ///
    /// # Errors
    /// When a signal has come that asks for the end, or the time is over.
    pub(crate) fn check(&self) -> error::Result<()> {
        while let Some(received) = self.signals.next().context("read a signal")? {
            if received.asks_to_give_up() {
                return Err(
                    Failure::new(Exit::Other, Interrupted(received.number)).state(UNTOUCHED)
                );
            }
        }
        match self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            true => {
                Err(Failure::msg(Exit::TimeLimit, in_words(GiveUp::TimeLimit)).state(UNTOUCHED))
            }
            false => Ok(()),
        }
    }
}
