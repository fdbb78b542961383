//! A dump that is tried again, where that is the known cure ([`retry`](crate::retry)). CRIU has put the container back
//! when it gives up, and nothing is lost by asking again a moment later.

use crate::criu::log::Operation as CriuOperation;
use crate::criu::options::DUMP_LOG;
use crate::error::{Exit, Failure, Result};
use crate::report::Report;
use crate::retry::Tries;
use crate::rollback::Journal;
use crate::sys::files;
use crate::sys::netlink::Netlink;

use super::dump::{self, Dumped, Means};
use super::plan::Plan;
use super::{failure_of, target, undo};

/// Dumps the container.
///
/// # Errors
/// After the last failure all is undone, and the message tells all of them.
pub fn dump(
    means: &Means<'_>,
    plan: &Plan,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<Dumped> {
    let Means { request, running, limits, .. } = *means;
    let mut tries = Tries::new(CriuOperation::Dump, limits.deadline);
    loop {
        let _held = target::make(request, journal)?;
        let dumped = match dump::run(means, plan.clone(), journal, netlink, report) {
            Ok(dumped) => dumped,
            // CRIU could not be started or watched.
            Err(cause) => return Err(undo(request, running, DUMP_LOG, journal, Failure::new(Exit::Other, cause))),
        };
        let Some(failure) = failure_of(request, &dumped, running) else {
            if let Some(story) = tries.success() {
                report.note(&story);
                // The log of the failure before.
                files::remove_if_there(&target::failed_log(&request.images))?;
            }
            return Ok(dumped);
        };
        let (cure, pause) = tries.after(undo(request, running, DUMP_LOG, journal, failure))?;
        log::info!("{cure}");
        std::thread::sleep(pause);
    }
}
