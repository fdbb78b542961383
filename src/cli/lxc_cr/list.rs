//! `lxc-cr list`: which checkpoints there are.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::chosen::Chosen;
use crate::cli::common::{LxcOptions, hidden, print, start_log};
use crate::error::{Exit, OrExit, Result};
use crate::report::{bytes, span};
use crate::store::list::Entry;

/// List the checkpoints of one container, or of all
///
/// Those are found that lie in a container's own directory, half-written ones too; with DIR those that lie there, as on a
/// backup disk. It is said of one that is to be resumed, by lxc-cr resume, as at boot.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "lxc-cr list [OPTIONS] [NAME|DIR]")]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", |arg| arg.value_name("NAME|DIR").help(
    "Name of the container, or a directory: a checkpoint, or one in which checkpoints lie")))]
pub struct List {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Prints a line for each.
    pub fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let lxcpath = self.lxc.all_containers()?;
        let found = Chosen::of(&self.lxc)?.find(&lxcpath)?;
        if self.json {
            print(&(serde_json::to_string_pretty(&found).or_exit(Exit::Other)? + "\n"));
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            print(&in_words(&found, now));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A table with a head, as `lxc-ls -f` prints it; nothing where there is nothing.
fn in_words(found: &[Entry], now: u64) -> String {
    if found.is_empty() {
        return String::new();
    }
    let head = ["CONTAINER", "STATE", "SIZE", "AGE", "CHECKPOINT"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(found.iter().map(|e| {
        [
            e.container.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{}{}", e.state.as_str(), if e.to_be_resumed { ", to be resumed" } else { "" }),
            bytes(e.size),
            span(now.saturating_sub(e.created)),
            e.directory.display().to_string(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text += &format!("{cell:width$}  ");
        }
        text += &format!("{}\n", row[4]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::list::State;

    #[test]
    fn a_table() {
        let entry = |container: Option<&str>, state, to_be_resumed, name: &str| Entry {
            directory: format!("/var/lib/lxc/web/{name}").into(),
            container: container.map(str::to_owned),
            state,
            damage: None,
            to_be_resumed,
            size: 6_500_000,
            created: 1000,
        };
        let found = [
            entry(Some("web"), State::Complete, false, "before"),
            entry(Some("web"), State::Complete, true, "dump"),
            entry(None, State::Partial, false, "dump.partial"),
        ];
        insta::assert_snapshot!(in_words(&found, 1090), @r"
        CONTAINER  STATE                    SIZE     AGE       CHECKPOINT
        web        complete                 6.2 MiB  1 minute  /var/lib/lxc/web/before
        web        complete, to be resumed  6.2 MiB  1 minute  /var/lib/lxc/web/dump
        -          half-written             6.2 MiB  1 minute  /var/lib/lxc/web/dump.partial
        ");
        assert_eq!(in_words(&[], 0), "");
    }
}
