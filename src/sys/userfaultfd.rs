//! userfaultfd(2): memory of another process whose missing pages are ours to give.
//!
//! CRIU opens one per process and registers what may be filled later; here are the calls of whoever
//! fills it. Structures and numbers: include/uapi/linux/userfaultfd.h. While any descriptor of one
//! is open, a process that touches a missing page waits; when the last is closed, such a page is
//! zeroes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `UFFD_API`, and the features without which a process could fork or move memory unseen.
const API: u64 = 0xaa;
const EVENT_FORK: u64 = 1 << 1;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;
const NEEDED: u64 = EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP;

#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeArgument {
    start: u64,
    length: u64,
}

#[repr(C)]
struct CopyArgument {
    to: u64,
    from: u64,
    length: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct ZeroArgument {
    range: RangeArgument,
    mode: u64,
    zeroed: i64,
}

/// `struct uffd_msg`: the kind, three reserved fields, and three words that mean what the kind
/// says.
#[repr(C)]
#[derive(Default)]
struct Message {
    kind: u8,
    reserved: [u8; 7],
    words: [u64; 3],
}

const UFFDIO_API: libc::Ioctl = libc::_IOWR::<ApiArgument>(0xaa, 0x3f);
const UFFDIO_WAKE: libc::Ioctl = libc::_IOR::<RangeArgument>(0xaa, 0x02);
const UFFDIO_COPY: libc::Ioctl = libc::_IOWR::<CopyArgument>(0xaa, 0x03);
const UFFDIO_ZEROPAGE: libc::Ioctl = libc::_IOWR::<ZeroArgument>(0xaa, 0x04);

/// The memory of one process.
#[derive(Debug)]
pub(crate) struct Userfaultfd(OwnedFd);

/// What a process does, or waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// It waits for the page at this address.
    Fault(u64),
    /// It has forked. The child has the same pages, and misses the same ones.
    Fork(Userfaultfd),
    /// It has moved memory.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// In bytes.
        length: u64,
    },
    /// It has given memory up, mapped or not: what it finds there from now on is zeroes.
    Remove {
        /// The first byte.
        start: u64,
        /// After the last.
        end: u64,
    },
}

/// What came of an attempt to give pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// All of them are there.
    All,
    /// Only so many bytes from the start.
    Part(u64),
    /// The process is changing its mappings: after the event that says how, it can be tried again.
    Changing,
    /// The first page is there already.
    Present,
    /// No single area of memory holds all of the range.
    NoArea,
    /// The process has ended.
    Gone,
    /// Its cgroup or the host has no memory for it at the moment.
    NoMemory,
}

impl Userfaultfd {
    /// One that was received.
    pub(crate) fn new(fd: OwnedFd) -> Userfaultfd {
        Userfaultfd(fd)
    }

    /// Whether this kernel tells the events that are needed to follow a process that runs.
    ///
    /// # Errors
    /// Where it has no userfaultfd, or does not let us open one.
    pub(crate) fn is_complete() -> io::Result<bool> {
        // SAFETY: userfaultfd(2) takes flags and returns a new descriptor; no memory is touched.
        let number =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else has seen it.
        let fd = unsafe { OwnedFd::from_raw_fd(number as i32) };
        let mut api = ApiArgument { api: API, features: 0, ioctls: 0 };
        // SAFETY: the kernel reads and writes the structure that the request is made for; it
        // outlives the call.
        super::sandbox::check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
        Ok(api.features & NEEDED == NEEDED)
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// Those of read(2), and a kind of event that was not asked for.
    pub(crate) fn next(&self) -> io::Result<Option<Event>> {
        let mut message = Message::default();
        let room = size_of::<Message>();
        // SAFETY: the buffer is as large as said, and of plain integers that any bytes are valid
        // for.
        let length = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut message).cast(), room) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        if length.cast_unsigned() != room {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let [first, second, third] = message.words;
        Ok(Some(match message.kind {
            0x12 => Event::Fault(second),
            0x13 => {
                // A u32 at the start of the words.
                let number = u32::from_ne_bytes([0, 1, 2, 3].map(|i| first.to_ne_bytes()[i]));
                // SAFETY: the kernel has just made this descriptor, for the reader of the event.
                Event::Fork(Userfaultfd(unsafe { OwnedFd::from_raw_fd(number.cast_signed()) }))
            }
            0x14 => Event::Remap { from: first, to: second, length: third },
            0x15 | 0x16 => Event::Remove { start: first, end: second },
            other => {
                return Err(io::Error::other(format!("an unknown userfaultfd event: {other:#x}")));
            }
        }))
    }

    /// Gives whole pages, and wakes who waits for them.
    ///
    /// # Errors
    /// Any that is not a [`Given`].
    pub(crate) fn copy(&self, to: u64, pages: &[u8]) -> io::Result<Given> {
        let mut copy = CopyArgument {
            to,
            from: pages.as_ptr() as u64,
            length: pages.len() as u64,
            mode: 0,
            copied: 0,
        };
        // SAFETY: the kernel reads `length` bytes of `pages`, which outlive the call, and writes to
        // `copy`; the memory that it changes is another process's.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_COPY, &raw mut copy) };
        given(done, copy.copied)
    }

    /// Makes one page of zeroes, and wakes who waits for it.
    ///
    /// # Errors
    /// Any that is not a [`Given`].
    pub(crate) fn zero(&self, page: u64, size: u64) -> io::Result<Given> {
        let range = RangeArgument { start: page, length: size };
        let mut zero = ZeroArgument { range, mode: 0, zeroed: 0 };
        // SAFETY: the kernel reads and writes `zero`, which outlives the call; the memory that it
        // changes is another process's.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_ZEROPAGE, &raw mut zero) };
        given(done, zero.zeroed)
    }

    /// Has who waits for a page try again.
    pub(crate) fn wake(&self, page: u64, size: u64) -> io::Result<()> {
        let mut range = RangeArgument { start: page, length: size };
        // SAFETY: the kernel reads `range`, which outlives the call.
        super::sandbox::check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), UFFDIO_WAKE, &raw mut range)
        })
    }
}

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn given(result: libc::c_int, done: i64) -> io::Result<Given> {
    if result == 0 {
        return Ok(Given::All);
    }
    let error = io::Error::last_os_error();
    match (error.raw_os_error(), u64::try_from(done)) {
        (Some(libc::EAGAIN), Ok(bytes @ 1..)) => Ok(Given::Part(bytes)),
        (Some(libc::EAGAIN), _) => Ok(Given::Changing),
        (Some(libc::EEXIST), _) => Ok(Given::Present),
        (Some(libc::ENOENT), _) => Ok(Given::NoArea),
        (Some(libc::ESRCH | libc::ENOSPC), _) => Ok(Given::Gone),
        (Some(libc::ENOMEM), _) => Ok(Given::NoMemory),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers() {
        assert_eq!(size_of::<Message>(), 32);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(UFFDIO_API, 0xc018_aa3f);
            assert_eq!(UFFDIO_WAKE, 0x8010_aa02);
            assert_eq!(UFFDIO_COPY, 0xc028_aa03);
            assert_eq!(UFFDIO_ZEROPAGE, 0xc020_aa04);
        }
    }
}
