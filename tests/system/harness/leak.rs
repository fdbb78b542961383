//! What the host has: taken before and after a trial, it must be the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::cgroups;
use super::run::{Run, wait_for};

/// Some things go after their cause: a veth when its namespace is taken apart, a monitor after its last client.
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
    // A container's lock of ours, which must not vanish while somebody waits for it. The trials look for the rest.
    "file /run/lxc-cr",
];

/// Everything that could be left behind, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at mounts, links, firewall rules, cgroups, processes and the files in the places for state.
    pub fn take() -> Snapshot {
        let mut found = BTreeSet::new();
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let (mount, kind) = line.split_once(" - ").unwrap_or((line, ""));
            let fields: Vec<&str> = mount.split(' ').collect();
            found.insert(format!("mount {} on {} ({kind})", fields[3], fields[4]));
        }
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let port = fs::read_link(entry.path().join("master")).ok();
            let port = port.and_then(|p| Some(format!(" on {}", p.file_name()?.to_str()?))).unwrap_or_default();
            found.insert(format!("link {}{port}", entry.file_name().display()));
        }
        for line in Run::new("nft").args(["list", "ruleset"]).output().stdout.lines() {
            found.insert(format!("nft {line}"));
        }
        for root in cgroups::roots() {
            let hierarchy = root.file_name().filter(|_| cgroups::is_hybrid()).unwrap_or_default().display().to_string();
            tree(&root, &mut |path, kind| {
                if kind.is_dir() {
                    let path = path.strip_prefix(&root).unwrap_or(path).display();
                    found.insert(format!("cgroup {path} {hierarchy}"));
                }
            });
        }
        processes(&mut found);
        for place in ["/run", "/tmp", "/srv", "/var/lib/lxc", "/var/cache/lxc", "/var/log", "/etc"] {
            tree(Path::new(place), &mut |path, _| {
                if !path.starts_with(super::enter::LOGS) {
                    found.insert(format!("file {}", path.display()));
                }
            });
        }
        found.retain(|line| {
            !is_our_lock(line)
                && !EXPECTED
                    .iter()
                    .any(|e| line.strip_prefix(e).is_some_and(|r| r.is_empty() || r.starts_with(['/', ' '])))
        });
        Snapshot(found)
    }

    /// What was found: its kind, then what it is.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The same without the files below a directory.
    pub fn without(mut self, dir: &Path) -> Snapshot {
        let (itself, below) = (format!("file {}", dir.display()), format!("file {}/", dir.display()));
        self.0.retain(|line| *line != itself && !line.starts_with(&below));
        self
    }

    /// What is too many now and what is missing, but for the files below a directory; waits until there is nothing.
    pub fn differences_without(&self, dir: &Path) -> Result<(), String> {
        self.wait_until(|| Snapshot::take().without(dir))
    }

    /// Waits until the host is as it was then; else names what is too many and what is missing.
    pub fn wait_until_as_before(&self) -> Result<(), String> {
        self.wait_until(Snapshot::take)
    }

    fn wait_until(&self, look: impl Fn() -> Snapshot) -> Result<(), String> {
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
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
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

/// Our own state of a container: its directory and its lock stay, as LXC's do. A journal that stays is a leak.
fn is_our_lock(line: &str) -> bool {
    let Some(path) = line.strip_prefix("file /run/lxc-cr") else { return false };
    let left = ["/journal", "/held", "/control", "/pid"];
    !left.iter().any(|name| path.ends_with(name)) && !path.contains("/.lxc-cr-")
}
