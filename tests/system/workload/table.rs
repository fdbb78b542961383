//! The table: rows, kinds, and in each cell what came of ours and of LXC's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use super::kind::KINDS;
use super::list::{IO_URING, ROWS, SEMAPHORE};
use super::{Kind, Outcome, Tool};

/// A refusal that is right: part of the preflight's words, where it may be, and who says that it
/// cannot be done.
pub struct Refusal {
    pub words: &'static str,
    pub of: fn(Kind, &str) -> bool,
    pub source: &'static str,
}

/// What cannot be done.
pub const REFUSALS: &[Refusal] = &[
    Refusal {
        words: "CAP_SYS_RESOURCE",
        of: |kind, _| !kind.is_unprivileged() && !has_sys_resource(),
        source: "the kernel: prlimit(2) of another user's process, by a root without that \
                 capability",
    },
    Refusal {
        words: "io_uring",
        of: |_, row| row == IO_URING,
        source: "CRIU 4.2: files.c has no io_uring among the files that it dumps",
    },
    Refusal {
        words: "an eventfd that is a semaphore",
        of: |_, row| row == SEMAPHORE,
        source: "CRIU 4.2: eventfd.c restores all of them without EFD_SEMAPHORE",
    },
    Refusal {
        words: "which is outside of the container",
        of: |kind, _| kind == Kind::Execute,
        source: "CRIU 4.2: files-reg.c looks for the mount of a program among those of the \
                 container",
    },
];

/// Whether this host's root has CAP_SYS_RESOURCE (linux/capability.h: 24).
fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 24 != 0
}

impl Refusal {
    /// That which a blocker is, if it may be there.
    fn of(blocker: &str, kind: Kind, row: &str) -> Option<&'static Refusal> {
        REFUSALS.iter().find(|r| blocker.contains(r.words) && (r.of)(kind, row))
    }
}

/// What came of each row in each kind: the numbers of both in their lists, and whether it is LXC's
/// tool's.
#[derive(Default)]
pub struct Table(BTreeMap<(usize, usize, bool), Outcome>);

/// A cell as it is kept between two runs of this program.
#[derive(Serialize, Deserialize)]
struct Kept {
    kind: String,
    row: String,
    tool: Tool,
    outcome: Outcome,
}

impl Table {
    /// What runs before have kept there; nothing, if there is no such file. Rows and kinds that are
    /// no more are left out.
    pub fn load(path: &Path) -> Table {
        let mut table = Table::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let kept: Kept = serde_json::from_str(line).unwrap();
            let row = ROWS.iter().find(|row| row.name == kept.row);
            let kind = KINDS.iter().find(|kind| kind.name() == kept.kind);
            if let (Some(row), Some(kind)) = (row, kind) {
                table.put(row.name, *kind, kept.tool, kept.outcome);
            }
        }
        table
    }

    pub fn save(&self, path: &Path) {
        let line = |((row, kind, is_lxcs), outcome): (&(usize, usize, bool), &Outcome)| {
            let (row, kind) = (ROWS[*row].name.to_owned(), KINDS[*kind].name().to_owned());
            let tool = if *is_lxcs { Tool::Lxcs } else { Tool::Ours };
            serde_json::to_string(&Kept { kind, row, tool, outcome: outcome.clone() }).unwrap()
                + "\n"
        };
        fs::write(path, self.0.iter().map(line).collect::<String>()).unwrap();
    }

    pub fn put(&mut self, row: &str, kind: Kind, tool: Tool, outcome: Outcome) {
        let row = ROWS.iter().position(|r| r.name == row).unwrap();
        let kind = KINDS.iter().position(|k| *k == kind).unwrap();
        self.0.insert((row, kind, tool == Tool::Lxcs), outcome);
    }

    /// What ours did not do, and must.
    pub fn wrong(&self) -> Vec<String> {
        let ours = self.0.iter().filter(|((_, _, is_lxcs), _)| !is_lxcs);
        let wrong = ours.filter(|((row, kind, _), outcome)| match outcome {
            Outcome::Good => false,
            Outcome::Failed(_) => true,
            Outcome::Refused(blockers) => {
                blockers.iter().any(|b| Refusal::of(b, KINDS[*kind], ROWS[*row].name).is_none())
            }
        });
        wrong
            .map(|((row, kind, _), o)| {
                format!("{}, {}: {o:?}", ROWS[*row].name, KINDS[*kind].name())
            })
            .collect()
    }

    /// The table with what a reader must know of it, as it stands in tests/system/WORKLOADS.md.
    pub fn document(&self, versions: &str) -> String {
        let kinds: String = KINDS
            .iter()
            .map(|kind| format!("* *{}*: {}\n", kind.name(), kind.explained()))
            .collect();
        format!(
            "# What people run, in containers of every kind

Made by `packaging/test-workloads.sh --write`, which runs `tests/system/workloads.rs`: {versions}.

In each cell, ours and LXC's own `lxc-checkpoint` on an equal container: a client has a connection and does the first half
of its work, the container is checkpointed, stopped and restarted, and the client does the second half on the same
connection. *ok*: it got the right answers. *refused*: by our preflight, before anything was touched. *failed*: everything
else. The numbers lead to the reasons below: of ours, what our command says; of LXC's, whose tool gives no reason, the
error that CRIU's log tells it by, or what the client missed afterwards. A container that boots runs all its rows at once,
so its cells stand and fall together where the container does.

{kinds}
{self}"
        )
    }

    /// How often each tool did it, of how often it was asked.
    fn counts(&self, lxcs: bool) -> (usize, usize) {
        let all = || self.0.iter().filter(|((_, _, is_lxcs), _)| *is_lxcs == lxcs);
        (all().filter(|(_, outcome)| **outcome == Outcome::Good).count(), all().count())
    }
}

/// Reasons in the order in which they are met, each once.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn cell(&mut self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Good => "ok".to_owned(),
            Outcome::Refused(blockers) => format!("refused {}", self.numbers(blockers)),
            Outcome::Failed(why) => format!("failed {}", self.numbers(std::slice::from_ref(why))),
        }
    }

    fn numbers(&mut self, why: &[String]) -> String {
        let mut numbers = BTreeSet::new();
        for reason in why {
            // A refusal that is known stands there once, of whichever process it was met first.
            let known = REFUSALS.iter().find(|r| reason.contains(r.words));
            let told = known
                .map_or_else(|| general(reason), |r| format!("{} ({})", general(reason), r.source));
            let is_it = |old: &&String| known.map_or(**old == told, |r| old.contains(r.source));
            let number = self.0.iter().position(|old| is_it(&old));
            numbers.insert(number.unwrap_or_else(|| {
                self.0.push(told);
                self.0.len() - 1
            }));
        }
        let words: Vec<String> = numbers.iter().map(|number| (number + 1).to_string()).collect();
        words.join(", ")
    }
}

impl fmt::Display for Table {
    /// Markdown; reasons stand below, each once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = Reasons::default();
        write!(f, "| ours / LXC's |")?;
        let kinds: Vec<usize> =
            (0..KINDS.len()).filter(|k| self.0.keys().any(|key| key.1 == *k)).collect();
        for kind in &kinds {
            write!(f, " {} |", KINDS[*kind].name())?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(kinds.len()))?;
        for (number, row) in
            ROWS.iter().enumerate().filter(|(number, _)| self.0.keys().any(|key| key.0 == *number))
        {
            write!(f, "| {} |", row.name)?;
            for kind in &kinds {
                let mut cell = |lxcs: bool| {
                    self.0.get(&(number, *kind, lxcs)).map(|outcome| reasons.cell(outcome))
                };
                match (cell(false), cell(true)) {
                    (None, None) => write!(f, " |")?,
                    (ours, lxcs) => write!(
                        f,
                        " {} / {} |",
                        ours.as_deref().unwrap_or("-"),
                        lxcs.as_deref().unwrap_or("-")
                    )?,
                }
            }
            writeln!(f)?;
        }
        let (ours, lxcs) = (self.counts(false), self.counts(true));
        writeln!(f, "\n*ok*: ours {} of {}, LXC's {} of {}.\n", ours.0, ours.1, lxcs.0, lxcs.1)?;
        for (number, reason) in (1..).zip(&reasons.0) {
            writeln!(f, "{number}. {reason}")?;
        }
        Ok(())
    }
}

/// A reason without what differs from run to run: numbers of three digits and more.
fn general(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default();
    let mut text = String::new();
    let mut digits = String::new();
    for character in line.chars().chain(['\n']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        text += if digits.len() > 2 { "N" } else { &digits };
        digits.clear();
        text.push(character);
    }
    text.trim_end().to_owned()
}
