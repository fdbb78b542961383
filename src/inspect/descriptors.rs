//! Descriptors: what they refer to, how they were opened, who shares them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use super::family::Family;
use super::fdinfo;
use super::open::{self, Open, kind};
use super::proc::{Numbers, note};
use super::snapshot::{Snapshot, Standing};
use super::state::{Class, PutBack, states};
use super::terminals;
use crate::sys::glance::glance;
use crate::sys::kernel_state::{self, Shared};

/// Descriptors.
pub(crate) const FAMILY: Family = Family { name: "descriptors", states: rows, read };

states! { own_rows;
    DESCRIPTOR = "descriptor", PutBack::Criu, Class::Breaks, "it refers to something else, or is closed";
    SHARED = "descriptor.shared", PutBack::Criu, Class::Breaks, "position and flags are no longer shared, or are";
    OBJECT = "descriptor.object", PutBack::Criu, Class::Breaks, "its other end is another one";
    FILE = "descriptor.file", PutBack::Criu, Class::Breaks, "the open file is another one";
    PERMISSIONS = "descriptor.permissions", PutBack::Criu, Class::Weakens, "others may open the file";
    PIPE_SIZE = "pipe.size", PutBack::Criu, Class::Bearable, "a writer waits sooner or later";
    PIPE_QUEUE = "pipe.unread", PutBack::Criu, Class::Breaks, "data in the pipe is lost";
    SEALS = "file.seals", PutBack::Criu, Class::Weakens, "memory that could not be changed can be";
    LEASE = "file.lease", PutBack::Criu, Class::Breaks, "it does not learn when others open the file";
    OWNER = "descriptor.owner", PutBack::Criu, Class::Breaks, "signals of input go elsewhere";
    SIGNAL = "descriptor.signal", PutBack::Criu, Class::Breaks, "input is signalled otherwise";
    WRITE_HINT = "file.write-hint", PutBack::Us, Class::Bearable, "the disk places data otherwise";
}

fn rows() -> Vec<&'static super::State> {
    own_rows().into_iter().chain(fdinfo::rows()).chain(terminals::rows()).collect()
}

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let (all, numbers) = (open::all(standing), Numbers::of(standing));
    let mut mounts = BTreeMap::new();
    for open in &all {
        snapshot.enter(open.subject(), &DESCRIPTOR, kind(&open.target));
        let host_tid = open.thread.host_tid;
        let mounts =
            mounts.entry(open.thread.host_pid).or_insert_with(|| fdinfo::Mounts::of(host_tid));
        let info = open.info();
        let mount = info.as_deref().ok().and_then(|info| mounts.of_info(info));
        match &info {
            Ok(info) => fdinfo::enter(open, info, mount, &numbers, snapshot),
            Err(e) => snapshot.miss(open.subject(), &DESCRIPTOR, e),
        }
        of_file(open, snapshot);
        if !mount.is_some_and(fdinfo::Mount::may_stand_still) {
            of_duplicate(open, &numbers, snapshot);
        }
    }
    of_sharing(&all, snapshot);
}

fn of_file(open: &Open, snapshot: &mut Snapshot) {
    if !open.is_file() {
        return;
    }
    let path = open.thread.path(&format!("fd/{}", open.number));
    match glance(Path::new(&path)) {
        Ok(file) => {
            let device =
                if file.rdev == 0 { String::new() } else { format!(" device {:#x}", file.rdev) };
            let links = if file.nlink == 0 { " deleted" } else { "" };
            snapshot.enter(
                open.subject(),
                &FILE,
                format!("type {:o}{device}{links}", file.mode >> 12),
            );
            snapshot.enter(open.subject(), &PERMISSIONS, format!("{:o}", file.mode & 0o7777));
        }
        Err(e) => snapshot.miss(open.subject(), &FILE, e),
    }
}

/// What only the descriptor itself says.
fn of_duplicate(open: &Open, numbers: &Numbers, snapshot: &mut Snapshot) {
    let fd = match open.duplicate() {
        Ok(fd) => fd,
        Err(e) => return snapshot.miss(open.subject(), &OWNER, e),
    };
    let (fd, subject) = (fd.as_fd(), || open.subject());
    // Opened only as a place (O_PATH), it has none of this.
    if let Ok((kind, owner)) = kernel_state::owner(fd) {
        let kind =
            ["thread", "process", "group"].get(usize::try_from(kind).unwrap_or(3)).unwrap_or(&"?");
        let value =
            if owner == 0 { "none".to_owned() } else { format!("{kind} {}", numbers.owner(owner)) };
        snapshot.enter(subject(), &OWNER, value);
    }
    if let Ok(signal) = kernel_state::control(fd, F_GETSIG) {
        snapshot.enter(subject(), &SIGNAL, signal.to_string());
    }
    if open.target.starts_with("pipe:[") || kernel_state::control(fd, libc::F_GETPIPE_SZ).is_ok() {
        let size = kernel_state::control(fd, libc::F_GETPIPE_SZ);
        note(snapshot, subject(), &PIPE_SIZE, size.map(|size| size.to_string()));
        let unread = kernel_state::request::<4>(fd, libc::FIONREAD);
        note(
            snapshot,
            subject(),
            &PIPE_QUEUE,
            unread.map(|unread| i32::from_ne_bytes(unread).to_string()),
        );
    }
    if open.is_file() {
        if let Ok(seals) = kernel_state::control(fd, libc::F_GET_SEALS) {
            snapshot.enter(subject(), &SEALS, format!("{seals:#x}"));
        }
        if let Ok(lease) = kernel_state::control(fd, libc::F_GETLEASE) {
            snapshot.enter(subject(), &LEASE, lease.to_string());
        }
        if let Ok(hint) = kernel_state::write_hint(fd) {
            snapshot.enter(subject(), &WRITE_HINT, hint.to_string());
        }
    }
    terminals::enter(open, fd, numbers, snapshot);
}

/// `F_GETSIG` of fcntl(2).
const F_GETSIG: libc::c_int = 11;

/// Groups of descriptors that were opened together (dup, fork, SCM_RIGHTS), and of those that refer
/// to one pipe or socket: each by the first one.
fn of_sharing(all: &[Open], snapshot: &mut Snapshot) {
    let mut alike: BTreeMap<&str, Vec<&Open>> = BTreeMap::new();
    for open in all {
        alike.entry(&open.target).or_default().push(open);
    }
    for (target, group) in alike {
        if target.starts_with("pipe:[") || target.starts_with("socket:[") {
            for open in &group {
                snapshot.enter(open.subject(), &OBJECT, format!("that of {}", group[0].name()));
            }
        }
        share(&group, snapshot);
    }
}

fn share(group: &[&Open], snapshot: &mut Snapshot) {
    let mut first: Vec<&Open> = Vec::new();
    for open in group {
        let mut value = Ok(open.name());
        for other in &first {
            let descriptors = (other.number, open.number);
            match kernel_state::are_same(
                other.thread.host_tid,
                open.thread.host_tid,
                Shared::File,
                descriptors,
            ) {
                Ok(false) => continue,
                Ok(true) => value = Ok(other.name()),
                Err(e) => value = Err(e),
            }
            break;
        }
        if value.as_ref().is_ok_and(|name| *name == open.name()) {
            first.push(open);
        }
        note(snapshot, open.subject(), &SHARED, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;

    #[test]
    fn our_own_descriptors_are_read() {
        let me = std::process::id().cast_signed();
        let (from, _to) = std::io::pipe().unwrap();
        let copy = from.try_clone().unwrap();
        let mut snapshot = Snapshot::new();
        read(&Standing { init: me, tasks: vec![me] }, &mut snapshot);
        let of = |fd: &std::io::PipeReader| {
            let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
            let subject = Subject::Descriptor { pid: me, fd };
            let value = |state| snapshot.value(&subject, state).unwrap().to_owned();
            (value(&DESCRIPTOR), value(&SHARED), value(&PIPE_QUEUE), value(&OWNER))
        };
        assert_eq!(of(&from).0, "pipe");
        assert_eq!(of(&from).2, "0");
        assert_eq!(of(&from).3, "none");
        assert_eq!(of(&from).1, of(&copy).1);
    }
}
