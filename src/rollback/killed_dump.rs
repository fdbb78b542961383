//! Letting the tasks of a running container go, whom a dump has seized and a CRIU that was killed
//! has left.
//!
//! The kernel ends the tracing with the tracer, so the tasks run again by themselves, but what CRIU
//! did to their sockets and files stays: TCP connections in repair mode, on which every read and
//! write fails, and second names of deleted files (`link_remap.N`). A task must not run before its
//! sockets are well; so they are held by the freezer from the moment on at which all of them are
//! dumped, and nothing thaws them before that is done.
//!
//! Earlier the freezer would be in CRIU's way: its parasite code has to run in the tasks.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::cgroup;
use crate::sys::glance::glance;
use crate::sys::in_root::Below;
use crate::sys::process::Process;
use crate::sys::tcp_repair;

/// What the kernel puts behind the name of an open file that has been deleted.
const DELETED: &str = " (deleted)";
/// The name that CRIU gives such a file again (files-reg.c, `create_link_remap`), before a number.
const LINK_REMAP: &str = "link_remap.";

/// A running container whose tasks a dump seizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seized {
    /// The pid of its init.
    pub init: i32,
    /// When init was started, in clock ticks since boot: it cannot be mistaken for another process
    /// later.
    pub start_time: u64,
    /// The directory of the cgroup in which its tasks are; none where it is not known, and nothing
    /// can be frozen.
    pub cgroup: Option<PathBuf>,
    /// It was frozen before by its owner, and stays so.
    pub frozen: bool,
}

impl Seized {
    /// Whether it has not been ended, and nothing is ending it.
    pub(crate) fn goes_on(&self) -> bool {
        Process::reopen(self.init, self.start_time).is_ok_and(|init| init.goes_on())
    }

    /// Holds all tasks, whatever becomes of CRIU. (A task that is traced is in the freezer as soon
    /// as it is let go.)
    pub(crate) fn hold(&self) -> Result<()> {
        self.freeze(true)
    }

    /// Lets them run, who are well by now.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.freeze(false)
    }

    fn freeze(&self, freeze: bool) -> Result<()> {
        match &self.cgroup {
            Some(dir) if !self.frozen && dir.exists() => cgroup::set_frozen(dir, freeze),
            _ => Ok(()),
        }
    }

    /// Undoes all that a killed CRIU has left at the tasks, and tells what that was. A container
    /// that has ended needs nothing.
    pub(crate) fn release(&self) -> Result<Vec<String>> {
        if Process::reopen(self.init, self.start_time).is_err() {
            return Ok(Vec::new());
        }
        let tasks = match &self.cgroup {
            Some(dir) => cgroup::tasks(dir)?,
            None => vec![self.init],
        };
        let (mut errors, mut done, mut sockets) = (ErrorList::default(), Vec::new(), 0);
        for pid in &tasks {
            match tcp_repair::end_repair(*pid) {
                Ok(ended) => sockets += ended,
                Err(e) if has_ended(*pid) => log::debug!("process {pid} has ended: {e}"),
                Err(e) => errors.note::<()>(Err(e).with_context(|| {
                    format!("take the sockets of process {pid} out of repair mode")
                })),
            }
        }
        if sockets > 0 {
            done.push(format!("{sockets} TCP sockets taken out of repair mode"));
        }
        match self.remove_link_remaps(&tasks) {
            Ok(removed) => done.extend(removed),
            Err(e) => errors.note::<()>(Err(e)),
        }
        // Even where something failed: a container that stands still helps nobody.
        if let Some(dir) = self
            .cgroup
            .as_deref()
            .filter(|dir| !self.frozen && cgroup::is_frozen(dir).unwrap_or(false))
        {
            errors.note(cgroup::set_frozen(dir, false));
            done.push(format!("cgroup {} thawed", dir.display()));
        }
        errors.into_result().map(|()| done)
    }

    /// Removes the names that CRIU has given to deleted files. A good checkpoint needs its own, but
    /// those of a container that runs are of no use to any.
    fn remove_link_remaps(&self, tasks: &[i32]) -> Result<Vec<String>> {
        let mut deleted: Vec<(PathBuf, (u64, u64))> =
            tasks.iter().flat_map(|pid| deleted_files(*pid)).collect();
        deleted.sort();
        deleted.dedup();
        if deleted.is_empty() {
            return Ok(Vec::new());
        }
        let root = Below::of_process(self.init).context("open the container's root")?;
        let mut removed = Vec::new();
        for (path, inode) in deleted {
            // CRIU takes the directory above where a file's own has been deleted, too.
            for directory in path.ancestors().skip(1) {
                for (name, _) in root
                    .inodes(directory)
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|(_, i)| *i == inode)
                {
                    let file = directory.join(&name);
                    let number = name.to_str().and_then(|n| n.strip_prefix(LINK_REMAP));
                    if number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
                        && root.unlink(&file)?
                    {
                        removed.push(format!("{} removed from the container", file.display()));
                    }
                }
            }
        }
        Ok(removed)
    }
}

fn has_ended(pid: i32) -> bool {
    !Process::open(pid).is_ok_and(|process| process.is_alive())
}

/// The open files of a task that have lost the name by which they were opened, but still have
/// another one.
fn deleted_files(pid: i32) -> Vec<(PathBuf, (u64, u64))> {
    let descriptors =
        fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|e| e.path());
    let found = descriptors.filter_map(|link| {
        let target = fs::read_link(&link).ok()?;
        let path = target.to_str()?.strip_suffix(DELETED).filter(|p| p.starts_with('/'))?;
        let seen = glance(&link)
            .ok()
            .filter(|seen| seen.mode & libc::S_IFMT == libc::S_IFREG && seen.nlink > 0)?;
        Some((PathBuf::from(path), (seen.dev, seen.ino)))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Seized {
        let us = Process::open(std::process::id() as i32).unwrap();
        Seized { init: us.pid(), start_time: us.start_time(), cgroup: None, frozen: false }
    }

    #[test]
    fn a_name_that_criu_gave_to_a_deleted_file_goes_and_others_stay() {
        let top = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(top.path()).unwrap();
        let file = fs::File::create(dir.join("data")).unwrap();
        fs::hard_link(dir.join("data"), dir.join("other")).unwrap();
        fs::hard_link(dir.join("data"), dir.join("link_remap.17")).unwrap();
        fs::write(dir.join("link_remap.18"), "of somebody else").unwrap();
        fs::remove_file(dir.join("data")).unwrap();

        let done = ourselves().release().unwrap();
        assert_eq!(
            done,
            [format!("{} removed from the container", dir.join("link_remap.17").display())]
        );
        assert!(dir.join("other").exists() && dir.join("link_remap.18").exists());
        assert_eq!(ourselves().release().unwrap(), [""; 0]);
        drop(file);
    }

    #[test]
    fn a_container_that_has_ended_needs_nothing() {
        let gone = Seized { start_time: 1, ..ourselves() };
        assert_eq!(gone.release().unwrap(), [""; 0]);
    }
}
