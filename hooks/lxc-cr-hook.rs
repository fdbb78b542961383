//! All hooks of LXC's and CRIU's action script, by the name under which it is called.

fn main() -> std::process::ExitCode {
    lxc_cr::api::cli::multicall::hooks()
}
