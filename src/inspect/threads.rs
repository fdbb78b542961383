//! What each thread has of its own: credentials, confinement, signals, scheduling.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::compare::plain;
use super::family::Family;
use super::proc::{Thread, field, link, note, stat_field, threads};
use super::snapshot::{Snapshot, Standing};
use super::state::{Class, PutBack, State, states};
use crate::sys::kernel_state::{self, Scheduling, Shared};

/// Threads.
pub(crate) const FAMILY: Family = Family { name: "threads", states: rows, read };

states! { rows;
    THREAD = "thread", PutBack::Criu, Class::Breaks, "the thread is not there";
    COMM = "comm", PutBack::Criu, Class::Bearable, "ps shows another name";
    UIDS = "uids", PutBack::Criu, Class::Weakens, "it runs as another user";
    GIDS = "gids", PutBack::Criu, Class::Weakens, "it runs as another group";
    GROUPS = "groups", PutBack::Criu, Class::Weakens, "it has other supplementary groups";
    CAP_INHERITABLE = "capabilities.inheritable", PutBack::Criu, Class::Weakens, "programs it executes get other capabilities";
    CAP_PERMITTED = "capabilities.permitted", PutBack::Criu, Class::Weakens, "it can take other capabilities";
    CAP_EFFECTIVE = "capabilities.effective", PutBack::Criu, Class::Weakens, "it has other capabilities";
    CAP_BOUNDING = "capabilities.bounding", PutBack::Criu, Class::Weakens, "programs it executes can get other capabilities";
    CAP_AMBIENT = "capabilities.ambient", PutBack::Criu, Class::Weakens, "programs it executes get other capabilities";
    NO_NEW_PRIVS = "no-new-privs", PutBack::Criu, Class::Weakens, "set-user-ID programs give privileges again";
    SECCOMP = "seccomp.mode", PutBack::Criu, Class::Weakens, "forbidden system calls are allowed";
    SECCOMP_FILTERS = "seccomp.filters", PutBack::Criu, Class::Weakens, "forbidden system calls are allowed";
    STORE_BYPASS = "speculation.store-bypass", PutBack::Criu, Class::Weakens, "speculative store bypass is not mitigated as before";
    INDIRECT_BRANCH = "speculation.indirect-branch", PutBack::Criu, Class::Weakens, "indirect branch speculation is not mitigated as before";
    SHADOW_STACK = "shadow-stack", PutBack::Criu, Class::Weakens, "return addresses are not protected as before";
    SHADOW_STACK_LOCKED = "shadow-stack.locked", PutBack::Criu, Class::Weakens, "protection of return addresses can be switched off";
    SIGNALS_BLOCKED = "signals.blocked", PutBack::Criu, Class::Breaks, "signals arrive when they must not, or never";
    SIGNALS_PENDING = "signals.pending-thread", PutBack::Criu, Class::Breaks, "a signal is lost or comes twice";
    PERSONALITY = "personality", PutBack::Us, Class::Breaks, "it sees another kind of system";
    TIMER_SLACK = "timer-slack", PutBack::Us, Class::Bearable, "its timers are less exact, or wake the processor more often";
    AFFINITY = "affinity", PutBack::Us, Class::Bearable, "it runs on other processors";
    MEMORY_NODES = "memory-nodes", PutBack::Us, Class::Bearable, "its memory comes from other nodes";
    POLICY = "sched.policy", PutBack::Criu, Class::Breaks, "it is scheduled by another policy";
    NICE = "sched.nice", PutBack::Criu, Class::Bearable, "it gets another share of the processor";
    PRIORITY = "sched.priority", PutBack::Criu, Class::Breaks, "it has another real-time priority";
    SCHED_FLAGS = "sched.flags", PutBack::Us, Class::Bearable, "its children are scheduled as it is, or are not";
    DEADLINE = "sched.deadline", PutBack::Us, Class::Breaks, "it misses deadlines";
    SLICE = "sched.slice", PutBack::Us, Class::Bearable, "it runs longer or shorter at a time";
    CLAMP = "sched.clamp", PutBack::Us, Class::Bearable, "the processor's frequency is chosen differently for it";
    IO_PRIORITY = "io-priority", PutBack::Us, Class::Bearable, "it gets another share of the disk";
    ROBUST_LIST = "robust-list", PutBack::Criu, Class::Breaks, "a lock is never released when the thread ends";
    DIRECTORY = "directory", PutBack::Criu, Class::Breaks, "it is in another directory";
    ROOT = "root", PutBack::Criu, Class::Weakens, "it has another root";
    CHILDREN = "children", PutBack::Criu, Class::Varies, "the order of children is that in which they were made";
    LABEL = "security.label", PutBack::Criu, Class::Weakens, "it is confined by another profile";
    EXEC_LABEL = "security.exec-label", PutBack::Us, Class::Weakens, "what it executes next is confined by another profile";
    SHARED_FILES = "shares.descriptors", PutBack::Criu, Class::Breaks, "other threads see the descriptors it opens, or no longer do";
    SHARED_FS = "shares.directory", PutBack::Cannot("CRIU gives all threads of a process one directory"), Class::Breaks, "another thread's chdir moves it, too, or no longer does";
    SHARED_SIGHAND = "shares.signal-handlers", PutBack::Criu, Class::Breaks, "it has signal handlers of its own";
    SHARED_VM = "shares.memory", PutBack::Criu, Class::Breaks, "memory is no longer shared";
    SHARED_IO = "shares.io-context", PutBack::Cannot("CRIU does not save it"), Class::Varies, "a context is made when a thread first uses a disk";
    SHARED_UNDO =
        "shares.semaphore-undo", PutBack::Cannot("the kernel does not show it"), Class::Varies,
        "a thread gets a list when it is made, whether it uses it or not";
    NS_CGROUP = "namespace.cgroup", PutBack::Criu, Class::Weakens, "it sees other cgroups";
    NS_IPC = "namespace.ipc", PutBack::Criu, Class::Weakens, "it sees other IPC objects";
    NS_MNT = "namespace.mnt", PutBack::Criu, Class::Weakens, "it sees other mounts";
    NS_NET = "namespace.net", PutBack::Criu, Class::Weakens, "it sees another network";
    NS_PID = "namespace.pid", PutBack::Criu, Class::Weakens, "it sees other processes";
    NS_PID_CHILDREN = "namespace.pid-for-children", PutBack::Criu, Class::Breaks, "its children have other numbers";
    NS_TIME = "namespace.time", PutBack::Criu, Class::Varies, "CRIU gives a container a time namespace so that clocks go on";
    NS_TIME_CHILDREN = "namespace.time-for-children", PutBack::Criu, Class::Varies, "as namespace.time";
    NS_USER = "namespace.user", PutBack::Criu, Class::Weakens, "it has other users";
    NS_UTS = "namespace.uts", PutBack::Criu, Class::Breaks, "it has another host name";
    MCE = "machine-check-policy", PutBack::Us, Class::Bearable, "it learns later of memory that has failed";
    IO_FLUSHER = "io-flusher", PutBack::Us, Class::Breaks, "a daemon that serves a disk can wait for itself";
    LOGIN_UID = "login-uid", PutBack::Criu, Class::Bearable, "the audit log names another user";
    THREAD_STATE = "thread-state", PutBack::Criu, Class::Varies, "all stand still while they are compared";
    FORKED = "forked-without-exec", PutBack::Criu, Class::Varies, "CRIU makes tasks without exec; only setpgid of the parent sees it";
    USED_PRIVILEGES = "used-privileges", PutBack::Criu, Class::Varies, "process accounting alone reads it";
    KEEPS_CPU = "no-affinity-change", PutBack::Criu, Class::Bearable, "its affinity can be changed, or no longer can";
}

/// Fields of /proc/PID/task/TID/status, as the kernel writes them.
static STATUS: &[(&str, &State)] = &[
    ("Uid", &UIDS),
    ("Gid", &GIDS),
    ("Groups", &GROUPS),
    ("CapInh", &CAP_INHERITABLE),
    ("CapPrm", &CAP_PERMITTED),
    ("CapEff", &CAP_EFFECTIVE),
    ("CapBnd", &CAP_BOUNDING),
    ("CapAmb", &CAP_AMBIENT),
    ("NoNewPrivs", &NO_NEW_PRIVS),
    ("Seccomp", &SECCOMP),
    ("Seccomp_filters", &SECCOMP_FILTERS),
    ("Speculation_Store_Bypass", &STORE_BYPASS),
    ("SpeculationIndirectBranch", &INDIRECT_BRANCH),
    ("x86_Thread_features", &SHADOW_STACK),
    ("x86_Thread_features_locked", &SHADOW_STACK_LOCKED),
    ("SigBlk", &SIGNALS_BLOCKED),
    ("Cpus_allowed_list", &AFFINITY),
    ("Mems_allowed_list", &MEMORY_NODES),
    ("State", &THREAD_STATE),
];

/// Bits of field 9 of `stat` (`PF_` of linux/sched.h) that are states.
static FLAGS: &[(u64, &State)] = &[
    (0x40, &FORKED),
    (0x100, &USED_PRIVILEGES),
    (0x0400_0000, &KEEPS_CPU),
    // PF_MCE_PROCESS and PF_MCE_EARLY.
    (0x0800_0080, &MCE),
    // PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE.
    (0x0018_0000, &IO_FLUSHER),
];

/// Namespaces, as /proc/PID/ns names them.
static NAMESPACES: &[(&str, &State)] = &[
    ("cgroup", &NS_CGROUP),
    ("ipc", &NS_IPC),
    ("mnt", &NS_MNT),
    ("net", &NS_NET),
    ("pid", &NS_PID),
    ("pid_for_children", &NS_PID_CHILDREN),
    ("time", &NS_TIME),
    ("time_for_children", &NS_TIME_CHILDREN),
    ("user", &NS_USER),
    ("uts", &NS_UTS),
];

static SHARES: &[(Shared, &State)] = &[
    (Shared::Files, &SHARED_FILES),
    (Shared::Fs, &SHARED_FS),
    (Shared::Sighand, &SHARED_SIGHAND),
    (Shared::Vm, &SHARED_VM),
    (Shared::Io, &SHARED_IO),
    (Shared::Sysvsem, &SHARED_UNDO),
];

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let all = threads(standing);
    for thread in &all {
        snapshot.enter(thread.subject(), &THREAD, "there");
        of_status(thread, snapshot);
        of_stat(thread, snapshot);
        of_files(thread, snapshot);
        of_scheduling(thread, snapshot);
    }
    of_namespaces(&all, snapshot);
    for (what, state) in SHARES {
        of_sharing(&all, *what, state, snapshot);
    }
}

fn of_status(thread: &Thread, snapshot: &mut Snapshot) {
    let status = match thread.file("status") {
        Ok(status) => status,
        Err(e) => return snapshot.miss(thread.subject(), &UIDS, e),
    };
    for (name, state) in STATUS {
        // A kernel or a processor without that has no such field.
        if let Some(value) = field(&status, name) {
            snapshot.enter(
                thread.subject(),
                state,
                value.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            );
        }
    }
    if let Some(pending) = field(&status, "SigPnd") {
        snapshot.enter(thread.subject(), &SIGNALS_PENDING, without_timers(pending));
    }
}

/// A set of pending signals, without those of interval timers, which arrive while it stands still,
/// and without SIGSTOP, by which it does.
pub(crate) fn without_timers(set: &str) -> String {
    let dropped = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGSTOP];
    let mask = dropped.iter().fold(0u64, |mask, signal| mask | 1 << (signal - 1));
    u64::from_str_radix(set, 16)
        .map_or_else(|_| set.to_owned(), |set| format!("{:016x}", set & !mask))
}

fn of_stat(thread: &Thread, snapshot: &mut Snapshot) {
    let stat = thread.file("stat").unwrap_or_default();
    let Some(flags) = stat_field(&stat, 9).and_then(|flags| flags.parse::<u64>().ok()) else {
        return snapshot.miss(thread.subject(), &MCE, "no flags in /proc/PID/stat");
    };
    for (mask, state) in FLAGS {
        snapshot.enter(thread.subject(), state, format!("{:#x}", flags & mask));
    }
}

fn of_files(thread: &Thread, snapshot: &mut Snapshot) {
    let subject = || thread.subject();
    let trimmed = |name: &str| thread.file(name).map(|text| plain(text.trim_end().as_bytes()));
    note(snapshot, subject(), &COMM, trimmed("comm"));
    note(snapshot, subject(), &PERSONALITY, trimmed("personality"));
    note(snapshot, subject(), &TIMER_SLACK, trimmed("timerslack_ns"));
    note(snapshot, subject(), &LOGIN_UID, trimmed("loginuid"));
    note(snapshot, subject(), &DIRECTORY, link(&thread.path("cwd")));
    note(snapshot, subject(), &ROOT, link(&thread.path("root")));
    for (name, state) in [("attr/current", &LABEL), ("attr/exec", &EXEC_LABEL)] {
        match trimmed(name) {
            // There is no security module that has labels.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            label => note(
                snapshot,
                subject(),
                state,
                label.map(|l| l.trim_end_matches(r"\x00").to_owned()),
            ),
        }
    }
    let children = std::fs::read_to_string(format!(
        "/proc/{}/task/{}/children",
        thread.host_pid, thread.host_tid
    ));
    let inside = |children: String| -> String {
        let numbers = children.split_ascii_whitespace().filter_map(|n| n.parse().ok());
        let inside =
            numbers.filter_map(crate::sys::process::number_inside).map(|n: i32| n.to_string());
        inside.collect::<Vec<_>>().join(" ")
    };
    note(snapshot, subject(), &CHILDREN, children.map(inside));
}

fn of_scheduling(thread: &Thread, snapshot: &mut Snapshot) {
    let subject = || thread.subject();
    match kernel_state::scheduling(thread.host_tid) {
        Ok(attributes) => enter_scheduling(thread, &attributes, snapshot),
        Err(e) => snapshot.miss(subject(), &POLICY, e),
    }
    let priority = kernel_state::io_priority(thread.host_tid);
    note(
        snapshot,
        subject(),
        &IO_PRIORITY,
        priority.map(|(class, level)| format!("class {class} level {level}")),
    );
    let list = kernel_state::robust_list(thread.host_tid);
    note(
        snapshot,
        subject(),
        &ROBUST_LIST,
        list.map(|(head, length)| format!("{head:#x} {length}")),
    );
}

fn enter_scheduling(thread: &Thread, attributes: &Scheduling, snapshot: &mut Snapshot) {
    const DEADLINE_POLICY: u32 = 6;
    let mut enter = |state, value: String| snapshot.enter(thread.subject(), state, value);
    enter(&POLICY, attributes.policy.to_string());
    enter(&NICE, attributes.nice.to_string());
    enter(&PRIORITY, attributes.priority.to_string());
    enter(&SCHED_FLAGS, format!("{:#x}", attributes.flags));
    enter(&CLAMP, format!("{} to {}", attributes.clamp_min, attributes.clamp_max));
    let Scheduling { runtime, deadline, period, .. } = attributes;
    if attributes.policy == DEADLINE_POLICY {
        enter(&DEADLINE, format!("{runtime} of {deadline} every {period}"));
    } else {
        enter(&SLICE, runtime.to_string());
    }
}

/// By who shares it with whom: the first thread that is in the same one; "host" for the host's.
fn of_namespaces(all: &[Thread], snapshot: &mut Snapshot) {
    let identity = |path: String| -> io::Result<(u64, u64)> {
        let found = std::fs::metadata(path)?;
        Ok((found.dev(), found.ino()))
    };
    for (name, state) in NAMESPACES {
        let ours = identity(format!("/proc/self/ns/{name}")).ok();
        let mut first = BTreeMap::new();
        for thread in all {
            match identity(thread.path(&format!("ns/{name}"))) {
                Ok(theirs) if Some(theirs) == ours => {
                    snapshot.enter(thread.subject(), state, "host")
                }
                Ok(theirs) => {
                    let tid = first.entry(theirs).or_insert(thread.tid);
                    snapshot.enter(thread.subject(), state, format!("that of {tid}"));
                }
                // A kernel without it, or none yet: the namespace of future children.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => snapshot.miss(thread.subject(), state, e),
            }
        }
    }
}

/// The first thread that it is shared with.
fn of_sharing(all: &[Thread], what: Shared, state: &'static State, snapshot: &mut Snapshot) {
    let mut first: Vec<&Thread> = Vec::new();
    for thread in all {
        let same =
            |other: &Thread| kernel_state::are_same(other.host_tid, thread.host_tid, what, (0, 0));
        let found = first.iter().find_map(|other| match same(other) {
            Ok(true) => Some(Ok(other.tid)),
            Ok(false) => None,
            Err(e) => Some(Err(e)),
        });
        if found.is_none() {
            first.push(thread);
        }
        let value = found.unwrap_or(Ok(thread.tid)).map(|tid| format!("with {tid}"));
        note(snapshot, thread.subject(), state, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_timers_are_not_compared() {
        assert_eq!(without_timers("0000000000042000"), "0000000000000000");
        assert_eq!(without_timers("0000000000000200"), "0000000000000200");
        assert_eq!(without_timers("x"), "x");
    }

    #[test]
    fn our_own_threads_are_read() {
        let me = std::process::id().cast_signed();
        let mut snapshot = Snapshot::new();
        read(&Standing { init: me, tasks: vec![me] }, &mut snapshot);
        let main = super::super::Subject::Thread { pid: me, tid: me };
        let value = |state| snapshot.value(&main, state);
        assert_eq!(
            (value(&POLICY), value(&THREAD), value(&NS_PID)),
            (Some("0"), Some("there"), Some("host"))
        );
        assert_eq!(value(&SHARED_VM), Some(format!("with {me}").as_str()));
        assert!(value(&UIDS).is_some() && value(&DIRECTORY).is_some());
    }
}
