//! The rehearsal: before a container is ended for good, its images are restored once beside it.
//!
//! CRIU holds the container still, has written all images and has yet to end it. Meanwhile:
//!
//! 1. decide whether a rehearsal is possible, and whether it costs little ([`room`]);
//! 2. plan the restore as it would be done now ([`Twin::plan`]);
//! 3. make a [scene]: covers over all that it would write to, and a network without a way
//!    out;
//! 4. restore a twin there, which never runs, and put right what a restore puts right
//!    ([`Twin::restore`]);
//! 5. while both stand still, read the state of both and compare ([`inspect`](crate::inspect));
//! 6. end the twin and remove all that was made for it;
//! 7. judge: what fails to come back, or comes back with less protection or other effects, keeps
//!    the container from being ended ([`verdict`]).
//!
//! Everything that the host would keep is noted in the undo log before it is made; the rest
//! (namespaces, overlays, memory) goes with the last process or descriptor that leads to it. So a
//! command that is killed leaves nothing that the next one does not remove.
//!
//! The module is above `restore`, of which it is one more use, and below `checkpoint`, which asks
//! for it.

pub(crate) mod expected;
pub(crate) mod room;
mod scene;
pub(crate) mod verdict;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::criu::log::Operation as CriuOperation;
use crate::criu::retry::{Cure, Tries};
use crate::error::{Exit, Failure, Result};
use crate::inspect::{Difference, Snapshot, Standing, compare};
use crate::report::Report;
use crate::resources::cgroup::{self, Cgroup};
use crate::restore::beside::{self, Asked, Onlooker, Twin};
use crate::rollback::Journal;
use crate::settings::Rehearse;
use crate::sys::netlink::Netlink;
use crate::sys::process;

use scene::Made;
use verdict::Verdict;

/// A container whose restore is to be rehearsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// Its images, and what a restore of them needs.
    pub asked: Asked<'a>,
    /// Its init, which stands still with all its tasks.
    pub init: i32,
    /// Its cgroups.
    pub payload: &'a [Cgroup],
    /// Whether to rehearse.
    pub when: Rehearse,
    /// States that may come back different.
    pub accept: &'a [String],
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was not rehearsed, for this reason.
    LeftOut(String),
    /// It comes back.
    Rehearsed(Rehearsed),
}

/// A restore that was rehearsed.
#[derive(Debug)]
pub(crate) struct Rehearsed {
    /// How long the container stood still for it.
    pub took: Duration,
    /// What comes back different and can be borne, or was accepted; in words.
    pub differences: Vec<String>,
}

/// Why there is no verdict, or a bad one.
enum Trouble {
    /// The scene could not be set: that says nothing of a restore.
    Scene(anyhow::Error),
    /// A restore fails.
    Restore(Failure),
}

/// Rehearses the restore of a container that stands still.
///
/// # Errors
/// When it would not come back, or not as it was; when that was to be made sure of and cannot be;
/// and when we were interrupted. The container can go on.
pub(crate) fn rehearse(
    subject: &Subject<'_>,
    journal: &mut Journal,
    report: &mut dyn Report,
) -> Result<Outcome> {
    if subject.when == Rehearse::Never {
        return Ok(Outcome::LeftOut("it was not asked for".to_owned()));
    }
    let begin = Instant::now();
    let room = room::Room::read(subject.asked.images)?;
    if let Some(why) = room::impossible(subject.asked.record).or_else(|| room.refuses(subject.when))
    {
        return left_out(subject.when, why);
    }
    report.phase("rehearsing the restore");
    let limit = begin + room.time_limit();
    let own_limit = subject.asked.deadline.is_none_or(|deadline| limit < deadline);
    let asked = Asked {
        deadline: Some(subject.asked.deadline.map_or(limit, |d| d.min(limit))),
        ..subject.asked
    };
    let (before, children) = (journal.steps().to_vec(), children());
    let outcome = try_out(&Subject { asked, ..*subject }, journal, &mut Quiet(report));
    // The twin is gone by now, but for what the journal tells.
    reap(&children);
    let cleared =
        journal.play_back_these(&|undo| !before.contains(undo)).and_then(|()| match &outcome {
            Err(Trouble::Restore(_)) => Ok(()),
            _ => beside::remove_traces(subject.asked.images),
        });
    cleared.context("remove the rehearsal's traces")?;
    match outcome {
        Ok(differences) => {
            let differences = match (verdict::judge(&differences, subject.accept), subject.when) {
                (Verdict::Good(borne), _) => borne,
                (Verdict::Bad(failure), Rehearse::Always) => return Err(failure),
                (Verdict::Bad(_), _) => verdict::told(&differences),
            };
            Ok(Outcome::Rehearsed(Rehearsed { took: begin.elapsed(), differences }))
        }
        Err(Trouble::Scene(why)) => left_out(subject.when, format!("{why:#}")),
        Err(Trouble::Restore(failure)) if failure.is_interruption() => Err(failure),
        Err(Trouble::Restore(failure)) if failure.exit == Exit::TimeLimit && own_limit => {
            left_out(subject.when, format!("it took longer than {} s", room.time_limit().as_secs()))
        }
        Err(Trouble::Restore(failure)) if failure.exit == Exit::TimeLimit => Err(failure),
        Err(Trouble::Restore(failure)) => Err(verdict::fails(&failure)),
    }
}

fn left_out(when: Rehearse, why: String) -> Result<Outcome> {
    match when {
        Rehearse::Always => {
            Err(Failure::msg(Exit::Refused, format!("its restore cannot be rehearsed: {why}"))
                .hint("do without that (--no-rehearse), or make it possible"))
        }
        Rehearse::Auto | Rehearse::Never => Ok(Outcome::LeftOut(why)),
    }
}

/// Steps 2 to 5, as often as a restore would try.
fn try_out(
    subject: &Subject<'_>,
    journal: &mut Journal,
    report: &mut dyn Report,
) -> std::result::Result<Vec<Difference>, Trouble> {
    let mut tries = Tries::new(CriuOperation::Restore, subject.asked.deadline);
    let mut older_mount_engine = false;
    loop {
        let before = journal.steps().to_vec();
        let failure = match try_once(subject, older_mount_engine, journal, report) {
            Err(Trouble::Restore(failure)) => failure,
            other => return other,
        };
        journal.play_back_these(&|undo| !before.contains(undo)).map_err(Trouble::Scene)?;
        let (cure, pause) = tries.after(failure).map_err(Trouble::Restore)?;
        older_mount_engine |= cure == Cure::OlderMountEngine;
        std::thread::sleep(pause);
    }
}

fn try_once(
    subject: &Subject<'_>,
    older_mount_engine: bool,
    journal: &mut Journal,
    report: &mut dyn Report,
) -> std::result::Result<Vec<Difference>, Trouble> {
    let mut host = Netlink::open().map_err(|e| Trouble::Scene(e.into()))?;
    let mut twin =
        Twin::plan(subject.asked, older_mount_engine, &mut host).map_err(Trouble::Restore)?;
    let mut made = Made::make(&twin, &subject.asked, subject.init).map_err(Trouble::Scene)?;
    if let Some(doubts) = twin.doubts_of_root(made.root_path()).map_err(Trouble::Restore)? {
        return Err(Trouble::Restore(Failure::msg(Exit::CriuFailed, doubts)));
    }
    let original =
        Standing { init: subject.init, tasks: tasks(subject.payload).map_err(Trouble::Scene)? };
    let original = read(original).map_err(Trouble::Scene)?;
    let mut look = Look { original: Some(original), points: twin.points(), differences: None };
    let restored = made.show(|scene| twin.restore(scene, &mut look, journal, report));
    match restored {
        Ok(()) => Ok(look.differences.unwrap_or_default()),
        Err(failure) if made.is_too_narrow(&failure) => Err(Trouble::Scene(anyhow!(
            "what it writes to its files at a restore takes too much memory"
        ))),
        Err(failure) => Err(Trouble::Restore(failure)),
    }
}

/// Compares the twin with the container.
#[derive(Debug)]
struct Look {
    /// Who reads the container meanwhile.
    original: Option<JoinHandle<Snapshot>>,
    /// Where it shows something of the host's.
    points: BTreeSet<PathBuf>,
    differences: Option<Vec<Difference>>,
}

impl Onlooker for Look {
    #[expect(clippy::disallowed_methods, reason = "the thread only reads what stands still")]
    fn look(&mut self, init: Option<i32>, payload: &Path) -> anyhow::Result<()> {
        let init = init.context("CRIU does not say which process init is")?;
        let tasks =
            cgroup::tasks(payload)?.into_iter().filter(|pid| !cgroup::is_our_kind(*pid)).collect();
        let twin = Snapshot::of(&Standing { init, tasks });
        let Some(original) = self.original.take() else { return Ok(()) };
        let original = original
            .join()
            .map_err(|_| anyhow!("the thread that reads the container has crashed"))?;
        self.differences = Some(expected::without(compare(&original, &twin), &self.points));
        Ok(())
    }
}

/// What a restore says of itself is said of one that will be. Its phases are none of the command's.
#[derive(Debug)]
struct Quiet<'a>(&'a mut dyn Report);

impl Report for Quiet<'_> {
    fn phase(&mut self, text: &str) {
        log::debug!("rehearsal: {text}");
    }

    fn note(&mut self, text: &str) {
        self.0.note(&format!("at a restore: {text}"));
    }
}

/// Reads the container's state on a thread.
fn read(standing: Standing) -> anyhow::Result<JoinHandle<Snapshot>> {
    let read = move || Snapshot::of(&standing);
    std::thread::Builder::new().name("inspect".to_owned()).spawn(read).context("start a thread")
}

fn tasks(payload: &[Cgroup]) -> anyhow::Result<Vec<i32>> {
    let unified = payload.iter().find(|cgroup| cgroup.hierarchy.is_unified());
    cgroup::tasks(&unified.context("it is in no cgroup of its own")?.dir)
}

/// Our own children.
fn children() -> BTreeSet<i32> {
    process::children(std::process::id().cast_signed()).unwrap_or_default().into_iter().collect()
}

/// Takes the exit status of a twin's init and no other child's.
#[expect(clippy::disallowed_methods, reason = "WNOHANG")]
fn reap(before: &BTreeSet<i32>) {
    for child in children().difference(before) {
        if let Err(e) = waitpid(Pid::from_raw(*child), Some(WaitPidFlag::WNOHANG)) {
            log::debug!("process {child}: {e}");
        }
    }
}
