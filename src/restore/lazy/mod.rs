//! Lazy restore: the container runs at once, and its memory follows.
//!
//! CRIU (`--lazy-pages`) leaves private anonymous memory empty, registers it with a userfaultfd(2)
//! per process, and sends these over a socket ([`criu`]). A thread of the monitor's, the [`pager`],
//! gives each page when it is touched, and all others meanwhile, out of the checkpoint's images
//! ([`source`]). What is still missing, and where it has been moved since, is [`pending`].
//!
//! Never a wrong byte:
//! * a block is verified against its checksum before any page of it is given, and what CRIU reads
//!   itself before the container runs ([`source`]);
//! * while a descriptor of a userfaultfd is open, a process that misses a page waits. A
//!   [keeper](crate::sys::keeper) shares the table of our descriptors: it ends the container if we
//!   die, and nothing reads zeroes before that;
//! * where a page cannot be given (a damaged image, a failing disk, an event that cannot be
//!   followed) the container is ended, and the log says why.
//!
//! The images are held, and the container is marked ([`filling`](crate::rollback::filling)), until
//! the last page is in.

mod criu;
mod pager;
mod pending;
mod source;
mod suitable;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, anyhow};

use crate::resources::cgroup;
use crate::rollback::filling::{Mark, SOCKET};
use crate::sys::files;
use crate::sys::keeper::Keeper;
use crate::sys::poll;

pub(super) use source::Source;
pub(super) use suitable::{Decision, decide};

/// How long the processes of a container that is ended may take for it.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Between two checks whether they have ended.
const END_PAUSE: Duration = Duration::from_millis(2);

/// What fills a container's memory. Dropped before all is in, it ends the container.
#[derive(Debug)]
pub(crate) struct Filling {
    // In the order in which they have to go.
    pager: Pager,
    keeper: Keeper,
    cgroup: PathBuf,
    socket: PathBuf,
    images: Option<File>,
    marked: Vec<(String, Vec<u8>)>,
    _mark: Arc<Mark>,
}

#[derive(Debug)]
struct Pager {
    /// Ends when the pager does, and tells it to stop when it is dropped.
    line: Option<UnixStream>,
    /// Set before it ends the tasks, because it has failed.
    failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What has become of it.
#[derive(Debug)]
pub(crate) enum Filled {
    /// All is in.
    Complete,
    /// The container was ended, for this reason.
    Ended(anyhow::Error),
}

impl Filling {
    /// Begins to listen for CRIU, which restores into this cgroup2 directory. `state` is the
    /// container's state directory.
    #[expect(clippy::disallowed_methods, reason = "the pair is only watched, by poll")]
    pub(super) fn start(
        mut source: Source,
        images: &Path,
        cgroup: &Path,
        state: &Path,
    ) -> Result<Filling> {
        let socket = state.join(SOCKET);
        files::remove_if_there(&socket)?;
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listen at {}", socket.display()))?;
        let keeper =
            Keeper::start(cgroup).context("start the process that ends the container if we die")?;
        let mark = Arc::new(Mark::set(state, images)?);
        let (line, other) = UnixStream::pair().context("make a pair of sockets")?;
        let (dir, marked) = (cgroup.to_owned(), source.take_marked());
        let failed = Arc::new(AtomicBool::new(false));
        let (told, shown) = (Arc::clone(&failed), Arc::clone(&mark));
        let work = move || {
            pager::run(source, &listener, &other, &shown, || {
                told.store(true, Ordering::Release);
                end(&dir);
            })
        };
        let thread = std::thread::Builder::new()
            .name("pager".to_owned())
            .spawn(work)
            .context("start a thread")?;
        let pager = Pager { line: Some(line), failed, thread: Some(thread) };
        let cgroup = cgroup.to_owned();
        Ok(Filling { pager, keeper, cgroup, socket, images: None, marked, _mark: mark })
    }

    /// Where CRIU finds it.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The images that CRIU is to be shown in place of those in the checkpoint, by their names.
    pub(super) fn marked(&self) -> &[(String, Vec<u8>)] {
        &self.marked
    }

    /// Holds the images until it is dropped.
    pub(super) fn hold(&mut self, images: File) {
        self.images = Some(images);
    }

    /// Readable when there is something to [handle](Filling::handle).
    pub(crate) fn watched(&self) -> [BorrowedFd<'_>; 2] {
        let line = self.pager.line.as_ref().map(AsFd::as_fd);
        [line.unwrap_or(self.keeper.as_fd()), self.keeper.as_fd()]
    }

    /// Sees what has come: the end of it, or that of the keeper, which is replaced.
    pub(crate) fn handle(&mut self) -> Option<Filled> {
        if self.pager.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Some(match self.pager.join() {
                Ok(()) => Filled::Complete,
                Err(e) => Filled::Ended(e),
            });
        }
        if !has_ended(self.keeper.as_fd()) {
            return None;
        }
        log::warn!(
            "process {}, which would end the container if we die, has ended: another one is \
             started",
            self.keeper.pid()
        );
        match Keeper::start(&self.cgroup) {
            Ok(keeper) => {
                self.keeper = keeper;
                None
            }
            Err(e) => {
                end(&self.cgroup);
                Some(Filled::Ended(
                    anyhow!(e).context("start a process that ends the container if we die"),
                ))
            }
        }
    }

    /// Why it has failed so far, if it has: then the tasks were ended.
    pub(crate) fn failure(&mut self) -> Option<anyhow::Error> {
        if self.pager.failed.load(Ordering::Acquire) { self.pager.join().err() } else { None }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if self.pager.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            end(&self.cgroup);
        }
        if let Err(e) = self.pager.join() {
            log::debug!("the pager: {e:#}");
        }
        if let Err(e) = files::remove_if_there(&self.socket) {
            log::debug!("{e:#}");
        }
    }
}

impl Pager {
    /// Stops it, and says how it has ended.
    #[expect(clippy::disallowed_methods, reason = "the pager watches for the end of its line")]
    fn join(&mut self) -> Result<()> {
        self.line = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the thread that fills its memory has crashed")),
        }
    }
}

/// Ends all tasks of a cgroup, and waits until they are gone. While they are not, no userfaultfd
/// may be closed.
fn end(cgroup: &Path) {
    if let Err(e) = cgroup::kill(cgroup) {
        log::error!("{e:#}");
    }
    let limit = Instant::now() + END_LIMIT;
    while Instant::now() < limit && is_populated(cgroup).unwrap_or(false) {
        std::thread::sleep(END_PAUSE);
    }
}

fn is_populated(cgroup: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(cgroup.join("cgroup.events"))?.lines().any(|line| line == "populated 1"))
}

fn has_ended(process: BorrowedFd<'_>) -> bool {
    matches!(poll::readable([process], Duration::ZERO), Ok([true]))
}
