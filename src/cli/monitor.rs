//! The process that restores a container and stays as its monitor. `lxc-restart` starts it; nobody
//! calls it by hand.
//!
//! It is this same program, started again under the title of an LXC monitor: so `ps` and LXC's
//! tools recognise it, and it begins with a clean address space and a single thread. Its job comes
//! over standard input, as TOML; what it has to tell goes to standard output, a line for each
//! thing: `phase …`, `amount BYTES`, `note …`, `log …`, `cut-off …`, then `running PID TIME`, or
//! `failed` and the failure as TOML. After that it lets go of all three streams.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use super::common::{LxcOptions, start_log};
use super::logger;
use crate::error::{Details, Exit, Failure, Interrupted, Result};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::tools;
use crate::monitor::{self, End};
use crate::report::{Report, seconds};
use crate::restore::{self, Outcome, Request, Restored};
use crate::settings::Settings;
use crate::sys::files;
use crate::sys::poll;
use crate::sys::signals::Signals;

/// The name beside it, as LXC's own monitors carry that of the tool they came from.
const COMMAND_NAME: &str = "lxc-restart";

/// What the monitor is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The container.
    pub name: String,
    /// The directory that holds its directory.
    pub lxcpath: PathBuf,
    /// Another configuration file than its own.
    pub config: Option<PathBuf>,
    /// The checkpoint.
    pub images: PathBuf,
    /// Our action script.
    pub action_script: PathBuf,
    /// The user's action script.
    pub user_script: Option<PathBuf>,
    /// Close TCP connections with the outside.
    pub tcp_close: bool,
    /// Go ahead in spite of doubts.
    pub force: bool,
    /// Stop the container first, if it runs.
    pub replace: bool,
    /// Decide, but do nothing.
    pub dry_run: bool,
    /// Where the pid of the monitor is written.
    pub pidfile: Option<PathBuf>,
    /// Where our own log goes.
    pub logfile: Option<PathBuf>,
    /// How much is logged.
    pub logpriority: Option<String>,
    /// Whether CRIU's log is passed on.
    pub wants_log: bool,
    /// Whether somebody sees the phases as they pass.
    pub wants_phases: bool,
    /// The settings, with what the command line changes.
    pub settings: Settings,
    /// Names for the host's ends of veth pairs.
    pub veth: BTreeMap<String, String>,
}

/// A failure on its way from the monitor to the command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailureMessage {
    exit: u8,
    cause: String,
    #[serde(default)]
    details: Option<Box<Details>>,
    hint: Option<String>,
    log: Option<PathBuf>,
    state: Option<String>,
    /// The signal that has asked us to give up.
    interrupted: Option<i32>,
}

impl FailureMessage {
    fn new(failure: &Failure) -> FailureMessage {
        FailureMessage {
            exit: failure.exit.code(),
            cause: format!("{:#}", failure.cause),
            details: failure.details.clone(),
            hint: failure.hint.clone(),
            log: failure.log.clone(),
            state: failure.state.clone(),
            interrupted: failure.cause.downcast_ref::<Interrupted>().map(|i| i.0),
        }
    }

    /// The failure as it was.
    pub(crate) fn into_failure(self) -> Failure {
        let FailureMessage { exit, cause, details, hint, log, state, interrupted } = self;
        let cause = match interrupted {
            Some(signal) => Interrupted(signal).into(),
            None => anyhow!(cause),
        };
        Failure { exit: Exit::from_code(exit), cause, details, hint, log, state }
    }
}

/// The monitor's `main`.
pub(crate) fn main() -> ExitCode {
    // To the end: a signal that nobody has read by then must not keep us from telling the failure.
    let signals = match Signals::of_monitor().context("take signals") {
        Ok(signals) => signals,
        Err(e) => {
            tell_failure(&Failure::from(e));
            return ExitCode::from(Exit::Other.code());
        }
    };
    match run(&signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell_failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a memfd that the command has written")]
fn run(signals: &Signals) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("read the job")?;
    let job: Job = toml::from_str(&text).context("read the job")?;
    drop(text);
    let options = LxcOptions {
        logpriority: job.logpriority.clone(),
        logfile: job.logfile.clone(),
        ..LxcOptions::default()
    };
    let level = options.level()?;
    start_log(level, job.logfile.as_deref())?;
    let name = ContainerName::new(&job.name).map_err(|e| Failure::new(Exit::Usage, e))?;
    let lxcpath = LxcPath::new(&job.lxcpath).map_err(|e| Failure::new(Exit::Usage, e))?;
    logger::about(&name, &lxcpath);
    monitor::detach(COMMAND_NAME).context("become a monitor")?;
    let request = Request {
        name,
        lxcpath,
        config: job.config.clone(),
        images: job.images.clone(),
        veth: job.veth.clone(),
        action_script: job.action_script.clone(),
        user_script: job.user_script.clone(),
        tcp_close: job.tcp_close,
        force: job.force,
        replace: job.replace,
        dry_run: job.dry_run,
    };
    let mut lines = Lines { wants_log: job.wants_log, wants_phases: job.wants_phases };
    match restore::restore(&request, &job.settings, signals, &mut lines)? {
        Outcome::Planned(plan) => {
            plan.iter().for_each(|line| say("plan", line));
            say("planned", "");
            Ok(())
        }
        Outcome::Running(restored) => live(*restored, &job, signals),
    }
}

/// The container runs: tells so, lets go of the streams, and serves until its end.
fn live(mut restored: Restored, job: &Job, signals: &Signals) -> Result<()> {
    if let Some(path) = &job.pidfile
        && let Err(e) =
            files::write_atomically(path, format!("{}\n", std::process::id()).as_bytes())
    {
        say("note", &format!("cannot write the pid file: {e:#}"));
    }
    // Before the command returns: who calls the next one at once must not find this one in its way.
    restored.operation = None;
    if let Some(cause) = &restored.cut_off {
        say("cut-off", cause);
    }
    log::info!(
        "it runs again from {}: init is process {}",
        job.images.display(),
        restored.init.pid()
    );
    say("running", &format!("{} {}", restored.init.pid(), seconds(restored.criu)));
    monitor::let_go_of_streams()?;
    let ended = monitor::serve(restored, signals);
    if let Some(path) = &job.pidfile
        && let Err(e) = std::fs::remove_file(path)
    {
        log::debug!("remove {}: {e}", path.display());
    }
    match ended {
        Ok(End::Stopped) => {
            log::info!("it has ended");
            Ok(())
        }
        Ok(End::Reboot(server)) => {
            log::info!("it asks for a reboot: lxc-start starts it afresh");
            if let Err(failure) = start_afresh(job) {
                // Nobody listens on the streams any more.
                log::error!("it stays stopped after its reboot: {failure}");
                return Err(failure);
            }
            server.started_afresh();
            Ok(())
        }
        Err(e) => {
            log::error!(
                "what it held of the host could not be given back: {e:#}; lxc-cr recover tries it \
                 again"
            );
            Err(Failure::new(Exit::RollbackIncomplete, e))
        }
    }
}

/// A reboot: the container starts from its configuration, as under LXC's own monitor.
fn start_afresh(job: &Job) -> Result<()> {
    tools::start(&job.lxcpath, &job.name, job.config.as_deref())
        .context("start the container afresh after a reboot")?;
    Ok(())
}

/// Tells the command; when it is gone there is nobody to tell.
fn say(word: &str, text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = writeln!(out, "{word} {}", text.replace('\n', " ")).and_then(|()| out.flush()) {
        log::debug!("report to the command: {e}");
    }
}

fn tell_failure(failure: &Failure) {
    match toml::to_string(&FailureMessage::new(failure)) {
        Ok(text) => {
            say("failed", "");
            let mut out = std::io::stdout().lock();
            if let Err(e) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                log::debug!("report to the command: {e}");
            }
        }
        Err(e) => log::error!("put a failure into words: {e}"),
    }
}

/// Reports as lines on standard output.
#[derive(Debug)]
struct Lines {
    wants_log: bool,
    wants_phases: bool,
}

impl Report for Lines {
    fn amount(&mut self, bytes: u64) {
        say("amount", &bytes.to_string());
    }

    fn phase(&mut self, text: &str) {
        say("phase", text);
    }

    fn note(&mut self, text: &str) {
        say("note", text);
    }

    fn log_line(&mut self, line: &str) {
        say("log", line);
    }

    fn wants_log(&self) -> bool {
        self.wants_log
    }

    fn wants_phases(&self) -> bool {
        self.wants_phases
    }
}

/// How long nothing may come before one looks after who should write.
const NUDGE_INTERVAL: Duration = Duration::from_secs(1);

/// A pipe that is read with an eye on signals.
pub(super) struct Interruptible<'a, R> {
    pub output: R,
    pub signals: &'a Signals,
    pub forward: &'a dyn Fn(),
    /// Called where nothing has come for a while.
    pub nudge: &'a dyn Fn(),
    /// When it is not waited for any longer, as far as that is known by now.
    pub limit: &'a dyn Fn() -> Option<Instant>,
}

impl<R: Read + AsFd> Read for Interruptible<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let watched = [self.output.as_fd(), self.signals.as_fd()];
            let [readable, signalled] = poll::readable(watched, NUDGE_INTERVAL)?;
            if !readable && !signalled {
                (self.nudge)();
            }
            (self.forward)();
            if readable {
                return self.output.read(buffer);
            }
            if (self.limit)().is_some_and(|limit| Instant::now() >= limit) {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
    }
}
