//! The mounts of each mount namespace: what is mounted where, on top of what, and with which
//! rights.
//!
//! The kernel's numbers (mounts, peer groups, devices without a disk) are others after a restore,
//! so mounts are named by where they are, groups by their first member, and file systems by their
//! first mount.

use std::collections::BTreeMap;
use std::fs;

use super::compare::plain;
use super::distinct::{self, Distinct};
use super::family::Family;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};
use crate::sys::statmount::{self, IdMap};

mod table;

pub(super) use table::{Line, parse};

states! { rows;
    ROOT = "mount.root", PutBack::Criu, Class::Breaks,
        "another part of the file system is mounted there";
    KIND = "mount.type", PutBack::Criu, Class::Breaks,
        "another kind of file system is mounted there, or none";
    SOURCE = "mount.source", PutBack::Criu, Class::Bearable,
        "mount tables name another source";
    READ_ONLY = "mount.read-only", PutBack::Criu, Class::Weakens,
        "files that were read-only may be written, or the other way round";
    NO_SUID = "mount.nosuid", PutBack::Criu, Class::Weakens,
        "set-user-id programs work where they were forbidden";
    NO_DEVICES = "mount.nodev", PutBack::Criu, Class::Weakens,
        "device files work where they were forbidden";
    NO_EXEC = "mount.noexec", PutBack::Criu, Class::Weakens,
        "programs may be run where that was forbidden";
    NO_SYMLINKS = "mount.nosymfollow", PutBack::Us, Class::Weakens,
        "symbolic links are followed where that was forbidden";
    ACCESS_TIMES = "mount.access-times", PutBack::Criu, Class::Bearable,
        "times of last access are kept in another way";
    ID_MAP = "mount.id-map", PutBack::Cannot("CRIU does not save the id map of a mount"), Class::Breaks,
        "files have other owners there";
    SHARED = "mount.shared", PutBack::Criu, Class::Breaks,
        "what is mounted there does not appear where it did";
    MASTER = "mount.master", PutBack::Criu, Class::Breaks,
        "what is mounted elsewhere does not appear there";
    UNBINDABLE = "mount.unbindable", PutBack::Criu, Class::Bearable,
        "the mount may be bound elsewhere";
    OPTIONS = "mount.options", PutBack::Criu, Class::Breaks,
        "the file system has other limits, owners or rights";
    SAME_AS = "mount.file-system", PutBack::Criu, Class::Breaks,
        "two mounts that showed the same files show different ones";
    UPON = "mount.upon", PutBack::Criu, Class::Breaks,
        "mounts hide each other in another order";
}

/// The family.
pub(crate) const FAMILY: Family = Family { name: "mounts", states: rows, read };

/// Words of mount options, and the rows that they belong to.
const FLAGS: [(&str, &State); 5] = [
    ("ro", &READ_ONLY),
    ("nosuid", &NO_SUID),
    ("nodev", &NO_DEVICES),
    ("noexec", &NO_EXEC),
    ("nosymfollow", &NO_SYMLINKS),
];
/// Words that say how times of last access are kept.
const TIMES: [&str; 4] = ["noatime", "nodiratime", "relatime", "strictatime"];
/// Options that name numbers of this boot: the pipe and the group of automount(8).
const PASSING_OPTIONS: [&str; 3] = ["pipe_ino", "pgrp", "fd"];

/// Enters the mounts of each mount namespace.
pub(crate) fn read(standing: &Standing, snapshot: &mut Snapshot) {
    match distinct::namespaces(standing, "mnt") {
        Ok(found) => found.iter().for_each(|one| of_namespace(one, snapshot)),
        Err(e) => snapshot.miss(Subject::Container, &KIND, e),
    }
}

/// The mounts that a process sees.
pub(super) fn table(of: &Distinct) -> std::io::Result<Vec<Line>> {
    Ok(parse(&fs::read(of.proc("mountinfo"))?))
}

fn of_namespace(of: &Distinct, snapshot: &mut Snapshot) {
    let missed = |snapshot: &mut Snapshot, why: &dyn std::fmt::Display| {
        let subject = Subject::Mount { pid: of.pid, path: "/".to_owned(), layer: 0 };
        snapshot.miss(subject, &KIND, why);
    };
    let lines = match table(of) {
        Ok(lines) => lines,
        Err(e) => return missed(snapshot, &e),
    };
    let maps = statmount::id_maps(&of.namespace).unwrap_or_else(|e| {
        missed(snapshot, &e);
        None
    });
    enter(&lines, maps.as_ref(), of.pid, snapshot);
}

/// Enters mounts; pure. `maps` are their id maps by their numbers, where the kernel tells.
fn enter(lines: &[Line], maps: Option<&BTreeMap<i32, IdMap>>, pid: i32, snapshot: &mut Snapshot) {
    let named = names(lines);
    let name = |id: i32| named.get(&id).cloned().unwrap_or_else(|| "outside".to_owned());
    let first = |is: &dyn Fn(&&Line) -> bool| {
        lines.iter().find(is).map_or("outside".to_owned(), |l| name(l.id))
    };
    for (line, layer) in lines.iter().zip(layers(lines)) {
        let subject = Subject::Mount { pid, path: plain(&line.point), layer };
        let mut put = |state, value: String| snapshot.enter(subject.clone(), state, value);
        put(&ROOT, root(line));
        put(&KIND, plain(&line.kind));
        put(&SOURCE, plain(&line.source));
        for (word, state) in FLAGS {
            put(state, if line.has(word) { "yes" } else { "no" }.to_owned());
        }
        let times: Vec<&str> = TIMES.into_iter().filter(|word| line.has(word)).collect();
        put(
            &ACCESS_TIMES,
            if times.is_empty() { "strictatime".to_owned() } else { times.join(" ") },
        );
        put(&ID_MAP, id_map(line, maps));
        put(
            &SHARED,
            line.shared.map_or("no".to_owned(), |group| first(&|l| l.shared == Some(group))),
        );
        put(
            &MASTER,
            line.master.map_or("no".to_owned(), |group| first(&|l| l.shared == Some(group))),
        );
        put(&UNBINDABLE, if line.unbindable { "yes" } else { "no" }.to_owned());
        put(&OPTIONS, options(line));
        put(&SAME_AS, first(&|l| l.device == line.device));
        put(&UPON, name(line.parent));
    }
}

/// How often the mount point occurs before in the table, for each.
fn layers(lines: &[Line]) -> Vec<u32> {
    let mut seen: BTreeMap<&[u8], u32> = BTreeMap::new();
    lines
        .iter()
        .map(|line| {
            let count = seen.entry(&line.point).or_default();
            *count += 1;
            *count - 1
        })
        .collect()
}

/// "PATH" of each mount, or "PATH, layer N", by its number.
fn names(lines: &[Line]) -> BTreeMap<i32, String> {
    let name = |(line, layer): (&Line, u32)| {
        let path = plain(&line.point);
        (line.id, if layer == 0 { path } else { format!("{path}, layer {layer}") })
    };
    lines.iter().zip(layers(lines)).map(name).collect()
}

/// A terminal that LXC lends is another one after a restore.
fn root(line: &Line) -> String {
    let is_terminal = line
        .root
        .strip_prefix(b"/")
        .is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
    match line.kind == b"devpts" && is_terminal {
        true => "a terminal".to_owned(),
        false => plain(&line.root),
    }
}

fn id_map(line: &Line, maps: Option<&BTreeMap<i32, IdMap>>) -> String {
    match (line.has("idmapped"), maps.and_then(|maps| maps.get(&line.id))) {
        (false, _) => "no".to_owned(),
        (true, None) => "yes".to_owned(),
        (true, Some(map)) => {
            format!("users {}, groups {}", map.users.join("; "), map.groups.join("; "))
        }
    }
}

/// Options of the file system, sorted, without those that name a number of this boot.
fn options(line: &Line) -> String {
    let passing = |option: &&[u8]| {
        let key = option.split(|b| *b == b'=').next().unwrap_or_default();
        !PASSING_OPTIONS.iter().any(|word| word.as_bytes() == key) || line.kind != b"autofs"
    };
    let mut options: Vec<String> =
        line.options.split(|b| *b == b',').filter(passing).map(plain).collect();
    options.sort_unstable();
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
36 1 8:1 /srv/root / rw,relatime shared:7 - ext4 /dev/vda rw
40 36 0:30 / /tmp rw,nosuid,nodev,noexec,noatime master:7 - tmpfs tmpfs rw,size=4k,mode=700
41 40 0:30 /sub /tmp ro,nosymfollow,idmapped shared:9 master:3 - tmpfs tmpfs rw,size=4k,mode=700
42 36 0:20 /5 /dev/console rw - devpts devpts rw,gid=5
";

    fn value(snapshot: &Snapshot, path: &str, layer: u32, state: &'static State) -> String {
        let subject = Subject::Mount { pid: 1, path: path.to_owned(), layer };
        snapshot.value(&subject, state).unwrap_or("none").to_owned()
    }

    #[test]
    fn mounts_are_named_by_where_they_are() {
        let mut snapshot = Snapshot::new();
        enter(&parse(TABLE), None, 1, &mut snapshot);
        let of = |path, layer, state| value(&snapshot, path, layer, state);
        assert_eq!(of("/tmp", 0, &UPON), "/");
        assert_eq!(of("/tmp", 1, &UPON), "/tmp");
        assert_eq!(of("/tmp", 1, &SAME_AS), "/tmp");
        assert_eq!(
            (of("/tmp", 0, &MASTER), of("/tmp", 1, &MASTER)),
            ("/".to_owned(), "outside".to_owned())
        );
        assert_eq!(
            (of("/", 0, &SHARED), of("/tmp", 0, &SHARED)),
            ("/".to_owned(), "no".to_owned())
        );
        assert_eq!(
            (of("/tmp", 1, &NO_SYMLINKS), of("/tmp", 0, &NO_SYMLINKS)),
            ("yes".to_owned(), "no".to_owned())
        );
        assert_eq!(
            (of("/tmp", 0, &ACCESS_TIMES), of("/", 0, &ACCESS_TIMES)),
            ("noatime".into(), "relatime".into())
        );
        assert_eq!(of("/tmp", 1, &ID_MAP), "yes");
        assert_eq!(of("/dev/console", 0, &ROOT), "a terminal");
        assert_eq!(of("/tmp", 0, &OPTIONS), "mode=700,rw,size=4k");
    }

    #[test]
    fn the_map_is_told_where_the_kernel_tells_it() {
        let map =
            IdMap { users: vec!["0 100000 65536".into()], groups: vec!["0 100000 65536".into()] };
        let mut snapshot = Snapshot::new();
        enter(&parse(TABLE), Some(&BTreeMap::from([(41, map)])), 1, &mut snapshot);
        assert_eq!(
            value(&snapshot, "/tmp", 1, &ID_MAP),
            "users 0 100000 65536, groups 0 100000 65536"
        );
    }
}
