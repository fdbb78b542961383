//! What is in file systems that live in memory only: tmpfs, ramfs, hugetlbfs, the entries of devpts
//! and mqueue. Nothing else of theirs is anywhere, so what a restore loses of them is lost.
//!
//! A file system that the host has mounted, too, is the host's, and stays there. Where the way to a
//! mount leads through one whose server may not answer (FUSE, NFS, …), nothing is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::compare::plain;
use super::distinct::{self, Distinct};
use super::family::Family;
use super::mounts::{self, Line};
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};
use crate::sys::entry::{Entry, Facts};

states! { rows;
    KIND = "file.type", PutBack::Criu, Class::Breaks,
        "a file in memory is missing, or is of another type";
    MODE = "file.mode", PutBack::Criu, Class::Weakens,
        "others may read or write a file in memory";
    OWNER = "file.owner", PutBack::Criu, Class::Weakens,
        "a file in memory belongs to another user or group";
    SIZE = "file.size", PutBack::Criu, Class::Breaks,
        "a file in memory has another size";
    CONTENT = "file.content", PutBack::Criu, Class::Breaks,
        "a file in memory has another content";
    MODIFIED = "file.modified", PutBack::Criu, Class::Bearable,
        "a file in memory was changed at another time, as make(1) and caches see it";
    MODIFIED_NANOSECONDS = "file.modified-nanoseconds",
        PutBack::Us, Class::Bearable,
        "two files in memory that were changed in the same second are told apart no more";
    ACCESSED = "file.accessed", PutBack::Us, Class::Varies,
        "reading a file for the checkpoint and writing it at the restore both count as access";
    LINKS = "file.links", PutBack::Criu, Class::Breaks,
        "names of one file in memory have become different files";
    ATTRIBUTES = "file.xattrs", PutBack::Us,
        Class::Breaks, "extended attributes of a file in memory are gone";
    ACCESS_LIST = "file.acl", PutBack::Us, Class::Weakens,
        "a file in memory may be used by others than its ACL allowed";
    CAPABILITIES = "file.capabilities", PutBack::Us,
        Class::Breaks, "a program in memory has lost its capabilities";
    DEVICE = "file.device", PutBack::Criu, Class::Weakens,
        "a device file in memory leads to another device";
    TARGET = "file.target", PutBack::Criu, Class::Breaks,
        "a symbolic link in memory leads elsewhere";
}

/// The family.
pub(crate) const FAMILY: Family = Family { name: "files in memory", states: rows, read };

/// File systems that live in memory.
const IN_MEMORY: [&str; 5] = ["tmpfs", "ramfs", "hugetlbfs", "devpts", "mqueue"];
/// Those of which the kernel itself makes the entries: times and sizes follow their use.
const BY_KERNEL: [&str; 2] = ["devpts", "mqueue"];
/// File systems whose server is another machine or process.
const SERVED: [&str; 9] = ["fuse", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "autofs"];
/// Extended attributes with rows of their own.
const ACLS: &str = "system.posix_acl_";
const FILE_CAPABILITIES: &str = "security.capability";
/// How long all of it may be read, how many files, and how much of them.
const TIME_LIMIT: Duration = Duration::from_secs(20);
const FILE_LIMIT: usize = 100_000;
const BYTE_LIMIT: u64 = 1 << 30;

/// Enters the files of each file system in memory once.
pub(crate) fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let whole = || Subject::File { path: "/".to_owned() };
    let host = match fs::read("/proc/self/mountinfo") {
        Ok(table) => mounts::parse(&table),
        Err(e) => return snapshot.miss(whole(), &KIND, e),
    };
    let mut walk = Walk {
        snapshot,
        seen: host.into_iter().map(|line| line.device).collect(),
        links: BTreeMap::new(),
        end: Instant::now() + TIME_LIMIT,
        files: FILE_LIMIT,
        bytes: BYTE_LIMIT,
        by_kernel: false,
    };
    match distinct::namespaces(standing, "mnt") {
        Ok(found) => found.iter().for_each(|one| walk.namespace(one)),
        Err(e) => walk.snapshot.miss(whole(), &KIND, e),
    }
}

/// A tour of file systems.
struct Walk<'a> {
    snapshot: &'a mut Snapshot,
    /// File systems that are not gone through any more: the host's, and those that were.
    seen: BTreeSet<String>,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), String>,
    end: Instant,
    files: usize,
    bytes: u64,
    /// Whether the kernel makes the entries of this one.
    by_kernel: bool,
}

impl Walk<'_> {
    fn namespace(&mut self, of: &Distinct) {
        let prefix = if of.pid == 1 { String::new() } else { format!("process {}: ", of.pid) };
        let lines = match mounts::table(of) {
            Ok(lines) => lines,
            Err(e) => return self.snapshot.miss(Subject::File { path: prefix }, &KIND, e),
        };
        // The mount that shows most of it comes first.
        let mut in_memory: Vec<&Line> =
            lines.iter().filter(|line| is_one_of(&line.kind, &IN_MEMORY)).collect();
        in_memory.sort_by_key(|line| line.root.len());
        for line in in_memory {
            if !self.seen.insert(line.device.clone()) {
                continue;
            }
            self.by_kernel = is_one_of(&line.kind, &BY_KERNEL);
            let name = format!("{prefix}{}", plain(&line.point));
            match open(of, line, &lines) {
                Ok((entry, facts)) => self.entry(&entry, facts, &name),
                Err(e) => self.snapshot.miss(Subject::File { path: name }, &KIND, e),
            }
        }
    }

    /// Enters a file and all below it.
    fn entry(&mut self, entry: &Entry, facts: Facts, name: &str) {
        if self.files == 0 || self.end <= Instant::now() {
            let why = "there are too many files to read all of them in time";
            return self.snapshot.miss(Subject::File { path: name.to_owned() }, &KIND, why);
        }
        self.files -= 1;
        self.facts(facts, name);
        self.attributes(entry, name);
        match facts.kind() {
            FileType::Directory => self.directory(entry, name),
            FileType::Symlink => {
                let target = entry.target().map(|target| plain(&target));
                self.put_found(name, &TARGET, target);
            }
            FileType::RegularFile if !self.by_kernel => self.content(entry, facts, name),
            _ => {}
        }
    }

    fn put(&mut self, name: &str, state: &'static State, value: impl Into<String>) {
        self.snapshot.enter(Subject::File { path: name.to_owned() }, state, value);
    }

    fn put_found(&mut self, name: &str, state: &'static State, value: io::Result<String>) {
        match value {
            Ok(value) => self.put(name, state, value),
            Err(e) => self.snapshot.miss(Subject::File { path: name.to_owned() }, state, e),
        }
    }

    fn facts(&mut self, facts: Facts, name: &str) {
        let kind = facts.kind();
        self.put(name, &KIND, word(kind));
        self.put(name, &OWNER, format!("{}:{}", facts.uid, facts.gid));
        if kind != FileType::Symlink {
            self.put(name, &MODE, format!("{:04o}", facts.mode & 0o7777));
        }
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            let (major, minor) = (rustix::fs::major(facts.rdev), rustix::fs::minor(facts.rdev));
            self.put(name, &DEVICE, format!("{major}:{minor}"));
        }
        if self.by_kernel {
            return;
        }
        let (seconds, nanoseconds) = facts.modified;
        self.put(name, &MODIFIED, seconds.to_string());
        self.put(name, &MODIFIED_NANOSECONDS, nanoseconds.to_string());
        self.put(name, &ACCESSED, format!("{}.{:09}", facts.accessed.0, facts.accessed.1));
        if kind != FileType::Directory && facts.links > 1 {
            let first = self
                .links
                .entry((facts.device, facts.inode))
                .or_insert_with(|| name.to_owned())
                .clone();
            self.put(name, &LINKS, format!("{} names, the first is {first}", facts.links));
        }
    }

    fn attributes(&mut self, entry: &Entry, name: &str) {
        let found = match entry.attributes() {
            Ok(found) => found,
            Err(e) => {
                return self.snapshot.miss(Subject::File { path: name.to_owned() }, &ATTRIBUTES, e);
            }
        };
        for (key, value) in found {
            let state = match key.as_str() {
                FILE_CAPABILITIES => &CAPABILITIES,
                key if key.starts_with(ACLS) => &ACCESS_LIST,
                _ => &ATTRIBUTES,
            };
            self.put(name, state, format!("{}={}", plain(key.as_bytes()), plain(&value)));
        }
    }

    fn directory(&mut self, entry: &Entry, name: &str) {
        let names = match entry.names() {
            Ok(names) => names,
            Err(e) => return self.snapshot.miss(Subject::File { path: name.to_owned() }, &KIND, e),
        };
        for child in names {
            let below = format!("{}/{}", name.trim_end_matches('/'), plain(child.as_bytes()));
            let opened = entry.child(&child).and_then(|found| match found {
                // Another mount is there.
                None => Ok(None),
                Some(found) => found.facts().map(|facts| Some((found, facts))),
            });
            match opened {
                Ok(None) => {}
                Ok(Some((found, facts))) => self.entry(&found, facts, &below),
                Err(e) => self.snapshot.miss(Subject::File { path: below }, &KIND, e),
            }
        }
    }

    fn content(&mut self, entry: &Entry, facts: Facts, name: &str) {
        self.put(name, &SIZE, facts.size.to_string());
        if facts.size > self.bytes {
            let why = format!("it has {} bytes, which are too many to be read", facts.size);
            return self.snapshot.miss(Subject::File { path: name.to_owned() }, &CONTENT, why);
        }
        self.bytes -= facts.size;
        let sum = entry.open().and_then(|file| {
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut file.take(facts.size), &mut Sum(&mut hasher))?;
            Ok(hasher.finalize().to_string())
        });
        self.put_found(name, &CONTENT, sum);
    }
}

/// What is written goes into a checksum.
struct Sum<'a>(&'a mut blake3::Hasher);

impl io::Write for Sum<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directory of a mount, if the way to it asks no server and no other mount hides it.
fn open(of: &Distinct, line: &Line, lines: &[Line]) -> io::Result<(Entry, Facts)> {
    if let Some(served) = served_on_the_way(line, lines) {
        let text = format!(
            "the way to it leads through {}, whose server may not answer",
            plain(&served.point)
        );
        return Err(io::Error::other(text));
    }
    let point = PathBuf::from(OsStr::from_bytes(&line.point));
    let entry = Entry::of_process(of.host_pid, &point)?;
    let facts = entry.facts()?;
    match facts.mount == 0 || u64::try_from(line.id) == Ok(facts.mount) {
        true => Ok((entry, facts)),
        false => Err(io::Error::other("another mount hides it")),
    }
}

/// A mount on the way to this one that is another machine's or process's.
fn served_on_the_way<'a>(line: &Line, lines: &'a [Line]) -> Option<&'a Line> {
    let point = Path::new(OsStr::from_bytes(&line.point));
    lines
        .iter()
        .find(|other| is_served(other) && point.starts_with(OsStr::from_bytes(&other.point)))
}

fn is_served(line: &Line) -> bool {
    // "fuse.sshfs"
    let kind = line.kind.split(|b| *b == b'.').next().unwrap_or_default();
    is_one_of(kind, &SERVED)
}

fn is_one_of(kind: &[u8], kinds: &[&str]) -> bool {
    kinds.iter().any(|known| known.as_bytes() == kind)
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_is_asked_on_the_way() {
        let table = mounts::parse(
            b"1 0 8:1 / / rw - ext4 x rw\n2 1 0:5 / /srv rw - fuse.sshfs x rw\n3 2 0:6 / /srv/t rw \
              - tmpfs x rw\n4 1 0:7 / /srvt rw - tmpfs x rw\n",
        );
        assert_eq!(served_on_the_way(&table[2], &table).map(|l| l.id), Some(2));
        assert_eq!(served_on_the_way(&table[3], &table), None);
    }

    #[test]
    fn a_tree_is_entered_with_all_that_it_has() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("one"), "x").unwrap();
        fs::hard_link(top.path().join("one"), top.path().join("two")).unwrap();
        fs::create_dir(top.path().join("dir")).unwrap();
        let mut snapshot = Snapshot::new();
        let mut walk = Walk {
            snapshot: &mut snapshot,
            seen: BTreeSet::new(),
            links: BTreeMap::new(),
            end: Instant::now() + TIME_LIMIT,
            files: 4,
            bytes: 1,
            by_kernel: false,
        };
        let entry = Entry::below(top.path(), Path::new("/")).unwrap();
        let facts = entry.facts().unwrap();
        walk.entry(&entry, facts, "/t");
        let value =
            |path: &str, state| snapshot.value(&Subject::File { path: path.to_owned() }, state);
        assert_eq!(value("/t/dir", &KIND), Some("directory"));
        assert_eq!(value("/t/two", &LINKS), Some("2 names, the first is /t/one"));
        assert_eq!(value("/t/one", &CONTENT), Some(blake3::hash(b"x").to_string().as_str()));
        // The second byte is beyond the limit, and that is told.
        assert_eq!(value("/t/two", &CONTENT), None);
        assert_eq!(snapshot.unread().len(), 1);
    }
}
