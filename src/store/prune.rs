//! Which checkpoints of a container's list may go: pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::calendar::Calendar;
use super::retention::Policy;
use super::status::Status;
use crate::store::list::{Entry, State};

/// What becomes of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays, for these reasons.
    Stays(Vec<String>),
    /// It goes.
    Goes,
}

/// A checkpoint of any place, with what it is good for and what it builds on.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    /// The checkpoint.
    pub entry: &'a Entry,
    /// What it is good for.
    pub status: Status,
    /// The directories that it builds on.
    pub builds_on: Vec<PathBuf>,
}

/// Decides on the checkpoints of a container that lie in its list; all others stay, and so does
/// what they build on. Gives the newest first.
///
/// A checkpoint with a label stays until it is removed by hand. Those that are damaged or
/// half-written are not counted, and stay for a person to look at.
pub(crate) fn plan<'a>(
    candidates: &[Candidate<'a>],
    list: &Path,
    policy: &Policy,
    calendar: &Calendar,
    force: bool,
) -> Vec<(&'a Entry, Fate)> {
    let mut of_list: Vec<&Candidate<'a>> = candidates
        .iter()
        .filter(|candidate| candidate.entry.directory.parent() == Some(list))
        .collect();
    of_list.sort_by(|a, b| {
        (b.entry.created, &b.entry.directory).cmp(&(a.entry.created, &a.entry.directory))
    });
    let counted: Vec<u64> =
        of_list.iter().filter(|c| is_counted(c)).map(|c| c.entry.created).collect();
    let newest = counted.first().copied();
    let mut by_rule = policy.judge(&counted, calendar).into_iter();
    let mut fates: Vec<(&Candidate<'_>, Vec<String>)> = Vec::new();
    for candidate in of_list {
        let rules =
            if is_counted(candidate) { by_rule.next().unwrap_or_default() } else { Vec::new() };
        let mut reasons: Vec<String> = rules.into_iter().map(str::to_owned).collect();
        reasons.extend(own_reason(candidate, newest, force));
        fates.push((candidate, reasons));
    }
    let goes: BTreeSet<PathBuf> = fates
        .iter()
        .filter(|(_, reasons)| reasons.is_empty())
        .map(|(c, _)| c.entry.directory.clone())
        .collect();
    let needed: BTreeSet<&PathBuf> = candidates
        .iter()
        .filter(|c| !goes.contains(&c.entry.directory))
        .flat_map(|c| &c.builds_on)
        .collect();
    let fate = |(candidate, mut reasons): (&Candidate<'a>, Vec<String>)| {
        if needed.contains(&candidate.entry.directory) {
            reasons.push("others build on it".to_owned());
        }
        (candidate.entry, if reasons.is_empty() { Fate::Goes } else { Fate::Stays(reasons) })
    };
    fates.into_iter().map(fate).collect()
}

fn is_counted(candidate: &Candidate<'_>) -> bool {
    candidate.entry.state == State::Complete
}

/// Why it stays whatever the rules say.
fn own_reason(candidate: &Candidate<'_>, newest: Option<u64>, force: bool) -> Option<String> {
    let entry = candidate.entry;
    match (entry.state, &entry.label) {
        (State::Complete, Some(label)) => Some(format!("label {label}")),
        (State::Complete, None) if candidate.status.is_only_state() && !force => {
            Some("the container is suspended".to_owned())
        }
        (State::Complete, None) => None,
        // The next checkpoint may be meant to build on it.
        (State::PreDump, _) => newest
            .is_none_or(|newest| entry.created > newest)
            .then(|| "newer copy of memory".into()),
        _ => Some(format!("{}, not counted", candidate.status.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn entry(name: &str, created: u64) -> Entry {
        Entry {
            directory: Path::new("/l").join(name),
            created,
            left_running: true,
            ..Entry::sample()
        }
    }

    fn candidate(entry: &Entry) -> Candidate<'_> {
        Candidate { entry, status: Status::Complete, builds_on: Vec::new() }
    }

    fn fates(candidates: &[Candidate<'_>], policy: Policy, force: bool) -> Vec<(String, String)> {
        let planned = plan(candidates, Path::new("/l"), &policy, &Calendar::utc(), force);
        let text = |fate| match fate {
            Fate::Goes => "goes".to_owned(),
            Fate::Stays(reasons) => reasons.join(", "),
        };
        let name =
            |entry: &Entry| entry.directory.file_name().unwrap().to_string_lossy().into_owned();
        planned.into_iter().map(|(entry, fate)| (name(entry), text(fate))).collect()
    }

    fn told(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn what_others_need_and_what_has_a_label_stays() {
        let labelled = Entry { label: Some("good".to_owned()), ..entry("b", 2 * DAY) };
        let (a, c, d) = (entry("a", DAY), entry("c", 3 * DAY), entry("d", 4 * DAY));
        let copy = Entry { state: State::PreDump, ..entry("p", DAY + 1) };
        let elsewhere = Entry { directory: "/srv/x".into(), ..entry("x", 0) };
        let candidates = [
            candidate(&a),
            candidate(&labelled),
            candidate(&c),
            Candidate { builds_on: vec!["/l/p".into()], ..candidate(&d) },
            candidate(&copy),
            Candidate { builds_on: vec!["/l/a".into()], ..candidate(&elsewhere) },
        ];
        let policy = Policy { last: 1, ..Policy::default() };
        let expected = [
            ("d", "last"),
            ("c", "goes"),
            ("b", "label good"),
            ("p", "others build on it"),
            ("a", "others build on it"),
        ];
        assert_eq!(fates(&candidates, policy, false), told(&expected));
    }

    #[test]
    fn what_is_damaged_does_not_take_the_place_of_what_is_whole() {
        let damaged = Entry { state: State::Damaged, ..entry("c", 3) };
        let (a, b, copy) =
            (entry("a", 1), entry("b", 2), Entry { state: State::PreDump, ..entry("p", 4) });
        let candidates = [
            candidate(&a),
            candidate(&b),
            Candidate { status: Status::Damaged, ..candidate(&damaged) },
            candidate(&copy),
        ];
        let policy = Policy { last: 1, ..Policy::default() };
        let expected = [
            ("p", "newer copy of memory"),
            ("c", "damaged, not counted"),
            ("b", "last"),
            ("a", "goes"),
        ];
        assert_eq!(fates(&candidates, policy, false), told(&expected));
    }

    #[test]
    fn the_only_state_of_a_container_goes_by_force_alone() {
        let (a, b) = (entry("a", 1), entry("b", 2));
        let candidates = [Candidate { status: Status::Suspended, ..candidate(&a) }, candidate(&b)];
        let policy = Policy { last: 1, ..Policy::default() };
        let stays = [("b", "last"), ("a", "the container is suspended")];
        assert_eq!(fates(&candidates, policy, false), told(&stays));
        assert_eq!(fates(&candidates, policy, true), told(&[("b", "last"), ("a", "goes")]));
    }
}
