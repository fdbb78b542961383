//! The stories, by subject.

pub mod bare_criu;
pub mod hooks;
pub mod recipe;
