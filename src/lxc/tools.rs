//! LXC's own tools, where a container is to be started or shut down as LXC does it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::spawn::Place;

/// How a container was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutDown {
    /// Its init has ended it.
    Cleanly,
    /// It took too long and was killed.
    Killed,
}

/// Starts a container in the background, and returns when it runs. `config` is another file than
/// its own.
pub(crate) fn start(lxcpath: &Path, name: &str, config: Option<&Path>) -> Result<()> {
    let config = config.iter().flat_map(|file| [OsStr::new("-f"), file.as_os_str()]);
    run(
        "lxc-start",
        lxcpath,
        name,
        &[OsStr::new("-d")].into_iter().chain(config).collect::<Vec<_>>(),
    )
}

/// Asks a container's init to end it; it is killed if that takes longer than this.
pub(crate) fn shut_down(lxcpath: &Path, name: &str, limit: Duration) -> Result<ShutDown> {
    let begin = Instant::now();
    // lxc-stop reads a C int.
    let seconds = limit.as_secs().clamp(1, i32::MAX as u64).to_string();
    run("lxc-stop", lxcpath, name, &["-t".as_ref(), seconds.as_ref()])?;
    Ok(if begin.elapsed() < limit { ShutDown::Cleanly } else { ShutDown::Killed })
}

/// Not with our own signal mask: a new init would inherit it. What the tool says goes where ours
/// does.
fn run(program: &str, lxcpath: &Path, name: &str, more: &[&OsStr]) -> Result<()> {
    let mut command = Command::new(program);
    command.env_clear().args(["-n", name, "-P"]).arg(lxcpath).args(more).stdin(Stdio::null());
    let status = Place::here().spawn(&mut command).and_then(|mut child| child.wait());
    let status = status.with_context(|| format!("run {program}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{program}: {status}"),
    }
}
