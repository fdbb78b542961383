//! Memory that is copied while the container runs, in rounds, so that little is left to be written
//! while it stands still.
//!
//! Each round is a `criu pre-dump` of what has changed since the one before, into a directory
//! `precopy-N` in the one that the checkpoint becomes: it gets its name with it, and goes with it.
//! When the next round is no longer worth it ([`decide`]) the dump builds on the last one. A round
//! that fails costs nothing but its gain.

mod decide;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::directories::{self, Target, partial};
use super::dump::Means;
use super::failure::{exit_of, explain};
use super::plan::Plan;
use super::pre_dump;
use crate::criu::images::DumpStats;
use crate::criu::options::{PRE_DUMP_LOG, PreDump};
use crate::error::Result;
use crate::report::{Report, bytes, seconds};
use crate::rollback::filling;
use crate::store::hasher::{Disk, Sealer};
use crate::store::layout;
use crate::store::record::{self, Record};
use crate::sys::{files, memory};

use decide::{Bounds, Next};
pub(super) use decide::{Forecast, Round, Why};

/// What the rounds have come to.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    /// Each of them; at least one.
    pub rounds: Vec<Round>,
    /// What is left after them.
    pub forecast: Forecast,
    /// Why there were no more of them.
    pub why: Why,
}

impl Copied {
    /// The bytes that were copied.
    pub(crate) fn bytes(&self) -> u64 {
        self.rounds.iter().map(|round| round.written).sum()
    }

    /// How long all rounds took.
    pub(crate) fn took(&self) -> Duration {
        self.rounds.iter().map(|round| round.took).sum()
    }

    /// The longest time that the processes stood still for one.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.rounds.iter().map(|round| round.frozen).max().unwrap_or_default()
    }
}

/// Copies the memory where that is asked for and possible, and makes the plan build on it.
///
/// # Errors
/// Where a signal or the time limit ends it.
pub(super) fn copy(
    means: &Means<'_>,
    plan: &mut Plan,
    target: &Target,
    report: &mut dyn Report,
) -> Result<Option<Copied>> {
    let Means { request, settings, limits, .. } = *means;
    if settings.precopy == 0 || request.only_to_rehearse || request.parent_images.is_some() {
        return Ok(None);
    }
    if !memory::tracks_changes().unwrap_or(false) {
        report.note(
            "its memory is not copied beforehand: this kernel does not track which pages change \
             (CONFIG_MEM_SOFT_DIRTY)",
        );
        return Ok(None);
    }
    let downtime = Duration::from_millis(settings.max_downtime);
    let mut rounds: Vec<Round> = Vec::new();
    let why = loop {
        let number = rounds.len() as u32 + 1;
        let begin = Instant::now();
        let Some((written, stats)) = one(means, plan, target, number, report)? else {
            break Why::Failed;
        };
        plan.dump.parent_images = Some(PathBuf::from(layout::round(number)));
        plan.record.rounds.push(written);
        let pages = |count: u64| count.saturating_mul(procfs::page_size());
        let us = |time: u32| Duration::from_micros(time.into());
        rounds.push(Round {
            written: pages(stats.pages_written + stats.shpages_written.unwrap_or_default()),
            frozen: us(stats.frozen_time),
            copying: us(stats.memdump_time) + us(stats.memwrite_time),
            took: begin.elapsed(),
        });
        let time_left = limits.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let bounds = Bounds { rounds: settings.precopy, downtime, time_left };
        log::info!("round {number}: {}", in_words(&rounds));
        report.phase(&format!("round {number} is done, {}", Forecast::after(&rounds)));
        if let Next::Dump(why) = decide::next(&rounds, &bounds) {
            break why;
        }
    };
    if rounds.is_empty() {
        return Ok(None);
    }
    let forecast = Forecast::after(&rounds);
    Ok(Some(Copied { rounds, forecast, why }))
}

/// "12.0 MiB in 0.210 s (frozen 0.012 s); 1.5 MiB left …".
fn in_words(rounds: &[Round]) -> String {
    let last = rounds.last().map_or(String::new(), |round| {
        let (took, frozen) = (seconds(round.took), seconds(round.frozen));
        format!("{} in {took} (frozen {frozen}); ", bytes(round.written))
    });
    format!("{last}{}", Forecast::after(rounds))
}

/// One round; none where it has failed: then the dump builds on those before.
fn one(
    means: &Means<'_>,
    plan: &Plan,
    target: &Target,
    number: u32,
    report: &mut dyn Report,
) -> Result<Option<(record::Round, DumpStats)>> {
    let Means { request, settings, criu, operation, limits, .. } = *means;
    limits.check()?;
    // Pages that are not there yet would be missing from all rounds.
    filling::refuse(operation.dir())?;
    let name = layout::round(number);
    let dir = partial(&request.images).join(&name);
    let held = target.below(&name).context("make a directory for a copy of memory")?;
    let disk = if settings.sync { Disk::IsWaitedFor } else { Disk::IsNotWaitedFor };
    let sealer = Sealer::start(&dir, disk)?;
    let options = PreDump {
        images: dir.clone(),
        tree: plan.dump.tree,
        parent_images: plan.dump.parent_images.as_ref().map(|before| Path::new("..").join(before)),
        freeze_cgroup: plan.dump.freeze_cgroup.clone(),
        extra: Vec::new(),
    };
    let phase = format!("copying memory, round {number}");
    let ended = pre_dump::run(options, held, criu, operation, limits, &phase, report);
    let sealed = match ended {
        Ok(ended) if ended.success() => seal(&dir, settings.sync, plan, sealer),
        Ok(ended) => {
            let exit = exit_of(ended.given_up, false);
            let failure = explain(&ended, &dir, PRE_DUMP_LOG, exit);
            if ended.given_up.is_some() {
                // It is kept where the rest of a failed command's is.
                let kept = partial(&request.images).join(PRE_DUMP_LOG);
                fs::rename(dir.join(PRE_DUMP_LOG), kept).context("keep CRIU's log")?;
                return Err(failure);
            }
            Err(anyhow::anyhow!("{failure}"))
        }
        Err(cause) => Err(cause.context("start CRIU")),
    };
    match sealed {
        Ok(done) => Ok(Some(done)),
        Err(cause) => {
            report.note(&format!("round {number} of copying its memory has failed: {cause:#}"));
            layout::remove_images(&dir)?;
            Ok(None)
        }
    }
}

/// Completes a round: its checksums, its record, the disk.
fn seal(
    dir: &Path,
    sync: bool,
    plan: &Plan,
    sealer: Sealer,
) -> anyhow::Result<(record::Round, DumpStats)> {
    let stats = DumpStats::read(dir)?;
    let record = Record { memory_only: true, rounds: Vec::new(), ..plan.record.clone() };
    let record = directories::seal_copy(dir, record, sealer)?;
    if sync {
        files::sync_file_system(dir)?;
    }
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let round = record::Round { directory: name, size: record.size(), frozen_us: record.frozen_us };
    Ok((round, stats))
}
