//! What only a process itself can tell: it is asked moments before the dump.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::report::{Report, shown};
use crate::resources::cgroup::{self, Cgroup};
use crate::resources::states::own_calls;
use crate::rollback::killed_dump::Seized;
use crate::rollback::{Journal, Undo};

/// Asks the processes of a container, and names the keys of theirs that a restore does not add.
///
/// # Errors
/// When its tasks cannot be listed.
pub(super) fn ask(
    seized: &Seized,
    payload: &[Cgroup],
    journal: &mut Journal,
    report: &mut dyn Report,
) -> Result<own_calls::Read> {
    let is_frozen = |cgroup: &&Cgroup| cgroup::is_frozen(&cgroup.home()).unwrap_or(false);
    let Some(dir) = &seized.cgroup else { return Ok(own_calls::Read::new()) };
    if !payload.iter().any(|cgroup| is_frozen(&cgroup)) {
        let read = own_calls::read(dir)?;
        name_keys(&read, report);
        return Ok(read);
    }
    let asked = match payload.iter().filter(is_frozen).all(|cgroup| cgroup.home() == *dir) {
        true => ask_frozen(dir, journal),
        false => Err(anyhow!("the freezer of cgroup v1 holds it")),
    };
    asked.inspect(|read| name_keys(read, report)).or_else(|e| {
        report.note(&format!(
            "what only a process itself can read (MemoryDenyWriteExecute, KSM, machine check \
             policy) is not in the record: {e:#}"
        ));
        Ok(own_calls::Read::new())
    })
}

/// Names what a restore does not make again.
fn name_keys(read: &own_calls::Read, report: &mut dyn Report) {
    let named = own_calls::keys(read).into_iter().map(|(key, pids)| {
        let first = pids.first().copied().unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
        let more = match pids.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        shown(&format!("{key} (process {first}, {}{more})", comm.trim_end()))
    });
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        report.note(&format!(
            "a restore does not add the keys that its processes have: {}; programs that need them \
             have to add them again",
            named.join(", ")
        ));
    }
}

/// The undo of a thaw of what its owner has frozen.
pub(super) fn frozen_again(dir: &Path) -> Result<Undo> {
    Ok(Undo::FreezeAgain { cgroup: dir.to_owned(), inode: cgroup::identity(dir)? })
}

/// Asks the processes of a container that its owner has frozen.
fn ask_frozen(dir: &Path, journal: &mut Journal) -> Result<own_calls::Read> {
    let step = frozen_again(dir)?;
    let thaw = || {
        journal.note(step.clone())?;
        cgroup::set_frozen(dir, false)
    };
    let read = own_calls::read_frozen(dir, thaw, || cgroup::set_frozen(dir, true))?;
    journal.forget(|undo| *undo == step)?;
    Ok(read)
}
