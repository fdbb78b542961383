//! A command of ours that is stopped before the n-th of its steps: the system calls that change
//! anything.
//!
//! It is traced by ptrace(2) from its start, with its threads and, for a restart, the monitor that
//! it becomes. Other programs, CRIU above all, are let go as soon as they begin.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::harness::enter::PROGRAMS;
use crate::harness::run::Run;

/// The calls that change something outside of the process, and their names.
const STEPS: &[(i64, &str)] = &[
    (libc::SYS_write, "write"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_lchown, "lchown"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_fork, "fork"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_exit_group, "exit"),
];

/// What a task is stopped for when it has made another.
const NEW_TASK: [i32; 3] =
    [libc::PTRACE_EVENT_CLONE, libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK];

/// A command under trace.
#[derive(Debug)]
pub struct Traced {
    child: Child,
    tasks: BTreeSet<Pid>,
    /// The task that stands still at a step.
    at_step: Option<Pid>,
    steps: Vec<String>,
}

impl Traced {
    /// Starts it. It has gone no further than its first instruction.
    pub fn start(run: Run) -> Traced {
        // The shell waits until it is seized.
        let mut child = Run::new("sh")
            .args(["-c", "read go; exec \"$@\" < /dev/null", "sh"])
            .args(run.words())
            .spawn_with(Stdio::piped());
        let pid = Pid::from_raw(child.id().cast_signed());
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(pid, options).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut traced =
            Traced { child, tasks: BTreeSet::from([pid]), at_step: None, steps: Vec::new() };
        traced.run_until_ours();
        traced
    }

    /// The command.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Runs it until it is about to do its n-th step; false if it ends before.
    pub fn run_to_step(&mut self, number: usize) -> bool {
        self.go_on(Some(number));
        self.at_step.is_some()
    }

    /// Runs it until the command has ended; what it leaves behind is let go. All of its steps.
    pub fn run_to_its_end(mut self) -> Vec<String> {
        self.go_on(None);
        let steps = std::mem::take(&mut self.steps);
        self.let_go().wait().unwrap();
        steps
    }

    /// Traces it no longer.
    pub fn let_go(mut self) -> Child {
        if let Some(task) = self.at_step.take() {
            self.detach(task, None);
        }
        // Threads first: the end of a process is told when all of its threads have been collected.
        let command = Pid::from_raw(self.child.id().cast_signed());
        for task in std::mem::take(&mut self.tasks).into_iter().rev() {
            // A task that runs must stand still to be let go.
            if ptrace::interrupt(task).is_ok() {
                self.let_task_go(task);
            } else if task != command {
                // It was killed: a thread that is traced is collected by nobody else.
                let _ = waitpid(task, Some(WaitPidFlag::__WALL));
            }
        }
        self.child
    }

    fn let_task_go(&self, task: Pid) {
        loop {
            match self.wait(Id::Pid(task)) {
                Ok(WaitStatus::Stopped(_, signal)) => return self.detach(task, Some(signal)),
                Ok(WaitStatus::PtraceEvent(_, _, event)) => {
                    if NEW_TASK.contains(&event)
                        && let Ok(new) = ptrace::getevent(task)
                    {
                        let new = Pid::from_raw(new as i32);
                        let _ = waitpid(new, Some(WaitPidFlag::__WALL));
                        self.detach(new, None);
                    }
                    return self.detach(task, None);
                }
                Ok(WaitStatus::PtraceSyscall(_)) => return self.detach(task, None),
                Ok(WaitStatus::StillAlive | WaitStatus::Continued(_)) | Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The next event. The command's own end is told, but left for whoever waits for it.
    fn wait(&self, whom: Id<'_>) -> nix::Result<WaitStatus> {
        let peek = WaitPidFlag::WEXITED
            | WaitPidFlag::WSTOPPED
            | WaitPidFlag::__WALL
            | WaitPidFlag::WNOWAIT;
        let status = waitid(whom, peek)?;
        let task = status.pid().ok_or(Errno::ECHILD)?;
        let is_end = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        if is_end && task.as_raw() == self.child.id().cast_signed() {
            return Ok(status);
        }
        waitpid(task, Some(WaitPidFlag::__WALL))
    }

    fn detach(&self, task: Pid, signal: Option<Signal>) {
        // The stop of an interrupt is no signal.
        let signal = signal.filter(|s| *s != Signal::SIGTRAP && *s != Signal::SIGSTOP);
        let _ = ptrace::detach(task, signal);
    }

    /// Runs until the shell has become the command.
    fn run_until_ours(&mut self) {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL)).unwrap();
            if let WaitStatus::PtraceEvent(task, _, libc::PTRACE_EVENT_EXEC) = status
                && is_ours(task)
            {
                ptrace::syscall(task, None).unwrap();
                return;
            }
            match status {
                WaitStatus::Stopped(task, signal) => {
                    ptrace::cont(task, Some(signal).filter(|s| *s != Signal::SIGTRAP)).unwrap()
                }
                WaitStatus::PtraceEvent(task, ..) => ptrace::cont(task, None).unwrap(),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    panic!("the command did not start: {status:?}")
                }
                _ => {}
            }
        }
    }

    fn go_on(&mut self, stop_before: Option<usize>) {
        let command = Pid::from_raw(self.child.id().cast_signed());
        while !self.tasks.is_empty() {
            let status = match self.wait(Id::All) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            match status {
                WaitStatus::PtraceSyscall(task) => {
                    if let Some(step) = step_of(task) {
                        self.steps.push(step);
                        if Some(self.steps.len()) == stop_before {
                            self.at_step = Some(task);
                            return;
                        }
                    }
                    let _ = ptrace::syscall(task, None);
                }
                WaitStatus::PtraceEvent(task, _, libc::PTRACE_EVENT_EXEC) if !is_ours(task) => {
                    self.tasks.remove(&task);
                    self.detach(task, None);
                }
                WaitStatus::PtraceEvent(task, _, event) => {
                    self.tasks.insert(task);
                    // A new task announces itself by a stop of its own, before or after this; it
                    // may be killed before that.
                    if NEW_TASK.contains(&event)
                        && let Ok(new) = ptrace::getevent(task)
                    {
                        self.tasks.insert(Pid::from_raw(new as i32));
                    }
                    let _ = ptrace::syscall(task, None);
                }
                WaitStatus::Stopped(task, signal) => {
                    self.tasks.insert(task);
                    let signal =
                        Some(signal).filter(|s| *s != Signal::SIGTRAP && *s != Signal::SIGSTOP);
                    let _ = ptrace::syscall(task, signal);
                }
                WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                    self.tasks.remove(&task);
                    if task == command {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

/// The step that a task is about to do, if its call is one.
fn step_of(task: Pid) -> Option<String> {
    let info = ptrace::syscall_info(task).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel says that it is an entry.
    let entry = unsafe { info.u.entry };
    let number = entry.nr.cast_signed();
    if number == libc::SYS_openat {
        let creates =
            entry.args[2] & u64::from((libc::O_CREAT | libc::O_TRUNC).cast_unsigned()) != 0;
        return creates.then(|| "create".to_owned());
    }
    STEPS.iter().find(|(step, _)| *step == number).map(|(_, name)| (*name).to_owned())
}

fn is_ours(task: Pid) -> bool {
    fs::read_link(format!("/proc/{task}/exe")).is_ok_and(|program| program.starts_with(PROGRAMS))
}
