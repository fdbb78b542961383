//! The kernel's interfaces that this program uses, as safe verbs. The only module with `unsafe`.

pub mod fdpass;
pub mod netlink;
