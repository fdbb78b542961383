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
        ("hooks_of_version_0_through_a_whole_life", scenario::hooks::in_version_0),
        ("hooks_of_version_1_through_a_whole_life", scenario::hooks::in_version_1),
        ("hooks_leave_a_mount_of_somebody_else", scenario::hooks::a_mount_of_somebody_else_stays),
        ("hooks_keep_mounts_below_the_root", scenario::hooks::mounts_below_the_root_are_kept),
        ("hooks_name_a_missing_bridge", scenario::hooks::a_missing_bridge_is_named),
        ("hooks_refuse_a_start_during_a_restart", scenario::hooks::a_start_is_refused_during_a_restart),
        (
            "hooks_play_back_the_journal_of_a_dead_command",
            scenario::hooks::the_journal_of_a_dead_command_is_played_back,
        ),
        ("hooks_put_a_port_on_a_bridge_lxc_does_not_know", scenario::hooks::the_network_scripts_know_the_bridge),
        ("hooks_run_by_us_see_what_lxc_shows_them", scenario::hooks::ours_run_like_those_of_lxc),
        ("hooks_of_the_samples_run", scenario::hooks::the_samples_start),
        ("hooks_explain_wrong_use", scenario::hooks::wrong_use_is_explained),
    ])
}
