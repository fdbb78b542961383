//! Give memory back that is not needed for a long sleep.

use std::fs;
use std::io;

/// Gives back what the heap has free, and lets the program's own code go: what is needed of it again comes back from
/// the page cache, at the price of a few page faults.
///
/// A monitor runs for months and needs little of what a restore needed.
pub fn give_back() -> io::Result<()> {
    // SAFETY: malloc_trim only returns free pages of the heap to the kernel.
    unsafe { libc::malloc_trim(0) };
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, length)) = code_of_a_file(line) else { continue };
        // SAFETY: the range is a private mapping of a file that is executable and not writable, so no page of it can
        // have been changed; dropping its pages only makes the next access read them again from the page cache.
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
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_program_goes_on_afterwards() {
        give_back().unwrap();
        assert_eq!("still here".len(), 10);
    }
}
