//! `lxc-cr recover`: undoes what a command that was killed has left on the host.

use std::process::ExitCode;

use clap::Args;

use crate::checkpoint;
use crate::cli::common::{LxcOptions, start_log};
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::lxc::defined::Defined;

/// Undo what a command that was killed has left on the host
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Recover {
    #[command(flatten)]
    pub lxc: LxcOptions,
}

impl Recover {
    /// Plays the container's journal back.
    pub fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let (name, lxcpath) = self.lxc.container()?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref()).map_err(checkpoint::not_defined)?;
        let operation = checkpoint::begin_operation(&defined, "lxc-cr recover")?;
        checkpoint::recover(&operation, &mut Progress::new(self.lxc.quiet, false))?;
        Ok(ExitCode::SUCCESS)
    }
}
