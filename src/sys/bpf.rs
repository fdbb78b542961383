//! Programs for the kernel (bpf(2)): the device programs of cgroup2, which it asks whether a device
//! may be opened or made, and one that lets nothing in at a network interface.
//!
//! The layouts of `union bpf_attr`, `struct bpf_insn` and `struct bpf_prog_info` are those of
//! include/uapi/linux/bpf.h. All of this wants CAP_BPF or CAP_SYS_ADMIN in the first user
//! namespace.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

/// `BPF_PROG_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
/// `XDP_DROP`.
const XDP_DROP: i32 = 1;
/// `r0 = IMMEDIATE`: what the program answers.
const ANSWER: u8 = 0xb7;
/// The end of a program.
const EXIT: u8 = 0x95;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: all programs here, above and below are asked, and all have to say yes.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`: in place of another one, with no moment between the two.
const REPLACE: u32 = 1 << 2;
/// The kernel's own limit of programs on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Class, operation and source.
    pub code: u8,
    /// Destination and source register, four bits each; their order is the machine's.
    pub registers: u8,
    /// Of a load its offset, of a jump how many instructions it skips.
    pub offset: i16,
    /// The immediate operand.
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The front of `struct bpf_prog_info`; a shorter one than the kernel's is filled as far as it
/// goes.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is a structure of u32 and u64 that the kernel reads and writes for no more
    // than its size; what it points to lives in the callers' frames.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// A new descriptor of the kernel's; those of bpf(2) are close-on-exec.
fn owned(number: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just given it to us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Gives a device program to the kernel, which checks it.
///
/// # Errors
/// `EINVAL` or `EACCES` when the kernel does not accept it, `EPERM` without the right to load any.
pub(crate) fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    load_as(TYPE_CGROUP_DEVICE, instructions)
}

/// A program for a network interface that drops whatever arrives, before the network sees it (XDP).
pub(crate) fn load_drop_all() -> io::Result<OwnedFd> {
    let answer = Instruction { code: ANSWER, immediate: XDP_DROP, ..Instruction::default() };
    load_as(TYPE_XDP, &[answer, Instruction { code: EXIT, ..Instruction::default() }])
}

fn load_as(prog_type: u32, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttr::default()
    };
    bpf(PROG_LOAD, &mut attr).map(owned)
}

/// Puts a program on a cgroup directory, beside those that are there or in the place of one of
/// them.
pub(crate) fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    in_place_of: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI | if in_place_of.is_some() { REPLACE } else { 0 },
        replace_bpf_fd: in_place_of.map_or(0, raw),
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// The device programs on a cgroup directory itself, in the order in which they were put there.
pub(crate) fn programs_of(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = (attr.prog_cnt as usize).min(MAX_PROGRAMS);
    ids[..count]
        .iter()
        .map(|&id| bpf(PROG_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() }).map(owned))
        .collect()
}

/// The instructions of a program as the kernel's verifier left them; none where the kernel keeps
/// them to itself (`net.core.bpf_jit_harden = 2`).
pub(crate) fn instructions_of(program: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    let mut info = ProgInfo::default();
    ask_info(program, &mut info)?;
    let count = info.xlated_prog_len as usize / size_of::<Instruction>();
    let mut instructions = vec![Instruction::default(); count];
    let mut info = ProgInfo {
        xlated_prog_len: info.xlated_prog_len,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    ask_info(program, &mut info)?;
    // Where it does not show them, the kernel takes the pointer away.
    Ok(if info.xlated_prog_insns == 0 { Vec::new() } else { instructions })
}

fn ask_info(program: BorrowedFd<'_>, info: &mut ProgInfo) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: raw(program),
        info_len: size_of::<ProgInfo>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}
