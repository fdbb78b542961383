//! The story of one container: start, first halves, checkpoint, restart, second halves.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use lxc_cr::api::criu::log::Operation;

use super::{Guest, Kind, Outcome, Row, Tool, told};
use crate::harness::World;
use crate::harness::installed::Installed;
use crate::harness::leak::Snapshot;
use crate::harness::run::Output;

/// The exit code of our preflight.
const REFUSED: i32 = 4;

/// How each of the rows came out in one container of that kind.
pub fn run(
    world: &World,
    installed: &Installed,
    kind: Kind,
    rows: &[Row],
    tool: Tool,
) -> Vec<Outcome> {
    let images = world.images(&format!("{tool:?}").to_lowercase());
    // A root is made only once.
    drop(Guest::make(world, installed, kind, rows, tool));
    let before = Snapshot::take().without(world.lxcpath());
    let told = caught(|| {
        let guest = Guest::make(world, installed, kind, rows, tool);
        let outcomes = caught(|| try_run(&guest, &images, tool));
        keep_logs(world, kind, rows, tool, &images, &guest);
        guest.kill();
        outcomes.unwrap_or_else(|why| rows.iter().map(|_| Outcome::Failed(why.clone())).collect())
    });
    let mut outcomes =
        told.unwrap_or_else(|why| rows.iter().map(|_| Outcome::Failed(why.clone())).collect());
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
    // A guest that boots starts its programs in its own order and time.
    let halves = side_by_side(guest.places(), |(row, place)| (row.client)(&place));
    if let Err(outcome) = turn(guest, images, tool) {
        return halves.iter().map(|_| outcome.clone()).collect();
    }
    let finished = side_by_side(halves, |half| match half {
        Ok(finish) => caught(finish).map_or_else(Outcome::Failed, |()| Outcome::Good),
        Err(why) => Outcome::Failed(format!("before the checkpoint: {why}")),
    });
    finished.into_iter().map(|outcome| outcome.unwrap_or_else(Outcome::Failed)).collect()
}

/// Does all of it at the same time: no client waits until another one has.
fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<Result<R, String>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || caught(|| work(item)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Checkpoint and restart.
fn turn(guest: &Guest<'_>, images: &Path, tool: Tool) -> Result<(), Outcome> {
    match tool {
        Tool::Ours => {
            let told = guest.ours("lxc-checkpoint");
            if told.in_time && told.status.code() == Some(REFUSED) {
                return Err(Outcome::Refused(told::blockers(&told)));
            }
            succeeded("lxc-checkpoint", &told, told::failure)?;
            succeeded("lxc-restart", &guest.ours("lxc-restart"), told::failure)?;
        }
        Tool::Lxcs => {
            let why = |operation| {
                move |told: &_| {
                    told::criu_error(images, operation).unwrap_or_else(|| told::failure(told))
                }
            };
            succeeded("dump", &guest.stock("-s", images), why(Operation::Dump))?;
            guest.wait_state("STOPPED");
            succeeded("restore", &guest.stock("-r", images), why(Operation::Restore))?;
            guest.wait_state("RUNNING");
        }
    }
    Ok(())
}

fn succeeded(what: &str, told: &Output, why: impl Fn(&Output) -> String) -> Result<(), Outcome> {
    if told.success() {
        return Ok(());
    }
    eprintln!("{told}");
    let end = if told.in_time { "" } else { "killed by the time limit: " };
    Err(Outcome::Failed(format!("{what}: {end}{}", why(told))))
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

/// Beside the logs of other trials, for whoever wants to know more.
fn keep_logs(
    world: &World,
    kind: Kind,
    rows: &[Row],
    tool: Tool,
    images: &Path,
    guest: &Guest<'_>,
) {
    let row = if let [row] = rows { row.name } else { "all" };
    let to = world.logs().join(format!("{kind:?}-{tool:?}-{}", row.replace(['/', ' '], "-")));
    let dump = guest.dump_dir();
    for dir in [
        images,
        &dump,
        &dump.with_file_name("dump.partial"),
        dump.parent().unwrap_or(&dump),
        &guest.logs(),
    ] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let _ = fs::create_dir_all(&to)
                    .and_then(|()| fs::copy(entry.path(), to.join(entry.file_name())));
            }
        }
    }
}
