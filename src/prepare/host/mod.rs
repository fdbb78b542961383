//! `lxc-cr prepare --host`.
