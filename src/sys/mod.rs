//! The kernel's interfaces that this program uses, as safe verbs. The only module with `unsafe`.

use std::{fs, io};

pub(crate) mod acl;
pub(crate) mod bpf;
pub(crate) mod child;
pub(crate) mod clean_start;
pub(crate) mod cover;
pub(crate) mod entry;
pub(crate) mod fdpass;
pub(crate) mod files;
pub(crate) mod glance;
pub(crate) mod in_root;
pub(crate) mod inject;
mod inject_arch;
pub(crate) mod kcmp;
pub(crate) mod keeper;
pub(crate) mod kernel_state;
pub(crate) mod keys;
pub(crate) mod landlock;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod multicast;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub(crate) mod nudge;
pub(crate) mod path_trust;
pub(crate) mod poll;
pub(crate) mod process;
mod ptrace;
pub(crate) mod pty;
pub(crate) mod sandbox;
pub(crate) mod shm;
pub(crate) mod signals;
pub(crate) mod sockopt;
pub(crate) mod spawn;
pub(crate) mod statmount;
pub(crate) mod systemd_journal;
pub(crate) mod tcp_repair;
pub(crate) mod thread;
pub(crate) mod timer_list;
pub(crate) mod timerfd;
pub(crate) mod userfaultfd;

/// Names the time from one boot of the host to the next (random(4)).
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
