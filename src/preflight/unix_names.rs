//! Unix sockets with a name in the file system: their restore is by that name, and after the
//! mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Names;
use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::mounts::{Tables, place};
use super::task::{self, Task, end, is_plain_service};
use crate::resources::mounts::{External, Mount};
use crate::sys::in_root::Below;

/// The file system in which the files of the mounts are restored from an archive, which holds no
/// sockets.
const TMPFS: &str = "tmpfs";

/// A name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    path: PathBuf,
    /// It waits for connections.
    listens: bool,
}

/// How the kernel marks a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: &str = "00010000";

/// The names of all unix sockets in a network namespace, by inode.
pub(crate) fn read(pid: i32) -> BTreeMap<u64, Named> {
    let text = task::read(pid, "net/unix").ok().flatten().unwrap_or_default();
    text.lines().filter_map(named).collect()
}

/// The seventh column is the inode, the eighth the path; `@` begins a name that is none of the file
/// system.
fn named(line: &str) -> Option<(u64, Named)> {
    let (head, path) = line.split_at_checked(line.find(" /")?)?;
    let words: Vec<&str> = head.split_ascii_whitespace().collect();
    let named = Named { path: PathBuf::from(&path[1..]), listens: *words.get(3)? == LISTENS };
    Some((words.get(6)?.parse().ok()?, named))
}

/// Judges sockets that are mounted elsewhere. mount-v2.c: `Failed to open_tree`.
pub(crate) fn mounted(
    sockets: &BTreeMap<u64, Named>,
    tables: &Tables,
    externals: &[External],
    opened: &[Opened<'_>],
    names: &Names,
) -> Vec<Finding> {
    let is_external = |mount: &Mount| externals.iter().any(|e| e.point == mount.point);
    let binds =
        tables.all().filter(|m| m.kind == TMPFS && m.root != Path::new("/") && !is_external(m));
    let found = binds.filter(|bind| {
        sockets.values().any(|socket| {
            let whole = tables.main().iter().filter(|m| m.device == bind.device);
            let inside =
                whole.filter_map(|m| Some(m.root.join(socket.path.strip_prefix(&m.point).ok()?)));
            inside.into_iter().any(|path| path == bind.root)
        })
    });
    found.map(|bind| of_a_mount(bind, opened, names)).collect()
}

fn has_mount(task: &Task, mount: &Mount) -> bool {
    let table = task::read(task.pid, "mountinfo").ok().flatten().unwrap_or_default();
    let id = format!("{} ", mount.id);
    task.unit().is_some() && table.lines().any(|line| line.starts_with(&id))
}

fn of_a_mount(bind: &Mount, opened: &[Opened<'_>], names: &Names) -> Finding {
    let holder = opened.iter().map(|o| o.task).find(|task| has_mount(task, bind));
    let who = holder.map_or_else(|| "it".to_owned(), Task::name);
    let finding = Finding::blocker(
        format!("{who} has a unix socket mounted on {}", bind.point.display()),
        "CRIU makes mounts before sockets, and finds nothing to mount there",
    )
    .at(place(bind));
    match holder.and_then(Task::unit) {
        Some(unit) if is_plain_service(&unit) => {
            let dir = format!("/etc/systemd/system/{unit}.d");
            let lines = "[Service]\\nBindPaths=\\nBindReadOnlyPaths=\\n";
            finding.remedy(format!(
                "start it without that mount: {}",
                names.attach(&format!(
                    "sh -c 'mkdir -p {dir} && printf \"{lines}\" > {dir}/lxc-cr-binds.conf && \
                     systemctl daemon-reload && systemctl restart {unit}'"
                ))
            ))
        }
        _ => finding.remedy("unmount it in the container"),
    }
}

/// Judges sockets whose directory is gone. sk-unix.c: `Can't bind id …: No such file or directory`.
pub(crate) fn homeless(
    sockets: &BTreeMap<u64, Named>,
    opened: &[Opened<'_>],
    init: i32,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for Opened { task, descriptors, .. } in opened {
        for descriptor in descriptors {
            let Kind::Socket { inode, .. } = &descriptor.kind else { continue };
            let Some(Named { path, listens }) = sockets.get(inode) else { continue };
            let at = Place {
                descriptor: Some(descriptor.number),
                file: Some(path.as_path().into()),
                ..task.place()
            };
            // A process that was chrooted since has bound it by a path outside.
            let is_there = |path: &Path| [task.pid, init].iter().any(|pid| exists(*pid, path));
            if !is_there(path.parent().unwrap_or(Path::new("/"))) {
                found.push(
                    Finding::blocker(
                        format!(
                            "{} has a socket at {}, whose directory is gone",
                            task.name(),
                            path.display()
                        ),
                        "CRIU makes a socket again at its place",
                    )
                    .at(at)
                    .remedy(format!("restart the program, or {}", end(task))),
                );
            } else if *listens && !is_there(path) {
                found.push(
                    Finding::warning(
                        format!(
                            "{} listens at {}, which is gone or was renamed",
                            task.name(),
                            path.display()
                        ),
                        "CRIU does not make other names of a socket again: clients will not find \
                         it",
                    )
                    .at(at)
                    .remedy(
                        "if it had another name, restart the program after the container's restart",
                    ),
                );
            }
        }
    }
    found
}

/// What cannot be looked into is taken to be there.
fn exists(pid: i32, path: &Path) -> bool {
    let Ok(root) = Below::of_process(pid) else { return true };
    !matches!(root.look(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::finding::Severity;
    use super::super::mounts::tests::{mount, tables};
    use super::super::task::tests::task;
    use super::*;

    fn listener(path: &str) -> Named {
        Named { path: path.into(), listens: true }
    }

    #[test]
    fn names_are_read() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a b";
        assert_eq!(named(line), Some((12345, listener("/run/a b"))));
        assert_eq!(named(&line.replace("/run", "@/run")), None);
        assert_eq!(named("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_mounted_socket_is_found_by_where_it_is() {
        let tmpfs = |m: Mount| Mount { kind: TMPFS.into(), device: "0:44".into(), ..m };
        let bind = tmpfs(mount(90, 64, "/systemd/journal/dev-log", "/var/lib/haproxy/dev/log"));
        let other = tmpfs(mount(91, 64, "/systemd/incoming", "/run/systemd/incoming"));
        let tables =
            tables(vec![mount(64, 1, "/", "/"), tmpfs(mount(70, 64, "/", "/run")), bind, other]);
        let sockets = BTreeMap::from([(7, listener("/run/systemd/journal/dev-log"))]);
        let found = mounted(&sockets, &tables, &[], &[], &Names::test());
        let what: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(what, ["it has a unix socket mounted on /var/lib/haproxy/dev/log"]);
    }

    #[test]
    fn sockets_without_their_names_are_found() {
        let me = std::process::id().cast_signed();
        let task = Task { pid: me, ..task(me, "x") };
        let socket = |number, inode| Descriptor {
            number,
            target: "".into(),
            kind: Kind::Socket { inode, protocol: "UNIX-STREAM".to_owned() },
        };
        let descriptors = vec![socket(3, 1), socket(4, 2), socket(5, 3), socket(6, 4)];
        let opened = Opened {
            task: &task,
            descriptors,
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        };
        let sockets = BTreeMap::from([
            (1, listener("/proc/version")),
            (2, listener("/proc/none")),
            (3, listener("/none/of/that/x")),
            (4, Named { path: "/proc/none".into(), listens: false }),
        ]);
        let found = homeless(&sockets, &[opened], me);
        let told: Vec<_> = found.iter().map(|f| (f.place.descriptor, f.severity)).collect();
        assert_eq!(told, [(Some(4), Severity::Warning), (Some(5), Severity::Blocker)]);
    }
}
