//! The hook program for `lxc.hook.start-host`.

fn main() -> std::process::ExitCode {
    lxc_cr::cli::hook::start_host()
}
