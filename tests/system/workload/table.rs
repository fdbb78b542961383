//! The table: rows, kinds, and in each cell what came of ours and of LXC's.

use std::collections::BTreeMap;
use std::fmt;

use super::kind::KINDS;
use super::list::{IO_URING, ROWS, SEMAPHORE};
use super::{Kind, Outcome, Tool};

/// A refusal that is right: part of the preflight's words, where it may be, and who says that it cannot be done.
pub struct Refusal {
    pub words: &'static str,
    pub of: fn(Kind, &str) -> bool,
    pub source: &'static str,
}

/// What cannot be done.
pub const REFUSALS: &[Refusal] = &[
    Refusal {
        words: "CAP_SYS_RESOURCE",
        of: |kind, _| !kind.is_unprivileged(),
        source: "the kernel: prlimit(2) of another user's process, by a root without that capability",
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
        source: "CRIU 4.2: files-reg.c looks for the mount of a program among those of the container",
    },
];

/// What came of each row in each kind.
#[derive(Default)]
pub struct Table(BTreeMap<(usize, usize, bool), Outcome>);

impl Table {
    pub fn put(&mut self, row: &str, kind: Kind, tool: Tool, outcome: Outcome) {
        let row = ROWS.iter().position(|r| r.name == row).unwrap_or(ROWS.len());
        let kind = KINDS.iter().position(|k| *k == kind).unwrap_or(KINDS.len());
        self.0.insert((row, kind, tool == Tool::Lxcs), outcome);
    }

    /// What ours did not do, and must.
    pub fn wrong(&self) -> Vec<String> {
        let ours = self.0.iter().filter(|((_, _, is_lxcs), _)| !is_lxcs);
        let wrong = ours.filter(|((row, kind, _), outcome)| match outcome {
            Outcome::Good => false,
            Outcome::Failed(_) => true,
            Outcome::Refused(why) => {
                let is_right = |r: &&Refusal| why.contains(r.words) && (r.of)(KINDS[*kind], ROWS[*row].name);
                !REFUSALS.iter().any(|r| is_right(&r))
            }
        });
        wrong.map(|((row, kind, _), o)| format!("{}, {}: {}", ROWS[*row].name, KINDS[*kind].name(), shown(o))).collect()
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Good => "ok".to_owned(),
        Outcome::Refused(why) => format!("refused: {why}"),
        Outcome::Failed(why) => format!("failed: {why}"),
    }
}

impl fmt::Display for Table {
    /// Markdown; reasons stand below, each once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<String> = Vec::new();
        let mut short = |outcome: &Outcome| match outcome {
            Outcome::Good => "ok".to_owned(),
            Outcome::Refused(why) | Outcome::Failed(why) => {
                let why = general(why);
                let number = reasons.iter().position(|r| *r == why).unwrap_or_else(|| {
                    reasons.push(why);
                    reasons.len() - 1
                });
                let word = if matches!(outcome, Outcome::Refused(_)) { "refused" } else { "failed" };
                format!("{word} ({})", number + 1)
            }
        };
        write!(f, "| ours / LXC's |")?;
        let kinds: Vec<usize> = (0..KINDS.len()).filter(|k| self.0.keys().any(|key| key.1 == *k)).collect();
        for kind in &kinds {
            write!(f, " {} |", KINDS[*kind].name())?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(kinds.len()))?;
        for (number, row) in ROWS.iter().enumerate() {
            if !self.0.keys().any(|key| key.0 == number) {
                continue;
            }
            write!(f, "| {} |", row.name)?;
            for kind in &kinds {
                let of = |lxcs: bool| self.0.get(&(number, *kind, lxcs));
                match (of(false), of(true)) {
                    (None, None) => write!(f, " |")?,
                    (ours, lxcs) => {
                        let mut text = |o: Option<&Outcome>| o.map_or("-".to_owned(), &mut short);
                        let (ours, lxcs) = (text(ours), text(lxcs));
                        write!(f, " {ours} / {lxcs} |")?;
                    }
                }
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        for (number, reason) in (1..).zip(&reasons) {
            let source = REFUSALS
                .iter()
                .find(|r| reason.contains(r.words))
                .map_or(String::new(), |r| format!(" ({})", r.source));
            writeln!(f, "{number}. {reason}{source}")?;
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
