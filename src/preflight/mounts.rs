//! Mounts that CRIU cannot dump or cannot make again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Names;
use super::finding::{Finding, Place};
use super::task::Tasks;
use crate::lxc::shell;
use crate::resources::mounts::{self, External, Mount};
use crate::resources::rootfs::Unsupported;
use crate::resources::terminals;

/// The mount tables of the container: of init's mount namespace, and of each other one in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// Init's first.
    tables: Vec<Vec<Mount>>,
    /// In which table a mount is, and where there.
    by_id: HashMap<i32, (usize, usize)>,
    /// The mounts upon a mount, by their mount point.
    upon: HashMap<(i32, PathBuf), Vec<i32>>,
    /// Which pieces of which file systems are mounted.
    roots: HashSet<(String, PathBuf)>,
}

impl Tables {
    fn of(tables: Vec<Vec<Mount>>) -> Tables {
        let (mut by_id, mut upon) = (HashMap::new(), HashMap::<_, Vec<i32>>::new());
        for (number, table) in tables.iter().enumerate() {
            for (at, mount) in table.iter().enumerate() {
                by_id.entry(mount.id).or_insert((number, at));
                upon.entry((mount.parent, mount.point.clone())).or_default().push(mount.id);
            }
        }
        let roots = tables.iter().flatten().map(|m| (m.device.clone(), m.root.clone())).collect();
        Tables { tables, by_id, upon, roots }
    }

    fn mount(&self, id: i32) -> Option<&Mount> {
        let (table, at) = *self.by_id.get(&id)?;
        self.tables.get(table)?.get(at)
    }

    /// Reads one table for each mount namespace of the container.
    pub(crate) fn read(tasks: &Tasks) -> Result<Tables> {
        let mut tables = Vec::new();
        for (at, task) in tasks.one_of_each("mnt").into_iter().enumerate() {
            match mounts::table(task.pid) {
                Ok(table) => tables.push(table),
                // It has ended meanwhile, and its namespace with it; init has not.
                Err(e) if at == 0 => return Err(e),
                Err(e) => log::debug!("{e:#}"),
            }
        }
        Ok(Tables::of(tables))
    }

    /// Init's.
    pub(crate) fn main(&self) -> &[Mount] {
        self.tables.first().map_or(&[], Vec::as_slice)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Mount> {
        self.tables.iter().flatten()
    }

    /// Whether one of the tables has this mount.
    pub(crate) fn has(&self, id: i32) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The mount point that hides a file of this mount: a mount upon it, or upon one below it, at
    /// or above the file.
    pub(crate) fn hidden_by(&self, id: i32, path: &Path) -> Option<PathBuf> {
        let mut above: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
        above.reverse();
        let (mut at, mut from) = (id, id);
        // From the file's own mount down to the root: as many steps as there are mounts, at most.
        for _ in 0..self.tables.get(self.by_id.get(&id)?.0)?.len() {
            for point in &above {
                let upon = self.upon.get(&(at, point.clone())).into_iter().flatten();
                if upon.into_iter().any(|id| *id != at && *id != from) {
                    return Some(point.clone());
                }
            }
            from = at;
            at = self.mount(at)?.parent;
        }
        None
    }
}

/// Judges the mounts; pure.
pub(crate) fn judge(tables: &Tables, externals: &[External], names: &Names) -> Vec<Finding> {
    let main = tables.main();
    let Some(root) = main.iter().rfind(|m| m.point == Path::new("/")) else { return Vec::new() };
    let mut found = Vec::new();
    let external: HashSet<&Path> = externals.iter().map(|e| e.point.as_path()).collect();
    for mount in main.iter().filter(|m| m.id != root.id) {
        if external.contains(mount.point.as_path()) || terminals::is_lent(mount) {
            continue;
        }
        found.extend(of_a_kind(mount, root, names));
        found.extend(rootless(mount, tables));
    }
    found.extend(without_proc(main));
    found.extend(deleted_twice(tables, externals));
    found.extend(pressure(tables));
    found.extend(terminals(tables));
    found
}

/// A root that no restart could mount.
pub(crate) fn of_root(unsupported: &Unsupported) -> Finding {
    Finding::blocker(
        unsupported.to_string(),
        "the checkpoint could be made, but a restart would be refused",
    )
    .on_restore()
    .at(Place { mount: Some("/".into()), ..Place::default() })
    .remedy(unsupported.hint())
}

pub(super) fn place(mount: &Mount) -> Place {
    Place { mount: Some(mount.point.as_path().into()), ..Place::default() }
}

/// The last resort of the remedies.
pub(super) fn unmount(mount: &Mount, names: &Names) -> String {
    match plain_point(mount) {
        Some(point) => format!("unmount it: {}", names.attach(&format!("umount {point}"))),
        None => "unmount it in the container".to_owned(),
    }
}

/// The mount point where it may be put into a command: the container's root names it as it likes.
pub(super) fn plain_point(mount: &Mount) -> Option<&str> {
    mount.point.to_str().filter(|point| shell::is_plain(point))
}

/// File systems that cannot be mounted again.
fn of_a_kind(mount: &Mount, root: &Mount, names: &Names) -> Option<Finding> {
    let (point, kind) = (mount.point.display(), mount.kind.as_str());
    let is_fuse = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
    let finding = if is_fuse {
        // filesystems.c: `failed to dump fs … (fuse): always fail`.
        Finding::blocker(
            format!("a FUSE file system ({kind}) is mounted on {point}"),
            "its contents are made by a process, and CRIU cannot mount it again",
        )
    } else if kind == "overlay" && mount.device != root.device {
        // The layers are named by paths that are not there yet when CRIU mounts it anew.
        Finding::blocker(
            format!("an overlay is mounted on {point}"),
            "CRIU can dump it, but cannot mount it again: it does not find the layers",
        )
        .on_restore()
    } else if kind == "ecryptfs" {
        Finding::blocker(
            format!("an encrypted file system ({kind}) is mounted on {point}"),
            "CRIU can dump it, but cannot mount it again: it has no key",
        )
        .on_restore()
    } else if kind == "autofs" {
        return Some(
            Finding::warning(
                format!("an automount waits on {point}"),
                "CRIU can restore it only if its daemon is in the container, and /dev/autofs is \
                 there",
            )
            .at(place(mount))
            .remedy(match plain_point(mount) {
                Some(point) => format!(
                    "if it is systemd's: {}",
                    names.attach(&format!(
                        "sh -c 'systemctl mask --now $(systemd-escape -p --suffix=automount \
                         {point})'"
                    ))
                ),
                None => "if it is systemd's, mask its automount unit in the container".to_owned(),
            }),
        );
    } else {
        return None;
    };
    Some(finding.at(place(mount)).remedy(unmount(mount, names)))
}

/// mount-v2.c: `Failed to make mount … shared: No such file or directory`, for CRIU names each
/// mount by its descriptor.
fn without_proc(main: &[Mount]) -> Option<Finding> {
    let there = main.iter().any(|m| m.kind == "proc" && m.point == Path::new("/proc"));
    (!there).then(|| {
        Finding::blocker(
            "nothing is mounted on /proc in the container",
            "CRIU can dump it, but not restore its mounts",
        )
        .on_restore()
        .remedy(
            "write lxc.mount.auto = proc:mixed into its configuration, and restart the container",
        )
    })
}

/// A piece of a file system of which CRIU sees no wider piece, neither on the host nor in the
/// container.
///
/// mount.c: `… doesn't have a proper root mount`.
fn rootless(mount: &Mount, tables: &Tables) -> Option<Finding> {
    if mount.root == Path::new("/") || mount.kind.starts_with("cgroup") {
        return None;
    }
    // A wider piece of it.
    if mount
        .root
        .ancestors()
        .skip(1)
        .any(|root| tables.roots.contains(&(mount.device.clone(), root.to_owned())))
    {
        return None;
    }
    Some(
        Finding::blocker(
            format!(
                "{} is a bind mount of a file system that is mounted nowhere else any more",
                mount.point.display()
            ),
            "neither CRIU nor lxc-cr knows where to mount it from at a restore",
        )
        .at(place(mount))
        .remedy(
            "mount its file system again where it was and restart the container, or unmount it in \
             the container",
        ),
    )
}

/// CRIU makes a deleted directory again to mount it, once for each mount namespace that has the
/// mount.
///
/// mount.c: `Can't re-create deleted directory …: File exists`.
fn deleted_twice(tables: &Tables, externals: &[External]) -> Option<Finding> {
    let is_deleted = |m: &&Mount| m.deleted && !externals.iter().any(|e| e.point == m.point);
    let others: HashSet<_> =
        tables.tables.iter().skip(1).flatten().map(|m| (&m.device, &m.root)).collect();
    let elsewhere = |m: &&Mount| others.contains(&(&m.device, &m.root));
    let mount = tables.main().iter().filter(is_deleted).find(elsewhere)?;
    let point = mount.point.display();
    Some(
        Finding::blocker(
            format!(
                "{point} is a bind mount of a deleted directory, and there are more mount \
                 namespaces with it"
            ),
            "CRIU can dump it, but fails when it makes the directory for the second time",
        )
        .on_restore()
        .at(place(mount))
        .remedy(format!(
            "unmount {point} in the container, in each of its mount namespaces, or restart the \
             services"
        )),
    )
}

/// systemd ≥ 254 binds a unit's memory.pressure file over a read-only cgroup tree; CRIU binds the
/// whole tree over it.
fn pressure(tables: &Tables) -> Option<Finding> {
    let mount = tables.tables.iter().skip(1).flatten().find(|m| {
        m.kind == "cgroup2" && m.point.file_name().is_some_and(|n| n == "memory.pressure")
    })?;
    Some(
        Finding::blocker(
            format!(
                "a systemd unit has {} mounted in a mount namespace of its own",
                mount.point.display()
            ),
            "CRIU can dump it, but fails to mount it again (Failed to move_mount)",
        )
        .on_restore()
        .at(place(mount))
        .remedy(
            "include lxc-cr-systemd.conf in its configuration and restart the container (or, in \
             the container: set DefaultMemoryPressureWatch=off under [Manager] in \
             /etc/systemd/system.conf, and restart its units)",
        ),
    )
}

/// A terminal that LXC lent is an external mount of the container; in a mount namespace inside,
/// CRIU takes it for a devpts to be made anew, which has no part in what it was mounted from.
fn terminals(tables: &Tables) -> Option<Finding> {
    let mount = tables.tables.iter().skip(1).flatten().find(|m| terminals::is_lent(m))?;
    Some(
        Finding::blocker(
            format!(
                "a service has LXC's {} in a mount namespace of its own",
                mount.point.display()
            ),
            "CRIU can dump it, but fails to mount it again (Failed to copy sharing)",
        )
        .on_restore()
        .at(place(mount))
        .remedy(
            "write lxc.console.path = none and lxc.tty.max = 0 into its configuration (lxc.include \
             = …/lxc-cr-systemd.conf does), and restart the container",
        ),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Severity;
    use super::*;

    /// A mount for the judges' tests.
    pub(crate) fn mount(id: i32, parent: i32, root: &str, point: &str) -> Mount {
        Mount {
            id,
            parent,
            device: format!("0:{id}"),
            root: root.into(),
            point: point.into(),
            kind: "tmpfs".into(),
            deleted: false,
            source: "none".into(),
            id_mapped: false,
            flags: nix::mount::MsFlags::empty(),
            shared: None,
            master: None,
        }
    }

    /// A container with one mount namespace.
    pub(crate) fn tables(table: Vec<Mount>) -> Tables {
        Tables::of(vec![table])
    }

    /// Judges a container that has a /proc, as each does.
    fn judge_complete(tables: &Tables, externals: &[External], names: &Names) -> Vec<Finding> {
        let mut tables = tables.clone();
        tables.tables[0].push(kind("proc", mount(99, 1, "/", "/proc")));
        judge(&tables, externals, names)
    }

    #[test]
    fn a_container_without_proc_is_told() {
        let found = judge(
            &tables(vec![mount(1, 0, "/", "/"), mount(2, 1, "/", "/proc")]),
            &[],
            &Names::test(),
        );
        assert_eq!(found[0].severity, Severity::Blocker);
    }

    #[test]
    fn a_piece_of_an_overlay_that_is_the_root_is_as_good_as_the_root() {
        let root = kind("overlay", mount(1, 0, "/", "/"));
        let piece =
            Mount { root: "/etc".into(), point: "/m".into(), id: 2, parent: 1, ..root.clone() };
        assert_eq!(judge_complete(&tables(vec![root, piece]), &[], &Names::test()), []);
    }

    fn kind(kind: &str, mount: Mount) -> Mount {
        Mount { kind: kind.into(), ..mount }
    }

    #[test]
    fn a_file_is_hidden_by_a_mount_above_it() {
        let tables = tables(vec![
            mount(1, 0, "/", "/"),
            mount(2, 1, "/", "/data"),
            mount(3, 2, "/", "/data/deep"),
            mount(4, 1, "/", "/other"),
        ]);
        let hidden = |id, path: &str| tables.hidden_by(id, Path::new(path));
        assert_eq!(hidden(1, "/data/x"), Some("/data".into()));
        assert_eq!(hidden(1, "/datum"), None);
        assert_eq!(hidden(2, "/data/x"), None);
        assert_eq!(hidden(2, "/data/deep/x"), Some("/data/deep".into()));
        assert_eq!(hidden(3, "/data/deep/x"), None);
        assert_eq!(hidden(9, "/x"), None);
        let late = self::tables(vec![
            mount(1, 0, "/", "/"),
            mount(2, 1, "/", "/a/b"),
            mount(3, 1, "/", "/a"),
        ]);
        assert_eq!(late.hidden_by(2, Path::new("/a/b/x")), Some("/a".into()));
    }

    #[test]
    fn file_systems_are_judged_by_their_kind() {
        let judged = |m: Mount| {
            let found =
                judge_complete(&tables(vec![mount(1, 0, "/", "/"), m]), &[], &Names::test());
            found.into_iter().map(|f| f.severity).collect::<Vec<_>>()
        };
        for good in ["tmpfs", "proc", "sysfs", "fusectl", "cgroup2", "mqueue", "ext4"] {
            assert_eq!(judged(kind(good, mount(2, 1, "/", "/m"))), [], "{good}");
        }
        for bad in ["fuse", "fuse.sshfs", "overlay", "ecryptfs"] {
            assert_eq!(judged(kind(bad, mount(2, 1, "/", "/m"))), [Severity::Blocker], "{bad}");
        }
        assert_eq!(judged(kind("autofs", mount(2, 1, "/", "/m"))), [Severity::Warning]);
    }

    #[test]
    fn a_mount_point_that_a_shell_would_run_goes_into_no_command() {
        for kind_of in ["fuse", "autofs"] {
            let judged = |point: &str| {
                let table = vec![mount(1, 0, "/", "/"), kind(kind_of, mount(2, 1, "/", point))];
                judge_complete(&tables(table), &[], &Names::test()).remove(0).remedy
            };
            assert!(judged("/m").contains("lxc-attach -n web -- "));
            for evil in ["/m;id", "/$(id)", "/a b", "/'"] {
                assert!(!judged(evil).contains("lxc-attach"), "{evil}");
            }
        }
    }

    #[test]
    fn what_the_host_lends_is_no_finding_as_long_as_the_host_has_it() {
        let lent = kind("fuse.lxcfs", mount(2, 1, "/proc/uptime", "/proc/uptime"));
        let table = tables(vec![mount(1, 0, "/", "/"), lent]);
        let external = External {
            key: "k".into(),
            point: "/proc/uptime".into(),
            source: "/var/lib/lxcfs/proc/uptime".into(),
            read_only: false,
            identity: None,
        };
        assert_eq!(judge_complete(&table, &[external], &Names::test()), []);
        assert_eq!(judge_complete(&table, &[], &Names::test()).len(), 2);
    }

    #[test]
    fn a_piece_of_what_is_mounted_here_needs_nobody_else() {
        let piece = Mount { device: "0:2".into(), ..mount(3, 1, "/sys", "/proc/sys") };
        assert_eq!(
            judge_complete(
                &tables(vec![mount(1, 0, "/", "/"), mount(2, 1, "/", "/proc"), piece]),
                &[],
                &Names::test()
            ),
            []
        );
        let orphan = mount(4, 1, "/srv/x", "/data");
        let found =
            judge_complete(&tables(vec![mount(1, 0, "/", "/"), orphan]), &[], &Names::test());
        assert_eq!(found[0].severity, Severity::Blocker);
        assert_eq!(found[0].place.mount, Some("/data".into()));
    }

    #[test]
    fn many_mounts_and_many_files_take_no_time_worth_telling() {
        const MANY: i32 = 20_000;
        let piece = |id: i32| mount(id, 1, "/srv/x", &format!("/m/{id}"));
        let table: Vec<Mount> =
            std::iter::once(mount(1, 0, "/", "/")).chain((2..MANY).map(piece)).collect();
        let begin = std::time::Instant::now();
        let tables = tables(table);
        assert!((0..MANY).all(|at| tables.hidden_by(1, Path::new(&format!("/f/{at}"))).is_none()));
        assert_eq!(tables.hidden_by(1, Path::new("/m/77/x")), Some("/m/77".into()));
        judge_complete(&tables, &[], &Names::test());
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_deleted_directory_can_be_made_again_only_once() {
        let deleted =
            |id| Mount { device: "0:1".into(), deleted: true, ..mount(id, 1, "/source", "/m") };
        let root = || mount(1, 0, "/", "/");
        let once = Tables::of(vec![vec![root(), deleted(2)], vec![root()]]);
        assert_eq!(judge_complete(&once, &[], &Names::test()), []);
        let twice = Tables::of(vec![vec![root(), deleted(2)], vec![root(), deleted(9)]]);
        assert_eq!(judge_complete(&twice, &[], &Names::test())[0].severity, Severity::Blocker);
    }

    #[test]
    fn a_pressure_file_in_a_units_namespace_is_told() {
        let pressure =
            kind("cgroup2", mount(5, 1, "/u/memory.pressure", "/sys/fs/cgroup/u/memory.pressure"));
        let tables =
            Tables::of(vec![vec![mount(1, 0, "/", "/")], vec![mount(9, 0, "/", "/"), pressure]]);
        assert_eq!(judge_complete(&tables, &[], &Names::test())[0].severity, Severity::Blocker);
    }

    #[test]
    fn a_terminal_of_lxcs_in_a_units_namespace_is_told() {
        let tty = |id| kind("devpts", mount(id, 1, "/4", "/dev/tty4"));
        let main = vec![mount(1, 0, "/", "/"), tty(3)];
        let only = Tables::of(vec![main.clone()]);
        assert_eq!(judge_complete(&only, &[], &Names::test()), []);
        let tables = Tables::of(vec![main, vec![mount(9, 0, "/", "/"), tty(5)]]);
        assert_eq!(judge_complete(&tables, &[], &Names::test())[0].severity, Severity::Blocker);
    }
}
