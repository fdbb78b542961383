//! A dump that is tried again, where that is the known cure.
//!
//! Some reasons for which CRIU gives up pass by themselves: data that a process has not yet read, a connection that it
//! has not yet accepted, a process that is just being traced or just ends. CRIU has put the container back then, and
//! nothing is lost by asking again a moment later.

use std::time::{Duration, Instant};

use crate::criu::log::{self, Class, Operation as CriuOperation};
use crate::criu::options::DUMP_LOG;
use crate::error::{Exit, Failure, Result};
use crate::report::Report;
use crate::rollback::Journal;
use crate::sys::files;
use crate::sys::netlink::Netlink;

use super::dump::{self, Dumped, Means};
use super::plan::Plan;
use super::{Request, failed_log, failure_of, make_partial, partial, undo};

/// How long to wait before the second and the third try: for a busy process to come to it, then for a slow one.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];

/// Dumps the container. Says also which try it was that succeeded, from 1 on.
///
/// # Errors
/// After the last failure all is undone, and the message tells how often it was tried.
pub fn dump(
    means: &Means<'_>,
    plan: &Plan,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<(Dumped, usize)> {
    let Means { request, running, limits, .. } = *means;
    let mut pauses = PAUSES.iter();
    let mut number = 0;
    loop {
        number += 1;
        make_partial(request, journal)?;
        let dumped = match dump::run(means, plan.clone(), journal, netlink, report) {
            Ok(dumped) => dumped,
            // CRIU could not be started or watched.
            Err(cause) => return Err(undo(request, running, DUMP_LOG, journal, Failure::new(Exit::Other, cause))),
        };
        let Some(mut failure) = failure_of(request, &dumped, running) else {
            if number > 1 {
                // The log of the failure before.
                files::remove_if_there(&failed_log(&request.images))?;
            }
            return Ok((dumped, number));
        };
        let may_pass = failure.exit == Exit::CriuFailed && passes(reason(request));
        let in_time = |pause: &&Duration| limits.deadline.is_none_or(|deadline| Instant::now() + **pause < deadline);
        let pause = pauses.next().filter(|_| may_pass).filter(in_time);
        if pause.is_none() && number > 1 {
            failure.cause = failure.cause.context(format!("tried {number} times"));
        }
        if dumped.sealed
            && running.init.is_alive()
            && let Err(e) = dump::unseal(request, journal)
        {
            failure = failure.hint(format!("{e:#}"));
        }
        let failure = undo(request, running, DUMP_LOG, journal, failure);
        let Some(pause) = pause.filter(|_| failure.exit == Exit::CriuFailed) else { return Err(failure) };
        report.note(&format!("{failure}; trying again"));
        std::thread::sleep(*pause);
    }
}

/// What CRIU's log of the last try says, before it is put away.
fn reason(request: &Request) -> Class {
    let file = partial(&request.images).join(DUMP_LOG);
    log::summarise_file(&file, CriuOperation::Dump).map_or(Class::Unknown, |summary| summary.class)
}

/// Whether a reason may be over in a moment.
fn passes(reason: Class) -> bool {
    matches!(
        reason,
        Class::NetlinkData
            | Class::TcpInFlight
            | Class::WatchRace
            | Class::Unseizable
            | Class::Traced
            | Class::ProcessGone
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_as_it_is_is_not_tried_again() {
        assert!(passes(Class::NetlinkData) && passes(Class::Unseizable));
        for class in [Class::NestedNamespace, Class::DiskFull, Class::FreezeTimeout, Class::Unknown] {
            assert!(!passes(class), "{class:?}");
        }
    }
}
