//! The checkpoints that there are, over months: which are known, which are whole, which may go.
//!
//! A checkpoint's directory holds images, the record, and what happened to it since ([`history`]).

pub mod history;
pub mod scrub;
