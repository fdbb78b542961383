//! A checkpoint's directory: what is in it, whether it is whole, and what it says.
//!
//! The record and the checksums are written here, checkpoints are listed, shown and verified, and
//! [`layout`] knows every file name. Nothing here runs CRIU or changes a container.

pub mod checksums;
pub mod hasher;
pub mod history;
pub mod layout;
pub mod list;
pub mod page_cache;
pub mod parents;
pub mod record;
pub mod resume_mark;
pub mod scrub;
pub mod shared_dir;
pub mod show;
pub mod verify;
