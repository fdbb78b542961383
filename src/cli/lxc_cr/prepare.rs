//! `lxc-cr prepare`: a container, or the host, gets what checkpoints need.

use std::process::ExitCode;

use clap::Args;

use crate::checkpoint;
use crate::cli::common::{LxcOptions, print, start_log};
use crate::error::{Exit, Failure, Result};
use crate::lxc::defined::Defined;
use crate::prepare::container::{self, KEPT};
use crate::prepare::init::Init;
use crate::prepare::installed::Installed;
use crate::prepare::kept::Undone;

/// Give a stopped container, or the host, what checkpoints need
///
/// The container's configuration gets the lines that its init needs (systemd, sysvinit, openrc, runit or busybox, found
/// in its root). Each change is shown as a diff; nothing is asked. A second run has nothing to do, and --undo takes all
/// back.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Prepare {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Show the changes and make none
    #[arg(long)]
    dry_run: bool,

    /// Take back what an earlier run changed
    #[arg(long, conflicts_with = "dry_run")]
    undo: bool,

    /// The container's init, where its root cannot be looked into
    #[arg(long, value_name = "INIT", value_parser = ["systemd", "sysvinit", "openrc", "runit", "busybox"], conflicts_with = "undo")]
    init: Option<String>,
}

impl Prepare {
    /// Does it, and prints what.
    pub fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let (name, lxcpath) = self.lxc.container()?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref()).map_err(checkpoint::not_defined)?;
        if self.undo {
            return self.tell_undone(name.as_str(), &container::undo(&defined)?);
        }
        let init = self.init.as_deref().and_then(Init::named);
        let plan = container::plan(&defined, &Installed::find()?, init)?;
        let map = if plan.id_map { "with an id map" } else { "without an id map" };
        let what = format!("{}, {map}", plan.init);
        let Some(change) = &plan.change else {
            self.say(&format!("{}{name}: nothing to do: it is prepared ({what})\n", plan.notes));
            return Ok(ExitCode::SUCCESS);
        };
        self.say(&change.diff());
        if !self.dry_run {
            container::apply(&defined, &plan)?;
        }
        let done = match self.dry_run {
            true => format!("{name}: nothing was changed ({what})\n"),
            false => format!("{name}: prepared ({what}); it counts from the next start on\n"),
        };
        self.say(&format!("{}{done}", plan.notes));
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, text: &str) {
        if !self.lxc.quiet {
            print(text);
        }
    }

    /// What was not undone is a failure, after all that was.
    fn tell_undone(&self, subject: &str, undone: &Undone) -> Result<ExitCode> {
        let text: String = undone.told.iter().map(|line| format!("{subject}: {line}\n")).collect();
        self.say(&text);
        if !undone.left.is_empty() {
            return Err(Failure::msg(Exit::RollbackIncomplete, undone.left.join("; "))
                .hint(format!("take it out by hand; what it was stands in {KEPT}")));
        }
        if undone.told.is_empty() {
            self.say(&format!("{subject}: nothing to undo\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
