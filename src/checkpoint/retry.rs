//! A dump that is tried again, where that is the known cure ([`retry`](crate::criu::retry)). CRIU
//! has put the container back when it gives up, and nothing is lost by asking again a moment later.

use std::path::Path;
use std::time::Duration;

use crate::criu::log::Operation as CriuOperation;
use crate::criu::options::{AfterDump, DUMP_LOG, PRE_DUMP_LOG};
use crate::criu::retry::Tries;
use crate::error::{Exit, Failure, Result};
use crate::lxc::container::Running;
use crate::report::Report;
use crate::rollback::{Journal, Undo};
use crate::sys::files;
use crate::sys::netlink::Netlink;

use super::dump::{self, Dumped, Means};
use super::failure::{failure_of, undo};
use super::plan::Plan;
use super::precopy::{self, Copied};
use crate::checkpoint::directories;

/// How long an init takes at most to end that a killed CRIU has left in the middle of code that is
/// not its own.
const END_OF_INIT: Duration = Duration::from_millis(200);

/// A dump that succeeded.
#[derive(Debug)]
pub(super) struct Done {
    /// How it ended.
    pub dumped: Dumped,
    /// What was copied before it.
    pub precopied: Option<Copied>,
}

/// Lets the tasks go whom a killed CRIU has left, and waits for what becomes of init, before
/// anything is said of it.
fn let_go(running: &Running, journal: &mut Journal) {
    if let Err(e) = journal.play_back_these(&|undo| matches!(undo, Undo::Release(_))) {
        // It stays in the journal, which is played back next.
        log::info!("{e:#}");
    }
    if let Err(e) = running.init.wait_exit(END_OF_INIT) {
        log::debug!("wait for init: {e}");
    }
}

/// What others have written to the same file system is not to be waited for while the container
/// stands still. The sync that counts comes then, and tells what fails.
fn sync_beforehand(dir: &Path, report: &mut dyn Report) {
    report.phase("syncing the disk");
    if let Err(e) = files::sync_file_system(dir) {
        log::info!("{e:#}");
    }
}

/// Dumps the container.
///
/// # Errors
/// After the last failure all is undone, and the message tells all of them.
pub(super) fn dump(
    means: &Means<'_>,
    plan: &Plan,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<Done> {
    let Means { request, defined, running, limits, .. } = *means;
    let mut tries = Tries::new(CriuOperation::Dump, limits.deadline);
    loop {
        let target = directories::make(request, defined, journal)
            .map_err(|failure| undo(request, running, DUMP_LOG, journal, failure))?;
        if means.settings.sync && request.after == AfterDump::Stop {
            sync_beforehand(&directories::partial(&request.images), report);
        }
        // A try that failed has taken its copies with it.
        let mut plan = plan.clone();
        let precopied = precopy::copy(means, &mut plan, &target, report)
            .map_err(|failure| undo(request, running, PRE_DUMP_LOG, journal, failure))?;
        let mut dumped = match dump::run(means, plan, target, journal, netlink, report) {
            Ok(dumped) => dumped,
            // CRIU could not be started or watched.
            Err(cause) => {
                return Err(undo(
                    request,
                    running,
                    DUMP_LOG,
                    journal,
                    Failure::new(Exit::Other, cause),
                ));
            }
        };
        if dumped.ended.was_killed() {
            let_go(running, journal);
        }
        let Some(failure) = failure_of(request, &mut dumped, running) else {
            if let Some(story) = tries.success() {
                report.note(&story);
                // The log of the failure before.
                files::remove_if_there(&directories::failed_log(&request.images))?;
            }
            return Ok(Done { dumped, precopied });
        };
        let (cure, pause) = tries.after(undo(request, running, DUMP_LOG, journal, failure))?;
        log::info!("{cure}");
        std::thread::sleep(pause);
    }
}
