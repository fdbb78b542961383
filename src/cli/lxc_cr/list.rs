//! `lxc-cr list`: which checkpoints there are, and what each is good for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::chosen::Chosen;
use crate::cli::common::{LxcOptions, absolute, hidden, print, print_json, start_log};
use crate::cli::table::{Column, Table, terminal_width};
use crate::error::{Exit, OrExit, Result};
use crate::report::{ago, bytes};
use crate::rollback::lock;
use crate::store::calendar::Calendar;
use crate::store::list::Entry;
use crate::store::status::{self, Status};
use crate::store::{history, metrics};
use crate::sys::{files, path_trust};

/// List the checkpoints of one container, or of all
///
/// All are found that lie in a container's own directory, half-written ones too, and those that
/// were made elsewhere and are still there. With DIR those that lie there, as on a backup disk. The
/// state is that of a suspended container ("to be resumed" where lxc-cr resume brings it back at
/// boot); "restored", with the time; "stale" where the container was stopped by it and ran since;
/// "complete" where the container went on after it; "filling" while the memory of a container still
/// comes from there (lxc-restart --lazy). A narrow terminal sees fewer columns.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "lxc-cr list [OPTIONS] [NAME|DIR]")]
#[command(mut_arg("rcfile", hidden), mut_arg("positional", |arg| arg.value_name("NAME|DIR").help(
    "Name of the container, or a directory: a checkpoint, or one in which checkpoints lie")))]
pub(super) struct List {
    #[command(flatten)]
    pub lxc: LxcOptions,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Write metrics of each container's newest checkpoint to FILE, for Prometheus' textfile
    /// collector
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    prometheus: Option<PathBuf>,
}

/// The collector runs as another user.
const METRICS_MODE: u32 = 0o644;

/// A checkpoint as programs see it; docs/json.md has each field.
#[derive(Debug, Serialize)]
struct Row {
    directory: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lxcpath: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    state: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    to_be_resumed: bool,
    left_running: bool,
    size_bytes: u64,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<String>,
}

impl Row {
    fn of(entry: &Entry, status: Status, calendar: &Calendar) -> Row {
        let time = |seconds: u64| calendar.rfc3339(seconds);
        Row {
            directory: entry.directory.clone(),
            container: entry.container.clone(),
            lxcpath: entry.lxcpath.clone(),
            label: entry.label.clone(),
            state: status,
            damage: entry.damage.clone(),
            to_be_resumed: entry.to_be_resumed,
            left_running: entry.left_running,
            size_bytes: entry.size,
            created: time(entry.created),
            processes: entry.processes,
            frozen_us: entry.frozen_us,
            verified: entry.history.verified.map(time),
            restored: entry.history.restored.map(time),
        }
    }
}

impl List {
    /// Prints a line for each.
    pub(super) fn run(&self) -> Result<ExitCode> {
        start_log(self.lxc.level()?, self.lxc.logfile.as_deref())?;
        let lxcpath = self.lxc.all_containers()?;
        let found = Chosen::of(&self.lxc)?.find(&lxcpath)?;
        let status = status::of(&found);
        let calendar = Calendar::of_host();
        if let Some(path) = &self.prometheus {
            let path = absolute(path)?;
            path_trust::check_new(&path).context("write the metrics").or_exit(Exit::Refused)?;
            return files::replace(&path, metrics::of(&found, &status).as_bytes(), METRICS_MODE)
                .map(|()| ExitCode::SUCCESS)
                .or_exit(Exit::Other);
        }
        if self.json {
            let rows: Vec<Row> = found
                .iter()
                .zip(&status)
                .map(|(entry, status)| Row::of(entry, *status, &calendar))
                .collect();
            let text = serde_json::json!({ "version": 1, "changed": false, "checkpoints": rows });
            print_json(&text)?;
        } else {
            // Who may not read the containers' state sees none of it.
            let filling = |entry: &Entry| {
                lock::filling_from(&entry.directory).ok()?.map(|(_, percent)| percent)
            };
            let (now, width) = (history::now(), terminal_width());
            print(&in_words(&found, &status, &filling, &calendar, now, lxcpath.as_path(), width));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A table with a head, as `lxc-ls -f` prints it; nothing where there is nothing.
fn in_words(
    found: &[Entry],
    status: &[Status],
    filling: &dyn Fn(&Entry) -> Option<u8>,
    calendar: &Calendar,
    now: u64,
    lxcpath: &Path,
    width: Option<usize>,
) -> String {
    let none = || "-".to_owned();
    let since = |then: u64| ago(now.saturating_sub(then));
    let each = |cell: &dyn Fn(&Entry) -> String| found.iter().map(cell).collect::<Vec<_>>();
    let mut columns = vec![
        Column::new("CONTAINER", each(&|e| e.container.clone().unwrap_or_else(none))),
        Column::new("CREATED", each(&|e| calendar.minute(e.created))),
        Column::new("SIZE", each(&|e| bytes(e.size))).right().may_go(4),
        Column::new("FROZEN", each(&|e| e.frozen_us.map_or_else(none, frozen))).right().may_go(3),
        Column::new("PROCS", each(&|e| e.processes.map_or_else(none, |count| count.to_string())))
            .right()
            .may_go(1),
        Column::new("VERIFIED", each(&|e| e.history.verified.map_or_else(none, since))).may_go(2),
        Column::new(
            "STATE",
            found
                .iter()
                .zip(status)
                .map(|(e, status)| state(e, *status, filling(e), &since))
                .collect(),
        ),
    ];
    if found.iter().any(|entry| entry.label.is_some()) {
        columns.push(Column::new("LABEL", each(&|e| e.label.clone().unwrap_or_else(none))));
    }
    let full = each(&|e| e.directory.display().to_string());
    columns.push(Column::new("CHECKPOINT", full).or(each(&|e| short(e, lxcpath))));
    Table::new(columns).fit(width)
}

/// A time that processes stood still, as a person reads it.
fn frozen(us: u64) -> String {
    match us {
        0..1_000_000 => format!("{} ms", us.div_ceil(1000)),
        _ => format!("{:.1} s", std::time::Duration::from_micros(us).as_secs_f64()),
    }
}

fn state(
    entry: &Entry,
    status: Status,
    filling: Option<u8>,
    since: &dyn Fn(u64) -> String,
) -> String {
    if let Some(percent) = filling {
        return format!("filling {percent} %");
    }
    match (status, entry.history.restored) {
        (Status::Restored, Some(then)) => format!("restored {} ago", since(then)),
        _ => status.as_str().to_owned(),
    }
}

/// A directory in its container's own by the rest of its path, which `lxc-restart -D` takes; one of
/// the list by its name, which `--at` takes.
fn short(entry: &Entry, lxcpath: &Path) -> String {
    let own = entry.container.as_ref().map(|name| lxcpath.join(name));
    let inside = own.and_then(|own| entry.directory.strip_prefix(own).ok());
    let of_list = inside.and_then(|inside| inside.strip_prefix(crate::store::kept::DIR).ok());
    of_list.or(inside).unwrap_or(&entry.directory).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::History;
    use crate::store::list::State;

    #[test]
    fn a_table_fits_the_terminal() {
        // 2026-11-30T21:04:10Z
        let noon = 1_796_072_650;
        let entry = |name: &str, created: u64| Entry {
            directory: Path::new("/var/lib/lxc/web").join(name),
            created,
            ..Entry::sample()
        };
        let kept = Entry {
            left_running: true,
            history: History { verified: Some(noon), ..History::default() },
            ..entry("checkpoints/2026-11-30T20:04:10", noon - 3600)
        };
        let restored = Entry {
            history: History { restored: Some(noon), ..History::default() },
            frozen_us: Some(1_230_000),
            ..entry("before", noon - 7200)
        };
        let away = Entry {
            directory: "/mnt/backup/mail".into(),
            container: Some("mail".to_owned()),
            state: State::NotMounted,
            processes: None,
            frozen_us: None,
            ..Entry::sample()
        };
        let found = [restored, kept, entry("dump", noon), away];
        let status = [Status::Restored, Status::Complete, Status::ToBeResumed, Status::NotMounted];
        let table = |width| {
            let table = in_words(
                &found,
                &status,
                &|_| None,
                &Calendar::utc(),
                noon + 300,
                Path::new("/var/lib/lxc"),
                width,
            );
            assert!(
                table.lines().all(|line| line.chars().count() <= width.unwrap_or(usize::MAX)),
                "{table}"
            );
            table
        };
        insta::assert_snapshot!("list_80", table(Some(80)));
        insta::assert_snapshot!("list_160", table(Some(160)));
        assert_eq!(table(None), table(Some(160)));
        assert_eq!(in_words(&[], &[], &|_| None, &Calendar::utc(), 0, Path::new("/"), None), "");
    }

    #[test]
    fn a_label_has_a_column_where_there_is_one() {
        let found = [Entry { label: Some("good".to_owned()), ..Entry::sample() }];
        let table = in_words(
            &found,
            &[Status::Suspended],
            &|_| Some(40),
            &Calendar::utc(),
            1090,
            Path::new("/"),
            None,
        );
        assert!(
            table
                .lines()
                .next()
                .is_some_and(|head| head.contains("STATE         LABEL  CHECKPOINT")),
            "{table}"
        );
        assert!(table.contains("filling 40 %  good"), "{table}");
    }
}
