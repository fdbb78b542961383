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
        (
            "suspended_container_comes_back_with_its_connection",
            scenario::story::suspended_container_comes_back_with_its_connection,
        ),
        ("a_container_left_running_is_as_before", scenario::story::a_container_left_running_is_as_before),
        (
            "the_port_is_off_the_bridge_while_the_container_stands_still",
            scenario::story::the_port_is_off_the_bridge_while_the_container_stands_still,
        ),
        ("a_frozen_container_comes_back_frozen", scenario::story::a_frozen_container_comes_back_frozen),
        ("the_host_side_gets_the_asked_name", scenario::story::the_host_side_gets_the_asked_name),
        ("what_the_host_lends_is_there_again", scenario::story::what_the_host_lends_is_there_again),
        ("an_init_on_the_hosts_null_comes_back", scenario::story::an_init_on_the_hosts_null_comes_back),
        ("network_settings_come_back", scenario::network::its_settings_come_back),
        (
            "network_settings_come_back_with_a_user_namespace",
            scenario::network::its_settings_come_back_with_a_user_namespace,
        ),
        ("the_command_returns_or_stays_as_asked", scenario::story::the_command_returns_or_stays_as_asked),
        ("all_of_lxcs_tools_work_on_it", scenario::monitor::all_of_lxcs_tools_work_on_it),
        ("lxcs_tools_say_the_same_of_it", scenario::tools::say_the_same),
        ("lxcs_tools_end_it_the_same", scenario::tools::end_it_the_same),
        ("it_stops_in_every_way", scenario::monitor::it_stops_in_every_way),
        ("it_is_small_and_idle", scenario::monitor::it_is_small_and_idle),
        ("what_a_killed_monitor_held_is_cleared_away", scenario::monitor::what_a_killed_monitor_held_is_cleared_away),
        ("refusal_of_containers_that_cannot_be_meant", scenario::refusals::of_containers_that_cannot_be_meant),
        ("refusal_of_hosts_that_cannot_do_it", scenario::refusals::of_hosts_that_cannot_do_it),
        ("refusal_of_directories_that_are_not_right", scenario::refusals::of_directories_that_are_not_right),
        ("refusal_of_a_full_disk", scenario::refusals::of_a_full_disk),
        ("refusal_of_configurations_that_cannot_be_read", scenario::refusals::of_configurations_that_cannot_be_read),
        ("refusal_of_a_second_operation_at_the_same_time", scenario::refusals::of_a_second_operation_at_the_same_time),
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
        ("hooks_through_a_checkpoint", scenario::hooks::ours_through_a_checkpoint),
        ("hooks_of_a_user_see_the_same_from_us", scenario::user_hooks::see_the_same),
        ("hooks_of_a_user_end_the_same_after_a_restart", scenario::user_hooks::end_the_same),
        ("hooks_of_the_samples_run", scenario::hooks::the_samples_start),
        ("hooks_explain_wrong_use", scenario::hooks::wrong_use_is_explained),
        ("device_rules_are_in_force_again", scenario::devices::are_in_force_again),
        ("device_rules_that_are_none_stay_none", scenario::devices::that_are_none_stay_none),
        ("device_rules_hold_from_the_first_instruction_on", scenario::devices::hold_from_the_first_instruction_on),
        ("limits_survive", scenario::limits::survive),
        ("limits_of_the_containers_own_cgroups_survive", scenario::limits::of_the_containers_own_cgroups_survive),
        ("limits_that_cannot_be_had_are_refused", scenario::limits::that_cannot_be_had_are_refused),
        ("the_same_is_seen_by_a_plain_container", scenario::probe::by_a_plain_container),
        ("the_same_is_seen_under_device_rules", scenario::probe::under_device_rules),
        ("the_same_is_seen_without_some_capabilities", scenario::probe::without_some_capabilities),
        ("the_same_is_seen_with_few_capabilities", scenario::probe::with_few_capabilities),
        ("the_same_is_seen_under_a_seccomp_profile", scenario::probe::under_a_seccomp_profile),
        ("the_same_is_seen_under_limits_and_settings", scenario::probe::under_limits_and_settings),
        ("the_same_is_seen_with_masked_kernel_files", scenario::probe::with_masked_kernel_files),
        ("the_same_is_seen_in_a_user_namespace", scenario::probe::in_a_user_namespace),
        ("the_same_is_seen_in_a_time_namespace", scenario::probe::in_a_time_namespace),
        ("configurations_read_as_lxc_reads_them", scenario::configs::read_as_lxc_reads_them),
        (
            "configurations_are_served_as_lxcs_monitor_serves_them",
            scenario::configs::served_as_lxcs_monitor_serves_them,
        ),
        ("a_container_whose_monitor_is_gone_is_found", scenario::others::a_container_whose_monitor_is_gone_is_found),
        (
            "bare_criu_with_our_action_script_keeps_the_network",
            scenario::others::bare_criu_with_our_action_script_keeps_the_network,
        ),
        ("lxcs_own_checkpoint_with_our_action_script", scenario::others::lxcs_own_checkpoint_with_our_action_script),
        ("a_reboot_inside_starts_it_afresh", scenario::others::a_reboot_inside_starts_it_afresh),
        ("dry_run_prints_and_changes_nothing", scenario::others::dry_run_prints_and_changes_nothing),
        ("a_checkpoint_builds_on_copies_of_memory", scenario::predump::a_checkpoint_builds_on_copies_of_memory),
        ("verbose_shows_crius_log", scenario::others::verbose_shows_crius_log),
        ("quiet_says_nothing", scenario::others::quiet_says_nothing),
        ("the_users_interrupt_leaves_it_running", scenario::others::the_users_interrupt_leaves_it_running),
        ("a_time_limit_leaves_it_running", scenario::others::a_time_limit_leaves_it_running),
        ("killed_in_the_middle", scenario::others::killed_in_the_middle),
        (
            "a_container_whose_monitor_is_gone_leaves_no_cgroup",
            scenario::others::a_container_whose_monitor_is_gone_leaves_no_cgroup,
        ),
        ("an_init_started_afresh_hears_signals", scenario::others::an_init_started_afresh_hears_signals),
        (
            "verbose_shows_crius_log_of_a_suspended_container",
            scenario::others::verbose_shows_crius_log_of_a_suspended_container,
        ),
        ("preflight_names_files_that_criu_cannot_dump", scenario::preflight::names_files_that_criu_cannot_dump),
        (
            "preflight_names_files_that_cannot_be_found_again",
            scenario::preflight::names_files_that_cannot_be_found_again,
        ),
        ("preflight_names_processes", scenario::preflight::names_processes),
        ("preflight_names_sockets", scenario::preflight::names_sockets),
        ("preflight_is_silent_on_what_criu_can_dump", scenario::preflight::is_silent_on_what_criu_can_dump),
        ("preflight_names_the_other_end_of_a_unix_socket", scenario::preflight::names_the_other_end_of_a_unix_socket),
        ("preflight_names_attached_processes", scenario::preflight::names_attached_processes),
        ("preflight_names_terminals", scenario::preflight::names_terminals),
        ("preflight_names_interfaces", scenario::preflight::names_interfaces),
        ("preflight_names_a_place_that_is_too_small", scenario::preflight::names_a_place_that_is_too_small),
        ("preflight_names_what_the_host_has_unmounted", scenario::preflight::names_what_the_host_has_unmounted),
        ("preflight_names_what_cannot_be_restored", scenario::preflight::names_what_cannot_be_restored),
        ("preflight_names_what_the_host_lacks", scenario::preflight::names_what_the_host_lacks),
    ])
}
