//! The calls that read a number: prctl(2) and arch_prctl(2), a line each.

use super::super::state::{Class, PutBack, State};

/// A call that reads a state.
#[derive(Debug)]
pub(super) struct Call {
    /// Its row.
    pub state: State,
    /// The system call.
    pub number: libc::c_long,
    /// Its first argument: what is asked for.
    pub first: u64,
    /// Its second, where that is not the address of the result.
    pub second: u64,
    /// Where the result is.
    pub how: How,
    /// Whether all threads of a process have the same.
    pub of_process: bool,
}

/// Where the result of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It is returned.
    Returned,
    /// At an address, 4 bytes.
    Number,
    /// At an address, 8 bytes.
    Long,
}

impl Call {
    /// Whether this processor has the call.
    pub(super) fn is_here(&self) -> bool {
        self.number == libc::SYS_prctl || cfg!(target_arch = "x86_64")
    }
}

const CRIU: PutBack = PutBack::Criu;
const US: PutBack = PutBack::Us;
const PRCTL: libc::c_long = libc::SYS_prctl;
#[cfg(target_arch = "x86_64")]
const ARCH: libc::c_long = libc::SYS_arch_prctl;
#[cfg(not(target_arch = "x86_64"))]
const ARCH: libc::c_long = -1;
const PROCESS: bool = true;
const THREAD: bool = false;
use Class::{Bearable, Breaks, Weakens};
use How::{Long, Number, Returned};

/// Name, what brings it back, class; system call, its arguments, where the result is, whose; loss.
#[allow(clippy::too_many_arguments, reason = "a table's line")]
const fn row(
    name: &'static str,
    put_back: PutBack,
    class: Class,
    number: libc::c_long,
    first: u64,
    second: u64,
    how: How,
    of_process: bool,
    loss: &'static str,
) -> Call {
    Call { state: State { name, put_back, class, loss }, number, first, second, how, of_process }
}

/// All of them. Numbers are those of linux/prctl.h and asm/prctl.h.
#[rustfmt::skip]
pub(super) static CALLS: &[Call] = &[
    row("death-signal", CRIU, Breaks, PRCTL, 2, 0, Number, THREAD, "it outlives its parent, or is signalled otherwise"),
    row("dumpable", CRIU, Weakens, PRCTL, 3, 0, Returned, PROCESS, "other processes of its user may read its memory, or no longer can"),
    row("keep-capabilities", CRIU, Weakens, PRCTL, 7, 0, Returned, THREAD, "it keeps capabilities when it changes its user, or loses them"),
    row("tsc", US, Breaks, PRCTL, 25, 0, Number, THREAD, "reading the time stamp counter ends it, or no longer does"),
    row("securebits", CRIU, Weakens, PRCTL, 27, 0, Returned, THREAD, "root gets capabilities that it did not"),
    row("machine-check-kill", US, Bearable, PRCTL, 34, 0, Returned, THREAD, "it learns later of memory that has failed"),
    row("subreaper", CRIU, Breaks, PRCTL, 37, 0, Number, PROCESS, "orphans go to another process"),
    row("tid-address", CRIU, Breaks, PRCTL, 40, 0, Long, THREAD, "who waits for the thread's end waits for ever"),
    row("huge-pages-disabled", CRIU, Bearable, PRCTL, 42, 0, Returned, PROCESS, "it is slower, or takes more memory"),
    row("speculation.store-bypass-control", CRIU, Weakens, PRCTL, 52, 0, Returned, THREAD, "speculative store bypass is not mitigated as before"),
    row("speculation.indirect-branch-control", CRIU, Weakens, PRCTL, 52, 1, Returned, THREAD, "indirect branch speculation is not mitigated as before"),
    row("speculation.l1d-flush-control", US, Weakens, PRCTL, 52, 2, Returned, THREAD, "the cache is not flushed as before"),
    row("io-flusher-flag", US, Breaks, PRCTL, 58, 0, Returned, THREAD, "a daemon that serves a disk can wait for itself"),
    row("mdwe", US, Weakens, PRCTL, 66, 0, Returned, PROCESS, "memory may become writable and executable"),
    row("memory-merge", US, Bearable, PRCTL, 68, 0, Returned, PROCESS, "it takes more memory"),
    row("cpuid-faulting", US, Breaks, ARCH, 0x1011, 0, Returned, THREAD, "it sees the real processor"),
    row("state-components", CRIU, Breaks, ARCH, 0x1022, 0, Long, PROCESS, "instructions of the processor (AMX) end it"),
    row("shadow-stack-status", CRIU, Weakens, ARCH, 0x5005, 0, Long, THREAD, "return addresses are not protected as before"),
];
