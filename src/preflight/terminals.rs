//! Terminals. CRIU restores a pseudo terminal if both of its ends are in the container.

use std::collections::BTreeSet;

use super::descriptor::{File, Kind, Opened, PTMX};
use super::finding::{Finding, Place};
use super::mounts::Tables;
use super::task::end;

/// The major number of the ends of pseudo terminals that programs use; the minor is the terminal's
/// number.
const SLAVE: u32 = 136;

/// Judges the terminals; pure. `handed_over` are the numbers of those whose masters the checkpoint
/// takes care of.
///
/// tty.c: `Unable to find a master for`, `Found slave peer index … without correspond master peer`.
pub(crate) fn judge(opened: &[Opened<'_>], tables: &Tables, handed_over: &[u32]) -> Vec<Finding> {
    let files = || {
        opened.iter().flat_map(|o| {
            o.descriptors.iter().filter_map(move |d| match &d.kind {
                Kind::File(file) if !file.path_only => Some((o.task, d, file)),
                _ => None,
            })
        })
    };
    let inside = |file: &File| file.mount.is_none_or(|id| tables.has(id));
    let masters: BTreeSet<u32> = files()
        .filter(|(_, _, f)| f.device == PTMX && inside(f))
        .filter_map(|(_, _, f)| f.terminal)
        .collect();
    let mut found = Vec::new();
    let mut told = BTreeSet::new();
    for (task, descriptor, file) in files() {
        let (major, number) = file.device;
        let is_slave = file.mode & libc::S_IFMT == libc::S_IFCHR && major == SLAVE;
        // One whose master was closed has lost its name, and does not need it.
        if !is_slave || file.names == 0 || handed_over.contains(&number) {
            continue;
        }
        if (inside(file) && masters.contains(&number)) || !told.insert((task.pid, number)) {
            continue;
        }
        let remedy = match task.pid_inside {
            1 => "set lxc.console.path = none and lxc.tty.max = 0 in its configuration, and \
                  restart the container"
                .to_owned(),
            _ => format!(
                "log out there, or {}; lxc.console.path = none and lxc.tty.max = 0 in its \
                 configuration keep such terminals out",
                end(task)
            ),
        };
        found.push(
            Finding::blocker(
                format!(
                    "{} is at the terminal {}, whose other end is outside of the container",
                    task.name(),
                    descriptor.target
                ),
                "CRIU cannot restore half of a terminal",
            )
            .at(Place {
                descriptor: Some(descriptor.number),
                file: Some(descriptor.target.clone()),
                ..task.place()
            })
            .remedy(remedy),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::mounts::tests::{mount, tables};
    use super::super::task::tests::task;
    use super::*;

    fn slave(number: u32, mount: i32) -> File {
        File {
            mode: libc::S_IFCHR | 0o620,
            device: (SLAVE, number),
            names: 1,
            mount: Some(mount),
            ..File::default()
        }
    }

    fn master(number: u32, mount: i32) -> File {
        File { device: PTMX, terminal: Some(number), ..slave(0, mount) }
    }

    fn judged(files: &[File], handed_over: &[u32]) -> usize {
        let task = task(105, "x");
        let descriptors = files.iter().map(|f| Descriptor {
            number: 3,
            target: "/dev/pts/0".into(),
            kind: Kind::File(*f),
        });
        let opened = [Opened {
            task: &task,
            descriptors: descriptors.collect(),
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        }];
        judge(&opened, &tables(vec![mount(64, 1, "/", "/dev/pts")]), handed_over).len()
    }

    #[test]
    fn both_ends_must_be_inside() {
        assert_eq!(judged(&[slave(0, 64), master(0, 64)], &[]), 0);
        assert_eq!(judged(&[master(0, 64)], &[]), 0);
        assert_eq!(judged(&[slave(0, 64)], &[]), 1);
        assert_eq!(judged(&[slave(0, 64), master(1, 64)], &[]), 1);
        // Terminals of the host with the numbers of the container's.
        assert_eq!(judged(&[slave(0, 7), master(0, 64)], &[]), 1);
        assert_eq!(judged(&[slave(0, 64), master(0, 7)], &[]), 1);
    }

    #[test]
    fn what_is_hung_up_or_handed_over_is_no_finding() {
        assert_eq!(judged(&[File { names: 0, ..slave(0, 64) }], &[]), 0);
        assert_eq!(judged(&[slave(3, 64)], &[3]), 0);
        // A process has its terminal open more than once.
        assert_eq!(judged(&[slave(3, 64), slave(3, 64)], &[]), 1);
    }
}
