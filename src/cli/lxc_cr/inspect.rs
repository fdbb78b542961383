//! `lxc-cr inspect`: what the kernel keeps about a running container.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::common::{LxcOptions, print, print_json, print_line, start_log};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::inspect::{Class, Difference, Snapshot, Standing, compare};
use crate::lxc::container;
use crate::lxc::definition::Defined;
use crate::preflight::entry;
use crate::report::shown;

/// Print every state that the kernel keeps about a running container; nothing is changed
///
/// Freeze the container before (lxc-freeze), or what is printed may not fit together. Two snapshots
/// of one container, before a checkpoint and after its restore, are compared with --against.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Inspect {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Print instead what only the threads themselves can read: each is held for a moment. Not
    /// while the container is frozen
    #[arg(long)]
    ask: bool,

    /// Compare with a snapshot that --json printed: print the differences only, exit 1 if there are
    /// any
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Reads and prints, or compares.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let (name, lxcpath) = self.lxc.container()?;
        let defined = Defined::load(&name, &lxcpath, self.lxc.rcfile.as_deref())
            .map_err(entry::not_defined)?;
        let running = container::find(
            &defined.lxcpath_text(),
            name.as_str(),
            container::Marks::of(&defined),
        )?
        .ok_or_else(|| entry::not_running(&defined))?;
        let standing = Standing::below(running.init.pid()).or_exit(Exit::Other)?;
        let snapshot = if self.ask { Snapshot::asked(&standing) } else { Snapshot::of(&standing) };
        if let Some(file) = &self.against {
            let text = fs::read_to_string(file).map_err(|e| {
                Failure::msg(Exit::Other, format!("{} cannot be read: {e}", file.display()))
            })?;
            let before = Snapshot::from_json(&text).map_err(|e| {
                Failure::msg(Exit::Other, format!("{} is not a snapshot: {e}", file.display()))
                    .hint("lxc-cr inspect --json prints one")
            })?;
            return differences(&before, &snapshot, self.json);
        }
        print(&match self.json {
            true => snapshot.to_json().or_exit(Exit::Other)? + "\n",
            false => in_words(&snapshot),
        });
        Ok(ExitCode::SUCCESS)
    }
}

fn differences(before: &Snapshot, after: &Snapshot, json: bool) -> Result<ExitCode> {
    let found = compare(before, after);
    if json {
        let rows: Vec<_> = found.iter().map(as_json).collect();
        print_json(&serde_json::json!({ "version": 1, "changed": false, "differences": rows }))?;
    } else {
        found.iter().for_each(|difference| print_line(&as_line(difference)));
    }
    let exit = if found.is_empty() { Exit::Done } else { Exit::Other };
    Ok(ExitCode::from(exit.code()))
}

fn class(difference: &Difference) -> &'static str {
    match difference.state.class {
        Class::Varies => "varies",
        Class::Bearable => "bearable",
        Class::Breaks => "breaks",
        Class::Weakens => "weakens",
    }
}

fn as_json(difference: &Difference) -> serde_json::Value {
    serde_json::json!({
        "subject": difference.subject,
        "state": difference.state.name,
        "class": class(difference),
        "before": difference.before,
        "after": difference.after,
    })
}

fn as_line(difference: &Difference) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or("nothing".to_owned(), on_one_line);
    format!(
        "{}: {} ({}): {} before, {} now",
        difference.subject,
        difference.state.name,
        class(difference),
        value(&difference.before),
        value(&difference.after)
    )
}

fn in_words(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for (subject, state, value) in snapshot.values() {
        text += &shown(&format!("{subject}: {state}: {}", on_one_line(value)));
        text.push('\n');
    }
    for (subject, state, why) in snapshot.unread() {
        text += &shown(&format!("{subject}: {state}: could not be read: {why}"));
        text.push('\n');
    }
    text
}

fn on_one_line(value: &str) -> String {
    value.replace('\n', ", ")
}
