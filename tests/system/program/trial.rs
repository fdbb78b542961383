//! What is done with servers: started, suspended, brought back, looked at; at once, after a while,
//! and a second time.

use std::thread::sleep;
use std::time::Duration;

use super::client::Held;
use super::server::{Journal, LogFiles, Unit};
use super::{Guest, Outcome, Program};
use crate::harness::run::{Output, wait_for};

/// For a unit to be active.
const START_LIMIT: Duration = Duration::from_secs(90);
/// What goes wrong a moment later has done so by then.
const LATER: Duration = Duration::from_secs(10);

/// How thoroughly it is looked.
#[derive(Clone, Copy, Debug)]
pub struct Care {
    pub cycles: usize,
    /// Whether it is looked again after a while.
    pub later: bool,
}

/// What came of servers that were tried together.
enum Verdict {
    /// Of each by itself.
    Each(Vec<Outcome>),
    /// Of all of them, whoever it was.
    All(Outcome),
}

/// Tries servers that run beside each other. What comes of all of them is tried again with those
/// that it may be, until it is known whose it is.
pub fn run(guest: &Guest<'_>, batch: &[Program], care: Care) -> Vec<Outcome> {
    let outcome = match attempt(guest, batch, care) {
        Verdict::Each(outcomes) => return outcomes,
        Verdict::All(outcome) => outcome,
    };
    if let [_] = batch {
        return vec![outcome];
    }
    let is_named = |program: &Program| outcome.remark().contains(program.unit);
    let (one, other): (Vec<Program>, Vec<Program>) = match &outcome {
        Outcome::Refused(_) if batch.iter().any(is_named) => {
            batch.iter().cloned().partition(is_named)
        }
        _ => (batch[..batch.len() / 2].to_vec(), batch[batch.len() / 2..].to_vec()),
    };
    let mut known: Vec<(&str, Outcome)> = Vec::new();
    for part in [other, one] {
        let outcomes = if part.is_empty() {
            Vec::new()
        } else if part.len() == batch.len() {
            // All were named: each by itself.
            part.iter()
                .flat_map(|program| run(guest, std::slice::from_ref(program), care))
                .collect()
        } else {
            run(guest, &part, care)
        };
        known.extend(part.iter().map(|p| p.name).zip(outcomes));
    }
    batch
        .iter()
        .map(|p| known.iter().find(|(name, _)| *name == p.name).unwrap().1.clone())
        .collect()
}

/// A server that runs, and how it did before.
struct Started {
    at: usize,
    unit: Unit,
    journal: Journal,
    held: Held,
}

fn attempt(guest: &Guest<'_>, batch: &[Program], care: Care) -> Verdict {
    if !guest.runs() {
        guest.start();
    }
    let mut outcomes: Vec<Outcome> = vec![Outcome::Works; batch.len()];
    let units = || batch.iter().map(|program| program.unit);
    guest.exec(["systemctl", "reset-failed"].into_iter().chain(units()));
    guest.exec(["systemctl", "start", "--no-block"].into_iter().chain(units()));
    let mut started = Vec::new();
    for (at, program) in batch.iter().enumerate() {
        match start(guest, program, at) {
            Ok(server) => started.push(server),
            Err(why) => outcomes[at] = Outcome::NotStarted(why),
        }
    }
    started.retain(|server: &Started| match server.held.hold(guest, &batch[server.at]) {
        Ok(()) => true,
        Err(why) => {
            outcomes[server.at] = Outcome::NotStarted(why);
            false
        }
    });
    // What it logs of its first client is there before.
    sleep(Duration::from_secs(1));
    started.iter_mut().for_each(|s| s.journal = Journal::read(guest, &batch[s.at]));
    let mut verdict = Verdict::Each(Vec::new());
    if !started.is_empty() {
        verdict = cycles(guest, batch, &mut started, care);
    }
    if guest.runs() {
        started.iter().for_each(|server| server.held.end(guest));
        let units = batch.iter().map(|program| program.unit);
        guest.exec(["systemctl", "stop"].into_iter().chain(units));
    }
    match verdict {
        Verdict::Each(of_started) => {
            for (server, outcome) in started.iter().zip(of_started) {
                outcomes[server.at] = outcome;
            }
            Verdict::Each(outcomes)
        }
        // The next begin afresh.
        all => {
            if !matches!(all, Verdict::All(Outcome::Refused(_))) {
                guest.kill();
            }
            all
        }
    }
}

fn start(guest: &Guest<'_>, program: &Program, at: usize) -> Result<Started, String> {
    let mut unit = Unit::look(guest, program);
    wait_for("it to be active", START_LIMIT, || {
        unit = Unit::look(guest, program);
        (!unit.words().contains("ActiveState=activating")
            && !unit.words().contains("ActiveState=inactive"))
        .then_some(())
    })
    .map_err(|e| format!("{e}: {}", unit.words()))?;
    if !unit.is_active() {
        let log = guest
            .exec([
                "journalctl",
                "-b",
                "-q",
                "--no-pager",
                "-o",
                "cat",
                "-n",
                "4",
                "-u",
                program.unit,
            ])
            .stdout;
        return Err(log.trim().replace('\n', "; "));
    }
    let held = Held::wait_served(guest, program)?;
    // A main process of a forking unit may be found late.
    Ok(Started {
        at,
        unit: Unit::look(guest, program),
        journal: Journal::read(guest, program),
        held,
    })
}

fn cycles(guest: &Guest<'_>, batch: &[Program], started: &mut [Started], care: Care) -> Verdict {
    let mut wrong: Vec<Vec<String>> = vec![Vec::new(); started.len()];
    let mut warned = String::new();
    for cycle in 0..care.cycles {
        let files = LogFiles::look(guest);
        let suspended = guest.suspend();
        if !suspended.success() {
            return Verdict::All(of_a_failed_checkpoint(guest, &suspended));
        }
        warned += &suspended.stderr;
        let restarted = guest.restart();
        if !restarted.success() {
            return Verdict::All(Outcome::Lost(words(&restarted)));
        }
        look(guest, batch, started, &mut wrong);
        if care.later && cycle == 0 {
            sleep(LATER);
            look(guest, batch, started, &mut wrong);
        }
        for line in files.complaints(guest) {
            // Whose file it is: by its name, or it is everybody's.
            let is_of = |server: &&Started| batch[server.at].owns_log(&line);
            let of: Vec<usize> = started.iter().filter(is_of).map(|s| s.at).collect();
            for (server, told) in started.iter().zip(&mut wrong) {
                if of.is_empty() || of.contains(&server.at) {
                    told.push(line.clone());
                }
            }
        }
    }
    let outcome = |(mut told, server): (Vec<String>, &Started)| {
        told.dedup();
        match told.join("; ") {
            text if text.is_empty() => Outcome::Works,
            text if warned.contains(batch[server.at].unit) => Outcome::Warned(text),
            text => Outcome::Different(text),
        }
    };
    Verdict::Each(wrong.into_iter().zip(started.iter()).map(outcome).collect())
}

/// Compares each with what it was; one that was different once is not looked at again.
fn look(guest: &Guest<'_>, batch: &[Program], started: &mut [Started], wrong: &mut [Vec<String>]) {
    for (server, found) in started.iter_mut().zip(wrong).filter(|(_, found)| found.is_empty()) {
        let program = &batch[server.at];
        let unit = Unit::look(guest, program);
        if unit != server.unit {
            found.push(format!("{} became {}", server.unit.words(), unit.words()));
        }
        found.extend(server.held.go_on(guest, program).err());
        found.extend(Journal::read(guest, program).new_since(&server.journal));
    }
}

fn of_a_failed_checkpoint(guest: &Guest<'_>, told: &Output) -> Outcome {
    match (told.in_time.then(|| told.status.code()).flatten(), guest.runs()) {
        (Some(4), true) => Outcome::Refused(words(told)),
        (_, true) => Outcome::Failed(words(told)),
        (_, false) => Outcome::Lost(words(told)),
    }
}

/// What a command has said, on one line.
fn words(told: &Output) -> String {
    let said = told
        .stderr
        .replace("lxc-checkpoint: ", "")
        .replace("lxc-restart: ", "")
        .replace("programs: ", "");
    said.lines().map(str::trim).filter(|l| !l.starts_with("log:")).collect::<Vec<_>>().join("; ")
}
