//! What became of each container that `suspend` or `resume` was about, for programs.

use std::process::ExitCode;

use serde::Serialize;

use super::batch::{Several, Summary, Terms};
use crate::cli::common::{on_one_line, print_json};
use crate::error::Result;
use crate::lxc::command::Client;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::protocol::State;

/// The containers, and which of them ran before.
#[derive(Debug)]
pub(super) struct Told<'a> {
    lxcpath: &'a LxcPath,
    json: bool,
    before: Vec<(ContainerName, bool)>,
}

/// How it went with one of them; docs/json.md has each field.
#[derive(Debug, Serialize)]
struct Row<'a> {
    container: &'a str,
    result: &'a str,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl<'a> Told<'a> {
    /// Notes which containers run, before anything is done.
    pub(super) fn begin<'n>(
        several: &Several,
        terms: &'a Terms,
        names: impl IntoIterator<Item = &'n ContainerName>,
    ) -> Told<'a> {
        let (lxcpath, json) = (&terms.lxcpath, several.json);
        let names = names.into_iter().filter(|_| json);
        let before = names.map(|name| (name.clone(), is_running(lxcpath, name))).collect();
        Told { lxcpath, json, before }
    }

    /// Prints how it went with the only one, and passes that on.
    pub(super) fn about_one(
        &self,
        name: &ContainerName,
        done: &str,
        outcome: Result<ExitCode>,
    ) -> Result<ExitCode> {
        let failure = outcome.as_ref().err();
        let row = Row {
            container: name.as_str(),
            result: if failure.is_none() { done } else { "failed" },
            running: self.json && is_running(self.lxcpath, name),
            exit_status: Some(failure.map_or(0, |failure| failure.exit.code())),
            message: failure.map(on_one_line),
        };
        self.print(&[row])?;
        outcome
    }

    /// Prints how it went with several.
    pub(super) fn about_several(&self, summary: &Summary, done: &str) -> Result<()> {
        let rows: Vec<Row<'_>> = self
            .before
            .iter()
            .map(|(name, _)| {
                let worked = summary.ended.iter().find(|worked| worked.name == *name);
                let failed = worked.filter(|worked| worked.code != 0);
                Row {
                    container: name.as_str(),
                    result: match worked {
                        None => "left-out",
                        Some(_) if failed.is_some() => "failed",
                        Some(_) => done,
                    },
                    running: is_running(self.lxcpath, name),
                    exit_status: worked.map(|worked| worked.code),
                    message: failed.map(|worked| worked.said.trim_end().to_owned()),
                }
            })
            .collect();
        self.print(&rows)
    }

    fn print(&self, rows: &[Row<'_>]) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let was = |row: &Row<'_>| {
            self.before.iter().any(|(name, ran)| name.as_str() == row.container && *ran)
        };
        let changed = rows.iter().any(|row| row.running != was(row));
        print_json(&serde_json::json!({ "version": 1, "changed": changed, "containers": rows }))
    }
}

fn is_running(lxcpath: &LxcPath, name: &ContainerName) -> bool {
    let state = Client::new(&lxcpath.as_os_str().to_string_lossy(), name.as_str()).state();
    matches!(state, Ok(state) if state != State::Stopped)
}
