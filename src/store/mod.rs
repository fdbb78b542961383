//! A checkpoint's directory: what is in it, whether it is whole, and what it says; and all the
//! checkpoints that there are, over months: where they lie, and which may go.
//!
//! The record and the checksums are written here, checkpoints are listed, shown and verified, and
//! [`layout`] knows every file name. Nothing here runs CRIU or changes a container.
//!
//! | of many checkpoints | |
//! |---|---|
//! | [`kept`] | a container's list of checkpoints, and which is meant by a time or a label |
//! | [`register`] | where checkpoints lie, whatever directory was chosen for them |
//! | [`known`] | all of them: in the containers' directories, and those the register names |
//! | [`history`] | what happened to a checkpoint since it was made |
//! | [`status`] | what it is good for now: suspended, restored, stale |
//! | [`scrub`] | whether it is still what was written |
//! | [`retention`] | which of many are kept, counted as restic counts snapshots |
//! | [`prune`] | which of a list may go |
//! | [`metrics`] | what Prometheus is given |
//! | [`calendar`] | moments in the host's time zone |

pub(crate) mod blocks;
pub(crate) mod calendar;
pub(crate) mod checksums;
pub(crate) mod hasher;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod known;
pub(crate) mod layout;
pub(crate) mod list;
pub(crate) mod metrics;
pub(crate) mod page_cache;
pub(crate) mod parents;
pub(crate) mod prune;
pub(crate) mod record;
pub(crate) mod register;
pub(crate) mod resume_mark;
pub(crate) mod retention;
pub(crate) mod scrub;
pub(crate) mod shared_dir;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;
