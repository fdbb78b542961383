//! The pager: gives pages to who waits for them, follows what the processes do to their memory, and
//! fills the rest.
//!
//! A thread of its own. Between two blocks of the background's it asks whether somebody waits, so a
//! page that is touched comes after at most one other block. The background goes on from where a
//! page was touched last, then in order.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::rollback::filling::Mark;
use crate::store::blocks::BLOCK;
use crate::sys::poll;
use crate::sys::userfaultfd::{Event, Given, Userfaultfd};

use super::criu::{self, Message};
use super::pending::{Missing, Pending};
use super::source::Source;

/// At most so many events of one process before the others are asked.
const BATCH: usize = 64;
/// How long memory may be missing for a page, or an area for it, before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two times that the progress is told.
const TELL: Duration = Duration::from_millis(100);

/// The memory of one process.
#[derive(Debug)]
struct Space {
    uffd: Userfaultfd,
    pending: Pending,
    /// Where the background goes on.
    cursor: u64,
    /// Pages that could not be given yet, and since when there is no room or place for them.
    later: BTreeMap<u64, Option<Instant>>,
}

struct Pager<'a> {
    source: Source,
    spaces: Vec<Space>,
    criu: Link,
    restored: bool,
    /// The process that a page was given to last.
    latest: usize,
    page: u64,
    /// All bytes that were ever missing.
    total: u64,
    told: Instant,
    mark: &'a Mark,
}

/// The way to CRIU.
#[derive(Debug)]
enum Link {
    Awaited,
    Open(UnixStream),
    Closed,
}

/// What came of giving a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// To be tried again, after the process's next event.
    Changing,
    /// To be tried again, for a while.
    Hindered,
}

/// Serves until all is in, or the other end of the line is closed. Where it fails, `end` ends the
/// tasks before it returns, for after that nobody would give them their pages.
pub(super) fn run(
    source: Source,
    listener: &UnixListener,
    line: &UnixStream,
    mark: &Mark,
    end: impl FnOnce(),
) -> Result<()> {
    let mut pager = Pager {
        source,
        spaces: Vec::new(),
        criu: Link::Awaited,
        restored: false,
        latest: 0,
        page: procfs::page_size(),
        total: 0,
        told: Instant::now(),
        mark,
    };
    // What it holds is outside, and is not closed before the tasks have ended.
    let done = catch_unwind(AssertUnwindSafe(|| pager.work(listener, line)));
    let result = done.unwrap_or_else(|_| Err(anyhow!("the pager has crashed")));
    if result.is_err() {
        end();
    }
    result
}

impl Pager<'_> {
    fn work(&mut self, listener: &UnixListener, line: &UnixStream) -> Result<()> {
        loop {
            let ready = self.wait(listener, line)?;
            if ready.stop {
                return Ok(());
            }
            if ready.criu {
                self.hear(listener)?;
            }
            for space in ready.spaces {
                self.follow(space)?;
            }
            self.try_again()?;
            self.fill()?;
            if self.restored {
                self.spaces.retain(|space| !space.is_complete());
                if self.spaces.is_empty() {
                    return Ok(());
                }
            }
            self.tell();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "it ends by its line or the tasks' end")]
    fn wait(&self, listener: &UnixListener, line: &UnixStream) -> Result<Ready> {
        let limit = if self.background().is_some() {
            Some(Duration::ZERO)
        } else {
            self.spaces.iter().any(|space| !space.later.is_empty()).then_some(PAUSE)
        };
        let criu = match &self.criu {
            Link::Awaited => Some(listener.as_fd()),
            Link::Open(connection) => Some(connection.as_fd()),
            Link::Closed => None,
        };
        let spaces = self.spaces.iter().map(|space| space.uffd.as_fd());
        let fds: Vec<BorrowedFd<'_>> =
            [Some(line.as_fd()), criu].into_iter().flatten().chain(spaces).collect();
        let come = poll::readable_at_last(&fds, limit).context("wait for pages to be touched")?;
        let mut come = come.into_iter();
        let stop = come.next().unwrap_or(false);
        let criu = criu.is_some() && come.next().unwrap_or(false);
        let spaces = come.enumerate().filter_map(|(number, come)| come.then_some(number)).collect();
        Ok(Ready { stop, criu, spaces })
    }

    /// Takes what CRIU sends.
    #[expect(clippy::disallowed_methods, reason = "poll(2) has seen the connection")]
    fn hear(&mut self, listener: &UnixListener) -> Result<()> {
        let Link::Open(connection) = &self.criu else {
            self.criu = Link::Open(listener.accept().context("take CRIU's connection")?.0);
            return Ok(());
        };
        match criu::read(connection).context("hear which memory CRIU leaves to us")? {
            Message::Task(pid, uffd) => {
                let pending = self
                    .source
                    .task(pid)
                    .with_context(|| format!("the images have no memory of process {pid}"))?;
                log::debug!("process {pid}: {} KiB follow", pending.bytes() >> 10);
                self.add(Space { uffd, pending, cursor: 0, later: BTreeMap::new() });
            }
            Message::Zombie => {}
            Message::Finished => {
                self.restored = true;
                self.criu = Link::Closed;
            }
            // It has failed: its tasks are ended by whoever has started it.
            Message::End => self.criu = Link::Closed,
        }
        Ok(())
    }

    fn add(&mut self, space: Space) {
        self.total = self.total.saturating_add(space.pending.bytes());
        self.spaces.push(space);
    }

    /// Handles what a process has done, and gives what it waits for.
    fn follow(&mut self, number: usize) -> Result<()> {
        for _ in 0..BATCH {
            let space = &mut self.spaces[number];
            match space.uffd.next().context("read what a process does to its memory")? {
                None => break,
                Some(Event::Fault(address)) => {
                    let page = address / self.page * self.page;
                    self.latest = number;
                    self.give(number, page)?;
                    let space = &mut self.spaces[number];
                    space.cursor = page;
                }
                Some(Event::Fork(uffd)) => {
                    let (pending, cursor) = (space.pending.clone(), space.cursor);
                    self.add(Space { uffd, pending, cursor, later: BTreeMap::new() });
                }
                Some(Event::Remap { from, to, length }) => space.pending.remap(from, to, length),
                Some(Event::Remove { start, end }) => space.pending.remove(&(start..end)),
            }
        }
        Ok(())
    }

    /// Tries again to give what could not be given.
    fn try_again(&mut self) -> Result<()> {
        for number in 0..self.spaces.len() {
            let pages: Vec<u64> = self.spaces[number].later.keys().copied().collect();
            for page in pages {
                self.give(number, page)?;
            }
        }
        Ok(())
    }

    /// Gives one block that nobody waits for.
    fn fill(&mut self) -> Result<()> {
        let Some((number, page)) = self.background() else { return Ok(()) };
        self.spaces[number].cursor = page;
        self.give(number, page)
    }

    /// The page that the background gives next, and to which process.
    fn background(&self) -> Option<(usize, u64)> {
        if !self.restored {
            return None;
        }
        let next = |number: usize| {
            let space = self.spaces.get(number).filter(|space| space.later.is_empty())?;
            Some((number, space.pending.next_from(space.cursor)?))
        };
        next(self.latest).or_else(|| (0..self.spaces.len()).find_map(next))
    }

    /// Gives a page, with what is missing around it.
    fn give(&mut self, number: usize, page: u64) -> Result<()> {
        let space = &mut self.spaces[number];
        let outcome = match space.pending.around(page, BLOCK) {
            Some(missing) => space.fill(&mut self.source, page, missing, self.page)?,
            None => space.clear(page, self.page)?,
        };
        match outcome {
            Outcome::Done => {
                space.later.remove(&page);
            }
            Outcome::Changing => {
                space.later.insert(page, None);
            }
            Outcome::Hindered => {
                let since = space.later.entry(page).or_default().get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    bail!("a page at {page:#x} could not be given for {} s", PATIENCE.as_secs());
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let left: u64 = self.spaces.iter().map(|space| space.pending.bytes()).sum();
        let percent = (self.total.saturating_sub(left)) * 100 / self.total.max(1);
        if let Err(e) = self.mark.tell(percent.min(99) as u8) {
            log::debug!("say how much memory is in: {e}");
        }
    }
}

impl Space {
    fn is_complete(&self) -> bool {
        self.pending.is_empty() && self.later.is_empty()
    }

    /// Gives pages of the image.
    fn fill(
        &mut self,
        source: &mut Source,
        page: u64,
        mut missing: Missing,
        size: u64,
    ) -> Result<Outcome> {
        loop {
            let Missing { addresses, offset } = &missing;
            let pages = source.read(*offset, addresses.end - addresses.start)?;
            match self.uffd.copy(addresses.start, pages).context("give pages")? {
                Given::All => {
                    self.pending.remove(addresses);
                    return Ok(Outcome::Done);
                }
                Given::Part(length) => {
                    let given = addresses.start..addresses.start + length;
                    self.pending.remove(&given);
                    return Ok(if given.contains(&page) {
                        Outcome::Done
                    } else {
                        Outcome::Changing
                    });
                }
                // An area begins or ends in between.
                Given::NoArea if addresses.end - addresses.start > size => {
                    let offset = offset + (page - addresses.start);
                    missing = Missing { addresses: page..page + size, offset };
                }
                Given::Present => {
                    bail!("a page at {:#x} was there before it was given", addresses.start)
                }
                Given::Changing => return Ok(Outcome::Changing),
                Given::NoArea | Given::NoMemory => return Ok(Outcome::Hindered),
                Given::Gone => return Ok(self.end()),
            }
        }
    }

    /// Gives a page that the image does not have: one that the process has not had before.
    fn clear(&mut self, page: u64, size: u64) -> Result<Outcome> {
        Ok(match self.uffd.zero(page, size).context("give a page of zeroes")? {
            Given::All => Outcome::Done,
            Given::Changing | Given::Part(_) => Outcome::Changing,
            // Another thread was given it; or the area has gone: who waits finds out.
            Given::Present | Given::NoArea => {
                self.uffd.wake(page, size).context("wake a process")?;
                Outcome::Done
            }
            Given::NoMemory => Outcome::Hindered,
            Given::Gone => self.end(),
        })
    }

    /// The process has ended: nobody misses anything.
    fn end(&mut self) -> Outcome {
        self.pending = Pending::default();
        self.later.clear();
        Outcome::Done
    }
}

/// Who has something for us.
#[derive(Debug)]
struct Ready {
    stop: bool,
    criu: bool,
    spaces: Vec<usize>,
}
