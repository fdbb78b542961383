//! What all commands have in common: the options of every LXC tool, the log, and how a failure is
//! printed.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;

use super::colour::{self, Kind};
use super::logger::{self, Shown};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::config::system::{SYSTEM_CONFIG, SystemConfig};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::report::{shown, shown_lines, to_json};
use crate::settings::{self, Settings};
use crate::store::resume_mark;
use crate::sys::files;
use crate::sys::systemd_journal::Priority;

/// The hook directory below the prefix that the commands are installed in.
const LIBEXEC: &str = "libexec/lxc-cr";
/// Our CRIU action script.
const ACTION_SCRIPT: &str = crate::criu::script::OURS;

/// Exit codes, for the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit status:
   0  done
   1  other failure
   2  usage
   3  no such container, or not in the state asked for
   4  refused, nothing was touched
   5  CRIU failed, container as before
   6  CRIU failed, container lost (images kept)
   7  time limit
   8  rollback incomplete (what is left is named)
   9  checkpoint damaged or not usable here
  10  another operation holds this container";

/// The heading of those options in the help; a command's own come first.
pub(super) const COMMON: &str = "Options of every LXC tool";
/// The heading of options that do not change what is done.
pub(super) const HOW: &str = "How it works and what it prints";

/// What stands below the options in a program's help.
pub(super) fn below_options(examples: &str) -> String {
    format!("Examples:\n  {examples}\n{EXIT_CODES}")
}

/// The options of every LXC tool.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LxcOptions {
    /// Name of the container
    #[arg(short = 'n', long = "name", value_name = "NAME", conflicts_with = "positional")]
    pub name: Option<String>,

    /// Name of the container, where -n is not given
    #[arg(value_name = "NAME")]
    pub positional: Option<String>,

    /// Containers are in this directory (LXCPATH)
    #[arg(help_heading = COMMON, short = 'P', long = "lxcpath", value_name = "PATH")]
    pub lxcpath: Option<PathBuf>,

    /// Read this configuration instead of the container's own
    #[arg(help_heading = COMMON, long, value_name = "FILE")]
    pub rcfile: Option<PathBuf>,

    /// Write our own log to FILE
    #[arg(help_heading = COMMON, short = 'o', long = "logfile", value_name = "FILE")]
    pub logfile: Option<PathBuf>,

    /// How much is logged: TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL
    #[arg(help_heading = COMMON, short = 'l', long = "logpriority", value_name = "LEVEL")]
    pub logpriority: Option<String>,

    /// Print errors only
    #[arg(help_heading = COMMON, short = 'q', long)]
    pub quiet: bool,

    /// Show this help
    #[arg(help_heading = COMMON, short = '?', long, short_alias = 'h', action = clap::ArgAction::Help)]
    pub help: Option<bool>,

    /// Show a short usage message
    #[arg(help_heading = COMMON, long, exclusive = true)]
    pub usage: bool,

    /// Show the version
    #[arg(help_heading = COMMON, long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,
}

/// An option of [`LxcOptions`] that means nothing to a subcommand.
pub(crate) fn hidden(arg: clap::Arg) -> clap::Arg {
    arg.hide(true)
}

/// The name, where it may be a checkpoint's directory, too.
pub(crate) fn of_checkpoint(arg: clap::Arg) -> clap::Arg {
    arg.value_name("DIR|NAME")
        .help("Directory of the checkpoint, or name of the suspended container")
}

impl LxcOptions {
    /// The container that is meant.
    pub(crate) fn container(&self) -> Result<(ContainerName, LxcPath)> {
        let name = self.name.as_ref().or(self.positional.as_ref()).ok_or_else(|| {
            Failure::msg(Exit::Usage, "no container is named").hint("say which one: -n NAME")
        })?;
        let name = ContainerName::new(name).map_err(|e| Failure::new(Exit::Usage, e))?;
        let lxcpath = self.all_containers()?;
        logger::about(&name, &lxcpath);
        Ok((name, lxcpath))
    }

    /// The directory of all containers.
    pub(crate) fn all_containers(&self) -> Result<LxcPath> {
        let path = match &self.lxcpath {
            Some(path) => path.clone(),
            None => {
                SystemConfig::load(Path::new(SYSTEM_CONFIG))
                    .map_err(|e| Failure::new(Exit::Other, e))?
                    .lxcpath
            }
        };
        LxcPath::new(path).map_err(|e| Failure::new(Exit::Usage, e))
    }

    /// The checkpoint that is meant by `DIR|NAME`: what has a slash in it is a directory; a name is
    /// the suspended container of that name, or else a directory here.
    pub(crate) fn checkpoint(&self) -> Result<PathBuf> {
        let called = self.called().ok_or_else(|| {
            Failure::msg(Exit::Usage, "no checkpoint is named")
                .hint("name its directory, or its container")
        })?;
        let lxcpath = self.all_containers()?;
        if !called.contains('/') && !matches!(called, "." | "..") {
            let name = ContainerName::new(called).map_err(|e| Failure::new(Exit::Usage, e))?;
            let suspended = resume_mark::dir(&lxcpath.container_dir(&name));
            if suspended.symlink_metadata().is_ok() || !Path::new(called).is_dir() {
                return Ok(suspended);
            }
        }
        absolute(Path::new(called))
    }

    /// What the user calls the container, for messages that come before it is known to be one.
    pub(crate) fn called(&self) -> Option<&str> {
        self.name.as_deref().or(self.positional.as_deref())
    }

    /// The level of our own log. A file is there for what has happened.
    pub(crate) fn level(&self) -> Result<LevelFilter> {
        let Some(text) = &self.logpriority else {
            return Ok(if self.logfile.is_some() { LevelFilter::Info } else { LevelFilter::Warn });
        };
        Ok(match text.to_ascii_uppercase().as_str() {
            "TRACE" => LevelFilter::Trace,
            "DEBUG" => LevelFilter::Debug,
            "INFO" | "NOTICE" => LevelFilter::Info,
            "WARN" => LevelFilter::Warn,
            "ERROR" | "CRIT" | "ALERT" | "FATAL" => LevelFilter::Error,
            _ => return Err(Failure::msg(Exit::Usage, format!("'{text}' is not a log level"))),
        })
    }
}

/// Begins our own log.
pub(crate) fn start_log(level: LevelFilter, file: Option<&Path>) -> Result<()> {
    logger::start(match file {
        Some(path) => Shown::In(files::open_log(path).or_exit(Exit::Other)?, level),
        None => Shown::Here(on_standard_error(level)),
    });
    Ok(())
}

fn on_standard_error(level: LevelFilter) -> env_logger::Builder {
    use std::io::Write;
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).format(|out, record| {
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(out, "{level}: {}", shown_lines(&record.args().to_string()))
    });
    builder
}

/// Refuses everybody but root, before anything is looked at.
pub(crate) fn require_root() -> Result<()> {
    if crate::sys::process::is_root() {
        return Ok(());
    }
    Err(Failure::msg(Exit::Other, "only root can checkpoint and restore containers")
        .hint("run it with sudo, or as root"))
}

/// The administrator's settings for a container.
pub(crate) fn load_settings(name: &ContainerName) -> Result<Settings> {
    Ok(settings::Files::read(Path::new(settings::FILE))?.of(name.as_str()))
}

/// Our action script: beside this program (a build tree), or where the package puts it.
pub(crate) fn action_script() -> Result<PathBuf> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::msg(Exit::Other, format!("find our own program: {e}")))?;
    let dir = program.parent().unwrap_or(Path::new("/"));
    let beside = dir.join(ACTION_SCRIPT);
    let installed = dir.parent().unwrap_or(Path::new("/")).join(LIBEXEC).join(ACTION_SCRIPT);
    for path in [&beside, &installed] {
        if path.is_file() {
            return Ok(path.clone());
        }
    }
    Err(Failure::msg(
        Exit::Other,
        format!(
            "our action script is missing: neither {} nor {} is there",
            beside.display(),
            installed.display()
        ),
    ))
}

/// A path as the user gave it, made absolute: CRIU and the monitor run in other directories.
/// Without a slash at its end, which would make what is put beside it something in it.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map(|absolute| absolute.components().collect());
    absolute
        .map_err(|e| Failure::msg(Exit::Usage, format!("'{}' is not a path: {e}", path.display())))
}

/// Prints a line of what a command was asked for: nothing in it ends the line.
pub(crate) fn print_line(text: &str) {
    print(&format!("{}\n", shown(text)));
}

/// Prints what is laid out on several lines, of parts that were each made safe; what a container
/// has named does not steer the terminal. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) {
    print_as(Kind::Lines, text);
}

/// The same of a diff.
pub(crate) fn print_diff(text: &str) {
    print_as(Kind::Diff, text);
}

fn print_as(kind: Kind, text: &str) {
    let mut out = std::io::stdout().lock();
    let text = shown_lines(text);
    let text = colour::for_stream(&text, kind, out.is_terminal());
    if let Err(e) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        log::debug!("print: {e}");
    }
}

/// A span of time on the command line, in seconds: a number of them, or one with a unit.
pub(crate) fn time(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = digits
        .parse::<u64>()
        .ok()
        .filter(|_| factor > 0)
        .and_then(|count| count.checked_mul(factor));
    seconds.ok_or_else(|| {
        "a time is a number of seconds, or one with a unit: 90, 90s, 5m, 1h".to_owned()
    })
}

/// A short span of time on the command line, in milliseconds: a number of them, or one with a unit.
pub(crate) fn milliseconds(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "ms" => Some(1),
        "s" => Some(1000),
        _ => None,
    };
    let count = digits.parse::<u64>().ok().zip(factor);
    count
        .and_then(|(count, factor)| count.checked_mul(factor))
        .ok_or_else(|| "it is a number of milliseconds, or one with a unit: 300ms, 2s".to_owned())
}

/// A span of time as JSON has it.
pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Prints what a program reads; docs/json.md describes it.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = to_json(value).map_err(|e| Failure::new(Exit::Other, e))?;
    print(&(text + "\n"));
    Ok(())
}

/// A failure on one line, with all that there is to say of it.
pub(crate) fn on_one_line(failure: &Failure) -> String {
    let mut text = failure.to_string();
    if let Some(state) = &failure.state {
        text.push_str(&format!("; now: {state}"));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("; hint: {hint}"));
    }
    if let Some(log) = &failure.log {
        text.push_str(&format!("; log: {}", log.display()));
    }
    text
}

/// A failure may quote what a container has named; findings in it stand on lines of their own.
fn tell(text: &str) {
    print_error(&format!("{}\n", shown_lines(text)));
}

/// Prints a line to standard error: nothing in it ends the line.
pub(crate) fn print_error_line(text: &str) {
    print_error(&format!("{}\n", shown(text)));
}

/// Prints to standard error, as it is. A reader that has gone (a closed pipe, a terminal) is not a
/// reason to leave a container half-way, as `eprint!` would.
pub(crate) fn print_error(text: &str) {
    let mut out = std::io::stderr();
    let text = colour::for_stream(text, Kind::Lines, out.is_terminal());
    if let Err(e) = out.write_all(text.as_bytes()) {
        log::debug!("print: {e}");
    }
}

/// Prints a failure and gives the exit status.
pub(crate) fn fail(program: &str, container: Option<&str>, failure: &Failure) -> ExitCode {
    if container.is_some() && failure.exit != Exit::Usage {
        logger::keep(Priority::Error, &on_one_line(failure));
    }
    match container {
        Some(name) => tell(&format!("{program}: {name}: {failure}")),
        None => tell(&format!("{program}: {failure}")),
    }
    if let Some(hint) = &failure.hint {
        print_error_line(&format!("hint: {hint}"));
    }
    if let Some(log) = &failure.log {
        print_error_line(&format!("log: {}", log.display()));
    }
    if let Some(state) = &failure.state {
        print_error_line(&format!("now: {state}"));
    }
    ExitCode::from(failure.exit.code())
}
/// A user's action script, as CRIU wants it: one program, by its full path.
pub(super) fn user_script(path: &Path) -> Result<PathBuf> {
    let path = absolute(path)?;
    match path.is_file() {
        true => Ok(path),
        false => Err(Failure::msg(
            Exit::Usage,
            format!("the action script {} is not a file", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_have_a_unit() {
        assert_eq!(
            ["90", "90s", "5m", "2min", "1h", "0"].map(time),
            [90, 90, 300, 120, 3600, 0].map(Ok)
        );
        for wrong in ["soon", "", "5d", "-1", "1.5", "5 m", "99999999999999999h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
