//! On which processors threads run, how they share the disk, and how exact their timers are.
//!
//! CRIU (4.2) saves policy, priority and nice value, and none of these: a restored thread has what
//! CRIU was started with. All can be set from outside.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::kernel_state::{io_priority, set_io_priority};
use crate::sys::process::number_inside;

/// How late a timer may be where nothing else was asked for, in nanoseconds (init/init_task.c).
const SLACK: u64 = 50_000;

/// A thread that has other settings than a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// Its number in the container.
    pub tid: i32,
    /// The processors that it may run on, where those are not all of init's on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processors: Vec<usize>,
    /// Class and level of its I/O priority, as in ioprio_set(2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<(u32, u32)>,
    /// How late its timers may be, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_slack: Option<u64>,
}

impl Scheduling {
    fn of(thread: i32, usual: &[usize]) -> Result<Option<Scheduling>> {
        let Some(tid) = number_inside(thread) else { return Ok(None) };
        let what = || format!("read the scheduling of thread {thread}");
        let processors = processors_of(Some(thread)).with_context(what)?;
        let scheduling = Scheduling {
            tid,
            processors: if processors == usual { Vec::new() } else { processors },
            io_priority: Some(io_priority(thread).with_context(what)?).filter(|io| *io != (0, 0)),
            timer_slack: timer_slack(thread).filter(|slack| *slack != SLACK),
        };
        let is_usual = scheduling.processors.is_empty()
            && scheduling.io_priority.is_none()
            && scheduling.timer_slack.is_none();
        Ok((!is_usual).then_some(scheduling))
    }

    fn set(&self, thread: i32) -> Result<()> {
        if !self.processors.is_empty() {
            let mut set = CpuSet::new();
            self.processors.iter().filter(|at| **at < CpuSet::MAX_CPU).for_each(|at| set.set(*at));
            sched_setaffinity(Pid::from_raw(thread), &set)
                .with_context(|| format!("run thread {thread} on its processors"))?;
        }
        if let Some((class, level)) = self.io_priority {
            set_io_priority(thread, class, level)
                .with_context(|| format!("give thread {thread} its I/O priority"))?;
        }
        if let Some(slack) = self.timer_slack {
            let file = format!("/proc/{thread}/timerslack_ns");
            fs::write(&file, slack.to_string()).with_context(|| format!("write {file}"))?;
        }
        Ok(())
    }
}

/// Those of the threads of a container that stands still.
pub(crate) fn of_tasks(payload: &Path) -> Result<Vec<Scheduling>> {
    let usual = processors_of(Some(1)).context("read the processors of the host")?;
    let mut found = Vec::new();
    for task in cgroup::tasks(payload)? {
        for thread in threads_of(task) {
            found.extend(Scheduling::of(thread, &usual)?);
        }
    }
    Ok(found)
}

/// Gives the restored threads theirs.
pub(crate) fn set(payload: &Path, scheduling: &[Scheduling]) -> Result<()> {
    if scheduling.is_empty() {
        return Ok(());
    }
    let mut errors = ErrorList::default();
    for task in cgroup::tasks(payload)? {
        for thread in threads_of(task) {
            let inside = number_inside(thread);
            for one in scheduling.iter().filter(|one| inside == Some(one.tid)) {
                errors.note(one.set(thread));
            }
        }
    }
    errors.into_result()
}

/// None of a process that has ended.
fn threads_of(task: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{task}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn processors_of(thread: Option<i32>) -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(thread.and_then(Pid::from_raw))?;
    Ok((0..CpuSet::MAX_CPU).filter(|at| set.is_set(*at)).collect())
}

fn timer_slack(thread: i32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{thread}/timerslack_ns")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_again() {
        let (tell, told) = std::sync::mpsc::channel();
        let work = move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get();
            let inside = number_inside(own).unwrap();
            let wanted = Scheduling {
                tid: inside,
                processors: vec![0],
                io_priority: Some((2, 7)),
                timer_slack: Some(70_000),
            };
            wanted.set(own).unwrap();
            tell.send((Scheduling::of(own, &[0, 1]).unwrap(), wanted)).unwrap();
        };
        std::thread::spawn(work).join().unwrap();
        let (read, wanted) = told.recv().unwrap();
        assert_eq!(read, Some(wanted));
    }
}
