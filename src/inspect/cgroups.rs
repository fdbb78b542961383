//! The container's cgroups: what each limits, who is in it, whose it is.
//!
//! They are named as the container sees them: its own is "/".

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::compare::plain;
use super::family::Family;
use super::mounts;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};
use crate::sys::entry::Entry;
use crate::sys::process;

states! { rows;
    KIND = "cgroup.type", PutBack::Us, Class::Breaks,
        "a cgroup is missing, or takes threads where it took processes";
    CONTROLLERS = "cgroup.controllers", PutBack::Us, Class::Weakens,
        "a cgroup cannot be limited as before";
    HANDED_ON = "cgroup.subtree-control", PutBack::Us, Class::Breaks,
        "programs cannot limit cgroups of their own";
    FROZEN = "cgroup.frozen", PutBack::Us, Class::Breaks,
        "what was frozen runs, or the other way round";
    TASKS = "cgroup.processes", PutBack::Us, Class::Weakens,
        "a process is held to other limits";
    THREADS = "cgroup.threads", PutBack::Us, Class::Weakens,
        "a thread is held to other limits";
    STRUCTURE = "cgroup.structure", PutBack::Us, Class::Bearable,
        "more or fewer cgroups may be made";
    PRESSURE = "cgroup.pressure", PutBack::Us, Class::Bearable,
        "pressure is accounted for where it was not, or the other way round";
    CPU = "cgroup.cpu", PutBack::Us, Class::Weakens,
        "processes get more or less of the processors";
    CPUSET = "cgroup.cpuset", PutBack::Us, Class::Weakens,
        "processes run on other processors or use the memory of other nodes";
    MEMORY = "cgroup.memory", PutBack::Us, Class::Weakens,
        "processes may use more or less memory";
    IO = "cgroup.io", PutBack::Us, Class::Weakens,
        "processes may use more or less of the disks";
    PIDS = "cgroup.pids", PutBack::Us, Class::Weakens,
        "more or fewer processes may be started";
    HUGE_PAGES = "cgroup.hugetlb", PutBack::Us, Class::Weakens,
        "processes may use more or fewer huge pages";
    RDMA = "cgroup.rdma", PutBack::Us, Class::Weakens,
        "processes may use more or less of RDMA devices";
    MISC = "cgroup.misc", PutBack::Us, Class::Weakens,
        "processes may use more or less of other resources";
    OTHER = "cgroup.other", PutBack::Us, Class::Weakens,
        "a limit of a newer kernel or of cgroup v1 is another one";
    OWNER = "cgroup.owner", PutBack::Us, Class::Weakens,
        "others may change a cgroup, or its owner may not any more";
    ATTRIBUTES = "cgroup.xattrs", PutBack::Cannot("CRIU leaves out the cgroups that LXC makes"), Class::Bearable,
        "systemd has lost what it noted at a cgroup";
}

/// The family.
pub(crate) const FAMILY: Family = Family { name: "cgroups", states: rows, read };

/// Limits by the beginning of their file's name.
const LIMITS: [(&str, &State); 10] = [
    ("cgroup.max.", &STRUCTURE),
    ("cgroup.pressure", &PRESSURE),
    ("cpu.", &CPU),
    ("cpuset.", &CPUSET),
    ("memory.", &MEMORY),
    ("io.", &IO),
    ("pids.", &PIDS),
    ("hugetlb.", &HUGE_PAGES),
    ("rdma.", &RDMA),
    ("misc.", &MISC),
];
/// Files that can be written and are no setting: orders, records of peaks, and who is there.
const NO_LIMITS: [&str; 8] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.type",
    "cgroup.freeze",
    "cgroup.subtree_control",
    "memory.reclaim",
    "tasks",
];
/// Ends of the names of files that only tell what was used.
const MEASURES: [&str; 3] = [".peak", ".pressure", "_usage_in_bytes"];
/// Files that systemd hands on to who manages a cgroup.
const HANDED_OVER: [&str; 4] = ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
/// Where LXC 7 puts what `lxc-attach` runs; it makes it again.
const OF_ATTACH: &str = ".lxc";
/// More were made to hold us up.
const LIMIT: usize = 10_000;

/// Enters the container's cgroups of each hierarchy.
pub(crate) fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let whole = Subject::Cgroup { path: "/".to_owned() };
    match tops(standing.init) {
        Ok(found) => found.iter().for_each(|top| top.enter(snapshot)),
        Err(e) => snapshot.miss(whole, &KIND, e),
    }
}

/// The container's own cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Top {
    /// Its directory.
    dir: PathBuf,
    /// Set before the names of those of v1: "cpu,cpuacct:".
    prefix: String,
}

fn tops(init: i32) -> io::Result<Vec<Top>> {
    let outside = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    let inside = process::cgroups_within(init)?;
    let mounted = mounts::parse(&fs::read("/proc/self/mountinfo")?);
    Ok(find_tops(&outside, inside.as_deref(), &mounted))
}

/// Where a container's cgroups begin: as far up as init sees, or where init is without a cgroup
/// namespace; pure.
fn find_tops(outside: &str, inside: Option<&str>, mounted: &[mounts::Line]) -> Vec<Top> {
    let lines = |text: &str| -> BTreeMap<String, String> {
        let line = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':').map(|(key, path)| (key.to_owned(), path.to_owned()))
        };
        text.lines().filter_map(line).collect()
    };
    let inside = inside.map(lines).unwrap_or_default();
    let top = |(controllers, path): (String, String)| {
        let own = inside.get(&controllers).map_or("/", String::as_str);
        let path = path.strip_suffix(own.trim_end_matches('/')).unwrap_or(&path).to_owned();
        let mount = mounted.iter().find(|line| is_of(line, &controllers))?;
        let below = Path::new(&path).strip_prefix(std::ffi::OsStr::from_bytes(&mount.root)).ok()?;
        let dir = Path::new(std::ffi::OsStr::from_bytes(&mount.point)).join(below);
        let prefix = if controllers.is_empty() { String::new() } else { format!("{controllers}:") };
        Some(Top { dir, prefix })
    };
    lines(outside).into_iter().filter_map(top).collect()
}

/// Whether a mount is that of the hierarchy with these controllers.
fn is_of(line: &mounts::Line, controllers: &str) -> bool {
    if controllers.is_empty() {
        return line.kind == b"cgroup2";
    }
    let has =
        |word: &str| line.options.split(|b| *b == b',').any(|option| option == word.as_bytes());
    line.kind == b"cgroup" && controllers.split(',').all(has)
}

impl Top {
    fn enter(&self, snapshot: &mut Snapshot) {
        let mut left = vec![PathBuf::new()];
        for _ in 0..LIMIT {
            let Some(below) = left.pop() else { return };
            let dir = self.dir.join(&below);
            let path = format!("{}/{}", self.prefix, plain(below.as_os_str().as_bytes()));
            let subject = Subject::Cgroup { path };
            match fs::read_dir(&dir) {
                Ok(entries) => {
                    let dirs = entries
                        .flatten()
                        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    let dirs = dirs.filter(|entry| {
                        !below.as_os_str().is_empty() || entry.file_name() != OF_ATTACH
                    });
                    left.extend(dirs.map(|entry| below.join(entry.file_name())));
                    of_directory(&dir, below.as_os_str().is_empty(), &subject, snapshot);
                }
                Err(e) => snapshot.miss(subject, &KIND, e),
            }
        }
        let why = format!("there are more than {LIMIT} cgroups");
        snapshot.miss(Subject::Cgroup { path: format!("{}/", self.prefix) }, &KIND, why);
    }
}

fn of_directory(dir: &Path, is_top: bool, subject: &Subject, snapshot: &mut Snapshot) {
    let read = |name: &str| fs::read_to_string(dir.join(name)).map(|text| one_line(&text));
    let mut put = |state: &'static State, name: &str| match read(name) {
        Ok(value) => snapshot.enter(subject.clone(), state, value),
        // The root of a hierarchy has no type, and v1 has none of these.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => snapshot.miss(subject.clone(), state, e),
    };
    put(&KIND, "cgroup.type");
    put(&CONTROLLERS, "cgroup.controllers");
    put(&HANDED_ON, "cgroup.subtree_control");
    // That of the whole container is how it is made to stand still.
    if !is_top {
        put(&FROZEN, "cgroup.freeze");
    }
    for (name, state) in [("cgroup.procs", &TASKS), ("cgroup.threads", &THREADS)] {
        members(dir, name, state, subject, snapshot);
    }
    limits(dir, subject, snapshot);
    owners(dir, subject, snapshot);
    match Entry::below(dir, Path::new("/")).and_then(|entry| entry.attributes()) {
        Ok(found) => found.iter().for_each(|(key, value)| {
            snapshot.enter(
                subject.clone(),
                &ATTRIBUTES,
                format!("{}={}", plain(key.as_bytes()), plain(value)),
            );
        }),
        Err(e) => snapshot.miss(subject.clone(), &ATTRIBUTES, e),
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Tasks by the numbers that the container gives them.
fn members(
    dir: &Path,
    name: &str,
    state: &'static State,
    subject: &Subject,
    snapshot: &mut Snapshot,
) {
    let text = match fs::read_to_string(dir.join(name)) {
        Ok(text) => text,
        // One whose threads are all in threaded cgroups does not list processes.
        Err(e)
            if e.kind() == io::ErrorKind::NotFound
                || e.raw_os_error() == Some(libc::EOPNOTSUPP) =>
        {
            return;
        }
        Err(e) => return snapshot.miss(subject.clone(), state, e),
    };
    let inside = |pid: i32| process::number_inside(pid).unwrap_or(pid);
    let mut numbers: Vec<i32> =
        text.lines().filter_map(|line| line.parse().ok()).map(inside).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    snapshot.enter(subject.clone(), state, numbers.join(" "));
}

fn limits(dir: &Path, subject: &Subject, snapshot: &mut Snapshot) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return snapshot.miss(subject.clone(), &OTHER, e),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            entry.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o600 == 0o600)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            !NO_LIMITS.contains(&name.as_str()) && !MEASURES.iter().any(|end| name.ends_with(end))
        })
        .collect();
    names.sort_unstable();
    for name in names {
        let state = LIMITS
            .iter()
            .find(|(begin, _)| name.starts_with(begin))
            .map_or(&OTHER, |(_, state)| state);
        match fs::read_to_string(dir.join(&name)) {
            Ok(value) => {
                snapshot.enter(subject.clone(), state, format!("{name}: {}", one_line(&value)))
            }
            // It can only be written.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EIO)
                ) => {}
            Err(e) => snapshot.miss(subject.clone(), state, format!("{name}: {e}")),
        }
    }
}

fn owners(dir: &Path, subject: &Subject, snapshot: &mut Snapshot) {
    for name in HANDED_OVER {
        let Ok(meta) = fs::symlink_metadata(dir.join(name)) else { continue };
        let mode = meta.permissions().mode() & 0o7777;
        let name = if name.is_empty() { "." } else { name };
        snapshot.enter(
            subject.clone(),
            &OWNER,
            format!("{name} {}:{} {mode:04o}", meta.uid(), meta.gid()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_cgroups_begin_where_it_sees_them_begin() {
        let mounted = mounts::parse(
            b"5 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n6 1 0:8 /c /sys/cpu rw - cgroup x \
              rw,cpu,cpuacct\n",
        );
        let outside = "0::/lxc.payload.web/init.scope\n4:cpu,cpuacct:/c/lxc/web\n7:name=x:/y\n";
        let found = find_tops(outside, Some("0::/init.scope\n4:cpu,cpuacct:/\n"), &mounted);
        let top = |dir: &str, prefix: &str| Top { dir: dir.into(), prefix: prefix.to_owned() };
        assert_eq!(
            found,
            [top("/sys/fs/cgroup/lxc.payload.web", ""), top("/sys/cpu/lxc/web", "cpu,cpuacct:")]
        );
        let found = find_tops(outside, None, &mounted);
        assert_eq!(found[0], top("/sys/fs/cgroup/lxc.payload.web/init.scope", ""));
    }
}
