//! Two snapshots side by side.

use std::collections::BTreeSet;

use super::snapshot::{Snapshot, Subject};
use super::state::{self, Class, State};

/// Something that is not as it was.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Whose.
    pub subject: Subject,
    /// Which state.
    pub state: &'static State,
    /// Before; none where there was nothing.
    pub before: Option<String>,
    /// After; none where there is nothing any more.
    pub after: Option<String>,
}

/// Every difference but those of states that are expected to vary, the worst first.
pub fn compare(before: &Snapshot, after: &Snapshot) -> Vec<Difference> {
    let keys: BTreeSet<(&Subject, &'static str)> =
        before.values().chain(after.values()).map(|(subject, name, _)| (subject, name)).collect();
    let mut differences: Vec<Difference> = keys
        .into_iter()
        .filter_map(|(subject, name)| {
            let state = state::by_name(name)?;
            let (old, new) = (before.value(subject, state), after.value(subject, state));
            (state.class != Class::Varies && old != new).then(|| Difference {
                subject: subject.clone(),
                state,
                before: old.map(str::to_owned),
                after: new.map(str::to_owned),
            })
        })
        .collect();
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.state.class));
    differences
}
