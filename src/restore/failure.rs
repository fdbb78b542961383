//! How a restore fails, in words.

use std::path::Path;

use crate::criu::failure::{describe, in_words};
use crate::criu::images;
use crate::criu::log::Operation as CriuOperation;
use crate::criu::options::RESTORE_LOG;
use crate::criu::run::{Ended, GiveUp};
use crate::error::{Exit, Failure, Interrupted};
use crate::resources::network::plan::Error;
use crate::store::record::Damage;

/// The failure for a checkpoint that is not what was written.
pub(super) fn damaged(dir: &Path, error: anyhow::Error) -> Failure {
    let exit = if error.is::<Damage>() { Exit::BadCheckpoint } else { Exit::Other };
    Failure::new(exit, error.context(format!("the checkpoint in {} is damaged", dir.display())))
}

/// Why the pager has ended the tasks.
pub(super) fn damaged_or_not(images: &Path, error: anyhow::Error) -> Failure {
    match error.is::<Damage>() {
        true => damaged(images, error),
        false => Failure::new(Exit::Other, error.context("fill its memory")),
    }
}

/// Why CRIU has not restored it. Of one that has crashed the log tells more than that we ended it.
pub(super) fn failure_of(ended: Ended, crashed: bool, images: &Path) -> Failure {
    match (ended.given_up, ended.refused) {
        (Some(why @ GiveUp::TimeLimit), _) => Failure::msg(Exit::TimeLimit, in_words(why)),
        (Some(GiveUp::Signal(number)), _) => Failure::new(Exit::Other, Interrupted(number)),
        (Some(why @ (GiveUp::Lost | GiveUp::Standstill)), _) if !crashed => {
            Failure::msg(Exit::CriuFailed, in_words(why))
        }
        (None, Some(refused)) if refused.is::<Damage>() => damaged(images, refused),
        (None, Some(refused)) => Failure::new(Exit::Other, refused),
        (None, None) | (Some(GiveUp::Lost | GiveUp::Standstill), _) => {
            let log = images.join(RESTORE_LOG);
            describe(&ended.status, &ended.stderr, &log, CriuOperation::Restore, Exit::CriuFailed)
        }
    }
}

/// The failure for what cannot be decided.
pub(super) fn no_plan(error: anyhow::Error) -> Failure {
    let hint = error.downcast_ref::<Error>().and_then(Error::hint);
    let exit = if error.is::<images::Error>() { Exit::BadCheckpoint } else { Exit::Refused };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
