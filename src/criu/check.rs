//! `criu check`: what CRIU says of this kernel.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::version::Criu;
use crate::sys::child;

/// How many of its lines are told.
const LINES: usize = 5;
/// How long it may take: it tries much of the kernel out.
const LIMIT: Duration = Duration::from_secs(30);

/// What CRIU finds wrong; nothing if the kernel has all that it needs.
pub(crate) fn complaint(criu: &Criu) -> std::io::Result<Option<String>> {
    let mut command = Command::new(&criu.path);
    command.args(["--no-default-config", "check"]).env_clear().stdin(Stdio::null());
    let told = child::run(&mut command, LIMIT)?;
    if told.status.success() {
        return Ok(None);
    }
    let text = told.stderr + &told.stdout;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
    Ok(Some(if lines.is_empty() {
        format!("it ended with {}", told.status)
    } else {
        lines.join("; ")
    }))
}
