//! What LXC is: its configuration files, its command protocol, how its containers are found.

pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod definition;
pub(crate) mod home;
pub(crate) mod hook;
pub(crate) mod name;
pub(crate) mod protocol;
mod root;
pub(crate) mod server;
pub(crate) mod settled;
pub(crate) mod shell;
pub(crate) mod tools;
pub(crate) mod version;
