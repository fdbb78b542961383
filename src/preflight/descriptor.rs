//! Open files: what there is in `/proc/PID/fd`, and which files have been mapped and then deleted.

use std::fs;
use std::path::Path;

use super::task::{self, Task, is_gone};
use crate::report::Foreign;
use crate::sys::glance::glance;
use anyhow::{Context, Result};

/// The name of the protocol of a socket (socket.c: `sockfs_xattr_get`).
const PROTOCOL: &str = "system.sockprotoname";

/// The device of all masters of pseudo terminals.
pub(crate) const PTMX: (u32, u32) = (5, 2);

/// A file system object behind a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// Type and permissions.
    pub mode: u32,
    /// Its device number, if it is a device.
    pub device: (u32, u32),
    /// How many names it has; 0 when it was deleted.
    pub names: u64,
    /// What it takes of its disk, in bytes.
    pub size: u64,
    /// Its inode.
    pub inode: u64,
    /// The mount that it was opened on.
    pub mount: Option<i32>,
    /// For the master of a pseudo terminal: the number of the terminal.
    pub terminal: Option<u32>,
    /// Only a place in the file system (`O_PATH`).
    pub path_only: bool,
}

/// What a descriptor stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with a path.
    File(File),
    /// A socket, with the name of its protocol.
    Socket {
        /// The inode.
        inode: u64,
        /// `TCP`, `UNIX`, …; empty when the kernel does not tell.
        protocol: String,
    },
    /// A file without a path: `inotify`, `[eventfd]`, `bpf-prog`, …
    Anonymous(String),
    /// A pipe, a namespace, a memfd: whatever CRIU dumps without a question.
    Other,
}

/// An open descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What `/proc/PID/fd` says of it.
    pub target: Foreign,
    /// What it is.
    pub kind: Kind,
}

/// A deleted file that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Its former path, or what the kernel calls it.
    pub target: Foreign,
    /// What it takes of its disk, in bytes.
    pub size: u64,
    /// Its inode.
    pub inode: u64,
}

/// A process with its files.
#[derive(Clone, Debug)]
pub(crate) struct Opened<'a> {
    /// The process.
    pub task: &'a Task,
    /// Its descriptors.
    pub descriptors: Vec<Descriptor>,
    /// What it has mapped of deleted and of nameless files.
    pub mapped: Vec<Mapped>,
    /// The code that comes first in its memory, if that is shared and cannot be written: what is
    /// mapped there.
    pub shared_code: Option<Foreign>,
    /// Its program; none when it has ended.
    pub program: Option<Executed>,
}

/// The program that a process executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executed {
    /// Its path, as it was.
    pub target: Foreign,
    /// The mount that it was executed from.
    pub mount: i32,
}

impl<'a> Opened<'a> {
    /// Reads the files of a process. One that has ended has none.
    pub(crate) fn read(task: &'a Task) -> Result<Opened<'a>> {
        let mut descriptors = Vec::new();
        let dir = format!("/proc/{}/fd", task.pid);
        match fs::read_dir(&dir) {
            Ok(entries) => {
                let numbers =
                    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
                descriptors.extend(numbers.filter_map(|number| descriptor(task.pid, number)));
            }
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e).with_context(|| format!("list {dir}")),
        }
        descriptors.sort_by_key(|d| d.number);
        let maps = task::read(task.pid, "maps")?.unwrap_or_default();
        let (mapped, shared_code) = (mapped(task.pid, &maps), shared_code(&maps));
        Ok(Opened {
            task,
            descriptors,
            mapped,
            shared_code: shared_code.map(Foreign::from),
            program: program(task.pid),
        })
    }
}

/// None when the process has ended, or the kernel (before 5.8) does not tell mounts.
fn program(pid: i32) -> Option<Executed> {
    let link = format!("/proc/{pid}/exe");
    let target = fs::read_link(&link).ok()?.to_string_lossy().into_owned();
    let mount = glance(Path::new(&link)).ok()?.mount?;
    Some(Executed { target: target.into(), mount: i32::try_from(mount).ok()? })
}

/// None when it was closed meanwhile.
fn descriptor(pid: i32, number: u32) -> Option<Descriptor> {
    let link = format!("/proc/{pid}/fd/{number}");
    let target = fs::read_link(&link).ok()?.to_string_lossy().into_owned();
    let inode = || target.split_once('[')?.1.strip_suffix(']')?.parse::<u64>().ok();
    let kind = if target.starts_with("socket:") {
        Kind::Socket { inode: inode()?, protocol: protocol(&link) }
    } else if let Some(name) = target.strip_prefix("anon_inode:") {
        Kind::Anonymous(anonymous(pid, number, name))
    } else if target.starts_with('/') && !target.starts_with("/memfd:") {
        Kind::File(file(pid, number, &link)?)
    } else {
        Kind::Other
    };
    Some(Descriptor { number, target: target.into(), kind })
}

/// The kernel calls an eventfd that is a semaphore as any other, and tells the difference in its
/// fdinfo since 6.5.
fn anonymous(pid: i32, number: u32, name: &str) -> String {
    let info = || fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    match name {
        "[eventfd]" if info().lines().any(|l| l == "eventfd-semaphore: 1") => {
            "[eventfd-semaphore]".to_owned()
        }
        _ => name.to_owned(),
    }
}

fn file(pid: i32, number: u32, link: &str) -> Option<File> {
    let seen = glance(Path::new(link)).ok()?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let device = (nix::sys::stat::major(seen.rdev), nix::sys::stat::minor(seen.rdev));
    let flags = field("flags:").and_then(|f| i32::from_str_radix(f, 8).ok()).unwrap_or_default();
    Some(File {
        mode: seen.mode,
        device: (u32::try_from(device.0).ok()?, u32::try_from(device.1).ok()?),
        names: seen.nlink,
        size: seen.allocated,
        inode: seen.ino,
        mount: field("mnt_id:").and_then(|id| id.parse().ok()),
        terminal: field("tty-index:").and_then(|index| index.parse().ok()),
        path_only: flags & libc::O_PATH != 0,
    })
}

fn protocol(link: &str) -> String {
    let mut name = [0u8; 64];
    match rustix::fs::getxattr(Path::new(link), PROTOCOL, &mut name[..]) {
        Ok(length) => String::from_utf8_lossy(&name[..length]).trim_end_matches('\0').to_owned(),
        Err(_) => String::new(),
    }
}

/// Memory maps of files that have no name any more, and of those that never had one.
fn mapped(pid: i32, maps: &str) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for line in maps.lines() {
        let Some((range, target)) = mapped_file(line) else { continue };
        // Shared memory without a name looks like a deleted file of the kernel's own.
        let seen = glance(Path::new(&format!("/proc/{pid}/map_files/{range}"))).ok();
        let (size, inode) = seen.map_or((0, 0), |seen| (seen.allocated, seen.ino));
        if !found.iter().any(|f| f.target.raw() == target && f.inode == inode) {
            found.push(Mapped { target: target.into(), size, inode });
        }
    }
    found
}

/// The first lines of a process's memory that hold code are where CRIU writes its own calls
/// (parasite-syscall.c: `get_exec_start`). The kernel lets a debugger write into private memory
/// whatever its protection, and into shared memory only where the process itself may.
fn shared_code(maps: &str) -> Option<String> {
    let first = maps.lines().find(|line| {
        line.split(' ').nth(1).is_some_and(|rights| rights.as_bytes().get(2) == Some(&b'x'))
    })?;
    let mut words = first.splitn(6, ' ');
    let rights = words.nth(1)?;
    let target = words.nth(3).unwrap_or_default().trim();
    (rights.ends_with('s') && !rights.contains('w')).then(|| target.to_owned())
}

/// The range and the name of a mapping that deserves a look.
fn mapped_file(line: &str) -> Option<(&str, &str)> {
    const SHARED_MEMORY: &[&str] =
        &["/memfd:", "/dev/zero (deleted)", "/SYSV", "/[aio]", "/anon_hugepage"];
    let (range, rest) = line.split_once(' ')?;
    let target = rest.splitn(5, ' ').nth(4)?.trim_start();
    let nameless = target.starts_with("anon_inode:");
    let deleted = target.starts_with('/') && target.ends_with(" (deleted)");
    let ours =
        (nameless || deleted) && !SHARED_MEMORY.iter().any(|known| target.starts_with(known));
    ours.then_some((range, target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn deleted_and_nameless_maps_are_picked() {
        let line = |target: &str| format!("7f00-7f10 rw-s 00000000 00:01 2 {target}");
        let pick =
            |target: &str| mapped_file(&line(target)).map(|(r, t)| (r.to_owned(), t.to_owned()));
        let picked = |target: &str| Some(("7f00-7f10".to_owned(), target.to_owned()));
        assert_eq!(pick("     /tmp/a b (deleted)"), picked("/tmp/a b (deleted)"));
        assert_eq!(pick("anon_inode:[io_uring]"), picked("anon_inode:[io_uring]"));
        for known in [
            "/usr/bin/x",
            "/dev/zero (deleted)",
            "/memfd:x (deleted)",
            "/SYSV0000 (deleted)",
            "[heap]",
            "",
        ] {
            assert_eq!(pick(known), None, "{known}");
        }
    }

    #[test]
    fn code_that_is_shared_matters_where_it_comes_first() {
        let text = "55f0-55f1 r--p 0 00:01 2  /usr/bin/x\n55f1-55f2 r-xp 0 00:01 2  /usr/bin/x\n";
        let jit = "41c0-45c0 r-xs 00000000 00:01 2051                       /dev/zero (deleted)\n";
        assert_eq!(shared_code(&format!("{jit}{text}")).as_deref(), Some("/dev/zero (deleted)"));
        assert_eq!(shared_code(&format!("{text}{jit}")), None);
        assert_eq!(
            shared_code(&format!("{}{text}", jit.replace("r-xs", "rwxs"))),
            None,
            "CRIU can write there"
        );
        assert_eq!(shared_code(""), None);
    }

    #[test]
    fn the_files_of_this_process_are_read() {
        let file = tempfile::tempfile().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let task = Task { pid: std::process::id().cast_signed(), ..Task::default() };
        let opened = Opened::read(&task).unwrap();
        let kind = |fd: i32| {
            &opened.descriptors.iter().find(|d| d.number == fd.cast_unsigned()).unwrap().kind
        };
        assert!(matches!(
            kind(file.as_raw_fd()),
            Kind::File(File { names: 0, mount: Some(_), .. })
        ));
        assert!(
            matches!(kind(socket.as_raw_fd()), Kind::Socket { protocol, .. } if protocol == "UDP")
        );
    }
}
