//! A run of CRIU: started in its place, watched until it ends.
//!
//! While it runs, its action scripts' questions are answered, its log is shown as it grows, and a
//! signal or the time limit asks it to give up. Giving up a dump means that the next action is
//! answered with no, and that no image can be written any more: CRIU then puts everything back by
//! itself. Killed in a dump, it would leave its tasks half seized: that is done only where it
//! stands still. A restore ends at once.
//!
//! It stands still when nothing moves that would move if it got on ([`Watch::pulse`]). One that was
//! stopped is continued; the rest is given up, at once where that was asked for, or else after a
//! while.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::action_env::Action;
use super::control::{CONTROL_VARIABLE, Control};
use super::pulse::Pulse;
use super::script::{self, SPARED, Script};
use crate::sys::process::{self, Process};
use crate::sys::signals::Signals;
use crate::sys::spawn::Place;
use crate::sys::{child, files, poll};

/// How often the log is looked at while somebody watches it.
const LOG_INTERVAL: Duration = Duration::from_millis(50);
/// How long CRIU may go on with a dead task: where it has failed, it ends all tasks before it ends.
const LOST_GRACE: Duration = Duration::from_millis(500);
/// How long nothing may move before CRIU is ended. It gives up a freeze by itself after ten
/// seconds.
const STANDSTILL: Duration = Duration::from_secs(15);
/// The same once it was asked to give up.
const STANDSTILL_AT_END: Duration = Duration::from_millis(700);
/// How long a CRIU that was asked to give up may take for it, however much it does.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it gets on: usually, and at the end.
const PULSE_INTERVAL: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(100)];
/// How much of what CRIU writes to its standard error is kept, in bytes: enough for a usage error.
const ERROR_TAIL: u64 = 1024;

/// What to run, and where.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where it starts its life.
    pub place: Place,
    /// Where its action script asks.
    pub control: Control,
    /// More for the action script's environment; the path of the socket is put there anyway.
    pub environment: Vec<(&'static str, OsString)>,
    /// When it is asked to give up.
    pub deadline: Option<Instant>,
}

/// Who watches a run.
pub(crate) trait Watch {
    /// One of CRIU's actions; an error makes CRIU stop and put everything back, where it still can.
    fn action(&mut self, action: &Action, init_pid: Option<i32>) -> Result<()>;

    /// Whether [`Watch::tick`] is wanted.
    fn wants_ticks(&self) -> bool {
        false
    }

    /// Called some times a second, to show how the log grows.
    fn tick(&mut self) {}

    /// The run is to be given up; unless it is too late for that, the watch is not asked any more.
    fn give_up(&mut self, _why: GiveUp) -> Giving {
        Giving::AtNextAction
    }

    /// What changes as long as CRIU gets on; none where that cannot be known.
    fn pulse(&mut self) -> Option<u64>;

    /// CRIU may wait for a helper that somebody has stopped.
    fn nudge(&mut self) {}

    /// Whether CRIU would wait for ever for a task that has been killed. The first that it restores
    /// is our child (`--restore-sibling`), and the kernel tells CRIU nothing of its end. An init
    /// that it traces hangs in its own end: its children, traced too, are collected by nobody.
    /// Asked when a child of ours has ended that is not CRIU (`child_ended`), and once a second. A
    /// CRIU that has failed kills them itself: it has a moment to end.
    fn is_lost(&mut self, _child_ended: bool) -> bool {
        false
    }
}

/// Why a run was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// This signal came.
    Signal(i32),
    /// The time limit was reached.
    TimeLimit,
    /// The container's init has ended while it was restored.
    Lost,
    /// CRIU does nothing any more.
    Standstill,
}

/// How a run is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Giving {
    /// Not at all: going on to the end is what loses least. (Unless CRIU does not come to it.)
    TooLate,
    /// CRIU is told at its next action, and puts everything back.
    AtNextAction,
    /// CRIU is killed; what it leaves is the watch's to undo.
    Now,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// CRIU's exit status.
    pub status: ExitStatus,
    /// What it wrote to its standard error, at most its last KiB: for failures that come before its
    /// log.
    pub stderr: String,
    /// Whether and why it was asked to give up.
    pub given_up: Option<GiveUp>,
    /// The error with which an action was answered.
    pub refused: Option<anyhow::Error>,
    /// How long it ran, with what we have done at its actions meanwhile.
    pub took: Duration,
}

impl Ended {
    /// It was killed: what it had its hands on is as it was at that moment.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal().is_some()
    }

    /// CRIU says that it did what was asked.
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }
}

/// The end of CRIU in words, for a failure without a log.
pub(crate) fn status_in_words(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("criu ended with status {code}"),
        (None, Some(signal)) => format!("criu was killed by signal {signal}"),
        (None, None) => "criu ended".to_owned(),
    }
}

/// Runs CRIU to its end.
///
/// # Errors
/// When it cannot be started or watched. That it failed is not an error of this function.
pub(crate) fn run(job: Job<'_>, signals: &Signals, watch: &mut dyn Watch) -> Result<Ended> {
    let Job { program, args, place, control, environment, deadline } = job;
    let begin = Instant::now();
    let mut stderr = files::scratch("stderr").context("make a temporary file")?;
    let mut command = Command::new(program);
    command
        .args(&args)
        .env_clear()
        .env(CONTROL_VARIABLE, control.path())
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.try_clone().context("duplicate a descriptor")?);
    let mut child =
        place.spawn(&mut command).with_context(|| format!("start {}", program.display()))?;
    let process = match Process::of_child(&child) {
        Ok(process) => process,
        Err(e) => {
            child.kill().context("end criu")?;
            return Err(e).context("hold criu by its pidfd");
        }
    };
    let mut end = Ending {
        given_up: None,
        asked_at: None,
        lost_at: None,
        killed_at: None,
        script: Script::default(),
    };
    let mut refused = None;
    let process = &process;
    let mut deadline = deadline;
    let mut pulse = Pulse::default();
    let (mut next_tick, mut next_pulse) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        let mut until = next_pulse;
        if watch.wants_ticks() {
            until = until.min(next_tick);
        }
        if end.given_up.is_none() {
            until = [deadline, end.lost_at].into_iter().flatten().fold(until, Instant::min);
        }
        let ready = wait(process, &control, signals, until.saturating_duration_since(now))?;
        // Before the action that came with it, which may be the one after which it is too late.
        while ready.signal
            && let Some(received) = signals.next().context("read a signal")?
        {
            if received.asks_to_give_up() {
                end.ask(watch, process, GiveUp::Signal(received.number));
            }
        }
        if ready.control {
            while let Some(question) = control.next().context("read what the action script asks")? {
                end.may_write_again(process, &question.action);
                let answer = answer(watch, &question.action, question.init_pid, end.given_up);
                let text = answer.as_ref().map(|_| ()).map_err(|e| format!("{e:#}"));
                question.answer(text);
                if let Err(e) = answer {
                    refused.get_or_insert(e);
                }
            }
            pulse.beat();
        }
        let now = Instant::now();
        let child_ended = ready.signal && has_lost_task(process.pid());
        if end.lost_at.is_none() && watch.is_lost(child_ended) {
            end.lost_at = Some(now + LOST_GRACE);
        }
        if end.given_up.is_none() && end.lost_at.take_if(|at| *at <= now).is_some() {
            end.ask(watch, process, GiveUp::Lost);
        }
        if deadline.take_if(|d| *d <= now).is_some() {
            end.ask(watch, process, GiveUp::TimeLimit);
        }
        if end.given_up.is_some() {
            end.script.look(process.pid());
        }
        if now >= next_pulse {
            end.look(watch, process, &mut pulse);
            next_pulse = now + PULSE_INTERVAL[usize::from(end.asked_at.is_some())];
        }
        if watch.wants_ticks() && now >= next_tick {
            watch.tick();
            next_tick = now + LOG_INTERVAL;
        }
        if ready.ended {
            break;
        }
        if end.is_stuck() {
            bail!("criu, process {}, was killed and does not end", process.pid());
        }
    }
    let status = child::ended(&mut child).context("wait for criu")?;
    let took = begin.elapsed();
    if watch.wants_ticks() {
        watch.tick();
    }
    Ok(Ended { status, stderr: tail(&mut stderr)?, given_up: end.given_up, refused, took })
}

/// How a run comes to an end before CRIU's own.
struct Ending {
    /// Whether and why it is given up.
    given_up: Option<GiveUp>,
    /// When that was asked for first, even where it was too late.
    asked_at: Option<(GiveUp, Instant)>,
    /// When a container that is lost is given up.
    lost_at: Option<Instant>,
    /// When CRIU was killed.
    killed_at: Option<Instant>,
    /// The user's script that CRIU waits for.
    script: Script,
}

impl Ending {
    /// Gives a run up, if that can be done.
    fn ask(&mut self, watch: &mut dyn Watch, criu: &Process, why: GiveUp) {
        if self.given_up.is_some() {
            return;
        }
        self.asked_at.get_or_insert((why, Instant::now()));
        match watch.give_up(why) {
            Giving::TooLate => return,
            Giving::AtNextAction => {
                note("forbid it to write:", criu, process::forbid_writing(criu.pid()))
            }
            Giving::Now => self.kill(criu),
        }
        self.given_up = Some(why);
    }

    /// Scripts that take back what they have done may write.
    fn may_write_again(&self, criu: &Process, action: &Action) {
        if self.given_up.is_some() && *action == SPARED {
            note("allow it to write:", criu, process::allow_writing(criu.pid()));
        }
    }

    /// Looks whether CRIU gets on. One that waits for a script does.
    fn look(&mut self, watch: &mut dyn Watch, criu: &Process, pulse: &mut Pulse) {
        let still = pulse.stands_still_for(watch.pulse());
        if still < STANDSTILL_AT_END {
            return;
        }
        if script::is_waited_for(criu.pid()) {
            pulse.beat();
            return;
        }
        // One that somebody has stopped goes on; to all others that is nothing.
        note("continue", criu, criu.signal(libc::SIGCONT));
        watch.nudge();
        let limit = if self.asked_at.is_some() { STANDSTILL_AT_END * 2 } else { STANDSTILL };
        let overdue = self.asked_at.is_some_and(|(_, at)| at.elapsed() >= END_LIMIT);
        if still >= limit || overdue {
            self.force(watch, criu);
        }
    }

    /// Ends a CRIU that does not come to an end by itself.
    fn force(&mut self, watch: &mut dyn Watch, criu: &Process) {
        let why = self.asked_at.map_or(GiveUp::Standstill, |(why, _)| why);
        if watch.give_up(GiveUp::Standstill) != Giving::TooLate {
            log::warn!("CRIU does not come to an end: process {} is killed", criu.pid());
            self.kill(criu);
            self.given_up.get_or_insert(why);
        }
    }

    fn kill(&mut self, criu: &Process) {
        note("end", criu, criu.signal(libc::SIGKILL));
        self.killed_at.get_or_insert_with(Instant::now);
    }

    /// Whether CRIU was killed and stays in the kernel all the same.
    fn is_stuck(&self) -> bool {
        self.killed_at.is_some_and(|at| at.elapsed() >= KILL_LIMIT)
    }
}

/// What is done to a CRIU that has ended meanwhile has no effect, and needs none.
fn note(what: &str, criu: &Process, done: io::Result<()>) {
    if let Err(e) = done {
        log::debug!("{what} criu, process {}: {e}", criu.pid());
    }
}

/// Whether a child of ours other than CRIU has ended. It is not collected.
#[expect(clippy::disallowed_methods, reason = "WNOHANG")]
fn has_lost_task(criu: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let ended = waitid(Id::All, flags).ok().and_then(|status| status.pid());
    ended.is_some_and(|pid| pid.as_raw() != criu)
}

/// An action that comes after the run was given up is refused, unless it is the one that sets the
/// network free ([`SPARED`]).
fn answer(
    watch: &mut dyn Watch,
    action: &Action,
    init_pid: Option<i32>,
    given_up: Option<GiveUp>,
) -> Result<()> {
    match given_up {
        Some(why) if *action != SPARED => Err(anyhow::anyhow!(match why {
            GiveUp::Signal(number) => format!("interrupted by signal {number}"),
            GiveUp::TimeLimit => "the time limit is reached".to_owned(),
            GiveUp::Lost => "the container's init has died".to_owned(),
            GiveUp::Standstill => "nothing moved any more".to_owned(),
        })),
        _ => watch.action(action, init_pid),
    }
}

/// What has come.
struct Ready {
    ended: bool,
    control: bool,
    signal: bool,
}

fn wait(process: &Process, control: &Control, signals: &Signals, limit: Duration) -> Result<Ready> {
    let watched = [process.as_fd(), control.as_fd(), signals.as_fd()];
    let [ended, control, signal] = poll::readable(watched, limit).context("wait for criu")?;
    Ok(Ready { ended, control, signal })
}

fn tail(file: &mut File) -> Result<String> {
    let what = "read what criu wrote to its standard error";
    let length = file.seek(SeekFrom::End(0)).context(what)?;
    file.seek(SeekFrom::Start(length.saturating_sub(ERROR_TAIL))).context(what)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context(what)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
