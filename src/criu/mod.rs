//! What CRIU is: its versions, options, runs, logs and images.

pub mod control;
pub mod options;
pub mod run;
