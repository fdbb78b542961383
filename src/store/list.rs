//! Which checkpoints there are below an LXC path, and how one is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use crate::lxc::name::{ContainerName, LxcPath};
use crate::store::history::History;
use crate::store::layout::{self, PARENT, is_checkpoint, is_partial};
use crate::store::parents::Parents;
use crate::store::record::Record;
use crate::store::register::Known;
use crate::store::resume_mark;
use crate::store::show::{measure, written};
use crate::sys::path_trust::{self, Guest};
use crate::sys::{files, memory};

/// How many directories below a container's own one are gone down.
const DEPTH: usize = 2;
/// Fewer records than this are not worth a thread.
const LEAST_SHARE: usize = 16;
/// A container's root is not looked through.
const ROOTFS: &str = "rootfs";

/// A checkpoint that there is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// Its directory.
    pub directory: PathBuf,
    /// Its container, by its record or else by the place where it lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The directory that holds its container's directory, by its record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lxcpath: Option<PathBuf>,
    /// What its user has called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How it is.
    pub state: State,
    /// What is wrong with a damaged one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Whether `lxc-cr resume` brings it back.
    pub to_be_resumed: bool,
    /// The bytes of its images.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How many processes it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// How long they stood still, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
    /// Whether its container went on after it.
    pub left_running: bool,
    /// What happened to it since.
    #[serde(flatten)]
    pub history: History,
}

/// How a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Its record and its images are there.
    Complete,
    /// It has no record: LXC's tool or `criu dump` wrote it.
    WithoutRecord,
    /// Memory only, copied beforehand for another checkpoint to build on.
    PreDump,
    /// It was never completed.
    Partial,
    /// Its record cannot be read, or images are missing or of another size.
    Damaged,
    /// It is known, but the file system that it lies on is not mounted.
    NotMounted,
    /// It is known, but the server of its file system does not answer.
    NoAnswer,
}

impl State {
    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::WithoutRecord => "without record",
            State::PreDump => "pre-dump",
            State::Partial => "half-written",
            State::Damaged => "damaged",
            State::NotMounted => "not mounted",
            State::NoAnswer => "no answer",
        }
    }
}

/// The checkpoints in the containers' directories below an LXC path, or in that of one container.
/// Links are not followed.
pub(crate) fn find(lxcpath: &LxcPath, name: Option<&ContainerName>) -> Result<Vec<Entry>> {
    let top = lxcpath.as_path();
    let places: Vec<PathBuf> = match name {
        Some(name) => vec![lxcpath.container_dir(name)],
        None => directories(top)?,
    };
    let mut found = Vec::new();
    for place in places {
        look_below(&place, DEPTH, &mut found)?;
    }
    found.sort();
    look_at_all(found, lxcpath)
}

/// The checkpoints in these directories, in their order. Reading a thousand records is work for all
/// processors.
#[expect(clippy::disallowed_methods, reason = "they do what one would do")]
fn look_at_all(found: Vec<PathBuf>, lxcpath: &LxcPath) -> Result<Vec<Entry>> {
    let share = found.len().div_ceil(memory::processors()).max(LEAST_SHARE);
    let look = |share: &[PathBuf]| {
        share.iter().map(|dir| Entry::of(dir.clone(), lxcpath)).collect::<Result<Vec<_>>>()
    };
    let shares: Vec<&[PathBuf]> = found.chunks(share).collect();
    let (Some((first, others)), true) = (shares.split_first(), shares.len() > 1) else {
        return look(&found);
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = others.iter().map(|share| scope.spawn(|| look(share))).collect();
        let mut entries = look(first)?;
        for other in others {
            entries.extend(
                other.join().map_err(|_| anyhow!("a thread that read records has failed"))??,
            );
        }
        Ok(entries)
    })
}

/// The checkpoint in a directory, and those below it. Links below it are not followed.
pub(crate) fn find_in(dir: &Path, lxcpath: &LxcPath) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    match is_checkpoint(dir) {
        true => found.push(dir.to_owned()),
        false => look_below(dir, DEPTH + 1, &mut found)?,
    }
    found.sort();
    look_at_all(found, lxcpath)
}

/// The checkpoint in a directory, if there is one.
pub(crate) fn look_at(dir: &Path, lxcpath: &LxcPath) -> Result<Option<Entry>> {
    match is_checkpoint(dir) {
        true => Entry::of(dir.to_owned(), lxcpath).map(Some),
        false => Ok(None),
    }
}

fn look_below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for below in directories(dir)? {
        if is_checkpoint(&below) {
            found.push(below);
        } else if depth > 1 && below.file_name().is_some_and(|n| n != ROOTFS) {
            look_below(&below, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The directories in a directory.
fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("list {}", dir.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

impl Entry {
    fn of(directory: PathBuf, lxcpath: &LxcPath) -> Result<Entry> {
        let record = Record::read(&directory);
        let damage = match &record {
            Err(e) => Some(format!("{e:#}")),
            Ok(Some(record)) => check_sizes(record, &directory).err().map(|e| format!("{e:#}")),
            Ok(None) => None,
        };
        let state = match (&record, &damage) {
            _ if is_partial(&directory) => State::Partial,
            (_, Some(_)) => State::Damaged,
            (Ok(Some(record)), None) if record.memory_only => State::PreDump,
            (Ok(Some(_)), None) => State::Complete,
            // A pre-dump has memory, but no tree of processes.
            _ if directory.join("pstree.img").exists() => State::WithoutRecord,
            _ => State::PreDump,
        };
        let record = record.ok().flatten();
        let known = record.as_ref();
        let by_place = || {
            let first = directory.strip_prefix(lxcpath.as_path()).ok()?.components().next()?;
            let name = ContainerName::new(first.as_os_str().to_str()?).ok()?;
            lxcpath.config_file(&name).exists().then(|| name.as_str().to_owned())
        };
        Ok(Entry {
            container: known.map(|r| r.container.name.clone()).or_else(by_place),
            lxcpath: known.map(|r| r.container.lxcpath.clone()),
            label: known.and_then(|r| r.label.clone()),
            processes: known.and_then(|r| r.processes),
            frozen_us: known.and_then(|r| r.frozen_us),
            left_running: known.is_some_and(|r| r.left_running),
            history: History::read(&directory),
            state,
            to_be_resumed: resume_mark::is_to_be_resumed(&directory),
            damage: damage.filter(|_| state == State::Damaged),
            size: match known.filter(|_| state == State::Complete) {
                Some(record) => record.size(),
                None => measure(&directory)?.0,
            },
            created: match known {
                Some(record) => record.created,
                None => written(&directory)?,
            },
            directory,
        })
    }

    /// One that only the register knows.
    pub(crate) fn out_of_reach(known: &Known, state: State) -> Entry {
        Entry {
            directory: known.directory.clone(),
            container: Some(known.container.clone()),
            lxcpath: Some(known.lxcpath.clone()),
            label: known.label.clone(),
            state,
            damage: None,
            to_be_resumed: false,
            size: known.size,
            created: known.created,
            processes: None,
            frozen_us: None,
            left_running: false,
            history: History::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Entry {
        Entry {
            directory: "/var/lib/lxc/web/dump".into(),
            container: Some("web".to_owned()),
            lxcpath: Some("/var/lib/lxc".into()),
            label: None,
            state: State::Complete,
            damage: None,
            to_be_resumed: false,
            size: 6_500_000,
            created: 1000,
            processes: Some(5),
            frozen_us: Some(41_000),
            left_running: false,
            history: History::default(),
        }
    }
}

/// Those of a checkpoint and of the copies of memory that are a part of it.
fn check_sizes(record: &Record, dir: &Path) -> Result<()> {
    record.check_sizes(dir)?;
    match record.rounds.is_empty() {
        true => Ok(()),
        false => Parents::of(dir)?.check_sizes(),
    }
}

/// The container that a checkpoint is of, as far as it can be told: by its record, or by the
/// container's directory that it lies in.
pub(crate) fn container_of(dir: &Path, lxcpath: &LxcPath) -> Result<Option<(PathBuf, String)>> {
    // A damaged record does not keep a checkpoint from being removed.
    if let Ok(Some(record)) = Record::read(dir) {
        return Ok(Some((record.container.lxcpath, record.container.name)));
    }
    let entry = Entry::of(dir.to_owned(), lxcpath)?;
    Ok(entry.container.map(|name| (lxcpath.as_path().to_owned(), name)))
}

/// Refuses what is not a checkpoint, what others could have put there, and what another checkpoint
/// builds on.
pub(crate) fn check_removable(guest: Option<Guest>, dir: &Path) -> Result<()> {
    path_trust::check_of(guest, dir)?;
    let meta = fs::symlink_metadata(dir).with_context(|| format!("stat {}", dir.display()))?;
    if meta.is_symlink() {
        bail!("{} is a symbolic link: name the directory itself", dir.display());
    }
    if !meta.is_dir() || !is_checkpoint(dir) {
        bail!("{} is not a checkpoint", dir.display());
    }
    files::open_private_dir(dir)?;
    let names = files::names(dir)?;
    if let Some(other) = names.iter().find(|n| !layout::belongs(n)) {
        bail!(
            "{} holds '{}' too, which is not of a checkpoint: it is left as it is",
            dir.display(),
            other.display()
        );
    }
    match built_upon(dir)? {
        Some(other) => {
            Err(anyhow!("{} builds on {}: remove that one first", other.display(), dir.display()))
        }
        None => Ok(()),
    }
}

/// A checkpoint beside this one that has its memory from here.
pub(crate) fn built_upon(dir: &Path) -> Result<Option<PathBuf>> {
    let real = fs::canonicalize(dir).with_context(|| format!("stat {}", dir.display()))?;
    let Some(beside) = real.parent() else { return Ok(None) };
    let builds_on_it = |other: &PathBuf| {
        let link = other.join(PARENT);
        *other != real
            && fs::symlink_metadata(&link).is_ok_and(|m| m.is_symlink())
            && fs::canonicalize(&link).is_ok_and(|p| p == real)
    };
    Ok(directories(beside)?.into_iter().find(builds_on_it))
}

/// Removes a checkpoint of which [`check_removable`] has found no fault.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    // What is removed has no name that anybody would restore from while it goes.
    let doomed =
        if is_partial(dir) { dir.to_owned() } else { files::with_suffix(dir, ".removed.partial") };
    if doomed != dir {
        // What a remove that was killed has left of another one of this name.
        layout::remove_images(&doomed)?;
        fs::rename(dir, &doomed)
            .with_context(|| format!("rename {} to {}", dir.display(), doomed.display()))?;
    }
    layout::remove_images(&doomed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_remove_has_left_is_in_nobodys_way() {
        let top = tempfile::tempdir().unwrap();
        let (dir, left) = (top.path().join("c"), top.path().join("c.removed.partial"));
        make(&dir, &["inventory.img"]);
        make(&left, &["pages-1.img"]);
        remove(&dir).unwrap();
        assert!(!dir.exists() && !left.exists());
    }

    fn lxcpath() -> (tempfile::TempDir, LxcPath) {
        let top = tempfile::tempdir().unwrap();
        let path = LxcPath::new(top.path()).unwrap();
        (top, path)
    }

    fn make(dir: &Path, names: &[&str]) {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        names.iter().for_each(|n| fs::write(dir.join(n), "x").unwrap());
    }

    #[test]
    fn all_kinds_are_found_and_roots_are_not_looked_through() {
        let (top, path) = lxcpath();
        let web = top.path().join("web");
        make(&web, &["config"]);
        make(&web.join("dump"), &["inventory.img", "pstree.img"]);
        make(&web.join("dump.partial"), &["core-1.img", "dump.log"]);
        make(&web.join("old/pre"), &["inventory.img", "pages-1.img"]);
        make(&web.join("bad"), &["inventory.img", layout::RECORD]);
        make(&web.join("rootfs/root/dump"), &["inventory.img"]);
        make(&web.join("letters.partial"), &["to-mother.txt"]);
        std::os::unix::fs::symlink(web.join("dump"), web.join("link")).unwrap();
        make(&top.path().join("mail/dump"), &["inventory.img", "pstree.img"]);
        let found = |name: Option<&str>| -> Vec<(String, &'static str, Option<String>)> {
            let name = name.map(|n| ContainerName::new(n).unwrap());
            let entries = find(&path, name.as_ref()).unwrap().into_iter();
            let relative = |d: PathBuf| d.strip_prefix(top.path()).unwrap().display().to_string();
            entries.map(|e| (relative(e.directory), e.state.as_str(), e.container)).collect()
        };
        let web = Some("web".to_owned());
        let all = [
            ("mail/dump".to_owned(), "without record", None),
            ("web/bad".to_owned(), "damaged", web.clone()),
            ("web/dump".to_owned(), "without record", web.clone()),
            ("web/dump.partial".to_owned(), "half-written", web.clone()),
            ("web/old/pre".to_owned(), "pre-dump", web.clone()),
        ];
        assert_eq!(found(None), all);
        assert_eq!(found(Some("web")), all[1..]);
        assert_eq!(found(Some("nobody")), []);
    }

    #[test]
    fn only_checkpoints_are_removed() {
        let (top, _) = lxcpath();
        let dir = |name: &str| top.path().join(name);
        let refused = |name: &str| check_removable(None, &dir(name)).unwrap_err().to_string();
        make(&dir("letters"), &["to-mother.txt"]);
        assert!(refused("letters").contains("is not a checkpoint"));
        make(&dir("mixed"), &["inventory.img", "to-mother.txt"]);
        assert!(refused("mixed").contains("to-mother.txt"));
        make(
            &dir("good"),
            &["inventory.img", "pages-1.img", "stats-dump", "dump.log", layout::RECORD],
        );
        std::os::unix::fs::symlink("good", dir("link")).unwrap();
        assert!(refused("link").contains("symbolic link"));
        make(&dir("later"), &["inventory.img"]);
        std::os::unix::fs::symlink("../good", dir("later/parent")).unwrap();
        assert!(refused("good").contains("builds on"));
        for name in ["later", "good"] {
            check_removable(None, &dir(name)).unwrap();
            remove(&dir(name)).unwrap();
            assert!(!dir(name).exists());
        }
        assert!(dir("mixed/to-mother.txt").exists());
        fs::set_permissions(top.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(refused("mixed").contains("others can write to"));
    }
}
