//! A clean start: a command that was called from a shell begins as a service of the host init
//! would.
//!
//! What a process inherits of its caller it passes on: to CRIU, to the monitor that lives as long
//! as the container, and to the container itself, as far as the images say nothing of it. So the
//! first thing that each of our programs does is to put all of it to what the host's init has
//! ([`begin`]). What the kernel lets nobody take off again is found by [`lasting_restrictions`],
//! and a restore is refused.
//!
//! | inherited | set to |
//! |---|---|
//! | descriptors | the three standard ones |
//! | signals | none blocked; none ignored but those by which a shell keeps a background job alive |
//! | file mode mask | 022 |
//! | resource limits, CPU affinity, OOM score, core dump filter, personality | those of the host init |
//! | scheduling policy, nice value, I/O priority, timer slack, memory policy, huge pages | the kernel's defaults |
//!
//! Sessions, keyrings, directories and environments are given to each started program by
//! [`super::spawn`].

use std::fs;
use std::io;
use std::sync::OnceLock;

/// Our caller's `nohup` and `&` are respected: they protect the command, and go no further
/// ([`super::spawn`]).
const KEPT_IGNORED: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE];
/// The highest signal number.
const SIGNALS: libc::c_int = 64;
/// What systemd gives to services where it is not told otherwise, as to most shells.
const UMASK: libc::mode_t = 0o022;
/// More open files than this are of no use to us, and programs that close all they may have would
/// take long.
const MOST_OPEN_FILES: libc::rlim_t = 1 << 19;
/// The kernel's default, in nanoseconds.
const TIMER_SLACK: libc::c_ulong = 50_000;

type Reset = fn() -> io::Result<()>;

/// Each kind of inherited state, and what puts it to its clean value.
const RESETS: &[(&str, Reset)] = &[
    ("open descriptors", close_descriptors),
    ("signals", reset_signals),
    ("the file mode mask", reset_umask),
    ("resource limits", reset_limits),
    ("the CPU affinity", reset_affinity),
    ("the scheduling policy", reset_scheduling),
    ("the I/O priority", reset_io_priority),
    ("the timer slack", reset_timer_slack),
    ("the memory policy", reset_memory_policy),
    ("the use of huge pages", reset_huge_pages),
    ("the OOM score", || copy_from_init("oom_score_adj")),
    ("the core dump filter", || copy_from_init("coredump_filter")),
    ("the personality", reset_personality),
];

static FAILED: OnceLock<Vec<String>> = OnceLock::new();

/// Puts all that this process has inherited to what a service has. To be called first in `main`: it
/// closes descriptors.
///
/// A part that cannot be reset is no reason to fail; see [`failures`].
pub(crate) fn begin() {
    FAILED.get_or_init(|| {
        let failed = RESETS.iter().filter_map(|(what, reset)| Some((what, reset().err()?)));
        failed.map(|(what, error)| format!("reset {what}: {error}")).collect()
    });
}

/// What [`begin`] could not reset, for the log.
pub(crate) fn failures() -> &'static [String] {
    FAILED.get().map(Vec::as_slice).unwrap_or_default()
}

/// The restrictions on this process that a restored container would inherit and that cannot be
/// lifted: those that the host's init does not have, too.
pub(crate) fn lasting_restrictions() -> io::Result<Vec<&'static str>> {
    let (ours, inits) =
        (fs::read_to_string("/proc/self/status")?, fs::read_to_string("/proc/1/status")?);
    let mut found = restrictions_beyond(&ours, &inits);
    if denies_write_and_execute() {
        found.push("memory that is written cannot be executed (PR_SET_MDWE)");
    }
    Ok(found)
}

fn restrictions_beyond(ours: &str, inits: &str) -> Vec<&'static str> {
    let more = |name| number(ours, name, 10) > number(inits, name, 10);
    let mut found = Vec::new();
    if more("NoNewPrivs:") {
        found.push("no_new_privs is set");
    }
    if more("Seccomp:") || more("Seccomp_filters:") {
        found.push("a seccomp filter is in force");
    }
    if number(inits, "CapBnd:", 16) & !number(ours, "CapBnd:", 16) != 0 {
        found.push("capabilities are missing in the bounding set");
    }
    found
}

/// A number of `/proc/PID/status`; 0 where the kernel does not have it.
fn number(status: &str, name: &str, radix: u32) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    u64::from_str_radix(value.trim(), radix).unwrap_or_default()
}

fn denies_write_and_execute() -> bool {
    /// `PR_GET_MDWE`, include/uapi/linux/prctl.h, since Linux 6.3.
    const PR_GET_MDWE: libc::c_int = 66;
    let none: libc::c_ulong = 0;
    // SAFETY: numbers only; a kernel that does not know it says so.
    (unsafe { libc::prctl(PR_GET_MDWE, none, none, none, none) }) > 0
}

fn close_descriptors() -> io::Result<()> {
    // SAFETY: called first in `main`: nothing in this program owns a descriptor yet. Rust has
    // opened the first three.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) })
}

fn reset_signals() -> io::Result<()> {
    for number in
        (1..=SIGNALS).filter(|number| is_ignored(*number) && !KEPT_IGNORED.contains(number))
    {
        // SAFETY: an ignored signal gets the kernel's default action; no handler of ours is
        // concerned.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    unblock_signals()
}

/// Whether this process ignores a signal.
pub(super) fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: an all-zero sigaction is a valid one to be overwritten; only the current action is
    // asked for.
    let (result, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(number, std::ptr::null(), &raw mut action), action)
    };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Gives each signal its default action, and lets all of them through. Makes system calls only: it
/// may be called between fork and exec.
pub(super) fn default_signals() -> io::Result<()> {
    for number in 1..=SIGNALS {
        // SAFETY: no handler is installed. Those that cannot be changed are the kernel's and the C
        // library's own.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    unblock_signals()
}

fn unblock_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is a valid set, sigemptyset makes it the empty one; it lives
    // through both calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()).into())
    }
}

fn reset_umask() -> io::Result<()> {
    // SAFETY: a number is set; it cannot fail.
    unsafe { libc::umask(UMASK) };
    Ok(())
}

fn reset_limits() -> io::Result<()> {
    let mut failed = None;
    for resource in 0..=libc::RLIMIT_RTTIME {
        if let Err(e) = reset_limit(resource) {
            failed.get_or_insert(e);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The limit of the host's init. Where ours cannot be raised as far, it is used to the full.
fn reset_limit(resource: libc::__rlimit_resource_t) -> io::Result<()> {
    let ours = limit_of(0, resource)?;
    let mut wanted = limit_of(1, resource)?;
    if resource == libc::RLIMIT_NOFILE {
        wanted.rlim_cur = wanted.rlim_max.min(MOST_OPEN_FILES);
    }
    if (ours.rlim_cur, ours.rlim_max) == (wanted.rlim_cur, wanted.rlim_max) {
        return Ok(());
    }
    let set = |limit: libc::rlimit| {
        // SAFETY: the pointer is to a local that lives through the call.
        check(unsafe { libc::setrlimit(resource, &raw const limit) }.into())
    };
    set(wanted).or_else(|e| {
        let most =
            libc::rlimit { rlim_cur: wanted.rlim_cur.min(ours.rlim_max), rlim_max: ours.rlim_max };
        set(most)?;
        if most.rlim_cur < wanted.rlim_cur { Err(e) } else { Ok(()) }
    })
}

fn limit_of(pid: libc::pid_t, resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no limit is set; the pointer is to a local that lives through the call.
    check(unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) }.into())?;
    Ok(limit)
}

fn reset_affinity() -> io::Result<()> {
    let init = rustix::process::Pid::INIT;
    let wanted = rustix::thread::sched_getaffinity(Some(init))?;
    Ok(rustix::thread::sched_setaffinity(None, &wanted)?)
}

fn reset_scheduling() -> io::Result<()> {
    // SAFETY: an all-zero sched_param is valid, and the only one for this policy.
    let normal = unsafe {
        let param: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const param)
    };
    check(normal.into())?;
    // SAFETY: numbers only.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) }.into())
}

fn reset_io_priority() -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`, include/uapi/linux/ioprio.h.
    const OF_PROCESS: libc::c_int = 1;
    // SAFETY: numbers only. Class 0 follows the nice value.
    supported(check(unsafe { libc::syscall(libc::SYS_ioprio_set, OF_PROCESS, 0, 0) }))
}

fn reset_timer_slack() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK) }.into())
}

fn reset_memory_policy() -> io::Result<()> {
    let none: libc::c_long = 0;
    // SAFETY: the default policy (0) has no set of nodes: the pointer is null and the length 0.
    supported(check(unsafe { libc::syscall(libc::SYS_set_mempolicy, none, none, none) }))
}

fn reset_huge_pages() -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: numbers only.
    supported(check(
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, none, none, none, none) }.into(),
    ))
}

fn reset_personality() -> io::Result<()> {
    let text = fs::read_to_string("/proc/1/personality")?;
    let wanted = libc::c_ulong::from_str_radix(text.trim(), 16).map_err(io::Error::other)?;
    // SAFETY: a number is set. It decides on how later programs are loaded.
    check(unsafe { libc::personality(wanted) }.into())
}

/// Gives a file of /proc/self the value that the host's init has there.
fn copy_from_init(file: &str) -> io::Result<()> {
    let of = |who: &str| fs::read_to_string(format!("/proc/{who}/{file}"));
    let wanted = match of("1") {
        Ok(wanted) => wanted,
        // A kernel without it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if of("self")? == wanted {
        return Ok(());
    }
    // What is read there in hexadecimal is read back so only with this in front.
    let prefix = if file == "coredump_filter" { "0x" } else { "" };
    fs::write(format!("/proc/self/{file}"), format!("{prefix}{}", wanted.trim()))
}

/// A kernel without something has nothing of it to reset.
fn supported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
        other => other,
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &str =
        "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nCapBnd:\t000001ffffffffff\n";

    #[test]
    fn only_what_init_does_not_have_is_a_restriction() {
        assert!(restrictions_beyond(FREE, FREE).is_empty());
        for (from, to) in [
            ("NoNewPrivs:\t0", "NoNewPrivs:\t1"),
            ("Seccomp:\t0", "Seccomp:\t2"),
            ("Seccomp_filters:\t0", "Seccomp_filters:\t3"),
            ("CapBnd:\t000001ff", "CapBnd:\t000001fe"),
        ] {
            let restricted = FREE.replace(from, to);
            assert_eq!(restrictions_beyond(&restricted, FREE).len(), 1, "{to}");
            assert!(
                restrictions_beyond(&restricted, &restricted).is_empty(),
                "init has it, too: {to}"
            );
            assert!(restrictions_beyond(FREE, &restricted).is_empty(), "only init has it: {to}");
        }
        // An older kernel tells less.
        assert!(restrictions_beyond("CapBnd:\tff\n", "CapBnd:\tff\n").is_empty());
    }
}
