//! `lxc-cr resume`: what `lxc-cr suspend` has suspended comes back.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::suspend::{AT_SHUTDOWN, member, nobody};
use crate::cli::common::{on_one_line, start_log};
use crate::cli::logger;
use crate::cli::lxc_cr::batch::{Several, Summary, Terms, all_containers};
use crate::cli::lxc_cr::told::Told;
use crate::cli::restart::{self, Restart};
use crate::error::{Exit, Failure, Result};
use crate::lxc::command::Client;
use crate::lxc::definition::Defined;
use crate::lxc::name::ContainerName;
use crate::lxc::protocol::State;
use crate::lxc::{shell, tools};
use crate::preflight::entry;
use crate::store::history::History;
use crate::store::register::Register;
use crate::store::{known, resume_mark, status};
use crate::suspend::order::{Batch, Member, batches, reversed};
use crate::sys::signals::Signals;
use crate::sys::systemd_journal::Priority;

/// What becomes of a container, for programs.
const RESUMED: &str = "resumed";

/// Bring back containers that lxc-cr suspend or lxc-checkpoint has suspended
///
/// In the order of lxc.start.order, equal ones side by side. One that lxc-cr suspend has suspended
/// and that cannot be resumed is started afresh by lxc-start, and the reason is reported. The exit
/// status is 0 if all were resumed, else that of the first that was not. A SIGTERM, as a shutdown
/// in the middle sends it, suspends again what has come back.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Resume {
    #[command(flatten)]
    pub several: Several,

    /// All that the shutdown has suspended, and those with lxc.start.auto that lxc-cr suspend has;
    /// others wait until they are named
    #[arg(long, conflicts_with_all = ["names", "named"])]
    all: bool,

    /// A container that is not suspended is no failure, and nothing is done
    #[arg(long, conflicts_with = "all")]
    if_suspended: bool,
}

impl Resume {
    /// Does it, and tells how it went with each.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.several.of_none().level()?, self.several.logfile.as_deref())?;
        let terms = self.several.terms()?;
        let members = match (self.all, self.several.containers()?) {
            (false, names) => match names.as_slice() {
                [] => return Err(nobody()),
                [one]
                    if self.if_suspended
                        && !resume_mark::is_marked(&terms.lxcpath.container_dir(one))? =>
                {
                    let told = Told::begin(&self.several, &terms, []);
                    told.about_several(&Summary::default(), RESUMED)?;
                    return Ok(ExitCode::SUCCESS);
                }
                [one] => {
                    let told = Told::begin(&self.several, &terms, [one]);
                    return told.about_one(one, RESUMED, self.one(one, &terms));
                }
                names => self.named(names, &terms)?,
            },
            (true, _) => self.waiting(&terms)?,
        };
        let batches = batches(members, self.several.groups());
        let signals = Signals::of_termination().context("take signals")?;
        let told = Told::begin(&self.several, &terms, batches.iter().flat_map(|b| &b.names));
        let summary = self.several.run(&["resume"], &batches, &terms, &signals)?;
        summary.left_out.iter().for_each(|name| {
            terms.tell(name, Priority::Warning, "it stays suspended: we were interrupted");
        });
        if summary.interrupted == Some(libc::SIGTERM) {
            self.suspend_again(&summary, batches, &signals)?;
        }
        told.about_several(&summary, RESUMED)?;
        summary.outcome()
    }

    /// One container, in this process.
    fn one(&self, name: &ContainerName, terms: &Terms) -> Result<ExitCode> {
        logger::about(name, &terms.lxcpath);
        let own = terms.lxcpath.container_dir(name);
        let is_marked = resume_mark::is_marked(&own)?;
        let images = if is_marked { resume_mark::dir(&own) } else { only_state(name, terms)? };
        let restart = Restart {
            lxc: self.several.of(name),
            dir: (!is_marked).then(|| images.clone()),
            timeout: Some(self.time_of(name, terms)),
            reported: self.several.json,
            ..Restart::default()
        };
        let failure = match restart::run(&restart) {
            Ok(code) => return Ok(code),
            Err(failure) => failure,
        };
        if failure.is_interruption() || failure.exit == Exit::Busy {
            return Err(failure.state(format!("{name} stays suspended")));
        }
        // Whoever has suspended it by lxc-checkpoint decides what comes next.
        if !is_marked {
            return Err(failure);
        }
        let lxcpath = terms.lxcpath.as_os_str().to_string_lossy();
        match Client::new(&lxcpath, name.as_str()).state() {
            Ok(State::Stopped) => {}
            // It has no network, which is told; or somebody has started it past our hook.
            Ok(_) => {
                resume_mark::clear_mark(&own)?;
                return Err(failure);
            }
            Err(e) => return Err(Failure { cause: failure.cause.context(e), ..failure }),
        }
        if let Err(e) = tools::start(terms.lxcpath.as_path(), name.as_str(), None) {
            let cause = anyhow::anyhow!(
                "not resumed: {failure}; and it could not be started afresh: {e:#}"
            );
            return Err(Failure { cause, state: Some(format!("{name} is stopped")), ..failure });
        }
        // Its hooks may be others than when it was suspended.
        resume_mark::clear_mark(&own)?;
        let state =
            format!("it was started afresh; the checkpoint is still in {}", images.display());
        Err(Failure { cause: failure.cause.context("not resumed"), state: Some(state), ..failure })
    }

    /// Those that are named.
    fn named(&self, names: &[ContainerName], terms: &Terms) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for name in names {
            if !self.if_suspended || resume_mark::is_marked(&terms.lxcpath.container_dir(name))? {
                members.push(member(name, terms)?);
            }
        }
        Ok(members)
    }

    /// Seconds for one of them: what is left, or less where its settings say so.
    fn time_of(&self, name: &ContainerName, terms: &Terms) -> u64 {
        let left = terms.left().as_secs().max(1);
        match terms.files.of(name.as_str()).timeout {
            0 => left,
            own => own.min(left),
        }
    }

    /// Those that are suspended and are started at boot.
    fn waiting(&self, terms: &Terms) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for name in all_containers(&terms.lxcpath)? {
            match self.look(&name, terms) {
                Ok(Some(member)) => members.push(member),
                Ok(None) => {}
                Err(failure) => terms.tell(&name, Priority::Error, &on_one_line(&failure)),
            }
        }
        Ok(members)
    }

    fn look(&self, name: &ContainerName, terms: &Terms) -> Result<Option<Member>> {
        if !resume_mark::is_marked(&terms.lxcpath.container_dir(name))? {
            return Ok(None);
        }
        let defined = Defined::load(name, &terms.lxcpath, None).map_err(entry::not_defined)?;
        let at_shutdown =
            History::read(&resume_mark::dir(&terms.lxcpath.container_dir(name))).at_shutdown;
        if !at_shutdown && !defined.config.start_auto() {
            let named = shell::options(name, &terms.lxcpath);
            let text = format!(
                "it stays suspended: it has no lxc.start.auto; lxc-cr resume {named} brings it back"
            );
            terms.tell(name, Priority::Info, &text);
            return Ok(None);
        }
        Ok(Some(Member::new(name, &defined.config)))
    }

    /// The machine goes down while we bring back what the last shutdown has suspended: nobody else
    /// would do it, for the unit that suspends is only started after us.
    fn suspend_again(
        &self,
        summary: &Summary,
        batches: Vec<Batch>,
        signals: &Signals,
    ) -> Result<()> {
        let runs = |name: &ContainerName| {
            let own = self
                .several
                .of(name)
                .container()
                .map(|(name, lxcpath)| lxcpath.container_dir(&name));
            own.is_ok_and(|own| matches!(resume_mark::is_marked(&own), Ok(false)))
        };
        let back: Vec<Batch> = reversed(batches)
            .into_iter()
            .map(|batch| Batch {
                names: batch
                    .names
                    .into_iter()
                    .filter(|name| {
                        summary.ended.iter().any(|ended| ended.name == *name) && runs(name)
                    })
                    .collect(),
                ..batch
            })
            .collect();
        // With time of their own.
        self.several.run(AT_SHUTDOWN, &back, &self.several.terms()?, signals).map(drop)
    }
}

/// The checkpoint that is the only state of a container, where lxc-checkpoint has suspended it.
fn only_state(name: &ContainerName, terms: &Terms) -> Result<PathBuf> {
    let entries = known::all(&Register::of_host(), &terms.lxcpath, Some(name))?;
    let status = status::of(&entries);
    let found = entries.iter().zip(status).find(|(_, status)| status.is_only_state());
    found.map(|(entry, _)| entry.directory.clone()).ok_or_else(|| {
        let named = shell::options(name, &terms.lxcpath);
        Failure::msg(Exit::WrongState, "it is not suspended").hint(format!(
            "lxc-cr list {named} shows its checkpoints; lxc-restart {named} --at TIME goes back to \
             one"
        ))
    })
}
