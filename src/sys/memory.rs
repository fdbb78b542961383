//! Memory: to give back what is not needed for a long sleep, to have another process's pages made,
//! and to ask what is there.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use procfs::Current;

/// Gives back what the heap has free, and lets the program's own code go: what is needed of it
/// again comes back from the page cache, at the price of a few page faults.
///
/// A monitor runs for months and needs little of what a restore needed.
pub(crate) fn give_back() -> io::Result<()> {
    // SAFETY: malloc_trim only returns free pages of the heap to the kernel.
    unsafe { libc::malloc_trim(0) };
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, length)) = code_of_a_file(line) else { continue };
        // SAFETY: the range is a private mapping of a file that is executable and not writable, so
        // no page of it can have been changed; dropping its pages only makes the next access read
        // them again from the page cache.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Start and length of a line's mapping, if it is code of a file.
fn code_of_a_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !fields.nth(3)?.starts_with('/') {
        return None;
    }
    let (start, end) =
        (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

/// The processors that the caller may run on.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Whether all memory is equally near to all processors.
pub(crate) fn has_one_node() -> bool {
    match fs::read_to_string("/sys/devices/system/node/online") {
        Ok(nodes) => nodes.trim() == "0",
        // A kernel without NUMA.
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether the kernel knows which pages were written to since it was last asked
/// (`CONFIG_MEM_SOFT_DIRTY`): then one that was just written to is marked so in
/// /proc/self/pagemap.
pub(crate) fn tracks_changes() -> io::Result<bool> {
    /// Of 64 bits for each page (Documentation/admin-guide/mm/pagemap.rst).
    const SOFT_DIRTY: u64 = 1 << 55;
    let page = std::hint::black_box(Box::new(1u64));
    let entry = (&raw const *page).addr() as u64 / procfs::page_size() * size_of::<u64>() as u64;
    let mut bits = [0; size_of::<u64>()];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut bits, entry)?;
    Ok(u64::from_ne_bytes(bits) & SOFT_DIRTY != 0)
}

/// Has the kernel make the pages of another process that would be made at their first touch, and
/// changes nothing else.
///
/// No call of the kernel's is meant for it. `process_vm_writev(2)` makes the pages of the other
/// side ready to be written to, as many as fit into one batch, before it looks at what it is to
/// write (mm/process_vm_access.c, `process_vm_rw_single_vec`). Where that cannot be read, it ends
/// with EFAULT, the pages made and nothing written.
#[derive(Debug)]
pub(crate) struct Prefaulter {
    /// Addresses at which nothing can be read, as many as are touched at once.
    nothing: NonNull<c_void>,
}

// SAFETY: nobody can read or write what is there, from whichever thread.
unsafe impl Send for Prefaulter {}

impl Prefaulter {
    /// So many bytes are touched at once: what the kernel takes at a time (`PVM_MAX_USER_PAGES`,
    /// 1,024 pages of 4 KiB).
    pub(crate) const STEP: usize = 4 << 20;

    /// Sets the unreadable addresses aside.
    pub(crate) fn new() -> io::Result<Prefaulter> {
        let length = NonZeroUsize::new(Self::STEP).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses, is nobody else's memory.
        let nothing = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
        Ok(Prefaulter { nothing })
    }

    /// Makes the pages of a range of at most [`Prefaulter::STEP`] bytes, as far as the process may
    /// write there.
    ///
    /// # Errors
    /// ESRCH when the process has ended; EPERM where the caller may not trace it.
    pub(crate) fn touch(&self, pid: i32, range: &Range<u64>) -> io::Result<()> {
        let length = ((range.end - range.start) as usize).min(Self::STEP);
        let local = libc::iovec { iov_base: self.nothing.as_ptr(), iov_len: length };
        let remote = libc::iovec { iov_base: range.start as *mut c_void, iov_len: length };
        // SAFETY: both vectors are valid for the call. The kernel reads from `local`, which it
        // finds unreadable, and would write to the other process only what it has read there.
        match unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) }
        {
            -1 => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
                e => Err(e),
            },
            _ => Err(io::Error::other("something could be read where nothing is")),
        }
    }
}

impl Drop for Prefaulter {
    fn drop(&mut self) {
        // SAFETY: it is the mapping that `new` has made, of that length, and nobody has a reference
        // into it.
        if let Err(e) = unsafe { munmap(self.nothing, Self::STEP) } {
            log::debug!("give addresses back: {e}");
        }
    }
}

/// Whether files of so many bytes that are in memory stay there while as much is made of them
/// (`MemAvailable`, proc(5)).
pub(crate) fn has_room_beside(bytes: u64) -> bool {
    let available = procfs::Meminfo::current().ok().and_then(|info| info.mem_available);
    // What is available counts the files, too: they could leave.
    available.is_some_and(|available| available / 2 > bytes)
}

/// Whether the kernel has all of a file in memory (`mincore(2)`; it tells that to those who may
/// write to the file).
pub(crate) fn is_cached(file: &File) -> io::Result<bool> {
    /// So many bytes are asked about at once.
    const WINDOW: u64 = 256 << 20;
    let size = file.metadata()?.len();
    for start in (0..size).step_by(WINDOW as usize) {
        let length = NonZeroUsize::new((size - start).min(WINDOW) as usize)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let offset = start.cast_signed();
        // SAFETY: a new mapping at an address that the kernel chooses. Nobody reads from it.
        let window = unsafe {
            mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, offset)
        }?;
        let mut pages = vec![0; length.get().div_ceil(procfs::page_size() as usize)];
        // SAFETY: the range is the mapping, and the answer has a byte for each page of it.
        let asked = nix::errno::Errno::result(unsafe {
            libc::mincore(window.as_ptr(), length.get(), pages.as_mut_ptr())
        });
        // SAFETY: it is the mapping from above, and nobody has a reference into it.
        unsafe { munmap(window, length.get()) }?;
        asked?;
        if pages.iter().any(|page| page & 1 == 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which pages a process has.
#[derive(Debug)]
pub(crate) struct PageTable(File);

impl PageTable {
    /// Opens `/proc/PID/pagemap` (the kernel's admin-guide/mm/pagemap.rst).
    pub(crate) fn of(pid: i32) -> io::Result<PageTable> {
        File::open(format!("/proc/{pid}/pagemap")).map(PageTable)
    }

    /// Whether none of the pages of a range is there, nor swapped out.
    pub(crate) fn is_empty(&self, range: &Range<u64>) -> io::Result<bool> {
        /// The bits 62 and 63 of an entry.
        const SWAPPED_OR_PRESENT: u64 = 3 << 62;
        let page = procfs::page_size();
        let pages = range.end.div_ceil(page) - range.start / page;
        let mut entries = vec![0; pages as usize * size_of::<u64>()];
        self.0.read_exact_at(&mut entries, range.start / page * size_of::<u64>() as u64)?;
        let mut entries = entries.as_chunks().0.iter().map(|entry| u64::from_ne_bytes(*entry));
        Ok(entries.all(|entry| entry & SWAPPED_OR_PRESENT == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_unwritable_code_of_files_is_let_go() {
        let code = "7f00a000-7f00c000 r-xp 00026000 fe:00 1234 /usr/lib/libc.so.6";
        assert_eq!(code_of_a_file(code), Some((0x7f00_a000, 0x2000)));
        for other in [
            "7f00a000-7f00c000 rw-p 00026000 fe:00 1234 /usr/lib/libc.so.6",
            "7f00a000-7f00c000 r--p 00026000 fe:00 1234 /usr/lib/libc.so.6",
            "7fff0000-7fff2000 r-xp 00000000 00:00 0 [vdso]",
            "7fff0000-7fff2000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code_of_a_file(other), None, "{other}");
        }
    }

    /// Memory of our own that nobody has touched.
    fn untouched() -> Range<u64> {
        let (length, protection) = (
            NonZeroUsize::new(Prefaulter::STEP).unwrap(),
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        );
        // SAFETY: a new mapping, which is never taken away.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
            .unwrap()
            .as_ptr() as u64;
        start..start + Prefaulter::STEP as u64
    }

    #[test]
    fn pages_are_made_and_nothing_is_written() {
        let (range, pid) = (untouched(), std::process::id() as i32);
        // SAFETY: the mapping is ours, writable, and as long.
        let memory =
            unsafe { std::slice::from_raw_parts_mut(range.start as *mut u8, Prefaulter::STEP) };
        let page = procfs::page_size() as usize;
        let (table, toucher) = (PageTable::of(pid).unwrap(), Prefaulter::new().unwrap());
        assert!(table.is_empty(&range).unwrap());
        memory[5 * page..6 * page].fill(7);
        assert!(!table.is_empty(&range).unwrap());
        assert!(table.is_empty(&(range.start..range.start + 5 * page as u64)).unwrap());

        toucher.touch(pid, &range).unwrap();
        for (number, content) in memory.chunks(page).enumerate() {
            let at = range.start + (number * page) as u64;
            assert!(
                !table.is_empty(&(at..at + page as u64)).unwrap(),
                "page {number} is not there"
            );
            let expected = if number == 5 { 7 } else { 0 };
            assert!(content.iter().all(|byte| *byte == expected), "page {number} was written to");
        }
        // Where nothing can be written, nothing is done.
        toucher.touch(pid, &(0x1000..0x3000)).unwrap();
    }

    #[test]
    fn a_file_is_in_memory_until_the_kernel_lets_it_go() {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        // Not on a tmpfs, which is memory.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(is_cached(&file).unwrap());
        file.write_all(&[7; 100_000]).unwrap();
        assert!(is_cached(&file).unwrap());
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        assert!(!is_cached(&file).unwrap());
    }

    #[test]
    fn a_process_that_has_ended_is_told() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id() as i32;
        child.wait().unwrap();
        let error = Prefaulter::new().unwrap().touch(pid, &(0x1000..0x2000)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        give_back().unwrap();
        assert_eq!("still here".len(), 10);
    }
}
