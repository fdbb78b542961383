//! What the trials show of each row of the table of states.

use std::collections::BTreeSet;

use lxc_cr::api::inspect::{Class, FAMILIES, Snapshot, State, compare, state};

use super::trial::Trial;

/// What was tried of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tried {
    /// No container had it.
    NotSeen,
    /// Only values that a plain container has, too.
    Usual,
    /// A value that the plain container has nowhere.
    Unusual,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    NotTried,
    Same,
    Varies,
    /// The checkpoint of the container that had it was refused.
    Refused,
    /// `lxc-cr check` or the commands name it.
    Named,
    Different,
}

/// One row with what came of it.
pub struct Row {
    pub family: &'static str,
    pub state: &'static State,
    pub tried: Tried,
    pub outcome: Outcome,
    /// Where it was tried, or was different.
    pub setting: Option<&'static str>,
}

/// All rows, in the order of the table.
pub fn rows(trials: &[Trial]) -> Vec<Row> {
    let of = |family: &'static lxc_cr::api::inspect::Family| {
        (family.states)().into_iter().map(move |state| row(family.name, state, trials))
    };
    FAMILIES.iter().flat_map(of).collect()
}

fn row(family: &'static str, state: &'static State, trials: &[Trial]) -> Row {
    // Those that were restored count first: a refusal shows nothing where another container shows
    // it.
    let mut restored = trials
        .iter()
        .filter(|t| t.after.is_some())
        .map(|t| (tried(state, t), outcome(state, t), t));
    let refused =
        trials.iter().filter(|t| t.after.is_none()).map(|t| (tried(state, t), Outcome::Refused, t));
    let different =
        restored.clone().filter(|(_, o, _)| *o >= Outcome::Named).max_by_key(|(_, o, _)| *o);
    let best = different.or_else(|| restored.clone().max_by_key(|(tried, _, _)| *tried));
    let refused =
        refused.max_by_key(|(tried, _, _)| *tried).filter(|(tried, _, _)| *tried == Tried::Unusual);
    let shown = match (best, refused) {
        (Some(best), Some(refused)) if best.0 != Tried::Unusual && best.1 <= Outcome::Same => {
            Some(refused)
        }
        (best, refused) => best.or(refused),
    };
    debug_assert!(restored.all(|(_, o, _)| o != Outcome::Refused));
    let (tried, mut outcome, trial) =
        shown.map_or((Tried::NotSeen, Outcome::NotTried, None), |(t, o, x)| (t, o, Some(x)));
    if tried == Tried::NotSeen && outcome <= Outcome::Same {
        outcome = Outcome::NotTried;
    }
    if state.class == Class::Varies && tried != Tried::NotSeen {
        outcome = Outcome::Varies;
    }
    let setting = trial.filter(|_| tried != Tried::NotSeen).map(|trial| trial.setting.name);
    Row { family, state, tried, outcome, setting }
}

fn values<'a>(state: &'static State, snapshot: &'a Snapshot) -> BTreeSet<&'a str> {
    snapshot
        .values()
        .filter(|(_, name, _)| *name == state.name)
        .map(|(_, _, value)| value)
        .collect()
}

fn tried(state: &'static State, trial: &Trial) -> Tried {
    let (plain, set) = (values(state, &trial.plain), values(state, &trial.before));
    match (set.is_empty(), set.is_subset(&plain)) {
        (true, _) => Tried::NotSeen,
        (_, true) => Tried::Usual,
        _ => Tried::Unusual,
    }
}

fn outcome(of: &'static State, trial: &Trial) -> Outcome {
    let Some(after) = &trial.after else { return Outcome::Refused };
    // Only its values, and the processes, without which theirs are left out.
    let only = |snapshot: &Snapshot| {
        let mut only = Snapshot::new();
        for (subject, name, value) in
            snapshot.values().filter(|(_, name, _)| [of.name, "process"].contains(name))
        {
            only.enter(subject.clone(), state::by_name(name).unwrap(), value);
        }
        only
    };
    let found = compare(&only(&trial.before), &only(after));
    match found.iter().any(|difference| difference.state.name == of.name) {
        false => Outcome::Same,
        true if is_named(of, &trial.told) => Outcome::Named,
        true => Outcome::Different,
    }
}

/// What the findings of `lxc-cr check` call a state.
const FINDINGS: &[(&str, &str)] = &[
    ("key", "a restore does not add the keys"),
    ("key.owner", "a restore does not add the keys"),
    ("key.payload", "a restore does not add the keys"),
    ("keyring.thread", "a restore does not add the keys"),
    ("keyring.process", "a restore does not add the keys"),
];

fn is_named(state: &State, told: &str) -> bool {
    told.contains(state.name)
        || FINDINGS.iter().any(|(name, words)| *name == state.name && told.contains(words))
}
