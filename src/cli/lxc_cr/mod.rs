//! `lxc-cr`: all that is not a checkpoint or a restart. A module for each subcommand.

mod batch;
mod check;
mod chosen;
mod inspect;
mod list;
mod prepare;
mod prune;
mod recover;
mod rehearsal;
mod remove;
mod resume;
mod show;
mod suspend;
mod told;
mod verify;

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::{CommandFactory, Parser, Subcommand};

use super::common::{below_options, fail, print, require_root};
use super::usage::parse;
use crate::error::{Failure, Result};

const PROGRAM: &str = "lxc-cr";
const EXAMPLES: &str = "\
  lxc-cr prepare web                     configure web for checkpoints
  lxc-cr check web                       whether a checkpoint would succeed
  lxc-cr list                            the checkpoints of all containers
  lxc-cr prune --keep-daily 7 --dry-run  what would be removed
  lxc-cr suspend --all --dry-run         what the next shutdown would come to
";

/// Manage checkpoints of LXC containers
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = below_options(EXAMPLES), subcommand_required = true, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Prepare(prepare::Prepare),
    Prune(prune::Prune),
    Recover(recover::Recover),
    Remove(remove::Remove),
    Show(show::Show),
    Verify(verify::Verify),
    Suspend(suspend::Suspend),
    Resume(resume::Resume),
}

impl Command {
    /// Its short usage message, if that is all that is wanted.
    fn usage(&self) -> Option<StyledStr> {
        let (name, wanted) = match self {
            Command::List(list) => ("list", list.lxc.usage),
            Command::Check(check) => ("check", check.lxc.usage),
            Command::Inspect(inspect) => ("inspect", inspect.lxc.usage),
            Command::Prepare(prepare) => ("prepare", prepare.lxc.usage),
            Command::Prune(prune) => ("prune", prune.lxc.usage),
            Command::Recover(recover) => ("recover", recover.lxc.usage),
            Command::Remove(remove) => ("remove", remove.lxc.usage),
            Command::Show(show) => ("show", show.lxc.usage),
            Command::Verify(verify) => ("verify", verify.lxc.usage),
            Command::Suspend(suspend) => ("suspend", suspend.several.usage),
            Command::Resume(resume) => ("resume", resume.several.usage),
        };
        let mut all = command();
        // Built, a subcommand knows the name of the program before its own.
        all.build();
        wanted.then(|| all.find_subcommand_mut(name).map(clap::Command::render_usage))?
    }
}

/// What a subcommand ends in where it does not end in a success: the container that it was about,
/// and why.
type Outcome = std::result::Result<ExitCode, (Option<String>, Failure)>;

/// The command line's definition, for manuals and completions.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// The program's `main`.
pub(crate) fn main() -> ExitCode {
    crate::sys::clean_start::begin();
    if crate::cli::monitor_title::is_meant() {
        return crate::cli::monitor::main();
    }
    let arguments: Arguments = match parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Some(usage) = arguments.command.usage() {
        print(&(usage.to_string() + "\n"));
        return ExitCode::SUCCESS;
    }
    let outcome = match &arguments.command {
        Command::List(list) => about(list.lxc.called(), || list.run()),
        Command::Check(check) => about(check.lxc.called(), || check.run()),
        Command::Inspect(inspect) => about(inspect.lxc.called(), || inspect.run()),
        Command::Prepare(prepare) => about(prepare.lxc.called(), || prepare.run()),
        Command::Prune(prune) => about(prune.lxc.called(), || prune.run()),
        Command::Recover(recover) => about(recover.lxc.called(), || recover.run()),
        Command::Remove(remove) => about(remove.lxc.called(), || remove.run()),
        Command::Show(show) => about(show.lxc.called(), || show.run()),
        Command::Verify(verify) => about(verify.lxc.called(), || verify.run()),
        Command::Suspend(suspend) => about(suspend.several.called(), || suspend.run()),
        Command::Resume(resume) => about(resume.several.called(), || resume.run()),
    };
    outcome.unwrap_or_else(|(container, failure)| fail(PROGRAM, container.as_deref(), &failure))
}

/// Runs a subcommand that is about one container, or about all.
fn about(container: Option<&str>, run: impl FnOnce() -> Result<ExitCode>) -> Outcome {
    require_root().and_then(|()| run()).map_err(|failure| (container.map(str::to_owned), failure))
}
