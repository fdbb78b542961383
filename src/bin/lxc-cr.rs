//! `lxc-cr`: see `lxc_cr::cli::lxc_cr`.
fn main() -> std::process::ExitCode {
    lxc_cr::cli::lxc_cr::main()
}
