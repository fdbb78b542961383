//! Instances of epoll that watch what the process has not open: made before a fork, used by both sides of it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::task::{Task, end};
use crate::sys::kcmp;

/// One that watches a descriptor which its process has not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// The process, the first that has the instance.
    pub task: &'a Task,
    /// The number of the instance.
    pub descriptor: u32,
    /// The number under which the descriptor was added.
    pub watched: u32,
}

/// What one instance watches: a number, and the inode behind it.
type Watched = (u32, u64);

/// Reads all instances, in the order in which CRIU comes upon them: it dumps each where it finds it first.
pub fn read<'a>(opened: &[Opened<'a>]) -> Vec<Foreign<'a>> {
    let mut seen: Vec<(i32, u32, Vec<Watched>)> = Vec::new();
    let mut found = Vec::new();
    for Opened { task, descriptors, .. } in opened {
        let instances = descriptors.iter().filter(|d| d.kind == Kind::Anonymous("[eventpoll]".to_owned()));
        for number in instances.map(|d| d.number) {
            let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", task.pid)).unwrap_or_default();
            let watched = watched(&info);
            let is_same = |(pid, other, what): &(i32, u32, Vec<Watched>)| {
                *what == watched && same_file((*pid, *other), (task.pid, number))
            };
            if watched.is_empty() || seen.iter().any(is_same) {
                continue;
            }
            let inodes: Vec<u64> = descriptors.iter().filter_map(|d| inode(task.pid, d.number)).collect();
            let foreign = watched.iter().find(|(_, inode)| !inodes.contains(inode));
            let foreign = foreign.map(|(watched, _)| Foreign { task, descriptor: number, watched: *watched });
            found.extend(foreign);
            seen.push((task.pid, number, watched));
        }
    }
    found
}

fn same_file(one: (i32, u32), other: (i32, u32)) -> bool {
    let signed = |(pid, number): (i32, u32)| (pid, number.cast_signed());
    kcmp::same_file(signed(one), signed(other)).unwrap_or(false)
}

fn inode(pid: i32, number: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/fd/{number}")).ok()?.ino())
}

/// Lines of fdinfo: `tfd: 5 events: 19 data: 5 pos:0 ino:2087 sdev:10`, the inode in hexadecimal.
fn watched(info: &str) -> Vec<Watched> {
    let line = |line: &str| -> Option<Watched> {
        let number = line.strip_prefix("tfd:")?.split_ascii_whitespace().next()?.parse().ok()?;
        let (_, rest) = line.split_once("ino:")?;
        Some((number, u64::from_str_radix(rest.split_ascii_whitespace().next()?, 16).ok()?))
    };
    info.lines().filter_map(line).collect()
}

/// Judges them; pure.
pub fn judge(found: &[Foreign<'_>]) -> Vec<Finding> {
    let finding = |Foreign { task, descriptor, watched }: &Foreign<'_>| {
        let what = format!(
            "{} has an epoll (descriptor {descriptor}) that watches what another process has added: its descriptor {watched}",
            task.name()
        );
        let place =
            Place { descriptor: Some(*descriptor), file: Some("anon_inode:[eventpoll]".to_owned()), ..task.place() };
        Finding::blocker(what, "CRIU looks for it in the first process that has the epoll, where it is not open")
            .at(place)
            .remedy(format!("have each process make an epoll of its own after a fork, or {}", end(task)))
    };
    found.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let info = "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t10\n\
                    tfd:       25 events:       19 data:               19  pos:0 ino:2a sdev:10\n";
        assert_eq!(watched(info), [(25, 42)]);
        assert_eq!(watched("pos:\t0\nino:\t10\ntfd: x"), []);
    }

    #[test]
    fn one_that_watches_its_own_is_no_finding() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        epoll.add(&reader, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
        let me = Task { pid: std::process::id().cast_signed(), ..Task::default() };
        let opened = [Opened::read(&me).unwrap()];
        assert_eq!(read(&opened), []);
        let foreign = Foreign { task: &task(105, "x"), descriptor: 3, watched: 25 };
        assert_eq!(judge(&[foreign])[0].severity, Severity::Blocker);
    }
}
