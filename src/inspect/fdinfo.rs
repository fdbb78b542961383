//! What /proc/PID/fdinfo says of a descriptor.

use std::collections::BTreeMap;

use super::compare::plain;
use super::open::Open;
use super::proc::{Numbers, field, last_number};
use super::snapshot::Snapshot;
use super::state::{Class, PutBack, State, states};

states! { all;
    POSITION = "descriptor.position", PutBack::Criu, Class::Breaks, "it reads or writes elsewhere in the file";
    FLAGS = "descriptor.flags", PutBack::Criu, Class::Breaks, "it waits where it did not, or the reverse";
    CLOEXEC = "descriptor.close-on-exec", PutBack::Criu, Class::Weakens, "programs it executes get the descriptor";
    MOUNT = "descriptor.mount", PutBack::Criu, Class::Breaks, "the file is seen on another mount";
    LOCKS = "file.locks", PutBack::Criu, Class::Breaks, "another process may take the lock";
    EPOLL = "epoll.watched", PutBack::Criu, Class::Breaks, "it is not notified of events";
    EVENTFD = "eventfd.count", PutBack::Criu, Class::Breaks, "an event is lost";
    EVENTFD_KIND = "eventfd.semaphore", PutBack::Criu, Class::Breaks, "a read takes all events at once, or one";
    SIGNALFD = "signalfd.mask", PutBack::Criu, Class::Breaks, "signals are read elsewhere";
    INOTIFY = "inotify.watches", PutBack::Criu, Class::Breaks, "it is not notified of changes";
    FANOTIFY = "fanotify.marks", PutBack::Criu, Class::Breaks, "it is not notified of changes";
    PIDFD = "pidfd.process", PutBack::Criu, Class::Breaks, "it refers to another process";
    DETAILS = "descriptor.details", PutBack::Criu, Class::Breaks, "the object behind it is another one";
}

/// Its rows.
pub(super) fn rows() -> Vec<&'static State> {
    all()
}

/// A mount, as far as a descriptor is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    path: String,
    kind: String,
}

impl Mount {
    /// Whether a server stands behind its files that may not answer.
    pub(super) fn may_stand_still(&self) -> bool {
        let kinds =
            ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "gfs2", "ocfs2", "virtiofs"];
        self.kind.starts_with("fuse") || kinds.contains(&self.kind.as_str())
    }
}

/// The mounts that a task sees, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Mounts(BTreeMap<u64, Mount>);

impl Mounts {
    /// Those of a thread, by its number on the host.
    pub(super) fn of(host_tid: i32) -> Mounts {
        let text = std::fs::read(format!("/proc/{host_tid}/mountinfo")).unwrap_or_default();
        let mount = |line: &str| -> Option<(u64, Mount)> {
            let (before, after) = line.split_once(" - ")?;
            let mut words = before.split(' ');
            let number = words.next()?.parse().ok()?;
            let path = plain(words.nth(3)?.as_bytes());
            Some((number, Mount { path, kind: after.split(' ').next()?.to_owned() }))
        };
        Mounts(String::from_utf8_lossy(&text).lines().filter_map(mount).collect())
    }

    /// The one that a descriptor was opened on; none for what has no place in the tree.
    pub(super) fn of_info(&self, info: &str) -> Option<&Mount> {
        self.0.get(&field(info, "mnt_id")?.parse().ok()?)
    }
}

/// O_CLOEXEC of x86 and arm.
const O_CLOEXEC: u64 = 0o2_000_000;
/// O_LARGEFILE, which the kernel itself sets for 64-bit programs, as CRIU is one.
const O_LARGEFILE: u64 = 0o100_000;
/// O_DIRECTORY and O_NOFOLLOW of x86, which do nothing once the file is open.
const ONLY_WHEN_OPENED: u64 = 0o200_000 | 0o400_000;
/// Lines that say what other states do, or the kernel's own numbers.
const LEFT_OUT: [&str; 19] = [
    "pos",
    "flags",
    "mnt_id",
    "ino",
    "lock",
    "tfd",
    "eventfd-count",
    "eventfd-id",
    "eventfd-semaphore",
    "sigmask",
    "inotify wd",
    "fanotify flags",
    "fanotify mnt_id",
    "fanotify ino",
    "fanotify sdev",
    "Pid",
    "NSpid",
    "scm_fds",
    "size",
];
/// Those of timers belong to that family.
const OF_TIMERS: [&str; 5] = ["clockid", "ticks", "settime flags", "it_value", "it_interval"];

/// Enters what it says.
pub(super) fn enter(
    open: &Open,
    info: &str,
    mount: Option<&Mount>,
    numbers: &Numbers,
    snapshot: &mut Snapshot,
) {
    let mut enter = |state, value: String| snapshot.enter(open.subject(), state, value);
    if let Some(position) = field(info, "pos") {
        enter(&POSITION, position.to_owned());
    }
    if let Some(flags) = field(info, "flags").and_then(|flags| u64::from_str_radix(flags, 8).ok()) {
        enter(&FLAGS, format!("{:#o}", flags & !(O_CLOEXEC | O_LARGEFILE | ONLY_WHEN_OPENED)));
        enter(&CLOEXEC, if flags & O_CLOEXEC == 0 { "no" } else { "yes" }.to_owned());
    }
    if open.is_file() {
        enter(
            &MOUNT,
            mount.map_or_else(|| "none that it sees".to_owned(), |mount| mount.path.clone()),
        );
    }
    let lines = |name: &'static str| {
        info.lines().filter(move |line| line.starts_with(name)).map(str::to_owned)
    };
    for (state, values) in [
        (&LOCKS, lines("lock:").filter_map(|line| lock(&line, numbers)).collect::<Vec<_>>()),
        (&EPOLL, lines("tfd:").map(|line| words_but(&line, &["pos", "ino", "sdev"])).collect()),
        (&INOTIFY, lines("inotify ").map(|line| watch(&line)).collect()),
        (&FANOTIFY, lines("fanotify ").map(|line| watch(&line)).collect()),
        (&EVENTFD, lines("eventfd-count:").map(|line| value(&line)).collect()),
        (&EVENTFD_KIND, lines("eventfd-semaphore:").map(|line| value(&line)).collect()),
        (&SIGNALFD, lines("sigmask:").map(|line| value(&line)).collect()),
        (
            &DETAILS,
            info.lines()
                .filter(|line| is_detail(line))
                .map(|line| plain(line.as_bytes()))
                .collect(),
        ),
    ] {
        let mut values = values;
        values.sort_unstable();
        if !values.is_empty() {
            enter(state, values.join("\n"));
        }
    }
    if open.target.starts_with("anon_inode:[pidfd]") || open.target.starts_with("pidfd:") {
        // Minus one for a process that has ended.
        let inside = field(info, "NSpid")
            .and_then(last_number)
            .or_else(|| field(info, "Pid").and_then(last_number));
        enter(&PIDFD, inside.unwrap_or(-1).to_string());
    }
}

fn is_detail(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name).trim();
    !name.is_empty() && !LEFT_OUT.contains(&name) && !OF_TIMERS.contains(&name)
}

fn value(line: &str) -> String {
    line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
}

/// "1: POSIX  ADVISORY  WRITE 4711 fd:00:12 0 EOF": kind, holder and range.
fn lock(line: &str, numbers: &Numbers) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, kind, advisory, access, holder, _, start, end] = words.as_slice() else {
        return Some(plain(line.as_bytes()));
    };
    let holder = match *kind {
        "POSIX" => holder.parse().map_or_else(|_| "?".to_owned(), |holder| numbers.owner(holder)),
        // The lock is the open file's; the number says who took it.
        _ => String::new(),
    };
    Some([kind, advisory, access, holder.as_str(), start, end].join(" "))
}

/// The words `name:value` of a line but for some, with one space between name and value.
fn words_but(line: &str, left_out: &[&str]) -> String {
    let spaced = line.replace(':', ": ");
    let mut kept = Vec::new();
    let mut words = spaced.split_ascii_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_suffix(':') else {
            kept.push(word.to_owned());
            continue;
        };
        let value = words.next_if(|next| !next.ends_with(':')).unwrap_or_default();
        if !left_out.contains(&name) {
            kept.push(format!("{name}:{value}"));
        }
    }
    kept.join(" ")
}

/// Which file is watched is not compared: inodes of a container's copy differ.
fn watch(line: &str) -> String {
    words_but(line, &["ino", "sdev", "mnt_id", "fhandle-bytes", "fhandle-type", "f_handle"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let line = "tfd:        5 events:       1d data: ffffffff00000005  pos:0 ino:61af sdev:7";
        assert_eq!(
            words_but(line, &["pos", "ino", "sdev"]),
            "tfd:5 events:1d data:ffffffff00000005"
        );
        let line = "inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 \
                    fhandle-type:1 f_handle:7e9e";
        assert_eq!(watch(line), "inotify wd:3 mask:800afce ignored_mask:0");
        let numbers = Numbers::default();
        let flock = "lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF";
        assert_eq!(lock(flock, &numbers).as_deref(), Some("FLOCK ADVISORY WRITE  0 EOF"));
        assert!(
            is_detail("iff:\ttun0")
                && !is_detail("pos:\t0")
                && !is_detail("ticks: 0")
                && !is_detail("")
        );
        assert_eq!(value("sigmask:\t0000000000000200"), "0000000000000200");
    }
}
