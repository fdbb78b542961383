//! A program whose memory has a known content, page by page, and that does to it what programs do.
//!
//! `pattern MEBIBYTES` fills them and listens on port 7001. A line `check` looks at every page;
//! `churn SEED` first reads, writes, forks, moves, drops, protects and unmaps at random, and
//! children look at all of it, too; `storm SEED` first forks many at once; `serve COUNT` forks so
//! many that share all of it, and stay. The answer is `good …` or `wrong …`: pages that are zeroes
//! where there should be something are counted apart.
//!
//! Built by `rustc` alone into one static program: it runs in a container that has no library.

use std::env;
use std::ffi::{c_int, c_void};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const PORT: u16 = 7001;
const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// So many pages are moved, dropped or unmapped at once.
const CHUNK: usize = 24;
const STEPS: usize = 400;
/// So many children at once, of which each looks at one of so many parts.
const STORM: usize = 24;
const SHARES: usize = 16;

unsafe extern "C" {
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn mremap(at: *mut c_void, length: usize, new: usize, flags: c_int, ...) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
    fn madvise(at: *mut c_void, length: usize, advice: c_int) -> c_int;
    fn mprotect(at: *mut c_void, length: usize, protection: c_int) -> c_int;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

#[derive(Clone, Copy)]
enum Content {
    /// Of this seed in each page's words.
    Seeded(u64),
    Zeroes,
    Unmapped,
}

/// Adjoining pages that are moved together.
#[derive(Clone)]
struct Chunk {
    at: *mut u64,
    pages: Vec<Content>,
}

fn mixed(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mixed(self.0) % limit as u64) as usize
    }
}

impl Chunk {
    fn page(&self, page: usize) -> *mut u64 {
        // SAFETY: callers name pages of the chunk.
        unsafe { self.at.add(page * WORDS) }
    }

    fn write(&mut self, page: usize, seed: u64) {
        for word in 0..WORDS {
            // SAFETY: the page is mapped and can be written to.
            unsafe { self.page(page).add(word).write_volatile(mixed(seed + word as u64)) };
        }
        self.pages[page] = Content::Seeded(seed);
    }

    /// What is wrong with a page, if something is: whether it is zeroes.
    fn fault(&self, page: usize) -> Option<bool> {
        // SAFETY: the page is mapped and can be read.
        let word = |word: usize| unsafe { self.page(page).add(word).read_volatile() };
        let good = match self.pages[page] {
            Content::Unmapped => true,
            Content::Zeroes => (0..WORDS).all(|i| word(i) == 0),
            Content::Seeded(seed) => (0..WORDS).all(|i| word(i) == mixed(seed + i as u64)),
        };
        (!good).then(|| (0..WORDS).all(|i| word(i) == 0))
    }
}

struct Memory {
    chunks: Vec<Chunk>,
    next: u64,
}

impl Memory {
    fn new(mebibytes: usize) -> Memory {
        let count = (mebibytes << 20) / (CHUNK * PAGE);
        // SAFETY: new private memory.
        let at = unsafe { mmap(std::ptr::null_mut(), count * CHUNK * PAGE, 3, 0x22, -1, 0) };
        assert!(at as isize != -1);
        let chunk = |i: usize| {
            // SAFETY: within the mapping.
            let at = unsafe { at.cast::<u64>().add(i * CHUNK * WORDS) };
            Chunk { at, pages: vec![Content::Zeroes; CHUNK] }
        };
        let mut memory = Memory { chunks: (0..count).map(chunk).collect(), next: 1 };
        for i in 0..count {
            for page in 0..CHUNK {
                // Some are never touched.
                if page % 11 != 5 {
                    memory.write(i, page);
                }
            }
        }
        memory
    }

    fn write(&mut self, chunk: usize, page: usize) {
        self.next += WORDS as u64;
        self.chunks[chunk].write(page, self.next << 8);
    }

    /// Looks at all pages, from one on.
    fn check(&self, first: usize) -> Result<usize, String> {
        let (mut good, mut zeroes, mut wrong) = (0, 0, 0);
        for i in 0..self.chunks.len() {
            let chunk = &self.chunks[(first + i) % self.chunks.len()];
            for page in 0..CHUNK {
                match chunk.fault(page) {
                    None => good += 1,
                    Some(true) => zeroes += 1,
                    Some(false) => wrong += 1,
                }
            }
        }
        if zeroes + wrong > 0 { Err(format!("{zeroes} pages are zeroes, {wrong} something else")) } else { Ok(good) }
    }

    /// A child looks at all pages, while we go on.
    fn child(&self, first: usize) -> c_int {
        // SAFETY: the child only reads memory and ends.
        let pid = unsafe { fork() };
        if pid == 0 {
            let status = if self.check(first).is_ok() { 0 } else { 1 };
            // SAFETY: ends the child.
            unsafe { _exit(status) }
        }
        pid
    }

    fn churn(&mut self, seed: u64) -> Result<String, String> {
        let mut random = Random(seed);
        let mut children = Vec::new();
        let (mut moved, mut dropped, mut unmapped) = (0, 0, 0);
        for step in 0..STEPS {
            let i = random.below(self.chunks.len());
            let page = random.below(CHUNK);
            let mapped = !matches!(self.chunks[i].pages[0], Content::Unmapped);
            match random.below(10) {
                0 | 1 if mapped => self.write(i, page),
                2 if mapped => {
                    self.relocate(i)?;
                    moved += 1;
                }
                3 if mapped => {
                    self.drop_pages(i, page, CHUNK - page)?;
                    dropped += 1;
                }
                4 if mapped => self.protect(i, page)?,
                5 if mapped && step % 4 == 0 => {
                    self.unmap(i)?;
                    unmapped += 1;
                }
                6 if children.len() < 6 && step % 8 == 0 => children.push(self.child(i)),
                _ => {}
            }
            let i = random.below(self.chunks.len());
            let page = random.below(CHUNK);
            if let Some(zeroes) = self.chunks[i].fault(page) {
                return Err(format!("page {page} of chunk {i} (zeroes: {zeroes}) at step {step}"));
            }
        }
        let forked = children.len();
        for child in children {
            let mut status = 0;
            // SAFETY: a child of ours, and an integer that outlives the call.
            unsafe { waitpid(child, &mut status, 0) };
            if status != 0 {
                return Err(format!("a child: status {status:#x}"));
            }
        }
        Ok(format!("forked {forked}, moved {moved}, dropped {dropped}, unmapped {unmapped}"))
    }

    /// Many children at once, each with a child of its own; all look at some of the memory, while
    /// we write to it.
    fn storm(&mut self, seed: u64) -> Result<String, String> {
        let mut random = Random(seed);
        let mut children = Vec::new();
        for _ in 0..STORM {
            let first = random.below(SHARES);
            // SAFETY: the child only reads memory, forks, waits, and ends.
            let pid = unsafe { fork() };
            if pid == 0 {
                // SAFETY: as above.
                let other = unsafe { fork() };
                let good = self.share(if other == 0 { first + 1 } else { first });
                let mut status = 0;
                if other > 0 {
                    // SAFETY: a child of ours, and an integer that outlives the call.
                    unsafe { waitpid(other, &mut status, 0) };
                }
                // SAFETY: ends the child.
                unsafe { _exit(if good && status == 0 && other >= 0 { 0 } else { 1 }) }
            }
            children.push(pid);
            let i = random.below(self.chunks.len());
            if !matches!(self.chunks[i].pages[0], Content::Unmapped) {
                self.write(i, random.below(CHUNK));
            }
        }
        for child in children {
            let mut status = 0;
            // SAFETY: as above.
            unsafe { waitpid(child, &mut status, 0) };
            if child < 0 || status != 0 {
                return Err(format!("a child of the storm: status {status:#x}"));
            }
        }
        Ok(format!("{} forked", 2 * STORM))
    }

    /// Children that share all of the memory, and stay.
    fn serve(&self, children: usize) -> Result<String, String> {
        for _ in 0..children {
            // SAFETY: the child only sleeps.
            if unsafe { fork() } == 0 {
                loop {
                    std::thread::sleep(std::time::Duration::from_secs(3600));
                }
            }
        }
        Ok(format!("{children} forked"))
    }

    /// Whether one of [`SHARES`] parts of the memory is as it should be.
    fn share(&self, first: usize) -> bool {
        let chunks = self.chunks.iter().skip(first % SHARES).step_by(SHARES);
        chunks.into_iter().all(|chunk| (0..CHUNK).all(|page| chunk.fault(page).is_none()))
    }

    fn relocate(&mut self, i: usize) -> Result<(), String> {
        let length = CHUNK * PAGE;
        // SAFETY: the place is new and is given up for what is moved there; nobody else uses the
        // chunk.
        let to = unsafe {
            let place = mmap(std::ptr::null_mut(), length, 3, 0x22, -1, 0);
            mremap(self.chunks[i].at.cast(), length, length, 3, place)
        };
        if to as isize == -1 {
            // A protection in the middle makes two areas of it, which cannot be moved at once.
            return Ok(());
        }
        self.chunks[i].at = to.cast();
        Ok(())
    }

    fn drop_pages(&mut self, i: usize, first: usize, count: usize) -> Result<(), String> {
        // SAFETY: pages of the chunk.
        let done = unsafe { madvise(self.chunks[i].page(first).cast(), count * PAGE, 4) };
        if done != 0 {
            return Err(format!("madvise: {}", std::io::Error::last_os_error()));
        }
        self.chunks[i].pages[first..first + count].fill(Content::Zeroes);
        Ok(())
    }

    /// Makes areas of its own of one page, for a moment.
    fn protect(&mut self, i: usize, page: usize) -> Result<(), String> {
        for protection in [1, 3] {
            // SAFETY: a page of the chunk, which nobody writes to meanwhile.
            if unsafe { mprotect(self.chunks[i].page(page).cast(), PAGE, protection) } != 0 {
                return Err(format!("mprotect: {}", std::io::Error::last_os_error()));
            }
            if self.chunks[i].fault(page).is_some() {
                return Err(format!("page {page} of chunk {i}, protected"));
            }
        }
        Ok(())
    }

    fn unmap(&mut self, i: usize) -> Result<(), String> {
        // SAFETY: the chunk is not used after that.
        if unsafe { munmap(self.chunks[i].at.cast(), CHUNK * PAGE) } != 0 {
            return Err(format!("munmap: {}", std::io::Error::last_os_error()));
        }
        self.chunks[i].pages.fill(Content::Unmapped);
        Ok(())
    }
}

fn main() -> std::io::Result<()> {
    let mut memory = Memory::new(env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(64));
    for stream in TcpListener::bind(("0.0.0.0", PORT))?.incoming() {
        let stream = stream?;
        let mut answers = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let said = match line.split_once(' ') {
                Some(("churn", seed)) => memory.churn(seed.parse().unwrap_or(1)),
                Some(("serve", children)) => memory.serve(children.parse().unwrap_or(1)),
                Some(("storm", seed)) => memory.storm(seed.parse().unwrap_or(1)),
                _ => Ok(String::new()),
            };
            let said = said.and_then(|said| memory.check(0).map(|pages| format!("good {pages} pages; {said}")));
            answers.write_all((said.unwrap_or_else(|e| format!("wrong: {e}")) + "\n").as_bytes())?;
        }
    }
    Ok(())
}
