//! `lxc-cr suspend`: containers go to the disk, for `lxc-cr resume` to bring them back.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::check;
use crate::cli::common::{action_script, on_one_line, print_json, print_line, start_log};
use crate::cli::logger;
use crate::cli::lxc_cr::batch::{Several, Terms, all_containers};
use crate::cli::lxc_cr::told::Told;
use crate::cli::progress::Progress;
use crate::error::{Exit, Failure, Result};
use crate::lxc::container;
use crate::lxc::definition::Defined;
use crate::lxc::name::ContainerName;
use crate::lxc::tools::ShutDown;
use crate::preflight::entry;
use crate::report::{bytes, seconds};
use crate::suspend::order::{Member, batches, reversed};
use crate::suspend::{self, Otherwise, Suspended};
use crate::sys::signals::Signals;
use crate::sys::systemd_journal::Priority;

/// Suspend containers, as at shutdown; lxc-cr resume brings them back
///
/// The last in the order of lxc.start.order go first, equal ones side by side. One that cannot be
/// suspended is still running; with --all or --or-shut-down it is shut down by lxc-stop. The exit
/// status is 0 if all were suspended, else that of the first that was not.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Suspend {
    #[command(flatten)]
    pub several: Several,

    /// All that run and have `suspend = true` in lxc-cr.toml(5)
    #[arg(long, conflicts_with_all = ["names", "named"])]
    all: bool,

    /// Tell what would become of each; change nothing
    #[arg(long)]
    dry_run: bool,

    /// Shut down by lxc-stop what cannot be suspended, as --all does
    #[arg(long)]
    or_shut_down: bool,
}

/// This command again, for a container of many at the end of the host.
pub(super) const AT_SHUTDOWN: &[&str] = &["suspend", "--or-shut-down"];

impl Suspend {
    /// Does it, and tells how it went with each.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.several.of_none().level()?, self.several.logfile.as_deref())?;
        let terms = self.several.terms()?;
        if self.dry_run {
            let names = match (self.all, self.several.containers()?) {
                (false, names) if names.is_empty() => return Err(nobody()),
                (false, names) => names,
                (true, _) => self.opted_in(&terms)?.into_iter().map(|member| member.name).collect(),
            };
            return rehearse(&names, &terms, self.all || self.or_shut_down, self.several.json);
        }
        let members = match (self.all, self.several.containers()?) {
            (false, names) => match names.as_slice() {
                [] => return Err(nobody()),
                [one] => {
                    let told = Told::begin(&self.several, &terms, [one]);
                    return told.about_one(one, "suspended", self.one(one, &terms));
                }
                names => names.iter().map(|name| member(name, &terms)).collect::<Result<_>>()?,
            },
            (true, _) => self.opted_in(&terms)?,
        };
        let batches = reversed(batches(members, self.several.groups()));
        let signals = Signals::of_termination().context("take signals")?;
        let told = Told::begin(&self.several, &terms, batches.iter().flat_map(|b| &b.names));
        let words = if self.all || self.or_shut_down { AT_SHUTDOWN } else { &AT_SHUTDOWN[..1] };
        let summary = self.several.run(words, &batches, &terms, &signals)?;
        summary.left_out.iter().for_each(|name| {
            terms.tell(name, Priority::Warning, "it keeps running: the command was interrupted")
        });
        told.about_several(&summary, "suspended")?;
        summary.outcome()
    }

    /// One container, in this process.
    fn one(&self, name: &ContainerName, terms: &Terms) -> Result<ExitCode> {
        logger::about(name, &terms.lxcpath);
        let settings = terms.files.of(name.as_str());
        let mut progress = Progress::new(self.several.quiet, false);
        let otherwise =
            if self.or_shut_down { Otherwise::ShutDown } else { Otherwise::KeepRunning };
        let (script, left) = (action_script()?, terms.left());
        let how = suspend::suspend(
            name,
            &terms.lxcpath,
            script,
            &settings,
            left,
            otherwise,
            &mut progress,
        );
        progress.clear();
        match how? {
            Suspended::Suspended(done) => {
                let (size, dir) = (bytes(done.size), done.images.display());
                let text = format!("suspended: {size} in {dir} ({})", seconds(done.took));
                logger::keep(Priority::Info, &text);
                if !self.several.quiet && !self.several.json {
                    print_line(&format!("{name}: {text}"));
                }
                Ok(ExitCode::SUCCESS)
            }
            Suspended::ShutDown(how, failure) => {
                let how = match how {
                    ShutDown::Cleanly => "it was shut down",
                    ShutDown::Killed => "it did not shut down in time and was killed",
                };
                Err(Failure {
                    cause: failure.cause.context("not suspended"),
                    state: Some(how.to_owned()),
                    ..failure
                })
            }
        }
    }

    /// Those that run and want to be suspended. One whose configuration cannot be read is told of,
    /// and left to LXC.
    fn opted_in(&self, terms: &Terms) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for name in all_containers(&terms.lxcpath)? {
            if !terms.files.of(name.as_str()).suspend {
                continue;
            }
            match running(&name, terms) {
                Ok(Some(member)) => members.push(member),
                Ok(None) => {}
                Err(failure) => terms.tell(&name, Priority::Error, &on_one_line(&failure)),
            }
        }
        Ok(members)
    }
}

/// What would become of a container.
#[derive(Debug, Serialize)]
struct Rehearsal {
    container: String,
    would_be: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Tells what would become of each. The exit status is 4 if one would not be suspended.
fn rehearse(
    names: &[ContainerName],
    terms: &Terms,
    or_shut_down: bool,
    json: bool,
) -> Result<ExitCode> {
    let otherwise = if or_shut_down { "shut down" } else { "left running" };
    let all: Vec<Rehearsal> = names
        .iter()
        .map(|name| {
            let refused = refusal(name, terms).unwrap_or_else(Some);
            let reason = refused.as_ref().map(ToString::to_string);
            let would_be = if refused.is_some() { otherwise } else { "suspended" };
            let remedy = refused.and_then(|failure| failure.hint);
            Rehearsal { container: name.as_str().to_owned(), would_be, reason, remedy }
        })
        .collect();
    if json {
        print_json(&serde_json::json!({ "version": 1, "changed": false, "containers": all }))?;
    } else {
        for Rehearsal { container, would_be, reason, remedy } in &all {
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            print_line(&format!("{container}: would be {would_be}{reason}"));
            if let Some(remedy) = remedy {
                print_line(&format!("hint: {remedy}"));
            }
        }
    }
    let exit =
        if all.iter().all(|one| one.would_be == "suspended") { Exit::Done } else { Exit::Refused };
    Ok(ExitCode::from(exit.code()))
}

/// Why a container would not be suspended.
fn refusal(name: &ContainerName, terms: &Terms) -> std::result::Result<Option<Failure>, Failure> {
    let defined = Defined::load(name, &terms.lxcpath, None).map_err(entry::not_defined)?;
    suspend::refuse_unnoticed_starts(&defined)?;
    let settings = terms.files.of(name.as_str());
    let checked =
        check::look(&defined, None, &settings)?.ok_or_else(|| entry::not_running(&defined))?;
    Ok(checked.blocker().map(|blocker| {
        let failure = Failure::msg(Exit::Refused, format!("it cannot be checkpointed: {blocker}"));
        failure.hint(blocker.remedy.as_str())
    }))
}

/// What its configuration says of a container that runs.
fn running(name: &ContainerName, terms: &Terms) -> Result<Option<Member>> {
    let defined = Defined::load(name, &terms.lxcpath, None).map_err(entry::not_defined)?;
    let found =
        container::find(&defined.lxcpath_text(), name.as_str(), container::Marks::of(&defined))?;
    Ok(found.map(|_| Member::new(name, &defined.config)))
}

/// What its configuration says of a container that is named.
pub(super) fn member(name: &ContainerName, terms: &Terms) -> Result<Member> {
    let defined = Defined::load(name, &terms.lxcpath, None).map_err(entry::not_defined)?;
    Ok(Member::new(name, &defined.config))
}

/// Neither a name nor --all.
pub(super) fn nobody() -> Failure {
    Failure::msg(Exit::Usage, "no container is named")
        .hint("name those that are meant, or say --all")
}
