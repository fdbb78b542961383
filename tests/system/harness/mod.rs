//! The test host and what tests, demo and bench do in it: containers, the witness in them, commands with a time
//! limit, and the check that nothing is left behind.
//!
//! Used by several programs, none of which uses all of it.
#![allow(dead_code, unused_imports)]

pub mod bare;
pub mod cgroups;
pub mod container;
pub mod culprit;
pub mod enter;
pub mod gate;
pub mod installed;
pub mod leak;
pub mod run;
pub mod terminal;
pub mod trial;
pub mod witness;
pub mod world;

pub use container::Container;
pub use world::World;
