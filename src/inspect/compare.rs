//! Two snapshots side by side.
//!
//! Values are compared as text, but for times: a time is written by [`near`] with how far it may be
//! off, and equals another one that is no further away.

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
///
/// What is gone as a whole, or new, is one difference: its worst; and of a process that is gone, no
/// thread, descriptor or memory is named.
pub fn compare(before: &Snapshot, after: &Snapshot) -> Vec<Difference> {
    let (old, new) = (subjects(before), subjects(after));
    let keys: BTreeSet<(&Subject, &'static str)> =
        before.values().chain(after.values()).map(|(subject, name, _)| (subject, name)).collect();
    let mut differences: Vec<Difference> = keys
        .into_iter()
        .filter_map(|(subject, name)| difference(subject, name, before, after))
        .collect();
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.state.class));
    let is_in_both = |subject: &Subject| old.contains(subject) && new.contains(subject);
    let mut named = BTreeSet::new();
    differences.retain(|difference| {
        let has_process =
            process_of(&difference.subject).is_none_or(|process| is_in_both(&process));
        has_process && (is_in_both(&difference.subject) || named.insert(difference.subject.clone()))
    });
    differences
}

fn subjects(snapshot: &Snapshot) -> BTreeSet<&Subject> {
    snapshot.values().map(|(subject, _, _)| subject).collect()
}

/// The process that a thread, a descriptor or an area belongs to.
fn process_of(subject: &Subject) -> Option<Subject> {
    match subject {
        Subject::Thread { pid, .. }
        | Subject::Descriptor { pid, .. }
        | Subject::Area { pid, .. } => Some(Subject::Task { pid: *pid }),
        _ => None,
    }
}

fn difference(
    subject: &Subject,
    name: &str,
    before: &Snapshot,
    after: &Snapshot,
) -> Option<Difference> {
    let state = state::by_name(name)?;
    let (old, new) = (before.value(subject, state), after.value(subject, state));
    (state.class != Class::Varies && !alike(old, new)).then(|| Difference {
        subject: subject.clone(),
        state,
        before: old.map(str::to_owned),
        after: new.map(str::to_owned),
    })
}

/// Marks a time in a value, and how far it may be off. No text from inside a container has them:
/// readers write that with [`plain`].
const NEAR: char = '\u{2248}';
const OFF: char = '\u{b1}';

/// A time in seconds that equals another one if they differ by at most `tolerance` seconds.
pub fn near(seconds: f64, tolerance: f64) -> String {
    format!("{NEAR}{seconds:.3}{OFF}{tolerance}")
}

/// Text from inside the container as values hold it: one word of ASCII, unless `text` is.
pub fn plain(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x20..0x7f => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

fn alike(old: Option<&str>, new: Option<&str>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old == new };
    if old == new {
        return true;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (words(old), words(new));
    old.len() == new.len()
        && old.iter().zip(&new).all(|(old, new)| old == new || are_near(old, new))
}

fn words(value: &str) -> Vec<&str> {
    value.split([' ', '\n']).collect()
}

fn are_near(old: &str, new: &str) -> bool {
    let read = |word: &str| -> Option<(f64, f64)> {
        let (seconds, tolerance) = word.strip_prefix(NEAR)?.split_once(OFF)?;
        Some((seconds.parse().ok()?, tolerance.parse().ok()?))
    };
    match (read(old), read(new)) {
        (Some((old, tolerance)), Some((new, _))) => (old - new).abs() <= tolerance,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_off_and_nothing_else() {
        let value = |seconds| Some(format!("clock 1 {} once", near(seconds, 5.0)));
        assert!(alike(value(12.0).as_deref(), value(8.5).as_deref()));
        assert!(!alike(value(12.0).as_deref(), value(2.0).as_deref()));
        assert!(!alike(Some("1"), Some("2")) && !alike(Some("1"), None) && alike(None, None));
        assert!(!alike(value(1.0).as_deref(), Some("clock 1 1.000 once")));
    }

    #[test]
    fn what_is_gone_is_named_once() {
        let state = |name| state::by_name(name).unwrap();
        let (mut before, mut after) = (Snapshot::new(), Snapshot::new());
        for pid in [1, 2] {
            before.enter(Subject::Task { pid }, state("process"), "there");
            before.enter(Subject::Task { pid }, state("umask"), "0022");
            before.enter(Subject::Descriptor { pid, fd: 3 }, state("descriptor"), "pipe");
            before.enter(Subject::Descriptor { pid, fd: 3 }, state("descriptor.flags"), "0o2");
        }
        after.enter(Subject::Task { pid: 1 }, state("process"), "there");
        after.enter(Subject::Task { pid: 1 }, state("umask"), "0002");
        let named: Vec<(String, &str)> = compare(&before, &after)
            .iter()
            .map(|d| (d.subject.to_string(), d.state.name))
            .collect();
        let of = |subject: &str, state| (subject.to_owned(), state);
        assert_eq!(
            named,
            [
                of("process 1", "umask"),
                of("process 2", "umask"),
                of("descriptor 3 of process 1", "descriptor")
            ]
        );
    }

    #[test]
    fn a_name_from_inside_is_no_time() {
        assert_eq!(plain("a\n\u{2248}1\u{b1}9".as_bytes()), r"a\x0a\xe2\x89\x881\xc2\xb19");
    }
}
