//! The program for `lxc.net.N.script.up`.

fn main() -> std::process::ExitCode {
    lxc_cr::cli::hook::net_up()
}
