//! The kernel's interfaces that this program uses, as safe verbs. The only module with `unsafe`.

pub mod below;
pub mod bpf;
pub mod fdpass;
pub mod files;
pub mod journal;
pub mod memory;
pub mod mount;
pub mod multicast;
pub mod netlink;
pub mod place;
pub mod process;
pub mod pty;
pub mod signals;
pub mod spawn;
pub mod tcp;
pub mod timerfd;
