//! System calls made by another thread, for what only the thread itself can read or set (prctl(2)).
//!
//! A thread is [held](with) with ptrace(2): seized, interrupted, its seccomp filters suspended, its
//! signals blocked. [`Stopped::call`] lets it run one system call at a `syscall`
//! instruction that its own code has. When it is let go, its registers and signal mask are as they
//! were; a system call that was interrupted goes on as after any stop: the last stop of ours is one
//! from which the kernel restarts it.
//!
//! Nothing else may trace the thread, and it must not be frozen: it would not get to the call. From
//! its first call until it is let go, the thread is killed if this process is: it would go on with
//! registers that are not its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::inject_arch::{self as arch, Registers};
use super::ptrace::trace;
use super::thread::on_a_thread;

/// How long a thread may take to stop, or a system call to return.
const LIMIT: Duration = Duration::from_secs(2);
/// A thread mostly stops at once: that many looks come without a pause.
const LOOKS_AT_ONCE: u32 = 200;
/// How long the next pause is; it doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_micros(10), Duration::from_millis(2));
/// The size of a page, in bytes.
const PAGE: usize = 4096;
/// From include/uapi/linux/ptrace.h; `libc` lacks some of them.
const SEIZE: libc::c_uint = 0x4206;
const INTERRUPT: libc::c_uint = 0x4207;
const GETSIGMASK: libc::c_uint = 0x420a;
const SETSIGMASK: libc::c_uint = 0x420b;
const SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const GET_USER_DISPATCH: libc::c_uint = 0x4211;
const O_TRACESYSGOOD: usize = 1;
const O_EXITKILL: usize = 1 << 20;
const O_SUSPEND_SECCOMP: usize = 1 << 21;
const EVENT_STOP: i32 = 128;
/// A stop at the entry or the exit of a system call, with `O_TRACESYSGOOD`.
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// Where a `struct rseq` has its `rseq_cs`.
const RSEQ_CS: u64 = 8;
/// How much of an area is searched for an instruction, in bytes.
const SEARCHED: u64 = 4 << 20;

/// A thread that is held with ptrace, see [`with`].
#[derive(Debug)]
pub(crate) struct Stopped {
    tid: i32,
    registers: Registers,
    signals: u64,
    /// Address and value of the `rseq_cs` of a thread that was stopped in a restartable sequence.
    sequence: Option<(u64, u64)>,
    /// Where its code has an instruction that makes a system call.
    instruction: Cell<Option<u64>>,
    options: usize,
    /// Whether it is in a stop; else it runs.
    stands: Cell<bool>,
    /// Whether that is one from which the kernel restarts what was interrupted.
    restarts: Cell<bool>,
    is_held: Cell<bool>,
    bound_to_thread: PhantomData<*const ()>,
}

/// Holds a thread, by its number on the host, while `work` is done with it.
///
/// A thread of our own does it, and ends: with it goes every hold, whatever has happened.
///
/// # Errors
/// Those of `work`; `ESRCH` when it is gone or killed, `EPERM` when something else traces it or it
/// has ended, `ETIMEDOUT` when it does not stop (it waits in the kernel uninterruptibly), `ENOTSUP`
/// for a program of another kind of instructions (32 bit) or on a processor that is not known here.
pub(crate) fn with<T: Send>(
    tid: i32,
    work: impl FnOnce(&Stopped) -> io::Result<T> + Send,
) -> io::Result<T> {
    let hold = move || {
        let stopped = Stopped::hold(tid)?;
        let result = work(&stopped);
        stopped.detach()?;
        result
    };
    on_a_thread("ptrace", hold)?
}

impl Stopped {
    fn hold(tid: i32) -> io::Result<Stopped> {
        // Filters of the container would judge our calls, too. A kernel without seccomp has no
        // such option, and neither has a tracer that runs under a filter itself.
        let options = O_TRACESYSGOOD | O_SUSPEND_SECCOMP;
        let options = match trace(SEIZE, tid, 0, options) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
                trace(SEIZE, tid, 0, O_TRACESYSGOOD)?;
                O_TRACESYSGOOD
            }
            seized => seized.map(|_| options)?,
        };
        let stopped = Stopped {
            tid,
            registers: Registers::default(),
            signals: 0,
            sequence: None,
            instruction: Cell::new(None),
            options,
            stands: Cell::new(false),
            restarts: Cell::new(false),
            is_held: Cell::new(false),
            bound_to_thread: PhantomData,
        };
        stopped.read_state()
    }

    /// Stops it and keeps what is put back later. Until all of that is known, it is only detached.
    fn read_state(mut self) -> io::Result<Stopped> {
        trace(INTERRUPT, self.tid, 0, 0)?;
        // Only what stands still can be detached; anything else is when this thread ends.
        self.wait_interrupted()?;
        let read = || -> io::Result<_> {
            let registers = arch::registers(self.tid)?;
            let mut signals = 0u64;
            trace(GETSIGMASK, self.tid, size_of::<u64>(), (&raw mut signals).addr())?;
            let sequence = restartable_sequence(self.tid)?;
            trace(SETSIGMASK, self.tid, size_of::<u64>(), (&raw const ALL_SIGNALS).addr())?;
            Ok((registers, signals, sequence))
        };
        match read() {
            Ok((registers, signals, sequence)) => {
                self.registers = registers;
                self.signals = signals;
                self.sequence = sequence;
                self.restarts.set(true);
                self.is_held.set(true);
                Ok(self)
            }
            Err(e) => {
                trace(libc::PTRACE_DETACH, self.tid, 0, 0)?;
                Err(e)
            }
        }
    }

    /// Has it make a system call, and returns what that returns.
    ///
    /// # Errors
    /// The call's own; `ENOEXEC` where no code of it has the instruction; `ETIMEDOUT` when the call
    /// does not return in time or the thread is frozen, and `ESRCH` when it was killed.
    pub(crate) fn call(&self, number: libc::c_long, arguments: &[u64]) -> io::Result<i64> {
        let at = self.find_instruction()?;
        if self.restarts.replace(false) {
            trace(libc::PTRACE_SETOPTIONS, self.tid, 0, self.options | O_EXITKILL)?;
        }
        let called = self.registers.with_call(at, number, arguments);
        let result = arch::set_registers(self.tid, &called).and_then(|()| self.run());
        if result.is_err() {
            // Out of the call, whatever it is doing.
            self.come_to_restart()?;
        }
        match result? {
            error @ -4095..0 => {
                Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::EIO)))
            }
            value => Ok(value),
        }
    }

    /// Takes it out of the state in which it would be lost if this process was killed, as after its
    /// calls, until the next one.
    ///
    /// # Errors
    /// Those of ptrace(2); `ETIMEDOUT` where it does not stop in time.
    pub(crate) fn leave_call(&self) -> io::Result<()> {
        if self.restarts.get() {
            return Ok(());
        }
        self.come_to_restart()?;
        trace(libc::PTRACE_SETOPTIONS, self.tid, 0, self.options).map(drop)
    }

    /// A page of memory for calls that take pointers, mapped into the process.
    ///
    /// # Errors
    /// Those of [`Stopped::call`] and of mmap(2).
    pub(crate) fn page(&self) -> io::Result<Page<'_>> {
        let rights = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned().into();
        let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned().into();
        let address = self
            .call(libc::SYS_mmap, &[0, PAGE as u64, rights, kind, u64::MAX, 0])?
            .cast_unsigned();
        Ok(Page { stopped: self, address, is_mapped: Cell::new(true) })
    }

    /// One call that takes a pointer to `buffer`, see [`Page::call`].
    ///
    /// # Errors
    /// Those of [`Stopped::page`] and [`Page::call`].
    pub(crate) fn call_with(
        &self,
        number: libc::c_long,
        buffer: &mut [u8],
        arguments: impl FnOnce(u64) -> Vec<u64>,
    ) -> io::Result<i64> {
        let page = self.page()?;
        let result = page.call(number, buffer, arguments);
        page.give_back()?;
        result
    }

    /// Address, size and signature of its area for restartable sequences; none if it has none.
    ///
    /// # Errors
    /// Those of ptrace(2).
    pub(crate) fn rseq(&self) -> io::Result<Option<(u64, u32, u32)>> {
        let found = rseq_configuration(self.tid)?;
        Ok(found
            .filter(|found| found.address != 0)
            .map(|found| (found.address, found.size, found.signature)))
    }

    /// Where its system calls are handed to itself (`PR_SET_SYSCALL_USER_DISPATCH`): mode, address
    /// of the selector, start and length of the code that is left alone. None where a kernel before
    /// 6.4 does not say.
    ///
    /// # Errors
    /// Those of ptrace(2).
    pub(crate) fn user_dispatch(&self) -> io::Result<Option<[u64; 4]>> {
        let mut configuration = [0u64; 4];
        let size = size_of_val(&configuration);
        match trace(GET_USER_DISPATCH, self.tid, size, configuration.as_mut_ptr().addr()) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => Ok(None),
            other => other.map(|()| Some(configuration)),
        }
    }

    /// The programs of its seccomp filters, the oldest last: 8 bytes an instruction.
    ///
    /// # Errors
    /// Those of ptrace(2): `EMEDIUMTYPE` for a filter of another kind, `EACCES` under a filter of
    /// our own.
    pub(crate) fn seccomp_filters(&self) -> io::Result<Vec<Vec<u8>>> {
        const MOST: usize = 4096;
        const INSTRUCTION: usize = 8;
        let mut filters = Vec::new();
        loop {
            let mut code = vec![0u8; MOST * INSTRUCTION];
            // SAFETY: the kernel writes a filter, which has at most `MOST` instructions.
            let count = unsafe {
                libc::ptrace(SECCOMP_GET_FILTER, self.tid, filters.len(), code.as_mut_ptr().addr())
            };
            match usize::try_from(count) {
                Ok(count) => code.truncate(count * INSTRUCTION),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    // No filters at all, no further one, or no seccomp in the kernel.
                    let is_end = matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::EINVAL | libc::EIO)
                    );
                    return if is_end { Ok(filters) } else { Err(error) };
                }
            }
            filters.push(code);
        }
    }

    /// Lets it go on as if nothing had been.
    fn detach(&self) -> io::Result<()> {
        if !self.is_held.replace(false) {
            return Ok(());
        }
        if !self.restarts.get() {
            self.come_to_restart()?;
        }
        trace(SETSIGMASK, self.tid, size_of::<u64>(), (&raw const self.signals).addr())?;
        if let Some((address, value)) = self.sequence {
            memory(self.tid, true)?.write_all_at(&value.to_ne_bytes(), address)?;
        }
        trace(libc::PTRACE_DETACH, self.tid, 0, 0).map(drop)
    }

    /// Runs what the registers say up to the end of a system call; its result.
    fn run(&self) -> io::Result<i64> {
        self.run_to_syscall_stop()?;
        self.run_to_syscall_stop()?;
        arch::registers(self.tid).map(|registers| registers.result())
    }

    fn run_to_syscall_stop(&self) -> io::Result<()> {
        let mut signal = 0;
        loop {
            self.go_on(libc::PTRACE_SYSCALL, signal)?;
            signal = match self.wait_stop()? {
                SYSCALL_STOP => return Ok(()),
                status => passed_on(status),
            };
        }
    }

    /// Brings it to a stop from which an interrupted call is restarted, with its own registers.
    fn come_to_restart(&self) -> io::Result<()> {
        trace(INTERRUPT, self.tid, 0, 0)?;
        // It runs in a call that does not return, and where it is frozen: the interruption ends
        // that.
        if self.stands.get() {
            self.go_on(libc::PTRACE_CONT, 0)?;
        }
        self.wait_interrupted()?;
        arch::set_registers(self.tid, &self.registers)?;
        self.restarts.set(true);
        Ok(())
    }

    /// Waits for the stop that `INTERRUPT` asks for; signals that come first are delivered.
    fn wait_interrupted(&self) -> io::Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.wait_stop()?;
            if status >> 8 == EVENT_STOP {
                return Ok(());
            }
            // Somebody may send signals without end.
            if Instant::now() >= end {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            // Any other stop makes the kernel forget the interruption.
            trace(INTERRUPT, self.tid, 0, 0)?;
            self.go_on(libc::PTRACE_CONT, passed_on(status))?;
        }
    }

    fn go_on(&self, how: libc::c_uint, signal: usize) -> io::Result<()> {
        trace(how, self.tid, 0, signal)?;
        self.stands.set(false);
        Ok(())
    }

    /// Waits for a stop: the signal, and the event above the lowest 8 bits.
    fn wait_stop(&self) -> io::Result<i32> {
        let (end, mut looks, mut pause) = (Instant::now() + LIMIT, 0, PAUSE.0);
        loop {
            if let Some(status) = stop_of(self.tid)? {
                self.stands.set(true);
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            looks += 1;
            if looks < LOOKS_AT_ONCE {
                std::thread::yield_now();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }

    fn find_instruction(&self) -> io::Result<u64> {
        if let Some(at) = self.instruction.get() {
            return Ok(at);
        }
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.tid))?;
        let memory = memory(self.tid, false)?;
        let mut code: Vec<(u64, u64)> = maps.lines().filter_map(executable).collect();
        // The vDSO comes last, is small, and is nearly always there.
        code.reverse();
        for (start, end) in code {
            let mut text =
                vec![0; usize::try_from((end - start).min(SEARCHED)).unwrap_or_default()];
            let Ok(read) = memory.read_at(&mut text, start) else { continue };
            let mut places = text[..read].windows(arch::SYSCALL.len()).enumerate();
            let found = places
                .find(|(at, bytes)| at.is_multiple_of(arch::ALIGNMENT) && *bytes == arch::SYSCALL);
            if let Some((offset, _)) = found {
                self.instruction.set(Some(start + offset as u64));
                return Ok(start + offset as u64);
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOEXEC))
    }
}

/// A page in the memory of a thread that is held.
#[derive(Debug)]
pub(crate) struct Page<'s> {
    stopped: &'s Stopped,
    address: u64,
    is_mapped: Cell<bool>,
}

impl Page<'_> {
    /// Has the thread make a system call with pointers into the page: `arguments` gets its address.
    /// It begins with `buffer`, and what the call leaves there is in `buffer` after it.
    ///
    /// # Errors
    /// Those of [`Stopped::call`], and `EINVAL` for a buffer longer than a page.
    pub(crate) fn call(
        &self,
        number: libc::c_long,
        buffer: &mut [u8],
        arguments: impl FnOnce(u64) -> Vec<u64>,
    ) -> io::Result<i64> {
        if buffer.len() > PAGE {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let memory = memory(self.stopped.tid, true)?;
        memory.write_all_at(buffer, self.address)?;
        let result = self.stopped.call(number, &arguments(self.address))?;
        memory.read_exact_at(buffer, self.address)?;
        Ok(result)
    }

    /// Takes it out of the process's memory again; that happens at the latest when it is dropped.
    ///
    /// # Errors
    /// Those of [`Stopped::call`].
    pub(crate) fn give_back(self) -> io::Result<()> {
        self.unmap()
    }

    fn unmap(&self) -> io::Result<()> {
        if !self.is_mapped.replace(false) {
            return Ok(());
        }
        self.stopped.call(libc::SYS_munmap, &[self.address, PAGE as u64]).map(drop)
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        // Nothing is left to do, unless an error is on its way already.
        let _ = self.unmap();
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Nothing is left to do, unless an error or a panic is on its way already.
        let _ = self.detach();
    }
}

static ALL_SIGNALS: u64 = u64::MAX;

/// The signal that a thread gets when it goes on from a stop; none after an event.
fn passed_on(status: i32) -> usize {
    if status >> 8 == 0 && status != SYSCALL_STOP {
        usize::try_from(status).unwrap_or_default()
    } else {
        0
    }
}

/// Start and end of an area of /proc/PID/maps that may be executed; the page of vsyscalls cannot be
/// read, and the kernel only pretends to run it.
fn executable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    if !rights.contains('x') || line.ends_with("[vsyscall]") {
        return None;
    }
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

fn memory(tid: i32, write: bool) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(write).open(format!("/proc/{tid}/mem"))
}

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Default)]
struct RseqConfiguration {
    address: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}

/// None from a kernel without such sequences.
fn rseq_configuration(tid: i32) -> io::Result<Option<RseqConfiguration>> {
    let mut configuration = RseqConfiguration::default();
    let size = size_of::<RseqConfiguration>();
    match trace(GET_RSEQ_CONFIGURATION, tid, size, (&raw mut configuration).addr()) {
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(None),
        other => other.map(|()| Some(configuration)),
    }
}

/// A thread that is moved elsewhere loses the mark that it is in a restartable sequence, and would
/// later go on in the middle of it instead of starting it again.
fn restartable_sequence(tid: i32) -> io::Result<Option<(u64, u64)>> {
    let Some(configuration) = rseq_configuration(tid)?.filter(|found| found.address != 0) else {
        return Ok(None);
    };
    let (mut value, address) = ([0; 8], configuration.address + RSEQ_CS);
    memory(tid, false)?.read_exact_at(&mut value, address)?;
    let value = u64::from_ne_bytes(value);
    Ok((value != 0).then_some((address, value)))
}

/// The stop that a tracee is in and that was not waited for yet.
fn stop_of(tid: i32) -> io::Result<Option<i32>> {
    // Whose end is left to whoever waits for it: it may be a child of ours.
    match change_of(tid, libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT)? {
        Some((libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED, _)) => {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
        Some(_) => Ok(change_of(tid, libc::WSTOPPED)?.map(|(_, status)| status)),
        None => Ok(None),
    }
}

/// What waitid(2) says of a thread now: the kind of change and the status.
fn change_of(tid: i32, flags: libc::c_int) -> io::Result<Option<(libc::c_int, libc::c_int)>> {
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = flags | libc::__WALL | libc::WNOHANG;
    #[expect(clippy::disallowed_methods, reason = "WNOHANG")]
    // SAFETY: `info` lives through the call.
    let done = unsafe { libc::waitid(libc::P_PID, tid.cast_unsigned(), &raw mut info, flags) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid sets the fields of a child's change, or leaves zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some((info.si_code, status)))
}

#[cfg(test)]
mod tests;
