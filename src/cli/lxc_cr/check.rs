//! `lxc-cr check`: what stands in the way of a checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::common::{LxcOptions, absolute, load_settings, print, start_log};
use crate::cli::cure;
use crate::criu::version;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::command::Client;
use crate::lxc::definition::Defined;
use crate::lxc::{container, settled};
use crate::preflight::{self, Finding, Findings, Subject, entry};
use crate::rollback::lock;
use crate::store::resume_mark;
use crate::sys::netlink::Netlink;

/// Tell what stands in the way of a checkpoint, and the remedy; nothing is changed
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Check {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// The directory that the checkpoint would go to
    #[arg(short = 'D', long = "checkpoint-dir", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    container: &'a str,
    blocked: bool,
    findings: &'a Findings,
}

impl Check {
    /// Looks, and prints what was found. The exit status says whether a checkpoint would be refused.
    pub fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let (name, lxcpath) = self.lxc.container()?;
        let settings = load_settings(&name)?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref()).map_err(entry::not_defined)?;
        let criu =
            version::find_cached(settings.criu.as_deref(), &lock::criu_version_cache()).map_err(entry::no_criu)?;
        let running = container::find(&defined.lxcpath_text(), name.as_str(), container::Marks::of(&defined))?
            .ok_or_else(|| entry::not_running(&defined))?;
        settled::wait(&Client::new(&defined.lxcpath_text(), name.as_str()), running.init.pid());
        let images = match &self.dir {
            Some(dir) => absolute(dir)?,
            None => resume_mark::dir(&defined.dir()),
        };
        let mut netlink = Netlink::open().or_exit(Exit::Other)?;
        let subject = Subject {
            defined: &defined,
            running: &running,
            criu: &criu,
            settings: &settings,
            images: &images,
            incremental: false,
        };
        let refused = [
            entry::check_places(&defined, &images).map(drop),
            self.dir.as_ref().map_or_else(|| entry::refuse_ephemeral(&defined), |_| Ok(())),
        ];
        let refused = refused.into_iter().filter_map(|checked| checked.err().map(as_finding));
        let found = preflight::look(&subject, &mut netlink)?;
        let findings = Findings::new(found.iter().cloned().chain(refused));
        if self.json {
            let told = Told { container: name.as_str(), blocked: findings.blocked(), findings: &findings };
            let text = serde_json::to_string_pretty(&told).map_err(|e| Failure::new(Exit::Other, e))?;
            print(&(text + "\n"));
        } else if !self.lxc.quiet {
            let cure = findings.blocked().then(|| cure::by_preparing(&defined)).flatten();
            print(&in_words(name.as_str(), &findings, cure.as_deref()));
        }
        Ok(ExitCode::from(if findings.blocked() { Exit::Refused } else { Exit::Done }.code()))
    }
}

/// What a checkpoint refuses before it looks at the processes.
fn as_finding(failure: Failure) -> Finding {
    let remedy = failure.hint.clone().unwrap_or_default();
    Finding::blocker(format!("{:#}", failure.cause), "lxc-checkpoint refuses it").on_restore().remedy(remedy)
}

/// First what takes many blockers away at once.
fn in_words(name: &str, findings: &Findings, cure: Option<&str>) -> String {
    let cure = cure.map(|cure| format!("it is not prepared; try first: {cure}\n")).unwrap_or_default();
    cure + &findings.to_string()
        + &match findings.blockers().count() {
            0 => format!("{name} can be checkpointed\n"),
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
        insta::assert_snapshot!(in_words("web", &findings, None), @r"
        blocker: process 7 (x) is traced
          why: CRIU traces it
          remedy: kill 9
        note: it is frozen
          why: it stays so
        web cannot be checkpointed: there is 1 blocker
        ");
        assert_eq!(in_words("web", &Findings::default(), None), "web can be checkpointed\n");
    }
}
