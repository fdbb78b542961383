//! `--replace`: a container that runs goes back to a checkpoint.
//!
//! What runs is lost by that. So whatever can speak against the checkpoint is looked at before it
//! is stopped: what [`preflight`](super::preflight) can tell while the container still has its
//! addresses and its root, and the checksums of its memory, which are otherwise compared while CRIU
//! works. What is looked at again afterwards is silent then.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;

use crate::error::{Exit, Failure, Interrupted, OrExit, Result};
use crate::lxc::command::{Client, Error};
use crate::lxc::protocol::State;
use crate::lxc::shell;
use crate::report::Report;
use crate::resources::network;
use crate::resources::rootfs::Held;
use crate::settings::Settings;
use crate::store::verify::Comparison;
use crate::sys::netlink::Netlink;
use crate::sys::signals::Signals;

use super::copy::Copy;
use super::{Found, Request, damaged, look_at_root, no_plan, place_of, plan, refuse_connections};
use crate::restore::preflight::{self, Subject};

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
    let Found { defined, criu, record, root, deadline, .. } = found;
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let copy = match record {
        Some(record) => {
            Copy::of(record, defined, &request.images, &mut netlink).map_err(no_plan)?
        }
        None => None,
    };
    let (copy, record) = match &copy {
        Some((copy, own)) => (Some(copy), Some(own)),
        None => (None, record.as_ref()),
    };
    let subject = Subject { images: &request.images, record, copy, defined, criu, beside: false };
    copy.map_or(Ok(()), |copy| refuse_connections(request, copy))?;
    check_names(request, settings, &subject, place_of(root, &subject)?, &mut netlink)?;
    let to_compare = record.filter(|_| settings.verify && !request.dry_run);
    if let Some(record) = to_compare {
        report.phase("comparing checksums");
        let compared =
            Comparison::of_memory(record, &request.images).and_then(|images| images.make());
        compared.map_err(|e| damaged(&request.images, e))?;
    }
    // Last: the container is still running writing to its files.
    let mut reasons = subject.of_definition().map_err(no_plan)?;
    // Nothing is mounted a second time while the container writes to it.
    match client.init_pid().map_err(Into::into).and_then(|init| Held::in_use(init.as_raw())) {
        Ok(held) => reasons.extend(subject.of_root(root, held.path()).map_err(no_plan)?),
        Err(_) if root.directory().is_some() && !subject.root_may_come_from_hooks() => {
            reasons.extend(look_at_root(&subject, root)?.1);
        }
        // That is looked at when it has stopped.
        Err(e) => log::debug!("the root that it has: {e:#}"),
    }
    preflight::judge(&subject.called(), reasons, request.force)?;
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
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

/// Refuses names and bridges that no plan can be made with. That a name is taken, or a device of
/// the host's is not here, says nothing yet: the container has them.
fn check_names(
    request: &Request,
    settings: &Settings,
    subject: &Subject<'_>,
    root: PathBuf,
    netlink: &mut Netlink,
) -> Result<()> {
    use network::plan::Error;
    let Err(e) = plan::plan(request, settings, subject, Vec::new(), root, netlink) else {
        return Ok(());
    };
    match e.downcast_ref::<Error>() {
        None | Some(Error::NameTaken { .. }) => {
            log::debug!("a plan while it runs: {e:#}");
            Ok(())
        }
        Some(_) => Err(no_plan(e)),
    }
}
