//! What the container was given by its configuration, or by who started it, and a restore cannot
//! give it again.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::task::{Task, Tasks};
use crate::lxc::config::Config;
use crate::resources::states::personality;

/// The files of a process that come back as they were: by CRIU, or by what we do after it.
const PROC: &[&str] = &["oom_score_adj", "oom_adj", "coredump_filter"];

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// The user whose process watches over the container.
    pub monitor: Option<u32>,
    /// The seccomp profile, if it has a process of the host decide on system calls.
    pub notifying: Option<PathBuf>,
    /// Files of init that LXC has written to (lxc.proc).
    pub proc_files: Vec<String>,
    /// The personality of each process, init's first.
    pub personalities: Vec<(Task, u32)>,
}

impl Given {
    /// Looks at a running container.
    pub(crate) fn read(config: &Config, tasks: &Tasks) -> Given {
        let monitor = tasks.tree.first().and_then(|init| monitors_user(init.pid));
        let notifying =
            config.seccomp_profile().filter(|profile| notifies(profile)).map(Path::to_owned);
        let proc_files = config.proc_items().iter().map(|(file, _)| file.clone()).collect();
        let alive = tasks.tree.iter().filter(|t| !t.is_zombie());
        let personalities =
            alive.filter_map(|t| Some((t.clone(), personality::of(t.pid)?))).collect();
        Given { monitor, notifying, proc_files, personalities }
    }
}

/// The user whose process watches over the container: the parent of its init.
pub(crate) fn monitors_user(init: i32) -> Option<u32> {
    let first = |pid: i32, key: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))?
            .split_ascii_whitespace()
            .next()
            .map(str::to_owned)
    };
    let parent = first(init, "PPid:")?.parse().ok()?;
    first(parent, "Uid:")?.parse().ok()
}

/// Whether a rule of a seccomp profile asks a listener. One that cannot be read is none that LXC
/// could have read.
fn notifies(profile: &Path) -> bool {
    let text = fs::read_to_string(profile).unwrap_or_default();
    text.lines().any(|line| line.split_ascii_whitespace().any(|word| word == "notify"))
}

/// Judges it; pure.
pub(crate) fn judge(given: &Given) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(given.monitor.filter(|uid| *uid != 0).map(of_a_user));
    found.extend(given.notifying.as_deref().map(listener));
    let lost: Vec<&str> =
        given.proc_files.iter().map(String::as_str).filter(|file| !PROC.contains(file)).collect();
    if !lost.is_empty() {
        found.push(Finding::warning(
            format!("its configuration sets lxc.proc.{}", lost.join(", lxc.proc.")),
            "CRIU does not save it: after a restore it is as the kernel makes it",
        ));
    }
    found.extend(other_personality(&given.personalities));
    found
}

/// Restored it would be a child of root's, and its user could not even stop it.
pub(crate) fn of_a_user(uid: u32) -> Finding {
    Finding::blocker(
        format!("it was started by user {uid}, not by root"),
        "restored it would be root's: its user could neither see nor stop it",
    )
    .on_restore()
    .remedy(
        "have root start it (an id map, lxc.idmap, keeps it unprivileged), or leave it to its user",
    )
}

fn listener(profile: &Path) -> Finding {
    Finding::blocker(
        format!(
            "its seccomp profile {} has a process of the host decide on system calls (notify)",
            profile.display()
        ),
        "CRIU restores the filter without its listener (lxc.seccomp.notify.proxy): these calls \
         would fail",
    )
    .on_restore()
    .remedy("remove the rules with 'notify' from the profile, and restart the container")
}

/// All get that of init, as far as CRIU can hand it on.
fn other_personality(all: &[(Task, u32)]) -> Option<Finding> {
    let (_, of_init) = all.first()?;
    let later = personality::to_be_handed_on(*of_init);
    let (task, now) = all.iter().find(|(_, now)| *now != later)?;
    Some(
        Finding::warning(
            format!("{} has the personality {now:#x} (setarch)", task.name()),
            format!(
                "CRIU does not restore it: after a restore it is {later:#x}, as that of all \
                 processes"
            ),
        )
        .at(task.place()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Fails, Severity};
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn what_cannot_be_given_again_blocks_its_stop() {
        assert_eq!(judge(&Given { monitor: Some(0), ..Given::default() }), []);
        for given in [
            Given { monitor: Some(1000), ..Given::default() },
            Given { notifying: Some("/p".into()), ..Given::default() },
        ] {
            let found = judge(&given);
            assert_eq!(
                (found[0].severity, found[0].fails),
                (Severity::Blocker, Fails::Restore),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_lost_is_named() {
        let files = |all: &[&str]| Given {
            proc_files: all.iter().map(|f| (*f).to_owned()).collect(),
            ..Given::default()
        };
        assert_eq!(judge(&files(&["oom_score_adj", "coredump_filter"])), []);
        assert_eq!(
            judge(&files(&["oom_score_adj", "autogroup"]))[0].what,
            "its configuration sets lxc.proc.autogroup"
        );
    }

    #[test]
    fn one_personality_for_all_is_no_finding() {
        let of = |all: &[u32]| all.iter().map(|p| (task(105, "x"), *p)).collect::<Vec<_>>();
        assert_eq!(other_personality(&of(&[0, 0])), None);
        assert_eq!(other_personality(&of(&[8, 8])), None);
        assert!(other_personality(&of(&[8, 0])).is_some());
        // READ_IMPLIES_EXEC.
        assert!(other_personality(&of(&[0x0040_0000])).is_some());
    }
}
