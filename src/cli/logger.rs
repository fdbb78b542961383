//! What we say of our work: on standard error or in a file what a person has asked for; and in
//! systemd's journal what is worth keeping, under the name of the container (`journalctl
//! CONTAINER_NAME=web`).
//!
//! The journal gets what any part of this program logs, from INFO on, and what is passed
//! to [`keep`]: how a command has ended.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use env_logger::Logger;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::lxc::name::{ContainerName, LxcPath};
use crate::report::shown;
use crate::sys::systemd_journal::{Journal, Priority};

/// How a restored container's monitor calls itself there; its title names the container.
const MONITOR: &str = "lxc-monitor";
/// What is logged by others than us is not kept.
const OURS: &str = "lxc_cr";

/// The container that this process is about, and where it is defined.
static ABOUT: OnceLock<(String, String)> = OnceLock::new();
static KEPT: OnceLock<Kept> = OnceLock::new();

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
pub(super) fn start(mut shown: env_logger::Builder) {
    let identifier =
        if super::monitor_title::is_meant() { Some(MONITOR.to_owned()) } else { own_name() };
    match Journal::of_system() {
        // Only root may say something about containers.
        Ok(journal) if crate::sys::process::is_root() => {
            KEPT.get_or_init(|| Kept {
                journal,
                identifier: identifier.unwrap_or_else(|| OURS.to_owned()),
            });
        }
        Ok(_) => {}
        Err(e) => log::debug!("the journal: {e}"),
    }
    let shown = shown.build();
    let level = shown.filter().max(LevelFilter::Info);
    if log::set_boxed_logger(Box::new(Both { shown })).is_ok() {
        log::set_max_level(level);
        crate::sys::clean_start::failures().iter().for_each(|failure| log::info!("{failure}"));
    }
}

/// The name by which we were called.
fn own_name() -> Option<String> {
    let path = std::env::args_os().next()?;
    Path::new(&path).file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Keeps a line in the journal, and shows it to nobody else.
pub(super) fn keep(priority: Priority, text: &str) {
    match ABOUT.get() {
        Some((name, lxcpath)) => keep_about(name, lxcpath, priority, text),
        None => send(priority, text, &[]),
    }
}

/// The same of another container than the one that this process is about.
pub(super) fn keep_about(name: &str, lxcpath: &str, priority: Priority, text: &str) {
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

/// The log that a person sees, and the journal.
struct Both {
    shown: Logger,
}

impl Log for Both {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shown.enabled(metadata) || is_kept(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.shown.matches(record) {
            // A line of the log, whatever names it quotes.
            let text = shown(&record.args().to_string());
            let (level, target) = (record.level(), record.target());
            self.shown.log(
                &Record::builder().level(level).target(target).args(format_args!("{text}")).build(),
            );
        }
        if is_kept(record.metadata()) {
            let priority = match record.level() {
                Level::Error => Priority::Error,
                Level::Warn => Priority::Warning,
                Level::Info => Priority::Info,
                Level::Debug | Level::Trace => Priority::Debug,
            };
            keep(priority, &shown(&record.args().to_string()));
        }
    }

    fn flush(&self) {
        self.shown.flush();
    }
}

fn is_kept(metadata: &Metadata<'_>) -> bool {
    metadata.level() <= Level::Info && metadata.target().starts_with(OURS)
}
