//! `lxc-cr recover`: undoes what a command that was killed has left on the host.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::common::{LxcOptions, hidden, print_json, print_line, start_log};
use crate::error::{Exit, Failure, Result};
use crate::rollback::recover::{self, Known};

/// Roll back what killed commands left on the host
///
/// Of one container, or of all: ports go back on their bridges, frozen tasks go on, half-restored
/// ones are ended, and half-written checkpoints, cgroups and veth pairs are removed. A container
/// that is well is left as it is.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(mut_arg("rcfile", hidden))]
pub(super) struct Recover {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A thing that was done; docs/json.md has each field.
#[derive(Debug, Serialize)]
struct Deed {
    container: String,
    what: String,
}

impl Recover {
    /// Prints a line for each thing that was done.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let mut deeds = Vec::new();
        let outcome = self.recover(&mut deeds);
        // What was done counts also where something else could not be undone.
        if self.json && (outcome.is_ok() || !deeds.is_empty()) {
            print_json(&serde_json::json!({
                "version": 1,
                "changed": !deeds.is_empty(),
                "done": deeds,
            }))?;
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }

    fn recover(&self, deeds: &mut Vec<Deed>) -> Result<()> {
        let mut tell = |name: &str, done: &str| {
            if self.json {
                deeds.push(Deed { container: name.to_owned(), what: done.to_owned() });
            } else if !self.lxc.quiet {
                print_line(&format!("{name}: {done}"));
            }
        };
        if self.lxc.called().is_none() {
            recover::recover(None, &mut tell)
        } else {
            let (name, lxcpath) = self.lxc.container()?;
            // One that is not defined any more may have left something all the same.
            if !lxcpath.config_file(&name).exists()
                && Known::find(lxcpath.as_path(), name.as_str())?.is_none()
            {
                return Err(Failure::msg(
                    Exit::WrongState,
                    format!("there is no container {name} in {lxcpath}"),
                )
                .hint("lxc-ls shows the containers; lxc-cr recover without a name recovers all"));
            }
            recover::recover(Some((lxcpath.as_path(), name.as_str())), &mut tell)
        }
    }
}
