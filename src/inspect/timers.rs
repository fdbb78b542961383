//! Timers: POSIX ones, interval timers, and those that are descriptors.

use super::family::Family;
use super::snapshot::{Snapshot, Standing};

/// Timers.
pub const FAMILY: Family = Family { name: "timers", states: Vec::new, read };

fn read(_standing: &Standing, _snapshot: &mut Snapshot) {}
