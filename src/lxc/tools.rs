//! LXC's own tools, where a container is to be started or shut down as LXC does it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::child;
use crate::sys::spawn::Place;

/// How long a start may take, its hooks and mounts included.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long lxc-stop may take beyond the time in which init is to end the container: it kills it
/// then, and LXC's monitor cleans up.
const STOP_GRACE: Duration = Duration::from_secs(60);

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
        START_LIMIT,
    )
}

/// Asks a container's init to end it; it is killed if that takes longer than this.
pub(crate) fn shut_down(lxcpath: &Path, name: &str, limit: Duration) -> Result<ShutDown> {
    let begin = Instant::now();
    // lxc-stop reads a C int.
    let seconds = limit.as_secs().clamp(1, i32::MAX as u64).to_string();
    let limit_of_tool = limit.saturating_add(STOP_GRACE);
    run("lxc-stop", lxcpath, name, &["-t".as_ref(), seconds.as_ref()], limit_of_tool)?;
    Ok(if begin.elapsed() < limit { ShutDown::Cleanly } else { ShutDown::Killed })
}

/// Not with our own signal mask: a new init would inherit it. What the tool says goes where ours
/// does.
fn run(program: &str, lxcpath: &Path, name: &str, more: &[&OsStr], limit: Duration) -> Result<()> {
    let mut command = Command::new(program);
    command.env_clear().args(["-n", name, "-P"]).arg(lxcpath).args(more).stdin(Stdio::null());
    let what = || format!("run {program}");
    let mut child = Place::here().spawn(&mut command).with_context(what)?;
    match child::wait(&mut child, limit).with_context(what)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{program}: {status}"),
        None => {
            child.kill().with_context(what)?;
            child::ended(&mut child).with_context(what)?;
            bail!("{program} did not end within {} s and was killed", limit.as_secs())
        }
    }
}
