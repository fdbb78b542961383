//! Settings that a namespace has by itself: names, id maps, clocks.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::compare::{near, plain};
use super::distinct::{self, Distinct};
use super::family::Family;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};
use crate::sys::namespace;

/// Clocks run on between two readings of the same container.
const CLOCK_TOLERANCE: f64 = 120.0;
/// What a process without a time namespace of its own would read.
const HOSTS_OFFSETS: &str = "monotonic 0 0\nboottime 0 0\n";
/// Where those of the namespaces that a thread is in are read.
const SYSCTL: &str = "/proc/sys/kernel";

states! { rows;
    HOST_NAME = "uts.hostname", PutBack::Criu, Class::Breaks,
        "programs see another host name";
    DOMAIN_NAME = "uts.domainname", PutBack::Criu, Class::Bearable,
        "programs see another NIS domain";
    USER_MAP = "user.uid-map", PutBack::Criu, Class::Weakens,
        "users inside are other users of the host";
    GROUP_MAP = "user.gid-map", PutBack::Criu, Class::Weakens,
        "groups inside are other groups of the host";
    PROJECT_MAP = "user.projid-map", PutBack::Cannot("CRIU does not write project ids"), Class::Bearable,
        "project quotas count for other projects";
    SETGROUPS = "user.setgroups", PutBack::Cannot("CRIU does not restore a denied setgroups(2)"), Class::Weakens,
        "a process may leave groups that withhold rights from it";
    USER_LIMITS = "user.limits", PutBack::Cannot("only a process inside can read /proc/sys/user"), Class::Bearable,
        "more or fewer namespaces, watches and keys may be made inside";
    TIME_OFFSETS = "time.offsets", PutBack::Criu, Class::Varies,
        "offsets differ by the time of the stop, so that the clocks inside go on";
    TIME_MONOTONIC = "time.monotonic", PutBack::Criu, Class::Breaks,
        "timers and timeouts of CLOCK_MONOTONIC are off";
    TIME_BOOT = "time.boottime", PutBack::Criu, Class::Breaks,
        "timers and timeouts of CLOCK_BOOTTIME are off";
}

/// The family.
pub(crate) const FAMILY: Family = Family { name: "namespaces", states: rows, read };

/// Enters what each namespace of the container has.
pub(crate) fn read(standing: &Standing, snapshot: &mut Snapshot) {
    each(standing, snapshot, "uts", &HOST_NAME, names);
    each(standing, snapshot, "user", &USER_MAP, user);
    each(standing, snapshot, "time", &TIME_OFFSETS, time);
    let init = Subject::Container;
    if snapshot.value(&init, &TIME_OFFSETS).is_none() {
        // CRIU restores it into a time namespace of its own, so that its clocks go on.
        clocks(&init, HOSTS_OFFSETS, snapshot);
    }
}

/// The subject of a namespace: init's are the container's own.
fn subject(of: &Distinct) -> Subject {
    match of.pid {
        1 => Subject::Container,
        pid => Subject::Task { pid },
    }
}

fn each(
    standing: &Standing,
    snapshot: &mut Snapshot,
    kind: &str,
    state: &'static State,
    read: fn(&Distinct, &mut Snapshot),
) {
    match distinct::namespaces(standing, kind) {
        Ok(found) => found.iter().for_each(|one| read(one, snapshot)),
        Err(e) => snapshot.miss(Subject::Container, state, e),
    }
}

/// Enters the content of a file, or why it cannot be read; one that this kernel does not have is
/// not there before nor after.
fn file(
    snapshot: &mut Snapshot,
    subject: Subject,
    state: &'static State,
    content: io::Result<Vec<u8>>,
) {
    match content {
        Ok(content) => snapshot.enter(subject, state, plain(content.trim_ascii_end())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => snapshot.miss(subject, state, e),
    }
}

fn names(of: &Distinct, snapshot: &mut Snapshot) {
    let both = || ["hostname", "domainname"].map(|name| fs::read(Path::new(SYSCTL).join(name)));
    match namespace::inside(of.namespace.as_fd(), both) {
        Ok([host, domain]) => {
            file(snapshot, subject(of), &HOST_NAME, host);
            file(snapshot, subject(of), &DOMAIN_NAME, domain);
        }
        Err(e) => snapshot.miss(subject(of), &HOST_NAME, e),
    }
}

fn user(of: &Distinct, snapshot: &mut Snapshot) {
    let maps = [
        ("uid_map", &USER_MAP),
        ("gid_map", &GROUP_MAP),
        ("projid_map", &PROJECT_MAP),
        ("setgroups", &SETGROUPS),
    ];
    for (name, state) in maps {
        let lines = fs::read(of.proc(name)).map(|text| words(&text));
        file(snapshot, subject(of), state, lines);
    }
    snapshot.miss(subject(of), &USER_LIMITS, "they are shown to processes inside only");
}

/// Lines of aligned columns as words.
fn words(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("; ").into_bytes()
}

fn time(of: &Distinct, snapshot: &mut Snapshot) {
    let offsets = match fs::read_to_string(of.proc("timens_offsets")) {
        Ok(offsets) => offsets,
        Err(e) => return snapshot.miss(subject(of), &TIME_OFFSETS, e),
    };
    snapshot.enter(subject(of), &TIME_OFFSETS, words_of_offsets(&offsets));
    clocks(&subject(of), &offsets, snapshot);
}

/// Enters the clocks that such offsets lead to.
fn clocks(subject: &Subject, offsets: &str, snapshot: &mut Snapshot) {
    let clocks = [
        ("monotonic", libc::CLOCK_MONOTONIC, &TIME_MONOTONIC),
        ("boottime", libc::CLOCK_BOOTTIME, &TIME_BOOT),
    ];
    for (name, clock, state) in clocks {
        match now(clock) + offset_of(offsets, name) {
            seconds if seconds.is_finite() => {
                snapshot.enter(subject.clone(), state, near(seconds, CLOCK_TOLERANCE));
            }
            _ => snapshot.miss(subject.clone(), state, "the kernel's offsets have another form"),
        }
    }
}

fn words_of_offsets(offsets: &str) -> String {
    String::from_utf8_lossy(&words(offsets.as_bytes())).into_owned()
}

/// Seconds of a line `monotonic SECONDS NANOSECONDS`; no number where there is none.
fn offset_of(offsets: &str, clock: &str) -> f64 {
    let line = offsets.lines().find_map(|line| line.trim_start().strip_prefix(clock));
    let seconds = line.and_then(|rest| rest.split_ascii_whitespace().next());
    seconds.and_then(|s| s.parse().ok()).unwrap_or(f64::NAN)
}

/// A clock of the host, in seconds.
fn now(clock: libc::clockid_t) -> f64 {
    let clock = nix::time::ClockId::from_raw(clock);
    match nix::time::clock_gettime(clock) {
        Ok(time) => std::time::Duration::from(time).as_secs_f64(),
        Err(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_by_their_clock() {
        let offsets = "monotonic       -3600         0\nboottime           12 500000000\n";
        assert!((offset_of(offsets, "monotonic") + 3600.0).abs() < 0.001);
        assert!((offset_of(offsets, "boottime") - 12.0).abs() < 0.001);
        assert!(offset_of(offsets, "realtime").is_nan());
        assert_eq!(words_of_offsets(offsets), "monotonic -3600 0; boottime 12 500000000");
    }
}
