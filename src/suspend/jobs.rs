//! Programs that work side by side, a container each.
//!
//! A program of its own for each container keeps them apart: a time limit, a signal mask, a crash
//! of one is nobody else's. What a program says is kept until it ends, so that lines of several do
//! not mix.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lxc::name::ContainerName;
use crate::sys::process::Process;
use crate::sys::signals::{Received, Signals};
use crate::sys::spawn::Place;
use crate::sys::{child, files, poll};

/// More than this of what a program says is not passed on, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// How long programs that were asked to end may take to undo what they have begun.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(240);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The container that it was about.
    pub name: ContainerName,
    /// Its status.
    pub status: ExitStatus,
    /// What it has said, on both streams.
    pub output: String,
}

/// Runs programs side by side.
#[derive(Debug)]
pub(crate) struct Jobs<'a> {
    /// How many at once.
    limit: usize,
    signals: &'a Signals,
    /// The signal that has asked us to end.
    interrupted: Option<i32>,
}

/// A program that runs.
struct Worker {
    name: ContainerName,
    child: Child,
    process: Process,
    output: File,
}

impl Jobs<'_> {
    /// Nobody works yet. A signal is passed on to those who do, and nobody else begins.
    pub(crate) fn new(limit: usize, signals: &Signals) -> Jobs<'_> {
        Jobs { limit: limit.max(1), signals, interrupted: None }
    }

    /// The signal that has asked us to end, if one has come.
    pub(crate) fn interrupted(&self) -> Option<i32> {
        self.interrupted
    }

    /// Runs a program for each container, and tells of each one's end. `command` is asked when its
    /// turn has come.
    ///
    /// # Errors
    /// When a program cannot be started or watched. Those that run by then are waited for all the
    /// same; but not for ever once a signal has asked them to end.
    pub(crate) fn run(
        &mut self,
        names: &[ContainerName],
        command: &mut dyn FnMut(&ContainerName) -> Command,
        ended: &mut dyn FnMut(Ended),
    ) -> Result<()> {
        let mut waiting = names.iter();
        let mut working: Vec<Worker> = Vec::new();
        let (mut outcome, mut interrupted_at) = (Ok(()), None::<Instant>);
        loop {
            while outcome.is_ok() && self.interrupted.is_none() && working.len() < self.limit {
                let Some(name) = waiting.next() else { break };
                match Worker::start(name, command(name)) {
                    Ok(worker) => working.push(worker),
                    Err(e) => outcome = Err(e.context(format!("start the program for {name}"))),
                }
            }
            if working.is_empty() {
                return outcome;
            }
            let left = interrupted_at.map(|at| GIVE_UP_LIMIT.saturating_sub(at.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                let names: Vec<&str> = working.iter().map(|worker| worker.name.as_str()).collect();
                bail!("the programs for {} do not give up", names.join(", "));
            }
            let done = self.wait(&working, left).context("wait for the programs at work")?;
            if let Some(signal) = self.read_signals()? {
                self.interrupted = Some(signal);
                interrupted_at.get_or_insert_with(Instant::now);
                for worker in &working {
                    // One that has just ended cannot be told.
                    if let Err(e) = worker.process.signal(libc::SIGTERM) {
                        log::debug!("{}: pass signal {signal} on: {e}", worker.name);
                    }
                }
            }
            // From the last on: the others keep their places.
            for index in done.into_iter().rev() {
                match working.remove(index).end() {
                    Ok(end) => ended(end),
                    Err(e) => outcome = outcome.and(Err(e)),
                }
            }
        }
    }

    /// Waits, unless a signal comes.
    pub(crate) fn pause(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while self.interrupted.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(&[], Some(left)).context("wait")?;
            self.interrupted = self.read_signals()?;
        }
        Ok(())
    }

    /// Waits for a signal or an end; gives the places of those who have ended.
    #[expect(clippy::disallowed_methods, reason = "each program has a limit, and a signal ends it")]
    fn wait(&self, working: &[Worker], limit: Option<Duration>) -> io::Result<Vec<usize>> {
        let processes = working.iter().map(|w| w.process.as_fd());
        let watched: Vec<_> = std::iter::once(self.signals.as_fd()).chain(processes).collect();
        let come = poll::readable_at_last(&watched, limit)?;
        let ended = come.iter().skip(1).enumerate().filter(|(_, come)| **come);
        Ok(ended.map(|(index, _)| index).collect())
    }

    /// The last signal that has come.
    fn read_signals(&self) -> Result<Option<i32>> {
        let mut last = None;
        while let Some(Received { number, .. }) = self.signals.next().context("read a signal")? {
            last = Some(number);
        }
        Ok(last)
    }
}

impl Worker {
    /// In a session of its own: a Ctrl-C at the terminal reaches us, and we pass it on.
    fn start(name: &ContainerName, mut command: Command) -> Result<Worker> {
        let output = files::scratch("output").context("make a temporary file")?;
        let stream = || output.try_clone().context("make a temporary file");
        command.env_clear().stdin(Stdio::null()).stdout(stream()?).stderr(stream()?);
        let child = Place::here().own_session().spawn(&mut command)?;
        let process = Process::of_child(&child).context("hold it")?;
        Ok(Worker { name: name.clone(), child, process, output })
    }

    fn end(self) -> Result<Ended> {
        let Worker { name, mut child, mut output, .. } = self;
        let status =
            child::ended(&mut child).with_context(|| format!("wait for the program for {name}"))?;
        let mut bytes = Vec::new();
        output.rewind().with_context(|| format!("read what the program for {name} has said"))?;
        output
            .take(MAX_OUTPUT)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read what the program for {name} has said"))?;
        Ok(Ended { name, status, output: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ContainerName> {
        names.iter().map(|n| ContainerName::new(n).unwrap()).collect()
    }

    #[test]
    fn all_work_and_what_they_say_is_kept_apart() {
        let signals = Signals::of_termination().unwrap();
        let mut jobs = Jobs::new(2, &signals);
        let mut ends = Vec::new();
        let mut command = |name: &ContainerName| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo $0; echo $0 >&2; test $0 != b", name.as_str()]);
            command
        };
        jobs.run(&names(&["a", "b", "c"]), &mut command, &mut |end| {
            ends.push((end.name.to_string(), end.status.code(), end.output));
        })
        .unwrap();
        ends.sort();
        let end = |name: &str, code| (name.to_owned(), Some(code), format!("{name}\n{name}\n"));
        assert_eq!(ends, [end("a", 0), end("b", 1), end("c", 0)]);
        assert!(jobs.interrupted().is_none());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_the_others_are_waited_for() {
        let signals = Signals::of_termination().unwrap();
        let mut jobs = Jobs::new(4, &signals);
        let mut ended = 0;
        let mut command = |name: &ContainerName| {
            Command::new(if name.as_str() == "a" { "true" } else { "/nowhere" })
        };
        let outcome = jobs.run(&names(&["a", "b", "c"]), &mut command, &mut |_| ended += 1);
        assert!(format!("{:#}", outcome.unwrap_err()).starts_with("start the program for b: "));
        assert_eq!(ended, 1);
    }
}
