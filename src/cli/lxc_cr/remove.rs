//! `lxc-cr remove`: a checkpoint goes.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::common::{LxcOptions, hidden, of_checkpoint, start_log};
use crate::error::{Exit, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::store::list;
use crate::sys::path_trust::Guest;

/// Remove a checkpoint
///
/// It is named by its directory, or by its container when that is suspended. Nothing is asked; what is no checkpoint,
/// holds other files too, is in use, or is built upon by another checkpoint stays.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true, override_usage = "lxc-cr remove [OPTIONS] DIR|NAME")]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", of_checkpoint))]
pub struct Remove {
    #[command(flatten)]
    pub lxc: LxcOptions,
}

impl Remove {
    /// Removes it.
    pub fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let dir = self.lxc.checkpoint()?;
        let lxcpath = self.lxc.all_containers()?;
        let container = list::container_of(&dir, &lxcpath)?;
        let guest = container.as_ref().and_then(|(lxcpath, name)| guest(lxcpath, name));
        list::check_removable(guest, &dir).or_exit(Exit::Refused)?;
        // A command that reads or writes it holds its container.
        let _held = match container {
            Some((lxcpath, name)) => Some(Operation::begin(&lxcpath, &name, Command::Remove)?),
            None => None,
        };
        // A copy's restart holds the directory.
        let _at_rest = lock::hold_images(&dir, Duration::ZERO)?;
        list::remove(&dir)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Its container's root; a container that is gone or cannot be read has none.
fn guest(lxcpath: &Path, name: &str) -> Option<Guest> {
    let (name, lxcpath) = (ContainerName::new(name).ok()?, LxcPath::new(lxcpath).ok()?);
    Defined::load(&name, &lxcpath, None).ok()?.config.guest()
}
