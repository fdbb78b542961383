//! Checkpoint and restore of LXC containers with CRIU.
//!
//! The house has rows. A module imports from its own folder and from the rows below it, never from
//! above and never from another folder of its row; `tests/layers.rs` enforces that.
//!
//! ```text
//! api                           what is public: for the programs and for tests
//! cli                           prints; nothing else does
//! monitor  suspend              outlives a command: a container's monitor, a host's shutdown
//! checkpoint                    a running container becomes a directory
//! rehearse                      a restore beside the container, before that is ended
//! restore  prepare              a directory becomes a container; configurations that can be dumped
//! preflight  hooks              what stands in the way beforehand; LXC's and CRIU's hooks
//! rollback                      the undo log, the lock on a container, recovery after a crash
//! store                         a checkpoint's directory: record, checksums, list
//! inspect  resources            what the kernel says about a container; what it has of its host
//! lxc  criu  settings           LXC's configuration and protocol; CRIU's options, images, log
//! sys                           the kernel; the only place that says `unsafe`
//! error  report                 for everybody
//! ```
//!
//! A newcomer starts with [`checkpoint`] and [`restore`]: each reads as the numbered steps of what
//! its command does. docs/design.md has the way of the data. Everything is private to the crate but
//! for [`api`], so that rustc sees what is not used.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]
// The guided tour is for who works on this: `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]
// What can wait for ever (clippy.toml).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod error;
mod report;

#[allow(unsafe_code)]
mod sys;

mod criu;
mod lxc;
mod settings;

mod inspect;
mod resources;

mod store;

mod rollback;

mod hooks;
mod preflight;

mod prepare;
mod rehearse;
mod restore;

mod checkpoint;

mod monitor;
mod suspend;

mod cli;

pub mod api;
