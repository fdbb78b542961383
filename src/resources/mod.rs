//! What a container has of its host: root, mounts, network, cgroups, terminals, profiles.
//!
//! Each module knows one kind of resource: how it is found while the container runs, what of it is
//! recorded, and how it is made again at a restore. Nothing here knows of checkpoints or of the
//! undo log; what a kind needs to undo is a value that its caller notes.

pub(crate) mod apparmor;
pub(crate) mod cgroup;

pub(crate) mod mounts;
pub(crate) mod network;

pub(crate) mod rootfs;
pub(crate) mod states;
pub(crate) mod terminals;
