//! The command lines: arguments in, messages and an exit status out. The only place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod action;
pub mod checkpoint;
mod choice;
pub mod common;
mod cure;
mod foreground;
pub mod hook;
mod logger;
pub mod lxc_cr;
pub mod monitor;
pub mod monitor_title;
pub mod multicall;
pub mod progress;
pub mod restart;
mod table;

/// The definitions of all command lines, complete: manuals and completions are made of them.
pub fn commands() -> Vec<clap::Command> {
    let mut commands = vec![checkpoint::command(), restart::command(), lxc_cr::command()];
    commands.iter_mut().for_each(clap::Command::build);
    commands
}
