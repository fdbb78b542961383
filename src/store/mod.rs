//! The checkpoints that there are, over months: which are known, which are whole, which may go.
//!
//! A checkpoint's directory holds images, the record, and what happened to it since ([`history`]).

pub mod checksums;
pub mod hasher;
pub mod history;
pub mod list;
pub mod page_cache;
pub mod parents;
pub mod record;
pub mod resume_mark;
pub mod scrub;
pub mod shared_dir;
pub mod show;
pub mod verify;
