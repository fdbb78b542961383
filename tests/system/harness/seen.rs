//! What is seen of a container, as `key → value`, and how it differs from what was seen before: the
//! same, but for what has to differ.

use std::collections::BTreeMap;

/// What was seen.
pub type Seen = BTreeMap<String, String>;

/// What is not the same after a restart: keys that begin like this, of their lines those that begin
/// like that, and why.
const DIFFERS: &[(&str, &str, &str)] = &[
    ("clock/", "", "time goes on: looked at by itself"),
    ("/proc/sys/kernel/ns_last_pid", "", "the next pid: whoever forks changes it"),
    ("proc/self/stat/start_time", "", "the kernel's process is a new one"),
    ("proc/1/stat/start_time", "", "the kernel's process is a new one"),
    ("proc/self/timens_offsets", "", "by these the clocks go on where they stood"),
    ("proc/1/timens_offsets", "", "by these the clocks go on where they stood"),
    ("keyring/keys", "", "the keys of the whole machine"),
    ("proc/self/status", "FDSize:", "how many descriptors the kernel has room for"),
    ("proc/1/status", "FDSize:", "how many descriptors the kernel has room for"),
    ("init/status", "FDSize:", "how many descriptors the kernel has room for"),
    (
        "init/status",
        "SigBlk:",
        "busybox init blocks signals but while it waits for one; CRIU wakes it",
    ),
    (
        "proc/1/status",
        "SigBlk:",
        "busybox init blocks signals but while it waits for one; CRIU wakes it",
    ),
];

/// What is not as it was: the key, what is gone, and what is new.
pub fn differences(before: &Seen, after: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    for key in before.keys().chain(after.keys().filter(|k| !before.contains_key(*k))) {
        let may_differ: Vec<&str> =
            DIFFERS.iter().filter(|d| key.starts_with(d.0)).map(|d| d.1).collect();
        let show = |seen: &Seen| {
            let text = seen.get(key).map(|value| comparable(key, value))?;
            Some(
                text.lines()
                    .filter(|l| !may_differ.iter().any(|m| l.starts_with(m)))
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
        };
        let (was, is) = (show(before), show(after));
        if was != is {
            let lines = |text: Option<String>| text.unwrap_or_else(|| "(nothing)".to_owned());
            let (was, is) = (lines(was), lines(is));
            let only = |a: &str, b: &str| {
                a.lines().filter(|l| !b.lines().any(|m| m == *l)).collect::<Vec<_>>().join(" | ")
            };
            found.push(format!("{key}: {} → {}", only(&was, &is), only(&is, &was)));
        }
    }
    found
}

/// A value without the numbers that the kernel gives out anew.
fn comparable(key: &str, value: &str) -> String {
    if key.ends_with("/iflink") {
        return String::new();
    }
    if key.ends_with("/mountinfo") {
        let mut mounts: Vec<String> = value.lines().map(mount).collect();
        mounts.sort();
        return mounts.join("\n");
    }
    if key.ends_with("/status") {
        let counted = ["Vm", "Rss", "voluntary", "nonvoluntary", "SigQ", "State"];
        return value
            .lines()
            .filter(|l| !counted.iter().any(|c| l.starts_with(c)))
            .collect::<Vec<_>>()
            .join("\n");
    }
    if key.starts_with("net/") {
        let mut lines: Vec<&str> = value.lines().collect();
        lines.sort_unstable();
        return lines.join("\n");
    }
    if key.contains("/fd/") || key.contains("/ns/") {
        return value.chars().filter(|c| !c.is_ascii_digit()).collect();
    }
    value.to_owned()
}

/// A mount without its number, its parent's, those of its group and of its anonymous device.
fn mount(line: &str) -> String {
    let mut fields = line.split(' ').skip(2);
    let device = fields.next().unwrap_or_default();
    let device = if device.starts_with("0:") { "0:*" } else { device };
    let rest = fields.map(|field| match field.split_once(':') {
        Some((kind @ ("shared" | "master" | "propagate_from"), _)) => kind.to_owned(),
        _ => field.to_owned(),
    });
    // What is said to be mounted is a word; CRIU says the kind of a cgroup2, LXC says "none".
    let rest = rest.map(|field| {
        if line.contains(" - cgroup2 ") && field == "none" { "cgroup2".to_owned() } else { field }
    });
    std::iter::once(device.to_owned()).chain(rest).collect::<Vec<_>>().join(" ")
}
