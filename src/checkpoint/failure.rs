//! How a checkpoint fails: in words, with everything rolled back, and with the state in which the
//! container is.

use std::fs;
use std::path::Path;

use anyhow::anyhow;

use super::dump::Dumped;
use super::{Request, directories, links};
use crate::criu::failure::{describe, in_words};
use crate::criu::log::Operation as CriuOperation;
use crate::criu::options::{DUMP_LOG, RESTORE_LOG};
use crate::criu::run::{Ended, GiveUp};
use crate::error::{Exit, Failure, Interrupted};
use crate::lxc::container::Running;
use crate::lxc::shell;
use crate::rollback::{Journal, Undo};
use crate::sys::files;

/// The failure that a dump ended in, if it did not succeed.
pub(super) fn failure_of(
    request: &Request,
    dumped: &mut Dumped,
    running: &Running,
) -> Option<Failure> {
    // CRIU has put the container back, for it was told to.
    if let Some(refused) =
        dumped.refused.take_if(|_| running.init.goes_on() && dumped.ended.given_up.is_none())
    {
        return Some(refused);
    }
    let ended = &dumped.ended;
    let stopped = !running.init.goes_on();
    if ended.success() || dumped.sealed {
        return None;
    }
    let exit = exit_of(ended.given_up, stopped);
    Some(explain(ended, &directories::partial(&request.images), DUMP_LOG, exit))
}

/// What a run of CRIU that failed comes to; `stopped` where the container is no more.
pub(super) fn exit_of(given_up: Option<GiveUp>, stopped: bool) -> Exit {
    match (given_up, stopped) {
        (Some(GiveUp::TimeLimit), false) => Exit::TimeLimit,
        (Some(GiveUp::Signal(_) | GiveUp::Lost), false) => Exit::Other,
        (Some(GiveUp::Standstill), false) => Exit::CriuFailed,
        (_, true) => Exit::ContainerLost,
        (None, false) => Exit::CriuFailed,
    }
}

/// Puts CRIU's failure into words.
pub(super) fn explain(ended: &Ended, dir: &Path, log: &str, exit: Exit) -> Failure {
    match ended.given_up {
        Some(GiveUp::Signal(number)) => return Failure::new(exit, Interrupted(number)),
        Some(why) => return Failure::msg(exit, in_words(why)),
        None => {}
    }
    if let Some(refused) = &ended.refused {
        let failure = Failure::msg(exit, format!("{refused:#}"));
        return match refused.is::<links::BehindLink>() && exit == Exit::CriuFailed {
            true => Failure { exit: Exit::Refused, ..failure }.hint(
                "remove that link in the container, or restart the program that has the file open",
            ),
            false => failure,
        };
    }
    describe(&ended.status, &ended.stderr, &dir.join(log), CriuOperation::Dump, exit)
}

/// Undoes what was done, keeps the log, and completes the failure with the state of the container.
pub(super) fn undo(
    request: &Request,
    running: &Running,
    log: &str,
    journal: &mut Journal,
    mut failure: Failure,
) -> Failure {
    let dir = directories::partial(&request.images);
    // That of a rehearsal, if there is one: then the dump itself went well.
    let log = [RESTORE_LOG, log].into_iter().map(|log| dir.join(log)).find(|log| log.exists());
    let kept = directories::failed_log(&request.images);
    let log = log.unwrap_or_else(|| dir.join(DUMP_LOG));
    if log.exists() {
        failure.log = match fs::rename(&log, &kept) {
            Ok(()) => Some(kept),
            Err(_) => None,
        };
        // Else it would be kept in that one's place.
        if log.ends_with(RESTORE_LOG)
            && let Err(e) = files::remove_if_there(&dir.join(DUMP_LOG))
        {
            log::info!("{e:#}");
        }
    }
    let alive = running.init.goes_on();
    // CRIU writes this one when it has all the others.
    let complete = dir.join("inventory.img").exists();
    if !alive && complete {
        // The images are all that is left of it.
        let keep = journal.forget(|u| matches!(u, Undo::RemoveImages { .. }));
        failure = failure.hint(match keep {
            Ok(()) => {
                let (options, dir) =
                    (shell::options(&request.name, &request.lxcpath), dir.to_string_lossy());
                format!(
                    "it may come back from there: lxc-restart {options} -D {}",
                    shell::quoted(&dir)
                )
            }
            Err(e) => format!("the images are in {}: {e:#}", dir.display()),
        });
    }
    let rolled_back = journal.play_back();
    failure.state = Some(match (alive, &rolled_back) {
        (true, Ok(())) => format!("{} is running as before", request.name),
        (true, Err(_)) => format!("{} is running, but not all could be put back", request.name),
        (false, _) if complete => {
            format!("{} has ended; what was written is in {}", request.name, dir.display())
        }
        (false, _) => {
            format!("{} has ended; nothing was written that could bring it back", request.name)
        }
    });
    if let Err(e) = rolled_back {
        failure.exit = Exit::RollbackIncomplete;
        failure.cause = anyhow!("{:#}; undoing it: {e:#}", failure.cause);
    }
    failure
}
