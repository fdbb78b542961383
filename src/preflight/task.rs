//! The processes of a container: those that CRIU dumps, and those that were put into it from
//! outside.
//!
//! CRIU walks the tree of children from init, through `/proc/PID/task/TID/children` (cr-dump.c,
//! seize.c). A process that entered the container (lxc-attach, nsenter) is no descendant of init,
//! so CRIU does not see it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::finding::Place;
use crate::lxc::shell;
use crate::report::Foreign;

/// The kinds of namespaces, as `/proc/PID/ns` names them.
pub(crate) const NAMESPACES: [&str; 9] =
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "time_for_children", "user", "uts"];

/// The kind of namespace that shows which processes are in the container.
const PID: usize = 4;

/// How often a process that waits in the kernel is looked at again, and how long after.
const WAITING_LOOKS: u32 = 5;
const WAITING_INTERVAL: Duration = Duration::from_millis(5);

/// A process as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its number on the host.
    pub pid: i32,
    /// Its number in its own pid namespace.
    pub pid_inside: i32,
    /// Its parent's number on the host.
    pub parent: i32,
    /// Its command.
    pub command: Foreign,
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    /// Who traces it; 0 for nobody.
    pub tracer: i32,
    /// The number of its session in its own pid namespace; 0 when its leader is outside.
    pub session: i32,
    /// Real, effective, saved and file system user, as the host counts.
    pub uids: Vec<u32>,
    /// The same of the group.
    pub gids: Vec<u32>,
    /// Private memory in bytes, swapped out or not.
    pub private: u64,
    /// Shared memory that it has mapped, in bytes.
    pub shared: u64,
    /// The inode of each namespace, in the order of [`NAMESPACES`]; none where the kernel has no
    /// such namespaces.
    pub namespaces: [Option<u64>; NAMESPACES.len()],
    /// Its cgroup2 path.
    pub cgroup: String,
    /// The label of a security module, without the mode behind it.
    pub label: Option<String>,
}

impl Task {
    /// Reads a process; none when it has ended.
    pub(crate) fn read(pid: i32) -> Result<Option<Task>> {
        let Some(status) = read(pid, "status")? else { return Ok(None) };
        let mut task = Task::parse(&status);
        task.pid = pid;
        if task.state == 'D' && !keeps_waiting(pid) {
            task.state = 'S';
        }
        for (kind, inode) in NAMESPACES.iter().zip(&mut task.namespaces) {
            *inode = namespace(pid, kind);
        }
        let cgroup = read(pid, "cgroup")?.unwrap_or_default();
        task.cgroup =
            cgroup.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default().to_owned();
        task.label = label(pid);
        Ok(Some(task))
    }

    fn parse(status: &str) -> Task {
        let mut task = Task::default();
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let number = || value.parse().unwrap_or_default();
            let numbers =
                || value.split_ascii_whitespace().flat_map(str::parse).collect::<Vec<u32>>();
            let last = || {
                value
                    .rsplit(char::is_whitespace)
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or_default()
            };
            let kibibytes =
                || value.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10;
            match key {
                "Name" => task.command = value.into(),
                "State" => task.state = value.chars().next().unwrap_or_default(),
                "PPid" => task.parent = number(),
                "TracerPid" => task.tracer = number(),
                "Uid" => task.uids = numbers(),
                "Gid" => task.gids = numbers(),
                "NSpid" => task.pid_inside = last(),
                "NSsid" => task.session = last(),
                "RssAnon" | "VmSwap" => task.private += kibibytes(),
                "RssShmem" => task.shared = kibibytes(),
                _ => {}
            }
        }
        task
    }

    /// A zombie has no files and no memory; CRIU restores that it is one.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// The inode of its namespace of a kind.
    pub(crate) fn namespace(&self, kind: &str) -> Option<u64> {
        NAMESPACES.iter().position(|k| *k == kind).and_then(|at| self.namespaces[at])
    }

    /// The systemd unit that it belongs to, by its cgroup: the innermost service or scope.
    pub(crate) fn unit(&self) -> Option<Foreign> {
        let is_unit = |name: &&str| {
            name.ends_with(".service") || (name.ends_with(".scope") && *name != "init.scope")
        };
        self.cgroup.rsplit('/').find(is_unit).map(Foreign::from)
    }

    /// Where a finding about it is.
    pub(crate) fn place(&self) -> Place {
        Place {
            pid: Some(self.pid),
            pid_inside: Some(self.pid_inside),
            command: Some(self.command.clone()),
            unit: self.unit(),
            ..Place::default()
        }
    }

    /// "process 812 (nginx)", with its unit if it has one.
    pub(crate) fn name(&self) -> String {
        match self.unit() {
            Some(unit) => format!("process {} ({}, {unit})", self.pid, self.command),
            None => format!("process {} ({})", self.pid, self.command),
        }
    }
}

/// Whether it is a service whose name can be pasted into a command.
pub(super) fn is_plain_service(unit: &Foreign) -> bool {
    unit.raw().ends_with(".service") && shell::is_plain(unit.raw())
}

/// How to end a process. Its unit is stopped by the container's systemd, which would start a killed
/// one again; and with its init the container would end.
pub(crate) fn end(task: &Task) -> String {
    let unit = task.unit().filter(is_plain_service);
    match (task.pid_inside, unit) {
        (1, _) => {
            "this is the container's init: have it started without that, and restart the container"
                .to_owned()
        }
        (_, Some(unit)) => format!("in the container, stop its unit: systemctl stop {unit}"),
        (_, None) => format!("end the process: kill {}", task.pid),
    }
}

/// The processes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    /// Init and its descendants, parents before children: what CRIU dumps.
    pub tree: Vec<Task>,
    /// Others in its pid namespace.
    pub attached: Vec<Task>,
    /// The kernel does not tell the children of a process.
    pub no_children: bool,
}

impl Tasks {
    /// Reads all processes of the container whose init this is.
    ///
    /// # Errors
    /// When init or /proc cannot be read. What ends meanwhile is left out.
    pub(crate) fn read(init: i32) -> Result<Tasks> {
        let first = Task::read(init)?.context("the container's init has ended")?;
        let mut found = Tasks {
            no_children: !Path::new("/proc/thread-self/children").exists(),
            ..Tasks::default()
        };
        let namespace = first.namespaces[PID];
        let mut seen = BTreeSet::from([init]);
        let mut waiting = vec![first];
        while let Some(task) = waiting.pop() {
            for child in children(task.pid)? {
                if seen.insert(child)
                    && let Some(child) = Task::read(child)?
                {
                    waiting.push(child);
                }
            }
            found.tree.push(task);
        }
        for entry in fs::read_dir("/proc").context("list /proc")? {
            let name = entry.context("list /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            if seen.contains(&pid) || namespace_of(pid) != namespace {
                continue;
            }
            // It may have been born into the tree since the tree was walked.
            if let Some(task) = Task::read(pid)?
                && !seen.contains(&task.parent)
                && !task.is_zombie()
            {
                found.attached.push(task);
            }
        }
        Ok(found)
    }

    /// One task for each namespace of a kind, of those that CRIU dumps.
    pub(crate) fn one_of_each(&self, kind: &str) -> Vec<&Task> {
        let mut seen = BTreeSet::new();
        self.tree.iter().filter(|t| !t.is_zombie() && seen.insert(t.namespace(kind))).collect()
    }

    /// Whether the container has a user namespace of its own.
    pub(crate) fn has_own_users(&self) -> bool {
        let ours = namespace(std::process::id().cast_signed(), "user");
        self.tree.first().is_some_and(|init| init.namespace("user") != ours)
    }
}

fn namespace_of(pid: i32) -> Option<u64> {
    namespace(pid, NAMESPACES[PID])
}

/// The inode of a namespace. The file's own inode would do, but the link is what every kernel tells
/// alike.
fn namespace(pid: i32, kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn children(pid: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(e) if is_gone(&e) => return Ok(found),
        Err(e) => return Err(e).with_context(|| format!("list /proc/{pid}/task")),
    };
    for thread in threads.flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().flat_map(str::parse::<i32>));
    }
    Ok(found)
}

/// AppArmor's `NAME (mode)` or SELinux's context; none where no module is live.
fn label(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/attr/current")).ok()?;
    let label = text.trim_end_matches(['\n', '\0']);
    (!label.is_empty()).then(|| label.split(" (").next().unwrap_or(label).to_owned())
}

/// Whether a process waits in the kernel each time one looks. Any process does for a moment now and
/// then, a parent in vfork(2) for instance.
fn keeps_waiting(pid: i32) -> bool {
    for _ in 0..WAITING_LOOKS {
        std::thread::sleep(WAITING_INTERVAL);
        let state =
            fs::read_to_string(format!("/proc/{pid}/status")).map(|text| Task::parse(&text).state);
        if !matches!(state, Ok('D')) {
            return false;
        }
    }
    true
}

/// A file of a process; none when the process has ended.
pub(crate) fn read(pid: i32, file: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/{file}");
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {path}")),
    }
}

/// What /proc answers for a process that has ended.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A task for the judges' tests.
    pub(crate) fn task(pid: i32, command: &str) -> Task {
        Task {
            pid,
            pid_inside: pid - 100,
            parent: 101,
            command: command.into(),
            state: 'S',
            session: pid - 100,
            uids: vec![0; 4],
            gids: vec![0; 4],
            namespaces: [1, 2, 3, 4, 5, 6, 6, 7, 8].map(Some),
            ..Task::default()
        }
    }

    #[test]
    fn a_status_file_is_read() {
        let text = "Name:\tsleep x\nState:\tS \
                    (sleeping)\nPPid:\t489\nTracerPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t492\t12\nNSpgid:\t0\t0\nNSsid:\t480\t0\nRssAnon:\t      \
                    56 kB\nRssShmem:\t 8 kB\nVmSwap:\t 4 kB\n";
        let task = Task::parse(text);
        assert_eq!(
            (task.command.raw(), task.state, task.parent, task.tracer),
            ("sleep x", 'S', 489, 7)
        );
        assert_eq!(
            (task.pid_inside, task.session, task.private, task.shared),
            (12, 0, 60 << 10, 8 << 10)
        );
        assert_eq!(task.uids, [1, 2, 3, 4]);
    }

    #[test]
    fn a_task_belongs_to_its_innermost_unit() {
        let unit = |cgroup: &str| {
            Task { cgroup: cgroup.into(), ..Task::default() }
                .unit()
                .map(|unit| unit.raw().to_owned())
        };
        assert_eq!(unit("/lxc.payload.t/system.slice/ssh.service").as_deref(), Some("ssh.service"));
        assert_eq!(
            unit("/lxc.payload.t/user.slice/user@0.service/app.slice/x.scope").as_deref(),
            Some("x.scope")
        );
        assert_eq!(unit("/lxc.payload.t/init.scope"), None);
    }

    #[test]
    fn the_tree_of_this_process_is_read() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let me = std::process::id().cast_signed();
        let tasks = Tasks::read(me).unwrap();
        assert_eq!(tasks.tree[0].pid, me);
        assert!(tasks.tree.iter().any(|t| t.pid == child.id().cast_signed() && t.parent == me));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
