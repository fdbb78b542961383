//! Processes that CRIU cannot stop, cannot restore, or does not see.

use std::path::{Path, PathBuf};

use super::Names;
use super::finding::Finding;
use super::host::Caller;
use super::task::{Task, Tasks, end};
use crate::lxc::shell;

/// Judges the processes themselves; pure. What the freezer of v1 has stopped (`frozen`) is in state
/// D, too.
pub(crate) fn judge(tasks: &Tasks, caller: &Caller, frozen: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for task in tasks.tree.iter().filter(|t| !t.is_zombie()) {
        found.extend(session(task));
        found.extend(traced(task));
        found.extend(uninterruptible(task).filter(|_| !frozen));
        found.extend(limits(task, caller));
    }
    found.extend(zombies(&tasks.tree));
    found.extend(attached(&tasks.attached));
    found.extend(labels(&tasks.tree));
    found
}

/// cr-dump.c: `A session leader of … is outside of its pid namespace`; `--shell-job` is no help.
fn session(task: &Task) -> Option<Finding> {
    (task.session == 0).then(|| {
        Finding::blocker(
            format!("{} was left behind by a command from outside (lxc-attach)", task.name()),
            "the leader of its session is outside of the container, and CRIU cannot restore such a \
             session",
        )
        .at(task.place())
        .remedy(format!("{}; start it with setsid, then it can be checkpointed", end(task)))
    })
}

/// CRIU makes a process that init has inherited in the session where it belongs: as a child of that
/// session's leader. A leader that has ended makes none any more, and the restart would wait for
/// ever.
fn zombies(tree: &[Task]) -> Option<Finding> {
    let init = tree.first()?;
    let leads = |of: &Task| {
        tree.iter().find(|l| l.is_zombie() && l.pid_inside == of.session && l.pid != of.pid)
    };
    let inherited =
        tree.iter().filter(|t| t.is_zombie() && t.parent == init.pid && t.pid != init.pid);
    let (zombie, leader) = inherited.filter_map(|t| Some((t, leads(t)?))).next()?;
    let remedy = match tree.iter().find(|t| t.pid == leader.parent && t.pid != init.pid) {
        Some(parent) => format!("{} does not collect it; {}", parent.name(), end(parent)),
        None => {
            "the container's init does not collect its children: use one that does, as busybox or \
             systemd"
                .to_owned()
        }
    };
    Some(
        Finding::blocker(
            format!(
                "{} and the leader of its session, {}, have ended and were not collected",
                zombie.name(),
                leader.name()
            ),
            "CRIU can dump them, but a restart would wait for ever for the session",
        )
        .at(zombie.place())
        .remedy(remedy),
    )
}

/// What the container has frozen of itself; `dir` is its cgroup.
pub(crate) fn frozen_below(dir: &Path, frozen: &[PathBuf], names: &Names) -> Vec<Finding> {
    let tell = |cgroup: &PathBuf| {
        let path = cgroup.strip_prefix(dir).unwrap_or(cgroup);
        let unit =
            path.file_name().and_then(|name| name.to_str()).filter(|name| shell::is_plain(name));
        let unit = unit.filter(|name| {
            [".service", ".scope", ".slice"].iter().any(|kind| name.ends_with(kind))
        });
        Finding::blocker(
            format!("its cgroup {} is frozen", path.display()),
            "CRIU has code of its own run in each process, and would wait for ever for those in \
             there",
        )
        .remedy(match unit {
            Some(unit) => format!("thaw it: {}", names.attach(&format!("systemctl thaw {unit}"))),
            None => format!(
                "thaw it: echo 0 > {}",
                shell::quoted(&cgroup.join("cgroup.freeze").to_string_lossy())
            ),
        })
    };
    frozen.iter().map(tell).collect()
}

fn traced(task: &Task) -> Option<Finding> {
    (task.tracer != 0).then(|| {
        Finding::blocker(
            format!("{} is traced by process {}", task.name(), task.tracer),
            "CRIU has to trace it itself",
        )
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
        let first = |ids: &[u32]| ids.first().copied().unwrap_or_default();
        Finding::blocker(
            format!(
                "{} runs as user {}, group {}",
                task.name(),
                first(&task.uids),
                first(&task.gids)
            ),
            format!(
                "this host's root has no CAP_SYS_RESOURCE, without which CRIU cannot read the \
                 limits of a process that is not of user {} and group {}",
                caller.uid, caller.gid
            ),
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
            format!(
                "{who} {} {they} put into the container from outside (lxc-attach, nsenter)",
                names.join(", ")
            ),
            format!(
                "CRIU leaves {them} out: the checkpoint is without {them}, and a container that \
                 stops takes {them} along"
            ),
        )
        .at(first.place())
        .remedy(format!("leave these shells, or end {them}: kill {}", pids.join(" "))),
    )
}

/// CRIU puts code into each process that talks to CRIU through a unix socket, which a profile of a
/// program inside the container may forbid: the process is killed then.
fn labels(tree: &[Task]) -> Vec<Finding> {
    let Some(init) = tree.first() else { return Vec::new() };
    let other =
        |t: &&Task| t.label != init.label && t.label.as_deref().is_some_and(|l| l != "unconfined");
    let tell = |task: &Task| {
        let label = task.label.as_deref().unwrap_or_default();
        Finding::warning(
            format!("{} is confined by the profile '{label}'", task.name()),
            "a profile that forbids unix sockets makes the dump fail, and may kill the process",
        )
        .at(task.place())
        .remedy(match shell::is_plain(label) {
            true => format!(
                "if the dump fails with 'Permission denied', run in the container: aa-complain \
                 {label}"
            ),
            false => "if the dump fails with 'Permission denied', put that profile into complain \
                      mode"
                .to_owned(),
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
        let tasks = Tasks {
            tree: vec![super::super::task::tests::task(101, "init"), task],
            ..Tasks::default()
        };
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
    fn a_zombie_whose_session_has_a_zombie_for_a_leader_blocks() {
        let zombie =
            |pid, parent, session| Task { state: 'Z', parent, session, ..task(pid, "gone") };
        let judged = |tasks: &[Task]| {
            let tree = std::iter::once(task(101, "init")).chain(tasks.iter().cloned()).collect();
            judge(&Tasks { tree, ..Tasks::default() }, &root(), false)
        };
        let parent = task(105, "parent");
        let found = judged(&[parent.clone(), zombie(107, 105, 7), zombie(109, 101, 7)]);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Blocker));
        assert!(found[0].remedy.ends_with("kill 105"), "{}", found[0].remedy);
        // A leader that lives, one that was collected, and one whose child is its own.
        assert_eq!(judged(&[task(107, "leader"), zombie(109, 101, 7)]), []);
        assert_eq!(judged(&[zombie(109, 101, 7)]), []);
        assert_eq!(judged(&[parent, zombie(107, 105, 7), zombie(109, 105, 7)]), []);
    }

    #[test]
    fn what_is_frozen_inside_blocks() {
        let dir = Path::new("/cg/lxc.payload.t");
        let found = frozen_below(
            dir,
            &[dir.join("system.slice/x.service"), dir.join("a b")],
            &Names::test(),
        );
        assert_eq!(found[0].remedy, "thaw it: lxc-attach -n web -- systemctl thaw x.service");
        assert_eq!(found[1].remedy, "thaw it: echo 0 > '/cg/lxc.payload.t/a b/cgroup.freeze'");
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
        assert!(
            found[0].what.contains("300 (sh), 301 (vi)")
                && found[0].remedy.ends_with("kill 300 301")
        );
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
