//! A container that has just been started: its init is still LXC's own program, with LXC's
//! terminals and files, for some milliseconds after `lxc-start` has returned. Whoever looks then
//! sees what no container has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::command::Client;
use super::protocol::State;

/// How long an init may be LXC's own. One of `lxc-execute` stays it.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until LXC says that the container runs, and its init executes a program other than that of
/// its monitor; for some seconds at most.
pub(crate) fn wait(client: &Client, init: i32) {
    let end = Instant::now() + LIMIT;
    while (client.state().is_ok_and(|state| state == State::Starting) || executes_lxc(init))
        && Instant::now() < end
    {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether init is still the program that its parent is.
fn executes_lxc(init: i32) -> bool {
    let program =
        |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|m| (m.dev(), m.ino())).ok();
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let Some(parent) = status.lines().find_map(|l| l.strip_prefix("PPid:")).map(str::trim) else {
        return false;
    };
    let of_init = program(&init.to_string());
    of_init.is_some() && of_init == program(parent)
}
