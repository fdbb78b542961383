//! What we say of our work: on standard error or in a file what a person has asked for; and in
//! systemd's journal what is worth keeping, under the name of the container (`journalctl
//! CONTAINER_NAME=web`).
//!
//! The journal gets what any part of this program logs, from INFO on, and what is passed to
//! [`keep`]: how a command has ended. A file (`-o`) gets what is logged at the level that was asked
//! for, what is kept, and the [`step`]s of the work, each on a line with its time, the program and
//! the container.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use env_logger::Logger;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::lxc::name::{ContainerName, LxcPath};
use crate::report::shown;
use crate::store::calendar::Calendar;
use crate::store::history;
use crate::sys::systemd_journal::{Journal, Priority};

/// How a restored container's monitor calls itself there; its title names the container.
const MONITOR: &str = "lxc-monitor";
/// What is logged by others than us is not kept.
const OURS: &str = "lxc_cr";

/// The container that this process is about, and where it is defined.
static ABOUT: OnceLock<(String, String)> = OnceLock::new();
static KEPT: OnceLock<Kept> = OnceLock::new();
static FILE: OnceLock<LogFile> = OnceLock::new();

/// Where a log is shown, and from which level on.
pub(super) enum Shown {
    /// On standard error.
    Here(env_logger::Builder),
    /// In a file, a line at a time.
    In(File, LevelFilter),
}

/// The file of `-o`.
#[derive(Debug)]
struct LogFile {
    file: File,
    level: LevelFilter,
    calendar: Calendar,
    program: String,
}

impl LogFile {
    fn add(&self, container: Option<&str>, level: &str, text: &str) {
        let time = self.calendar.rfc3339(history::now());
        let program = &self.program;
        let container = container.map(|name| format!("[{name}]")).unwrap_or_default();
        let line = format!("{time} {program}{container} {level}: {}\n", shown(text));
        // A full disk keeps no container from being checkpointed.
        let _ = (&self.file).write_all(line.as_bytes());
    }
}

/// The journal, and who speaks.
#[derive(Debug)]
struct Kept {
    journal: Journal,
    identifier: String,
}

/// Says which container this process is about. The first word counts.
pub(super) fn about(name: &ContainerName, lxcpath: &LxcPath) {
    ABOUT.get_or_init(|| (name.to_string(), lxcpath.to_string()));
}

/// Begins to log. A second start in one process (tests) keeps the first.
pub(super) fn start(shown: Shown) {
    let identifier =
        if super::monitor_title::is_meant() { Some(MONITOR.to_owned()) } else { own_name() };
    match Journal::of_system() {
        // Only root may say something about containers.
        Ok(journal) if crate::sys::process::is_root() => {
            let identifier = identifier.clone().unwrap_or_else(|| OURS.to_owned());
            KEPT.get_or_init(|| Kept { journal, identifier });
        }
        Ok(_) => {}
        Err(e) => log::debug!("the journal: {e}"),
    }
    let (level, here) = match shown {
        Shown::Here(mut builder) => {
            let here = builder.build();
            (here.filter(), Some(here))
        }
        Shown::In(file, level) => {
            let program = identifier.unwrap_or_else(|| OURS.to_owned());
            FILE.get_or_init(|| LogFile { file, level, calendar: Calendar::of_host(), program });
            (level, None)
        }
    };
    if log::set_boxed_logger(Box::new(All { here })).is_ok() {
        log::set_max_level(level.max(LevelFilter::Info));
        crate::sys::clean_start::failures().iter().for_each(|failure| log::info!("{failure}"));
    }
}

/// The name by which we were called.
fn own_name() -> Option<String> {
    let path = std::env::args_os().next()?;
    Path::new(&path).file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Keeps a line in the journal and in the file, and shows it to nobody else.
pub(super) fn keep(priority: Priority, text: &str) {
    match ABOUT.get() {
        Some((name, lxcpath)) => keep_about(name, lxcpath, priority, text),
        None => {
            if let Some(file) = FILE.get() {
                file.add(None, priority.as_str(), text);
            }
            send(priority, text, &[]);
        }
    }
}

/// Whether what is said goes to a file.
pub(super) fn is_in_file() -> bool {
    FILE.get().is_some()
}

/// A step of the work has begun: that is in the file alone.
pub(super) fn step(text: &str) {
    if let Some(file) = FILE.get() {
        file.add(ABOUT.get().map(|(name, _)| name.as_str()), "step", text);
    }
}

/// The same of another container than the one that this process is about.
pub(super) fn keep_about(name: &str, lxcpath: &str, priority: Priority, text: &str) {
    if let Some(file) = FILE.get() {
        file.add(Some(name), priority.as_str(), text);
    }
    send_about(name, lxcpath, priority, text);
}

fn send_about(name: &str, lxcpath: &str, priority: Priority, text: &str) {
    send(priority, text, &[("CONTAINER_NAME", name), ("LXC_PATH", lxcpath)]);
}

fn send(priority: Priority, text: &str, more: &[(&str, &str)]) {
    let Some(kept) = KEPT.get() else { return };
    let priority = (priority as u8).to_string();
    let mut fields =
        vec![("MESSAGE", text), ("PRIORITY", &priority), ("SYSLOG_IDENTIFIER", &kept.identifier)];
    fields.extend(more);
    // No journal listens, or it is busy: nothing depends on it.
    let _ = kept.journal.send(&fields);
}

/// The log that a person sees, here or in a file, and the journal.
struct All {
    here: Option<Logger>,
}

impl Log for All {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let here = self.here.as_ref().is_some_and(|here| here.enabled(metadata));
        here || file_for(metadata).is_some() || is_kept(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // A line of the log, whatever names it quotes.
        let text = shown(&record.args().to_string());
        let (level, target) = (record.level(), record.target());
        if let Some(here) = self.here.as_ref().filter(|here| here.matches(record)) {
            here.log(
                &Record::builder().level(level).target(target).args(format_args!("{text}")).build(),
            );
        }
        let about = ABOUT.get();
        if let Some(file) = file_for(record.metadata()) {
            let level = level.as_str().to_ascii_lowercase();
            file.add(about.map(|(name, _)| name.as_str()), &level, &text);
        }
        if is_kept(record.metadata()) {
            let priority = match level {
                Level::Error => Priority::Error,
                Level::Warn => Priority::Warning,
                Level::Info => Priority::Info,
                Level::Debug | Level::Trace => Priority::Debug,
            };
            match about {
                Some((name, lxcpath)) => send_about(name, lxcpath, priority, &text),
                None => send(priority, &text, &[]),
            }
        }
    }

    fn flush(&self) {
        if let Some(here) = &self.here {
            here.flush();
        }
    }
}

/// The file, where it gets this. Libraries are only asked at TRACE.
fn file_for(metadata: &Metadata<'_>) -> Option<&'static LogFile> {
    let is_ours = metadata.target().starts_with(OURS);
    FILE.get().filter(|file| {
        metadata.level() <= file.level && (is_ours || file.level == LevelFilter::Trace)
    })
}

fn is_kept(metadata: &Metadata<'_>) -> bool {
    metadata.level() <= Level::Info && metadata.target().starts_with(OURS)
}
