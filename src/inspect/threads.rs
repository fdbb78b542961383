//! What each thread has of its own.

use super::family::Family;
use super::snapshot::{Snapshot, Standing};

/// Threads.
pub const FAMILY: Family = Family { name: "threads", states: Vec::new, read };

fn read(_standing: &Standing, _snapshot: &mut Snapshot) {}
