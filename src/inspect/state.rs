//! The table of states: one row for each thing that the kernel keeps about a container.
//!
//! A reader of a family (tasks, descriptors, network, …) declares its rows beside the code that
//! reads them; [`all`] joins them. `docs/fidelity.md` is made from this table by trying each row.

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

/// All rows, family after family.
pub fn all() -> impl Iterator<Item = &'static State> {
    FAMILIES.iter().copied().flatten().copied()
}

/// A family's rows.
pub type Family = &'static [&'static State];

/// The families; each reader adds its own.
const FAMILIES: &[Family] = &[];

/// A row by its name.
pub fn by_name(name: &str) -> Option<&'static State> {
    all().find(|state| state.name == name)
}
