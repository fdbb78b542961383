//! Checkpoint and restart of LXC containers with CRIU.
//!
//! The modules form layers and import only downwards; `tests/layers.rs` keeps it so:
//!
//! ```text
//! cli
//! checkpoint  restore  recover  monitor  action  hooks  prepare  suspend
//! preflight                                    (what a checkpoint looks at first)
//! begin  failed  narrate  retry                (what commands have in common: how they begin, what CRIU says, what a second try may cure)
//! net  mounts  apparmor  rootfs  ttys  mend  cgroup  devices  limits  confine  sysctl  record  contents  seal  release  rollback  operation  suspended  shelf  store  lineup  workshop  settings
//! inspect                                      (what the kernel says about a container that stands still)
//! lxc | criu                                   (these two do not know each other)
//! sys                                          (the only place that says `unsafe`)
//! ```
//!
//! `error` and `report` may be used from everywhere. A newcomer starts with `checkpoint` and `restore`: each
//! reads as the numbered steps of what its command does.

#![deny(unsafe_code)]

pub mod error;
pub mod report;

#[allow(unsafe_code)]
pub mod sys;

pub mod criu;
pub mod lxc;

pub mod inspect;

pub mod rollback;
pub mod settings;
pub mod store;

pub mod preflight;

pub mod checkpoint;
pub mod hooks;
pub mod monitor;
pub mod prepare;
pub mod restore;
pub mod suspend;

pub mod cli;

pub mod resources;
