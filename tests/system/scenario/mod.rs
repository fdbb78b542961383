//! The stories, by subject.

pub mod bare_criu;
pub mod hooks;
pub mod monitor;
pub mod recipe;
pub mod refusals;
pub mod story;
pub mod user_hooks;
