//! `lxc-cr verify`: checkpoints at rest are read from the disk and compared with their checksums.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::chosen::Chosen;
use crate::cli::common::{LxcOptions, hidden, print_error_line, print_json, print_line, start_log};
use crate::cli::progress::Progress;
use crate::error::{Exit, Failure, Result};
use crate::report::{Report, bytes, moment};
use crate::rollback::lock;
use crate::store::history::{self, History};
use crate::store::list::{Entry, State};
use crate::store::scrub::{Content, Flaw, Scrub};

/// Between two updates of the terminal.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Read checkpoints from the disk and compare them with their checksums
///
/// All checkpoints of the container are verified, or the one in DIR and those below it. lxc-cr list
/// shows when each was last found whole. What is damaged is named, the rest is verified all the
/// same, and the exit status is 9. Checkpoints that LXC's own tool wrote have no checksums: they
/// are skipped.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "lxc-cr verify [OPTIONS] {NAME|DIR|--all}")]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", |arg| arg.value_name("NAME|DIR").help(
    "Name of the container, or a directory: a checkpoint, or one in which checkpoints lie")))]
pub(super) struct Verify {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Verify the checkpoints of all containers
    #[arg(long, conflicts_with_all = ["name", "positional"])]
    all: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How it went with one checkpoint.
#[derive(Debug, Serialize)]
struct Outcome {
    directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    size_bytes: u64,
    took_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Every image is what was written.
    Whole,
    /// One is not.
    Damaged,
    /// There is nothing to compare it with, or it is being written.
    Skipped,
}

impl Verify {
    /// Does it; says of each how it went.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        if !self.all && self.lxc.called().is_none() {
            let hint = "name a container or a directory, or say --all";
            return Err(Failure::msg(Exit::Usage, "no checkpoint is named").hint(hint));
        }
        let lxcpath = self.lxc.all_containers()?;
        let found = Chosen::of(&self.lxc)?.find(&lxcpath)?;
        if found.is_empty() && !self.all {
            let called = self.lxc.called().unwrap_or_default();
            return Err(Failure::msg(
                Exit::WrongState,
                format!("there is no checkpoint of or in {called}"),
            )
            .hint("lxc-cr list shows which checkpoints there are"));
        }
        let mut progress = Progress::new(self.lxc.quiet, false);
        let (mut scrub, mut outcomes) = (Scrub::default(), Vec::new());
        let count = found.len();
        for (index, entry) in found.iter().enumerate() {
            let which =
                if count > 1 { format!(" ({} of {count})", index + 1) } else { String::new() };
            let outcome = one(entry, &mut scrub, &which, &mut progress);
            progress.clear();
            if !self.json {
                self.tell(&outcome);
            }
            outcomes.push(outcome);
        }
        if self.json {
            let text =
                serde_json::json!({ "version": 1, "changed": false, "checkpoints": outcomes });
            print_json(&text)?;
        }
        let any = |verdict| outcomes.iter().any(|outcome| outcome.result == verdict);
        let exit = match (any(Verdict::Damaged), any(Verdict::Whole) || self.all) {
            (true, _) => Exit::BadCheckpoint,
            (false, true) => Exit::Done,
            // Not one of those that are named was verified.
            (false, false) => Exit::Refused,
        };
        Ok(ExitCode::from(exit.code()))
    }

    fn tell(&self, outcome: &Outcome) {
        let name = outcome.container.as_deref().unwrap_or("-");
        let text = format!("{name}: {}", in_words(outcome));
        match outcome.result {
            Verdict::Whole if self.lxc.quiet => {}
            Verdict::Whole => print_line(&text),
            Verdict::Skipped => print_error_line(&text),
            Verdict::Damaged => {
                print_error_line(&text);
                print_error_line(
                    "hint: restore another checkpoint; or copy this one again from a backup",
                );
            }
        }
    }
}

fn in_words(outcome: &Outcome) -> String {
    let reason = outcome.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let dir = &outcome.directory;
    match outcome.result {
        Verdict::Damaged => format!("{dir} is damaged{reason}"),
        Verdict::Skipped => format!("{dir} was not verified{reason}"),
        Verdict::Whole => {
            let took = Duration::from_micros(outcome.took_us);
            format!(
                "{dir} is whole{reason} ({} in {})",
                bytes(outcome.size_bytes),
                crate::report::seconds(took)
            )
        }
    }
}

/// Verifies one checkpoint. No command may write to it meanwhile.
fn one(entry: &Entry, scrub: &mut Scrub, which: &str, progress: &mut Progress) -> Outcome {
    let begin = Instant::now();
    let dir = &entry.directory;
    let (result, reason, size) = match entry.state {
        State::Partial | State::NotMounted | State::NoAnswer => {
            (Verdict::Skipped, Some(entry.state.as_str().to_owned()), entry.size)
        }
        _ => match lock::hold_images(dir, Duration::ZERO) {
            Err(busy) => (Verdict::Skipped, Some(busy.to_string()), entry.size),
            Ok(_held) => {
                let read = read(dir, scrub, which, progress);
                let noted = read.as_ref().ok().filter(|content| content.without_checksum == 0);
                let noted = noted.and_then(|_| note(dir).err());
                let (result, reason) = judged(&read);
                (result, reason.or(noted), read.map_or(entry.size, |content| content.bytes))
            }
        },
    };
    Outcome {
        directory: dir.display().to_string(),
        container: entry.container.clone(),
        result,
        reason,
        size_bytes: size,
        took_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
    }
}

fn judged(read: &std::result::Result<Content, Flaw>) -> (Verdict, Option<String>) {
    match read {
        Err(Flaw::NoRecord) => (Verdict::Skipped, Some(Flaw::NoRecord.to_string())),
        Err(damage) => (Verdict::Damaged, Some(damage.to_string())),
        Ok(Content { without_checksum: 0, .. }) => (Verdict::Whole, None),
        Ok(content) => {
            let text = format!(
                "{} of {} images have no checksum",
                content.without_checksum, content.images
            );
            (Verdict::Skipped, Some(text))
        }
    }
}

fn read(
    dir: &Path,
    scrub: &mut Scrub,
    which: &str,
    progress: &mut Progress,
) -> std::result::Result<Content, Flaw> {
    progress.phase(&format!("verifying {}{which}", dir.display()));
    progress.total(scrub.amount(dir));
    let (mut done, mut shown_at) = (0u64, Instant::now());
    scrub.verify(dir, &mut |length| {
        done = done.saturating_add(length);
        if shown_at.elapsed() >= SHOW_EVERY {
            shown_at = Instant::now();
            progress.amount(done);
        }
    })
}

/// Keeps the time; says why it could not be kept.
fn note(dir: &Path) -> std::result::Result<(), String> {
    let now = history::now();
    History::change(dir, |history| history.verified = Some(now)).map_err(|e| {
        log::debug!("verified at {}, which is not kept: {e:#}", moment(now));
        format!("the time is not kept ({e:#})")
    })
}
