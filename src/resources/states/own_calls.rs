//! States of a process that only its own system calls read and set (prctl(2)), or only set
//! ([`sealed`] memory). CRIU (4.2) neither saves nor restores those in [`ROWS`].
//!
//! They are read moments before a dump, while the container runs, for CRIU holds the tasks after
//! that. A process that has come into being since has those of its parent: all of them pass on to
//! children. What is frozen does not get to a call: all threads of a frozen container are held with
//! ptrace, and it is thawed as long as they are. They are set when CRIU has let its hands off the
//! restored tasks, which the freezer of cgroup2 holds then: those that need it are held with
//! ptrace, the container is thawed, and they are let go once their states are set.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::alarms::{self, Alarm};
use super::keyrings;
use super::sealed::{self, Area};
use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::inject::{self, Stopped};
use crate::sys::process::{number_inside, parent, start_time, state};

/// A state: how it is read and set.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    /// The arguments of prctl(2) that reads it.
    read: [u64; 2],
    /// Those that set it, before the value.
    set: &'static [u64],
    /// What of the value is set; none where that is what a new process has.
    wanted: fn(u64) -> Option<u64>,
    /// Whether each thread has its own.
    of_threads: bool,
}

const PR_MCE_KILL_SET: u64 = 1;

const ROWS: &[Row] = &[
    Row { name: "PR_SET_MDWE", read: [66, 0], set: &[65], wanted: unless_zero, of_threads: false },
    Row {
        name: "PR_SET_MEMORY_MERGE",
        read: [68, 0],
        set: &[67],
        wanted: unless_zero,
        of_threads: false,
    },
    Row {
        name: "PR_SET_IO_FLUSHER",
        read: [58, 0],
        set: &[57],
        wanted: unless_zero,
        of_threads: true,
    },
    Row {
        name: "PR_MCE_KILL",
        read: [34, 0],
        set: &[33, PR_MCE_KILL_SET],
        wanted: machine_check,
        of_threads: true,
    },
    Row {
        name: "PR_SPEC_STORE_BYPASS",
        read: [52, 0],
        set: &[53, 0],
        wanted: speculation,
        of_threads: true,
    },
    Row {
        name: "PR_SPEC_INDIRECT_BRANCH",
        read: [52, 1],
        set: &[53, 1],
        wanted: speculation,
        of_threads: true,
    },
    Row {
        name: "PR_SPEC_L1D_FLUSH",
        read: [52, 2],
        set: &[53, 2],
        wanted: flush,
        of_threads: true,
    },
];

fn unless_zero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// `PR_MCE_KILL_DEFAULT` is 2.
fn machine_check(value: u64) -> Option<u64> {
    (value != 2).then_some(value)
}

/// `PR_SPEC_PRCTL` says that it is the process's to choose, the other bits what it has chosen.
fn speculation(value: u64) -> Option<u64> {
    const PRCTL: u64 = 1;
    const DISABLED: u64 = 4 | 8 | 16;
    (value & PRCTL != 0 && value & DISABLED != 0).then_some(value & DISABLED)
}

/// The flush is off unless it was asked for: `PR_SPEC_ENABLE`.
fn flush(value: u64) -> Option<u64> {
    (value & 3 == 3).then_some(2)
}

/// The states of a process, by name.
pub(crate) type Values = BTreeMap<String, u64>;

/// What was read of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    values: Values,
    sealed: Vec<Area>,
    keys: Vec<String>,
}

/// Those that were read, by process and its start time.
pub(crate) type Read = BTreeMap<(i32, u64), Answers>;

/// A process with states that a new one does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCalls {
    /// Its number in the container.
    pub pid: i32,
    /// Their values by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: Values,
    /// Its memory that is sealed: starts and lengths, in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<Area>,
}

/// Reads those of all processes that run in a cgroup and below it; none may be frozen. One that
/// cannot be held just now (it is stopped, traced, or waits in the kernel) is left out: it counts
/// as its parent does.
pub(crate) fn read(payload: &Path) -> Result<Read> {
    let mut found = Read::new();
    for task in cgroup::tasks(payload)? {
        let Ok(started) = start_time(task) else { continue };
        if !state(task).is_ok_and(|state| matches!(state, 'R' | 'S')) {
            continue;
        }
        match inject::with(task, |stopped| Ok(answers(task, stopped))) {
            Ok(answers) => drop(found.insert((task, started), answers)),
            Err(e) => log::debug!("read the states of process {task} by its own calls: {e}"),
        }
    }
    Ok(found)
}

/// The same of a cgroup that is frozen, which is thawed for a moment and frozen again: none of its
/// threads runs meanwhile, for all are held.
///
/// # Errors
/// Where a thread cannot be held; then nothing was thawed. Whatever happens, `freeze` is called
/// after `thaw`.
#[expect(
    clippy::disallowed_methods,
    reason = "held for the calls of one process, which have a limit"
)]
pub(crate) fn read_frozen(
    payload: &Path,
    thaw: impl FnOnce() -> Result<()>,
    freeze: impl FnOnce() -> Result<()>,
) -> Result<Read> {
    let mut threads = Vec::new();
    for task in cgroup::tasks(payload)? {
        let Ok(started) = start_time(task) else { continue };
        for tid in self::threads(task)? {
            // What has ended or is stopped stays so.
            if state(tid).is_ok_and(|state| matches!(state, 'R' | 'S' | 'D')) {
                threads.push((tid, tid == task, started));
            }
        }
    }
    let found = Mutex::new(Read::new());
    hold_all(&threads, thaw, freeze, |stopped, (tid, leads, started)| {
        if *leads {
            // One after the other: a thread that is in a call is lost if we are killed.
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert((*tid, *started), answers(*tid, stopped));
            stopped.leave_call()?;
        }
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn answers(pid: i32, stopped: &Stopped) -> Answers {
    let sealed = sealed::of_process(pid).unwrap_or_else(|e| {
        log::debug!("read what memory process {pid} has sealed: {e}");
        Vec::new()
    });
    let keys = stopped.page().map(|page| keyrings::of_process(&page)).unwrap_or_default();
    Answers { values: read_one(stopped), sealed, keys }
}

/// What the kernel does not know, or does not tell this process, is not there.
fn read_one(stopped: &Stopped) -> Values {
    let value = |row: &Row| {
        let value = stopped.call(libc::SYS_prctl, &[row.read[0], row.read[1], 0, 0, 0]).ok()?;
        Some((row.name.to_owned(), (row.wanted)(value.cast_unsigned())?))
    };
    ROWS.iter().filter_map(value).collect()
}

/// The keys that a restore does not make again, and the processes that have them.
pub(crate) fn keys(read: &Read) -> BTreeMap<&str, Vec<i32>> {
    let mut found: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for ((pid, _), answers) in read {
        answers.keys.iter().for_each(|key| found.entry(key).or_default().push(*pid));
    }
    found
}

/// What is to be recorded of the tasks of a container that stands still.
pub(crate) fn of_tasks(payload: &Path, read: &Read) -> Result<Vec<OwnCalls>> {
    let of = |task: i32| {
        let Answers { values, .. } = inherited(task, read)?;
        // A new process may have other memory than its parent.
        let own = start_time(task).ok().and_then(|started| read.get(&(task, started)));
        let sealed = own.map(|own| own.sealed.clone()).unwrap_or_default();
        (!values.is_empty() || !sealed.is_empty()).then_some(OwnCalls {
            pid: number_inside(task)?,
            values: values.clone(),
            sealed,
        })
    };
    Ok(cgroup::tasks(payload)?.into_iter().filter_map(of).collect())
}

/// The values of a process, or of the nearest before it that was read.
fn inherited(mut task: i32, read: &Read) -> Option<&Answers> {
    loop {
        let started = start_time(task).ok()?;
        if let Some(answers) = read.get(&(task, started)) {
            return Some(answers);
        }
        task = parent(task).ok().filter(|parent| *parent > 1)?;
    }
}

/// What a process has to do.
#[derive(Clone, Debug)]
struct Orders<'a> {
    calls: Option<&'a OwnCalls>,
    alarms: Vec<&'a Alarm>,
}

/// Has the tasks of a cgroup that is frozen set them, and their timers too; thaws it. Gives what
/// could not be set of timers, in words.
///
/// # Errors
/// When a state cannot be set. Then the container is frozen or goes on, and has to be ended.
#[expect(clippy::disallowed_methods, reason = "held for one push")]
pub(crate) fn restore(
    payload: &Path,
    recorded: &[OwnCalls],
    alarms: &[Alarm],
) -> Result<Vec<String>> {
    let mut threads = Vec::new();
    for task in cgroup::tasks(payload)? {
        let Some(inside) = number_inside(task) else { continue };
        let calls = recorded.iter().find(|calls| calls.pid == inside);
        let orders =
            Orders { calls, alarms: alarms.iter().filter(|alarm| alarm.pid == inside).collect() };
        if calls.is_some() {
            threads.extend(
                self::threads(task)?.into_iter().map(|tid| (tid, tid == task, orders.clone())),
            );
        } else if !orders.alarms.is_empty() {
            threads.push((task, true, orders));
        }
    }
    let missed = Mutex::new(Vec::new());
    let thaw = || cgroup::set_frozen(payload, false);
    let nothing_more = || Ok(());
    hold_all(&threads, thaw, nothing_more, |stopped, (tid, leads, orders)| {
        if let Some(OwnCalls { values, sealed, .. }) = orders.calls {
            set_all(stopped, *leads, values)
                .and_then(|()| if *leads { sealed::set(stopped, sealed) } else { Ok(()) })
                .with_context(|| format!("have thread {tid} set its states"))?;
        }
        for alarm in orders.alarms.iter().filter(|_| *leads) {
            if let Err(e) = alarms::set(stopped, alarm) {
                let mut missed = missed.lock().unwrap_or_else(PoisonError::into_inner);
                missed.push(format!("process {}: {e:#}", alarm.pid));
            }
        }
        Ok(())
    })?;
    Ok(missed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn set_all(stopped: &Stopped, leads: bool, values: &Values) -> Result<()> {
    for (name, value) in values {
        let row = ROWS
            .iter()
            .find(|row| row.name == name)
            .with_context(|| format!("{name} is not known"))?;
        if !leads && !row.of_threads {
            continue;
        }
        let mut arguments = [0; 5];
        let given = row.set.iter().chain([value]);
        arguments.iter_mut().zip(given).for_each(|(argument, value)| *argument = *value);
        stopped
            .call(libc::SYS_prctl, &arguments)
            .with_context(|| format!("set {name} to {value:#x}"))?;
    }
    Ok(())
}

/// Those of a process that have not ended.
fn threads(pid: i32) -> Result<Vec<i32>> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).with_context(|| format!("list {directory}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Holds all of these threads at once; when all stand still, `before` is done, then `work` in each
/// of them, then `after`, in any case. None goes on before that.
#[expect(
    clippy::disallowed_methods,
    reason = "holding a thread has a limit, and all tell or are gone"
)]
fn hold_all<T: Sync>(
    threads: &[(i32, bool, T)],
    before: impl FnOnce() -> Result<()>,
    after: impl FnOnce() -> Result<()>,
    work: impl Fn(&Stopped, &(i32, bool, T)) -> Result<()> + Sync,
) -> Result<()> {
    thread::scope(|scope| {
        let (tell, told) = channel();
        let mut gates: Vec<Sender<()>> = Vec::new();
        for held in threads {
            let (gate, go) = channel();
            let (tell, work) = (tell.clone(), &work);
            gates.push(gate);
            let hold = move || {
                let (reports, failed) = (tell.clone(), tell);
                let stands = inject::with(held.0, move |stopped| {
                    // Each waits twice; a gate that is gone means that all is given up.
                    drop(reports.send(Ok(())));
                    if go.recv().is_ok() {
                        drop(reports.send(work(stopped, held)));
                        let _ = go.recv();
                    }
                    Ok(())
                });
                if let Err(e) = stands {
                    drop(failed.send(Err(anyhow!(e).context(format!("hold thread {}", held.0)))));
                }
            };
            thread::Builder::new()
                .name("hold".to_owned())
                .spawn_scoped(scope, hold)
                .context("start a thread")?;
        }
        drop(tell);
        let all = || -> Result<()> {
            let mut errors = ErrorList::default();
            told.iter().take(threads.len()).for_each(|told| errors.note(told));
            errors.into_result()
        };
        all()?;
        let worked = before().and_then(|()| {
            for gate in &gates {
                // One that failed is gone, and has told why.
                let _ = gate.send(());
            }
            all()
        });
        worked.and(after())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn only_what_a_new_process_does_not_have_is_wanted() {
        assert_eq!((unless_zero(0), unless_zero(3)), (None, Some(3)));
        assert_eq!((machine_check(2), machine_check(1)), (None, Some(1)));
        assert_eq!(
            (speculation(0), speculation(3), speculation(4), speculation(9)),
            (None, None, None, Some(8))
        );
        assert_eq!((flush(5), flush(3), flush(2)), (None, Some(2), None));
    }

    #[test]
    fn a_process_that_was_not_read_has_its_parents() {
        let me = std::process::id().cast_signed();
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let values = Values::from([("PR_SET_MDWE".to_owned(), 1)]);
        let answers = Answers { values, ..Answers::default() };
        let read = Read::from([((me, start_time(me).unwrap()), answers.clone())]);
        assert_eq!(inherited(child.id().cast_signed(), &read), Some(&answers));
        let other = Read::from([((me, 7), answers)]);
        assert_eq!(inherited(child.id().cast_signed(), &other), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_reads_and_sets_its_own() {
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let values = Values::from([("PR_MCE_KILL".to_owned(), 1)]);
        let mut thawed = false;
        let thaw = || {
            thawed = true;
            Ok(())
        };
        let work =
            |stopped: &Stopped, held: &(i32, bool, &Values)| set_all(stopped, held.1, held.2);
        let mut frozen = false;
        let freeze = || {
            frozen = true;
            Ok(())
        };
        hold_all(&[(pid, true, &values)], thaw, freeze, work).unwrap();
        let now = inject::with(pid, |stopped| Ok(read_one(stopped))).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(thawed && frozen);
        assert_eq!(now.get("PR_MCE_KILL"), Some(&1));
        assert!(hold_all(&[(i32::MAX, true, &values)], || Ok(()), || Ok(()), work).is_err());
    }
}
