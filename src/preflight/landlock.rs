//! Processes that Landlock confines. The kernel does not show that, CRIU does not save it, and
//! nothing can give it back.
//!
//! But it can be noticed: a process in a domain of Landlock may not look into one outside of it,
//! whatever else it may. So each is asked to compare another process with itself (kcmp(2)), one
//! that it may look into by all other rules. Where there is no such process (a user's only one), it
//! is not noticed.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::finding::Finding;
use super::task::{Task, Tasks, end};
use crate::sys::inject::{self, Stopped};
use crate::sys::landlock;

/// What decides over who may look into whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rights {
    /// Its number in the container.
    pid: i32,
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// Its capabilities: those that it may have, and those that it has.
    permitted: u64,
    effective: u64,
    users: Option<u64>,
    /// Whether its owner may look into it at all: not after a change of user, for instance.
    open_to_owner: bool,
}

impl Rights {
    /// None when it has ended.
    fn of(task: &Task) -> Option<Rights> {
        let status = fs::read_to_string(format!("/proc/{}/status", task.pid)).ok()?;
        let set = |name: &str| {
            let text = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(text.trim(), 16).ok()
        };
        let owner = fs::metadata(format!("/proc/{}", task.pid)).ok()?.uid();
        Some(Rights {
            pid: task.pid_inside,
            uids: task.uids.clone(),
            gids: task.gids.clone(),
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
            users: task.namespace("user"),
            // What is closed to its owner is root's.
            open_to_owner: owner != 0 && task.uids.first() == Some(&owner),
        })
    }

    /// Whether it may look into another by what is not Landlock's (kernel/ptrace.c:
    /// `__ptrace_may_access`).
    fn may_look_into(&self, other: &Rights) -> bool {
        const SYS_PTRACE: u64 = 1 << 19;
        let one_user = |ids: &[u32], others: &[u32]| {
            ids.first().is_some_and(|own| ids.iter().chain(others).all(|id| id == own))
        };
        let same = one_user(&self.uids, &other.uids) && one_user(&self.gids, &other.gids);
        let as_owner = same && other.open_to_owner && other.permitted & !self.permitted == 0;
        self.users == other.users
            && self.pid != other.pid
            && (as_owner || self.effective & SYS_PTRACE != 0)
    }
}

/// The processes that are confined.
pub(crate) fn read(tasks: &Tasks) -> Vec<&Task> {
    if !landlock::is_on() {
        return Vec::new();
    }
    let alive = tasks.tree.iter().filter(|task| matches!(task.state, 'R' | 'S'));
    let all: Vec<(&Task, Rights)> =
        alive.filter_map(|task| Some((task, Rights::of(task)?))).collect();
    let is_confined = |(task, rights): &(&Task, Rights)| {
        // Init comes first. One that can be looked into may be of the same domain.
        let others: Vec<i32> = all
            .iter()
            .filter(|(_, other)| rights.may_look_into(other))
            .map(|(_, other)| other.pid)
            .take(LOOKS)
            .collect();
        !others.is_empty()
            && inject::with(task.pid, |stopped| Ok(is_kept_out(stopped, rights.pid, &others)))
                .unwrap_or(false)
    };
    all.iter().filter(|it| is_confined(it)).map(|(task, _)| *task).collect()
}

/// How many others it is asked for.
const LOOKS: usize = 4;

/// Whether it may look into itself, and not into one of these.
fn is_kept_out(stopped: &Stopped, own: i32, others: &[i32]) -> bool {
    const KCMP_FILES: u64 = 2;
    let look = |pid: i32| {
        let pid = u64::from(pid.cast_unsigned());
        stopped.call(libc::SYS_kcmp, &[pid, pid, KCMP_FILES, 0, 0])
    };
    let denied = |pid: &i32| look(*pid).is_err_and(|e| e.raw_os_error() == Some(libc::EPERM));
    look(own).is_ok() && others.iter().any(denied)
}

/// Judges them; pure.
pub(crate) fn judge(confined: &[&Task]) -> Vec<Finding> {
    let finding = |task: &&Task| {
        let what = format!("{} is confined by Landlock", task.name());
        let why = "CRIU does not restore that: it would have the access back that it has given up";
        Finding::blocker(what, why).on_restore().at(task.place()).remedy(end(task))
    };
    confined.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Fails, Severity};
    use super::super::task::tests::task;
    use super::*;

    fn root(pid: i32) -> Rights {
        let all = (1 << 41) - 1;
        let ids = vec![0; 4];
        let (uids, gids) = (ids.clone(), ids);
        Rights {
            pid,
            uids,
            gids,
            permitted: all,
            effective: all,
            users: Some(1),
            open_to_owner: false,
        }
    }

    #[test]
    fn who_may_look_into_whom_is_known_where_landlock_is_not() {
        let user = |pid| Rights {
            uids: vec![33; 4],
            gids: vec![33; 4],
            permitted: 0,
            effective: 0,
            open_to_owner: true,
            ..root(pid)
        };
        assert!(root(2).may_look_into(&root(1)) && root(2).may_look_into(&user(3)));
        assert!(user(3).may_look_into(&user(4)) && !user(3).may_look_into(&root(1)));
        assert!(!user(3).may_look_into(&user(3)), "it may always look into itself");
        assert!(!user(3).may_look_into(&Rights { open_to_owner: false, ..user(4) }));
        assert!(!root(2).may_look_into(&Rights { users: Some(2), ..root(1) }));
        assert!(!Rights { effective: 0, ..root(2) }.may_look_into(&root(1)));
    }

    #[test]
    fn what_would_be_lost_blocks_the_restore() {
        let found = judge(&[&task(105, "suricata")]);
        assert_eq!((found[0].severity, found[0].fails), (Severity::Blocker, Fails::Restore));
    }
}
