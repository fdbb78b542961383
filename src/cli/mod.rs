//! The programs: arguments, messages, exit codes. The only place that prints.

pub mod hook;
