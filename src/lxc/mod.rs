//! What LXC is: its configuration files, its command protocol, how its containers are found.

pub mod command;
pub mod protocol;
pub mod server;
