//! Processes that CRIU cannot stop, cannot restore, or does not see.

use super::finding::Finding;
use super::host::Caller;
use super::task::{Task, Tasks, kill};
use crate::lxc::typed;

/// Judges the processes themselves; pure. What the freezer of v1 has stopped (`frozen`) is in state D, too.
pub fn judge(tasks: &Tasks, caller: &Caller, frozen: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for task in tasks.tree.iter().filter(|t| !t.is_zombie()) {
        found.extend(session(task));
        found.extend(traced(task));
        found.extend(uninterruptible(task).filter(|_| !frozen));
        found.extend(limits(task, caller));
    }
    found.extend(attached(&tasks.attached));
    found.extend(labels(&tasks.tree));
    found
}

/// cr-dump.c: `A session leader of … is outside of its pid namespace`; `--shell-job` is no help.
fn session(task: &Task) -> Option<Finding> {
    (task.session == 0).then(|| {
        Finding::blocker(
            format!("{} was left behind by a command from outside (lxc-attach)", task.name()),
            "the leader of its session is outside of the container, and CRIU cannot restore such a session",
        )
        .at(task.place())
        .remedy(format!("end it: {}; or have it started with setsid", kill(task)))
    })
}

fn traced(task: &Task) -> Option<Finding> {
    (task.tracer != 0).then(|| {
        Finding::blocker(format!("{} is traced by process {}", task.name(), task.tracer), "CRIU has to trace it itself")
            .at(task.place())
            .remedy(format!("end the debugger or strace: kill {}", task.tracer))
    })
}

/// It may be over in a moment, so it is no blocker.
fn uninterruptible(task: &Task) -> Option<Finding> {
    (task.state == 'D').then(|| {
        Finding::warning(
            format!("{} waits in the kernel and cannot be interrupted (state D)", task.name()),
            "CRIU gives up if that lasts longer than 10 seconds",
        )
        .at(task.place())
        .remedy("wait until the disk or network file system that it waits for answers")
    })
}

/// prlimit(2) of a process with other ids wants CAP_SYS_RESOURCE in that process's user namespace.
fn limits(task: &Task, caller: &Caller) -> Option<Finding> {
    let same_ids = |ids: &[u32], own: u32| ids.iter().take(3).all(|id| *id == own);
    let allowed = caller.sys_resource
        || task.namespace("user") != caller.user_namespace
        || (same_ids(&task.uids, caller.uid) && same_ids(&task.gids, caller.gid));
    (!allowed).then(|| {
        Finding::blocker(
            format!("{} runs as user {}", task.name(), task.uids.first().copied().unwrap_or_default()),
            "this host's root has no CAP_SYS_RESOURCE, without which CRIU cannot read the limits of other users' processes",
        )
        .at(task.place())
        .remedy("give root that capability, or give the container an id map (lxc.idmap)")
    })
}

fn attached(tasks: &[Task]) -> Option<Finding> {
    let first = tasks.first()?;
    let names: Vec<String> = tasks.iter().map(|t| format!("{} ({})", t.pid, t.command)).collect();
    let pids: Vec<String> = tasks.iter().map(|t| t.pid.to_string()).collect();
    let (who, they, them) = match tasks.len() {
        1 => ("process", "was", "it"),
        _ => ("processes", "were", "them"),
    };
    Some(
        Finding::warning(
            format!("{who} {} {they} put into the container from outside (lxc-attach, nsenter)", names.join(", ")),
            format!("CRIU leaves {them} out: the checkpoint is without {them}, and a container that stops takes {them} along"),
        )
        .at(first.place())
        .remedy(format!("leave these shells, or end {them}: kill {}", pids.join(" "))),
    )
}

/// CRIU puts code into each process that talks to CRIU through a unix socket, which a profile of a program inside
/// the container may forbid: the process is killed then.
fn labels(tree: &[Task]) -> Vec<Finding> {
    let Some(init) = tree.first() else { return Vec::new() };
    let other = |t: &&Task| t.label != init.label && t.label.as_deref().is_some_and(|l| l != "unconfined");
    let tell = |task: &Task| {
        let label = task.label.as_deref().unwrap_or_default();
        Finding::warning(
            format!("{} is confined by the profile '{label}'", task.name()),
            "a profile that forbids unix sockets makes the dump fail, and may kill the process",
        )
        .at(task.place())
        .remedy(match typed::is_plain(label) {
            true => format!("if the dump fails with 'Permission denied', run in the container: aa-complain {label}"),
            false => "if the dump fails with 'Permission denied', put that profile into complain mode".to_owned(),
        })
    };
    tree.iter().filter(other).map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::task::tests::task;
    use super::*;

    fn root() -> Caller {
        Caller { uid: 0, gid: 0, sys_resource: true, user_namespace: Some(7) }
    }

    fn one(task: Task, caller: &Caller) -> Vec<Finding> {
        let tasks = Tasks { tree: vec![super::super::task::tests::task(101, "init"), task], ..Tasks::default() };
        judge(&tasks, caller, false)
    }

    #[test]
    fn healthy_processes_give_no_finding() {
        assert_eq!(one(task(105, "nginx"), &root()), []);
        assert_eq!(one(Task { state: 'Z', session: 0, ..task(105, "gone") }, &root()), []);
    }

    #[test]
    fn sessions_and_tracers_block() {
        let found = one(Task { session: 0, ..task(105, "sleep") }, &root());
        assert_eq!(found[0].severity, Severity::Blocker);
        assert!(found[0].remedy.contains("kill 105"), "{}", found[0].remedy);
        let found = one(Task { tracer: 77, ..task(105, "sleep") }, &root());
        assert!(found[0].remedy.ends_with("kill 77") && found[0].severity == Severity::Blocker);
    }

    #[test]
    fn other_users_block_only_a_root_without_the_capability() {
        let weak = Caller { sys_resource: false, ..root() };
        let postgres = Task { uids: vec![26; 4], ..task(105, "postgres") };
        assert_eq!(one(postgres.clone(), &root()), []);
        assert_eq!(one(postgres.clone(), &weak)[0].severity, Severity::Blocker);
        assert_eq!(one(task(105, "nginx"), &weak), []);
        // All capabilities in a user namespace that is a child of ours.
        let mut mapped = postgres;
        mapped.namespaces[7] = Some(99);
        assert_eq!(one(mapped, &weak), []);
    }

    #[test]
    fn attached_processes_are_told_together() {
        let attached = vec![task(300, "sh"), task(301, "vi")];
        let tasks = Tasks { tree: vec![task(101, "init")], attached, ..Tasks::default() };
        let found = judge(&tasks, &root(), false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].what.contains("300 (sh), 301 (vi)") && found[0].remedy.ends_with("kill 300 301"));
    }

    #[test]
    fn profiles_of_programs_are_named_but_not_inits() {
        let with = |label: Option<&str>, t: Task| Task { label: label.map(str::to_owned), ..t };
        let tree = vec![
            with(Some("lxc-container-default"), task(101, "init")),
            with(Some("lxc-container-default"), task(102, "a")),
            with(Some("mysqld"), task(103, "b")),
            with(Some("unconfined"), task(104, "c")),
        ];
        let found = judge(&Tasks { tree, ..Tasks::default() }, &root(), false);
        assert_eq!(found.iter().map(|f| f.place.pid).collect::<Vec<_>>(), [Some(103)]);
    }
}
