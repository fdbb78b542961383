//! What an IPC namespace holds: System V's objects and POSIX message queues.

use super::family::Family;
use super::snapshot::{Snapshot, Standing};

/// Ipc.
pub const FAMILY: Family = Family { name: "ipc", states: Vec::new, read };

fn read(_standing: &Standing, _snapshot: &mut Snapshot) {}
