//! `lxc-checkpoint`, `lxc-restart` and `lxc-cr`, by the name under which it is called.

fn main() -> std::process::ExitCode {
    lxc_cr::api::cli::multicall::commands()
}
