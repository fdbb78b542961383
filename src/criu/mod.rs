//! What CRIU is: its versions, options, runs, logs and images.

pub(crate) mod action_env;
pub(crate) mod check;
pub(crate) mod control;
pub(crate) mod failure;
pub(crate) mod images;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod pulse;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod script;
pub(crate) mod tools;
pub(crate) mod version;
