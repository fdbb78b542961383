//! What a command says is wrong, short enough for the table.

use std::fs;
use std::path::Path;

use lxc_cr::api::criu::log::{Operation, summarise};

use crate::harness::run::Output;

/// How our commands begin a refusal; one blocker follows on the line, several on lines of their
/// own.
const REFUSAL: &str = "it cannot be checkpointed:";

/// What our preflight says stands in the way.
pub fn blockers(told: &Output) -> Vec<String> {
    let Some((_, rest)) = told.stderr.split_once(REFUSAL) else { return vec![failure(told)] };
    match rest.split_once('\n') {
        Some(("", lines)) => {
            let one = |line: &str| {
                line.strip_prefix("  ").filter(|l| !l.starts_with(' ')).map(str::to_owned)
            };
            lines.lines().filter_map(one).collect()
        }
        Some((one, _)) => vec![one.trim().to_owned()],
        None => vec![rest.trim().to_owned()],
    }
}

/// What one of our commands says of its failure: `PROGRAM: CONTAINER: why`, among notes and hints.
pub fn failure(told: &Output) -> String {
    let path = told.line.split(' ').next().unwrap_or_default();
    let begin = format!("{}: ", path.rsplit('/').next().unwrap_or_default());
    let line = told.stderr.lines().find_map(|line| line.strip_prefix(&begin));
    let line = line.or_else(|| told.stderr.lines().next()).unwrap_or("it says nothing");
    line.split_once(": ").map_or(line, |(_, why)| why).to_owned()
}

/// LXC's tool says that CRIU has failed, and no more: the line of CRIU's newest log that tells the
/// reason, or the first error in it that is none that it always has.
pub fn criu_error(images: &Path, operation: Operation) -> Option<String> {
    let mut logs: Vec<_> = fs::read_dir(images).ok()?.flatten().map(|e| e.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let text = String::from_utf8_lossy(&fs::read(logs.last()?).ok()?).into_owned();
    summarise(&text, operation).shown_error().map(ToString::to_string)
}
