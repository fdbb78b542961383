//! `lxc-restart`: see `lxc_cr::cli::restart`.
fn main() -> std::process::ExitCode {
    lxc_cr::cli::restart::main()
}
