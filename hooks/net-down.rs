//! The program for `lxc.net.N.script.down`.

fn main() -> std::process::ExitCode {
    lxc_cr::cli::hook::net_down()
}
