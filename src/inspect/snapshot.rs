//! All that was read of one container, keyed so that two readings can be laid side by side.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::state::{self, State};
use crate::sys::process;

/// A container that stands still while it is read: frozen, or stopped by CRIU or by ptrace.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its init, as the host numbers it.
    pub init: i32,
    /// All its tasks (thread group leaders), init among them, as the host numbers them.
    pub tasks: Vec<i32>,
}

impl Standing {
    /// The container with this init: all that descends from it.
    ///
    /// # Errors
    /// When the kernel does not list the children of init.
    pub fn below(init: i32) -> io::Result<Standing> {
        let (mut tasks, mut ahead) = (vec![init], process::children(init)?);
        while let Some(task) = ahead.pop() {
            tasks.push(task);
            // What has ended meanwhile has no children.
            ahead.extend(process::children(task).unwrap_or_default());
        }
        Ok(Standing { init, tasks })
    }
}

/// Whose state it is. All numbers are those that the container itself sees, so that a twin with
/// other host pids compares equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "pid, tid, fd and path say it")]
pub enum Subject {
    /// Of all of it: host name, cgroup, System V objects.
    Container,
    /// A process.
    Task { pid: i32 },
    /// One thread of a process.
    Thread { pid: i32, tid: i32 },
    /// A descriptor of a process.
    Descriptor { pid: i32, fd: i32 },
    /// An area of a process's memory, by its first address.
    Area { pid: i32, start: u64 },
    /// A mount, as init's mount namespace (or that of the process named) sees it; the number tells
    /// mounts on top of each other apart.
    Mount { pid: i32, path: String, layer: u32 },
    /// A file of a file system that lives in memory.
    File { path: String },
    /// A network namespace's part: "eth0", "table 100", "nftables"; `pid` is the lowest process
    /// in that namespace.
    Network { pid: i32, part: String },
    /// An object of an IPC namespace: "shm 3", "mqueue /x".
    Ipc { object: String },
    /// A key or keyring.
    Key { description: String },
    /// A cgroup below the container's own.
    Cgroup { path: String },
}

/// Every state that was read, as text that is equal when the state is.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    values: BTreeMap<(Subject, &'static str), String>,
    /// What could not be read, and why. Never empty in silence: an unread state is not "the same".
    unread: Vec<(Subject, &'static str, String)>,
}

/// Values that are still to be entered.
pub(crate) type Values = Vec<(Subject, &'static State, String)>;

impl Snapshot {
    /// Nothing yet.
    pub fn new() -> Snapshot {
        Snapshot::default()
    }

    /// Enters a value. Several values of one state and subject are joined by newlines in the order
    /// in which they are entered.
    pub fn enter(&mut self, subject: Subject, state: &'static State, value: impl Into<String>) {
        let value = value.into();
        self.values
            .entry((subject, state.name))
            .and_modify(|old| {
                old.push('\n');
                old.push_str(&value);
            })
            .or_insert(value);
    }

    /// Notes that a state could not be read.
    pub fn miss(&mut self, subject: Subject, state: &'static State, why: impl fmt::Display) {
        self.unread.push((subject, state.name, why.to_string()));
    }

    /// A value that was entered.
    pub fn value(&self, subject: &Subject, state: &'static State) -> Option<&str> {
        self.values.get(&(subject.clone(), state.name)).map(String::as_str)
    }

    /// Everything, sorted by subject and state.
    pub fn values(&self) -> impl Iterator<Item = (&Subject, &'static str, &str)> {
        self.values.iter().map(|((subject, name), value)| (subject, *name, value.as_str()))
    }

    /// What could not be read: whose, which, why.
    pub fn unread(&self) -> &[(Subject, &'static str, String)] {
        &self.unread
    }
}

/// A snapshot as JSON has it; docs/json.md has each field.
#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    changed: bool,
    states: Vec<Entry>,
}

/// The version of its form.
const VERSION: u32 = 1;

/// A value as JSON has it.
#[derive(Serialize, Deserialize)]
struct Entry {
    subject: Subject,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
}

impl Snapshot {
    /// An object with `states`, a list with an object for each value: `subject`, `state`, and
    /// `value` or `unread` (why).
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let read = self.values().map(|(subject, state, value)| Entry {
            subject: subject.clone(),
            state: state.to_owned(),
            value: Some(value.to_owned()),
            unread: None,
        });
        let unread = self.unread.iter().map(|(subject, state, why)| Entry {
            subject: subject.clone(),
            state: (*state).to_owned(),
            value: None,
            unread: Some(why.clone()),
        });
        let states = read.chain(unread).collect();
        crate::report::to_json(&Text { version: VERSION, changed: false, states })
    }

    /// Reads what [`Snapshot::to_json`] wrote. States that are not known any more are left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(text: &str) -> serde_json::Result<Snapshot> {
        let text: Text = serde_json::from_str(text)?;
        if text.version != VERSION {
            let version = format!("it is of version {}", text.version);
            return Err(serde::de::Error::custom(version));
        }
        let mut snapshot = Snapshot::new();
        for entry in text.states {
            let Some(state) = state::by_name(&entry.state) else { continue };
            match (entry.value, entry.unread) {
                (Some(value), _) => snapshot.enter(entry.subject, state, value),
                (None, Some(why)) => snapshot.miss(entry.subject, state, why),
                (None, None) => {}
            }
        }
        Ok(snapshot)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Container => write!(f, "the container"),
            Subject::Task { pid } => write!(f, "process {pid}"),
            Subject::Thread { pid, tid } => write!(f, "thread {tid} of process {pid}"),
            Subject::Descriptor { pid, fd } => write!(f, "descriptor {fd} of process {pid}"),
            Subject::Area { pid, start } => write!(f, "memory of process {pid} at {start:#x}"),
            Subject::Mount { path, .. } => write!(f, "mount {path}"),
            Subject::File { path } => write!(f, "file {path}"),
            Subject::Network { part, .. } => write!(f, "network: {part}"),
            Subject::Ipc { object } => write!(f, "IPC: {object}"),
            Subject::Key { description } => write!(f, "key {description}"),
            Subject::Cgroup { path } => write!(f, "cgroup {path}"),
        }
    }
}
