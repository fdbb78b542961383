//! The pages of the container's memory are made beside CRIU, ahead of it.
//!
//! CRIU's restorer maps the private memory of a task and then reads all of it with preadv(2)
//! (restorer.c, `vma_ios`), a task at a time on one processor. Two thirds of that is not reading:
//! it is the kernel's work at the first touch of each page, to find one, clear it, charge it to the
//! container's cgroup and map it. Another processor does this as well, and CRIU then reads into
//! pages that are there.
//!
//! Nothing but time depends on it. Touched is only what the images fill afterwards, in areas of
//! which nothing is there yet: pages that a task shares with its parent until one of them writes
//! stay shared. It ends before the container runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use procfs::ProcError;
use procfs::process::MMPermissions;

use crate::criu::images;
use crate::resources::cgroup;
use crate::store::parents;
use crate::sys::memory::{self, PageTable, Prefaulter};
use crate::sys::{files, process};

/// CRIU has read less than this, in bytes, before a task is found.
const LEAST_OF_TASK: u64 = 8 << 20;
/// Shorter pieces than this, in bytes, are touched as quickly as they are looked at.
const LEAST_PIECE: u64 = 64 << 10;
/// Between two looks for what CRIU has mapped: first, and when nothing has come for a while.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// A thread that touches memory.
#[derive(Debug)]
pub(super) struct Prefault {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

/// A task that is being restored.
#[derive(Debug)]
struct Task {
    /// Its pid, once it is there.
    pid: Option<i32>,
    /// What is still to be touched: at most [`Prefaulter::STEP`] bytes each.
    pieces: Vec<Range<u64>>,
}

impl Prefault {
    /// Begins to touch the memory of the tasks in this cgroup that are of init's pid namespace, as
    /// these images have it. `None` where that would bring nothing, or cannot be done: it has to be
    /// nobody's reason to fail.
    pub(super) fn start(dir: &Path, payload: &Path, init: i32) -> Option<Prefault> {
        if !is_worth_it(dir).unwrap_or(false) {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (told, dir, payload) = (Arc::clone(&stop), dir.to_owned(), payload.to_owned());
        let touch = move || touch_all(wanted(&dir)?, &payload, init, &told);
        match std::thread::Builder::new().name("touch".to_owned()).spawn(touch) {
            Ok(thread) => Some(Prefault { stop, thread: Some(thread) }),
            Err(e) => {
                log::info!("memory is not made ready beside CRIU: {e}");
                None
            }
        }
    }

    /// Ends it. CRIU has made what is missing itself, so a failure is only told to the log.
    pub(super) fn end(mut self) {
        match self.stop() {
            Ok(bytes) => log::debug!("{} MiB of memory were made ready beside CRIU", bytes >> 20),
            Err(e) => log::info!("memory could not be made ready beside CRIU: {e:#}"),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the thread sees the flag at the next piece")]
    fn stop(&mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(0) };
        thread.thread().unpark();
        thread.join().map_err(|_| anyhow!("the thread that touches memory has crashed"))?
    }
}

impl Drop for Prefault {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            log::debug!("{e:#}");
        }
    }
}

/// Whether another processor can make much of the memory, and none of it in vain.
fn is_worth_it(dir: &Path) -> Result<bool> {
    let bytes = images::bytes_of_pages(dir)?;
    Ok(bytes >= LEAST_OF_TASK
        && memory::processors() > 1
        // The kernel takes pages from the node of whoever touches them, and from those that his
        // cpuset allows him.
        && memory::has_one_node()
        // Else they might be swapped out before CRIU reads into them.
        && memory::has_room_beside(bytes)
        // CRIU reads into pages of another checkpoint's first, at another place (mem.c,
        // `premap_priv_vmas`; `pieok`).
        && parents::parent_of(dir)?.is_none())
}

/// What is to be touched, by the tasks' pids inside.
fn wanted(dir: &Path) -> Result<BTreeMap<i32, Task>> {
    let mut tasks = BTreeMap::new();
    // A damaged one may say that it has more.
    let possible = LEAST_OF_TASK..=images::bytes_of_pages(dir)?;
    for pid in tasks_with_memory(dir)? {
        match images::present(dir, pid) {
            Ok(ranges) => {
                let bytes =
                    ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
                if possible.contains(&bytes) {
                    tasks.insert(pid.cast_signed(), Task { pid: None, pieces: pieces(&ranges) });
                }
            }
            Err(e) => log::info!("the memory of process {pid} is not made ready beside CRIU: {e}"),
        }
    }
    Ok(tasks)
}

/// The pids inside of all tasks of which the images have memory.
fn tasks_with_memory(dir: &Path) -> Result<Vec<u32>> {
    let number =
        |name: PathBuf| name.to_str()?.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse().ok();
    Ok(files::names(dir)?.into_iter().filter_map(number).collect())
}

/// Cuts ranges into what is touched at once.
fn pieces(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let cut = |range: &Range<u64>| {
        let end = range.end;
        (range.start..end)
            .step_by(Prefaulter::STEP)
            .map(move |start| start..end.min(start.saturating_add(Prefaulter::STEP as u64)))
    };
    ranges.iter().flat_map(cut).filter(|piece| piece.end - piece.start >= LEAST_PIECE).collect()
}

/// Touches all, as soon as CRIU has mapped it; says how many bytes.
fn touch_all(
    mut tasks: BTreeMap<i32, Task>,
    payload: &Path,
    init: i32,
    stop: &AtomicBool,
) -> Result<u64> {
    let toucher = Prefaulter::new()?;
    let mut known = BTreeSet::new();
    let (mut touched, mut pause) = (0, SHORTEST_PAUSE);
    while !tasks.is_empty() && !stop.load(Ordering::Acquire) {
        find(&mut tasks, &mut known, payload, init)?;
        let mut now = 0;
        for task in tasks.values_mut() {
            now += task.touch(&toucher, stop)?;
        }
        tasks.retain(|_, task| !task.pieces.is_empty());
        if now == 0 {
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = SHORTEST_PAUSE;
        }
        touched += now;
    }
    Ok(touched)
}

/// Looks for those tasks that were not there before.
fn find(
    tasks: &mut BTreeMap<i32, Task>,
    known: &mut BTreeSet<i32>,
    payload: &Path,
    init: i32,
) -> Result<()> {
    if tasks.values().all(|task| task.pid.is_some()) {
        return Ok(());
    }
    // CRIU is in the same cgroup, and has a number in another namespace.
    let pid_namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let inside =
        pid_namespace(init).with_context(|| format!("inspect the namespaces of process {init}"))?;
    for pid in cgroup::tasks(payload)?.into_iter().filter(|pid| known.insert(*pid)) {
        if !pid_namespace(pid).is_ok_and(|found| found == inside) {
            continue;
        }
        if let Some(task) = process::number_inside(pid).and_then(|number| tasks.get_mut(&number)) {
            task.pid = Some(pid);
        }
    }
    Ok(())
}

impl Task {
    /// Touches what is mapped by now; says how many bytes.
    fn touch(&mut self, toucher: &Prefaulter, stop: &AtomicBool) -> Result<u64> {
        let Some(pid) = self.pid else { return Ok(0) };
        let done = areas(pid).and_then(|areas| self.touch_in(pid, &areas, toucher, stop));
        match done {
            Err(e) if is_gone(&e) => {
                self.pieces.clear();
                Ok(0)
            }
            done => done.with_context(|| format!("touch the memory of process {pid}")),
        }
    }

    fn touch_in(
        &mut self,
        pid: i32,
        areas: &[Range<u64>],
        toucher: &Prefaulter,
        stop: &AtomicBool,
    ) -> Result<u64> {
        let table = PageTable::of(pid)?;
        let mut touched = 0;
        let mut missing = Vec::new();
        for piece in std::mem::take(&mut self.pieces) {
            if stop.load(Ordering::Acquire) || !covers(areas, &piece) {
                missing.push(piece);
            } else if table.is_empty(&piece)? {
                toucher.touch(pid, &piece)?;
                touched += piece.end - piece.start;
            }
        }
        self.pieces = missing;
        Ok(touched)
    }
}

/// Where a process has private memory that it may write to: areas in the order of their addresses,
/// adjoining ones as one.
fn areas(pid: i32) -> Result<Vec<Range<u64>>> {
    let mut areas: Vec<Range<u64>> = Vec::new();
    let maps = procfs::process::Process::new(pid).and_then(|process| process.maps())?;
    for map in
        maps.iter().filter(|map| map.perms.contains(MMPermissions::WRITE | MMPermissions::PRIVATE))
    {
        let (start, end) = map.address;
        match areas.last_mut() {
            Some(before) if before.end == start => before.end = end,
            _ => areas.push(start..end),
        }
    }
    Ok(areas)
}

/// Whether a piece lies in one of the areas.
fn covers(areas: &[Range<u64>], piece: &Range<u64>) -> bool {
    let after = areas.partition_point(|area| area.start <= piece.start);
    areas[..after].last().is_some_and(|area| piece.end <= area.end)
}

/// Whether it failed since the process has ended.
fn is_gone(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<std::io::Error>();
    matches!(error.downcast_ref(), Some(ProcError::NotFound(_)))
        || io_error.is_some_and(|e| {
            // Its page table is at its end before it is.
            matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
                || e.raw_os_error() == Some(libc::ESRCH)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_into_pieces() {
        let step = Prefaulter::STEP as u64;
        let at = 0x7000_0000;
        assert_eq!(
            pieces(&[at..at + 2 * step + LEAST_PIECE, 0x1000..0x2000]),
            [at..at + step, at + step..at + 2 * step, at + 2 * step..at + 2 * step + LEAST_PIECE]
        );
    }

    #[test]
    fn a_piece_has_to_be_mapped_from_its_start_to_its_end() {
        let areas = [0x1000..0x3000, 0x8000..0x9000];
        for (piece, expected) in [
            (0x1000..0x3000, true),
            (0x2000..0x3000, true),
            (0x2000..0x4000, false),
            (0x0000..0x2000, false),
            (0x5000..0x6000, false),
            (0x8000..0x9000, true),
            (0x9000..0xa000, false),
        ] {
            assert_eq!(covers(&areas, &piece), expected, "{piece:x?}");
        }
    }

    #[test]
    fn what_may_be_written_to_is_an_area() {
        let areas = areas(std::process::id().cast_signed()).unwrap();
        let is_area = |byte: &u8| {
            covers(&areas, &(std::ptr::from_ref(byte) as u64..std::ptr::from_ref(byte) as u64 + 1))
        };
        assert!(is_area(&Box::new(7)));
        static READ_ONLY: &u8 = &7;
        assert!(!is_area(READ_ONLY));
    }

    #[test]
    fn a_task_that_has_ended_has_nothing_to_be_touched() {
        let mut gone = Task { pid: Some(i32::MAX), pieces: vec![0x1000..0x2000, 0x3000..0x4000] };
        assert_eq!(gone.touch(&Prefaulter::new().unwrap(), &AtomicBool::new(false)).unwrap(), 0);
        assert_eq!(gone.pieces, []);
    }
}
