//! The test host and what tests, demo and bench do in it: containers, the witness in them, commands
//! with a time limit, and the check that nothing is left behind.
//!
//! Used by several programs, none of which uses all of it.
#![allow(dead_code, unused_imports)]

pub mod bare;
pub mod cgroups;
pub mod client;
pub mod container;
pub mod culprit;
pub mod enter;
pub mod gate;
pub mod hostile;
pub mod inspected;
pub mod installed;
pub mod leak;
pub mod machine;
pub mod mounts;
pub mod pattern;
pub mod pve;
pub mod run;
pub mod seen;
pub mod template;
pub mod terminal;
pub mod trial;
pub mod witness;
pub mod world;

pub use container::Container;
pub use leak::Snapshot;
pub use world::World;
