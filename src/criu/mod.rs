//! What CRIU is: its versions, options, runs, logs and images.

pub mod action_env;
pub mod images;
pub mod log;
pub mod version;
