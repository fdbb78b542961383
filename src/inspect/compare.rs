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
pub fn compare(before: &Snapshot, after: &Snapshot) -> Vec<Difference> {
    let keys: BTreeSet<(&Subject, &'static str)> =
        before.values().chain(after.values()).map(|(subject, name, _)| (subject, name)).collect();
    let mut differences: Vec<Difference> = keys
        .into_iter()
        .filter_map(|(subject, name)| {
            let state = state::by_name(name)?;
            let (old, new) = (before.value(subject, state), after.value(subject, state));
            (state.class != Class::Varies && !alike(old, new)).then(|| Difference {
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
    old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| old == new || are_near(old, new))
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
    fn a_name_from_inside_is_no_time() {
        assert_eq!(plain("a\n\u{2248}1\u{b1}9".as_bytes()), r"a\x0a\xe2\x89\x881\xc2\xb19");
    }
}
