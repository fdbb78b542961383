//! Servers as Debian packages them, in a container that `lxc-cr prepare` alone has made ready.
//!
//! One container with all servers of a group boots once; a [`trial`] starts some of them, has a
//! client at each, suspends the container, brings it back, and compares. What goes wrong for
//! several at once is tried with each alone.
//!
//! | file | its story |
//! |---|---|
//! | `list.txt`, [`list`] | which servers |
//! | [`guest`], [`root`] | the container |
//! | [`client`] | what its clients see |
//! | [`server`] | what systemd and the journal say of a server |
//! | [`trial`] | the suspends and restarts, and what came of them |
//! | [`table`] | docs/programs.md |

pub mod client;
pub mod guest;
pub mod list;
pub mod root;
pub mod server;
pub mod table;
pub mod trial;

pub use guest::Guest;
pub use list::Program;

use serde::{Deserialize, Serialize};

/// What came of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Works,
    /// Refused, with the reason and the remedy.
    Refused(String),
    /// The container was stopped, and its restart failed.
    Lost(String),
    /// The checkpoint failed, and the container runs on.
    Failed(String),
    /// It came back, but not as it was: as a warning had said.
    Warned(String),
    /// It came back, but not as it was.
    Different(String),
    /// It does not run in this container, without any checkpoint.
    NotStarted(String),
}

impl Outcome {
    /// The class, for the table and the counts.
    pub fn class(&self) -> &'static str {
        match self {
            Outcome::Works => "works",
            Outcome::Refused(_) => "refused beforehand",
            Outcome::Lost(_) => "stopped and cannot return",
            Outcome::Failed(_) => "failed without a remedy",
            Outcome::Warned(_) => "different, as a warning says",
            Outcome::Different(_) => "different",
            Outcome::NotStarted(_) => "does not start here",
        }
    }

    /// What else is known.
    pub fn remark(&self) -> &str {
        match self {
            Outcome::Works => "",
            Outcome::Refused(text)
            | Outcome::Lost(text)
            | Outcome::Failed(text)
            | Outcome::Warned(text)
            | Outcome::Different(text)
            | Outcome::NotStarted(text) => text,
        }
    }

    /// Whether it must not be so.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Outcome::Lost(_) | Outcome::Failed(_) | Outcome::Different(_))
    }
}
