//! The hook program for `lxc.hook.pre-start`.

fn main() -> std::process::ExitCode {
    lxc_cr::cli::hook::pre_start()
}
