//! LXC's own tools, where a container is to be started or shut down as LXC does it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::spawn::Place;

/// How a container was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutDown {
    /// Its init has ended it.
    Cleanly,
    /// It took too long and was killed.
    Killed,
}

/// Starts a container in the background, and returns when it runs.
pub fn start(lxcpath: &Path, name: &str) -> Result<()> {
    run("lxc-start", lxcpath, name, &["-d"])
}

/// Asks a container's init to end it; it is killed if that takes longer than this.
pub fn shut_down(lxcpath: &Path, name: &str, limit: Duration) -> Result<ShutDown> {
    let begin = Instant::now();
    run("lxc-stop", lxcpath, name, &["-t", &limit.as_secs().max(1).to_string()])?;
    Ok(if begin.elapsed() < limit { ShutDown::Cleanly } else { ShutDown::Killed })
}

/// Not with our own signal mask: a new init would inherit it. What the tool says goes where ours does.
fn run(program: &str, lxcpath: &Path, name: &str, more: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.env_clear().args(["-n", name, "-P"]).arg(lxcpath).args(more).stdin(Stdio::null());
    let status = Place::here().spawn(&mut command).and_then(|mut child| child.wait());
    let status = status.with_context(|| format!("run {program}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{program}: {status}"),
    }
}
