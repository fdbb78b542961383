//! What CRIU is: its versions, options, runs, logs and images.

pub mod action_env;
pub mod check;
pub mod control;
pub mod failure;
pub mod images;
pub mod log;
pub mod options;
pub mod pulse;
pub mod retry;
pub mod run;
pub mod script;
pub mod tools;
pub mod version;
