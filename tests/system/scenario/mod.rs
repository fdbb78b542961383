//! The stories, by subject.

pub mod bare_criu;
pub mod monitor;
pub mod recipe;
pub mod refusals;
pub mod story;
