//! The table of states: one row for each thing that the kernel keeps about a container.
//!
//! A reader of a family (tasks, descriptors, network, …) declares its rows beside the code that
//! reads them (with [`states!`]); [`all`] joins them. `docs/fidelity.md` is made from this table by
//! trying each row.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One kind of state.
#[derive(Debug)]
pub struct State {
    /// Its name, as messages, `accept =` and docs/fidelity.md write it: "mdwe", "socket.ip-ttl".
    pub name: &'static str,
    /// What brings it back.
    pub put_back: PutBack,
    /// What it means when it comes back different.
    pub class: Class,
    /// What a user loses then, in one short clause: "memory may become writable and executable".
    pub loss: &'static str,
}

/// What brings a state back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// CRIU does.
    Criu,
    /// lxc-cr does, around CRIU.
    Us,
    /// Nobody can, and why.
    Cannot(&'static str),
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It is expected to differ (a host pid, a counter, a time that runs) and is not reported.
    /// Each such row says in `loss` why that is no loss.
    Varies,
    /// A program can live with it: a warning that names it.
    Bearable,
    /// The container does other things than before: files, packets, connections, due times.
    Breaks,
    /// Somebody may do what was forbidden, or read what was hidden.
    Weakens,
}

impl Class {
    /// Whether a container is not ended when this would differ, unless the user accepts it by name.
    pub fn blocks(self) -> bool {
        matches!(self, Class::Breaks | Class::Weakens)
    }
}

/// Declares rows, a line each, and a function that lists them:
///
/// ```ignore
/// states! { rows;
///     MDWE = "mdwe", PutBack::Us, Class::Weakens, "memory may become writable and executable";
/// }
/// ```
macro_rules! states {
    ($list:ident; $($name:ident = $text:expr, $put_back:expr, $class:expr, $loss:expr;)*) => {
        $(pub(crate) static $name: $crate::inspect::state::State = $crate::inspect::state::State {
            name: $text,
            put_back: $put_back,
            class: $class,
            loss: $loss,
        };)*
        pub(super) fn $list() -> Vec<&'static $crate::inspect::state::State> {
            vec![$(&$name),*]
        }
    };
}
pub(crate) use states;

/// All rows, family after family.
pub fn all() -> impl Iterator<Item = &'static State> {
    super::FAMILIES.iter().flat_map(|family| (family.states)())
}

/// A row by its name.
pub fn by_name(name: &str) -> Option<&'static State> {
    static NAMES: OnceLock<BTreeMap<&'static str, &'static State>> = OnceLock::new();
    NAMES.get_or_init(|| all().map(|state| (state.name, state)).collect()).get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_says_what_is_lost() {
        let mut names = std::collections::BTreeSet::new();
        for state in all() {
            assert!(names.insert(state.name), "{} is there twice", state.name);
            assert!(!state.loss.is_empty() && !state.loss.ends_with('.'), "{}", state.name);
            assert!(
                state
                    .name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
            );
        }
    }
}
