//! A container at the host's shutdown: it is suspended, or else shut down.
//!
//! 1. A container that could be started without lxc-cr noticing is not suspended
//!    ([`resume_mark`]).
//! 2. A checkpoint is made and marked as one to be resumed. It may take two thirds of the time.
//! 3. Where that fails, the container is as before, and `lxc-stop` shuts it down in the time left.
//!
//! An interrupt means neither: the container keeps running. Several containers go in the
//! [`order`] of lxc-autostart, side by side where that allows it ([`jobs`]).

pub(crate) mod jobs;
pub(crate) mod order;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checkpoint::{self, Done, Outcome, Request};
use crate::criu::options::AfterDump;
use crate::error::{Exit, Failure, Result};
use crate::lxc::config::HookKind;
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::tools::{self, ShutDown};
use crate::lxc::{container, shell};
use crate::preflight::entry;
use crate::report::Report;
use crate::resources::cgroup::{self, Cgroup};
use crate::settings::Settings;
use crate::store::resume_mark;

/// With less time than this nothing is dumped any more. A container always gets as much to shut
/// down: what LXC's own unit gives it on Debian.
const LEAST: Duration = Duration::from_secs(5);
/// The hook that strikes out the mark when LXC starts the container.
const HOOK: &str = "lxc-cr-pre-start";

/// How it went.
#[derive(Debug)]
pub(crate) enum Suspended {
    /// Its checkpoint waits to be resumed.
    Suspended(Done),
    /// It was shut down, for this reason.
    ShutDown(ShutDown, Failure),
}

/// What becomes of a container that cannot be suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// The host goes down: it is shut down, too.
    ShutDown,
    /// Somebody has asked for it by name: it is still running.
    KeepRunning,
}

/// Suspends a container within this time, or does what is to be done otherwise.
///
/// # Errors
/// When it does not run, somebody else is at work on it, it could not even be shut down, or we were
/// interrupted; and when it keeps running.
pub(crate) fn suspend(
    name: &ContainerName,
    lxcpath: &LxcPath,
    action_script: PathBuf,
    settings: &Settings,
    time: Duration,
    otherwise: Otherwise,
    report: &mut dyn Report,
) -> Result<Suspended> {
    // Time without end is none too much for a clock.
    let end = Instant::now().checked_add(time);
    let defined = Defined::load(name, lxcpath, None).map_err(entry::not_defined)?;
    let failure = match dump(&defined, action_script, settings, time, otherwise, report) {
        Ok(done) => return Ok(Suspended::Suspended(done)),
        Err(failure) => failure,
    };
    let wants_its_end =
        !failure.is_interruption() && !matches!(failure.exit, Exit::WrongState | Exit::Busy);
    if !wants_its_end || failure.exit == Exit::ContainerLost {
        return Err(failure);
    }
    if otherwise == Otherwise::KeepRunning {
        let state = failure.state.clone().or_else(|| Some(format!("{name} is running as before")));
        return Err(Failure { state, ..failure });
    }
    report.phase("shutting down");
    thaw(&defined);
    let left = end.map_or(time, |end| end.saturating_duration_since(Instant::now())).max(LEAST);
    match tools::shut_down(lxcpath.as_path(), name.as_str(), left) {
        Ok(how) => Ok(Suspended::ShutDown(how, failure)),
        Err(e) => Err(Failure {
            cause: anyhow::anyhow!("{failure}; and it could not be shut down: {e:#}"),
            state: failure
                .state
                .or_else(|| Some(format!("check with lxc-info {}", shell::options(name, lxcpath)))),
            ..failure
        }),
    }
}

/// A container that is frozen, or has frozen a part of itself, would wait for its own end until the
/// time is over.
fn thaw(defined: &Defined) {
    let thaw = || -> anyhow::Result<()> {
        let found = container::find(
            &defined.lxcpath_text(),
            defined.name.as_str(),
            container::Marks::of(defined),
        )?;
        let Some(running) = found else { return Ok(()) };
        for Cgroup { dir, .. } in cgroup::of_container(&running)? {
            let below = cgroup::frozen_below(&dir)?;
            for frozen in
                below.iter().chain([&dir]).filter(|dir| cgroup::is_frozen(dir).unwrap_or(false))
            {
                cgroup::set_frozen(frozen, false)?;
            }
        }
        Ok(())
    };
    if let Err(e) = thaw() {
        log::warn!("thaw it: {e:#}");
    }
}

fn dump(
    defined: &Defined,
    action_script: PathBuf,
    settings: &Settings,
    time: Duration,
    otherwise: Otherwise,
    report: &mut dyn Report,
) -> Result<Done> {
    refuse_unnoticed_starts(defined)?;
    if time < LEAST {
        return Err(Failure::msg(Exit::TimeLimit, "there is no time left to suspend it")
            .hint("raise suspend_timeout in /etc/lxc/lxc-cr.toml"));
    }
    let share = (time / 3 * 2).as_secs().max(1);
    let timeout = if settings.timeout == 0 { share } else { settings.timeout.min(share) };
    let request = Request {
        name: defined.name.clone(),
        lxcpath: defined.lxcpath.clone(),
        config: None,
        images: resume_mark::dir(&defined.dir()),
        replace: true,
        after: AfterDump::Stop,
        action_script,
        user_script: None,
        parent_images: None,
        tcp_close: false,
        to_be_resumed: true,
        at_shutdown: otherwise == Otherwise::ShutDown,
        label: None,
        kept: false,
        rehearse: None,
        accept: Vec::new(),
        only_to_rehearse: false,
        force: false,
        skip_preflight: false,
        dry_run: false,
    };
    match checkpoint::checkpoint(&request, &Settings { timeout, ..settings.clone() }, report)? {
        Outcome::Done(done) => Ok(done),
        Outcome::Planned(lines) => {
            Err(Failure::msg(Exit::Other, format!("only planned: {}", lines.join("; "))))
        }
    }
}

/// Without our hook nobody would strike the mark out if LXC started the container before it is
/// resumed.
pub(crate) fn refuse_unnoticed_starts(defined: &Defined) -> Result<()> {
    let is_ours = |hook: &String| {
        let program = hook.split_ascii_whitespace().next().unwrap_or_default();
        Path::new(program).file_name().is_some_and(|name| name == HOOK)
    };
    if defined.config.hooks(HookKind::PreStart).iter().any(is_ours) {
        return Ok(());
    }
    Err(Failure::msg(
        Exit::Refused,
        format!("{HOOK} is not among its hooks: nothing would notice a start in between"),
    )
    .hint(format!(
        "lxc-cr prepare {} puts it there",
        shell::options(&defined.name, &defined.lxcpath)
    )))
}
