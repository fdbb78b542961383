//! The kernel's interfaces that this program uses, as safe verbs. The only module with `unsafe`.

use std::{fs, io};

pub mod acl;
pub mod bpf;
pub mod clean_start;
pub mod cover;
pub mod entry;
pub mod fdpass;
pub mod files;
pub mod glance;
pub mod in_root;
pub mod inject;
mod inject_arch;
pub mod kcmp;
pub mod keeper;
pub mod kernel_state;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod multicast;
pub mod namespace;
pub mod netlink;
pub mod nudge;
pub mod path_trust;
pub mod process;
mod ptrace;
pub mod pty;
pub mod sandbox;
pub mod signals;
pub mod sockopt;
pub mod spawn;
pub mod statmount;
pub mod systemd_journal;
pub mod tcp_repair;
pub mod timer_list;
pub mod timerfd;
pub mod userfaultfd;

/// Names the time from one boot of the host to the next (random(4)).
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
