//! Find a running container: its init, by whatever still knows it.
//!
//! LXC's monitor is asked first. When it is gone (it crashed, it was killed) or does not answer, the container may
//! still run; then /proc is searched for a process that is the first of a pid namespace and has the container's root
//! (the directory, or a mount of the image, device or overlay), or, where nothing tells the root, lives in its payload cgroup.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::command::{Client, Error};
use crate::sys::mount::behind_loop_device;
use crate::sys::process::Process;

/// Who told us of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The monitor, over its command socket.
    Monitor,
    /// The payload cgroup.
    Cgroup,
    /// The root directory of a process.
    Root,
}

/// A running container.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub init: Process,
    /// Its payload cgroup on cgroup2, relative to that mount's root, as the kernel names it for init.
    pub cgroup: Option<PathBuf>,
    /// How it was found.
    pub found_by: FoundBy,
}

/// Finds a container; `None` when it does not run. `rootfs` helps where the monitor is gone.
///
/// # Errors
/// When the monitor refuses to talk to us, or /proc cannot be read.
pub fn find(lxcpath: &str, name: &str, rootfs: Option<&Path>) -> Result<Option<Running>> {
    let client = Client::new(lxcpath, name);
    match client.init_pid() {
        Ok(pid) => {
            if let Ok(init) = Process::open(pid.as_raw()) {
                // The number was read before the process was held: ask again, now that it cannot be given away.
                if client.init_pid().is_ok_and(|again| again == pid) {
                    return running(init, FoundBy::Monitor).map(Some);
                }
            }
            // It ended between the two: it does not run.
            Ok(None)
        }
        Err(Error::NotRunning) => find_without_monitor(name, rootfs),
        Err(e @ Error::Denied) => Err(e).context("ask LXC's monitor for the container's init"),
        Err(e) => {
            log::debug!("LXC's monitor gives no answer ({e}); looking in /proc");
            find_without_monitor(name, rootfs)
        }
    }
}

fn running(init: Process, found_by: FoundBy) -> Result<Running> {
    let cgroup = payload_cgroup(init.pid())?;
    Ok(Running { init, cgroup, found_by })
}

/// The cgroup2 path of a process, without the parts that it may have made below its payload cgroup itself.
fn payload_cgroup(pid: i32) -> Result<Option<PathBuf>> {
    Ok(cgroup_of(pid)?.map(|path| payload_part(&path)))
}

/// The cgroup2 path of a process.
fn cgroup_of(pid: i32) -> Result<Option<PathBuf>> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    Ok(text.lines().find_map(|l| l.strip_prefix("0::")).map(PathBuf::from))
}

/// Whether a cgroup path has the name that liblxc gives where it is not told another.
pub fn is_payload(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str().to_string_lossy().starts_with("lxc.payload"))
}

/// The path up to the component that liblxc made; the whole path if none looks like it (`lxc.cgroup.dir.container`).
pub fn payload_part(path: &Path) -> PathBuf {
    let mut part = PathBuf::new();
    for component in path.components() {
        part.push(component);
        if component.as_os_str().to_string_lossy().starts_with("lxc.payload") {
            return part;
        }
    }
    path.to_owned()
}

/// As [`find`], without asking the monitor: for those whom the monitor waits for, its hooks.
pub fn find_without_monitor(name: &str, rootfs: Option<&Path>) -> Result<Option<Running>> {
    let root = rootfs.map(RootIs::of).filter(|root| *root != RootIs::Unknown);
    let mut by_cgroup = None;
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry.context("list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // Processes come and go while we look: what cannot be read is gone.
        if !is_first_of_its_namespace(pid) {
            continue;
        }
        let Ok(init) = Process::open(pid) else { continue };
        let cgroup = cgroup_of(pid).ok().flatten().unwrap_or_default();
        let in_cgroup = is_payload_of(&payload_part(&cgroup), name);
        let in_anothers = is_payload_of_another(&cgroup, name);
        match root.as_ref().map(|root| root.is_of(pid)) {
            Some(true) if in_cgroup => return running(init, FoundBy::Cgroup).map(Some),
            // Containers may share a root; only read, or one after the other.
            Some(true) if !in_anothers => return running(init, FoundBy::Root).map(Some),
            // The name alone may be that of a container in another LXC path.
            None if in_cgroup => by_cgroup = Some(init),
            _ => {}
        }
    }
    by_cgroup.map(|init| running(init, FoundBy::Cgroup)).transpose()
}

/// What tells a process that has a container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RootIs {
    /// Its root is this directory, by its file system's device and its inode.
    Directory(u64, u64),
    /// Its root is mounted from this block device.
    Device(u64),
    /// Its root is mounted from a loop device with this file behind it, known likewise.
    Image(u64, u64),
    /// Its root is an overlay that writes to this directory, known likewise.
    Overlay(u64, u64),
    /// Nothing does.
    Unknown,
}

impl RootIs {
    /// As `lxc.rootfs.path` names it, with its kind before it or without.
    fn of(rootfs: &Path) -> RootIs {
        let text = rootfs.to_str().unwrap_or_default();
        let path = if text.starts_with('/') { text } else { text.split_once(':').map_or(text, |(_kind, path)| path) };
        let Ok(found) = fs::metadata(path) else {
            // LOWER:UPPER
            let upper = path.rfind(":/").and_then(|at| fs::metadata(&path[at + 1..]).ok());
            return upper.map_or(RootIs::Unknown, |found| RootIs::Overlay(found.dev(), found.ino()));
        };
        match found.file_type() {
            kind if kind.is_dir() => RootIs::Directory(found.dev(), found.ino()),
            kind if kind.is_block_device() => RootIs::Device(found.rdev()),
            kind if kind.is_file() => RootIs::Image(found.dev(), found.ino()),
            _ => RootIs::Unknown,
        }
    }

    /// Whether the root of this process is that. One that is gone has none.
    fn is_of(&self, pid: i32) -> bool {
        if let RootIs::Directory(device, inode) = self {
            let found = fs::metadata(format!("/proc/{pid}/root"));
            return found.is_ok_and(|found| (found.dev(), found.ino()) == (*device, *inode));
        }
        let mounts = procfs::process::Process::new(pid).and_then(|process| process.mountinfo());
        let Some(mount) = mounts.into_iter().flatten().rfind(|mount| mount.mount_point == Path::new("/")) else {
            return false;
        };
        let source = || mount.mount_source.as_deref().map(Path::new);
        match self {
            RootIs::Device(number) => {
                source().and_then(|path| fs::metadata(path).ok()).is_some_and(|found| found.rdev() == *number)
            }
            RootIs::Image(device, inode) => source().and_then(behind_loop_device) == Some((*device, *inode)),
            RootIs::Overlay(device, inode) => {
                let upper = mount.super_options.get("upperdir").and_then(|dir| dir.as_deref()).map(unescaped);
                let found = upper.and_then(|upper| fs::metadata(upper).ok());
                found.is_some_and(|found| (found.dev(), found.ino()) == (*device, *inode))
            }
            RootIs::Directory(..) | RootIs::Unknown => false,
        }
    }
}

/// What the kernel has written into a table of words: blanks and the like as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// Whether the kernel counts this process as number 1 of a pid namespace just below ours.
fn is_first_of_its_namespace(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    first_below(&status)
}

fn first_below(status: &str) -> bool {
    let Some(line) = status.lines().find_map(|l| l.strip_prefix("NSpid:")) else { return false };
    let numbers: Vec<&str> = line.split_ascii_whitespace().collect();
    numbers.len() == 2 && numbers[1] == "1"
}

/// Whether the innermost cgroup of this path that liblxc has named is of a container of another name.
fn is_payload_of_another(cgroup: &Path, name: &str) -> bool {
    let is_named = |path: &&Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lxc.payload."));
    cgroup.ancestors().find(is_named).is_some_and(|innermost| !is_payload_of(innermost, name))
}

/// `lxc.payload.NAME`, with liblxc's `-1`, `-2`, … when the name was taken.
fn is_payload_of(cgroup: &Path, name: &str) -> bool {
    let Some(last) = cgroup.file_name().and_then(|n| n.to_str()) else { return false };
    match last.strip_prefix("lxc.payload.").and_then(|n| n.strip_prefix(name)) {
        Some("") => true,
        Some(suffix) => {
            suffix.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_told_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, "").unwrap();
        let file = fs::metadata(&image).unwrap();
        let named = |text: &str| RootIs::of(Path::new(text));
        let root = fs::metadata("/").unwrap();
        let here = RootIs::Directory(root.dev(), root.ino());
        assert_eq!([named("/"), named("dir:/")], [here.clone(), here.clone()]);
        assert!(here.is_of(std::process::id().cast_signed()));
        assert_eq!(named(&format!("loop:{}", image.display())), RootIs::Image(file.dev(), file.ino()));
        assert_eq!(named("overlay:/lower:/no/upper"), RootIs::Unknown);
        let upper = fs::metadata(dir.path()).unwrap();
        let overlay = named(&format!("overlay:/lower:{}", dir.path().display()));
        assert_eq!(overlay, RootIs::Overlay(upper.dev(), upper.ino()));
        assert_eq!(named("zfs:pool/web"), RootIs::Unknown);
        let own = std::process::id().cast_signed();
        assert!(!named(&format!("loop:{}", image.display())).is_of(own) && !overlay.is_of(own));
        assert_eq!(unescaped(r"/srv/my\040lxc\134"), r"/srv/my lxc\");
    }

    #[test]
    fn a_payload_cgroup_belongs_to_one_name() {
        for (cgroup, name, yes) in [
            ("/lxc.payload.web", "web", true),
            ("/lxc.payload.web-3", "web", true),
            ("/lxc.payload.web-3", "web-3", true),
            ("/lxc.payload.web2", "web", false),
            ("/lxc.payload.web-x", "web", false),
            ("/user.slice", "web", false),
        ] {
            assert_eq!(is_payload_of(Path::new(cgroup), name), yes, "{cgroup} {name}");
        }
    }

    #[test]
    fn a_cgroup_of_another_name_is_anothers() {
        for (cgroup, anothers) in [
            ("/lxc.payload.web", false),
            ("/lxc.payload.web/init.scope", false),
            ("/lxc.payload.outer/lxc.payload.web", false),
            ("/lxc.payload/web", false),
            ("/own/dir", false),
            ("/lxc.payload.db", true),
            ("/lxc.payload.db/init.scope", true),
        ] {
            assert_eq!(is_payload_of_another(Path::new(cgroup), "web"), anothers, "{cgroup}");
        }
    }

    #[test]
    fn what_init_made_below_its_cgroup_is_not_the_payload() {
        assert_eq!(payload_part(Path::new("/lxc.payload.t/init.scope")), Path::new("/lxc.payload.t"));
        assert_eq!(payload_part(Path::new("/base/lxc.payload.t-1")), Path::new("/base/lxc.payload.t-1"));
        assert_eq!(payload_part(Path::new("/own/dir")), Path::new("/own/dir"));
    }

    #[test]
    fn only_the_first_of_a_namespace_below_ours_counts() {
        assert!(first_below("Name:\tinit\nNSpid:\t812\t1\n"));
        assert!(!first_below("NSpid:\t1\n"));
        assert!(!first_below("NSpid:\t812\t7\n"));
        assert!(!first_below("NSpid:\t812\t44\t1\n"));
    }
}
