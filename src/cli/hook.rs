//! The `main` of each hook program: reads LXC's call, does the work, tells on standard error how it
//! went.
//!
//! LXC writes what a hook says to its log at level DEBUG, and looks at nothing but whether the exit
//! status is 0. So it goes to the journal, too.

use std::io::Write;
use std::process::ExitCode;

use log::LevelFilter;

use super::common::on_one_line;
use super::logger;
use crate::error::{Exit, Failure};
use crate::hooks;
use crate::lxc::hook::HookCall;
use crate::sys::process::is_root;
use crate::sys::systemd_journal::Priority;

/// `lxc-cr-pre-start`, for `lxc.hook.pre-start`.
pub(crate) fn pre_start() -> ExitCode {
    run("lxc", "pre-start", hooks::pre_start)
}

/// `lxc-cr-start-host`, for `lxc.hook.start-host`.
pub(crate) fn start_host() -> ExitCode {
    run("lxc", "start-host", hooks::start_host)
}

/// `lxc-cr-post-stop`, for `lxc.hook.post-stop`.
pub(crate) fn post_stop() -> ExitCode {
    run("lxc", "post-stop", hooks::post_stop)
}

/// `lxc-cr-net-up`, for `lxc.net.N.script.up`.
pub(crate) fn net_up() -> ExitCode {
    run("net", "up", hooks::net_up)
}

/// `lxc-cr-net-down`, for `lxc.net.N.script.down`.
pub(crate) fn net_down() -> ExitCode {
    run("net", "down", hooks::net_down)
}

fn run(section: &str, kind: &str, work: fn(&HookCall) -> Result<(), Failure>) -> ExitCode {
    crate::sys::clean_start::begin();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let call = match HookCall::from_env(&args, |name| std::env::var_os(name)) {
        Ok(call) => call,
        Err(e) => return refuse(&format!("lxc-cr[{kind}]"), &Failure::new(Exit::Usage, e)),
    };
    let prefix = format!("lxc-cr[{kind} {}]", call.name);
    if let Ok(lxcpath) = hooks::lxcpath(&call) {
        logger::about(&call.name, &lxcpath);
    }
    start_log(prefix.clone());
    if (call.section.as_str(), call.kind.as_str()) != (section, kind) {
        let text = format!(
            "this is the program for '{section} {kind}'; LXC runs it as '{} {}'",
            call.section, call.kind
        );
        return refuse(
            &prefix,
            &Failure::msg(Exit::Usage, text).hint("correct the configuration of the container"),
        );
    }
    if !is_root() {
        return refuse(&prefix, &Failure::msg(Exit::Other, "only root can run this hook"));
    }
    match work(&call) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => refuse(&prefix, &failure),
    }
}

/// Tells why, and gives the one exit status that LXC knows beside success.
fn refuse(prefix: &str, failure: &Failure) -> ExitCode {
    let mut text = format!("{prefix}: {failure}\n");
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{prefix}: hint: {hint}\n"));
    }
    logger::keep(Priority::Error, &on_one_line(failure));
    // In one piece: LXC stops reading after ten. If no one listens, there is nowhere else to say
    // it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// Warnings go where the failures go; more of it when LXC itself is asked to say more.
fn start_log(prefix: String) {
    let level = match std::env::var("LXC_LOG_LEVEL").as_deref() {
        Ok("DEBUG" | "TRACE") => LevelFilter::Debug,
        _ => LevelFilter::Warn,
    };
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Warn)
        .filter_module("lxc_cr", level)
        .format(move |out, record| writeln!(out, "{prefix}: {}", record.args()));
    logger::start(logger::Shown::Here(builder));
}
