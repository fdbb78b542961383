//! Tests with real LXC and real CRIU, on real containers in the test host.
//!
//! `cargo test --test system [-- FILTER]` runs them; `cargo test --test system -- --shell [PROGRAM…]` gives a shell in
//! the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;
mod scenario;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::trial::run(&[
        ("container_of_the_recipe_runs_and_echoes", scenario::recipe::runs_and_echoes),
        ("bare_criu_dump_and_restore_keeps_the_connection", scenario::bare_criu::dump_and_restore_keeps_the_connection),
    ])
}
