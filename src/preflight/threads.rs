//! What the threads of a process have for themselves. CRIU takes it for granted that they share all
//! but their stacks and registers.

use std::fs;

use super::finding::Finding;
use super::task::{Task, end};
use crate::sys::kcmp::{self, Shared};

/// What is to be known of the threads of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Threads {
    /// Its main thread has ended, others go on.
    pub headless: bool,
    /// One has descriptors of its own.
    pub descriptors: bool,
    /// One has a root or working directory or a umask of its own: whether they differ by now.
    pub directories: Option<bool>,
}

impl Threads {
    /// Reads those of a process. What has ended, or cannot be compared on this kernel, has nothing
    /// of its own.
    pub(crate) fn read(task: &Task) -> Threads {
        let mut threads = Threads::default();
        let others = others(task.pid);
        if task.is_zombie() {
            threads.headless = others.iter().any(|tid| is_alive(task.pid, *tid));
            return threads;
        }
        let own = |tid: i32, what| matches!(kcmp::share(task.pid, tid, what), Ok(false));
        for tid in others {
            threads.descriptors |= own(tid, Shared::Descriptors);
            if own(tid, Shared::Directories) {
                let differ = directories(task.pid, task.pid) != directories(task.pid, tid);
                threads.directories = Some(differ || threads.directories == Some(true));
            }
        }
        threads
    }
}

/// Its threads but for the main one.
fn others(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    tids.filter(|tid| *tid != pid).collect()
}

fn is_alive(pid: i32, tid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
}

/// Root, working directory and umask, as far as they can be told.
fn directories(pid: i32, tid: i32) -> [Option<String>; 3] {
    let link = |name: &str| {
        let target = fs::read_link(format!("/proc/{pid}/task/{tid}/{name}")).ok()?;
        Some(target.to_string_lossy().into_owned())
    };
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .map(|mask| mask.trim().to_owned());
    [link("root"), link("cwd"), umask]
}

/// Judges them; pure.
pub(crate) fn judge(of: &[(&Task, Threads)]) -> Vec<Finding> {
    of.iter().flat_map(|(task, threads)| judge_one(task, threads)).collect()
}

fn judge_one(task: &Task, threads: &Threads) -> Vec<Finding> {
    let mut found = Vec::new();
    let at = |finding: Finding| finding.at(task.place());
    if threads.headless {
        let what = format!(
            "the main thread of {} has ended, and others of its threads go on",
            task.name()
        );
        found.push(at(Finding::blocker(what, "CRIU cannot stop such a process").remedy(end(task))));
    }
    if threads.descriptors {
        let what = format!(
            "{} has a thread with descriptors of its own (unshare, CLONE_FILES)",
            task.name()
        );
        let why = "CRIU restores those of its main thread alone: the thread would lose its own";
        found.push(at(Finding::blocker(what, why).on_restore().remedy(end(task))));
    }
    let of_its_own = "a root, working directory and umask of its own (unshare, CLONE_FS)";
    match threads.directories {
        Some(true) => {
            let what = format!("{} has a thread with {of_its_own}", task.name());
            let why = "CRIU restores those of its main thread alone: the thread would open other \
                       files than it means to";
            found.push(at(Finding::blocker(what, why).on_restore().remedy(end(task))));
        }
        Some(false) => {
            let what = format!(
                "{} has a thread with {of_its_own}, the same as its main thread's by now",
                task.name()
            );
            let why = "after a restore they share them: what one changes then, changes for all";
            found.push(at(Finding::warning(what, why).remedy(end(task))));
        }
        None => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    use super::super::finding::{Fails, Severity};
    use super::super::task::tests::task;
    use super::*;

    /// Other tests unshare in threads of this process: the threads that are read are those of
    /// another one.
    #[test]
    fn threads_that_share_everything_are_no_finding() {
        let name = "preflight::threads::tests::waits_with_threads";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.by_ref().map_while(Result::ok).find(|line| line.ends_with(READY)).unwrap();
        let other = Task { pid: child.id().cast_signed(), ..task(105, "x") };
        assert!(fs::read_dir(format!("/proc/{}/task", other.pid)).unwrap().count() > 1);
        let threads = Threads::read(&other);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        // Until then: what it prints at its end needs a reader.
        drop(lines);
        assert_eq!(threads, Threads::default());
        assert_eq!(judge(&[(&task(105, "x"), threads)]), []);
    }

    const READY: &str = "the threads are there";

    #[test]
    #[ignore = "is the other process of the test above"]
    #[allow(clippy::print_stdout)]
    fn waits_with_threads() {
        let thread = std::thread::spawn(|| {
            println!("{READY}");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_would_be_lost_blocks_the_restore() {
        let of = |threads: Threads| judge(&[(&task(105, "smbd"), threads)]);
        let severity = |found: &[Finding]| (found[0].severity, found[0].fails);
        let headless = of(Threads { headless: true, ..Threads::default() });
        assert_eq!(severity(&headless), (Severity::Blocker, Fails::Dump));
        let descriptors = of(Threads { descriptors: true, ..Threads::default() });
        assert_eq!(severity(&descriptors), (Severity::Blocker, Fails::Restore));
        let differ = of(Threads { directories: Some(true), ..Threads::default() });
        assert_eq!(severity(&differ), (Severity::Blocker, Fails::Restore));
        let same = of(Threads { directories: Some(false), ..Threads::default() });
        assert_eq!(same.iter().map(|f| f.severity).collect::<Vec<_>>(), [Severity::Warning]);
    }

    #[test]
    fn a_directory_of_a_thread_is_seen() {
        let me = Task { pid: std::process::id().cast_signed(), ..task(105, "x") };
        let (ready, wait) = std::sync::mpsc::channel();
        let (done, end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            ready.send(std::env::set_current_dir("/proc")).unwrap();
            let _ = end.recv();
        });
        wait.recv().unwrap().unwrap();
        let threads = Threads::read(&me);
        drop(done);
        thread.join().unwrap();
        assert_eq!(threads, Threads { directories: Some(true), ..Threads::default() });
    }
}
