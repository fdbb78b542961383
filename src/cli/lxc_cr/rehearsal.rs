//! `lxc-cr check --rehearse`: a checkpoint and its restore, of which nothing is kept.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint::{self, Outcome, Request};
use crate::cli::checkpoint::accepted;
use crate::cli::common::action_script;
use crate::cli::progress::Progress;
use crate::criu::options::AfterDump;
use crate::error::{Exit, Failure, Result};
use crate::lxc::definition::Defined;
use crate::preflight::Finding;
use crate::rehearse::Rehearsed;
use crate::report::Report;
use crate::settings::{Rehearse, Settings};

/// Where the container is dumped for it, in its own directory.
const DIRECTORY: &str = "rehearsal";

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    /// Another configuration file than the container's own.
    pub config: Option<&'a Path>,
    /// States that may come back different.
    pub accept: &'a [String],
    /// Nothing is shown meanwhile.
    pub quiet: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// How long the container stood still for the rehearsal, if it went well.
    pub took: Option<Duration>,
    /// What is to be said of it.
    pub findings: Vec<Finding>,
}

/// Dumps a container and rehearses its restore. That it would not come back is no failure of ours.
pub(super) fn try_it(
    defined: &Defined,
    settings: &Settings,
    options: &Options<'_>,
) -> Result<Tried> {
    let request = Request {
        name: defined.name.clone(),
        lxcpath: defined.lxcpath.clone(),
        config: options.config.map(Path::to_owned),
        images: defined.dir().join(DIRECTORY),
        replace: true,
        after: AfterDump::LeaveRunning,
        action_script: action_script()?,
        user_script: None,
        parent_images: None,
        tcp_close: false,
        to_be_resumed: false,
        at_shutdown: false,
        label: None,
        kept: false,
        rehearse: Some(Rehearse::Always),
        accept: accepted(options.accept)?,
        only_to_rehearse: true,
        force: false,
        skip_preflight: false,
        dry_run: false,
    };
    let mut progress = Progress::new(options.quiet, false);
    // Its own look at the container would tell all of it once more.
    let outcome = checkpoint::checkpoint(&request, settings, &mut Phases(&mut progress));
    progress.clear();
    match outcome {
        Ok(Outcome::Done(done)) => Ok(done.rehearsal.as_ref().map(seen).unwrap_or_default()),
        Ok(Outcome::Planned(_)) => Ok(Tried::default()),
        Err(failure) if matches!(failure.exit, Exit::Refused | Exit::CriuFailed) => {
            Ok(Tried { took: None, findings: vec![as_blocker(&failure)] })
        }
        Err(failure) => Err(failure),
    }
}

fn seen(rehearsed: &Rehearsed) -> Tried {
    let warning = |difference: &String| {
        Finding::warning(format!("after a restore it differs in {difference}"), "it was tried")
    };
    Tried {
        took: Some(rehearsed.took),
        findings: rehearsed.differences.iter().map(warning).collect(),
    }
}

fn as_blocker(failure: &Failure) -> Finding {
    let log =
        failure.log.as_ref().map(|log| format!("; log: {}", log.display())).unwrap_or_default();
    let remedy = failure.hint.clone().unwrap_or_default();
    let text = failure.to_string().replace("\n  ", " ").replace(":  ", ": ");
    Finding::blocker(text, format!("it was tried{log}")).on_restore().remedy(remedy)
}

/// Only the phases of what goes on.
#[derive(Debug)]
struct Phases<'a>(&'a mut Progress);

impl Report for Phases<'_> {
    fn phase(&mut self, text: &str) {
        self.0.phase(text);
    }

    fn note(&mut self, text: &str) {
        log::info!("{text}");
    }

    fn wants_phases(&self) -> bool {
        self.0.wants_phases()
    }
}
