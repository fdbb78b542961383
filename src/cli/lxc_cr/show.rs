//! `lxc-cr show`: what a checkpoint holds.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::common::{LxcOptions, hidden, of_checkpoint, print, print_json, start_log};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::store::layout;
use crate::store::show::{Contents, Details, Text};

/// Show what a checkpoint holds
///
/// A summary with its processes and its network; the options add the rest.
///
/// A checkpoint is named by its directory, or by its container when that is suspended. Those that
/// LXC's own tool wrote are shown, too.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "lxc-cr show [OPTIONS] DIR|NAME"
)]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", of_checkpoint))]
pub(super) struct Show {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Also the open files of each process
    #[arg(long)]
    files: bool,

    /// Also the sockets
    #[arg(long)]
    sockets: bool,

    /// Also the mounts
    #[arg(long)]
    mounts: bool,

    /// Everything
    #[arg(long)]
    all: bool,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Versioned<'a> {
    version: u32,
    changed: bool,
    #[serde(flatten)]
    contents: &'a Contents,
}

impl Show {
    /// Prints it. A checkpoint that is damaged is shown as far as it can be read, and the exit
    /// status tells.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let dir = self.lxc.checkpoint()?;
        if !dir.join(layout::INVENTORY).is_file() {
            return Err(Failure::msg(
                Exit::BadCheckpoint,
                format!("{} holds no checkpoint", dir.display()),
            )
            .hint("lxc-cr list shows which checkpoints there are"));
        }
        let contents = Contents::read(&dir).or_exit(Exit::BadCheckpoint)?;
        if self.json {
            print_json(&Versioned { version: 1, changed: false, contents: &contents })?;
        } else {
            let details = Details {
                files: self.files || self.all,
                sockets: self.sockets || self.all,
                mounts: self.mounts || self.all,
            };
            print(&Text(&contents, details).to_string());
        }
        let exit = if contents.problems.is_empty() { Exit::Done } else { Exit::BadCheckpoint };
        Ok(ExitCode::from(exit.code()))
    }
}
