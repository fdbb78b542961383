//! The command lines: arguments in, messages and an exit status out. The only place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub(crate) mod action;
pub(crate) mod checkpoint;
mod choice;
mod colour;
pub(crate) mod common;
mod cure;
mod foreground;
pub(crate) mod hook;
mod logger;
pub(crate) mod lxc_cr;
pub(crate) mod monitor;
pub(crate) mod monitor_title;
pub(crate) mod multicall;
pub(crate) mod progress;
pub(crate) mod restart;
mod table;
mod usage;

/// The definitions of all command lines, complete: manuals and completions are made of them.
pub fn commands() -> Vec<clap::Command> {
    let mut commands = vec![checkpoint::command(), restart::command(), lxc_cr::command()];
    commands.iter_mut().for_each(clap::Command::build);
    commands
}
