//! The areas of a process's memory: where, with which rights and advice, of which file. Not what is in them.

use super::family::Family;
use super::snapshot::{Snapshot, Standing};

/// Areas.
pub const FAMILY: Family = Family { name: "areas", states: Vec::new, read };

fn read(_standing: &Standing, _snapshot: &mut Snapshot) {}
