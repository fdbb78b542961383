//! A checkpoint, from the request to the report.
//!
//! 1. Read the container's definition and take its lock.
//! 2. Roll back what a command that died has left ([`recover`]).
//! 3. Find the container running.
//! 4. Check what stands in the way ([`preflight`]) and decide ([`plan`]). A dry run ends here.
//! 5. Copy memory while the container runs, if that is asked for ([`precopy`]), and run CRIU on
//!    `DIR.partial` ([`directories`], [`dump`](mod@dump)). It freezes the container, and our action
//!    takes its ports off their bridges. A failure of a kind that passes is tried again
//!    ([`retry`]).
//! 6. When the images are complete and the container is to stop, it is still frozen: its restore is
//!    rehearsed beside it ([`rehearse`](crate::rehearse)), the record is written, everything is
//!    synced, and the directory gets its name. Only then may CRIU end the container.
//! 7. A container that keeps running has its ports back by now; its checkpoint is completed
//!    afterwards. The checksums of memory images, taken all the while, are added last.
//!
//! So at each moment the container runs, or can run on, or its checkpoint is complete on disk.
//! Every failure is rolled back, and reported with the state in which the container is.

mod asked;
pub(crate) mod directories;
pub(crate) mod dump;
mod failure;
mod limits;
mod links;
pub(crate) mod plan;
mod pre_dump;
mod precopy;
mod retry;
mod surroundings;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::criu::options::{AfterDump, DUMP_LOG};
use crate::criu::version;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::command::{Client, StateClient};
use crate::lxc::container::{self, Running};
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::protocol::State;
use crate::lxc::settled;
use crate::preflight::entry::{self, check_places, no_criu, not_defined, not_running};
use crate::preflight::{self, Fails, Findings, Severity, Subject, start_state};
use crate::rehearse::Rehearsed;
use crate::report::Report;
use crate::resources::cgroup::{self, Cgroup};
use crate::rollback::holder::Command;
use crate::rollback::killed_dump::Seized;
use crate::rollback::lock::{self, Operation};
use crate::rollback::{Journal, Undo, filling, recover};
use crate::settings::{Rehearse, Settings};
use crate::store::checksums::Memory;
use crate::store::record::Record;
use crate::store::register::Register;
#[cfg(doc)]
use crate::store::resume_mark;
use crate::sys::files;
use crate::sys::netlink::Netlink;

use dump::{Dumped, Means};
use failure::undo;
use limits::Limits;

pub(crate) use pre_dump::pre_dump;
pub(crate) use precopy::Copied;

/// How long the monitor may take to clean up after its container, its post-stop hooks included. As
/// after an `lxc-stop`, all of it is done when we return.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// How long the memory of a container that was restored lazily is waited for.
const FILL_LIMIT: Duration = Duration::from_secs(180);
/// Between two checks whether it is in: the monitor that fills it notes its progress in a file, and
/// nothing waits for a change of that.
const FILL_PAUSE: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The container.
    pub name: ContainerName,
    /// Where it is defined.
    pub lxcpath: LxcPath,
    /// Another configuration file than its own.
    pub config: Option<PathBuf>,
    /// The directory that the checkpoint becomes.
    pub images: PathBuf,
    /// A checkpoint that is there already is replaced by this one.
    pub replace: bool,
    /// Whether the container stops.
    pub after: AfterDump,
    /// Our action script.
    pub action_script: PathBuf,
    /// The user's action script.
    pub user_script: Option<PathBuf>,
    /// The images of a pre-dump to build on, relative to `images`.
    pub parent_images: Option<PathBuf>,
    /// Leave TCP connections out: they are closed in what is restored.
    pub tcp_close: bool,
    /// The checkpoint is one that `lxc-cr resume` brings back, and is marked so
    /// ([`resume_mark`]).
    pub to_be_resumed: bool,
    /// The host's shutdown asks for it: `lxc-cr resume --all` brings it back at boot.
    pub at_shutdown: bool,
    /// What the user calls it.
    pub label: Option<String>,
    /// It joins the container's list: the directory of that is made if it is missing.
    pub kept: bool,
    /// When its restore is rehearsed; what the settings say where it is not said.
    pub rehearse: Option<Rehearse>,
    /// States that may come back different, beside those of the settings.
    pub accept: Vec<String>,
    /// Nothing is kept: the checkpoint is made to be rehearsed.
    pub only_to_rehearse: bool,
    /// Go ahead although the dump is expected to fail.
    pub force: bool,
    /// Nothing that was found beforehand stands in the way. For trials of what comes later.
    pub skip_preflight: bool,
    /// Decide, but do nothing.
    pub dry_run: bool,
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A dry run: what would be done, in words.
    Planned(Vec<String>),
    /// A checkpoint was made.
    Done(Done),
}

/// A checkpoint that was made.
#[derive(Debug)]
pub(crate) struct Done {
    /// Where it is.
    pub images: PathBuf,
    /// The size of its images in bytes.
    pub size: u64,
    /// How long the processes stood still, by CRIU's statistics.
    pub frozen: Option<Duration>,
    /// How long CRIU ran.
    pub criu: Duration,
    /// How long the container's monitor took to clean up.
    pub cleanup: Duration,
    /// How long all of it took.
    pub took: Duration,
    /// Whether the container was stopped.
    pub stopped: bool,
    /// How its restore was rehearsed, if it was.
    pub rehearsal: Option<Rehearsed>,
    /// What of its memory was copied before it stood still, if any was.
    pub precopied: Option<Box<Copied>>,
}

/// The action scripts in the order in which CRIU is given them. It runs them in the reverse order:
/// the user's sees the network as it was. Before that ours is asked already, so that the tasks are
/// safe while the user's script works.
fn action_scripts(request: &Request) -> Vec<PathBuf> {
    let ours = &request.action_script;
    match &request.user_script {
        Some(theirs) => vec![ours.clone(), theirs.clone(), ours.clone()],
        None => vec![ours.clone()],
    }
}

/// Makes a checkpoint.
pub(crate) fn checkpoint(
    request: &Request,
    settings: &Settings,
    report: &mut dyn Report,
) -> Result<Outcome> {
    let begin = Instant::now();
    let limits = Limits::begin(settings)?;

    // 1.
    let defined = Defined::load(&request.name, &request.lxcpath, request.config.as_deref())
        .map_err(not_defined)?;
    let criu = version::find_cached(settings.criu.as_deref(), &lock::criu_version_cache())
        .map_err(no_criu)?;
    let operation = entry::operation(&defined, Command::Checkpoint)?;

    // 2.
    let mut journal = recover::before(&operation, report)?;

    // 3. Pages that are not there yet would not be in the dump.
    let running = find_running(&defined, &operation, report)?;
    if request.to_be_resumed {
        await_memory(&operation, &limits, report)?;
    }
    filling::refuse(operation.dir())?;

    // 4.
    if request.after == AfterDump::Stop {
        entry::refuse_ephemeral(&defined)?;
    }
    refuse_of_a_user(&running)?;
    let request = &Request { images: check_places(&defined, &request.images)?, ..request.clone() };
    let _replaced = directories::check(request, &defined)?;
    directories::check_parent(request, &defined)?;
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let subject = Subject {
        defined: &defined,
        running: &running,
        criu: &criu,
        settings,
        images: &request.images,
        incremental: request.parent_images.is_some(),
    };
    limits.check()?;
    let findings = preflight::look(&subject, &mut netlink)?;
    limits.check()?;
    heed(&findings, request, report)?;
    let plan = plan::plan(request, settings, &defined, &running, &criu, &mut netlink)?;
    plan.notes.iter().for_each(|note| report.note(note));
    if request.dry_run {
        return Ok(Outcome::Planned(plan.in_words(&criu.path)));
    }

    // 5. and 6.
    limits.check()?;
    let monitor = monitor_end(&defined, request.after);
    let payload = cgroup::of_container(&running)?;
    let seized = seized(&running, &payload, &plan);
    let means = Means {
        request,
        settings,
        criu: &criu,
        defined: &defined,
        running: &running,
        payload: &payload,
        seized: &seized,
        operation: &operation,
        limits: &limits,
    };
    let dumped = retry::dump(&means, &plan, &mut journal, &mut netlink, report)?;

    // 7.
    let retry::Done { dumped, precopied } = dumped;
    let Dumped { ended, sealed, let_go, target, record, sealer, rehearsal, refused: _ } = dumped;
    let mut record = match sealed {
        _ if request.only_to_rehearse => record,
        true => record,
        false => match directories::seal(request, &target, settings, record, Memory::SumsFollow) {
            Ok(record) => record,
            Err(cause) => {
                let failure = Failure::new(Exit::Other, cause.context("complete the checkpoint"));
                return Err(undo(request, &running, DUMP_LOG, &mut journal, failure));
            }
        },
    };
    if !request.only_to_rehearse
        && let Err(e) = directories::add_sums(request, &mut record, sealer)
    {
        report.note(&format!(
            "the checkpoint is complete, but the checksums of its memory are missing: {e:#}"
        ));
    }
    let ended_at = Instant::now();
    // LXC's monitor cleans up meanwhile.
    if !request.only_to_rehearse {
        enter(request, &record, report);
    }
    if let Some(mut monitor) = monitor
        && monitor.wait(MONITOR_LIMIT).is_err()
    {
        report.note("LXC's monitor has not yet cleaned up after the container");
    }
    let cleanup = ended_at.elapsed();
    settle(request, let_go, &mut journal, report)?;
    if request.only_to_rehearse {
        // The log of a dump that nothing is left of.
        files::remove_if_there(&directories::failed_log(&request.images))?;
    }
    if request.after == AfterDump::Stop && !monitor_answers(&defined) {
        remove_orphaned_cgroups(&payload, report);
    }
    Ok(Outcome::Done(Done {
        images: request.images.clone(),
        size: record.size(),
        frozen: record.frozen_us.map(Duration::from_micros),
        criu: ended.took,
        cleanup,
        took: begin.elapsed(),
        stopped: request.after == AfterDump::Stop,
        rehearsal,
        precopied: precopied.map(Box::new),
    }))
}

/// Enters a checkpoint that is in its place into the register: one that lies on another disk is
/// found again.
fn enter(request: &Request, record: &Record, report: &mut dyn Report) {
    if let Err(e) = Register::of_host().enter(&request.images, record) {
        report.note(&format!(
            "the checkpoint is complete, but lxc-cr list does not look for it: {e:#}"
        ));
    }
}

fn find_running(
    defined: &Defined,
    operation: &Operation,
    report: &mut dyn Report,
) -> Result<Running> {
    match container::find(
        &defined.lxcpath_text(),
        defined.name.as_str(),
        container::Marks::of(defined),
    )? {
        Some(running) => {
            settled::wait(
                &Client::new(&defined.lxcpath_text(), defined.name.as_str()),
                running.init.pid(),
            );
            Ok(running)
        }
        None => {
            recover::held(operation, report)?;
            Err(not_running(defined))
        }
    }
}

/// Waits until all of its memory is in: it would be lost at the host's shutdown.
fn await_memory(operation: &Operation, limits: &Limits, report: &mut dyn Report) -> Result<()> {
    let end = Instant::now() + FILL_LIMIT;
    while Instant::now() < end && filling::progress(operation.dir())?.is_some() {
        report.phase("waiting for its memory");
        limits.check()?;
        std::thread::sleep(FILL_PAUSE);
    }
    Ok(())
}

/// Refuses what a user has started, before anything is said of its files, which are that user's.
fn refuse_of_a_user(running: &Running) -> Result<()> {
    match start_state::monitors_user(running.init.pid())
        .filter(|uid| *uid != 0)
        .map(start_state::of_a_user)
    {
        None => Ok(()),
        Some(found) => {
            Err(Failure::msg(Exit::Refused, format!("it cannot be checkpointed: {found}"))
                .hint(found.remedy))
        }
    }
}

/// Tells what the preflight has found, and refuses if something stands in the way. With `force` a
/// dump that should fail is tried; a container that could not be restored is not stopped for it.
fn heed(findings: &Findings, request: &Request, report: &mut dyn Report) -> Result<()> {
    let lost: Vec<_> =
        findings.unrestorable().filter(|_| request.after == AfterDump::Stop).collect();
    let force = request.skip_preflight || (request.force && lost.is_empty());
    for finding in findings.iter().filter(|f| force || f.severity != Severity::Blocker) {
        match finding.remedy.as_str() {
            "" => report.note(&finding.to_string()),
            remedy => report.note(&format!("{finding}; {remedy}")),
        }
    }
    if force {
        return Ok(());
    }
    let blockers = if request.force { lost } else { findings.blockers().collect() };
    let what = if request.force { "it could not be restored" } else { "it cannot be checkpointed" };
    match blockers.as_slice() {
        [] => Ok(()),
        [one] => {
            Err(Failure::msg(Exit::Refused, format!("{what}: {one}")).hint(one.remedy.as_str()))
        }
        several => {
            let refused = Failure::msg(Exit::Refused, format!("{what}:"));
            let told = several.iter().fold(refused, |failure, finding| {
                failure.detail(finding.to_string()).detail(format!("  remedy: {}", finding.remedy))
            });
            Err(told.hint(match several.iter().any(|f| f.fails == Fails::Restore) {
                true => "fix these, and try again",
                false => "fix these, or use --force to try anyway",
            }))
        }
    }
}

/// A line to the container's monitor that ends when the monitor has cleaned up; it has to be opened
/// while the monitor still answers.
fn monitor_end(defined: &Defined, after: AfterDump) -> Option<StateClient> {
    if after != AfterDump::Stop {
        return None;
    }
    let mut wanted = [0; State::COUNT];
    wanted[State::Stopped.index()] = 1;
    Client::new(&defined.lxcpath_text(), defined.name.as_str()).add_state_client(&wanted).ok()
}

/// What CRIU is about to lay its hands on.
fn seized(running: &Running, payload: &[Cgroup], plan: &plan::Plan) -> Seized {
    let cgroup = payload.iter().find(|c| c.hierarchy.is_unified()).map(Cgroup::home);
    let (init, start_time) = (running.init.pid(), running.init.start_time());
    Seized { init, start_time, cgroup, frozen: plan.dump.freeze_cgroup.is_some() }
}

/// Whether LXC's monitor lives: then it removes what it has made.
fn monitor_answers(defined: &Defined) -> bool {
    !matches!(
        Client::new(&defined.lxcpath_text(), defined.name.as_str()).state(),
        Ok(State::Stopped)
    )
}

/// Removes the cgroups of a container that had no monitor any more, who would have done it. Were it
/// to stay, the container would get another one with a number at its restart.
fn remove_orphaned_cgroups(payload: &[Cgroup], report: &mut dyn Report) {
    if let Err(e) = payload.iter().try_for_each(|cgroup| cgroup::remove(&cgroup.dir)) {
        report.note(&format!("{e:#}"));
    }
}

/// Strikes out what is done for good and removes the checkpoint that was replaced.
///
/// # Errors
/// Exit 8 when a container that goes on is not as it was.
fn settle(
    request: &Request,
    let_go: bool,
    journal: &mut Journal,
    report: &mut dyn Report,
) -> Result<()> {
    // CRIU has done it all; or the tasks and the ports went with the container.
    let stopped = request.after == AfterDump::Stop;
    let forgotten = journal.forget(|u| {
        let went_with_it =
            matches!(u, Undo::Unseal { .. } | Undo::PutPortBack(_) | Undo::OpenGates(_));
        (matches!(u, Undo::Release(_)) && (stopped || let_go)) || (stopped && went_with_it)
    });
    if let Err(e) = forgotten {
        // The next command finds that all is well.
        report.note(&format!("{e:#}"));
        return Ok(());
    }
    let Err(e) = journal.play_back() else { return Ok(()) };
    let old_left = journal.steps().iter().all(|u| matches!(u, Undo::RemoveImages { .. }));
    journal.forget(|u| matches!(u, Undo::RemoveImages { .. }))?;
    if old_left {
        report.note(&format!("{e:#}"));
        return Ok(());
    }
    let state = format!(
        "{} is running, but not all could be put back; its checkpoint is complete",
        request.name
    );
    Err(Failure::new(Exit::RollbackIncomplete, e)
        .hint("fix the problems above, then run 'lxc-cr recover'")
        .state(state))
}
