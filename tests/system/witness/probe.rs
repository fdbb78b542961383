//! All that a process in the container can see of its confinement and its surroundings, as lines
//! `key=value`.
//!
//! Nothing here changes anything that stays. What is tried is undone, or told as the error that it
//! gives.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

unsafe extern "C" {
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn sched_getscheduler(pid: c_int) -> c_int;
    fn getpriority(which: c_int, who: c_uint) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn clock_gettime(clock: c_int, time: *mut [c_long; 2]) -> c_int;
}

/// Files of a process; of this one and of init.
const PROC: &[&str] = &[
    "status", "uid_map", "gid_map", "setgroups", "projid_map", "limits", "oom_score_adj", "attr/current", "attr/exec",
    "cgroup", "mountinfo", "coredump_filter", "timens_offsets", "loginuid", "sessionid", "comm", "cmdline", "environ",
    "personality", "timerslack_ns",
];
const LINKS: &[&str] = &["exe", "cwd", "root", "ns/cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/time", "ns/user", "ns/uts"];
/// Where a container finds how its namespaces are set.
const SYSCTLS: &[&str] = &[
    "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/cap_last_cap", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/msgmnb", "/proc/sys/kernel/msgmni", "/proc/sys/kernel/sem",
    "/proc/sys/kernel/shmall", "/proc/sys/kernel/shmmax", "/proc/sys/kernel/shmmni", "/proc/sys/kernel/shm_rmid_forced",
    "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/pid_max",
    "/proc/sys/fs/mqueue/msg_max", "/proc/sys/net", "/proc/sys/user",
];
/// What is tried with each: opened for reading, opened for writing.
const DEVICES: &str = "/dev";
/// Numbers of devices that are made and removed.
const NODES: &[(u32, u64, u64)] = &[
    (0o020_000, 1, 3), (0o020_000, 1, 5), (0o020_000, 1, 7), (0o020_000, 5, 0), (0o020_000, 10, 229), (0o060_000, 8, 0),
    (0o060_000, 7, 0), (0o010_000, 0, 0),
];
/// System calls that a capability, a seccomp profile or a namespace may forbid, with arguments that
/// do no harm. (Numbers of x86-64.)
#[cfg(target_arch = "x86_64")]
const CALLS: &[(&str, c_long, [c_ulong; 5])] = &[
    ("bpf", 321, [0, 0, 0, 0, 0]),
    ("chroot /", 161, [SLASH, 0, 0, 0, 0]),
    ("delete_module", 176, [0, 0, 0, 0, 0]),
    ("init_module", 175, [0, 0, 0, 0, 0]),
    ("ioperm", 173, [0, 1, 0, 0, 0]),
    ("kexec_load", 246, [0, 0, 0, 0xdead, 0]),
    ("keyctl", 250, [0, 0, 0, 0, 0]),
    ("mount", 165, [SLASH, SLASH, SLASH, 0, 0]),
    ("open_by_handle_at", 304, [0, 0, 0, 0, 0]),
    ("perf_event_open", 298, [0, 0, 0, 0, 0]),
    ("personality", 135, [0xffff_ffff, 0, 0, 0, 0]),
    ("ptrace", 101, [99, 0, 0, 0, 0]),
    ("setns", 308, [9999, 0, 0, 0, 0]),
    ("settimeofday", 164, [1, 0, 0, 0, 0]),
    ("socket packet", 41, [17, 3, 0, 0, 0]),
    ("socket raw", 41, [2, 3, 1, 0, 0]),
    ("swapoff", 168, [SLASH, 0, 0, 0, 0]),
    ("syslog", 103, [10, 0, 0, 0, 0]),
    ("umount2", 166, [NOWHERE, 0, 0, 0, 0]),
    ("unshare none", 272, [0, 0, 0, 0, 0]),
    ("userfaultfd", 323, [0xffff, 0, 0, 0, 0]),
];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: &[(&str, c_long, [c_ulong; 5])] = &[];
/// Stand for the addresses of paths.
const SLASH: c_ulong = 1 << 40;
const NOWHERE: c_ulong = SLASH + 1;

/// All of it.
pub fn all() -> String {
    let mut text = String::new();
    let mut say = |key: String, value: String| {
        text += &format!("{key}={}\n", value.replace('\\', "\\\\").replace('\n', "\\n"));
    };
    for process in ["self", "1"] {
        for file in PROC {
            say(format!("proc/{process}/{file}"), content(&format!("/proc/{process}/{file}")));
        }
        for link in LINKS {
            say(format!("proc/{process}/{link}"), target(&format!("/proc/{process}/{link}")));
        }
        for (number, _) in entries(&format!("/proc/{process}/fd")) {
            let path = format!("/proc/{process}/fd/{number}");
            say(format!("proc/{process}/fd/{number}"), target(&path));
        }
        // Of `stat`: state … session, tty, flags, nice, threads, policy and priority; not what is
        // counted.
        let stat = content(&format!("/proc/{process}/stat"));
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        for (name, at) in [("ppid", 1), ("pgrp", 2), ("session", 3), ("tty", 4), ("priority", 15), ("nice", 16), ("threads", 17), ("exit_signal", 35), ("rt_priority", 37), ("policy", 38), ("start_time", 19)] {
            say(format!("proc/{process}/stat/{name}"), fields.get(at).copied().unwrap_or_default().to_owned());
        }
    }
    for (pid, _) in entries("/proc") {
        if pid.bytes().all(|b| b.is_ascii_digit()) {
            let groups: String = ["PPid:", "Uid:", "Gid:", "NSpid:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp"]
                .iter()
                .flat_map(|start| content(&format!("/proc/{pid}/status")).lines().filter(|l| l.starts_with(start)).map(|l| format!("{l} ")).collect::<Vec<_>>())
                .collect();
            say(format!("process/{pid}"), format!("{} {groups}", content(&format!("/proc/{pid}/cmdline"))));
        }
    }
    for path in SYSCTLS {
        for (file, value) in tree(Path::new(path)) {
            say(file, value);
        }
    }
    for (interface, _) in entries("/sys/class/net") {
        for file in ["address", "mtu", "flags", "operstate", "ifindex", "iflink", "tx_queue_len", "type"] {
            say(format!("net/{interface}/{file}"), content(&format!("/sys/class/net/{interface}/{file}")));
        }
    }
    for file in ["route", "ipv6_route", "if_inet6", "unix", "tcp", "netlink", "packet"] {
        // Addresses in memory and inodes are not the container's.
        let lines = content(&format!("/proc/net/{file}")).lines().count();
        let shown = if ["route", "if_inet6"].contains(&file) { content(&format!("/proc/net/{file}")) } else { lines.to_string() };
        say(format!("net/{file}"), shown);
    }
    for (name, kind) in entries(DEVICES) {
        let path = format!("{DEVICES}/{name}");
        let meta = fs::metadata(&path).map(|m| format!("{:o} {}:{} {:x} {}", m.mode(), m.uid(), m.gid(), m.rdev(), m.file_type().is_char_device()));
        say(format!("dev/{name}"), format!("{kind} {}", result(meta)));
        // A terminal that nobody reads must not be waited for.
        if name != "console" && !name.starts_with("tty") && name != "ptmx" {
            say(format!("dev/{name}/read"), result(File::open(&path).map(|_| "opened")));
            if fs::metadata(&path).is_ok_and(|m| !m.is_dir()) {
                say(format!("dev/{name}/write"), result(OpenOptions::new().write(true).open(&path).map(|_| "opened")));
            }
        }
    }
    for (mode, major, minor) in NODES {
        let path = c"/tmp/probe-node";
        // SAFETY: the path is a C string.
        let made = checked(unsafe { mknod(path.as_ptr(), mode | 0o600, (major << 8) | minor) }.into());
        say(format!("mknod/{mode:o}/{major}:{minor}"), result(made));
        let _ = fs::remove_file("/tmp/probe-node");
    }
    for (name, number, arguments) in CALLS {
        let (slash, nowhere) = (c"/", c"/nowhere");
        let [a, b, c, d, e] = arguments.map(|argument| match argument {
            SLASH => slash.as_ptr() as c_ulong,
            NOWHERE => nowhere.as_ptr() as c_ulong,
            other => other,
        });
        // SAFETY: each either has nothing to do or is refused: see the arguments.
        let returned = checked(unsafe { syscall(*number, a, b, c, d, e) });
        // A descriptor is closed at once; its number says nothing.
        let told = match returned {
            Ok(fd) if name.starts_with("socket") || *name == "userfaultfd" => {
                // SAFETY: close(2) of the descriptor that was just made.
                unsafe { syscall(3, fd) };
                Ok("descriptor".to_owned())
            }
            other => other.map(|n| n.to_string()),
        };
        say(format!("call/{name}"), result(told));
    }
    let options = [
        ("pdeathsig", 2), ("dumpable", 3), ("keepcaps", 7), ("timing", 13), ("securebits", 27), ("timerslack", 30),
        ("child_subreaper", 37), ("no_new_privs", 39), ("thp_disable", 42),
    ];
    for (name, option) in options {
        let mut value: c_int = -1;
        let at = if ["pdeathsig", "child_subreaper"].contains(&name) { std::ptr::from_mut(&mut value) as c_ulong } else { 0 };
        // SAFETY: questions; the two that take an address get that of an int.
        let told = checked(unsafe { prctl(option, at, 0, 0, 0) }.into()).map(|n| if at == 0 { n } else { value.into() });
        say(format!("prctl/{name}"), result(told));
    }
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_READ and PR_CAP_AMBIENT_IS_SET are questions.
        let (bounding, ambient) = unsafe { (prctl(23, capability, 0, 0, 0), prctl(47, 1, capability, 0, 0)) };
        say(format!("capability/{capability}"), format!("{bounding} {ambient}"));
    }
    // The session keyring: nobody else's secrets must be in reach. (KEYCTL_DESCRIBE of
    // KEY_SPEC_SESSION_KEYRING.)
    #[cfg(target_arch = "x86_64")]
    {
        let mut text = [0_u8; 256];
        let session = (-3_i64).cast_unsigned();
        // SAFETY: the buffer has the length that is told.
        let length = unsafe { syscall(250, 6 as c_ulong, session, text.as_mut_ptr(), text.len() as c_ulong) };
        let told = checked(length).map(|n| String::from_utf8_lossy(&text[..(n as usize).clamp(1, 256) - 1]).into_owned());
        say("keyring/session".into(), result(told));
        let keys = content("/proc/keys");
        let known: Vec<&str> = keys.lines().filter_map(|l| l.split_ascii_whitespace().nth(8)).collect();
        say("keyring/keys".into(), known.join(" "));
    }
    // SAFETY: questions about ourselves.
    let (policy, nice) = unsafe { (sched_getscheduler(0), getpriority(0, 0)) };
    say("scheduler".into(), format!("{policy} {nice}"));
    let hostname = content("/proc/sys/kernel/hostname");
    let name = CString::new(hostname.trim()).unwrap_or_default();
    // SAFETY: the name that it has already.
    say("sethostname".into(), result(checked(unsafe { sethostname(name.as_ptr(), name.as_bytes().len()) }.into())));
    // Opened only: what would be written is the whole machine's.
    for path in ["/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/oom_score_adj"] {
        say(format!("write/{path}"), result(OpenOptions::new().write(true).open(path).map(|_| "opened")));
    }
    for (name, clock) in [("monotonic", 1), ("boottime", 7)] {
        let mut time = [0; 2];
        // SAFETY: the two numbers live through the call.
        unsafe { clock_gettime(clock, &mut time) };
        say(format!("clock/{name}"), (time[0] * 1000 + time[1] / 1_000_000).to_string());
    }
    let uptime = content("/proc/uptime");
    let seconds: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or_default();
    say("clock/uptime".into(), ((seconds * 1000.0) as u64).to_string());
    text + "end\n"
}

fn checked(returned: c_long) -> io::Result<c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

fn result<T: ToString>(result: io::Result<T>) -> String {
    result.map_or_else(|e| format!("error {}", e.raw_os_error().unwrap_or_default()), |v| v.to_string())
}

fn content(path: &str) -> String {
    fs::read(path).map_or_else(|e| result::<String>(Err(e)), |bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
}

fn target(path: &str) -> String {
    result(fs::read_link(path).map(|p| p.to_string_lossy().into_owned()))
}

/// Names and kinds, sorted.
fn entries(dir: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(dir)
        .map(|all| all.flatten().map(|e| (e.file_name().to_string_lossy().into_owned(), e.file_type().map(|t| format!("{}{}{}", u8::from(t.is_dir()), u8::from(t.is_symlink()), u8::from(t.is_char_device()))).unwrap_or_default())).collect())
        .unwrap_or_default();
    found.sort();
    found
}

/// The files below a path, with what is in them.
fn tree(path: &Path) -> Vec<(String, String)> {
    if !path.is_dir() {
        let name = path.to_string_lossy().into_owned();
        let value = content(&name);
        return vec![(name, value)];
    }
    entries(&path.to_string_lossy()).into_iter().flat_map(|(name, _)| tree(&path.join(name))).collect()
}
