//! The container's place, taken: LXC's command socket, so that nothing else can start it, and the
//! undo log, after what a dead command left there is rolled back.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::error::{Exit, Failure, Result};
use crate::lxc::command::Client;
use crate::lxc::container;
use crate::lxc::definition::Defined;
use crate::lxc::protocol::{self, State};
use crate::lxc::server::{self, Server};
use crate::report::Report;
use crate::rollback::lock::Operation;
use crate::rollback::{Journal, recover};

/// How long a monitor that is cleaning up may take to let the container's address go.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at an address that somebody has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Takes the container's place before anybody else does, and what a dead command has left there.
pub(super) fn claim(
    defined: &Defined,
    operation: &Operation,
    report: &mut dyn Report,
) -> Result<(Server, Journal)> {
    let server = bind(defined)?;
    let journal = recover::before(operation, report)?;
    refuse_unwatched(defined)?;
    recover::held(operation, report)?;
    Ok((server, journal))
}

/// Takes LXC's address. A monitor that is cleaning up after a checkpoint is waited for.
fn bind(defined: &Defined) -> Result<Server> {
    let (lxcpath, name) = (defined.lxcpath_text(), defined.name.as_str());
    let end = Instant::now() + MONITOR_LIMIT;
    loop {
        match Server::bind(&lxcpath, name) {
            Ok(server) => return Ok(server),
            Err(server::Error::AlreadyRunning) => {}
            Err(server::Error::Io(e)) => {
                return Err(Failure::new(
                    Exit::Other,
                    anyhow!(e).context("take the container's command socket"),
                ));
            }
        }
        // A monitor that cleans up does not answer; the question is answered by the end of its
        // socket.
        let left = end.saturating_duration_since(Instant::now());
        match Client::new(&lxcpath, name).with_limit(left.max(Duration::from_millis(1))).state() {
            Ok(state) if state != State::Stopped => {
                return Err(Failure::msg(Exit::WrongState, "it is running").hint(
                    "stop it first, or replace it by the checkpoint: lxc-restart --replace",
                ));
            }
            // Any program can take an address of this kind.
            Ok(_) | Err(_) if left.is_zero() => {
                let text = "its old monitor does not end, or another program has the address of \
                            its command socket";
                let address = protocol::socket_name(&lxcpath, name);
                return Err(Failure::msg(Exit::Busy, text)
                    .hint(format!("ss -xap shows who has @{address}")));
            }
            Ok(_) | Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Nobody answers for the container, but it may run all the same: then what its monitor held must
/// not be taken from it.
fn refuse_unwatched(defined: &Defined) -> Result<()> {
    match container::find_without_monitor(defined.name.as_str(), container::Marks::of(defined))? {
        None => Ok(()),
        Some(running) => Err(Failure::msg(
            Exit::WrongState,
            format!(
                "it is running (init is process {}), but its monitor is gone",
                running.init.pid()
            ),
        )
        .hint("suspend it with lxc-checkpoint, then restart it: it has a monitor again")),
    }
}
