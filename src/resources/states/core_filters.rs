//! What of a process's memory a core dump has (lxc.proc.coredump_filter). CRIU (4.2) does not save
//! it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::process::number_inside;

/// What the kernel gives to a process whose parent has no other (`MMF_DUMP_FILTER_DEFAULT`).
const DEFAULT: u32 = 0x33;

/// A process that has another filter than most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreFilter {
    /// Its number in the container.
    pub pid: i32,
    /// The filter.
    pub filter: u32,
}

/// Those of the tasks of a container that stands still. Whatever has ended has none.
pub(crate) fn of_tasks(payload: &Path) -> Result<Vec<CoreFilter>> {
    let of = |task: i32| Some(CoreFilter { pid: number_inside(task)?, filter: read(task)? });
    let found = cgroup::tasks(payload)?.into_iter().filter_map(of);
    Ok(found.filter(|f| f.filter != DEFAULT).collect())
}

/// Gives them to the restored tasks.
pub(crate) fn set(payload: &Path, filters: &[CoreFilter]) -> Result<()> {
    if filters.is_empty() {
        return Ok(());
    }
    let mut errors = ErrorList::default();
    for task in cgroup::tasks(payload)? {
        let inside = number_inside(task);
        for filter in filters.iter().filter(|f| inside == Some(f.pid)) {
            let file = format!("/proc/{task}/coredump_filter");
            errors.note(
                fs::write(&file, format!("{:#x}", filter.filter))
                    .with_context(|| format!("write {file}")),
            );
        }
    }
    errors.into_result()
}

/// Hexadecimal; empty for a kernel thread and for what has ended.
fn read(task: i32) -> Option<u32> {
    u32::from_str_radix(
        fs::read_to_string(format!("/proc/{task}/coredump_filter")).ok()?.trim(),
        16,
    )
    .ok()
}
