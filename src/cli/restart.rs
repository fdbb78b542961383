//! `lxc-restart`: brings a container back. The work is done by the process that stays behind as its
//! monitor; this one starts it, shows what it tells, and returns when the container runs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser};

use super::common::{
    HOW, LxcOptions, absolute, action_script, below_options, fail, load_settings, microseconds,
    print, print_json, print_line, require_root, start_log, time,
};
use super::monitor::{FailureMessage, Job};
use super::monitor_title::title;
use super::progress::Progress;
use super::usage::parse;
use crate::error::{Exit, Failure, Interrupted, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::shell;
use crate::report::{Report, seconds};
use crate::settings::Lazy;
use crate::store::kept::At;
use crate::store::shared_dir;
use crate::sys::process::{self, Process};
use crate::sys::signals::{GIVE_UP, Signals};
use crate::sys::spawn::Place;
use crate::sys::{child, clean_start, files, path_trust};

const PROGRAM: &str = "lxc-restart";
const EXAMPLES: &str = "\
  lxc-restart web                        bring back what was suspended
  lxc-restart web --at latest --replace  go back to the newest of web's list
  lxc-restart web -D /srv/web-1          restore what is in this directory
  lxc-restart web --dry-run              show what would be done
";
/// How long the monitor may take to end when it has said all.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to give up and undo what it has begun: hooks of the user's are part of it.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(180);

/// Restart an LXC container from its checkpoint
///
/// DIR is taken as it is if it exists, else as a directory of the container. Without -D it is
/// LXCPATH/NAME/dump, where lxc-checkpoint puts a suspended container. A checkpoint of another
/// container becomes a copy of it, which needs a definition and a root of its own.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_help_flag = true, disable_version_flag = true, after_help = below_options(EXAMPLES))]
struct Arguments {
    #[command(flatten)]
    restart: Restart,
}

/// What is asked for.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Restart {
    /// The options of every LXC tool.
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// The directory of the checkpoint
    #[arg(short = 'D', long = "checkpoint-dir", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// One of the container's checkpoints: the latest, the newest of a time like 2026-11-30T22:04,
    /// or of a label
    #[arg(long, value_name = "latest|TIME|LABEL", conflicts_with = "dir")]
    pub at: Option<At>,

    /// Leave the container in the background (the default)
    #[arg(help_heading = HOW, short = 'd', long, conflicts_with = "foreground")]
    pub daemon: bool,

    /// Stay until the container ends
    #[arg(help_heading = HOW, short = 'F', long)]
    pub foreground: bool,

    /// Name of the host end of a veth pair
    #[arg(long, value_name = "IF=NAME", value_parser = veth)]
    pub veth: Vec<(String, String)>,

    /// Write the monitor's pid to FILE
    #[arg(help_heading = HOW, long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// Stop the container first if it runs: it goes back to the checkpoint
    #[arg(long)]
    pub replace: bool,

    /// Show CRIU's log while it works
    #[arg(help_heading = HOW, short = 'v', long)]
    pub verbose: bool,

    /// Also run this program at each of CRIU's actions
    #[arg(help_heading = HOW, short = 'A', long, value_name = "FILE")]
    pub action_script: Option<PathBuf>,

    /// Close the TCP connections with the outside; those within the container go on
    #[arg(long)]
    pub tcp_close: bool,

    /// Go ahead although configuration, root or CRIU are not those of the checkpoint
    #[arg(long)]
    pub force: bool,

    /// Show what would be done, and CRIU's command line; do nothing
    #[arg(help_heading = HOW, long)]
    pub dry_run: bool,

    /// Print the result as JSON
    #[arg(help_heading = HOW, long, conflicts_with_all = ["dry_run", "foreground"])]
    pub json: bool,

    /// Do not compare the checksums of memory images
    #[arg(long)]
    pub no_verify: bool,

    /// Run the container at once: its memory follows, first what it touches
    #[arg(long)]
    pub lazy: bool,

    /// Give up and undo everything after this time: seconds, or with a unit like 5m
    #[arg(help_heading = HOW, long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<u64>,

    /// The caller itself reports that the container runs.
    #[arg(skip)]
    pub reported: bool,
}

fn veth(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((inside, name)) if !inside.is_empty() && !name.is_empty() => {
            Ok((inside.to_owned(), name.to_owned()))
        }
        _ => Err("it has to be IF=NAME, for example eth0=vethweb".to_owned()),
    }
}

/// The command line's definition, for manuals and completions.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// The program's `main`.
pub(crate) fn main() -> ExitCode {
    clean_start::begin();
    if super::monitor_title::is_meant() {
        return super::monitor::main();
    }
    let Arguments { restart } = match parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if restart.lxc.usage {
        print(&(Arguments::command().render_usage().to_string() + "\n"));
        return ExitCode::SUCCESS;
    }
    let started =
        restart.lxc.level().and_then(|level| start_log(level, restart.lxc.logfile.as_deref()));
    match started.and_then(|()| run(&restart)) {
        Ok(code) => code,
        Err(failure) => fail(PROGRAM, restart.lxc.called(), &failure),
    }
}

/// Brings a container back.
pub(super) fn run(restart: &Restart) -> Result<ExitCode> {
    let begin = Instant::now();
    let (name, lxcpath) = restart.lxc.container()?;
    require_root()?;
    let mut settings = load_settings(&name)?;
    if let Some(seconds) = restart.timeout {
        settings.timeout = seconds;
    }
    settings.verify &= !restart.no_verify;
    if restart.lazy {
        settings.lazy = Lazy::Always;
    }
    let mut progress = Progress::new(restart.lxc.quiet, restart.verbose);
    let job = Job {
        name: name.as_str().to_owned(),
        lxcpath: lxcpath.as_path().to_owned(),
        config: restart.lxc.rcfile.as_deref().map(absolute).transpose()?,
        images: match &restart.at {
            Some(at) => super::choice::checkpoint_at(at, &name, &lxcpath)?,
            None => checkpoint_dir(restart.dir.as_deref(), &name, &lxcpath)?,
        },
        veth: restart.veth.iter().cloned().collect::<BTreeMap<_, _>>(),
        action_script: action_script()?,
        user_script: restart
            .action_script
            .as_deref()
            .map(super::common::user_script)
            .transpose()?,
        tcp_close: restart.tcp_close,
        force: restart.force,
        replace: restart.replace,
        dry_run: restart.dry_run,
        pidfile: restart.pidfile.as_deref().map(absolute).transpose()?,
        logfile: restart.lxc.logfile.as_deref().map(absolute).transpose()?,
        logpriority: restart.lxc.logpriority.clone(),
        wants_log: restart.verbose,
        wants_phases: progress.wants_phases(),
        settings,
    };
    if let Some(path) = &job.pidfile {
        path_trust::check_new(path).context("write the pid file").or_exit(Exit::Refused)?;
    }
    let signals = match restart.foreground {
        true => Signals::of_terminal(),
        false => Signals::of_termination(),
    };
    let signals = signals.context("take signals")?;
    let mut monitor =
        start(&job, has_own_keyring(&name, &lxcpath, &job)).context("start the monitor")?;
    let limit = match job.settings.timeout {
        0 => None,
        seconds => begin.checked_add(Duration::from_secs(seconds)),
    };
    let told = listen(&mut monitor, &signals, limit, &mut progress);
    progress.clear();
    match told? {
        Told::Planned => see_off(&mut monitor)?,
        Told::Running { pid, criu, cut_off } => {
            let took = begin.elapsed();
            if restart.json {
                print_json(&serde_json::json!({
                    "version": 1,
                    "changed": true,
                    "container": name.as_str(),
                    "directory": job.images,
                    "pid": pid,
                    "criu": criu,
                    "took_us": microseconds(took),
                    "cut_off": cut_off,
                }))?;
            } else if !restart.lxc.quiet && !restart.reported {
                let took = seconds(took);
                print_line(&format!(
                    "{name}: running again, init is process {pid} ({took}, CRIU {criu})"
                ));
            }
            if restart.foreground {
                let ended = super::foreground::stay(&mut monitor, &name, &lxcpath, &signals)?;
                if !ended.success() {
                    let undone = ended.code() != Some(Exit::RollbackIncomplete.code().into());
                    let exit = if undone { Exit::Other } else { Exit::RollbackIncomplete };
                    return Err(Failure::msg(
                        exit,
                        format!("it has ended, and its monitor with {ended}"),
                    )
                    .hint(format!("the reason is in its log: journalctl CONTAINER_NAME={name}")));
                }
            }
            if let Some(cause) = cut_off {
                return Err(Failure::msg(Exit::RollbackIncomplete, cause)
                    .hint(
                        "repair the bridge, then run 'lxc-cr recover' to attach the container to \
                         it",
                    )
                    .state(format!("{name} is running, but no packets reach it")));
            }
        }
        Told::Failed(failure) => {
            see_off(&mut monitor)?;
            return Err(failure);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the checkpoint is: `DIR` as given if it is there, or the container's place in it
/// ([`shared_dir`]); else below the container's own directory.
fn checkpoint_dir(dir: Option<&Path>, name: &ContainerName, lxcpath: &LxcPath) -> Result<PathBuf> {
    let own = lxcpath.container_dir(name);
    let Some(dir) = dir else { return super::choice::own_checkpoint(name, lxcpath) };
    let given = shared_dir::for_restart(&absolute(dir)?, name);
    if given.symlink_metadata().is_ok() || !dir.is_relative() || !own.is_dir() {
        return Ok(given);
    }
    let below = own.join(dir);
    match below.is_dir() {
        true => Ok(below),
        false => {
            let text =
                format!("there is no checkpoint {}, nor {}", below.display(), given.display());
            Err(Failure::msg(Exit::BadCheckpoint, text).hint(format!(
                "lxc-cr list {} shows those that there are",
                shell::options(name, lxcpath)
            )))
        }
    }
}

/// Starts this program again as the monitor. The job goes over its standard input; its standard
/// output tells us how it goes on. It gets a session of its own, and the title that LXC's monitors
/// have, and a session keyring of its own unless the container inherits that of its caller.
#[expect(clippy::disallowed_methods, reason = "the pipe is read with a limit, by listen()")]
fn start(job: &Job, own_keyring: bool) -> anyhow::Result<Child> {
    let mut input = files::scratch("job").context("make a temporary file")?;
    let text = toml::to_string(job).context("put the job into words")?;
    input.write_all(text.as_bytes()).context("write the job")?;
    input.seek(SeekFrom::Start(0)).context("write the job")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(title(&job.lxcpath, &job.name)).env_clear().stdin(input).stdout(Stdio::piped());
    let mut place = Place::here().own_session();
    if own_keyring {
        place = place.own_keyring();
    }
    place.spawn(&mut command).context("start ourselves again")
}

/// Whether the keys of the command's caller are kept from the container: they are, unless it
/// inherits them at a start, too (`lxc.keyring.session = 1`). The monitor reads the configuration
/// again and reports what is wrong with it.
fn has_own_keyring(name: &ContainerName, lxcpath: &LxcPath, job: &Job) -> bool {
    Defined::load(name, lxcpath, job.config.as_deref())
        .map_or(true, |defined| defined.config.has_own_keyring())
}

/// What the monitor has told.
enum Told {
    Running { pid: i32, criu: String, cut_off: Option<String> },
    Planned,
    Failed(Failure),
}

/// Waits for the end of a monitor that has said all.
fn see_off(monitor: &mut Child) -> Result<()> {
    if child::wait(monitor, END_LIMIT).context("wait for the monitor")?.is_none() {
        log::warn!("the monitor, process {}, has not ended yet", monitor.id());
    }
    Ok(())
}

/// The monitor has not come to an end although its time is over.
fn late(monitor: &Process) -> Failure {
    let pid = monitor.pid();
    Failure::msg(Exit::RollbackIncomplete, format!("the monitor, process {pid}, does not give up"))
        .hint(format!("end it with 'kill -KILL {pid}', then run 'lxc-cr recover'"))
        .state("the container is half restored, its checkpoint is as before")
}

/// Passes on what the monitor tells, until it has come to an end of some kind. `limit` is when it
/// is to give up by itself.
fn listen(
    monitor: &mut Child,
    signals: &Signals,
    limit: Option<Instant>,
    progress: &mut Progress,
) -> Result<Told> {
    let output = monitor.stdout.take().context("the monitor's output")?;
    let process = Process::of_child(monitor).context("hold the monitor")?;
    // A Ctrl-C is passed on: the monitor undoes what it has begun and tells the failure.
    let (forwarded, limit) = (Cell::new(None), Cell::new(limit));
    let forward = || {
        while let Ok(Some(received)) = signals.next() {
            if received.number == libc::SIGWINCH {
                continue;
            }
            forwarded.set(Some(received.number));
            limit.set(limit.get().into_iter().chain([Instant::now()]).min());
            log::debug!("signal {}: the monitor gives up", received.number);
            if let Err(e) = process.signal(GIVE_UP) {
                log::warn!("ask the monitor to give up: {e}");
            }
        }
    };
    // A monitor that somebody has stopped would keep the container waiting, and us.
    let nudge = || {
        if process::is_stopped(process.pid())
            && let Err(e) = process.signal(libc::SIGCONT)
        {
            log::debug!("continue the monitor: {e}");
        }
    };
    let overdue = || limit.get()?.checked_add(GIVE_UP_LIMIT);
    let mut reader = BufReader::new(super::monitor::Interruptible {
        output,
        signals,
        forward: &forward,
        nudge: &nudge,
        limit: &overdue,
    });
    let heard = |e: io::Error| match e.kind() {
        io::ErrorKind::TimedOut => late(&process),
        _ => Failure::new(Exit::Other, anyhow::Error::new(e).context("listen to the monitor")),
    };
    let mut line = String::new();
    let mut cut_off = None;
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(heard)? == 0 {
            return Err(Failure::msg(Exit::Other, "the monitor died without reporting why"));
        }
        let (word, rest) =
            line.trim_end_matches('\n').split_once(' ').unwrap_or((line.trim_end(), ""));
        match word {
            "phase" => progress.phase(rest),
            "amount" => {
                progress.amount(rest.parse().context("the monitor sent no number of bytes")?)
            }
            "note" => progress.note(rest),
            "log" => progress.log_line(rest),
            "cut-off" => cut_off = Some(rest.to_owned()),
            "plan" => print_line(rest),
            "planned" => return Ok(Told::Planned),
            "running" => {
                let (pid, criu) = rest.split_once(' ').unwrap_or((rest, ""));
                let pid = pid.parse().context("the monitor names no pid")?;
                return Ok(Told::Running { pid, criu: criu.to_owned(), cut_off });
            }
            "failed" => {
                let mut text = String::new();
                reader.read_to_string(&mut text).map_err(heard)?;
                let message: FailureMessage =
                    toml::from_str(&text).context("read the monitor's failure")?;
                let failure = message.into_failure();
                return Ok(Told::Failed(match forwarded.get() {
                    // It has failed for another reason before it heard of it: that it was to end
                    // counts all the same.
                    Some(number) if !failure.is_interruption() => {
                        let cause =
                            anyhow::Error::from(Interrupted(number)).context(failure.to_string());
                        Failure { cause, ..failure }
                    }
                    // Not by the signal that told the monitor, but by the one that told us.
                    Some(number) => Failure { cause: Interrupted(number).into(), ..failure },
                    None => failure,
                }));
            }
            other => log::debug!("the monitor says '{other}'"),
        }
    }
}
