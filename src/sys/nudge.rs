//! Keeps a start from waiting for ever: a child that is stopped before it has its own program.
//!
//! Who starts a program waits until the child has become it. A SIGSTOP that reaches the child just
//! before (somebody stops "all that looks like CRIU") would keep both waiting. While a [`Nudger`]
//! lives, children of ours that are stopped and have no program of their own yet are continued.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io, thread};

use super::process::{self, Process};

/// How long a start may take before it is checked whether the child is stopped. Ours take a
/// millisecond.
const PATIENCE: Duration = Duration::from_millis(500);

/// Continues stopped children until it is dropped.
#[derive(Debug)]
pub(crate) struct Nudger {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudger {
    /// Begins.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start() -> io::Result<Nudger> {
        let (done, waits) = channel();
        let nudge = move || {
            while waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                continue_children();
            }
        };
        let thread = thread::Builder::new().name("nudge".to_owned()).spawn(nudge)?;
        Ok(Nudger { done: Some(done), thread: Some(thread) })
    }
}

impl Drop for Nudger {
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread sees at once that its channel is closed"
    )]
    fn drop(&mut self) {
        drop(self.done.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::debug!("the thread that continues stopped children has crashed");
        }
    }
}

/// Those that are still what we are: others may be stopped for good reasons.
fn continue_children() {
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let us = std::process::id().cast_signed();
    for pid in process::children(us).unwrap_or_default() {
        if process::is_stopped(pid)
            && program(pid) == program(us)
            && let Err(e) = Process::open(pid).and_then(|child| child.signal(libc::SIGCONT))
        {
            log::debug!("continue process {pid}: {e}");
        }
    }
}
