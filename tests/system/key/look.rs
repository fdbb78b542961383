//! All that the host sees of a container: its init, its links and theirs on the host, its cgroups,
//! what LXC's tools say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::enter::BRIDGE;
use crate::harness::run::Run;
use crate::harness::seen::Seen;
use crate::harness::{Container, cgroups};

/// Files of /proc/INIT.
const FILES: &[&str] = &[
    "status",
    "limits",
    "environ",
    "cmdline",
    "oom_score_adj",
    "personality",
    "coredump_filter",
    "attr/current",
    "cgroup",
    "mountinfo",
    "uid_map",
    "gid_map",
    "setgroups",
];
const LINKS: &[&str] = &["exe", "cwd"];
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
/// Settings of a cgroup: the ends of their files' names.
const SETTINGS: &[&str] = &[
    ".max",
    ".min",
    ".high",
    ".low",
    ".weight",
    ".depth",
    ".descendants",
    ".subtree_control",
    ".type",
    ".freeze",
];
/// What of links, addresses and routes the kernel gives out anew.
const GIVEN_OUT: &[&str] = &[
    "ifindex",
    "link_index",
    "link_netnsid",
    "link_netns",
    "valid_life_time",
    "preferred_life_time",
    "rx_wt",
    "gc_timer",
];
/// Numbers of prctl(2) for core scheduling.
const PR_SCHED_CORE: i32 = 62;

/// Looks.
pub fn look(container: &Container, keys: &[&str]) -> Seen {
    let mut seen = Seen::new();
    let init = container.init_pid();
    of_init(init, &mut seen);
    of_monitor(init, &mut seen);
    of_links(init, &mut seen);
    of_cgroups(container.name(), &mut seen);
    for key in keys {
        let told = container.lxc("lxc-info").args(["-H", "-c", key]).output();
        seen.insert(format!("lxc-info -c {key}"), told.stdout.replace(&init.to_string(), "INIT"));
    }
    let columns = "NAME,STATE,AUTOSTART,GROUPS,IPV4,IPV6,UNPRIVILEGED";
    let path = container.dir();
    let path = path.parent().unwrap().to_string_lossy().into_owned();
    seen.insert(
        "lxc-ls".into(),
        Run::new("lxc-ls").args(["-P", &path, "-f", "-F", columns]).output().stdout,
    );
    seen
}

fn of_init(init: u32, seen: &mut Seen) {
    let proc = format!("/proc/{init}");
    for file in FILES {
        let text = fs::read(format!("{proc}/{file}"))
            .map_or_else(|e| e.to_string(), |b| String::from_utf8_lossy(&b).replace('\0', " "));
        // The numbers that the host gives it.
        let own = |l: &&str| {
            file != &"status"
                || !["Pid:", "Tgid:", "Ngid:", "PPid:", "NSpid", "NStgid", "NSpgid", "NSsid"]
                    .iter()
                    .any(|k| l.starts_with(k))
        };
        seen.insert(
            format!("init/{file}"),
            text.lines().filter(own).collect::<Vec<_>>().join("\n"),
        );
    }
    for link in LINKS {
        let target = fs::read_link(format!("{proc}/{link}"))
            .map_or_else(|e| e.to_string(), |p| p.display().to_string());
        seen.insert(format!("init/{link}"), target);
    }
    for name in NAMESPACES {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        let whose = if of(&init.to_string()) == of("self") { "the host's" } else { "its own" };
        seen.insert(format!("namespace/{name}"), whose.to_owned());
    }
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    for (name, at) in [("priority", 15), ("nice", 16), ("rt_priority", 37), ("policy", 38)] {
        seen.insert(
            format!("init/stat/{name}"),
            fields.get(at).copied().unwrap_or_default().to_owned(),
        );
    }
    seen.insert("init/core scheduling".into(), core_cookie(init));
}

/// Whether a process shares its core with those of its cookie only.
fn core_cookie(pid: u32) -> String {
    let mut cookie = 0_u64;
    // SAFETY: PR_SCHED_CORE_GET of one task writes a number of 64 bits to the address.
    let returned = unsafe { nix::libc::prctl(PR_SCHED_CORE, 0, pid, 0, &raw mut cookie) };
    match (returned, cookie) {
        (0, 0) => "none".to_owned(),
        (0, _) => "a cookie".to_owned(),
        _ => std::io::Error::last_os_error().to_string(),
    }
}

/// The process that watches over it.
fn of_monitor(init: u32, seen: &mut Seen) {
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let Some(monitor) = status.lines().find_map(|l| l.strip_prefix("PPid:")).map(str::trim) else {
        return;
    };
    let read =
        |file: &str| fs::read_to_string(format!("/proc/{monitor}/{file}")).unwrap_or_default();
    seen.insert("monitor/title".into(), read("cmdline").replace('\0', " ").trim().to_owned());
    seen.insert("monitor/cgroup".into(), read("cgroup"));
    let uid = read("status").lines().find(|l| l.starts_with("Uid:")).unwrap_or_default().to_owned();
    seen.insert("monitor/uid".into(), uid);
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let whose = if mounts(monitor) == mounts("self") { "the host's" } else { "its own" };
    seen.insert("monitor/mounts".into(), whose.to_owned());
}

fn of_links(init: u32, seen: &mut Seen) {
    let questions: &[(&str, &[&str])] = &[
        ("links", &["ip", "-d", "-j", "link"]),
        ("addresses", &["ip", "-j", "addr"]),
        ("routes", &["ip", "-j", "route", "show", "table", "all"]),
        ("routes of IPv6", &["ip", "-6", "-j", "route", "show", "table", "all"]),
        ("rules", &["ip", "-j", "rule"]),
        ("proxies", &["ip", "-j", "neigh", "show", "proxy"]),
        ("queues", &["tc", "-j", "qdisc"]),
    ];
    let of_host: &[(&str, &[&str])] =
        &[("vlans", &["bridge", "-j", "vlan"]), ("forwarding", &["bridge", "-j", "fdb", "show"])];
    let pid = init.to_string();
    for (name, words) in questions {
        let run = Run::new("nsenter").args(["-t", &pid, "-n"]).args(*words);
        seen.insert(format!("inside/{name}"), comparable(&run.output().stdout));
    }
    for (name, words) in questions.iter().chain(of_host) {
        let told = Run::new(words[0]).args(&words[1..]).output();
        seen.insert(format!("host/{name}"), comparable(&told.stdout));
    }
}

/// JSON of ip(8), an object a line, without what the kernel gives out anew.
fn comparable(json: &str) -> String {
    let mut value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    strip(&mut value);
    // Those of the test host itself: a bridge takes the lowest address of its ports.
    let own = |object: &&Value| !["lo", BRIDGE].iter().any(|name| object["ifname"] == *name);
    // What a bridge has learnt from frames that happened to pass; what is configured has a state.
    let learnt = |object: &&Value| object["mac"].is_string() && object["state"] == "";
    let objects = value.as_array().into_iter().flatten();
    let mut lines: Vec<String> =
        objects.filter(own).filter(|o| !learnt(o)).map(of_object).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Without whether the test host's bridge has a port just now: the last container's may be gone.
fn of_object(object: &Value) -> String {
    let mut object = object.clone();
    if object["dev"] == BRIDGE
        && let Some(flags) = object["flags"].as_array_mut()
    {
        flags.retain(|flag| flag != "linkdown");
    }
    object.to_string()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !GIVEN_OUT.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(all) => all.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Of each cgroup that is the container's: its owner, its settings, those of each file.
fn of_cgroups(name: &str, seen: &mut Seen) {
    let root = cgroups::unified();
    let mut left = vec![root.clone()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            let file_name = entry.file_name();
            // Where LXC's monitor moves to when it ends, and what it leaves: a container that has
            // been started before has it (`lxc.cgroup.dir.monitor.pivot`).
            if is_dir && file_name.to_string_lossy().contains("pivot") {
                continue;
            }
            // Where lxc-attach puts its processes.
            if is_dir && file_name != ".lxc" {
                left.push(path.clone());
            }
            let below = path.strip_prefix(&root).unwrap_or(&path);
            if below.to_string_lossy().contains(name) || below.components().count() > 1 {
                seen.insert(format!("cgroup/{}", below.display()), setting(&path, is_dir));
            }
        }
    }
}

fn setting(path: &Path, is_dir: bool) -> String {
    let Ok(meta) = fs::symlink_metadata(path) else { return "gone".to_owned() };
    let text = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match !is_dir && SETTINGS.iter().any(|end| name.ends_with(end)) {
        true => format!("{text} {}", fs::read_to_string(path).unwrap_or_default().trim_end()),
        false => text,
    }
}
