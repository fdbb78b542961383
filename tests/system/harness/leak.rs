//! What the host has: taken before and after a trial, it must be the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use lxc_cr::api::rollback::lock::STATE_ROOT;

use super::cgroups;
use super::run::{Run, wait_for};

/// Some things go after their cause: a veth when its namespace is taken apart, a monitor after its
/// last client.
const LIMIT: Duration = Duration::from_secs(10);

/// What stays after the first use, rightly.
const EXPECTED: &[&str] = &[
    // LXC's monitor leaves its cgroup for this one before it removes it; nobody removes this one.
    "cgroup lxc.pivot",
    // LXC's lock files, one a container path, and its runtime directory.
    "file /run/lock/lxc",
    "file /run/lxc",
    // LXC's cache of profiles that it has made up and had compiled.
    "file /var/cache/lxc",
    // The state of lxcfs.
    "file /run/lxcfs",
    "file /run/lxcfs.pid",
    // The state of mount(8).
    "file /run/mount",
    // CRIU's cache of what the kernel can do.
    "file /run/criu.kdat",
];

/// Everything that could be left behind, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at mounts, links, firewall rules, cgroups, processes and the files in the places for
    /// state.
    pub fn take() -> Snapshot {
        let mut found = BTreeSet::new();
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let (mount, kind) = line.split_once(" - ").unwrap_or((line, ""));
            let fields: Vec<&str> = mount.split(' ').collect();
            found.insert(format!("mount {} on {} ({kind})", fields[3], fields[4]));
        }
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let port = fs::read_link(entry.path().join("master")).ok();
            let port = port
                .and_then(|p| Some(format!(" on {}", p.file_name()?.to_str()?)))
                .unwrap_or_default();
            found.insert(format!("link {}{port}", entry.file_name().display()));
        }
        for line in Run::new("nft").args(["list", "ruleset"]).output().stdout.lines() {
            found.insert(format!("nft {line}"));
        }
        for root in cgroups::roots() {
            let hierarchy = root
                .file_name()
                .filter(|_| cgroups::is_hybrid())
                .unwrap_or_default()
                .display()
                .to_string();
            tree(&root, &mut |path, kind| {
                if kind.is_dir() {
                    let path = path.strip_prefix(&root).unwrap_or(path).display();
                    found.insert(format!("cgroup {path} {hierarchy}"));
                }
            });
        }
        processes(&mut found);
        for place in ["/run", "/tmp", "/srv", "/var/lib/lxc", "/var/cache/lxc", "/var/log", "/etc"]
        {
            tree(Path::new(place), &mut |path, _| {
                if !path.starts_with(super::enter::LOGS) {
                    found.insert(format!("file {}", path.display()));
                }
            });
        }
        found.retain(|line| {
            !stays_of_ours(line)
                && !EXPECTED.iter().any(|e| {
                    line.strip_prefix(e).is_some_and(|r| r.is_empty() || r.starts_with(['/', ' ']))
                })
        });
        Snapshot(found)
    }

    /// What was found: its kind, then what it is.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The same without the files below a directory.
    pub fn without(mut self, dir: &Path) -> Snapshot {
        let dir = dir.to_string_lossy();
        self.0.retain(|line| {
            let path = line.strip_prefix("file ").or_else(|| line.strip_prefix("content "));
            !path
                .and_then(|path| path.strip_prefix(&*dir))
                .is_some_and(|r| r.is_empty() || r.starts_with(['/', ' ']))
        });
        self
    }

    /// The same without any file: what a container that is stopped leaves of itself is files alone.
    pub fn without_files(mut self) -> Snapshot {
        self.0.retain(|line| !line.starts_with("file "));
        self
    }

    /// The same and how each file below a directory is: one that is written to or replaced is told
    /// as another one. Not those of a container's root, which it may write to at any time, and
    /// LXC's log of it.
    pub fn with_contents_of(mut self, dir: &Path) -> Snapshot {
        tree(dir, &mut |path, kind| {
            let Ok(meta) = path.symlink_metadata() else { return };
            let below_root =
                path.strip_prefix(dir).is_ok_and(|below| below.iter().any(|name| name == "rootfs"));
            if below_root || path.ends_with("lxc.log") {
                return;
            }
            // A directory is written to by whoever makes a file in it, for a moment only, too.
            let written = if kind.is_dir() {
                (0, 0, 0)
            } else {
                (meta.size().cast_signed(), meta.mtime(), meta.mtime_nsec())
            };
            let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
            let inode = meta.ino();
            self.0.insert(format!(
                "content {} {inode} {mode:o} {owner:?} {written:?}",
                path.display()
            ));
        });
        self
    }

    /// What is too many now and what is missing, but for the files below a directory; waits until
    /// there is nothing.
    pub fn differences_without(&self, dir: &Path) -> Result<(), String> {
        self.wait_until(|| Snapshot::take().without(dir))
    }

    /// What `look` sees once no process of this name is left: `lxc-start` ends a moment after the
    /// container that it has started, of which `lxc-stop` says that it is stopped.
    pub fn without_process(name: &str, look: impl Fn() -> Snapshot) -> Snapshot {
        let is_it = |line: &String| {
            let mut words = line.split(' ');
            words.next() == Some("process") && words.nth(1) == Some(name)
        };
        wait_for("a process to end", LIMIT, || Some(look()).filter(|now| !now.0.iter().any(is_it)))
            .unwrap()
    }

    /// Waits until the host is as it was then; else names what is too many and what is missing.
    pub fn wait_until_as_before(&self) -> Result<(), String> {
        self.wait_until(Snapshot::take)
    }

    /// The same with a look of the caller's own: the one by which this was taken.
    pub fn wait_until(&self, look: impl Fn() -> Snapshot) -> Result<(), String> {
        let mut now = self.clone();
        let same = wait_for("the host to be as before", LIMIT, || {
            now = look();
            (now == *self).then_some(())
        });
        same.map_err(|_| {
            let left = now.0.difference(&self.0).map(|line| format!("left behind: {line}"));
            let lost = self.0.difference(&now.0).map(|line| format!("gone: {line}"));
            left.chain(lost).collect::<Vec<_>>().join("\n")
        })
    }
}

fn tree(dir: &Path, visit: &mut dyn FnMut(&Path, fs::FileType)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        visit(&entry.path(), kind);
        if kind.is_dir() {
            tree(&entry.path(), visit);
        }
    }
}

/// All processes but pid 1 and ourselves.
fn processes(found: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if pid == 1 || pid == std::process::id() {
            continue;
        }
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let name = read("comm");
        if !name.is_empty() {
            let line = read("cmdline").replace('\0', " ");
            found.insert(format!("process {pid} {} {}", name.trim(), line.trim()));
        }
    }
}

/// What stays of our own state: a container's directory with its lock, which must not vanish while
/// somebody waits for it, and with whose it is; and what version the programs have that we run. A
/// journal, a socket, a note that stay are leaks.
fn stays_of_ours(line: &str) -> bool {
    let Some(path) =
        line.strip_prefix("file ").and_then(|path| Path::new(path).strip_prefix(STATE_ROOT).ok())
    else {
        return false;
    };
    let names: Vec<_> = path.iter().filter_map(OsStr::to_str).collect();
    match names.as_slice() {
        [] | ["criu-version" | "lxc-version"] => true,
        [key] | [key, "lock" | "container"] => is_key(key),
        _ => false,
    }
}

/// Whether a name is that of a container's directory, `NAME-HASH`.
fn is_key(name: &str) -> bool {
    let hash = name.rsplit_once('-').map_or("", |(_, hash)| hash);
    !name.starts_with('.') && hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}
