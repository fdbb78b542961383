//! `--replace`: a container that runs goes back to a checkpoint.
//!
//! What runs is lost by that. So whatever can speak against the checkpoint is looked at before it
//! is stopped: what [`preflight`](super::preflight) can tell while the container still has its
//! addresses and its root, and the checksums of its memory, which are otherwise compared while CRIU
//! works. What is looked at again afterwards is silent then.

use std::time::Instant;

use anyhow::anyhow;

use crate::error::{Exit, Failure, Interrupted, OrExit, Result};
use crate::lxc::command::{Client, Error};
use crate::lxc::protocol::State;
use crate::lxc::shell;
use crate::report::Report;
use crate::resources::rootfs::Held;
use crate::settings::Settings;
use crate::store::verify::Comparison;
use crate::sys::netlink::Netlink;
use crate::sys::signals::Signals;

use super::assess::Assessed;
use super::failure::damaged;
use super::{Found, Request};

/// Whether the place of the container is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It did not run.
    Free,
    /// It was stopped.
    Cleared {
        /// Whether the checksums of the checkpoint's memory were compared before that.
        compared: bool,
    },
    /// It runs, and a dry run lets it.
    InUse,
}

/// Stops the container if it runs, once nothing is known that speaks against the checkpoint.
///
/// # Errors
/// Those of a restart; up to the stop itself the container runs as before, and the failure says so.
pub(super) fn make_way(
    request: &Request,
    settings: &Settings,
    found: &Found,
    signals: &Signals,
    report: &mut dyn Report,
) -> Result<Way> {
    let client = Client::new(&found.defined.lxcpath_text(), found.defined.name.as_str());
    match client.state() {
        Err(Error::NotRunning) | Ok(State::Stopped) => return Ok(Way::Free),
        Ok(_) => {}
        Err(e) => {
            let cause = anyhow!(e).context("ask whether the container runs");
            return Err(
                Failure::new(Exit::Other, cause).state(format!("{} is as before", request.name))
            );
        }
    }
    if found.defined.config.ephemeral() {
        return Err(Failure::msg(
            Exit::Refused,
            "it is ephemeral: LXC would destroy it when it is stopped",
        )
        .hint("a copy of the checkpoint can run beside it: lxc-restart -n OTHER -D DIR")
        .state(format!("{} is running as before", request.name)));
    }
    let compared = look(request, settings, found, &client, signals, report)
        .map_err(|failure| failure.state(format!("{} is running as before", request.name)))?;
    if request.dry_run {
        report.note(&format!("{} runs: it would be stopped first", request.name));
        return Ok(Way::InUse);
    }
    report.phase("stopping what runs");
    match client.stop() {
        Ok(()) | Err(Error::NotRunning) => Ok(Way::Cleared { compared }),
        Err(e) => {
            let named = shell::options(&request.name, &request.lxcpath);
            let cause = anyhow!(e).context("stop the container that runs");
            Err(Failure::new(Exit::Other, cause).state(format!(
                "run lxc-info {named} to see whether it has stopped; its checkpoint is as before"
            )))
        }
    }
}

/// Looks at all that can be known now; says whether the checksums of memory were compared, too.
fn look(
    request: &Request,
    settings: &Settings,
    found: &Found,
    client: &Client,
    signals: &Signals,
    report: &mut dyn Report,
) -> Result<bool> {
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let assessed = Assessed::of(request, found, &mut netlink)?;
    assessed.refuse_connections()?;
    assessed.check_names(settings, &mut netlink)?;
    let to_compare = assessed.record().filter(|_| settings.verify && !request.dry_run);
    if let Some(record) = to_compare {
        report.phase("comparing checksums");
        let compared =
            Comparison::of_memory(record, &request.images).and_then(|images| images.make());
        compared.map_err(|e| damaged(&request.images, e))?;
    }
    // Last: the container is still running and writing to its files. Nothing is mounted a second
    // time while it does.
    let in_use = client.init_pid().map_err(Into::into);
    assessed.judge_replaced(in_use.and_then(|init| Held::in_use(init.as_raw())))?;
    if found.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Failure::msg(Exit::TimeLimit, "the time limit is up already")
            .hint("give it more time: --timeout"));
    }
    while let Some(received) = signals.next().or_exit(Exit::Other)? {
        if received.asks_to_give_up() {
            return Err(Failure::new(Exit::Other, Interrupted(received.number)));
        }
    }
    Ok(to_compare.is_some())
}
