//! `lxc-cr check`: what stands in the way of a checkpoint.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::common::{
    LxcOptions, absolute, load_settings, on_one_line, print, print_error_line, print_json,
    start_log,
};
use crate::cli::cure;
use crate::cli::lxc_cr::batch::all_containers;
use crate::cli::lxc_cr::rehearsal;
use crate::criu::version;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::command::Client;
use crate::lxc::definition::Defined;
use crate::lxc::name::ContainerName;
use crate::lxc::{container, settled};
use crate::preflight::{self, Finding, Findings, Subject, entry};
use crate::rollback::lock;
use crate::settings::Settings;
use crate::store::resume_mark;
use crate::sys::netlink::Netlink;

/// Report what prevents a checkpoint, with remedies; nothing is changed
///
/// With --all, of every running container. Whether the next shutdown can suspend those that are to
/// be suspended is shown by lxc-cr suspend --all --dry-run.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "lxc-cr check [OPTIONS] {NAME|--all}")]
pub(super) struct Check {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Check all containers that run
    #[arg(long, conflicts_with_all = ["name", "positional", "dir", "rcfile"])]
    all: bool,

    /// The directory that the checkpoint would go to
    #[arg(short = 'D', long = "checkpoint-dir", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Also try it: dump the container into a directory of its own, which it survives, restore it
    /// once beside itself, compare the two, and remove all of that
    #[arg(long, conflicts_with = "all")]
    rehearse: bool,

    /// Leave this state out of the verdict if it comes back different (see lxc-cr.toml(5))
    #[arg(long, value_name = "STATE", value_delimiter = ',', requires = "rehearse")]
    accept: Vec<String>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What was found about one container.
#[derive(Debug)]
pub(super) struct Checked {
    name: ContainerName,
    findings: Findings,
    /// The one command that takes many blockers away.
    cure: Option<String>,
    /// How long a rehearsal took that went well.
    rehearsed: Option<Duration>,
}

/// The same, for programs.
#[derive(Serialize)]
struct Row<'a> {
    container: &'a str,
    blocked: bool,
    findings: &'a Findings,
}

impl Check {
    /// Looks, and prints what was found. The exit status says whether a checkpoint would be
    /// refused.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        if self.all {
            return self.every_one();
        }
        let (name, lxcpath) = self.lxc.container()?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref())
            .map_err(entry::not_defined)?;
        let dir = self.dir.as_deref().map(absolute).transpose()?;
        let settings = load_settings(&name)?;
        let mut checked = look(&defined, dir.as_deref(), &settings)?
            .ok_or_else(|| entry::not_running(&defined))?;
        if self.rehearse && !checked.findings.blocked() {
            let options = rehearsal::Options {
                config: self.lxc.rcfile.as_deref(),
                accept: &self.accept,
                quiet: self.lxc.quiet || self.json,
            };
            let tried = rehearsal::try_it(&defined, &settings, &options)?;
            checked.rehearsed = tried.took;
            checked.findings =
                Findings::new(checked.findings.iter().cloned().chain(tried.findings));
        }
        if self.json {
            print_json(&serde_json::json!({
                "version": 1,
                "changed": false,
                "container": checked.row().container,
                "blocked": checked.row().blocked,
                "findings": checked.row().findings,
            }))?;
        } else if !self.lxc.quiet {
            print(&checked.in_words());
        }
        Ok(ExitCode::from(
            if checked.findings.blocked() { Exit::Refused } else { Exit::Done }.code(),
        ))
    }

    /// All that run; one that cannot be looked at is named, and is a failure.
    fn every_one(&self) -> Result<ExitCode> {
        let lxcpath = self.lxc.all_containers()?;
        let (mut all, mut failed) = (Vec::new(), None);
        for name in all_containers(&lxcpath)? {
            let looked = Defined::load(&name, &lxcpath, None)
                .map_err(entry::not_defined)
                .and_then(|defined| look(&defined, None, &load_settings(&name)?));
            match looked {
                Ok(checked) => all.extend(checked),
                Err(failure) => {
                    print_error_line(&format!("lxc-cr: {name}: {}", on_one_line(&failure)));
                    failed = failed.or(Some(failure.exit));
                }
            }
        }
        if self.json {
            let rows: Vec<Row<'_>> = all.iter().map(Checked::row).collect();
            print_json(&serde_json::json!({ "version": 1, "changed": false, "containers": rows }))?;
        } else if !self.lxc.quiet {
            all.iter().for_each(|checked| print(&checked.under_its_name()));
        }
        let blocked = all.iter().any(|checked| checked.findings.blocked()).then_some(Exit::Refused);
        Ok(ExitCode::from(failed.or(blocked).unwrap_or(Exit::Done).code()))
    }
}

/// Looks at a container; `None` where it does not run. Without a directory the checkpoint is that
/// of a suspended container.
pub(super) fn look(
    defined: &Defined,
    dir: Option<&Path>,
    settings: &Settings,
) -> Result<Option<Checked>> {
    let name = &defined.name;
    let criu = version::find_cached(settings.criu.as_deref(), &lock::criu_version_cache())
        .map_err(entry::no_criu)?;
    let found =
        container::find(&defined.lxcpath_text(), name.as_str(), container::Marks::of(defined))?;
    let Some(running) = found else { return Ok(None) };
    settled::wait(&Client::new(&defined.lxcpath_text(), name.as_str()), running.init.pid());
    let images = dir.map_or_else(|| resume_mark::dir(&defined.dir()), Path::to_owned);
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let subject = Subject {
        defined,
        running: &running,
        criu: &criu,
        settings,
        images: &images,
        incremental: false,
    };
    let refused = [
        entry::check_places(defined, &images).map(drop),
        dir.map_or_else(|| entry::refuse_ephemeral(defined), |_| Ok(())),
    ];
    let refused = refused.into_iter().filter_map(|checked| checked.err().map(as_finding));
    let found = preflight::look(&subject, &mut netlink)?;
    let findings = Findings::new(found.iter().cloned().chain(refused));
    let cure = findings.blocked().then(|| cure::by_preparing(defined)).flatten();
    Ok(Some(Checked { name: name.clone(), findings, cure, rehearsed: None }))
}

impl Checked {
    fn row(&self) -> Row<'_> {
        Row {
            container: self.name.as_str(),
            blocked: self.findings.blocked(),
            findings: &self.findings,
        }
    }

    /// The first blocker, if there is one.
    pub(super) fn blocker(&self) -> Option<&Finding> {
        self.findings.blockers().next()
    }

    fn in_words(&self) -> String {
        in_words(self.name.as_str(), &self.findings, self.cure.as_deref(), self.rehearsed)
    }

    /// Of one of many: its verdict first, what was found indented below it.
    fn under_its_name(&self) -> String {
        let words = self.in_words();
        let mut lines: Vec<&str> = words.lines().collect();
        let verdict = lines.pop().unwrap_or_default();
        lines.iter().fold(format!("{verdict}\n"), |text, line| format!("{text}  {line}\n"))
    }
}

/// What a checkpoint refuses before it looks at the processes.
fn as_finding(failure: Failure) -> Finding {
    let remedy = failure.hint.clone().unwrap_or_default();
    Finding::blocker(format!("{:#}", failure.cause), "lxc-checkpoint refuses it")
        .on_restore()
        .remedy(remedy)
}

/// First what takes many blockers away at once.
fn in_words(
    name: &str,
    findings: &Findings,
    cure: Option<&str>,
    rehearsed: Option<Duration>,
) -> String {
    let cure =
        cure.map(|cure| format!("it is not prepared; try first: {cure}\n")).unwrap_or_default();
    cure + &findings.to_string()
        + &match findings.blockers().count() {
            0 => match rehearsed {
                None => format!("{name} can be checkpointed\n"),
                Some(took) => {
                    format!(
                        "{name} can be checkpointed and restored: rehearsed in {} ms\n",
                        took.as_millis()
                    )
                }
            },
            1 => format!("{name} cannot be checkpointed: there is 1 blocker\n"),
            many => format!("{name} cannot be checkpointed: there are {many} blockers\n"),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_in_words() {
        let findings = Findings::new([
            Finding::note("it is frozen", "it stays so"),
            Finding::blocker("process 7 (x) is traced", "CRIU traces it").remedy("kill 9"),
        ]);
        insta::assert_snapshot!(in_words("web", &findings, None, None), @r"
        blocker: process 7 (x) is traced
          why: CRIU traces it
          remedy: kill 9
        note: it is frozen
          why: it stays so
        web cannot be checkpointed: there is 1 blocker
        ");
        assert_eq!(in_words("web", &Findings::default(), None, None), "web can be checkpointed\n");
    }
}
