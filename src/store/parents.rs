//! What a checkpoint builds on: the copies of memory that were taken while the container ran (`criu
//! pre-dump`).
//!
//! CRIU leaves a symbolic link `parent` in each image directory that needs another one. Pages that
//! had not changed since are read from there, so a checkpoint is whole only with all of its line.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::store::checksums::{Checksum, Image, Sum};
use crate::store::layout::{self, PARENT, RECORD};
use crate::store::record::{Damage, Record};
use crate::sys::{files, path_trust};

/// More copies than anybody takes; a line that is longer leads in a circle.
const MOST: usize = 1000;

/// The directories that a checkpoint builds on, the nearest first, each with its record. One that
/// another program wrote has none.
#[derive(Debug, Default)]
pub(crate) struct Parents(Vec<(PathBuf, Option<Record>)>);

impl Parents {
    /// Follows the line of an image directory.
    ///
    /// # Errors
    /// A [`Damage`] where a part is missing or is not what it was.
    pub(crate) fn of(dir: &Path) -> Result<Parents> {
        let mut line = Parents::default();
        let mut child = dir.to_owned();
        let mut wanted = match fs::symlink_metadata(dir.join(PARENT)) {
            Ok(_) => Record::read(dir)?.and_then(|record| record.builds_on),
            Err(_) => None,
        };
        loop {
            let link = child.join(PARENT);
            let parent = match fs::read_link(&link) {
                Ok(target) => {
                    let parent = child.join(&target);
                    // Beside its child, or in it, it is as safe as that, whose place the command
                    // has looked at.
                    if !is_beside(&target) && !is_within(&target) {
                        path_trust::check(&parent)?;
                    }
                    parent
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(line),
                Err(e) => {
                    return Err(e).with_context(|| format!("read the link {}", link.display()));
                }
            };
            if line.0.len() == MOST {
                bail!(Damage::Unreadable(format!(
                    "what it builds on leads in a circle at {}",
                    parent.display()
                )));
            }
            let parent = match parent.canonicalize() {
                Ok(parent) => parent,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    bail!(Damage::Missing(parent.to_string_lossy().into_owned()));
                }
                Err(e) => return Err(e).with_context(|| format!("find {}", parent.display())),
            };
            files::open_private_dir(&parent)?;
            files::check_content(&parent, &[PARENT])?;
            let record = Record::read(&parent)?;
            if wanted.is_some() && wanted != identity(&parent)? {
                bail!(Damage::AnotherParent(parent.to_string_lossy().into_owned()));
            }
            wanted = record.as_ref().and_then(|record| record.builds_on.clone());
            line.0.push((parent.clone(), record));
            child = parent;
        }
    }

    /// The directories, the nearest first.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(dir, _)| dir.as_path())
    }

    /// As [`Record::check_sizes`], for all of them.
    pub(crate) fn check_sizes(&self) -> Result<()> {
        self.each(|record, dir| record.check_sizes(dir))
    }

    /// As [`Record::check_content`], for all of them.
    pub(crate) fn check_content(&self, which: impl Fn(&Image) -> bool) -> Result<()> {
        self.each(|record, dir| record.check_content(dir, &which))
    }

    /// The directories that have a record, the nearest first.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (&Path, &Record)> {
        self.0.iter().filter_map(|(dir, record)| Some((dir.as_path(), record.as_ref()?)))
    }

    fn each(&self, check: impl Fn(&Record, &Path) -> Result<()>) -> Result<()> {
        for (dir, record) in self.recorded() {
            check(record, dir).with_context(|| format!("it builds on {}", dir.display()))?;
        }
        Ok(())
    }
}

/// What an image directory builds on, if anything: for [`Record::builds_on`].
pub(crate) fn parent_of(dir: &Path) -> Result<Option<String>> {
    match fs::symlink_metadata(dir.join(PARENT)) {
        Ok(_) => identity(&dir.join(PARENT)),
        Err(_) => Ok(None),
    }
}

/// What tells a directory from another one in its place: the checksum of its record, if it has one.
fn identity(dir: &Path) -> Result<Option<String>> {
    let record = dir.join(RECORD);
    if !record.exists() {
        return Ok(None);
    }
    match Checksum::sha256().of_file(&record)? {
        Sum::Sha256(sum) | Sum::Blake3(sum) => Ok(Some(sum)),
    }
}

/// Whether a link's target is `../NAME`.
fn is_beside(target: &Path) -> bool {
    let mut parts = target.components();
    matches!(
        (parts.next(), parts.next(), parts.next()),
        (Some(Component::ParentDir), Some(Component::Normal(_)), None)
    )
}

/// Whether a link's target is a copy of memory in the link's directory.
fn is_within(target: &Path) -> bool {
    target.to_str().is_some_and(layout::is_round)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, symlink};

    fn dirs(names: &[&str]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for name in names {
            fs::DirBuilder::new().mode(0o700).create(top.path().join(name)).unwrap();
        }
        top
    }

    #[test]
    fn a_line_is_followed_to_its_end() {
        let top = dirs(&["a", "b", "c"]);
        symlink("../b", top.path().join("c/parent")).unwrap();
        symlink("../a", top.path().join("b/parent")).unwrap();
        let line = Parents::of(&top.path().join("c")).unwrap();
        let names: Vec<_> =
            line.0.iter().map(|(dir, _)| dir.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(Parents::of(&top.path().join("a")).unwrap().0.is_empty());
    }

    /// Two parts of a line with records, the second of which may say what it builds on.
    #[test]
    fn another_copy_in_the_place_of_a_parent_is_damage() {
        let top = dirs(&["a", "b", "c"]);
        let dir = |name: &str| top.path().join(name);
        symlink("../a", dir("b/parent")).unwrap();
        symlink("../b", dir("c/parent")).unwrap();
        let record = |created| Record { created, ..crate::store::record::tests::sample() };
        record(1).write(&dir("a")).unwrap();
        for (name, created) in [("b", 2), ("c", 3)] {
            let builds_on = parent_of(&dir(name)).unwrap();
            assert!(builds_on.is_some());
            Record { builds_on, ..record(created) }.write(&dir(name)).unwrap();
        }
        assert_eq!(Parents::of(&dir("c")).unwrap().0.len(), 2);
        record(4).write(&dir("a")).unwrap();
        let error = Parents::of(&dir("c")).unwrap_err();
        assert!(error.to_string().contains("/a; another one is there now"), "{error}");
        // One without a record is what another program wrote; it cannot be what ours was.
        fs::remove_file(dir("a").join(RECORD)).unwrap();
        assert!(Parents::of(&dir("c")).is_err());
        record(2).write(&dir("b")).unwrap();
        assert!(Parents::of(&dir("b")).is_ok());
    }

    #[test]
    fn a_missing_part_and_a_circle_are_damage() {
        let top = dirs(&["a", "b"]);
        symlink("../gone", top.path().join("a/parent")).unwrap();
        let error = Parents::of(&top.path().join("a")).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Damage::Missing(name)) if name.ends_with("gone")),
            "{error}"
        );
        symlink("../b", top.path().join("b/parent")).unwrap();
        let error = Parents::of(&top.path().join("b")).unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
    }
}
