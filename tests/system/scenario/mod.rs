//! The stories, by subject.

pub mod recipe;
