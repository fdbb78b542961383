//! What a process has as a whole.

use super::family::Family;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, states};
use crate::sys::process::number_inside;

/// Processes.
pub const FAMILY: Family = Family { name: "tasks", states: rows, read };

states! { rows;
    PROCESS = "process", PutBack::Criu, Class::Breaks, "the process is not there";
}

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    for pid in standing.tasks.iter().filter_map(|task| number_inside(*task)) {
        snapshot.enter(Subject::Task { pid }, &PROCESS, "there");
    }
}
