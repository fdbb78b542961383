//! The story of one container: start, first halves, checkpoint, restart, second halves.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Guest, Kind, Outcome, Row, Tool};
use crate::harness::World;
use crate::harness::installed::Installed;
use crate::harness::leak::Snapshot;
use crate::harness::run::Output;

/// The exit code of our preflight.
const REFUSED: i32 = 4;

/// What CRIU says wherever root has no CAP_SYS_RESOURCE, and goes on.
const HARMLESS: &str = "Can't setup RLIMIT_NOFILE";

/// How each of the rows came out in one container of that kind.
pub fn run(world: &World, installed: &Installed, kind: Kind, rows: &[Row], tool: Tool) -> Vec<Outcome> {
    let images = world.images(&format!("{tool:?}").to_lowercase());
    // A root is made only once.
    drop(Guest::make(world, installed, kind, rows, tool));
    let before = Snapshot::take().without(world.lxcpath());
    let told = caught(|| {
        let guest = Guest::make(world, installed, kind, rows, tool);
        let outcomes = caught(|| try_run(&guest, &images, tool));
        keep_logs(world, kind, rows, tool, &images, &guest.dump_dir());
        guest.kill();
        outcomes.unwrap_or_else(|why| rows.iter().map(|_| Outcome::Failed(why.clone())).collect())
    });
    let mut outcomes = told.unwrap_or_else(|why| rows.iter().map(|_| Outcome::Failed(why.clone())).collect());
    fs::remove_dir_all(&images).unwrap();
    let left = before.differences_without(world.lxcpath());
    // What LXC's tool leaves is its own affair.
    if let (Tool::Ours, Err(left)) = (tool, left) {
        outcomes = rows.iter().map(|_| Outcome::Failed(format!("not as before: {left}"))).collect();
    }
    outcomes
}

fn try_run(guest: &Guest<'_>, images: &Path, tool: Tool) -> Vec<Outcome> {
    guest.start();
    let halves: Vec<_> = guest.places().into_iter().map(|(row, place)| caught(move || (row.client)(&place))).collect();
    if let Err(outcome) = turn(guest, images, tool) {
        return halves.iter().map(|_| outcome.clone()).collect();
    }
    let finished = halves.into_iter().map(|half| match half {
        Ok(finish) => caught(finish).map_or_else(Outcome::Failed, |()| Outcome::Good),
        Err(why) => Outcome::Failed(format!("before the checkpoint: {why}")),
    });
    finished.collect()
}

/// Checkpoint and restart.
fn turn(guest: &Guest<'_>, images: &Path, tool: Tool) -> Result<(), Outcome> {
    match tool {
        Tool::Ours => {
            let told = guest.ours("lxc-checkpoint");
            if told.in_time && told.status.code() == Some(REFUSED) {
                return Err(Outcome::Refused(words(&told)));
            }
            succeeded("lxc-checkpoint", &told, &guest.dump_dir())?;
            succeeded("lxc-restart", &guest.ours("lxc-restart"), &guest.dump_dir())
        }
        Tool::Lxcs => {
            let told = guest.stock("-s", images);
            succeeded("dump", &told, images)?;
            guest.wait_state("STOPPED");
            succeeded("restore", &guest.stock("-r", images), images)?;
            guest.wait_state("RUNNING");
            Ok(())
        }
    }
}

fn succeeded(what: &str, told: &Output, images: &Path) -> Result<(), Outcome> {
    if told.success() {
        return Ok(());
    }
    eprintln!("{told}");
    let why = last_error(images).unwrap_or_else(|| words(told));
    let end = if told.in_time { "" } else { "killed by the time limit: " };
    Err(Outcome::Failed(format!("{what}: {end}{why}")))
}

/// The last error that CRIU has written into a log.
fn last_error(images: &Path) -> Option<String> {
    let mut logs: Vec<_> = fs::read_dir(images).ok()?.flatten().map(|e| e.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let text = String::from_utf8_lossy(&fs::read(logs.last()?).ok()?).into_owned();
    // The first one is the cause, what follows is what it leads to.
    let line = text.lines().find(|line| line.contains("Error (") && !line.contains(HARMLESS))?;
    line.split_once("): ").map(|(_, why)| why.to_owned())
}

/// What a command says is wrong: its first blocker, or its first line.
fn words(told: &Output) -> String {
    let all = || told.stderr.lines().chain(told.stdout.lines());
    let blocker = all().find(|l| l.contains("blocker: ")).or_else(|| all().skip_while(|l| !l.ends_with(':')).nth(1));
    let line = blocker.or_else(|| all().find(|l| !l.trim().is_empty())).unwrap_or("it says nothing");
    let line = line.trim().trim_start_matches("lxc-checkpoint: ").trim_start_matches("lxc-restart: ");
    line.split_once(": it cannot be checkpointed: ").map_or(line, |(_, why)| why).to_owned()
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

/// Beside the logs of other trials, for whoever wants to know more.
fn keep_logs(world: &World, kind: Kind, rows: &[Row], tool: Tool, images: &Path, dump: &Path) {
    let row = if let [row] = rows { row.name } else { "all" };
    let to = world.logs().join(format!("{kind:?}-{tool:?}-{}", row.replace(['/', ' '], "-")));
    for dir in [images, dump, &dump.with_file_name("dump.partial"), dump.parent().unwrap_or(dump)] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let _ = fs::create_dir_all(&to).and_then(|()| fs::copy(entry.path(), to.join(entry.file_name())));
            }
        }
    }
}
