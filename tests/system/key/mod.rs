//! Every key of lxc.container.conf(5), through a checkpoint and a restart: what it made is there
//! again, or the checkpoint is refused beforehand, or the difference is named beforehand.
//!
//! | file | its story |
//! |---|---|
//! | `row` | what a row is |
//! | `rows/` | the keys: a value that shows, how to see it, what is expected |
//! | `trial` | one row: a life under LXC alone, then one with two checkpoints and restarts in it |
//! | `look` | all that the host sees of a container |
//! | `outcome` | what came of a row, and whether it may |
//! | `document` | docs/configuration.md |

pub mod document;
pub mod look;
pub mod outcome;
pub mod row;
pub mod rows;
pub mod trial;

pub use row::{Expected, ROW, Row};
