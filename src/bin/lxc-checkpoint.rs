//! `lxc-checkpoint`: see `lxc_cr::cli::checkpoint`.
fn main() -> std::process::ExitCode {
    lxc_cr::cli::checkpoint::main()
}
