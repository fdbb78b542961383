//! What a process has as a whole.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::compare::plain;
use super::family::Family;
use super::proc::{Thread, digest, field, last_number, link, note, processes, stat_field};
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};
use super::threads::without_timers;
use crate::sys::process::number_inside;

/// Processes.
pub(crate) const FAMILY: Family = Family { name: "tasks", states: rows, read };

states! { rows;
    PROCESS = "process", PutBack::Criu, Class::Breaks, "the process is not there";
    ZOMBIE = "exit-status", PutBack::Criu, Class::Breaks, "its parent learns of another end";
    EXIT_SIGNAL = "exit-signal", PutBack::Criu, Class::Breaks, "its parent gets another signal, or none, when it ends";
    PARENT = "parent", PutBack::Criu, Class::Breaks, "its parent cannot wait for it";
    GROUP = "process-group", PutBack::Criu, Class::Breaks, "signals to its group do not reach it";
    SESSION = "session", PutBack::Criu, Class::Breaks, "job control does not work";
    TERMINAL = "controlling-terminal", PutBack::Criu, Class::Breaks, "job control does not work";
    FOREGROUND = "foreground-group", PutBack::Criu, Class::Breaks, "keys of the terminal signal others";
    THREADS = "threads", PutBack::Criu, Class::Breaks, "it has other threads";
    UMASK = "umask", PutBack::Criu, Class::Weakens, "files it makes have other permissions";
    IGNORED = "signals.ignored", PutBack::Criu, Class::Breaks, "a signal ends it that did not";
    CAUGHT = "signals.caught", PutBack::Criu, Class::Breaks, "a signal ends it that did not";
    PENDING = "signals.pending", PutBack::Criu, Class::Breaks, "a signal is lost or comes twice";
    QUEUED = "signals.queued", PutBack::Criu, Class::Varies, "the kernel counts signals of all processes of a user on the host";
    COREDUMPING = "core-dumping", PutBack::Cannot("it is about to end"), Class::Varies, "a task that dumps core ends before it is checkpointed";
    HUGE_PAGES = "huge-pages", PutBack::Criu, Class::Bearable, "it is slower, or takes more memory";
    UNTAG_MASK = "untag-mask", PutBack::Criu, Class::Breaks, "its tagged pointers are refused";
    KSM = "ksm.merge-any", PutBack::Us, Class::Bearable, "it takes more memory";
    COMMAND_LINE = "command-line", PutBack::Criu, Class::Bearable, "ps shows another command";
    ENVIRONMENT = "environment", PutBack::Criu, Class::Bearable, "others see another environment of it";
    AUXV = "auxiliary-vector", PutBack::Criu, Class::Bearable, "debuggers do not find its libraries";
    EXECUTABLE = "executable", PutBack::Criu, Class::Breaks, "/proc/self/exe is another file";
    OOM = "oom-score-adj", PutBack::Criu, Class::Bearable, "it is killed sooner, or later, when memory is short";
    CORE_FILTER = "coredump-filter", PutBack::Us, Class::Bearable, "its core dumps hold other memory";
    AUDIT_SESSION = "audit-session", PutBack::Criu, Class::Varies, "the kernel counts sessions since boot";
    AUTOGROUP = "autogroup-nice", PutBack::Us, Class::Bearable, "its session gets another share of the processor";
    LAYOUT = "memory-layout", PutBack::Criu, Class::Breaks, "its heap cannot grow, or ps shows garbage";
    PROC_OWNER = "proc-owner", PutBack::Criu, Class::Weakens, "other processes of its user may read its memory, or no longer can";
    STARTED = "start-time", PutBack::Cannot("the kernel sets it"), Class::Varies, "the restored task is a new one to the kernel";
    CPU_TIME = "cpu-time", PutBack::Cannot("the kernel counts it"), Class::Varies, "the restored task is a new one to the kernel";
    LOCKED = "memory-locked", PutBack::Criu, Class::Varies, "area.locked compares it area by area";
    LIMIT_CPU = "limit.cpu", PutBack::Criu, Class::Breaks, "it may use more or less processor time";
    LIMIT_FSIZE = "limit.fsize", PutBack::Criu, Class::Breaks, "it may write larger or only smaller files";
    LIMIT_DATA = "limit.data", PutBack::Criu, Class::Breaks, "it gets more or less memory";
    LIMIT_STACK = "limit.stack", PutBack::Criu, Class::Breaks, "it gets more or less stack";
    LIMIT_CORE = "limit.core", PutBack::Criu, Class::Bearable, "it dumps core, or no longer does";
    LIMIT_RSS = "limit.rss", PutBack::Criu, Class::Bearable, "nothing: the kernel ignores it";
    LIMIT_NPROC = "limit.nproc", PutBack::Criu, Class::Breaks, "its user may have more or fewer processes";
    LIMIT_NOFILE = "limit.nofile", PutBack::Criu, Class::Breaks, "it may open more or fewer files";
    LIMIT_MEMLOCK = "limit.memlock", PutBack::Criu, Class::Breaks, "it may lock more or less memory";
    LIMIT_AS = "limit.as", PutBack::Criu, Class::Breaks, "it gets more or less memory";
    LIMIT_LOCKS = "limit.locks", PutBack::Criu, Class::Bearable, "nothing: the kernel ignores it";
    LIMIT_SIGPENDING = "limit.sigpending", PutBack::Criu, Class::Breaks, "more or fewer signals can wait for it";
    LIMIT_MSGQUEUE = "limit.msgqueue", PutBack::Criu, Class::Breaks, "its message queues can hold more or less";
    LIMIT_NICE = "limit.nice", PutBack::Criu, Class::Breaks, "it may raise its priority further, or less far";
    LIMIT_RTPRIO = "limit.rtprio", PutBack::Criu, Class::Breaks, "it may raise its priority further, or less far";
    LIMIT_RTTIME = "limit.rttime", PutBack::Criu, Class::Breaks, "its real-time threads may run longer, or less long";
}

/// Lines of /proc/PID/limits.
static LIMITS: &[(&str, &State)] = &[
    ("Max cpu time", &LIMIT_CPU),
    ("Max file size", &LIMIT_FSIZE),
    ("Max data size", &LIMIT_DATA),
    ("Max stack size", &LIMIT_STACK),
    ("Max core file size", &LIMIT_CORE),
    ("Max resident set", &LIMIT_RSS),
    ("Max processes", &LIMIT_NPROC),
    ("Max open files", &LIMIT_NOFILE),
    ("Max locked memory", &LIMIT_MEMLOCK),
    ("Max address space", &LIMIT_AS),
    ("Max file locks", &LIMIT_LOCKS),
    ("Max pending signals", &LIMIT_SIGPENDING),
    ("Max msgqueue size", &LIMIT_MSGQUEUE),
    ("Max nice priority", &LIMIT_NICE),
    ("Max realtime priority", &LIMIT_RTPRIO),
    ("Max realtime timeout", &LIMIT_RTTIME),
];

/// Fields of /proc/PID/status, as the kernel writes them.
static STATUS: &[(&str, &State)] = &[
    ("Threads", &THREADS),
    ("Umask", &UMASK),
    ("SigIgn", &IGNORED),
    ("SigCgt", &CAUGHT),
    ("SigQ", &QUEUED),
    ("CoreDumping", &COREDUMPING),
    ("THP_enabled", &HUGE_PAGES),
    ("untag_mask", &UNTAG_MASK),
    ("VmLck", &LOCKED),
];

/// Fields of `stat` with addresses of code, stack, data, heap, arguments and environment.
const ADDRESSES: [usize; 10] = [26, 27, 28, 45, 46, 47, 48, 49, 50, 51];

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    for host_pid in &standing.tasks {
        let Some(pid) = number_inside(*host_pid) else { continue };
        snapshot.enter(Subject::Task { pid }, &PROCESS, "there");
        of_tree(*host_pid, pid, snapshot);
    }
    for process in processes(standing) {
        of_status(&process, snapshot);
        of_stat(&process, snapshot);
        of_files(&process, snapshot);
        of_limits(&process, snapshot);
    }
}

/// What zombies have, too.
fn of_tree(host_pid: i32, pid: i32, snapshot: &mut Snapshot) {
    let subject = || Subject::Task { pid };
    let read = |name| fs::read(format!("/proc/{host_pid}/{name}"));
    let (stat, status) = match (read("stat"), read("status")) {
        (Ok(stat), Ok(status)) => (stat, status),
        (Err(e), _) | (_, Err(e)) => return snapshot.miss(subject(), &PARENT, e),
    };
    let (stat, status) = (String::from_utf8_lossy(&stat), String::from_utf8_lossy(&status));
    let number = |name| field(&status, name).and_then(last_number).unwrap_or_default().to_string();
    snapshot.enter(subject(), &GROUP, number("NSpgid"));
    snapshot.enter(subject(), &SESSION, number("NSsid"));
    if pid != 1 {
        let parent = field(&status, "PPid")
            .and_then(last_number)
            .and_then(number_inside)
            .unwrap_or_default();
        snapshot.enter(subject(), &PARENT, parent.to_string());
    }
    let fields = [(7, &TERMINAL), (22, &STARTED), (38, &EXIT_SIGNAL), (52, &ZOMBIE)];
    for (at, state) in fields {
        let value = stat_field(&stat, at).unwrap_or_default();
        snapshot.enter(
            subject(),
            state,
            if state.name == TERMINAL.name { terminal(value) } else { value.to_owned() },
        );
    }
    let foreground =
        stat_field(&stat, 8).and_then(|group| group.parse().ok()).filter(|group| *group > 0);
    let inside = foreground
        .map(|group: i32| number_inside(group).map_or("ended".to_owned(), |g| g.to_string()));
    snapshot.enter(subject(), &FOREGROUND, inside.unwrap_or_else(|| "none".to_owned()));
    let times =
        (stat_field(&stat, 14).unwrap_or_default(), stat_field(&stat, 15).unwrap_or_default());
    snapshot.enter(subject(), &CPU_TIME, format!("{} {}", times.0, times.1));
}

/// The device of a terminal; which pseudo terminal of the host the console is depends on the host.
fn terminal(device: &str) -> String {
    let device: u64 = device.parse().unwrap_or_default();
    match (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00) {
        (0, 0) => "none".to_owned(),
        (136..=143, _) => "a pseudo terminal".to_owned(),
        (major, minor) => format!("{major}:{minor}"),
    }
}

fn of_status(process: &Thread, snapshot: &mut Snapshot) {
    let status = match process.file("status") {
        Ok(status) => status,
        Err(e) => return snapshot.miss(process.process(), &UMASK, e),
    };
    for (name, state) in STATUS {
        if let Some(value) = field(&status, name) {
            snapshot.enter(process.process(), state, value);
        }
    }
    if let Some(pending) = field(&status, "ShdPnd") {
        snapshot.enter(process.process(), &PENDING, without_timers(pending));
    }
}

fn of_stat(process: &Thread, snapshot: &mut Snapshot) {
    let stat = process.file("stat").unwrap_or_default();
    let hex = |at: usize| -> Option<String> {
        Some(format!("{:x}", stat_field(&stat, at)?.parse::<u64>().ok()?))
    };
    let addresses: Option<Vec<String>> = ADDRESSES.iter().map(|at| hex(*at)).collect();
    let addresses = addresses.map(|all| all.join(" ")).ok_or("no addresses in /proc/PID/stat");
    note(snapshot, process.process(), &LAYOUT, addresses);
}

fn of_files(process: &Thread, snapshot: &mut Snapshot) {
    let subject = || process.process();
    let bytes = |name: &str| fs::read(process.path(name));
    let trimmed = |name: &str| process.file(name).map(|text| text.trim().to_owned());
    note(snapshot, subject(), &COMMAND_LINE, bytes("cmdline").map(|line| command_line(&line)));
    note(
        snapshot,
        subject(),
        &ENVIRONMENT,
        bytes("environ").map(|environment| digest(&environment)),
    );
    note(snapshot, subject(), &AUXV, bytes("auxv").map(|vector| digest(&vector)));
    note(snapshot, subject(), &EXECUTABLE, link(&process.path("exe")));
    note(snapshot, subject(), &OOM, trimmed("oom_score_adj"));
    note(snapshot, subject(), &CORE_FILTER, trimmed("coredump_filter"));
    note(snapshot, subject(), &AUDIT_SESSION, trimmed("sessionid"));
    // Kernels without them have no such files.
    if let Ok(text) = trimmed("ksm_stat")
        && let Some(any) =
            field(&text, "ksm_merge_any").or_else(|| word_after(&text, "ksm_merge_any"))
    {
        snapshot.enter(subject(), &KSM, any);
    }
    if let Ok(text) = trimmed("autogroup")
        && let Some(nice) = word_after(&text, "nice")
    {
        snapshot.enter(subject(), &AUTOGROUP, nice);
    }
    // The kernel gives these files to root where the process may not be dumped.
    let owner = fs::metadata(process.path("environ")).map(|file| file.uid().to_string());
    note(snapshot, subject(), &PROC_OWNER, owner);
}

fn word_after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.split_once(word)?.1.split_ascii_whitespace().next()
}

/// Short ones as they are, the arguments with a space between them.
fn command_line(line: &[u8]) -> String {
    const SHORT: usize = 200;
    let spaced: Vec<u8> = line.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    if line.len() > SHORT { digest(line) } else { plain(&spaced).trim_end().to_owned() }
}

fn of_limits(process: &Thread, snapshot: &mut Snapshot) {
    match process.file("limits") {
        Ok(text) => {
            for (name, state) in LIMITS {
                if let Some(limit) = limit_of(&text, name) {
                    snapshot.enter(process.process(), state, limit);
                }
            }
        }
        Err(e) => snapshot.miss(process.process(), &LIMIT_NOFILE, e),
    }
}

/// Soft and hard limit.
fn limit_of(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_ascii_whitespace();
    Some(format!("{} {}", words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           \
                      Units     \nMax cpu time              unlimited            \
                      unlimited            seconds   \nMax open files            \
                      1024                 524288               files     \n";
        assert_eq!(limit_of(limits, "Max open files").as_deref(), Some("1024 524288"));
        assert_eq!(limit_of(limits, "Max nice priority"), None);
        assert_eq!(word_after("/autogroup-42 nice -3", "nice"), Some("-3"));
        assert_eq!(
            word_after("ksm_zero_pages 0\nksm_merge_any: yes\n", "ksm_merge_any:"),
            Some("yes")
        );
        assert_eq!(
            (terminal("0").as_str(), terminal("34816").as_str()),
            ("none", "a pseudo terminal")
        );
        assert_eq!(terminal("1025"), "4:1");
        assert_eq!(command_line(b"sh\0-c\0a\x1b\0"), r"sh -c a\x1b");
    }
}
