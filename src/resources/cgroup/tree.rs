//! What a container's cgroups look like in one hierarchy.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Cgroup, Hierarchy, directory, is_frozen};
use crate::resources::cgroup::devices::Program;
use crate::resources::cgroup::settings::{self, Limits};

/// The modes that the kernel gives to files of a cgroup; `memory.pressure_level` of v1 has none.
const COMMON_MODES: &[u32] = &[0o444, 0o644, 0o200, 0o222, 0];

/// One directory of a container's cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Relative to the payload cgroup; empty for itself.
    pub path: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Files in it that belong to somebody else than root, or with other modes than the kernel's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<OwnedFile>,
    /// Whether tasks of the container are in this very directory.
    #[serde(default)]
    pub tasks: bool,
    /// Its settings: files and what is in them.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The device programs on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Program>,
}

/// A cgroup file that was given to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedFile {
    /// Its name.
    pub name: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The payload cgroup of a container in one hierarchy, as it was at the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The controllers of a v1 hierarchy; none for cgroup2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// The payload cgroup relative to the hierarchy's root, with a leading slash:
    /// `/lxc.payload.NAME`.
    pub path: PathBuf,
    /// Where its tasks begin below that, if it is not there.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub inner: PathBuf,
    /// Whether it was frozen.
    #[serde(default)]
    pub frozen: bool,
    /// The directories, parents before children.
    pub directories: Vec<Directory>,
}

impl Tree {
    /// Reads the tree of a running container.
    pub fn read(cgroup: &Cgroup) -> Result<Tree> {
        let mut directories = Vec::new();
        read_directory(&cgroup.dir, Path::new(""), &mut directories)?;
        Ok(Tree {
            controllers: cgroup.hierarchy.controllers.clone(),
            path: cgroup.path(),
            inner: cgroup.inner.clone(),
            frozen: is_frozen(&cgroup.home())?,
            directories,
        })
    }

    /// Whether directories have come or gone since it was read. Takes a fraction of the time of
    /// reading it.
    pub fn has_changed(&self, cgroup: &Cgroup) -> Result<bool> {
        let mut there = Vec::new();
        list_directories(&cgroup.dir, Path::new(""), &mut there)?;
        there.sort_unstable();
        let mut known: Vec<&Path> = self.directories.iter().map(|d| d.path.as_path()).collect();
        known.sort_unstable();
        Ok(there != known)
    }

    /// Whether it is the tree of this hierarchy: which controllers share one is not the same on
    /// every host.
    pub fn is_in(&self, hierarchy: &Hierarchy) -> bool {
        match self.controllers.first() {
            None => hierarchy.is_unified(),
            Some(controller) => hierarchy.has(controller),
        }
    }

    /// Whether all tasks are where they begin, so that they can simply be born there.
    pub fn is_flat(&self) -> bool {
        self.directories.iter().all(|d| d.path == self.inner || !d.tasks)
    }

    /// Makes the directories that are missing below `top`, which exists, and gives all of them
    /// their owners.
    pub fn make_below(&self, top: &Path) -> Result<()> {
        for dir in &self.directories {
            let path = directory(top, &dir.path)?;
            let what = || format!("make cgroup {}", path.display());
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e).with_context(what);
                }
                _ => {}
            }
            own(&path, dir.uid, dir.gid, dir.mode).with_context(what)?;
            for file in &dir.files {
                // A file of a controller that this host does not have is not missed here.
                if path.join(&file.name).exists() {
                    own(&path.join(&file.name), file.uid, file.gid, file.mode)
                        .with_context(what)?;
                }
            }
        }
        Ok(())
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn read_directory(top: &Path, relative: &Path, found: &mut Vec<Directory>) -> Result<()> {
    let path = top.join(relative);
    let what = || format!("read cgroup {}", path.display());
    let meta = fs::symlink_metadata(&path).with_context(what)?;
    let mut files = Vec::new();
    let mut children = Vec::new();
    for entry in fs::read_dir(&path).with_context(what)? {
        let entry = entry.with_context(what)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().with_context(what)?;
        if meta.is_dir() {
            if is_the_containers(&name) {
                children.push(relative.join(name));
            }
            continue;
        }
        let mode = meta.mode() & 0o7777;
        if meta.uid() != 0 || meta.gid() != 0 || !COMMON_MODES.contains(&mode) {
            files.push(OwnedFile { name, uid: meta.uid(), gid: meta.gid(), mode });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    children.sort();
    let tasks =
        fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty());
    found.push(Directory {
        path: relative.to_owned(),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode() & 0o7777,
        files,
        tasks,
        limits: settings::read(&path)?,
        devices: Vec::new(),
    });
    for child in children {
        let before = found.len();
        match read_directory(top, &child, found) {
            // It has gone meanwhile.
            Err(_) if !top.join(&child).exists() => found.truncate(before),
            other => other?,
        }
    }
    Ok(())
}

/// liblxc makes others for processes that lxc-attach brings in.
fn is_the_containers(name: &str) -> bool {
    !name.starts_with(".lxc")
}

fn list_directories(top: &Path, relative: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let path = top.join(relative);
    let what = || format!("list cgroup {}", path.display());
    found.push(relative.to_owned());
    for entry in fs::read_dir(&path).with_context(what)? {
        let entry = entry.with_context(what)?;
        let name = entry.file_name();
        if entry.file_type().with_context(what)?.is_dir()
            && is_the_containers(&name.to_string_lossy())
        {
            list_directories(top, &relative.join(name), found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &str, tasks: bool) -> Directory {
        Directory {
            path: path.into(),
            uid: 0,
            gid: 0,
            mode: 0o755,
            files: vec![],
            tasks,
            limits: Limits::new(),
            devices: vec![],
        }
    }

    #[test]
    fn directories_that_come_and_go_are_seen() {
        let top = tempfile::tempdir().unwrap();
        for path in ["a/b", ".lxc/x"] {
            fs::create_dir_all(top.path().join(path)).unwrap();
        }
        fs::write(top.path().join("cgroup.procs"), "").unwrap();
        let hierarchy = Hierarchy { mount: top.path().to_owned(), controllers: vec![] };
        let cgroup = Cgroup::plain(hierarchy, top.path().to_owned());
        let tree = Tree {
            controllers: vec![],
            path: "/".into(),
            inner: PathBuf::new(),
            frozen: false,
            directories: vec![dir("", false), dir("a", false), dir("a/b", true)],
        };
        assert!(!tree.has_changed(&cgroup).unwrap());
        fs::create_dir(top.path().join("a/c")).unwrap();
        assert!(tree.has_changed(&cgroup).unwrap());
        fs::remove_dir(top.path().join("a/b")).unwrap();
        assert!(tree.has_changed(&cgroup).unwrap());
    }

    #[test]
    fn a_tree_is_flat_when_only_its_top_has_tasks() {
        let mut tree = Tree {
            controllers: vec![],
            path: "/lxc.payload.t".into(),
            inner: PathBuf::new(),
            frozen: false,
            directories: vec![dir("", true), dir("a", false)],
        };
        assert!(tree.is_flat());
        let split = Tree {
            inner: "a".into(),
            directories: vec![dir("", false), dir("a", true)],
            ..tree.clone()
        };
        assert!(split.is_flat() && !Tree { inner: PathBuf::new(), ..split }.is_flat());
        tree.directories.push(dir("init.scope", true));
        assert!(!tree.is_flat());
    }
}
