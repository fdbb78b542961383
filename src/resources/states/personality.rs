//! Personalities (lxc.arch, setarch(8)). CRIU (4.2) dumps them and does not restore them, but who
//! starts a process hands on his own: where CRIU has that of the container's init, all that it
//! restores has it, too.

use std::fs;

/// `PER_LINUX32`: `uname -m` names the 32-bit machine.
const LINUX32: u32 = 0x0008;
/// `ADDR_NO_RANDOMIZE`: programs are where they were the last time.
const NO_RANDOMIZE: u32 = 0x0004_0000;

/// A process's personality.
pub(crate) fn of(pid: i32) -> Option<u32> {
    u32::from_str_radix(fs::read_to_string(format!("/proc/{pid}/personality")).ok()?.trim(), 16)
        .ok()
}

/// What of a personality CRIU can have, and so hand on. Other bits change what its own system calls
/// do.
pub(crate) fn to_be_handed_on(personality: u32) -> u32 {
    personality & (LINUX32 | NO_RANDOMIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criu_gets_what_does_not_change_its_own_calls() {
        assert_eq!(to_be_handed_on(0x8), 0x8);
        // READ_IMPLIES_EXEC and MMAP_PAGE_ZERO.
        assert_eq!(to_be_handed_on(0x0054_0008), 0x0004_0008);
        assert_eq!(of(std::process::id().cast_signed()).map(|p| p & 0xff), Some(0));
    }
}
