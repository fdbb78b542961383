//! The command lines: arguments in, messages and an exit status out. The only place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod action;
pub mod checkpoint;
pub mod common;
mod foreground;
pub mod hook;
pub mod lxc_cr;
pub mod monitor;
pub mod progress;
pub mod restart;
