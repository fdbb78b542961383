//! A restore that is tried again, where that is the known cure ([`retry`](crate::criu::retry)). The
//! try before was undone by then, so each begins on a clean host; and with a plan of its own, for
//! the host may have changed, and terminals that restored tasks had are hung up by the tasks' end.

use crate::criu::log::Operation as CriuOperation;
use crate::criu::retry::{Cure, Tries};
use crate::error::Result;
use crate::report::Report;
use crate::resources::rootfs::Held;
use crate::rollback::Journal;
use crate::sys::netlink::Netlink;

use super::plan::Plan;
use crate::restore::attempt::{Inputs, Running, Work};

/// Restores the container; gives also the plan by which it was done in the end. `held` is its root,
/// if that was found good already; `decide` makes another plan.
///
/// # Errors
/// After the last failure all is undone, and the message tells all of them.
pub(super) fn restore(
    inputs: Inputs<'_>,
    mut plan: Plan,
    mut held: Option<Held>,
    decide: &dyn Fn(&mut Netlink) -> Result<Plan>,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<(Plan, Running)> {
    let mut tries = Tries::new(CriuOperation::Restore, inputs.deadline);
    loop {
        let mut work = Work::new(inputs, &plan, journal, netlink);
        let failure = match work.run(held.take(), report) {
            Ok(running) => {
                tries.success().iter().for_each(|story| report.note(story));
                return Ok((plan, running));
            }
            Err(failure) => work.undo(failure),
        };
        let (cure, pause) = tries.after(failure)?;
        log::info!("{cure}");
        std::thread::sleep(pause);
        let older_mount_engine = plan.older_mount_engine || cure == Cure::OlderMountEngine;
        plan =
            Plan { older_mount_engine, ..decide(netlink).map_err(|failure| tries.tell(failure))? };
    }
}
