//! CRIU's failures: in words for a person, and as a class of which a second try may be the cure
//! ([`retry`](crate::criu::retry)).

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::statvfs::statvfs;

use crate::criu::log::{self, Class, Operation};
use crate::criu::run::{GiveUp, status_in_words};
use crate::error::{Exit, Failure, Interrupted};
use crate::sys::netlink;

/// With less room than this for one more image, in bytes, a disk is full.
const ROOM: u64 = 64 << 10;

/// Why CRIU failed, as its log tells it.
#[derive(Debug)]
struct Reason {
    class: Class,
    text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Reason {}

/// The failure of a run of CRIU with its phase, its reason and the remedy, from its log.
pub(crate) fn describe(
    status: &ExitStatus,
    stderr: &str,
    log_file: &Path,
    operation: Operation,
    exit: Exit,
) -> Failure {
    let summary = match log::summarise_file(log_file, operation) {
        Ok(summary) => summary,
        Err(_) if is_full(log_file) => {
            let text = format!("CRIU failed: {}", Class::DiskFull.explain());
            return Failure::new(exit, Reason { class: Class::DiskFull, text })
                .hint(Class::DiskFull.remedy());
        }
        Err(_) if !stderr.is_empty() => {
            return Failure::msg(exit, format!("{}: {stderr}", status_in_words(status)));
        }
        Err(_) => {
            return Failure::msg(exit, format!("{} and left no log", status_in_words(status)));
        }
    };
    // CRIU's log may have been the first for which there was no room.
    let class = match summary.class {
        Class::Unknown if is_full(log_file) => Class::DiskFull,
        class => class,
    };
    let mut text = match summary.phase {
        Some(phase) => format!("CRIU failed while {phase}"),
        None => "CRIU failed".to_owned(),
    };
    if class != Class::Unknown {
        text = format!("{text}: {}", class.explain());
    }
    text = match summary.shown_error() {
        Some(error) => format!("{text}: {error}"),
        None => format!("{text}: {}", status_in_words(status)),
    };
    let failure = Failure::new(exit, Reason { class, text });
    if class == Class::Unknown { failure } else { failure.hint(class.remedy()) }
}

/// Whether there is no room left beside a file, for bytes or for files.
fn is_full(file: &Path) -> bool {
    let Some(Ok(stat)) = file.parent().map(statvfs) else { return false };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    free < ROOM || (stat.files() > 0 && stat.files_available() == 0)
}

/// Why a run of CRIU was given up.
pub(crate) fn in_words(why: GiveUp) -> String {
    match why {
        GiveUp::TimeLimit => "the time limit was reached".to_owned(),
        GiveUp::Signal(number) => Interrupted(number).to_string(),
        GiveUp::Standstill => "CRIU stood still and was ended".to_owned(),
        GiveUp::Lost => "the container's init was killed meanwhile".to_owned(),
    }
}

/// The class of a failure: by CRIU's log, or by what the kernel has answered to ourselves.
pub(crate) fn class_of(failure: &Failure) -> Class {
    let exists = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref::<netlink::Error>(), Some(netlink::Error::Exists))
    };
    match failure.cause.downcast_ref::<Reason>() {
        Some(reason) => reason.class,
        None if failure.cause.chain().any(exists) => Class::InterfaceExists,
        None => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use anyhow::Context;

    use super::*;

    #[test]
    fn the_class_is_known_whatever_is_said_around_it() {
        let top = tempfile::tempdir().unwrap();
        let log = top.path().join("restore.log");
        let line = "(00.1)      1: Error (criu/mount-v2.c:911): mnt-v2: Failed to copy sharing \
                    from source /srv to 412\n";
        std::fs::write(&log, line).unwrap();
        let mut failure =
            describe(&ExitStatus::from_raw(256), "", &log, Operation::Restore, Exit::CriuFailed)
                .log(log.clone());
        failure.cause = failure.cause.context("a restart");
        assert_eq!(class_of(&failure), Class::MountEngine);
        assert!(
            failure.to_string().ends_with("Failed to copy sharing from source /srv to 412"),
            "{failure}"
        );
        assert_eq!(class_of(&Failure::msg(Exit::CriuFailed, "CRIU failed")), Class::Unknown);

        let taken =
            Err::<(), _>(netlink::Error::Exists).context("make veth1 for eth0").unwrap_err();
        assert_eq!(
            class_of(&Failure::new(Exit::Other, taken.context("make the veth pairs"))),
            Class::InterfaceExists
        );
    }
}
