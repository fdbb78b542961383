//! What [`inject`](super::inject) must know of the processor.

pub(super) use processor::{ALIGNMENT, Registers, SYSCALL, registers, set_registers};

#[cfg(target_arch = "x86_64")]
mod processor {
    use std::io;

    use super::super::ptrace::trace;

    /// The instruction `syscall`, which may begin at any byte.
    pub(crate) const SYSCALL: [u8; 2] = [0x0f, 0x05];
    pub(crate) const ALIGNMENT: usize = 1;
    const NT_PRSTATUS: usize = 1;
    /// The code segment of 64-bit programs.
    const USER_CS: u64 = 0x33;

    /// The general registers of a thread.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Registers(libc::user_regs_struct);

    impl Default for Registers {
        fn default() -> Registers {
            // SAFETY: a structure of integers, for which all zeroes is a value.
            Registers(unsafe { std::mem::zeroed() })
        }
    }

    impl Registers {
        /// Those with which a thread makes a system call at an instruction.
        pub(crate) fn with_call(
            &self,
            at: u64,
            number: libc::c_long,
            arguments: &[u64],
        ) -> Registers {
            let argument = |n: usize| arguments.get(n).copied().unwrap_or_default();
            let mut new = self.0;
            new.rip = at;
            new.rax = number.cast_unsigned();
            // It is in no system call that the kernel could restart.
            new.orig_rax = u64::MAX;
            new.rdi = argument(0);
            new.rsi = argument(1);
            new.rdx = argument(2);
            new.r10 = argument(3);
            new.r8 = argument(4);
            new.r9 = argument(5);
            Registers(new)
        }

        /// What a system call has returned.
        pub(crate) fn result(&self) -> i64 {
            self.0.rax.cast_signed()
        }
    }

    /// The registers of a thread that is stopped.
    pub(crate) fn registers(tid: i32) -> io::Result<Registers> {
        let mut registers = Registers::default();
        let mut vector = libc::iovec {
            iov_base: (&raw mut registers.0).cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        trace(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, (&raw mut vector).addr())?;
        if vector.iov_len != size_of::<libc::user_regs_struct>() || registers.0.cs != USER_CS {
            return Err(io::Error::from_raw_os_error(libc::ENOTSUP));
        }
        Ok(registers)
    }

    /// Gives a thread that is stopped other registers.
    pub(crate) fn set_registers(tid: i32, registers: &Registers) -> io::Result<()> {
        let mut copy = *registers;
        let vector = libc::iovec {
            iov_base: (&raw mut copy.0).cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        trace(libc::PTRACE_SETREGSET, tid, NT_PRSTATUS, (&raw const vector).addr())
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod processor {
    use std::io;

    pub const SYSCALL: [u8; 4] = [0; 4];
    pub const ALIGNMENT: usize = 4;

    /// None are known.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Registers;

    impl Registers {
        pub fn with_call(&self, _at: u64, _number: libc::c_long, _arguments: &[u64]) -> Registers {
            Registers
        }

        pub fn result(&self) -> i64 {
            0
        }
    }

    pub fn registers(_tid: i32) -> io::Result<Registers> {
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }

    pub fn set_registers(_tid: i32, _registers: &Registers) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOTSUP))
    }
}
