//! The hook program for `lxc.hook.post-stop`.

fn main() -> std::process::ExitCode {
    lxc_cr::cli::hook::post_stop()
}
