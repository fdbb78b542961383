//! docs/programs.md, and the counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Outcome, Program};

/// In the order in which the counts are printed.
const CLASSES: &[&str] = &[
    "works",
    "refused beforehand",
    "stopped and cannot return",
    "failed without a remedy",
    "different, as a warning says",
    "different",
    "does not start here",
];

/// What came of each server, by its name; kept between runs.
#[derive(Default)]
pub struct Table(BTreeMap<String, Outcome>);

impl Table {
    pub fn load(path: &Path) -> Table {
        let text = fs::read_to_string(path).unwrap_or_default();
        Table(serde_json::from_str(&text).unwrap_or_default())
    }

    pub fn save(&self, path: &Path) {
        fs::write(path, serde_json::to_string(&self.0).unwrap()).unwrap();
    }

    pub fn put(&mut self, program: &Program, outcome: Outcome) {
        self.0.insert(program.name.to_owned(), outcome);
    }

    /// One line.
    pub fn counts(&self) -> String {
        let of = |class: &&str| self.0.values().filter(|outcome| outcome.class() == *class).count();
        let counts: Vec<String> =
            CLASSES.iter().map(|class| format!("{class} {}", of(class))).collect();
        format!("{} servers: {}", self.0.len(), counts.join(", "))
    }

    pub fn is_wrong(&self) -> bool {
        self.0.values().any(Outcome::is_wrong)
    }

    pub fn document(&self, programs: &[Program], versions: &str) -> String {
        let mut text = include_str!("programs.md.in")
            .replace("@VERSIONS@", versions)
            .replace("@COUNTS@", &self.counts());
        for program in programs {
            let Some(outcome) = self.0.get(program.name) else { continue };
            let remark: String = outcome.remark().replace('|', "/").chars().take(300).collect();
            let package = program.packages.split(' ').next().unwrap_or_default();
            writeln!(
                text,
                "| {} | `{package}` | {} | {} |",
                program.name,
                outcome.class(),
                remark.trim()
            )
            .unwrap();
        }
        text
    }
}
