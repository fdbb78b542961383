//! Tests with real LXC and real CRIU, on real containers in the test host.
//!
//! `cargo test --test system [-- FILTER]` runs them; `cargo test --test system -- --shell
//! [PROGRAM…]` gives a shell in the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod cycles;
mod harness;
mod pages;
mod scenario;
mod seeds;

use std::process::ExitCode;

use harness::trial::Story;

fn main() -> ExitCode {
    harness::trial::run(STORIES, ON_HYBRID)
}

/// Each of the things that may befall a lazy restore, once or twice.
const LAZY_SEEDS: u64 = 12;

/// What is tried on hosts with cgroup2 alone.
const STORIES: &[Story] = &[
    ("container_of_the_recipe_runs_and_echoes", scenario::recipe::runs_and_echoes),
    (
        "bare_criu_dump_and_restore_keeps_the_connection",
        scenario::bare_criu::dump_and_restore_keeps_the_connection,
    ),
    (
        "suspended_container_comes_back_with_its_connection",
        scenario::story::suspended_container_comes_back_with_its_connection,
    ),
    (
        "a_terminal_shows_the_phases_with_sizes_and_times",
        scenario::story::a_terminal_shows_the_phases_with_sizes_and_times,
    ),
    (
        "a_container_left_running_is_as_before",
        scenario::story::a_container_left_running_is_as_before,
    ),
    (
        "the_port_is_off_the_bridge_while_the_container_stands_still",
        scenario::story::the_port_is_off_the_bridge_while_the_container_stands_still,
    ),
    ("a_frozen_container_comes_back_frozen", scenario::story::a_frozen_container_comes_back_frozen),
    (
        "a_change_in_any_root_is_seen_before_it_is_replaced",
        scenario::replace::not_where_the_root_has_changed,
    ),
    (
        "a_container_is_replaced_only_by_a_checkpoint_that_is_good",
        scenario::replace::only_by_a_checkpoint_that_is_good,
    ),
    ("the_host_side_gets_the_asked_name", scenario::story::the_host_side_gets_the_asked_name),
    ("what_the_host_lends_is_there_again", scenario::story::what_the_host_lends_is_there_again),
    ("an_init_on_the_hosts_null_comes_back", scenario::story::an_init_on_the_hosts_null_comes_back),
    ("retries_unread_netlink_data_passes", scenario::retries::unread_netlink_data_passes),
    (
        "retries_a_message_with_credentials_is_read",
        scenario::retries::a_message_with_credentials_is_read,
    ),
    (
        "retries_a_connection_that_nobody_has_accepted_passes",
        scenario::retries::a_connection_that_nobody_has_accepted_passes,
    ),
    (
        "retries_a_request_at_a_unix_socket_passes",
        scenario::retries::a_request_at_a_unix_socket_passes,
    ),
    ("retries_a_traced_process_is_let_go", scenario::retries::a_traced_process_is_let_go),
    (
        "retries_a_process_that_is_killed_meanwhile_is_left_out",
        scenario::retries::a_process_that_is_killed_meanwhile_is_left_out,
    ),
    (
        "retries_a_name_that_was_taken_meanwhile_is_given_up",
        scenario::retries::a_name_that_was_taken_meanwhile_is_given_up,
    ),
    (
        "retries_an_old_veth_pair_that_lingers_is_waited_for",
        scenario::retries::an_old_veth_pair_that_lingers_is_waited_for,
    ),
    ("states_alarms_come_at_their_time_of_day", scenario::states::alarms_come_at_their_time_of_day),
    (
        "states_guards_of_a_frozen_container_come_back",
        scenario::states::guards_of_a_frozen_container_come_back,
    ),
    ("states_guards_of_processes_come_back", scenario::states::guards_of_processes_come_back),
    (
        "states_guards_that_cannot_be_restored_fail_the_restore",
        scenario::states::guards_that_cannot_be_restored_fail_the_restore,
    ),
    ("states_options_of_sockets_come_back", scenario::states::options_of_sockets_come_back),
    ("states_timers_that_repeat_go_on", scenario::states::timers_that_repeat_go_on),
    (
        "rehearse_what_does_not_come_back_goes_on",
        scenario::rehearse::what_does_not_come_back_goes_on,
    ),
    (
        "rehearse_healthy_containers_without_a_false_alarm",
        scenario::rehearse::healthy_containers_without_a_false_alarm,
    ),
    ("rehearse_debian_without_a_false_alarm", scenario::rehearse::debian_without_a_false_alarm),
    (
        "rehearse_keeps_the_host_and_its_files_as_they_are",
        scenario::rehearse::keeps_the_host_and_its_files_as_they_are,
    ),
    (
        "rehearse_interfaces_of_the_host_stay_where_they_are",
        scenario::rehearse::interfaces_of_the_host_stay_where_they_are,
    ),
    (
        "rehearse_killed_at_any_step_leaves_nothing",
        scenario::rehearse::killed_at_any_step_leaves_nothing,
    ),
    ("rehearse_says_when_it_is_left_out", scenario::rehearse::says_when_it_is_left_out),
    ("roots_an_overlay_comes_back", scenario::roots::an_overlay_comes_back),
    ("roots_an_image_comes_back", scenario::roots::an_image_comes_back),
    ("roots_a_block_device_comes_back", scenario::roots::a_block_device_comes_back),
    (
        "roots_a_container_without_a_monitor_is_found_by_its_root",
        scenario::roots::a_container_without_a_monitor_is_found_by_its_root,
    ),
    (
        "roots_one_that_cannot_be_mounted_is_told",
        scenario::roots::one_that_cannot_be_mounted_is_told,
    ),
    (
        "roots_one_of_a_kind_that_only_lxc_mounts_is_refused",
        scenario::roots::one_of_a_kind_that_only_lxc_mounts_is_refused,
    ),
    ("roots_mounts_that_are_gone_are_named", scenario::roots::mounts_that_are_gone_are_named),
    ("roots_later_mounts_pass_as_before", scenario::roots::later_mounts_pass_as_before),
    (
        "mounts_of_lxcs_common_configuration_come_back",
        scenario::mounts::of_lxcs_common_configuration_come_back,
    ),
    (
        "mounts_of_lxcs_common_configuration_come_back_with_an_id_map",
        scenario::mounts::of_lxcs_common_configuration_come_back_with_an_id_map,
    ),
    ("mounts_that_the_host_shares_come_back", scenario::mounts::that_the_host_shares_come_back),
    (
        "mounts_that_the_host_shares_come_back_with_an_id_map",
        scenario::mounts::that_the_host_shares_come_back_with_an_id_map,
    ),
    (
        "mounts_of_what_is_private_now_receive_nothing",
        scenario::mounts::of_what_is_private_now_receive_nothing,
    ),
    ("escape_is_not_possible_for_hostile_seeds", |world| {
        println!("{}", seeds::go_through(world, 0..6))
    }),
    ("escape_is_not_possible", scenario::escape::is_not_possible),
    ("escape_is_not_possible_with_an_id_map", scenario::escape::is_not_possible_with_an_id_map),
    ("sources_that_were_replaced_are_named", scenario::sources::that_were_replaced_are_named),
    (
        "sources_that_are_others_at_a_restart_are_refused",
        scenario::sources::that_are_others_at_a_restart_are_refused,
    ),
    (
        "sources_that_are_hidden_stand_in_the_way",
        scenario::sources::that_are_hidden_stand_in_the_way,
    ),
    ("sources_of_which_criu_saves_too_little", scenario::sources::of_which_criu_saves_too_little),
    (
        "sources_with_an_id_map_of_their_own_stand_in_the_way",
        scenario::sources::with_an_id_map_of_their_own_stand_in_the_way,
    ),
    (
        "sources_that_hooks_have_mounted_stand_in_the_way",
        scenario::sources::that_hooks_have_mounted_stand_in_the_way,
    ),
    ("sources_are_found_behind_links", scenario::sources::are_found_behind_links),
    ("interfaces_a_macvlan_comes_back", scenario::interfaces::a_macvlan_comes_back),
    (
        "interfaces_what_the_host_lends_comes_back_and_is_given_back",
        scenario::interfaces::what_the_host_lends_comes_back_and_is_given_back,
    ),
    ("inspect_nothing_differs_after_a_restore", scenario::inspect::nothing_differs_after_a_restore),
    ("inspect_nothing_differs_in_systemd", scenario::inspect::nothing_differs_in_systemd),
    ("inspect_each_change_is_named", scenario::inspect::each_change_is_named),
    ("inspect_a_change_is_named", scenario::inspect::a_change_is_named),
    (
        "interfaces_none_at_all_and_the_hosts_own",
        scenario::interfaces::none_at_all_and_the_hosts_own,
    ),
    ("network_settings_come_back", scenario::network::its_settings_come_back),
    (
        "network_settings_come_back_with_a_user_namespace",
        scenario::network::its_settings_come_back_with_a_user_namespace,
    ),
    (
        "network_host_what_an_administrator_gave_a_port_comes_back",
        scenario::network_host::what_an_administrator_gave_a_port_comes_back,
    ),
    (
        "network_host_a_routed_container_comes_back",
        scenario::network_host::a_routed_container_comes_back,
    ),
    (
        "network_host_what_a_script_makes_is_made_again",
        scenario::network_host::what_a_script_makes_is_made_again,
    ),
    (
        "network_that_only_criu_can_bring_back_comes_back",
        scenario::network::what_only_criu_can_bring_back_comes_back,
    ),
    (
        "inspected_a_healthy_container_shows_no_difference",
        scenario::inspected::a_healthy_container_shows_no_difference,
    ),
    (
        "inspected_files_in_memory_are_as_they_were",
        scenario::inspected::files_in_memory_are_as_they_were,
    ),
    (
        "inspected_routes_by_nexthop_objects_come_back",
        scenario::inspected::routes_by_nexthop_objects_come_back,
    ),
    (
        "inspected_routes_without_a_carrier_come_back",
        scenario::inspected::routes_without_a_carrier_come_back,
    ),
    ("inspected_lifetimes_go_on", scenario::inspected::lifetimes_go_on),
    (
        "inspected_what_criu_does_not_save_of_a_network_comes_back",
        scenario::inspected::what_criu_does_not_save_of_a_network_comes_back,
    ),
    (
        "inspected_rules_with_extensions_of_iptables_come_back",
        scenario::inspected::rules_with_extensions_of_iptables_come_back,
    ),
    (
        "inspected_rules_that_no_tool_can_save_stand_in_the_way",
        scenario::inspected::rules_that_no_tool_can_save_stand_in_the_way,
    ),
    (
        "inspected_a_connection_through_nat_goes_on",
        scenario::inspected::a_connection_through_nat_goes_on,
    ),
    ("lazy_memory_follows_the_container", scenario::lazy::memory_follows_the_container),
    ("lazy_churn_is_followed", scenario::lazy::what_programs_do_to_memory_is_followed),
    ("lazy_pager_killed_ends_the_container", scenario::lazy::a_killed_pager_ends_the_container),
    ("lazy_keeper_killed_is_replaced", scenario::lazy::a_killed_keeper_is_replaced),
    ("lazy_damaged_block_ends_the_container", scenario::lazy::a_damaged_block_ends_the_container),
    ("lazy_never_a_wrong_byte", |world| {
        let tally = pages::go_through(world, 0..LAZY_SEEDS, &mut |lost| println!("{lost}"));
        println!("{tally}");
        assert!(tally.lost.is_empty(), "{:?}", tally.lost);
    }),
    ("lazy_what_needs_all_memory_waits", scenario::lazy::what_needs_all_of_its_memory_waits),
    (
        "lazy_auto_does_not_multiply_what_is_shared",
        scenario::lazy::what_forked_servers_share_is_not_multiplied,
    ),
    (
        "lazy_id_mapped_as_the_kernel_lets",
        scenario::lazy::a_container_with_an_id_map_is_restored_as_the_kernel_lets_it,
    ),
    ("memory_pages_are_made_ready_beside_criu", scenario::memory::pages_are_made_ready_beside_criu),
    (
        "memory_pages_that_tasks_share_stay_shared",
        scenario::memory::pages_that_tasks_share_stay_shared,
    ),
    (
        "memory_on_a_disk_that_has_gone_bad_is_seen_once_it_is_read",
        scenario::memory::a_disk_that_has_gone_bad_is_seen_once_it_is_read,
    ),
    (
        "the_command_returns_or_stays_as_asked",
        scenario::story::the_command_returns_or_stays_as_asked,
    ),
    ("all_of_lxcs_tools_work_on_it", scenario::monitor::all_of_lxcs_tools_work_on_it),
    ("lxcs_tools_say_the_same_of_it", scenario::tools::say_the_same),
    ("lxcs_tools_end_it_the_same", scenario::tools::end_it_the_same),
    ("lxcs_tools_checkpoint_it_the_same", scenario::tools::checkpoint_it_the_same),
    ("consoles_shells_on_them_go_on", scenario::consoles::shells_on_them_go_on),
    ("consoles_other_shells_go_on", scenario::consoles::other_shells_go_on_beside_them),
    ("consoles_lxc_console_works_on_them", scenario::consoles::lxc_console_works_on_them),
    ("consoles_output_is_kept", scenario::consoles::the_consoles_output_is_kept),
    ("consoles_in_the_foreground", scenario::consoles::in_the_foreground_the_console_is_here),
    ("consoles_of_an_id_map", scenario::consoles::they_belong_to_the_containers_root),
    ("consoles_link_at_devpts", scenario::consoles::a_link_at_devpts_leads_nowhere),
    (
        "a_stopped_monitor_of_lxcs_is_continued",
        scenario::monitor::a_stopped_monitor_of_lxcs_is_continued,
    ),
    ("it_stops_in_every_way", scenario::monitor::it_stops_in_every_way),
    ("it_is_small_and_idle", scenario::monitor::it_is_small_and_idle),
    (
        "what_a_killed_monitor_held_is_cleared_away",
        scenario::monitor::what_a_killed_monitor_held_is_cleared_away,
    ),
    ("what_is_said_is_lost_where_nobody_listens", scenario::others::who_does_not_listen_any_more),
    ("refusal_of_an_address_that_is_taken", scenario::refusals::of_an_address_that_is_taken),
    ("refusal_of_what_would_be_destroyed", scenario::refusals::of_what_would_be_destroyed),
    (
        "refusal_of_directories_that_would_be_lost",
        scenario::refusals::of_directories_that_would_be_lost,
    ),
    (
        "refusal_of_containers_that_cannot_be_meant",
        scenario::refusals::of_containers_that_cannot_be_meant,
    ),
    ("refusal_of_hosts_that_cannot_do_it", scenario::refusals::of_hosts_that_cannot_do_it),
    (
        "refusal_of_directories_that_are_not_right",
        scenario::refusals::of_directories_that_are_not_right,
    ),
    ("refusal_of_a_full_disk", scenario::refusals::of_a_full_disk),
    ("refusal_of_a_place_without_room", scenario::refusals::of_a_place_without_room),
    (
        "refusal_of_configurations_that_cannot_be_read",
        scenario::refusals::of_configurations_that_cannot_be_read,
    ),
    (
        "refusal_of_a_second_operation_at_the_same_time",
        scenario::refusals::of_a_second_operation_at_the_same_time,
    ),
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
    (
        "hooks_put_a_port_on_a_bridge_lxc_does_not_know",
        scenario::hooks::the_network_scripts_know_the_bridge,
    ),
    ("hooks_through_a_checkpoint", scenario::hooks::ours_through_a_checkpoint),
    ("hooks_of_a_user_see_the_same_from_us", scenario::user_hooks::see_the_same),
    ("hooks_of_a_user_end_the_same_after_a_restart", scenario::user_hooks::end_the_same),
    ("hooks_of_the_samples_run", scenario::hooks::the_samples_start),
    ("hooks_explain_wrong_use", scenario::hooks::wrong_use_is_explained),
    ("systemd_without_privileges_goes_on", scenario::systemd::without_privileges_goes_on),
    ("systemd_with_privileges_goes_on", scenario::systemd::with_privileges_goes_on),
    (
        "prepare_makes_a_fresh_debian_ready_and_is_undone",
        scenario::prepare::makes_a_fresh_debian_ready_and_is_undone,
    ),
    (
        "prepare_makes_systemd_without_an_id_map_ready",
        scenario::prepare::makes_systemd_without_an_id_map_ready,
    ),
    ("prepare_leaves_hooks_their_arguments", scenario::prepare::leaves_hooks_their_arguments),
    ("prepare_leaves_what_was_edited_since", scenario::prepare::leaves_what_was_edited_since),
    ("prepare_sets_up_the_host", scenario::prepare::sets_up_the_host),
    ("prepare_refuses_what_it_must_not_change", scenario::prepare::refuses_what_it_must_not_change),
    (
        "a_checkpoint_whose_files_were_written_since_is_doubtful",
        scenario::trust::what_was_written_since_is_told,
    ),
    (
        "checkpoints_are_listed_shown_and_removed",
        scenario::trust::checkpoints_are_listed_shown_and_removed,
    ),
    (
        "what_has_changed_is_named_before_a_restart",
        scenario::trust::what_has_changed_is_named_before_a_restart,
    ),
    ("nobody_gets_in", scenario::trust::nobody_gets_in),
    (
        "a_directory_of_an_unprivileged_container_is_trusted",
        scenario::trust::a_directory_of_an_unprivileged_container_is_trusted,
    ),
    ("copies_run_beside_their_original", scenario::copies::run_beside_their_original),
    ("copies_of_an_unprivileged_container_run", scenario::copies::of_an_unprivileged_container_run),
    ("copies_that_cannot_be_are_refused", scenario::copies::that_cannot_be_are_refused),
    ("connections_are_closed_if_told_to", scenario::copies::connections_are_closed_if_told_to),
    (
        "day_two_a_log_file_has_steps_and_outcomes",
        scenario::day_two::a_log_file_has_steps_and_outcomes,
    ),
    (
        "day_two_a_thousand_checkpoints_are_listed_at_once",
        scenario::day_two::a_thousand_checkpoints_are_listed_at_once,
    ),
    (
        "day_two_what_is_suspended_is_said_to_be_so",
        scenario::day_two::what_is_suspended_is_said_to_be_so,
    ),
    ("day_two_the_next_shutdown_is_rehearsed", scenario::day_two::the_next_shutdown_is_rehearsed),
    ("json_is_as_documented", scenario::json::is_as_documented),
    ("json_metrics_are_written", scenario::json::metrics_are_written),
    ("day_two_checkpoints_are_a_list", scenario::day_two::checkpoints_are_a_list),
    (
        "day_two_a_disk_that_is_not_mounted_is_named_and_not_filled",
        scenario::day_two::a_disk_that_is_not_mounted_is_named_and_not_filled,
    ),
    (
        "day_two_the_only_state_of_a_container_is_not_removed_by_mistake",
        scenario::day_two::the_only_state_of_a_container_is_not_removed_by_mistake,
    ),
    ("day_two_verify_finds_a_changed_bit", scenario::day_two::verify_finds_a_changed_bit),
    ("suspend_all_come_back_as_they_were", scenario::suspend::all_come_back_as_they_were),
    (
        "suspend_groups_and_delays_are_those_of_lxc",
        scenario::suspend::groups_and_delays_are_those_of_lxc,
    ),
    ("suspend_nothing_stale_comes_back", scenario::suspend::nothing_stale_comes_back),
    ("suspend_what_cannot_be_resumed_boots", scenario::suspend::what_cannot_be_resumed_boots),
    (
        "suspend_a_shutdown_in_the_middle_loses_nothing",
        scenario::suspend::a_shutdown_in_the_middle_loses_nothing,
    ),
    (
        "suspend_the_journal_tells_of_each_container",
        scenario::suspend::the_journal_tells_of_each_container,
    ),
    (
        "boot_a_second_shutdown_leaves_nothing_between",
        scenario::boot::a_second_shutdown_leaves_nothing_between,
    ),
    (
        "boot_a_host_with_systemd_goes_down_and_comes_back",
        scenario::boot::a_host_with_systemd_goes_down_and_comes_back,
    ),
    (
        "suspend_what_cannot_be_suspended_keeps_running",
        scenario::suspend::what_cannot_be_suspended_keeps_running,
    ),
    (
        "template_containers_of_lxc_come_back_on_a_host_with_systemd",
        scenario::template::of_lxc_come_back_on_a_host_with_systemd,
    ),
    ("suspend_many_go_side_by_side", scenario::suspend::many_go_side_by_side),
    (
        "apparmor_a_profile_that_lxc_has_made_up_comes_back",
        scenario::apparmor::a_profile_that_lxc_has_made_up_comes_back,
    ),
    (
        "apparmor_a_profile_that_is_missing_is_named",
        scenario::apparmor::a_profile_that_is_missing_is_named,
    ),
    ("lxcfs_is_there_again", scenario::lxcfs::is_there_again),
    ("device_rules_are_in_force_again", scenario::devices::are_in_force_again),
    ("device_rules_that_are_none_stay_none", scenario::devices::that_are_none_stay_none),
    (
        "device_rules_hold_from_the_first_instruction_on",
        scenario::devices::hold_from_the_first_instruction_on,
    ),
    ("limits_survive", scenario::limits::survive),
    (
        "limits_of_the_containers_own_cgroups_survive",
        scenario::limits::of_the_containers_own_cgroups_survive,
    ),
    (
        "limits_of_cgroups_that_come_and_go_meanwhile_survive",
        scenario::limits::of_cgroups_that_come_and_go_meanwhile_survive,
    ),
    ("limits_that_cannot_be_had_are_refused", scenario::limits::that_cannot_be_had_are_refused),
    ("ten_cycles_leave_nothing", |world| print!("{}", cycles::go_through(world, 10))),
    ("the_same_is_seen_by_a_plain_container", scenario::probe::by_a_plain_container),
    ("the_same_is_seen_under_device_rules", scenario::probe::under_device_rules),
    ("the_same_is_seen_without_some_capabilities", scenario::probe::without_some_capabilities),
    ("the_same_is_seen_with_few_capabilities", scenario::probe::with_few_capabilities),
    ("the_same_is_seen_under_a_seccomp_profile", scenario::probe::under_a_seccomp_profile),
    ("the_same_is_seen_under_limits_and_settings", scenario::probe::under_limits_and_settings),
    ("the_same_is_seen_with_masked_kernel_files", scenario::probe::with_masked_kernel_files),
    (
        "proxmox_an_unprivileged_container_goes_on",
        scenario::proxmox::an_unprivileged_container_goes_on,
    ),
    ("proxmox_a_privileged_container_goes_on", scenario::proxmox::a_privileged_container_goes_on),
    (
        "proxmox_mount_points_and_devices_come_back",
        scenario::proxmox::mount_points_and_devices_come_back,
    ),
    ("proxmox_vlans_and_rates_come_back", scenario::proxmox::vlans_and_rates_come_back),
    (
        "proxmox_the_firewalls_bridge_is_made_again",
        scenario::proxmox::the_firewalls_bridge_is_made_again,
    ),
    (
        "proxmox_a_container_is_prepared_in_its_definition",
        scenario::proxmox::a_container_is_prepared_in_its_definition,
    ),
    (
        "proxmox_the_hook_script_suspends_and_resumes",
        scenario::proxmox::the_hook_script_suspends_and_resumes,
    ),
    ("the_same_is_seen_with_binds_of_every_kind", scenario::probe::with_binds_of_every_kind),
    ("the_same_is_seen_in_a_user_namespace", scenario::probe::in_a_user_namespace),
    ("the_same_is_seen_in_a_time_namespace", scenario::probe::in_a_time_namespace),
    ("configurations_read_as_lxc_reads_them", scenario::configs::read_as_lxc_reads_them),
    (
        "configurations_are_served_as_lxcs_monitor_serves_them",
        scenario::configs::served_as_lxcs_monitor_serves_them,
    ),
    (
        "a_container_whose_monitor_is_gone_is_found",
        scenario::others::a_container_whose_monitor_is_gone_is_found,
    ),
    (
        "bare_criu_with_our_action_script_keeps_the_network",
        scenario::others::bare_criu_with_our_action_script_keeps_the_network,
    ),
    (
        "lxcs_own_checkpoint_with_our_action_script",
        scenario::others::lxcs_own_checkpoint_with_our_action_script,
    ),
    ("interop_lxcs_tool_and_ours_take_turns", scenario::interop::lxcs_tool_and_ours_take_turns),
    ("interop_the_story_of_lxcs_own_test", scenario::interop::the_story_of_lxcs_own_test),
    ("a_reboot_inside_starts_it_afresh", scenario::others::a_reboot_inside_starts_it_afresh),
    ("dry_run_prints_and_changes_nothing", scenario::others::dry_run_prints_and_changes_nothing),
    (
        "a_checkpoint_builds_on_copies_of_memory",
        scenario::predump::a_checkpoint_builds_on_copies_of_memory,
    ),
    (
        "precopy_rounds_are_a_part_of_it",
        scenario::predump::copies_in_rounds_are_a_part_of_the_checkpoint,
    ),
    ("precopy_by_the_settings", scenario::predump::copies_are_made_where_the_settings_say_so),
    ("precopy_shortens_the_wait", scenario::predump::rounds_and_lazy_memory_shorten_the_wait),
    ("verbose_shows_crius_log", scenario::others::verbose_shows_crius_log),
    ("quiet_says_nothing", scenario::others::quiet_says_nothing),
    (
        "the_users_interrupt_leaves_it_running",
        scenario::others::the_users_interrupt_leaves_it_running,
    ),
    ("a_time_limit_leaves_it_running", scenario::others::a_time_limit_leaves_it_running),
    ("a_script_that_never_ends_is_ended", scenario::others::a_script_that_never_ends_is_ended),
    (
        "one_that_dies_in_the_middle_may_come_back",
        scenario::others::one_that_dies_in_the_middle_may_come_back,
    ),
    ("killed_in_the_middle", scenario::others::killed_in_the_middle),
    ("killed_what_criu_started_ends_with_it", scenario::kills::what_criu_started_ends_with_it),
    ("killed_a_stopped_criu_goes_on", scenario::kills::a_stopped_criu_goes_on),
    (
        "killed_a_stale_journal_ends_no_healthy_container",
        scenario::kills::a_stale_journal_ends_no_healthy_container,
    ),
    (
        "killed_what_is_frozen_inside_holds_nobody_up",
        scenario::kills::what_is_frozen_inside_holds_nobody_up,
    ),
    (
        "killed_a_mark_that_was_struck_out_comes_back",
        scenario::kills::a_mark_that_was_struck_out_comes_back,
    ),
    (
        "killed_an_image_that_was_shown_is_recovered",
        scenario::others::an_image_that_was_shown_is_recovered,
    ),
    (
        "a_container_whose_monitor_is_gone_leaves_no_cgroup",
        scenario::others::a_container_whose_monitor_is_gone_leaves_no_cgroup,
    ),
    (
        "a_reboot_inside_goes_by_the_same_configuration",
        scenario::others::a_reboot_inside_goes_by_the_same_configuration,
    ),
    (
        "an_init_started_afresh_hears_signals",
        scenario::others::an_init_started_afresh_hears_signals,
    ),
    (
        "verbose_shows_crius_log_of_a_suspended_container",
        scenario::others::verbose_shows_crius_log_of_a_suspended_container,
    ),
    (
        "clean_start_nothing_of_the_caller_is_inherited",
        scenario::clean_start::nothing_of_the_caller_is_inherited,
    ),
    (
        "clean_start_a_restriction_for_good_is_refused",
        scenario::clean_start::a_restriction_for_good_is_refused,
    ),
    ("races_nobody_swaps_the_images", scenario::races::nobody_swaps_the_images),
    ("races_a_missing_directory_is_not_made", scenario::races::a_missing_directory_is_not_made),
    ("races_nobody_passes_for_a_container", scenario::races::nobody_passes_for_a_container),
    ("races_nobody_names_the_init_of_another", scenario::races::nobody_names_the_init_of_another),
    ("races_nobody_swaps_the_configuration", scenario::races::nobody_swaps_the_configuration),
    (
        "races_a_directory_that_a_user_can_change_is_refused",
        scenario::races::a_directory_that_a_user_can_change_is_refused,
    ),
    ("races_an_acl_lets_others_write", scenario::races::an_acl_lets_others_write),
    ("races_a_full_tmp_stops_nothing", scenario::races::a_full_tmp_stops_nothing),
    (
        "preflight_names_files_that_criu_cannot_dump",
        scenario::preflight::names_files_that_criu_cannot_dump,
    ),
    (
        "preflight_names_files_that_cannot_be_found_again",
        scenario::preflight::names_files_that_cannot_be_found_again,
    ),
    ("preflight_names_processes", scenario::preflight::names_processes),
    ("preflight_names_sockets", scenario::preflight::names_sockets),
    (
        "preflight_is_silent_on_what_criu_can_dump",
        scenario::preflight::is_silent_on_what_criu_can_dump,
    ),
    (
        "preflight_names_the_other_end_of_a_unix_socket",
        scenario::preflight::names_the_other_end_of_a_unix_socket,
    ),
    ("preflight_names_attached_processes", scenario::preflight::names_attached_processes),
    ("preflight_names_streams_of_a_unit", scenario::preflight::names_streams_of_a_unit),
    ("preflight_lets_terminals_of_lxc_be", scenario::preflight::lets_terminals_of_lxc_be),
    ("preflight_names_interfaces", scenario::preflight::names_interfaces),
    (
        "preflight_names_a_place_that_is_too_small",
        scenario::preflight::names_a_place_that_is_too_small,
    ),
    (
        "preflight_names_what_the_host_has_unmounted",
        scenario::preflight::names_what_the_host_has_unmounted,
    ),
    (
        "preflight_waits_for_one_that_has_just_been_started",
        scenario::preflight::waits_for_one_that_has_just_been_started,
    ),
    ("preflight_names_what_would_be_lost", scenario::preflight::names_what_would_be_lost),
    ("preflight_names_what_cannot_be_restored", scenario::preflight::names_what_cannot_be_restored),
    ("preflight_names_what_the_host_lacks", scenario::preflight::names_what_the_host_lacks),
];

/// What is tried where the hierarchies of cgroup v1 are beside it: what is there alone, and what v1
/// could change.
const ON_HYBRID: &[Story] = &[
    ("hybrid_it_is_in_every_hierarchy_again", scenario::hybrid::it_is_in_every_hierarchy_again),
    ("hybrid_device_rules_are_in_force_again", scenario::hybrid::device_rules_are_in_force_again),
    (
        "hybrid_a_frozen_container_comes_back_frozen",
        scenario::hybrid::a_frozen_container_comes_back_frozen,
    ),
    ("hybrid_its_own_cgroups_come_back", scenario::hybrid::its_own_cgroups_come_back),
    (
        "hybrid_limits_that_cannot_be_had_are_refused",
        scenario::hybrid::limits_that_cannot_be_had_are_refused,
    ),
    (
        "suspended_container_comes_back_with_its_connection",
        scenario::story::suspended_container_comes_back_with_its_connection,
    ),
    (
        "a_container_left_running_is_as_before",
        scenario::story::a_container_left_running_is_as_before,
    ),
    ("all_of_lxcs_tools_work_on_it", scenario::monitor::all_of_lxcs_tools_work_on_it),
    ("lxcs_tools_say_the_same_of_it", scenario::tools::say_the_same),
    ("lxcs_tools_end_it_the_same", scenario::tools::end_it_the_same),
    ("lxcs_tools_checkpoint_it_the_same", scenario::tools::checkpoint_it_the_same),
    ("it_stops_in_every_way", scenario::monitor::it_stops_in_every_way),
    (
        "what_a_killed_monitor_held_is_cleared_away",
        scenario::monitor::what_a_killed_monitor_held_is_cleared_away,
    ),
    ("hooks_of_version_1_through_a_whole_life", scenario::hooks::in_version_1),
    ("systemd_without_privileges_goes_on", scenario::systemd::without_privileges_goes_on),
    ("systemd_with_privileges_goes_on", scenario::systemd::with_privileges_goes_on),
    ("the_same_is_seen_by_a_plain_container", scenario::probe::by_a_plain_container),
    ("the_same_is_seen_in_a_user_namespace", scenario::probe::in_a_user_namespace),
    (
        "a_container_whose_monitor_is_gone_is_found",
        scenario::others::a_container_whose_monitor_is_gone_is_found,
    ),
    (
        "lxcs_own_checkpoint_with_our_action_script",
        scenario::others::lxcs_own_checkpoint_with_our_action_script,
    ),
    ("interop_lxcs_tool_and_ours_take_turns", scenario::interop::lxcs_tool_and_ours_take_turns),
    ("interop_the_story_of_lxcs_own_test", scenario::interop::the_story_of_lxcs_own_test),
    ("a_reboot_inside_starts_it_afresh", scenario::others::a_reboot_inside_starts_it_afresh),
    (
        "one_that_dies_in_the_middle_may_come_back",
        scenario::others::one_that_dies_in_the_middle_may_come_back,
    ),
    ("killed_in_the_middle", scenario::others::killed_in_the_middle),
    ("killed_what_criu_started_ends_with_it", scenario::kills::what_criu_started_ends_with_it),
    ("killed_a_stopped_criu_goes_on", scenario::kills::a_stopped_criu_goes_on),
    (
        "killed_a_stale_journal_ends_no_healthy_container",
        scenario::kills::a_stale_journal_ends_no_healthy_container,
    ),
    (
        "killed_a_mark_that_was_struck_out_comes_back",
        scenario::kills::a_mark_that_was_struck_out_comes_back,
    ),
    (
        "a_container_whose_monitor_is_gone_leaves_no_cgroup",
        scenario::others::a_container_whose_monitor_is_gone_leaves_no_cgroup,
    ),
];
