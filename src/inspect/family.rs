//! A family of states: rows of the table, and the reader of all of them.

use super::snapshot::{Snapshot, Standing};
use super::state::State;

/// A family of states: its rows, and the one that reads them.
#[derive(Debug)]
pub struct Family {
    /// "tasks", "sockets".
    pub name: &'static str,
    /// Its rows.
    pub states: fn() -> Vec<&'static State>,
    /// Enters what it finds into the snapshot, and what it cannot read, too.
    pub read: fn(&Standing, &mut Snapshot),
}
