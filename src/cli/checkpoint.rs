//! `lxc-checkpoint`: every option of LXC's tool of that name, and some of our own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::common::{
    HOW, LxcOptions, absolute, action_script, below_options, fail, load_settings, microseconds,
    milliseconds, print, print_json, print_line, require_root, start_log, time, user_script,
};
use super::progress::Progress;
use super::restart::{self, Restart};
use super::usage::parse;
use super::{cure, logger};
use crate::checkpoint::{self, Copied, Done, Outcome, Request};
use crate::criu::options::AfterDump;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::inspect::state;
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::shell;
use crate::report::{bytes, seconds};
use crate::settings::Rehearse;
use crate::store::calendar::Calendar;
use crate::store::shared_dir::{self, There};
use crate::store::{history, kept, resume_mark};
use crate::sys::clean_start;
use crate::sys::systemd_journal::Priority;

const PROGRAM: &str = "lxc-checkpoint";
/// Headings of options in the help.
const COPIES: &str = "Copies of memory while the container runs";
const REHEARSAL: &str = "Rehearsal of the restore";
const EXAMPLES: &str = "\
  lxc-checkpoint web                     suspend; lxc-restart web brings it back
  lxc-checkpoint web --keep              add to web's list; web goes on
  lxc-checkpoint web -D /srv/web-1       write it there; web goes on
  lxc-checkpoint web --precopy           stand still for less time
  lxc-checkpoint web --timeout 5m        give up after five minutes
";

/// Checkpoint a running LXC container
///
/// Without -D the container is suspended: its checkpoint goes to LXCPATH/NAME/dump and it is
/// stopped; lxc-restart brings it back. With -D it goes on after the checkpoint, as with LXC's own
/// tool, unless -s is given; and so it does with --keep, which adds a checkpoint to the container's
/// list. lxc-cr prune removes old ones from there.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_help_flag = true, disable_version_flag = true, after_help = below_options(EXAMPLES))]
struct Arguments {
    #[command(flatten)]
    lxc: LxcOptions,

    /// Restore the container from its checkpoint, as lxc-restart does
    #[arg(short = 'r', long)]
    restore: bool,

    /// The directory of the checkpoint
    #[arg(short = 'D', long = "checkpoint-dir", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Let the checkpoint join the container's list, LXCPATH/NAME/checkpoints, and the container go
    /// on
    #[arg(long, conflicts_with = "dir")]
    keep: bool,

    /// A name for the checkpoint, which lxc-restart --at takes; with a label it is never pruned
    #[arg(long, value_name = "LABEL", value_parser = kept::label)]
    label: Option<String>,

    /// Show CRIU's log while it works
    #[arg(help_heading = HOW, short = 'v', long)]
    verbose: bool,

    /// Stop the container once its checkpoint is complete
    #[arg(short = 's', long, conflicts_with = "leave_running")]
    stop: bool,

    /// Keep the container running, even without -D
    #[arg(long)]
    leave_running: bool,

    /// Only copy memory while the container runs, to make a later checkpoint shorter
    #[arg(help_heading = COPIES, short = 'p', long)]
    pre_dump: bool,

    /// Build on the pre-dump in this directory, which is relative to the checkpoint's
    #[arg(help_heading = COPIES, long, value_name = "DIR")]
    predump_dir: Option<PathBuf>,

    /// Also run this program at each of CRIU's actions
    #[arg(help_heading = HOW, short = 'A', long, value_name = "FILE")]
    action_script: Option<PathBuf>,

    /// With -r: leave the container in the background (the default)
    #[arg(help_heading = HOW, short = 'd', long, conflicts_with = "foreground")]
    daemon: bool,

    /// With -r: stay until the container ends
    #[arg(help_heading = HOW, short = 'F', long)]
    foreground: bool,

    /// Replace an existing checkpoint in the directory
    #[arg(long)]
    overwrite: bool,

    /// Leave TCP connections out of the checkpoint; with -r: close those with the outside, as
    /// lxc-restart does
    #[arg(long)]
    tcp_close: bool,

    /// Restore the container once beside itself before it is ended; WHEN is auto (where it costs
    /// little: the default), always (the default after --rehearse alone) or never
    #[arg(help_heading = REHEARSAL, long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    rehearse: Option<Rehearse>,

    /// Copy memory in at most so many rounds while the container runs, so that it stands still for
    /// a shorter time; 0 for none [default: precopy of the settings; without a number: 8]
    #[arg(help_heading = COPIES, long, value_name = "ROUNDS", num_args = 0..=1, require_equals = true, default_missing_value = "8",
        conflicts_with_all = ["pre_dump", "predump_dir", "restore"])]
    precopy: Option<u32>,

    /// With --precopy: make no further round once the rest can be written within this time
    /// [default: max_downtime, 300ms]
    #[arg(help_heading = COPIES, long, value_name = "TIME", value_parser = milliseconds)]
    max_downtime: Option<u64>,

    /// The same as --rehearse=never
    #[arg(help_heading = REHEARSAL, long, conflicts_with = "rehearse")]
    no_rehearse: bool,

    /// End the container although a rehearsal has shown that this state comes back different (see
    /// lxc-cr.toml(5))
    #[arg(help_heading = REHEARSAL, long, value_name = "STATE", value_delimiter = ',')]
    accept: Vec<String>,

    /// For trials: nothing that was found beforehand stands in the way
    #[arg(long, hide = true)]
    skip_preflight: bool,

    /// Go ahead even if the check found blockers
    #[arg(long)]
    force: bool,

    /// Show what would be done, and CRIU's command line; do nothing
    #[arg(help_heading = HOW, long)]
    dry_run: bool,

    /// Print the result as JSON
    #[arg(help_heading = HOW, long, conflicts_with_all = ["dry_run", "foreground"])]
    json: bool,

    /// Give up and undo everything after this time: seconds, or with a unit like 5m
    #[arg(help_heading = HOW, long, value_name = "TIME", value_parser = time)]
    timeout: Option<u64>,

    /// Do not wait until the checkpoint is on disk
    #[arg(help_heading = HOW, long)]
    no_sync: bool,
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
    let arguments: Arguments = match parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.lxc.usage {
        print(&(Arguments::command().render_usage().to_string() + "\n"));
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(failure) => fail(PROGRAM, arguments.lxc.called(), &failure),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    start_log(arguments.lxc.level()?, arguments.lxc.logfile.as_deref())?;
    let (name, lxcpath) = arguments.lxc.container()?;
    require_root()?;
    if arguments.restore {
        return restart::run(&Restart {
            lxc: arguments.lxc.clone(),
            dir: arguments.dir.clone(),
            foreground: arguments.foreground,
            verbose: arguments.verbose,
            action_script: arguments.action_script.clone(),
            dry_run: arguments.dry_run,
            json: arguments.json,
            timeout: arguments.timeout,
            tcp_close: arguments.tcp_close,
            force: arguments.force,
            ..Restart::default()
        });
    }
    let mut settings = load_settings(&name)?;
    if let Some(seconds) = arguments.timeout {
        settings.timeout = seconds;
    }
    settings.sync &= !arguments.no_sync;
    settings.precopy = arguments.precopy.unwrap_or(settings.precopy);
    settings.max_downtime = arguments.max_downtime.unwrap_or(settings.max_downtime);
    let keep =
        arguments.keep || (settings.keep && arguments.dir.is_none() && arguments.leave_running);
    let (images, replace) = match &arguments.dir {
        None if keep => {
            let list = kept::dir(&lxcpath, &name, &settings);
            (kept::fresh(&list, history::now(), &Calendar::of_host()).or_exit(Exit::Other)?, false)
        }
        Some(dir) => match shared_dir::for_checkpoint(&absolute(dir)?, &name)? {
            (place, true) => {
                let replace = arguments.overwrite || is_free(&place, &name, &lxcpath)?;
                (place, replace)
            }
            (dir, false) => (dir, arguments.overwrite),
        },
        // A suspended container's directory: the container runs again, so what is in there is of
        // the past. But a copy of memory is not worth a checkpoint.
        None => (
            resume_mark::dir(&lxcpath.container_dir(&name)),
            !arguments.pre_dump || arguments.overwrite,
        ),
    };
    let stop = arguments.stop || (arguments.dir.is_none() && !keep && !arguments.leave_running);
    let request = Request {
        name,
        lxcpath,
        config: arguments.lxc.rcfile.clone(),
        images,
        replace,
        after: if stop { AfterDump::Stop } else { AfterDump::LeaveRunning },
        action_script: action_script()?,
        user_script: arguments.action_script.as_deref().map(user_script).transpose()?,
        parent_images: arguments.predump_dir.clone(),
        tcp_close: arguments.tcp_close,
        to_be_resumed: false,
        at_shutdown: false,
        label: arguments.label.clone(),
        kept: keep,
        rehearse: if arguments.no_rehearse { Some(Rehearse::Never) } else { arguments.rehearse },
        accept: accepted(&arguments.accept)?,
        only_to_rehearse: false,
        force: arguments.force,
        skip_preflight: arguments.skip_preflight,
        dry_run: arguments.dry_run,
    };
    let mut progress = Progress::new(arguments.lxc.quiet, arguments.verbose);
    let outcome = if arguments.pre_dump {
        checkpoint::pre_dump(&request, &settings, &mut progress)
    } else {
        checkpoint::checkpoint(&request, &settings, &mut progress)
    };
    progress.clear();
    match outcome.map_err(|failure| name_the_cure(failure, &request))? {
        Outcome::Planned(lines) => lines.iter().for_each(|line| print_line(line)),
        Outcome::Done(done) => {
            let text = in_words(&done);
            logger::keep(Priority::Info, &text);
            if arguments.json {
                print_json(&as_json(&done, request.name.as_str()))?;
            } else if !arguments.lxc.quiet {
                if let Some(copied) = &done.precopied {
                    print_line(&format!("{}: {}", request.name, precopy_in_words(copied)));
                }
                print_line(&format!("{}: {text}", request.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a checkpoint may be made in a container's place on a shared_dir, whatever is there.
fn is_free(place: &Path, name: &ContainerName, lxcpath: &LxcPath) -> Result<bool> {
    let refuse = |text: String| Failure::msg(Exit::Refused, format!("{} {text}", place.display()));
    match shared_dir::look(place, name, lxcpath).or_exit(Exit::Other)? {
        There::Free => Ok(true),
        There::Waiting => Err(refuse("holds a checkpoint that was not restarted since".to_owned())
            .hint(format!(
                "keep it elsewhere: mv {0} {0}.old",
                shell::quoted(&place.to_string_lossy())
            ))),
        There::Anothers(path) => {
            Err(refuse(format!("holds a checkpoint of {name} in {}", path.display()))
                .hint("choose another directory"))
        }
    }
}

/// What a container that is not prepared lacks comes before the remedies for each blocker.
fn name_the_cure(failure: Failure, request: &Request) -> Failure {
    let defined = (failure.exit == Exit::Refused)
        .then(|| Defined::load(&request.name, &request.lxcpath, request.config.as_deref()).ok());
    match defined.flatten().as_ref().and_then(cure::by_preparing) {
        None => failure,
        Some(cure) => {
            let other =
                failure.hint.as_deref().map(|hint| format!("; or: {hint}")).unwrap_or_default();
            let hint = format!("it is not prepared; try first: {cure}{other}");
            failure.hint(hint)
        }
    }
}

fn as_json(done: &Done, name: &str) -> serde_json::Value {
    serde_json::json!({
        "version": 1,
        "changed": true,
        "container": name,
        "directory": done.images,
        "size_bytes": done.size,
        "frozen_us": done.frozen.map(microseconds),
        "criu_us": microseconds(done.criu),
        "took_us": microseconds(done.took),
        "stopped": done.stopped,
        "precopy": done.precopied.as_deref().map(precopy_as_json),
    })
}

fn precopy_as_json(copied: &Copied) -> serde_json::Value {
    let rounds = copied.rounds.iter().map(|round| {
        serde_json::json!({
            "size_bytes": round.written,
            "frozen_us": microseconds(round.frozen),
            "took_us": microseconds(round.took),
        })
    });
    serde_json::json!({
        "rounds": rounds.collect::<Vec<_>>(),
        "copied_bytes_per_second": copied.forecast.rate,
        "changed_bytes_per_second": copied.forecast.changing,
        "left_bytes": copied.forecast.left,
        "expected_downtime_us": microseconds(copied.forecast.downtime),
        "ended_because": copied.why,
    })
}

/// What was copied while it ran, on a line of its own.
fn precopy_in_words(copied: &Copied) -> String {
    let rounds = copied.rounds.len();
    format!(
        "copied while it ran: {} in {rounds} round{} and {} (longest pause {}); {}; {}",
        bytes(copied.bytes()),
        if rounds == 1 { "" } else { "s" },
        seconds(copied.took()),
        seconds(copied.longest_pause()),
        copied.forecast,
        copied.why
    )
}

fn in_words(done: &Done) -> String {
    let cleanup = match done.stopped {
        true => format!(", LXC clean-up {}", seconds(done.cleanup)),
        false => String::new(),
    };
    let frozen = done.frozen.map(|time| format!("frozen {}, ", seconds(time))).unwrap_or_default();
    let rehearsed = match &done.rehearsal {
        Some(rehearsed) => format!(", rehearsed in {} ms", rehearsed.took.as_millis()),
        None => String::new(),
    };
    format!(
        "{} in {} ({}: {frozen}CRIU {}{rehearsed}{cleanup}); the container {}",
        bytes(done.size),
        done.images.display(),
        seconds(done.took),
        seconds(done.criu),
        if done.stopped { "is stopped" } else { "goes on" },
    )
}

/// The states that a user accepts, all of which are states.
pub(super) fn accepted(names: &[String]) -> Result<Vec<String>> {
    match names.iter().find(|name| state::by_name(name).is_none()) {
        None => Ok(names.to_vec()),
        Some(unknown) => {
            Err(Failure::msg(Exit::Usage, format!("there is no state '{unknown}' to be accepted"))
                .hint("a rehearsal names the states that come back different"))
        }
    }
}
