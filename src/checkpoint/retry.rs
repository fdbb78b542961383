//! A dump that is tried again, where that is the known cure.
//!
//! Some reasons for which CRIU gives up pass by themselves: data that a process has not yet read, a connection that it
//! has not yet accepted, a process that is just being traced or just ends. CRIU has put the container back then, and
//! nothing is lost by asking again a moment later.

use std::time::{Duration, Instant};

use crate::criu::log::{self, Class, Operation as CriuOperation};
use crate::criu::options::DUMP_LOG;
use crate::criu::version::Criu;
use crate::error::{Exit, Failure, Result};
use crate::lxc::container::Running;
use crate::operation::Operation;
use crate::report::Report;
use crate::rollback::Journal;
use crate::settings::Settings;
use crate::sys::files;
use crate::sys::netlink::Netlink;

use super::dump::{self, Dumped};
use super::plan::Plan;
use super::{Request, failed_log, failure_of, make_partial, partial, undo};

/// How long to wait before the second and the third try: for a busy process to come to it, then for a slow one.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];

/// Dumps the container. Says also which try it was that succeeded, from 1 on.
///
/// # Errors
/// After the last failure all is undone, and the message tells how often it was tried.
#[allow(clippy::too_many_arguments)]
pub fn dump(
    request: &Request,
    settings: &Settings,
    criu: &Criu,
    plan: &Plan,
    running: &Running,
    operation: &Operation,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<(Dumped, usize)> {
    let begin = Instant::now();
    let mut pauses = PAUSES.iter();
    let mut number = 0;
    loop {
        number += 1;
        make_partial(request, journal)?;
        let Some(left) = time_left(settings, begin) else {
            let failure = Failure::msg(Exit::TimeLimit, "the time limit was reached");
            return Err(undo(request, running, DUMP_LOG, journal, failure));
        };
        let mut failure = match dump::run(request, &left, criu, plan.clone(), operation, journal, netlink, report) {
            Ok(dumped) => match failure_of(request, &dumped, running) {
                Some(failure) => failure,
                None => {
                    if number > 1 {
                        // The log of the failure before.
                        files::remove_if_there(&failed_log(&request.images))?;
                    }
                    return Ok((dumped, number));
                }
            },
            // CRIU could not be started or watched.
            Err(cause) => return Err(undo(request, running, DUMP_LOG, journal, Failure::new(Exit::Other, cause))),
        };
        let pause = pauses.next().filter(|_| failure.exit == Exit::CriuFailed && passes(reason(request)));
        if pause.is_none() && number > 1 {
            failure.cause = failure.cause.context(format!("tried {number} times"));
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

/// The settings with what is left of the time limit, which is for all tries together; none when it is used up.
fn time_left(settings: &Settings, begin: Instant) -> Option<Settings> {
    if settings.timeout == 0 {
        return Some(settings.clone());
    }
    // The first try has all of it.
    let left = settings.timeout.checked_sub(begin.elapsed().as_secs()).filter(|left| *left > 0)?;
    Some(Settings { timeout: left, ..settings.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_limit_is_for_all_tries() {
        let settings = |timeout| Settings { timeout, ..Settings::default() };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        assert_eq!(time_left(&settings(0), long_ago).unwrap().timeout, 0);
        assert_eq!(time_left(&settings(5), Instant::now()).unwrap().timeout, 5);
        assert_eq!(time_left(&settings(5), long_ago).unwrap().timeout, 2);
        assert!(time_left(&settings(3), long_ago).is_none());
    }

    #[test]
    fn what_stays_as_it_is_is_not_tried_again() {
        assert!(passes(Class::NetlinkData) && passes(Class::Unseizable));
        for class in [Class::NestedNamespace, Class::DiskFull, Class::FreezeTimeout, Class::Unknown] {
            assert!(!passes(class), "{class:?}");
        }
    }
}
