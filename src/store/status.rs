//! What a checkpoint is good for now: it is the state of a suspended container, it was restored, or
//! its container ran since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::lxc::command::Client;
use crate::store::list::{Entry, State};

/// What a checkpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// It is whole, and its container went on after it.
    Complete,
    /// Its container was stopped by it, and has not run since: it is the only state of the
    /// container.
    Suspended,
    /// The same, and `lxc-cr resume --all` brings it back at boot.
    ToBeResumed,
    /// The container was restored from it.
    Restored,
    /// Its container was stopped by it, and ran since without it.
    Stale,
    /// It has no record: LXC's tool or CRIU wrote it.
    WithoutRecord,
    /// A copy of memory for other checkpoints to build on.
    PreDump,
    /// It was never completed.
    Partial,
    /// It is not what was written.
    Damaged,
    /// The file system that it lies on is not mounted.
    NotMounted,
    /// The server of its file system does not answer.
    NoAnswer,
}

impl Status {
    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Complete => "complete",
            Status::Suspended => "suspended",
            Status::ToBeResumed => "to be resumed",
            Status::Restored => "restored",
            Status::Stale => "stale",
            Status::WithoutRecord => "without record",
            Status::PreDump => "pre-dump",
            Status::Partial => "half-written",
            Status::Damaged => "damaged",
            Status::NotMounted => "not mounted",
            Status::NoAnswer => "no answer",
        }
    }

    /// Whether the container would be lost with it.
    pub(crate) fn is_only_state(self) -> bool {
        matches!(self, Status::Suspended | Status::ToBeResumed)
    }
}

/// A container, by the directory that holds its directory, and its name.
type Whose = (Option<PathBuf>, Option<String>);

/// The status of each of these, which are all checkpoints that are known of their containers.
pub(crate) fn of(entries: &[Entry]) -> Vec<Status> {
    let mut running = BTreeMap::<Whose, bool>::new();
    let mut newest = BTreeMap::<Whose, u64>::new();
    for entry in entries.iter().filter(|entry| entry.state == State::Complete) {
        let newest = newest.entry(whose(entry)).or_default();
        *newest = entry.created.max(*newest);
    }
    entries
        .iter()
        .map(|entry| {
            let whose = whose(entry);
            let is_newest = newest.get(&whose).is_none_or(|newest| entry.created >= *newest);
            judge(entry, is_newest, || *running.entry(whose).or_insert_with_key(is_running))
        })
        .collect()
}

fn whose(entry: &Entry) -> Whose {
    (entry.lxcpath.clone(), entry.container.clone())
}

/// Whether a container's monitor answers. One that has lost its monitor is taken for stopped: that
/// errs on the side on which its checkpoint is kept.
fn is_running(whose: &Whose) -> bool {
    let (Some(lxcpath), Some(name)) = whose else { return false };
    Client::new(&lxcpath.to_string_lossy(), name).init_pid().is_ok()
}

fn judge(entry: &Entry, is_newest: bool, is_running: impl FnOnce() -> bool) -> Status {
    match entry.state {
        State::WithoutRecord => Status::WithoutRecord,
        State::PreDump => Status::PreDump,
        State::Partial => Status::Partial,
        State::Damaged => Status::Damaged,
        State::NotMounted => Status::NotMounted,
        State::NoAnswer => Status::NoAnswer,
        State::Complete if entry.to_be_resumed => Status::ToBeResumed,
        State::Complete if entry.history.restored.is_some() => Status::Restored,
        State::Complete if entry.left_running => Status::Complete,
        State::Complete if entry.history.superseded.is_some() || !is_newest || is_running() => {
            Status::Stale
        }
        State::Complete => Status::Suspended,
    }
}

/// Those of a container that is being started: it does not run, whatever its monitor says.
pub(crate) fn suspended(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    let newest = entries
        .iter()
        .filter(|entry| entry.state == State::Complete)
        .map(|entry| entry.created)
        .max();
    entries
        .iter()
        .filter(move |entry| judge(entry, Some(entry.created) == newest, || false).is_only_state())
}

/// The checkpoint in a directory, if it is the only state of its container. All that are known of
/// it are needed.
pub(crate) fn only_state<'a>(entries: &'a [Entry], dir: &Path) -> Option<&'a Entry> {
    let status = of(entries);
    let here = entries.iter().zip(status).find(|(entry, _)| entry.directory == dir)?;
    here.1.is_only_state().then_some(here.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::History;

    #[test]
    fn a_checkpoint_is_what_its_container_makes_of_it() {
        let made = |left_running: bool, history: History| Entry {
            left_running,
            history,
            ..Entry::sample()
        };
        let stopped = made(false, History::default());
        assert_eq!(judge(&stopped, true, || false), Status::Suspended);
        assert_eq!(judge(&stopped, true, || true), Status::Stale, "it runs, and not from here");
        assert_eq!(judge(&stopped, false, || false), Status::Stale, "there is a newer one");
        let resumed = Entry { to_be_resumed: true, ..stopped.clone() };
        assert_eq!(judge(&resumed, true, || false), Status::ToBeResumed);
        let restored = made(false, History { restored: Some(7), ..History::default() });
        assert_eq!(judge(&restored, true, || true), Status::Restored);
        let superseded = made(false, History { superseded: Some(7), ..History::default() });
        assert_eq!(judge(&superseded, true, || false), Status::Stale);
        assert_eq!(judge(&made(true, History::default()), true, || true), Status::Complete);
        let damaged = Entry { state: State::Damaged, ..resumed };
        assert_eq!(judge(&damaged, true, || false), Status::Damaged);
    }

    #[test]
    fn the_newest_of_a_container_is_its_state() {
        let at = |name: &str, container: &str, created: u64| Entry {
            directory: name.into(),
            container: Some(container.to_owned()),
            lxcpath: Some("/nowhere".into()),
            created,
            ..Entry::sample()
        };
        let entries = [at("/old", "web", 1), at("/new", "web", 2), at("/mail", "mail", 1)];
        assert_eq!(of(&entries), [Status::Stale, Status::Suspended, Status::Suspended]);
        assert!(only_state(&entries, Path::new("/new")).is_some());
        assert!(only_state(&entries, Path::new("/old")).is_none());
    }
}
