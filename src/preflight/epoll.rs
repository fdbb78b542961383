//! Instances of epoll that watch what the process has not open: made before a fork, used by both
//! sides of it.

use std::fs;

use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::task::{Task, end};
use crate::sys::kcmp;

/// One that watches a descriptor which its process has not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign<'a> {
    /// The process, the first that has the instance.
    pub task: &'a Task,
    /// The number of the instance.
    pub descriptor: u32,
    /// The number under which the descriptor was added.
    pub watched: u32,
}

/// Reads all instances, in the order in which CRIU comes upon them: it dumps each where it finds it
/// first.
pub(crate) fn read<'a>(opened: &[Opened<'a>]) -> Vec<Foreign<'a>> {
    let mut seen: Vec<(i32, u32, Vec<u32>)> = Vec::new();
    let mut found = Vec::new();
    for Opened { task, descriptors, .. } in opened {
        let numbers: Vec<u32> = descriptors.iter().map(|d| d.number).collect();
        let instances =
            descriptors.iter().filter(|d| d.kind == Kind::Anonymous("[eventpoll]".to_owned()));
        for descriptor in instances.map(|d| d.number) {
            let watched = watched(task.pid, descriptor);
            let is_same = |(pid, other, what): &(i32, u32, Vec<u32>)| {
                *what == watched && same_file((*pid, *other), (task.pid, descriptor))
            };
            if watched.is_empty() || seen.iter().any(is_same) {
                continue;
            }
            let foreign = foreign(task.pid, descriptor, &watched, &numbers);
            found.extend(foreign.map(|watched| Foreign { task, descriptor, watched }));
            seen.push((task.pid, descriptor, watched));
        }
    }
    found
}

/// The first that it watches and that is none of its process's descriptors.
fn foreign(pid: i32, epoll: u32, watched: &[u32], descriptors: &[u32]) -> Option<u32> {
    let is = |number: u32, occurrence, descriptor: u32| {
        let (epoll, number, descriptor) =
            (epoll.cast_signed(), number.cast_signed(), descriptor.cast_signed());
        kcmp::is_watched(pid, epoll, number, occurrence, descriptor)
    };
    for (at, number) in watched.iter().enumerate() {
        let occurrence = watched[..at].iter().filter(|before| *before == number).count() as u32;
        // Mostly it has the number under which it was added.
        let mut candidates = [number].into_iter().chain(descriptors);
        let is_own = |descriptor: &u32| match is(*number, occurrence, *descriptor) {
            Ok(is) => is,
            // A number that is not open; else it was taken out meanwhile, or cannot be told.
            Err(e) => e.raw_os_error() != Some(libc::EBADF),
        };
        if !candidates.any(is_own) {
            return Some(*number);
        }
    }
    None
}

fn same_file(one: (i32, u32), other: (i32, u32)) -> bool {
    let signed = |(pid, number): (i32, u32)| (pid, number.cast_signed());
    kcmp::same_file(signed(one), signed(other)).unwrap_or(false)
}

/// The numbers under which descriptors were added to an epoll.
fn watched(pid: i32, epoll: u32) -> Vec<u32> {
    parse(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{epoll}")).unwrap_or_default())
}

/// Lines of fdinfo: `tfd: 5 events: 19 data: 5 pos:0 ino:2087 sdev:10`.
fn parse(info: &str) -> Vec<u32> {
    let line =
        |line: &str| line.strip_prefix("tfd:")?.split_ascii_whitespace().next()?.parse().ok();
    info.lines().filter_map(line).collect()
}

/// Judges them; pure.
pub(crate) fn judge(found: &[Foreign<'_>]) -> Vec<Finding> {
    let finding = |Foreign { task, descriptor, watched }: &Foreign<'_>| {
        let what = format!(
            "{} has an epoll (descriptor {descriptor}) that watches what another process has \
             added: its descriptor {watched}",
            task.name()
        );
        let place = Place {
            descriptor: Some(*descriptor),
            file: Some("anon_inode:[eventpoll]".into()),
            ..task.place()
        };
        Finding::blocker(
            what,
            "CRIU looks for it in the first process that has the epoll, where it is not open",
        )
        .at(place)
        .remedy(format!(
            "have each process make an epoll of its own after a fork, or {}",
            end(task)
        ))
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
        assert_eq!(parse(info), [25]);
        assert!(parse("pos:\t0\nino:\t10\ntfd: x").is_empty());
    }

    #[test]
    fn one_that_watches_its_own_is_no_finding() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        epoll.add(&reader, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
        // One that has another number by now.
        let (moved, _writer_too) = std::io::pipe().unwrap();
        epoll.add(&moved, EpollEvent::new(EpollFlags::EPOLLIN, 8)).unwrap();
        let _moved = moved.try_clone().unwrap();
        drop(moved);
        let me = Task { pid: std::process::id().cast_signed(), ..Task::default() };
        let opened = [Opened::read(&me).unwrap()];
        assert_eq!(read(&opened), []);
        let foreign = Foreign { task: &task(105, "x"), descriptor: 3, watched: 25 };
        assert_eq!(judge(&[foreign])[0].severity, Severity::Blocker);
    }
}
