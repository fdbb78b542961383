//! `lxc-cr prepare`: a container, or the host, gets what checkpoints need.
//!
//! Both are done in the same way. What is there is looked at; what is to be changed is planned, and
//! the planning changes nothing; a person sees the plan as diffs; before each change it is written
//! down how it is taken back. What is there already is left as it is, so that a second run has
//! nothing to do.
//!
//! | file | its story |
//! |---|---|
//! | [`container`] | a stopped container: its init, its configuration |
//! | [`pve`] | a container of Proxmox VE, which is defined elsewhere |
//! | [`init`], [`config_edits`], [`seccomp`] | which init a root has; the lines that a configuration lacks; seccomp profiles |
//! | [`programs`] | what programs in a root need: PHP |
//! | [`host`] | the host: cgroups, the bridge, modules, tools, ids |
//! | [`change`] | a file that is to be changed, as a diff |
//! | [`undo`] | what is kept on disk to take changes back |
//! | [`installed`] | where our own files are |

pub(crate) mod change;
pub(crate) mod config_edits;
pub(crate) mod container;
pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod installed;
pub(crate) mod programs;
pub(crate) mod pve;
pub(crate) mod seccomp;
pub(crate) mod undo;
