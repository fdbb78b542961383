//! What LXC is: its configuration files, its command protocol, how its containers are found.

pub mod command;
pub mod config;
pub mod container;
pub mod definition;
pub mod home;
pub mod hook;
pub mod name;
pub mod protocol;
mod root;
pub mod server;
pub mod settled;
pub mod shell;
pub mod tools;
pub mod version;
