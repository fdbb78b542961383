//! A copy of memory while the container runs, for a later checkpoint to build on (`criu pre-dump`).
//!
//! The container is never ended, so there is nothing to rehearse, and no action of ours is needed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result as AnyResult};

use super::failure::undo;
use super::limits::Limits;
use super::{Done, Outcome, Request, directories, dump, enter, find_running, plan, settle};
use crate::criu::action_env::Action;
use crate::criu::control::Control;
use crate::criu::failure::describe;
use crate::criu::log::Operation as CriuOperation;
use crate::criu::log::reader::LogReader;
use crate::criu::options::{PRE_DUMP_LOG, PreDump, printable};
use crate::criu::run::{self as criu_run, Ended, Job, Watch};
use crate::criu::version::{self, Criu};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::preflight::entry::{self, check_places, no_criu, not_defined};
use crate::report::Report;
use crate::rollback::criu_cgroup::CriuCgroup;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::rollback::{filling, recover};
use crate::settings::Settings;
use crate::store::checksums::Memory;
use crate::store::record::Record;
use crate::sys::netlink::Netlink;

/// Copies memory while the container runs, for a later checkpoint to build on: `criu pre-dump`.
///
/// # Errors
/// Where the kernel cannot track which memory changes, CRIU refuses; the container is never
/// touched.
pub(crate) fn pre_dump(
    request: &Request,
    settings: &Settings,
    report: &mut dyn Report,
) -> Result<Outcome> {
    let begin = Instant::now();
    let limits = Limits::begin(settings)?;
    let defined = Defined::load(&request.name, &request.lxcpath, request.config.as_deref())
        .map_err(not_defined)?;
    let criu = version::find_cached(settings.criu.as_deref(), &lock::criu_version_cache())
        .map_err(no_criu)?;
    let operation = entry::operation(&defined, Command::Checkpoint)?;
    let mut journal = recover::before(&operation, report)?;
    let running = find_running(&defined, &operation, report)?;
    filling::refuse(operation.dir())?;
    let request = &Request { images: check_places(&defined, &request.images)?, ..request.clone() };
    let _replaced = directories::check(request, &defined)?;
    directories::check_parent(request, &defined)?;
    let plan = plan::plan(
        request,
        settings,
        &defined,
        &running,
        &criu,
        &mut Netlink::open().or_exit(Exit::Other)?,
    )?;
    let record = Record { memory_only: true, ..plan.record };
    let options = PreDump {
        images: directories::partial(&request.images),
        tree: running.init.pid(),
        parent_images: request.parent_images.clone(),
        freeze_cgroup: plan.dump.freeze_cgroup.clone(),
        extra: Vec::new(),
    };
    if request.dry_run {
        return Ok(Outcome::Planned(vec![printable(&criu.path, &options.args())]));
    }
    let target = directories::make(request, &defined, &mut journal)
        .map_err(|failure| undo(request, &running, PRE_DUMP_LOG, &mut journal, failure))?;
    let copied = target
        .for_criu()
        .context("hold the images")
        .and_then(|held| run(options, held, &criu, &operation, &limits, "copying memory", report));
    let ended = match copied {
        Ok(ended) => ended,
        Err(cause) => {
            return Err(undo(
                request,
                &running,
                PRE_DUMP_LOG,
                &mut journal,
                Failure::new(Exit::Other, cause),
            ));
        }
    };
    if !ended.success() {
        let log = directories::partial(&request.images).join(PRE_DUMP_LOG);
        let failure =
            describe(&ended.status, &ended.stderr, &log, CriuOperation::Dump, Exit::CriuFailed);
        return Err(undo(request, &running, PRE_DUMP_LOG, &mut journal, failure));
    }
    let sealed = directories::seal(request, &target, settings, record, Memory::WithSums);
    let record = match sealed {
        Ok(record) => record,
        Err(cause) => {
            let failure = Failure::new(Exit::Other, cause.context("complete the copy of memory"));
            return Err(undo(request, &running, PRE_DUMP_LOG, &mut journal, failure));
        }
    };
    enter(request, &record, report);
    settle(request, true, &mut journal, report)?;
    Ok(Outcome::Done(Done {
        images: request.images.clone(),
        size: record.size(),
        frozen: record.frozen_us.map(Duration::from_micros),
        criu: ended.took,
        cleanup: Duration::ZERO,
        took: begin.elapsed(),
        stopped: false,
        rehearsal: None,
        precopied: None,
    }))
}

/// Runs `criu pre-dump`: it stops the tasks for moments only, and no action of ours is needed.
pub(super) fn run(
    mut options: PreDump,
    (for_criu, held, number): directories::ForCriu,
    criu: &Criu,
    operation: &Operation,
    limits: &Limits,
    phase: &str,
    report: &mut dyn Report,
) -> AnyResult<Ended> {
    let criu_cgroup = CriuCgroup::open(operation.dir())?;
    let dir = std::mem::replace(&mut options.images, for_criu);
    let job = Job {
        program: &criu.path,
        args: options.args(),
        place: dump::place(&criu_cgroup)?.keep(held, number),
        control: Control::listen(&operation.control()).context("listen for CRIU's actions")?,
        environment: Vec::new(),
        deadline: limits.deadline,
    };
    let log = LogReader::new(dir.join(PRE_DUMP_LOG), report);
    let mut watch = PreDumpActions { criu_cgroup: &criu_cgroup, images: &dir, log };
    watch.log.report.phase(phase);
    criu_run::run(job, &limits.signals, &mut watch)
}

/// A copy of memory: nothing is to be done but to watch.
struct PreDumpActions<'a> {
    criu_cgroup: &'a CriuCgroup,
    images: &'a Path,
    log: LogReader<'a>,
}

impl Watch for PreDumpActions<'_> {
    fn action(&mut self, _action: &Action, _init_pid: Option<i32>) -> AnyResult<()> {
        Ok(())
    }

    fn pulse(&mut self) -> Option<u64> {
        Some(dump::pulse(self.criu_cgroup, self.images))
    }

    fn nudge(&mut self) {
        self.criu_cgroup.nudge();
    }

    fn wants_ticks(&self) -> bool {
        self.log.wanted()
    }

    fn tick(&mut self) {
        self.log.read();
        self.log.tell_amount(self.images);
    }
}
