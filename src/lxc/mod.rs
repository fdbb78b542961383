//! What LXC is: its configuration files, its command protocol, how its containers are found.

pub mod config;
pub mod name;
