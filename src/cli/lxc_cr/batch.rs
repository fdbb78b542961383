//! What `suspend` and `resume` have in common: one container is worked on here, several by this
//! program again, once for each, side by side and in their order.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::PROGRAM;
use crate::cli::common::{COMMON, LxcOptions, print, print_error_line, print_line};
use crate::cli::logger;
use crate::error::{Exit, Failure, Interrupted, OrExit, Result};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::settings::{self, Files};
use crate::suspend::jobs::{Ended, Jobs};
use crate::suspend::order::Batch;
use crate::sys::files;
use crate::sys::signals::Signals;
use crate::sys::systemd_journal::{self, Priority};

/// The options that both have.
#[derive(Args, Clone, Debug)]
pub(super) struct Several {
    /// Names of the containers
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Name of the container
    #[arg(short = 'n', long = "name", value_name = "NAME")]
    named: Vec<String>,

    /// With --all: only those in these groups (lxc.group), one after the other; an empty name
    /// selects containers in no group
    #[arg(short = 'g', long, value_name = "GROUPS", value_delimiter = ',', requires = "all")]
    groups: Option<Vec<String>>,

    /// Time for all of them together, [default: suspend_timeout]: seconds, or with a unit like 5m
    #[arg(long, value_name = "TIME", value_parser = crate::cli::common::time)]
    timeout: Option<u64>,

    /// How many side by side [default: suspend_jobs]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// Containers are in this directory (LXCPATH)
    #[arg(help_heading = COMMON, short = 'P', long = "lxcpath", value_name = "PATH")]
    lxcpath: Option<PathBuf>,

    /// Write our own log to FILE
    #[arg(help_heading = COMMON, short = 'o', long = "logfile", value_name = "FILE")]
    pub logfile: Option<PathBuf>,

    /// How much is logged: TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL
    #[arg(help_heading = COMMON, short = 'l', long = "logpriority", value_name = "LEVEL")]
    logpriority: Option<String>,

    /// Print errors only
    #[arg(help_heading = COMMON, short = 'q', long)]
    pub quiet: bool,

    /// Show this help
    #[arg(help_heading = COMMON, short = '?', long, short_alias = 'h', action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Show a short usage message
    #[arg(help_heading = COMMON, long, exclusive = true)]
    pub usage: bool,

    /// Show the version
    #[arg(help_heading = COMMON, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// The host's settings for many containers, and what the command line changes.
#[derive(Debug)]
pub(super) struct Terms {
    /// All settings.
    pub files: Files,
    /// The directory of containers.
    pub lxcpath: LxcPath,
    /// When all have to be done; none for a time that no clock reaches.
    end: Option<Instant>,
    jobs: usize,
    quiet: bool,
    /// What is printed is for programs; what goes wrong is for standard error.
    json: bool,
    /// What we print goes to the journal, where everything stands by then.
    in_journal: bool,
}

impl Terms {
    /// Says something of one container while the others go on: in the journal once, also where our
    /// output goes there.
    pub(super) fn tell(&self, name: &ContainerName, priority: Priority, text: &str) {
        logger::keep_about(name.as_str(), &self.lxcpath.to_string(), priority, text);
        if self.json {
            print_error_line(&format!("{name}: {text}"));
        } else if self.shows(priority) {
            print_line(&format!("{name}: {text}"));
        }
    }

    fn shows(&self, priority: Priority) -> bool {
        !self.in_journal && (!self.quiet || priority == Priority::Error)
    }

    /// What is left of the time.
    pub(super) fn left(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }
}

/// How it went with several.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Each container, in the order of their ends.
    pub ended: Vec<Worked>,
    /// Those whose turn has not come.
    pub left_out: Vec<ContainerName>,
    /// The signal that has asked us to end.
    pub interrupted: Option<i32>,
}

/// How it went with one of several.
#[derive(Debug)]
pub(super) struct Worked {
    /// The container.
    pub name: ContainerName,
    /// The exit status of the command that was about it.
    pub code: u8,
    /// What that has printed.
    pub said: String,
}

impl Several {
    /// The container, where it is only one.
    pub(super) fn called(&self) -> Option<&str> {
        match self.called_all().as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    fn called_all(&self) -> Vec<&str> {
        self.names.iter().chain(&self.named).map(String::as_str).collect()
    }

    /// The containers that are named, each once.
    pub(super) fn containers(&self) -> Result<Vec<ContainerName>> {
        let mut found = Vec::new();
        for name in self.called_all() {
            let name = ContainerName::new(name).map_err(|e| Failure::new(Exit::Usage, e))?;
            if !found.contains(&name) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// The groups that are asked for.
    pub(super) fn groups(&self) -> Option<&[String]> {
        self.groups.as_deref()
    }

    /// The options as those that are about one container have them.
    pub(super) fn of(&self, name: &ContainerName) -> LxcOptions {
        LxcOptions {
            name: Some(name.as_str().to_owned()),
            lxcpath: self.lxcpath.clone(),
            logfile: self.logfile.clone(),
            logpriority: self.logpriority.clone(),
            quiet: self.quiet,
            ..LxcOptions::default()
        }
    }

    /// The options of no container in particular.
    pub(super) fn of_none(&self) -> LxcOptions {
        LxcOptions {
            lxcpath: self.lxcpath.clone(),
            logpriority: self.logpriority.clone(),
            ..LxcOptions::default()
        }
    }

    /// From now on the time counts.
    pub(super) fn terms(&self) -> Result<Terms> {
        let files = Files::read(Path::new(settings::FILE))?;
        let host = files.host();
        let jobs = match self.jobs.unwrap_or(host.suspend_jobs) {
            // Much of it is waiting: for CRIU, for the disk, for LXC.
            0 => 4 * std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        };
        let time = Duration::from_secs(self.timeout.unwrap_or(host.suspend_timeout));
        Ok(Terms {
            files,
            lxcpath: self.of_none().all_containers()?,
            end: Instant::now().checked_add(time),
            jobs,
            quiet: self.quiet,
            json: self.json,
            in_journal: systemd_journal::is_stream(std::io::stdout().as_fd()),
        })
    }

    /// Runs the subcommand for each container, in order and side by side, until the time is over.
    pub(super) fn run(
        &self,
        words: &[&str],
        batches: &[Batch],
        terms: &Terms,
        signals: &Signals,
    ) -> Result<Summary> {
        let mut summary = Summary::default();
        let mut jobs = Jobs::new(terms.jobs, signals);
        for (index, batch) in batches.iter().enumerate() {
            let mut command = |name: &ContainerName| self.command(words, name, terms);
            jobs.run(&batch.names, &mut command, &mut |end| summary.add(end, terms))
                .with_context(|| format!("{} several containers", words.first().unwrap_or(&"")))?;
            if index + 1 < batches.len() {
                jobs.pause(batch.pause.min(terms.left()))?;
            }
        }
        summary.interrupted = jobs.interrupted();
        let all = batches.iter().flat_map(|b| &b.names);
        let left_out = all.filter(|name| !summary.ended.iter().any(|done| done.name == **name));
        summary.left_out = left_out.cloned().collect();
        Ok(summary)
    }

    /// This program again, for one container, with the time that is left.
    fn command(&self, words: &[&str], name: &ContainerName, terms: &Terms) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(PROGRAM)
            .args(words)
            .args(["-n", name.as_str(), "-P"])
            .arg(terms.lxcpath.as_path());
        command.args(["--timeout", &terms.left().as_secs().to_string()]);
        if let Some(level) = &self.logpriority {
            command.args(["-l", level]);
        }
        if let Some(path) = self.logfile.as_deref().and_then(|path| std::path::absolute(path).ok())
        {
            command.arg("-o").arg(path);
        }
        if self.quiet {
            command.arg("-q");
        }
        command
    }
}

impl Summary {
    fn add(&mut self, end: Ended, terms: &Terms) {
        if !terms.in_journal && !terms.json {
            print(&end.output);
        }
        let code = end.status.code().and_then(|code| u8::try_from(code).ok());
        if code.is_none() {
            terms.tell(
                &end.name,
                Priority::Error,
                &format!("its command was interrupted: {}", end.status),
            );
        }
        let code = code.unwrap_or(Exit::Other.code());
        self.ended.push(Worked { name: end.name, code, said: end.output });
    }

    /// The exit status of all: that of the first who has not done what was asked for.
    pub(super) fn outcome(&self) -> Result<ExitCode> {
        if let Some(signal) = self.interrupted {
            return Err(Failure::new(Exit::Other, Interrupted(signal)));
        }
        Ok(ExitCode::from(
            self.ended.iter().map(|done| done.code).find(|code| *code != 0).unwrap_or(0),
        ))
    }
}

/// The containers that there are, with a definition each.
pub(super) fn all_containers(lxcpath: &LxcPath) -> Result<Vec<ContainerName>> {
    if !lxcpath.as_path().is_dir() {
        return Ok(Vec::new());
    }
    let names = files::names(lxcpath.as_path()).or_exit(Exit::Other)?;
    let named = names.iter().filter_map(|name| ContainerName::new(name.to_str()?).ok());
    Ok(named.filter(|name| lxcpath.config_file(name).is_file()).collect())
}
