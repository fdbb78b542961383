//! Open files of kinds that CRIU cannot dump, and files that it cannot find again.

use std::path::{Path, PathBuf};

use super::descriptor::{Descriptor, Executed, File, Kind, Opened};
use super::finding::{Finding, Place};
use super::mounts::Tables;
use super::task::{Task, end};
use crate::report::{Foreign, bytes};
use crate::resources::mounts::HostFile;

/// Files without a name that CRIU 4.2 dumps (files.c: `dump_one_file`), as `/proc/PID/fd` spells
/// them.
const ANONYMOUS: &[&str] = &[
    "[eventfd]",
    "[eventpoll]",
    "inotify",
    "[fanotify]",
    "[signalfd]",
    "[timerfd]",
    "[pidfd]",
    "[aio]",
];

/// The major number of null, zero, random, … of which CRIU dumps all (files.c: `get_mem_dev_ops`).
const MEMORY_DEVICES: u32 = 1;
/// Other character devices that CRIU dumps: tun and autofs (files.c: `get_misc_dev_ops`).
const DEVICES: &[(u32, u32)] = &[(10, 200), (10, 235)];

/// What of the checkpoint's own options matters to files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cures<'a> {
    /// Deleted files are copied up to this size, in bytes.
    pub ghost_limit: u64,
    /// Files of the host that CRIU is told of.
    pub host_files: &'a [HostFile],
    /// Whether this CRIU can dump maps of eBPF: a matter of how it was built.
    pub bpf_maps: bool,
    /// How the container is prepared.
    pub prepare: &'a str,
}

/// Judges the open files of all processes; pure.
pub(crate) fn judge(opened: &[Opened<'_>], tables: &Tables, cures: &Cures<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for Opened { task, descriptors, mapped, program, .. } in opened {
        found.extend(program.as_ref().filter(|p| !tables.has(p.mount)).map(|p| outside(task, p)));
        for descriptor in descriptors {
            match &descriptor.kind {
                Kind::Anonymous(name) => found.extend(anonymous(task, descriptor, name, cures)),
                Kind::File(file) => found.extend(path(task, descriptor, file, tables, cures)),
                Kind::Socket { .. } | Kind::Other => {}
            }
        }
        for mapping in mapped {
            let place = Place { file: Some(mapping.target.clone()), ..task.place() };
            let known = descriptors.iter().any(|d| d.target == mapping.target);
            if mapping.target.raw().starts_with("anon_inode:") && !known {
                found.push(unsupported(task, place, &format!("has mapped {}", mapping.target)));
            } else if mapping.size > cures.ghost_limit && !known {
                found.push(ghost(task, place, &mapping.target, mapping.size, cures));
            }
        }
    }
    found
}

fn place(task: &Task, descriptor: &Descriptor) -> Place {
    Place {
        descriptor: Some(descriptor.number),
        file: Some(descriptor.target.clone()),
        ..task.place()
    }
}

fn anonymous(
    task: &Task,
    descriptor: &Descriptor,
    name: &str,
    cures: &Cures<'_>,
) -> Option<Finding> {
    if ANONYMOUS.contains(&name) || (name == "bpf-map" && cures.bpf_maps) {
        return None;
    }
    let finding = unsupported(task, place(task, descriptor), &format!("holds {}", in_words(name)));
    Some(match name {
        "bpf-prog" | "bpf-map" | "bpf_link" | "bpf-link" => finding.remedy(format!(
            "give the container a seccomp profile (lxc.seccomp.profile) with the line 'bpf errno \
             1', or an id map (lxc.idmap), and restart the container; or {}",
            end(task)
        )),
        "[io_uring]" => finding.remedy(format!(
            "forbid io_uring in the container, whose programs then use other system calls: {}",
            cures.prepare
        )),
        _ => finding,
    })
}

fn in_words(name: &str) -> String {
    match name {
        "bpf-prog" => "an eBPF program".to_owned(),
        "bpf-map" => "an eBPF map".to_owned(),
        "bpf_link" | "bpf-link" => "an eBPF link".to_owned(),
        "[io_uring]" => "an io_uring".to_owned(),
        "[eventfd-semaphore]" => {
            "an eventfd that is a semaphore (EFD_SEMAPHORE; it would be a counter)".to_owned()
        }
        "[perf_event]" => "a performance counter (perf_event)".to_owned(),
        "[userfaultfd]" => "a userfaultfd".to_owned(),
        "seccomp notify" => "a listener for system calls (seccomp notify)".to_owned(),
        other => format!("a file of the kind '{}'", other.trim_matches(['[', ']'])),
    }
}

fn unsupported(task: &Task, place: Place, what: &str) -> Finding {
    Finding::blocker(format!("{} {what}", task.name()), "CRIU cannot dump it")
        .at(place)
        .remedy(format!("have the process close that file, or {}", end(task)))
}

fn path(
    task: &Task,
    descriptor: &Descriptor,
    file: &File,
    tables: &Tables,
    cures: &Cures<'_>,
) -> Option<Finding> {
    let at = || place(task, descriptor);
    let kind = file.mode & libc::S_IFMT;
    if file.path_only && kind != libc::S_IFREG && kind != libc::S_IFDIR {
        return None;
    }
    if kind == libc::S_IFBLK || (kind == libc::S_IFCHR && !is_known_device(file.device)) {
        let (major, minor) = file.device;
        let word = if kind == libc::S_IFBLK { "block" } else { "character" };
        let what = format!("holds the {word} device {major}:{minor} ({})", descriptor.target);
        return Some(unsupported(task, at(), &what));
    }
    if kind == libc::S_IFCHR && is_terminal(file.device) {
        return None;
    }
    if let Some(mount) = file.mount
        && !tables.has(mount)
    {
        let told = cures
            .host_files
            .iter()
            .any(|f| (f.mount_id, f.inode) == (mount.cast_unsigned().into(), file.inode));
        return (!told).then(|| foreign(task, descriptor));
    }
    if let Some(thread) = thread_of(descriptor.target.raw()) {
        return Some(of_thread(task, descriptor, thread));
    }
    if kind != libc::S_IFREG {
        return None;
    }
    if file.names == 0 {
        return (file.size > cures.ghost_limit)
            .then(|| ghost(task, at(), &descriptor.target, file.size, cures));
    }
    let hidden_by =
        file.mount.and_then(|mount| tables.hidden_by(mount, Path::new(descriptor.target.raw())))?;
    Some(hidden(task, descriptor, hidden_by))
}

/// The thread that a file of /proc is about, unless it is the main one of its process, which is
/// there from the beginning.
fn thread_of(target: &str) -> Option<u32> {
    let mut words = target.strip_prefix("/proc/")?.split(['/', ' ']);
    let process: u32 = words.next()?.parse().ok()?;
    let thread =
        words.next().filter(|word| *word == "task").and_then(|_| words.next()?.parse().ok())?;
    (thread != process).then_some(thread)
}

/// files-reg.c: `Can't open file proc/…/task/…: No such file or directory`.
fn of_thread(task: &Task, descriptor: &Descriptor, thread: u32) -> Finding {
    Finding::blocker(
        format!("{} has opened {}, a file of the thread {thread}", task.name(), descriptor.target),
        "CRIU opens files before it makes threads, and so does not find it again",
    )
    .on_restore()
    .at(place(task, descriptor))
    .remedy(format!("have the process close that file, or {}", end(task)))
}

fn is_known_device(device: (u32, u32)) -> bool {
    device.0 == MEMORY_DEVICES || DEVICES.contains(&device) || is_terminal(device)
}

/// Terminals of every kind (tty.c: `get_tty_driver`); [`super::terminals`] judges them.
fn is_terminal((major, _): (u32, u32)) -> bool {
    matches!(major, 4 | 5 | 128..=143 | 188 | 204)
}

/// files-reg.c: `Can't lookup mount=… for fd=… path=…`.
fn foreign(task: &Task, descriptor: &Descriptor) -> Finding {
    Finding::blocker(
        format!(
            "{} has opened {} on a mount that the container does not have",
            task.name(),
            descriptor.target
        ),
        "CRIU cannot open it again (it comes from outside, or its file system was unmounted)",
    )
    .at(place(task, descriptor))
    .remedy(format!("have the process close that file, or {}", end(task)))
}

/// files-reg.c: `Can't lookup mount=… for fd=-3 path=…`. LXC's init for `lxc-execute` is
/// `lxc-execute` itself.
fn outside(task: &Task, program: &Executed) -> Finding {
    let at = Place { file: Some(program.target.clone()), ..task.place() };
    let finding = Finding::blocker(
        format!("{} executes {}, which is outside of the container", task.name(), program.target),
        "CRIU opens a program again by its path in the container",
    )
    .at(at);
    if task.pid_inside == 1 {
        finding.remedy(
            "start the program without lxc-execute: name it in lxc.init.cmd, then lxc-start",
        )
    } else {
        finding.remedy(end(task))
    }
}

/// files-reg.c: `Can't link remap to …: Invalid cross-device link`, `Open files on overmounted
/// mounts are not supported yet`.
fn hidden(task: &Task, descriptor: &Descriptor, by: PathBuf) -> Finding {
    let at = Place { mount: Some(by.as_path().into()), ..place(task, descriptor) };
    Finding::blocker(
        format!(
            "{} has opened {}, which is now hidden by the mount on {}",
            task.name(),
            descriptor.target,
            by.display()
        ),
        "CRIU cannot open it again by its path",
    )
    .at(at)
    .remedy(format!(
        "have the program open the file again (restart it), or unmount {} in the container",
        by.display()
    ))
}

/// files-reg.c: `Can't dump ghost file … increase limit`.
fn ghost(task: &Task, place: Place, target: &Foreign, size: u64, cures: &Cures<'_>) -> Finding {
    let limit = size.div_ceil(1 << 20);
    Finding::blocker(
        format!("{} holds the deleted file {}", task.name(), target.without_end(" (deleted)")),
        format!(
            "its {} have to go into the checkpoint, which takes deleted files up to {}",
            bytes(size),
            bytes(cures.ghost_limit)
        ),
    )
    .at(place)
    .remedy(format!("raise the limit: set ghost_limit = {limit} in /etc/lxc/lxc-cr.toml"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::mounts::tests::{mount, tables};
    use super::super::task::tests::task;
    use super::*;
    use crate::preflight::descriptor::Mapped;

    const REGULAR: File = File {
        mode: libc::S_IFREG | 0o644,
        device: (0, 0),
        names: 1,
        size: 4096,
        inode: 7,
        mount: Some(64),
        terminal: None,
        path_only: false,
    };

    fn cures() -> Cures<'static> {
        Cures { ghost_limit: 1 << 20, host_files: &[], bpf_maps: false, prepare: "prepare it" }
    }

    fn judged_with(kinds: &[(&str, Kind)], cures: &Cures<'_>) -> Vec<Finding> {
        let task = task(105, "x");
        let numbered = kinds.iter().zip(3..);
        let descriptors = numbered
            .map(|((target, kind), number)| Descriptor {
                number,
                target: (*target).into(),
                kind: kind.clone(),
            })
            .collect();
        let opened = [Opened {
            task: &task,
            descriptors,
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        }];
        let tables = tables(vec![
            mount(64, 1, "/", "/"),
            mount(70, 64, "/", "/data"),
            mount(71, 70, "/", "/data"),
        ]);
        judge(&opened, &tables, cures)
    }

    fn judged(kinds: &[(&str, Kind)]) -> Vec<Finding> {
        judged_with(kinds, &cures())
    }

    #[test]
    fn what_criu_dumps_gives_no_finding() {
        let device = |device| Kind::File(File { mode: libc::S_IFCHR, device, ..REGULAR });
        let good = [
            ("anon_inode:[eventfd]", Kind::Anonymous("[eventfd]".into())),
            ("anon_inode:inotify", Kind::Anonymous("inotify".into())),
            ("/etc/passwd", Kind::File(REGULAR)),
            ("/tmp/ghost (deleted)", Kind::File(File { names: 0, size: 1 << 20, ..REGULAR })),
            ("/dev/null", device((1, 3))),
            ("/dev/net/tun", device((10, 200))),
            ("/dev/pts/ptmx", device((5, 2))),
            ("/data/file", Kind::File(File { mount: Some(71), ..REGULAR })),
            ("pipe:[12]", Kind::Other),
        ];
        assert_eq!(judged(&good), []);
    }

    #[test]
    fn what_criu_cannot_dump_blocks() {
        let bad = [
            ("anon_inode:bpf-prog", Kind::Anonymous("bpf-prog".into()), "an eBPF program"),
            ("anon_inode:[perf_event]", Kind::Anonymous("[perf_event]".into()), "perf_event"),
            ("anon_inode:[new]", Kind::Anonymous("[new]".into()), "kind 'new'"),
            (
                "/dev/fuse",
                Kind::File(File { mode: libc::S_IFCHR, device: (10, 229), ..REGULAR }),
                "10:229",
            ),
            (
                "/dev/loop0",
                Kind::File(File { mode: libc::S_IFBLK, device: (7, 0), ..REGULAR }),
                "block device 7:0",
            ),
            ("/null", Kind::File(File { mount: Some(3), ..REGULAR }), "/null on a mount"),
            ("/data/file", Kind::File(REGULAR), "hidden by the mount on /data"),
            (
                "/data/file",
                Kind::File(File { mount: Some(70), ..REGULAR }),
                "hidden by the mount on /data",
            ),
            (
                "/tmp/ghost (deleted)",
                Kind::File(File { names: 0, size: 3 << 20, ..REGULAR }),
                "deleted file /tmp/ghost",
            ),
        ];
        for (target, kind, words) in bad {
            let found = judged(&[(target, kind)]);
            assert_eq!(found.len(), 1, "{target}");
            assert_eq!(found[0].severity, Severity::Blocker);
            assert!(found[0].what.contains(words), "{}", found[0].what);
            assert_eq!((found[0].place.pid, found[0].place.descriptor), (Some(105), Some(3)));
        }
    }

    #[test]
    fn what_our_options_cure_is_no_finding() {
        let null = ("/null", Kind::File(File { mount: Some(3), ..REGULAR }));
        let host_files = [HostFile { mount_id: 3, inode: 7, path: "/dev/null".into() }];
        assert_eq!(judged_with(&[null], &Cures { host_files: &host_files, ..cures() }), []);
        let map = ("anon_inode:bpf-map", Kind::Anonymous("bpf-map".into()));
        assert_eq!(
            judged_with(std::slice::from_ref(&map), &Cures { bpf_maps: true, ..cures() }),
            []
        );
        assert_eq!(judged(&[map]).len(), 1);
    }

    #[test]
    fn a_program_from_outside_blocks() {
        let judged = |pid_inside: i32, from: i32| {
            let task = Task { pid_inside, ..task(105, "init") };
            let program = Some(Executed { target: "/usr/bin/lxc-execute".into(), mount: from });
            let opened = [Opened {
                task: &task,
                descriptors: Vec::new(),
                mapped: Vec::new(),
                shared_code: None,
                program,
            }];
            judge(&opened, &tables(vec![mount(64, 1, "/", "/")]), &cures())
        };
        assert_eq!(judged(1, 64), []);
        let found = judged(1, 30);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Blocker));
        assert!(found[0].remedy.contains("lxc.init.cmd"), "{}", found[0].remedy);
        assert!(judged(7, 30)[0].remedy.contains("kill 105"));
    }

    #[test]
    fn mapped_files_count_where_no_descriptor_does() {
        let task = task(105, "x");
        let mapped = vec![
            Mapped { target: "/tmp/a (deleted)".into(), size: 3 << 20, inode: 1 },
            Mapped { target: "/usr/lib/old.so (deleted)".into(), size: 4096, inode: 2 },
            Mapped { target: "anon_inode:[io_uring]".into(), size: 0, inode: 3 },
        ];
        let opened = [Opened {
            task: &task,
            descriptors: Vec::new(),
            mapped,
            shared_code: None,
            program: None,
        }];
        let found = judge(&opened, &tables(vec![mount(64, 1, "/", "/")]), &cures());
        assert_eq!(found.len(), 2);
        assert!(found[0].remedy.contains("ghost_limit = 3"), "{}", found[0].remedy);
    }

    #[test]
    fn files_of_threads_are_known_by_their_names() {
        assert_eq!(thread_of("/proc/12/task/15/stat"), Some(15));
        assert_eq!(thread_of("/proc/12/task/15"), Some(15));
        for other in [
            "/proc/12/task/12/stat",
            "/proc/12/task",
            "/proc/12/status",
            "/srv/proc/12/task/15",
            "/proc/x",
        ] {
            assert_eq!(thread_of(other), None, "{other}");
        }
    }
}
