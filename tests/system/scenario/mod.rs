//! The stories, by subject.

pub mod bare_criu;
pub mod configs;
pub mod consoles;
pub mod copies;
pub mod devices;
pub mod hooks;
pub mod hybrid;
pub mod interfaces;
pub mod interop;
pub mod limits;
pub mod monitor;
pub mod network;
pub mod others;
pub mod predump;
pub mod preflight;
pub mod prepare;
pub mod probe;
pub mod recipe;
pub mod refusals;
pub mod retries;
pub mod roots;
pub mod story;
pub mod systemd;
pub mod tools;
pub mod trust;
pub mod user_hooks;
