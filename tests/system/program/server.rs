//! A server as systemd and its logs show it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Guest, Program};

/// What a line of a log file says that complains.
const COMPLAINTS: &[&str] = &["error", "fail", "fatal", "crit", "panic", "warn", "abort", "assert"];

/// The state of its unit: active, with the same main process, never started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit(String);

impl Unit {
    pub fn look(guest: &Guest<'_>, program: &Program) -> Unit {
        let show = [
            "systemctl",
            "show",
            "-p",
            "ActiveState",
            "-p",
            "MainPID",
            "-p",
            "NRestarts",
            program.unit,
        ];
        Unit(guest.exec(show).stdout.trim().replace('\n', " "))
    }

    pub fn is_active(&self) -> bool {
        self.0.contains("ActiveState=active")
    }

    pub fn words(&self) -> &str {
        &self.0
    }
}

/// Without its numbers, so that the same complaint is known again.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.chars() {
        if !c.is_ascii_hexdigit() {
            shape.push(c);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}

/// The warnings and errors of a unit in the journal.
#[derive(Clone, Debug)]
pub struct Journal(Vec<String>);

impl Journal {
    pub fn read(guest: &Guest<'_>, program: &Program) -> Journal {
        let read = [
            "journalctl",
            "-b",
            "--no-pager",
            "-q",
            "-o",
            "cat",
            "-p",
            "warning",
            "-u",
            program.unit,
        ];
        Journal(guest.exec(read).stdout.lines().map(str::to_owned).collect())
    }

    /// What has been said since, and never before.
    pub fn new_since(&self, before: &Journal) -> Vec<String> {
        let known: Vec<String> = before.0.iter().map(|line| shape(line)).collect();
        self.0
            .iter()
            .skip(before.0.len())
            .filter(|line| !known.contains(&shape(line)))
            .cloned()
            .collect()
    }
}

/// The log files below /var/log, and how much of each was written.
#[derive(Debug)]
pub struct LogFiles(BTreeMap<PathBuf, (u64, u64)>);

impl LogFiles {
    pub fn look(guest: &Guest<'_>) -> LogFiles {
        let mut found = BTreeMap::new();
        walk(&guest.root().join("var/log"), &mut found);
        LogFiles(found)
    }

    /// Lines that complain, written since, and of a kind that was not there before.
    pub fn complaints(&self, guest: &Guest<'_>) -> Vec<String> {
        let mut told = Vec::new();
        for (path, (inode, size)) in LogFiles::look(guest).0 {
            let before = self
                .0
                .get(&path)
                .filter(|(old, length)| *old == inode && *length <= size)
                .map_or(0, |(_, l)| *l);
            let (old, new) = read_parts(&path, before);
            let known: Vec<String> = old.lines().map(shape).collect();
            let complains = |line: &&str| {
                let line = line.to_lowercase();
                COMPLAINTS.iter().any(|word| line.contains(word))
            };
            let fresh = new.lines().filter(complains).filter(|line| !known.contains(&shape(line)));
            let name = path.strip_prefix(guest.root()).unwrap_or(&path).display().to_string();
            told.extend(fresh.map(|line| format!("/{name}: {line}")));
        }
        told
    }
}

fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, (u64, u64)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
        if meta.is_dir() && entry.file_name() != "journal" {
            walk(&path, found);
        } else if meta.is_file() {
            found.insert(path, (meta.ino(), meta.size()));
        }
    }
}

fn read_parts(path: &Path, at: u64) -> (String, String) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    if let Ok(mut file) = fs::File::open(path) {
        let _ = file.by_ref().take(at).read_to_end(&mut old);
        let _ = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_to_end(&mut new));
    }
    (String::from_utf8_lossy(&old).into_owned(), String::from_utf8_lossy(&new).into_owned())
}
