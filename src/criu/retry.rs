//! What a second try may cure. Here it is decided and put into words; the stories do it, each time
//! after the failed try was undone as a whole.
//!
//! Some reasons for which CRIU gives up pass by themselves: data that a process has not yet read, a
//! connection that it has not yet accepted, a process that is just being traced or just ends, the
//! name of a link that is about to go. Others lie in the way that CRIU takes, and there is another
//! way.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::criu::failure::class_of;
use crate::criu::log::{Class, Operation};
use crate::error::{Exit, Failure};

/// How long to wait before the second and the third try: for a busy process to come to it, then for
/// a slow one.
pub(crate) const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Time. (Whatever is decided by what is there is decided anew.)
    Time,
    /// CRIU's older way of making mounts: the newer one copies their place among shared mounts from
    /// where they come from, and gives up where that is not what it was.
    OlderMountEngine,
}

impl Cure {
    /// What may help against a failure of this class; none against what stays as it is.
    fn of(operation: Operation, class: Class) -> Option<Cure> {
        use Class::*;
        match (operation, class) {
            (
                Operation::Dump,
                NetlinkData | QueuedCredentials | UnixRequest | TcpInFlight | WatchRace,
            ) => Some(Cure::Time),
            (Operation::Dump, Unseizable | Traced | ProcessGone) => Some(Cure::Time),
            // A container that has just been started has LXC's terminals for a moment.
            (Operation::Dump, ControllingTty | TtyMasterMissing) => Some(Cure::Time),
            (Operation::Restore, InterfaceExists) => Some(Cure::Time),
            (Operation::Restore, MountEngine) => Some(Cure::OlderMountEngine),
            _ => None,
        }
    }

    /// How long to wait before each of the tries; after these it is given up.
    fn pauses(self) -> &'static [Duration] {
        match self {
            Cure::Time => &PAUSES,
            // It would fail the same way the next time.
            Cure::OlderMountEngine => &[Duration::ZERO],
        }
    }
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cure::Time => "tried again a moment later",
            Cure::OlderMountEngine => {
                "tried again with CRIU's older mount engine (--mntns-compat-mode)"
            }
        })
    }
}

/// The tries of a command.
#[derive(Debug)]
pub(crate) struct Tries {
    operation: Operation,
    deadline: Option<Instant>,
    /// What failed, and what was tried then.
    failed: Vec<(String, Cure)>,
}

impl Tries {
    /// The first is to come. Of its time limit no try gets a part that is over.
    pub(crate) fn new(operation: Operation, deadline: Option<Instant>) -> Tries {
        Tries { operation, deadline, failed: Vec::new() }
    }

    /// What to do after a failure that was undone, and how long to wait before.
    ///
    /// # Errors
    /// Nothing: the failure, failed with all that came before it.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<(Cure, Duration), Failure> {
        // After any other end the host is not as it was, or somebody has asked us to end.
        let undone = matches!(failure.exit, Exit::CriuFailed | Exit::Other);
        let again =
            Cure::of(self.operation, class_of(&failure)).filter(|_| undone).and_then(|cure| {
                let before = self.failed.iter().filter(|(_, tried)| *tried == cure).count();
                let pause = *cure.pauses().get(before)?;
                self.deadline
                    .is_none_or(|deadline| Instant::now() + pause < deadline)
                    .then_some((cure, pause))
            });
        match again {
            Some((cure, pause)) => {
                self.failed.push((failure.to_string(), cure));
                Ok((cure, pause))
            }
            None => Err(self.tell(failure)),
        }
    }

    /// The last failure, with those before it.
    pub(crate) fn tell(&self, mut failure: Failure) -> Failure {
        if !self.failed.is_empty() {
            failure.cause = anyhow!(self.story(&failure.to_string()));
        }
        failure
    }

    /// How it came to a success that is not the first try's.
    pub(crate) fn success(&self) -> Option<String> {
        (!self.failed.is_empty()).then(|| self.story("it worked"))
    }

    fn story(&self, end: &str) -> String {
        let mut story = String::new();
        let ends = self.failed.iter().skip(1).map(|(what, _)| what.as_str()).chain([end]);
        let mut before = self.failed.first().map_or("", |(what, _)| what);
        story += before;
        for ((_, cure), end) in self.failed.iter().zip(ends) {
            let failed = if end == before { "the same" } else { end };
            story += &format!("; {cure}: {failed}");
            before = end;
        }
        story
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;
    use crate::criu::failure::describe;
    use crate::sys::netlink;

    fn taken() -> Failure {
        Failure::new(Exit::Other, anyhow::Error::from(netlink::Error::Exists).context("make veth1"))
    }

    #[test]
    fn only_what_passes_or_has_another_way_is_tried_again() {
        use Cure::*;
        use Operation::*;
        for (operation, class, cure) in [
            (Dump, Class::NetlinkData, Some(Time)),
            (Dump, Class::QueuedCredentials, Some(Time)),
            (Dump, Class::TcpInFlight, Some(Time)),
            (Dump, Class::UnixRequest, Some(Time)),
            (Dump, Class::WatchRace, Some(Time)),
            (Dump, Class::Unseizable, Some(Time)),
            (Dump, Class::Traced, Some(Time)),
            (Dump, Class::ProcessGone, Some(Time)),
            (Dump, Class::MountEngine, None),
            (Dump, Class::NestedNamespace, None),
            (Dump, Class::FreezeTimeout, None),
            (Restore, Class::MountEngine, Some(OlderMountEngine)),
            (Restore, Class::InterfaceExists, Some(Time)),
            (Restore, Class::NetlinkData, None),
            (Restore, Class::DiskFull, None),
            (Restore, Class::Unknown, None),
        ] {
            assert_eq!(Cure::of(operation, class), cure, "{class:?}");
        }
    }

    #[test]
    fn twice_and_no_more_and_all_is_told() {
        let mut tries = Tries::new(Operation::Restore, None);
        assert_eq!(tries.success(), None);
        for pause in PAUSES {
            assert_eq!(tries.after(taken()).unwrap(), (Cure::Time, pause));
        }
        assert_eq!(
            tries.success().unwrap(),
            "make veth1: it exists already; tried again a moment later: the same; tried again a \
             moment later: it worked"
        );
        let end = tries.after(taken()).unwrap_err().to_string();
        assert!(end.ends_with("tried again a moment later: the same"), "{end}");
        let other =
            tries.after(Failure::msg(Exit::CriuFailed, "CRIU failed")).unwrap_err().to_string();
        assert!(other.ends_with(": the same; tried again a moment later: CRIU failed"), "{other}");
    }

    /// A line of a user's log: here no way was found to make it happen, as the kernel tells a
    /// handle of every watched file.
    #[test]
    fn a_watched_file_that_vanished_is_looked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("dump.log");
        let line = "(00.01) Error (criu/proc_parse.c:2272): parse_fdinfo_pid_s: \
                    error parsing [inotify wd:48 ino:1 sdev:1a mask:2 ignored_mask:0 ] for 17\n";
        std::fs::write(&log, line).unwrap();
        let failure =
            describe(&ExitStatus::from_raw(256), "", &log, Operation::Dump, Exit::CriuFailed);
        let mut tries = Tries::new(Operation::Dump, None);
        assert_eq!(tries.after(failure).unwrap(), (Cure::Time, PAUSES[0]));
        let story = tries.success().unwrap();
        assert!(
            story.contains("a watched file vanished") && story.ends_with("moment later: it worked"),
            "{story}"
        );
    }

    #[test]
    fn what_was_not_undone_or_has_no_time_left_is_not_tried_again() {
        let mut tries = Tries::new(Operation::Restore, None);
        for exit in [Exit::RollbackIncomplete, Exit::ContainerLost, Exit::TimeLimit] {
            assert!(tries.after(Failure { exit, ..taken() }).is_err(), "{exit:?}");
        }
        let mut late = Tries::new(Operation::Restore, Some(Instant::now() + PAUSES[0] / 2));
        assert_eq!(late.after(taken()).unwrap_err().to_string(), "make veth1: it exists already");
    }
}
