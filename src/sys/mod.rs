//! The kernel's interfaces that this program uses, as safe verbs. The only module with `unsafe`.

use std::{fs, io};

pub mod acl;
pub mod below;
pub mod bpf;
pub mod clean_start;
pub mod fdpass;
pub mod files;
pub mod glance;
pub mod journal;
pub mod memory;
pub mod mount;
pub mod multicast;
pub mod namespace;
pub mod netlink;
pub mod place;
pub mod process;
pub mod pty;
pub mod sandbox;
pub mod signals;
pub mod spawn;
pub mod tcp;
pub mod timerfd;

/// Names the time from one boot of the host to the next (random(4)).
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
