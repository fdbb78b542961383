//! CRIU's action script: see `lxc_cr::cli::action`.
fn main() -> std::process::ExitCode {
    lxc_cr::cli::action::main()
}
