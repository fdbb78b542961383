//! The processes in a cgroup: entered, listed, frozen, ended.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Cgroup, write_control};

/// By what a cgroup is frozen, and what is written to thaw and to freeze it: on cgroup2, and on v1.
const FREEZERS: [(&str, [&str; 2]); 2] =
    [("cgroup.freeze", ["0", "1"]), ("freezer.state", ["THAWED", "FROZEN"])];

/// Whether a cgroup is frozen by itself, not by one above it. One in a hierarchy that cannot freeze
/// is not.
pub(crate) fn is_frozen(dir: &Path) -> Result<bool> {
    for (file, _) in FREEZERS {
        // v1 says in a file of its own what was asked of this very cgroup.
        let file = if file == "freezer.state" { "freezer.self_freezing" } else { file };
        match fs::read_to_string(dir.join(file)) {
            Ok(text) => return Ok(text.trim() == "1"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("read {}/{file}", dir.display())),
        }
    }
    Ok(false)
}

/// Freezes or thaws a cgroup of cgroup2 or of v1's freezer; the kernel does it in its own time.
pub(crate) fn set_frozen(dir: &Path, frozen: bool) -> Result<()> {
    let [unified, legacy] = FREEZERS;
    let (file, [thawed, stopped]) = if dir.join(legacy.0).exists() { legacy } else { unified };
    write_control(dir, file, if frozen { stopped } else { thawed })
}

/// The cgroups below this one that are frozen by themselves: an init freezes its services
/// (`systemctl freeze`).
pub(crate) fn frozen_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next)
            .with_context(|| format!("list cgroup {}", next.display()))?
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What goes away meanwhile is not frozen.
                found.extend(is_frozen(&entry.path()).unwrap_or(false).then(|| entry.path()));
                waiting.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// A cgroup's `cgroup.procs`, open so that a process can put itself there.
pub(crate) fn open_procs(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("cgroup.procs");
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    Ok(file.into())
}

/// A cgroup's directory as a descriptor, the way liblxc hands it to its tools.
pub(crate) fn open_path(dir: &Path) -> Result<OwnedFd> {
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(dir)
        .with_context(|| format!("open {}", dir.display()))?;
    Ok(file.into())
}

/// Moves a process, 0 for ourselves, into a cgroup.
pub(crate) fn enter(dir: &Path, pid: i32) -> Result<()> {
    write_control(dir, "cgroup.procs", &pid.to_string())
}

/// Ends every task of a cgroup and of those below it, at once.
pub(crate) fn kill(dir: &Path) -> Result<()> {
    write_control(dir, "cgroup.kill", "1")
}

/// The pids of the processes in this very cgroup.
pub(crate) fn own_tasks(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().filter_map(|l| l.parse().ok()).collect())
}

/// Moves the processes of a cgroup and of those below it that are of our own pid namespace to
/// others.
pub(crate) fn move_our_kind(from: &Path, to: &[&Cgroup]) -> Result<()> {
    for pid in tasks(from)?.into_iter().filter(|pid| is_our_kind(*pid)) {
        for cgroup in to {
            match enter(&cgroup.dir, pid) {
                // One that has ended meanwhile needs no place.
                Err(_) if !Path::new(&format!("/proc/{pid}")).exists() => {}
                moved => moved?,
            }
        }
    }
    Ok(())
}

/// Whether there are processes of our own pid namespace in a cgroup or below it.
pub(super) fn holds_our_kind(dir: &Path) -> Result<bool> {
    Ok(tasks(dir)?.into_iter().any(is_our_kind))
}

/// Whether a process is of our own pid namespace: no container's.
pub(crate) fn is_our_kind(pid: i32) -> bool {
    let pid_namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    pid_namespace("self").is_some_and(|ours| pid_namespace(&pid.to_string()) == Some(ours))
}

/// The pids of all tasks in a cgroup and below it.
pub fn tasks(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect_tasks(dir, &mut pids)
        .with_context(|| format!("read the tasks of cgroup {}", dir.display()))?;
    Ok(pids)
}

fn collect_tasks(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    pids.extend(
        fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|l| l.parse::<i32>().ok()),
    );
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_tasks(&entry.path(), pids)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_freezer_is_spoken_to_in_its_own_words() {
        let (new, old, none) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        fs::write(new.path().join("cgroup.freeze"), "0\n").unwrap();
        fs::write(old.path().join("freezer.state"), "THAWED\n").unwrap();
        fs::write(old.path().join("freezer.self_freezing"), "1\n").unwrap();
        for dir in [&new, &old] {
            set_frozen(dir.path(), true).unwrap();
        }
        assert!(
            is_frozen(new.path()).unwrap()
                && is_frozen(old.path()).unwrap()
                && !is_frozen(none.path()).unwrap()
        );
        assert!(
            fs::read_to_string(old.path().join("freezer.state")).unwrap().starts_with("FROZEN")
        );
        let below = new.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        assert_eq!(frozen_below(new.path()).unwrap(), [""; 0].map(PathBuf::from));
        fs::write(below.join("cgroup.freeze"), "1\n").unwrap();
        assert_eq!(frozen_below(new.path()).unwrap(), [below]);
    }
}
