//! `lxc-cr remove`: a checkpoint goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::chosen::is_path;
use crate::cli::common::{LxcOptions, hidden, of_checkpoint, print_json, print_line, start_log};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::shell;
use crate::report::bytes;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::store::list::{self, Entry};
use crate::store::register::Register;
use crate::store::{known, status};
use crate::sys::path_trust::Guest;

/// Remove a checkpoint
///
/// Name its directory, or its container when that is suspended; the container itself is not
/// removed. A directory that is not a checkpoint, holds other files, is in use, or has another
/// checkpoint built upon it stays, and so does the only state of a suspended container, except
/// with --force.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "lxc-cr remove [OPTIONS] DIR|NAME"
)]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", of_checkpoint))]
pub(super) struct Remove {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Remove the only state of a suspended container, too
    #[arg(long)]
    force: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Remove {
    /// Removes it.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let dir = self.lxc.checkpoint()?;
        let lxcpath = self.lxc.all_containers()?;
        refuse_nothing(&dir, self.lxc.called().unwrap_or_default())?;
        let container = list::container_of(&dir, &lxcpath)?;
        let guest = container.as_ref().and_then(|(lxcpath, name)| guest(lxcpath, name));
        list::check_removable(guest, &dir).or_exit(Exit::Refused)?;
        // A command that reads or writes it holds its container.
        let _held = match &container {
            Some((lxcpath, name)) => Some(Operation::begin(lxcpath, name, Command::Remove)?),
            None => None,
        };
        // A copy's restart holds the directory.
        let _at_rest = lock::hold_images(&dir, Duration::ZERO)?;
        if !self.force {
            refuse_only_state(&dir, container.as_ref())?;
        }
        let size = list::look_at(&dir, &lxcpath)?.map_or(0, |entry| entry.size);
        let known = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        list::remove(&dir)?;
        if let Err(e) = Register::of_host().forget(&BTreeSet::from([known])) {
            log::warn!("the register still names what was removed: {e:#}");
        }
        self.tell(&dir, container.as_ref().map(|(_, name)| name.as_str()), size)
    }
}

impl Remove {
    fn tell(&self, dir: &Path, container: Option<&str>, size: u64) -> Result<ExitCode> {
        if self.json {
            let checkpoint =
                serde_json::json!({ "directory": dir, "container": container, "size_bytes": size });
            let text =
                serde_json::json!({ "version": 1, "changed": true, "checkpoints": [checkpoint] });
            print_json(&text)?;
        } else if !self.lxc.quiet {
            let name = container.map(|name| format!("{name}: ")).unwrap_or_default();
            print_line(&format!(
                "{name}removed the checkpoint {} ({})",
                dir.display(),
                bytes(size)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a name or a path at which there is nothing.
fn refuse_nothing(dir: &Path, called: &str) -> Result<()> {
    if dir.symlink_metadata().is_ok() {
        return Ok(());
    }
    let text = match is_path(called) {
        true => format!("there is no checkpoint {}", dir.display()),
        false => {
            format!("there is no suspended container {called}, and no checkpoint of that name here")
        }
    };
    Err(Failure::msg(Exit::WrongState, text).hint("lxc-cr list shows which checkpoints there are"))
}

/// Refuses what a suspended container would be lost with.
fn refuse_only_state(dir: &Path, container: Option<&(PathBuf, String)>) -> Result<()> {
    let Some((lxcpath, name)) = container else { return Ok(()) };
    let (Ok(name), Ok(lxcpath)) = (ContainerName::new(name), LxcPath::new(lxcpath)) else {
        return Ok(());
    };
    let entries = known::all(&Register::of_host(), &lxcpath, Some(&name))?;
    let is_here = |entry: &&Entry| same_directory(&entry.directory, dir);
    let Some(entry) = entries.iter().find(is_here) else { return Ok(()) };
    match status::only_state(&entries, &entry.directory) {
        None => Ok(()),
        Some(_) => {
            let named = shell::options(&name, &lxcpath);
            let dir = shell::quoted(&dir.to_string_lossy());
            Err(Failure::msg(
                Exit::Refused,
                format!("{name} is suspended, and this is its only state"),
            )
            .hint(format!(
                "bring it back: lxc-restart {named} -D {dir}; to lose what was in its memory: \
                 lxc-cr remove --force {dir}"
            )))
        }
    }
}

fn same_directory(one: &Path, other: &Path) -> bool {
    one == other
        || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Its container's root; a container that is gone or cannot be read has none.
pub(super) fn guest(lxcpath: &Path, name: &str) -> Option<Guest> {
    let (name, lxcpath) = (ContainerName::new(name).ok()?, LxcPath::new(lxcpath).ok()?);
    Defined::load(&name, &lxcpath, None).ok()?.config.guest()
}
