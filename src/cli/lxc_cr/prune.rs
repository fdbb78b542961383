//! `lxc-cr prune`: old checkpoints of the containers' lists go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::chosen::Chosen;
use crate::cli::common::{
    LxcOptions, hidden, on_one_line, print, print_error_line, print_json, print_line, start_log,
};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::report::bytes;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::settings::{self, Settings};
use crate::store::calendar::Calendar;
use crate::store::list::{self, Entry};
use crate::store::parents::Parents;
use crate::store::prune::{self, Candidate, Fate};
use crate::store::register::Register;
use crate::store::retention::Policy;
use crate::store::{kept, status};

/// Remove old checkpoints from the containers' lists
///
/// What is kept is said here or in lxc-cr.toml(5), and counted as restic counts snapshots: each
/// rule keeps the newest of as many hours, days, weeks (from Monday), months or years as it says.
/// What one rule keeps stays. So does what has a label, what another checkpoint builds on, and the
/// only state of a suspended container. Checkpoints outside the list are not touched; lxc-cr remove
/// removes them.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "lxc-cr prune [OPTIONS] {NAME|--all}")]
#[command(mut_arg("rcfile", hidden))]
pub(super) struct Prune {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Prune the lists of all containers
    #[arg(long, conflicts_with_all = ["name", "positional"])]
    all: bool,

    /// Show what would go and what would stay, and why; remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Keep the last N
    #[arg(long, value_name = "N")]
    keep_last: Option<u64>,

    /// Keep the last of each of N hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u64>,

    /// Keep the last of each of N days
    #[arg(long, value_name = "N")]
    keep_daily: Option<u64>,

    /// Keep the last of each of N weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u64>,

    /// Keep the last of each of N months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u64>,

    /// Keep the last of each of N years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u64>,

    /// Remove the only state of a suspended container, too, where no rule keeps it
    #[arg(long)]
    force: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What became of a checkpoint.
#[derive(Debug, Serialize)]
struct Outcome {
    directory: PathBuf,
    container: String,
    created: String,
    size_bytes: u64,
    /// `removed`, `would-be-removed`, `kept` or `failed`.
    result: &'static str,
    /// Why it was kept, or could not be removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

const REMOVED: &str = "removed";
const WOULD_BE_REMOVED: &str = "would-be-removed";
const KEPT: &str = "kept";
const FAILED: &str = "failed";

impl Prune {
    /// Does it.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        if !self.all && self.lxc.called().is_none() {
            return Err(
                Failure::msg(Exit::Usage, "no container is named").hint("name one, or say --all")
            );
        }
        let lxcpath = self.lxc.all_containers()?;
        let chosen = Chosen::of(&self.lxc)?;
        if matches!(chosen, Chosen::Directory(_)) {
            return Err(Failure::msg(
                Exit::Usage,
                "the list of a container is pruned, not a directory",
            )
            .hint("name the container; lxc-cr remove removes a checkpoint by its directory"));
        }
        let settings = settings::Files::read(std::path::Path::new(settings::FILE))?;
        let entries = chosen.find(&lxcpath)?;
        let (calendar, mut outcomes) = (Calendar::of_host(), Vec::new());
        for (name, entries) in by_container(entries) {
            let settings = settings.of(name.as_str());
            outcomes.extend(self.one(&name, &lxcpath, &entries, &settings, &calendar)?);
        }
        let removed: BTreeSet<PathBuf> =
            outcomes.iter().filter(|o| o.result == REMOVED).map(|o| o.directory.clone()).collect();
        if let Err(e) = Register::of_host().forget(&removed) {
            log::warn!("the register still names what was removed: {e:#}");
        }
        self.tell(&outcomes)?;
        let failed = outcomes.iter().any(|outcome| outcome.result == FAILED);
        Ok(ExitCode::from(if failed { Exit::Other } else { Exit::Done }.code()))
    }

    fn policy(&self, settings: &Settings) -> Policy {
        let own = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        // Rules of the command line take the place of all that the settings say, as a policy is one
        // whole.
        match own.iter().any(Option::is_some) {
            false => Policy::of(settings),
            true => {
                let [last, hourly, daily, weekly, monthly, yearly] =
                    own.map(Option::unwrap_or_default);
                Policy { last, hourly, daily, weekly, monthly, yearly }
            }
        }
    }

    /// The list of one container.
    fn one(
        &self,
        name: &ContainerName,
        lxcpath: &LxcPath,
        entries: &[Entry],
        settings: &Settings,
        calendar: &Calendar,
    ) -> Result<Vec<Outcome>> {
        let policy = self.policy(settings);
        let list = kept::dir(lxcpath, name, settings);
        let candidates: Vec<Candidate<'_>> = entries
            .iter()
            .zip(status::of(entries))
            .map(|(entry, status)| Candidate { entry, status, builds_on: builds_on(entry) })
            .collect();
        let fates = match policy.is_empty() {
            // Without a rule all would go.
            true => {
                let of_list =
                    entries.iter().filter(|entry| entry.directory.parent() == Some(list.as_path()));
                of_list
                    .map(|entry| (entry, Fate::Stays(vec!["no retention is set".to_owned()])))
                    .collect()
            }
            false => prune::plan(&candidates, &list, &policy, calendar, self.force),
        };
        let outcome = |entry: &Entry, result, reasons| Outcome {
            directory: entry.directory.clone(),
            container: name.as_str().to_owned(),
            created: calendar.rfc3339(entry.created),
            size_bytes: entry.size,
            result,
            reasons,
        };
        let mut outcomes = Vec::new();
        // The newest first: what builds on another one goes before that.
        for (entry, fate) in fates {
            outcomes.push(match fate {
                Fate::Stays(reasons) => outcome(entry, KEPT, reasons),
                Fate::Goes if self.dry_run => outcome(entry, WOULD_BE_REMOVED, Vec::new()),
                Fate::Goes => match remove(entry, lxcpath, name) {
                    Ok(()) => outcome(entry, REMOVED, Vec::new()),
                    Err(failure) => outcome(entry, FAILED, vec![on_one_line(&failure)]),
                },
            });
        }
        Ok(outcomes)
    }

    fn tell(&self, outcomes: &[Outcome]) -> Result<()> {
        if self.json {
            let changed = outcomes.iter().any(|outcome| outcome.result == REMOVED);
            let text =
                serde_json::json!({ "version": 1, "changed": changed, "checkpoints": outcomes });
            print_json(&text)?;
            return Ok(());
        }
        for outcome in outcomes {
            let text = in_words(outcome);
            match outcome.result {
                FAILED => print_error_line(&text),
                KEPT if !self.dry_run => {}
                _ if self.lxc.quiet => {}
                _ => print_line(&text),
            }
        }
        if !self.lxc.quiet {
            print(&summary(outcomes));
        }
        Ok(())
    }
}

fn in_words(outcome: &Outcome) -> String {
    let (name, dir, size) =
        (&outcome.container, outcome.directory.display(), bytes(outcome.size_bytes));
    let reasons = outcome.reasons.join(", ");
    match outcome.result {
        KEPT => format!("{name}: keep {dir} ({reasons})"),
        FAILED => format!("{name}: {dir} could not be removed: {reasons}"),
        WOULD_BE_REMOVED => format!("{name}: would remove {dir} ({size})"),
        _ => format!("{name}: removed {dir} ({size})"),
    }
}

/// How many went, and how many are left.
fn summary(outcomes: &[Outcome]) -> String {
    let count = |result| outcomes.iter().filter(move |outcome| outcome.result == result);
    let size = |result| bytes(count(result).map(|outcome| outcome.size_bytes).sum());
    let kept = count(KEPT).count();
    let without_rule = count(KEPT).any(|outcome| outcome.reasons == ["no retention is set"]);
    let hint = match without_rule {
        true => {
            "\nhint: say what is to be kept, with --keep-last and the like or in \
             /etc/lxc/lxc-cr.toml"
        }
        false => "",
    };
    let would = count(WOULD_BE_REMOVED).count();
    match (count(REMOVED).count(), would) {
        (0, 0) => format!("nothing to remove, {kept} kept{hint}\n"),
        (0, would) => {
            format!("{would} would be removed ({}), {kept} kept{hint}\n", size(WOULD_BE_REMOVED))
        }
        (removed, _) => format!("{removed} removed ({}), {kept} kept{hint}\n", size(REMOVED)),
    }
}

/// The checkpoints of each container. One that belongs to none is never pruned.
fn by_container(entries: Vec<Entry>) -> Vec<(ContainerName, Vec<Entry>)> {
    let mut sorted = BTreeMap::<String, Vec<Entry>>::new();
    for entry in entries {
        if let Some(name) = &entry.container {
            sorted.entry(name.clone()).or_default().push(entry);
        }
    }
    sorted
        .into_iter()
        .filter_map(|(name, entries)| Some((ContainerName::new(&name).ok()?, entries)))
        .collect()
}

/// What a checkpoint builds on. A line that is broken still has the parts that were found.
fn builds_on(entry: &Entry) -> Vec<PathBuf> {
    let line = Parents::of(&entry.directory).unwrap_or_else(|e| {
        log::debug!("{}: {e:#}", entry.directory.display());
        Parents::default()
    });
    line.directories().map(ToOwned::to_owned).collect()
}

/// Removes one, as lxc-cr remove does.
fn remove(entry: &Entry, lxcpath: &LxcPath, name: &ContainerName) -> Result<()> {
    let dir = &entry.directory;
    let guest = super::remove::guest(lxcpath.as_path(), name.as_str());
    list::check_removable(guest, dir).or_exit(Exit::Refused)?;
    let _operation = Operation::begin(lxcpath.as_path(), name.as_str(), Command::Prune)?;
    let _at_rest = lock::hold_images(dir, Duration::ZERO)?;
    Ok(list::remove(dir)?)
}
