//! What is mounted and would not be the same after a restore: sources that the host has replaced,
//! contents that are in memory alone, and what CRIU does not save of a mount.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, major, minor};

use super::Names;
use super::descriptor::{Kind, Opened};
use super::finding::Finding;
use super::mounts::{Tables, place, unmount};
use crate::lxc::config::{Config, HookKind};
use crate::resources::mounts::Mount;
use crate::resources::mounts::external::{External, source_of};
use crate::resources::mounts::identity::Identity;
use crate::sys::glance::{Glance, glance, glance_root};
use crate::sys::in_root::{Below, holds_something};

/// What has to be looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What is now at the source of each external whose former one was deleted; none where nothing
    /// is.
    now: Vec<(PathBuf, Option<Identity>)>,
    /// Mounts of file systems in memory that hold something.
    filled: Vec<i32>,
    /// Mounts of a loop device that goes when the container stops.
    on_passing_loops: Vec<i32>,
    /// Whether the root is what the host sees at its path.
    root_is_hidden: bool,
}

impl Seen {
    /// Looks, through init's root. `host` is the mount table of `monitor`.
    pub(crate) fn read(
        init: i32,
        tables: &Tables,
        externals: &[External],
        (monitor, host): (i32, &[Mount]),
        rootfs: &Path,
    ) -> Seen {
        let seen_by_monitor = Below::of_process(monitor);
        let is_external = |m: &Mount| externals.iter().any(|e| e.point == m.point);
        let main = tables.main();
        let gone = main.iter().filter(|m| m.deleted && is_external(m));
        let now = gone.filter_map(|m| {
            let path = source_of(m, host)?.path(m);
            let seen = seen_by_monitor.as_ref().ok();
            Some((m.point.clone(), seen.and_then(|s| Identity::seen_from(s, &path, host).ok())))
        });
        let inside = Below::of_process(init);
        let is_filled = |m: &&Mount| {
            let mounted = inside.as_ref().ok().and_then(|root| root.mounted(&m.point).ok());
            // Else another mount covers it.
            let mounted = mounted.filter(|(_, known)| device_of(known) == m.device);
            mounted.is_some_and(|(dir, _)| holds_something(dir.as_fd()).unwrap_or(false))
        };
        let in_memory = main
            .iter()
            .filter(|m| ["ramfs", "hugetlbfs"].contains(&m.kind.as_str()) && !is_external(m));
        let on_loops = main.iter().filter(|m| !is_external(m) && goes_with_its_mount(&m.source));
        let root = main.iter().rfind(|m| m.point == Path::new("/"));
        Seen {
            now: now.collect(),
            filled: in_memory.filter(is_filled).map(|m| m.id).collect(),
            on_passing_loops: on_loops
                .filter(|m| root.is_none_or(|r| r.device != m.device))
                .map(|m| m.id)
                .collect(),
            root_is_hidden: glance(rootfs).ok().zip(glance_root(init).ok()).is_some_and(
                |(host, container)| {
                    let is_directory = FileType::from_raw_mode(host.mode) == FileType::Directory;
                    is_directory && (host.dev, host.ino) != (container.dev, container.ino)
                },
            ),
        }
    }
}

/// The device of its file system, as a mount table has it.
fn device_of(known: &Glance) -> String {
    format!("{}:{}", major(known.dev), minor(known.dev))
}

/// Whether a block device is a loop device that was set up for as long as it is mounted.
fn goes_with_its_mount(source: &str) -> bool {
    let name =
        source.strip_prefix("/dev/").filter(|name| name.starts_with("loop") && !name.contains('/'));
    name.is_some_and(|n| {
        fs::read_to_string(format!("/sys/block/{n}/loop/autoclear")).is_ok_and(|t| t.trim() == "1")
    })
}

/// Judges; pure.
pub(crate) fn judge(
    tables: &Tables,
    opened: &[Opened<'_>],
    seen: &Seen,
    config: &Config,
    names: &Names,
) -> Vec<Finding> {
    let main = tables.main();
    let mut found = Vec::new();
    for mount in main {
        let point = mount.point.display();
        let finding = if let Some((_, now)) =
            seen.now.iter().find(|(p, _)| *p == mount.point && mount.deleted)
        {
            Some(replaced(mount, now.as_ref(), opened))
        } else if mount.id_mapped {
            Some(Finding::blocker(
                format!("{point} is mounted with an id map of its own (idmap=)"),
                "CRIU does not save that: all files there would belong to other users after a \
                 restore",
            ))
        } else if mount.kind == "tracefs"
            && !main.iter().any(|m| m.id == mount.parent && m.kind == "debugfs")
        {
            Some(Finding::blocker(
                format!("a tracefs is mounted on {point}"),
                "CRIU leaves it out of the checkpoint",
            ))
        } else if seen.filled.contains(&mount.id) {
            Some(Finding::blocker(
                format!("there are files in the {} on {point}", mount.kind),
                "CRIU mounts it again, but empty",
            ))
        } else if seen.on_passing_loops.contains(&mount.id) {
            Some(Finding::blocker(
                format!(
                    "{point} is an image file that something in the container, or a hook, has \
                     mounted"
                ),
                format!(
                    "its loop device ({}) goes when the container stops, and a restore would not \
                     find it",
                    mount.source
                ),
            ))
        } else {
            None
        };
        found.extend(finding.map(|f| match f.remedy.is_empty() {
            true if mount.point == Path::new("/") => {
                f.at(place(mount)).remedy("take the option out of lxc.rootfs.options")
            }
            true => f.at(place(mount)).remedy(unmount(mount, names)),
            false => f.at(place(mount)),
        }));
    }
    found.extend(mounted_by_hook(main, seen, config));
    found
}

/// A bind mount of something that the host has put something else in the place of: it is mounted
/// then.
fn replaced(mount: &Mount, now: Option<&Identity>, opened: &[Opened<'_>]) -> Finding {
    let point = mount.point.display();
    let Some(now) = now else {
        return Finding::blocker(
            format!("the source of the bind mount {point} was deleted on the host"),
            "there is nothing that a restore could mount",
        );
    };
    let is_held = opened.iter().flat_map(|o| &o.descriptors).any(|d| match &d.kind {
        Kind::File(file) => file.mount == Some(mount.id) && file.names == 0,
        _ => false,
    });
    let what = format!(
        "the source of the bind mount {point} was replaced on the host since the container was \
         started"
    );
    if is_held {
        return Finding::blocker(
            what,
            "a process in the container has the old one open, and CRIU could not open it again",
        );
    }
    let why =
        format!("after a restore the container sees the {} that is there now", now.kind.in_words());
    Finding::warning(what, why)
        .remedy("if the container is to see the old one, put it back on the host first")
}

/// A root that a hook has mounted in the container's mount namespace, which nothing but a start
/// does.
fn mounted_by_hook(main: &[Mount], seen: &Seen, config: &Config) -> Option<Finding> {
    let hooks = config.hooks(HookKind::PreMount);
    if !seen.root_is_hidden || hooks.is_empty() {
        return None;
    }
    let root = main.iter().rfind(|m| m.point == Path::new("/"))?;
    Some(
        Finding::blocker(
            format!(
                "its root ({}) was mounted by a hook (lxc.hook.pre-mount) where the host does not \
                 see it",
                root.kind
            ),
            "a restore could not mount it",
        )
        .at(place(root))
        .remedy(
            "mount it on the host, in a pre-start hook (lxc.hook.pre-start), and restart the \
             container",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::mounts::tests::{mount, tables};
    use super::*;

    fn judged(mount: Mount, seen: Seen) -> Vec<Severity> {
        let tables = tables(vec![super::super::mounts::tests::mount(1, 0, "/", "/"), mount]);
        let config = Config::parse(Path::new("/config"), b"lxc.rootfs.path = /r\n").unwrap();
        judge(&tables, &[], &seen, &config, &Names::test())
            .into_iter()
            .map(|f| f.severity)
            .collect()
    }

    #[test]
    fn what_would_not_be_the_same_is_named() {
        let m = || mount(2, 1, "/", "/m");
        assert_eq!(judged(m(), Seen::default()), []);
        assert_eq!(judged(Mount { id_mapped: true, ..m() }, Seen::default()), [Severity::Blocker]);
        assert_eq!(
            judged(Mount { kind: "tracefs".into(), ..m() }, Seen::default()),
            [Severity::Blocker]
        );
        assert_eq!(judged(m(), Seen { filled: vec![2], ..Seen::default() }), [Severity::Blocker]);
        assert_eq!(
            judged(m(), Seen { on_passing_loops: vec![2], ..Seen::default() }),
            [Severity::Blocker]
        );
    }

    #[test]
    fn a_source_that_was_replaced_is_told_and_one_that_is_gone_stands_in_the_way() {
        let with = |now: Option<Identity>| {
            let seen = Seen { now: vec![("/m".into(), now)], ..Seen::default() };
            judged(Mount { deleted: true, ..mount(2, 1, "/x", "/m") }, seen)
        };
        let kind = crate::resources::mounts::identity::Kind::File;
        let file = Identity { kind, file_system: "ext4".into(), number: None, inode: Some(1) };
        assert_eq!(with(Some(file)), [Severity::Warning]);
        assert_eq!(with(None), [Severity::Blocker]);
    }
}
