//! The files of a cgroup directory that hold a setting: limits, weights, controllers handed on.
//!
//! CRIU knows the controllers of ten years ago; liblxc's restore sets none. Here every file that
//! can be read and written counts as a setting, so that a controller of tomorrow's kernel is kept,
//! too. What the kernel gives a new directory anyway is not recorded, and what a new directory has
//! already is not written. The files of cgroup2 and of v1 have different names; so both stand in
//! the same lists.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};

/// File names and what is in them.
pub(crate) type Limits = BTreeMap<String, String>;

/// Controllers that are handed on to the directories below.
const SUBTREE: &str = "cgroup.subtree_control";
/// `threaded` here makes of a directory one whose threads may be in different ones.
const TYPE: &str = "cgroup.type";
/// Larger than any setting; a file that has more is none.
const MAX_LENGTH: u64 = 64 << 10;
/// At this number a limit is none: what fits into no machine (`PAGE_COUNTER_MAX`, rounded to a huge
/// page).
const NO_LIMIT: u64 = 1 << 62;

/// Files that can be read and written and hold no setting: tasks, events to wait for, marks and
/// counts to reset, and what is kept elsewhere.
fn is_no_setting(name: &str) -> bool {
    let no_setting =
        ["cgroup.procs", "cgroup.threads", "cgroup.freeze", "cgroup.kill", "memory.reclaim"];
    let no_setting_of_v1 = ["freezer.state", "cpuacct.usage", "devices.allow", "devices.deny"];
    no_setting.contains(&name)
        || no_setting_of_v1.contains(&name)
        || name.ends_with(".pressure") && name != "cgroup.pressure"
        || [".peak", ".failcnt", ".max_usage_in_bytes"].iter().any(|end| name.ends_with(end))
        || name.contains('/')
        || !name.contains('.')
}

/// What a new directory has, where that is the same on every kernel
/// (Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/).
fn is_given_anyway(name: &str, value: &str) -> bool {
    match name {
        "cpu.weight" => value == "100",
        "cpu.max" => value == "max 100000",
        "cpu.uclamp.min" => value == "0.00",
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight_device" => value == "default 100",
        "blkio.bfq.weight" => value == "100",
        "io.prio.class" => value == "no-change",
        "cpuset.cpus.partition" => value == "member",
        "cgroup.pressure" | "memory.zswap.writeback" => value == "1",
        TYPE => value != "threaded",
        "cpu.shares" => value == "1024",
        "cpu.cfs_quota_us" | "cpuset.sched_relax_domain_level" => value == "-1",
        "cpu.cfs_period_us" => value == "100000",
        "cpu.rt_period_us" => value == "1000000",
        "memory.use_hierarchy" | "cpuset.sched_load_balance" => value == "1",
        // A priority for each link of the host.
        "net_prio.ifpriomap" => value.lines().all(|line| line.ends_with(" 0")),
        // A limit of nothing is one, too.
        _ => is_none(value) || (value == "0" && !is_limit(name)),
    }
}

/// Whether a value limits nothing.
fn is_none(value: &str) -> bool {
    value.is_empty() || value == "max" || value.parse::<u64>().is_ok_and(|n| n >= NO_LIMIT)
}

/// Whether this is a limit, not a share: what may be taken at most, or where.
fn is_limit(name: &str) -> bool {
    let ends =
        [".max", ".high", ".max.depth", ".max.descendants", ".uclamp.max", ".limit_in_bytes"];
    ends.iter().any(|e| name.ends_with(e))
        || ["cpuset.cpus", "cpuset.mems", "cpu.cfs_quota_us"].contains(&name)
        || name.starts_with("blkio.throttle.")
}

/// Whether a container that does not have this setting could take more than it may.
fn confines(name: &str, value: &str) -> bool {
    let unlimited = match name {
        "cpu.max" => value.starts_with("max"),
        "cpu.cfs_quota_us" => value.starts_with('-'),
        "memory.soft_limit_in_bytes" => true,
        _ => is_none(value),
    };
    is_limit(name) && !unlimited
}

/// The settings of a directory.
pub(crate) fn read(dir: &Path) -> Result<Limits> {
    let what = || format!("read the settings of cgroup {}", dir.display());
    let mut limits = Limits::new();
    for entry in fs::read_dir(dir).with_context(what)? {
        let entry = entry.with_context(what)?;
        let meta = entry.metadata().with_context(what)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !meta.is_file() || meta.mode() & 0o600 != 0o600 || is_no_setting(&name) {
            continue;
        }
        // Some can be written, but say that they do not apply to this directory.
        let Ok(value) = read_value(dir, &name) else { continue };
        if value.len() as u64 <= MAX_LENGTH
            && !is_given_anyway(&name, &value)
            && !is_inherited(dir, &name, &value)
        {
            limits.insert(name, value);
        }
    }
    Ok(limits)
}

/// The settings that a configuration's `lxc.cgroup2.*` lines make; a file may take several, one
/// line each.
pub(crate) fn of_config(items: &[(String, String)]) -> Limits {
    let mut limits = Limits::new();
    for (name, value) in
        items.iter().filter(|(name, _)| !name.starts_with("devices") && !is_no_setting(name))
    {
        let lines = limits.entry(name.clone()).or_default();
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(value);
    }
    limits
}

/// Limits that cannot be set in this directory, for this host does not have them there: their names
/// and values.
pub(crate) fn missing(dir: &Path, limits: &Limits) -> Vec<String> {
    let absent = |name: &str| fs::symlink_metadata(dir.join(name)).is_err();
    let confining = limits.iter().filter(|(n, v)| !is_no_setting(n) && confines(n, v) && absent(n));
    confining.map(|(name, value)| format!("{name} = {value}")).collect()
}

/// Whether there is something that only a directory without tasks can be given.
pub(crate) fn has_structure(limits: &Limits) -> bool {
    limits.contains_key(TYPE) || limits.contains_key(SUBTREE)
}

/// Makes of a directory what its type and its controllers say: before there are tasks in it,
/// parents first.
pub(crate) fn set_structure(dir: &Path, limits: &Limits) -> Result<()> {
    if let Some(value) = limits.get(TYPE) {
        set(dir, TYPE, value)?;
    }
    if let Some(value) = limits.get(SUBTREE) {
        let all: Vec<String> = value.split_ascii_whitespace().map(|c| format!("+{c}")).collect();
        set(dir, SUBTREE, &all.join(" "))?;
    }
    Ok(())
}

/// Sets all else; returns what could not be set and confines nobody.
///
/// # Errors
/// When a limit cannot be set.
pub(crate) fn apply(dir: &Path, limits: &Limits) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    // In the order of their names `cpu.idle` comes before the weight that it forbids, quotas before
    // what they bound.
    for (name, value) in limits.iter().filter(|(name, _)| ![SUBTREE, TYPE].contains(&name.as_str()))
    {
        if is_no_setting(name) || read_value(dir, name).is_ok_and(|now| now == *value) {
            continue;
        }
        match set(dir, name, value) {
            Ok(()) => {}
            Err(e) if confines(name, value) => return Err(e),
            Err(e) => notes.push(format!("{e:#}")),
        }
    }
    Ok(notes)
}

/// Whether a directory of v1 has a value only because the one above it has, from whom a new one
/// takes it.
fn is_inherited(dir: &Path, name: &str, value: &str) -> bool {
    let inherits = ["cpuset.cpus", "cpuset.mems", "memory.swappiness", "cgroup.clone_children"]
        .contains(&name);
    let above = || dir.parent().and_then(|above| read_value(above, name).ok());
    inherits
        && dir.join("cgroup.clone_children").exists()
        && (name.starts_with("cgroup.") || above().is_some_and(|v| v == value))
}

/// What is in a file, in the words in which it is written.
fn read_value(dir: &Path, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(dir.join(name))?;
    let switch = |line: &str| line.strip_prefix("oom_kill_disable ").map(str::to_owned);
    match name {
        "memory.oom_control" => Ok(text.lines().find_map(switch).unwrap_or_default()),
        _ => Ok(text.trim_end().to_owned()),
    }
}

/// Writes a setting, each line by itself: the kernel takes one at a time.
fn set(dir: &Path, name: &str, value: &str) -> Result<()> {
    // `root invalid (reason)` was asked for as `root`.
    let value = if name == "cpuset.cpus.partition" {
        value.split(' ').next().unwrap_or(value)
    } else {
        value
    };
    for line in value.lines().chain(value.is_empty().then_some("")) {
        let what = || format!("set {name} of cgroup {} to '{line}'", dir.display());
        let mut file = fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join(name))
            .with_context(what)?;
        file.write_all(format!("{line}\n").as_bytes()).with_context(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(dir.path().join(name), value).unwrap();
        }
        dir
    }

    fn limits(of: &[(&str, &str)]) -> Limits {
        of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn only_settings_that_somebody_made_are_recorded() {
        let dir = directory(&[
            ("cgroup.procs", "1\n"),
            ("cgroup.subtree_control", "memory pids\n"),
            ("cgroup.type", "domain\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.weight", "100\n"),
            ("cpu.pressure", "some avg10=0.00\n"),
            ("hugetlb.1GB.max", "9223372036854771712\n"),
            (
                "io.max",
                "8:16 rbps=2097152 wbps=max riops=max wiops=120\n8:0 rbps=1 wbps=max riops=max \
                 wiops=max\n",
            ),
            ("memory.max", "1073741824\n"),
            ("memory.high", "max\n"),
            ("memory.peak", "4096\n"),
            ("memory.low", "0\n"),
            ("memory.swap.max", "0\n"),
            ("memory.zswap.writeback", "0\n"),
            ("pids.max", "max\n"),
            ("tomorrow.thing", "7\n"),
        ]);
        let found = read(dir.path()).unwrap();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "cgroup.subtree_control",
                "cpu.max",
                "io.max",
                "memory.max",
                "memory.swap.max",
                "memory.zswap.writeback",
                "tomorrow.thing"
            ]
        );
        assert_eq!(found["memory.max"], "1073741824");
    }

    #[test]
    fn of_v1_only_settings_that_somebody_made_are_recorded() {
        let above = directory(&[
            ("cpuset.cpus", "0-3\n"),
            ("cpuset.mems", "0\n"),
            ("memory.swappiness", "60\n"),
        ]);
        let dir = above.path().join("lxc.payload.t");
        fs::create_dir(&dir).unwrap();
        for (name, value) in [
            ("cgroup.clone_children", "1\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.shares", "1024\n"),
            ("cpuacct.usage", "12345\n"),
            ("cpuset.cpus", "0-1\n"),
            ("cpuset.mems", "0\n"),
            ("freezer.state", "FROZEN\n"),
            ("memory.failcnt", "3\n"),
            ("memory.limit_in_bytes", "104857600\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n"),
            ("memory.swappiness", "60\n"),
            ("net_prio.ifpriomap", "lo 0\neth0 0\n"),
            ("notify_on_release", "1\n"),
            ("tasks", "1\n"),
        ] {
            fs::write(dir.join(name), value).unwrap();
        }
        let wanted = [
            ("cpu.cfs_quota_us", "50000"),
            ("cpuset.cpus", "0-1"),
            ("memory.limit_in_bytes", "104857600"),
            ("memory.oom_control", "1"),
        ];
        assert_eq!(read(&dir).unwrap(), limits(&wanted));
        let none = tempfile::tempdir().unwrap();
        assert_eq!(
            missing(none.path(), &limits(&wanted)),
            ["cpu.cfs_quota_us = 50000", "cpuset.cpus = 0-1", "memory.limit_in_bytes = 104857600"]
        );
    }

    #[test]
    fn lines_of_the_configuration_add_up() {
        let items: Vec<(String, String)> = [
            ("memory.max", "1G"),
            ("devices.deny", "a"),
            ("io.max", "8:16 rbps=1"),
            ("io.max", "8:0 rbps=2"),
            ("cgroup.procs", "1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        assert_eq!(
            of_config(&items),
            limits(&[("memory.max", "1G"), ("io.max", "8:16 rbps=1\n8:0 rbps=2")])
        );
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error_and_a_share_is_told() {
        let dir = directory(&[("pids.max", "0\n")]);
        let wanted = limits(&[
            ("memory.max", "4096"),
            ("memory.high", "max"),
            ("cpu.weight", "200"),
            ("pids.max", "7"),
        ]);
        assert_eq!(missing(dir.path(), &wanted), ["memory.max = 4096"]);
        assert!(apply(dir.path(), &wanted).unwrap_err().to_string().contains("memory.max"));
        let notes =
            apply(dir.path(), &limits(&[("cpu.weight", "200"), ("pids.max", "7")])).unwrap();
        assert!(notes.len() == 1 && notes[0].contains("cpu.weight"), "{notes:?}");
        assert_eq!(fs::read_to_string(dir.path().join("pids.max")).unwrap(), "7\n");
        assert!(!dir.path().join("cpu.weight").exists());
    }

    #[test]
    fn a_record_made_by_hand_writes_nothing_else() {
        let dir = directory(&[("cgroup.procs", "")]);
        let made = limits(&[("../escape.max", "1"), ("cgroup.procs", "1"), ("cgroup.kill", "1")]);
        assert!(missing(dir.path(), &made).is_empty());
        assert!(apply(dir.path(), &made).unwrap().is_empty());
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.procs")).unwrap(), "");
        assert!(!dir.path().parent().unwrap().join("escape.max").exists());
    }

    #[test]
    fn controllers_are_handed_on() {
        let dir = directory(&[("cgroup.subtree_control", "")]);
        set_structure(dir.path(), &limits(&[("cgroup.subtree_control", "memory pids")])).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(),
            "+memory +pids\n"
        );
    }
}
