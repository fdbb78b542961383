//! A container's cgroups: where they are, what they look like, how they are made again and removed.
//!
//! liblxc puts a container into `lxc.payload.NAME` and its monitor into `lxc.monitor.NAME`, below the cgroup of
//! pid 1 (cgfsng.c). CRIU saves the cgroups that hold tasks, but neither the empty ones nor the owners that an
//! init in a user namespace needs; so the whole tree is recorded and made before CRIU starts.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::devices::Program;
use crate::limits::{self, Limits};

/// liblxc tries this many suffixes when a name is taken.
const MAX_SUFFIX: u32 = 999;
/// How long the tasks of a cgroup may take to be gone after they were killed.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

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

/// The payload cgroup of a container on cgroup2, as it was at the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The payload cgroup relative to the hierarchy's root, with a leading slash: `/lxc.payload.NAME`.
    pub path: PathBuf,
    /// Whether it was frozen.
    #[serde(default)]
    pub frozen: bool,
    /// The directories, parents before children.
    pub directories: Vec<Directory>,
}

/// Where cgroup2 is mounted.
///
/// # Errors
/// When it is not.
pub fn unified_mount() -> Result<PathBuf> {
    let mounts =
        procfs::process::Process::myself().and_then(|me| me.mountinfo()).context("read /proc/self/mountinfo")?;
    mounts
        .into_iter()
        .find(|m| m.fs_type == "cgroup2")
        .map(|m| m.mount_point)
        .context("no cgroup2 file system is mounted on this host")
}

/// The cgroup2 path of a process, with a leading slash, relative to the mount's root.
pub fn of_process(pid: i32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    text.lines()
        .find_map(|l| l.strip_prefix("0::"))
        .map(PathBuf::from)
        .with_context(|| format!("{file} names no cgroup2"))
}

/// The directory of a cgroup path below its mount. A path with `..` would leave the hierarchy and is refused.
pub fn directory(mount: &Path, path: &Path) -> Result<PathBuf> {
    let mut full = mount.to_owned();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => full.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                bail!("cgroup '{}' lies outside of what can be seen here", path.display())
            }
        }
    }
    Ok(full)
}

impl Tree {
    /// Reads the tree of a running container.
    pub fn read(mount: &Path, path: &Path) -> Result<Tree> {
        let top = directory(mount, path)?;
        let mut directories = Vec::new();
        read_directory(&top, Path::new(""), &mut directories)?;
        Ok(Tree { path: path.to_owned(), frozen: is_frozen(&top)?, directories })
    }

    /// Whether all tasks are in the payload cgroup itself, so that they can simply be born in it.
    pub fn is_flat(&self) -> bool {
        self.directories.iter().all(|d| d.path.as_os_str().is_empty() || !d.tasks)
    }

    /// Makes the directories that are missing below `top`, which exists, and gives all of them their owners.
    pub fn make_below(&self, top: &Path) -> Result<()> {
        for dir in &self.directories {
            let path = directory(top, &dir.path)?;
            let what = || format!("make cgroup {}", path.display());
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).with_context(what),
                _ => {}
            }
            own(&path, dir.uid, dir.gid, dir.mode).with_context(what)?;
            for file in &dir.files {
                // A file of a controller that this host does not have is not missed here.
                if path.join(&file.name).exists() {
                    own(&path.join(&file.name), file.uid, file.gid, file.mode).with_context(what)?;
                }
            }
        }
        Ok(())
    }
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
            // liblxc makes these for processes that lxc-attach brings in; they are not the container's.
            if !name.starts_with(".lxc") {
                children.push(relative.join(name));
            }
            continue;
        }
        let mode = meta.mode() & 0o7777;
        if meta.uid() != 0 || meta.gid() != 0 || ![0o444, 0o644, 0o200, 0o222].contains(&mode) {
            files.push(OwnedFile { name, uid: meta.uid(), gid: meta.gid(), mode });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    children.sort();
    let tasks = fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty());
    found.push(Directory {
        path: relative.to_owned(),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode() & 0o7777,
        files,
        tasks,
        limits: limits::read(&path)?,
        devices: Vec::new(),
    });
    for child in children {
        read_directory(top, &child, found)?;
    }
    Ok(())
}

/// Whether a cgroup is frozen by its own `cgroup.freeze`.
pub fn is_frozen(dir: &Path) -> Result<bool> {
    match fs::read_to_string(dir.join("cgroup.freeze")) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("read {}/cgroup.freeze", dir.display())),
    }
}

/// Freezes or thaws a cgroup; the kernel does it in its own time.
pub fn set_frozen(dir: &Path, frozen: bool) -> Result<()> {
    write_control(dir, "cgroup.freeze", if frozen { "1" } else { "0" })
}

/// Makes a cgroup directory for which the name or, when it is taken, the name with -1, -2, … is used, as liblxc does.
pub fn make_new(mount: &Path, path: &Path, before: &mut dyn FnMut(&Path) -> Result<()>) -> Result<PathBuf> {
    let wanted = directory(mount, path)?;
    for suffix in 0..=MAX_SUFFIX {
        let dir = match suffix {
            0 => wanted.clone(),
            n => crate::sys::files::with_suffix(&wanted, &format!("-{n}")),
        };
        if dir.exists() {
            continue;
        }
        before(&dir)?;
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("make cgroup {}", dir.display())),
        }
    }
    bail!("no name is left for the cgroup {}", wanted.display())
}

/// Hands on all controllers from the hierarchy's root down to a directory that is made or about to be, as liblxc does
/// at every start (cgfsng.c, `__cgfsng_delegate_controllers`). Like there, nobody takes them back.
///
/// A controller that cannot be handed on is left out: whether a limit needs it is seen later.
pub fn hand_on_controllers(mount: &Path, dir: &Path) {
    let above: Vec<&Path> = dir.ancestors().skip(1).take_while(|a| a.starts_with(mount)).collect();
    for above in above.into_iter().rev() {
        let words = |file| -> Vec<String> {
            let text = fs::read_to_string(above.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let handed_on = words("cgroup.subtree_control");
        for controller in words("cgroup.controllers").iter().filter(|c| !handed_on.contains(c)) {
            if let Err(e) = write_control(above, "cgroup.subtree_control", &format!("+{controller}")) {
                log::debug!("{e:#}");
            }
        }
    }
}

/// A cgroup's `cgroup.procs`, open so that a process can put itself there.
pub fn open_procs(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("cgroup.procs");
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    Ok(file.into())
}

/// A cgroup's directory as a descriptor, the way liblxc hands it to its tools.
pub fn open_path(dir: &Path) -> Result<OwnedFd> {
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(dir)
        .with_context(|| format!("open {}", dir.display()))?;
    Ok(file.into())
}

/// Moves a process, 0 for ourselves, into a cgroup.
pub fn enter(dir: &Path, pid: i32) -> Result<()> {
    write_control(dir, "cgroup.procs", &pid.to_string())
}

/// Ends every task of a cgroup and of those below it, at once.
pub fn kill(dir: &Path) -> Result<()> {
    write_control(dir, "cgroup.kill", "1")
}

fn write_control(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    let mut file = OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write '{text}' to {}", path.display()))
}

/// Removes a cgroup and those below it. Tasks that are still ending are waited for; one that lives on is an
/// error, it is not killed. A cgroup that is not there is no error.
pub fn remove(dir: &Path) -> Result<()> {
    let end = Instant::now() + EMPTY_LIMIT;
    loop {
        match remove_tree(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                // The kernel tells nobody when the last dying task has left: its `populated` goes to 0 earlier.
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(e).with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// The pids of the processes in this very cgroup.
pub fn own_tasks(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().filter_map(|l| l.parse().ok()).collect())
}

/// The pids of all tasks in a cgroup and below it.
pub fn tasks(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect_tasks(dir, &mut pids).with_context(|| format!("read the tasks of cgroup {}", dir.display()))?;
    Ok(pids)
}

fn collect_tasks(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    pids.extend(fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|l| l.parse::<i32>().ok()));
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
    fn a_tree_is_flat_when_only_its_top_has_tasks() {
        let mut tree =
            Tree { path: "/lxc.payload.t".into(), frozen: false, directories: vec![dir("", true), dir("a", false)] };
        assert!(tree.is_flat());
        tree.directories.push(dir("init.scope", true));
        assert!(!tree.is_flat());
    }

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        assert_eq!(directory(Path::new("/cg"), Path::new("/lxc.payload.t")).unwrap(), Path::new("/cg/lxc.payload.t"));
        assert!(directory(Path::new("/cg"), Path::new("/../x")).is_err());
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("lxc.payload.t")).unwrap();
        let mut noted = Vec::new();
        let made = make_new(mount.path(), Path::new("/lxc.payload.t"), &mut |d| {
            noted.push(d.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(made, mount.path().join("lxc.payload.t-1"));
        assert_eq!(noted, std::slice::from_ref(&made));
        remove(&made).unwrap();
        remove(&made).unwrap();
    }
}
