//! What people run in containers, in containers of every kind: a checkpoint and a restart in the
//! middle of what a client on the host does with it, by our commands and by LXC's own
//! `lxc-checkpoint`.
//!
//! A [`Row`] is a program and what a client does with it; a [`Kind`] is a sort of container; a
//! [`Guest`] is such a container with the programs of some rows; a [`trial`] is the story of one.

pub mod boot;
pub mod client;
pub mod guest;
pub mod kind;
pub mod list;
pub mod root;
pub mod table;
pub mod told;
pub mod trial;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use guest::Guest;
pub use kind::Kind;

/// What is left to do for a client after the restart. A panic says what was lost.
pub type Finish = Box<dyn FnOnce() + Send>;

/// A program and its client.
#[derive(Clone, Copy)]
pub struct Row {
    /// What the table calls it.
    pub name: &'static str,
    pub program: Program,
    /// Connects, does the first half, and returns the second.
    pub client: fn(&Place) -> Finish,
}

/// What runs in the container.
#[derive(Clone, Copy)]
pub enum Program {
    /// Our own, with kernel objects of a kind and an argument; it runs wherever anything runs.
    Object(&'static str, &'static str),
    /// A line for a shell, run as root in Debian; the port is `$PORT`.
    Line(&'static str),
    /// A server of Debian's: how it is run alone, and otherwise Debian starts it.
    Server(&'static str),
}

/// Where a client finds its program.
#[derive(Clone)]
pub struct Place {
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
    /// Of programs that are told theirs.
    pub port: u16,
    /// The container's root.
    pub root: PathBuf,
}

/// Who checkpoints and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    Ours,
    Lxcs,
}

/// How it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Good,
    /// By our preflight, with all that it says stands in the way.
    Refused(Vec<String>),
    Failed(String),
}
