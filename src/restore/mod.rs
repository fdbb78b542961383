//! A restore, from the request to the running container.
//!
//! It runs in the process that becomes the container's monitor, because init must be its child.
//!
//! 1. Read the container's definition and take its lock; roll back what a dead command left.
//! 2. [Open](open) the checkpoint: is it one, and whole? If the container runs and is to be
//!    [replaced](replace), stop it.
//! 3. [Claim](claim) LXC's command socket: from now on the container is "starting", and nothing
//!    else can start it.
//! 4. [Assess](assess) the checkpoint here and now: machine, configuration, files that were open
//!    ([`preflight`]). If it belongs to another container, this one becomes a [`copy`] of that.
//!    Decide what to make ([`plan`]). A dry run ends here.
//! 5. From here on the host changes ([`attempt`]): run the container's pre-start hooks, in a mount
//!    namespace of their own where LXC's monitor has one; make the cgroups.
//! 6. Run CRIU in the payload cgroup and in a [`sandbox`] that holds nothing of the host but what
//!    it needs. Meanwhile memory is prefaulted ([`prefault`]) and its checksums are compared; the
//!    container does not run before they are found right.
//! 7. Act at CRIU's [`actions`]: fill the network namespace
//!    ([`inside`](crate::resources::network::inside)) or make the [`veth`] pairs in it; attach the
//!    ports to their bridges at the end; put back what CRIU has not, before any task runs.
//! 8. Hold init, which is our child now.
//!
//! Each change is in the undo log before it is made. A failure kills what CRIU has begun and rolls
//! everything back: the host is as before, the checkpoint untouched. Where a second try is the
//! known cure, steps 5 to 8 are repeated after that ([`retry`]).

mod actions;
mod assess;
mod attempt;
pub(crate) mod beside;
pub(crate) mod cgroups;
mod claim;
mod connections;
mod copy;
mod failure;
pub(crate) mod lazy;
mod links;
mod open;
pub(crate) mod plan;
mod prefault;
mod preflight;
mod replace;
mod retry;
pub(crate) mod sandbox;
mod veth;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::criu::version::{self, Criu};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::protocol::State;
use crate::lxc::server::Server;
use crate::preflight::entry::{self, check_places, deadline, no_criu};
use crate::report::Report;
use crate::resources::cgroup::Cgroup;
use crate::resources::cgroup::devices::Attached;
use crate::resources::network::interfaces::PhysInterfaces;
use crate::resources::network::{Port, stale_veth};
use crate::resources::rootfs::Root;
use crate::resources::terminals::Terminal;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::rollback::{Journal, Undo};
use crate::settings::Settings;
use crate::store::history::{self, History};
use crate::store::record::Record;
use crate::store::shared_dir;
use crate::sys::mount;
use crate::sys::netlink::Netlink;
use crate::sys::process::Process;
use crate::sys::signals::Signals;

use assess::Assessed;
use attempt::{Inputs, Running};
use copy::Copy;
use failure::damaged;
use lazy::{Decision, Filling};
use open::Opened;
use plan::Plan;
use replace::Way;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The container.
    pub name: ContainerName,
    /// Where it is defined.
    pub lxcpath: LxcPath,
    /// Another configuration file than its own.
    pub config: Option<PathBuf>,
    /// The checkpoint.
    pub images: PathBuf,
    /// Names for the host's ends of veth pairs, by the name inside.
    pub veth: BTreeMap<String, String>,
    /// Our action script.
    pub action_script: PathBuf,
    /// The user's action script.
    pub user_script: Option<PathBuf>,
    /// Close TCP connections with the outside.
    pub tcp_close: bool,
    /// Go ahead in spite of doubts about the checkpoint.
    pub force: bool,
    /// Stop the container first, if it runs.
    pub replace: bool,
    /// Decide, but do nothing.
    pub dry_run: bool,
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A dry run: what would be done, in words.
    Planned(Vec<String>),
    /// The container runs.
    Running(Box<Restored>),
}

/// A container that runs again, and all that its monitor needs.
#[derive(Debug)]
pub(crate) struct Restored {
    /// Its definition.
    pub defined: Defined,
    /// Its first process, our child.
    pub init: Process,
    /// LXC's command socket.
    pub server: Server,
    /// What is to be undone when it ends.
    pub journal: Journal,
    /// The payload cgroups; cgroup2's is the first.
    pub payload: Vec<Cgroup>,
    /// The cgroups that the monitor goes to at the end.
    pub pivots: Vec<Cgroup>,
    /// The ports that were made.
    pub ports: Vec<Port>,
    /// What it has of the host, to be brought back.
    pub phys_interfaces: PhysInterfaces,
    /// The terminals that were made.
    pub terminals: Vec<Terminal>,
    /// Why no packets reach it, where that could not be helped any more.
    pub cut_off: Option<String>,
    /// Our right to change the container; given up when it is served.
    pub operation: Option<Operation>,
    /// Its device rules.
    pub devices: Attached,
    /// What fills its memory, where that comes later.
    pub filling: Option<Filling>,
    /// How long CRIU ran.
    pub criu: Duration,
}

/// Restores a container. The caller becomes its parent and must live as long as it.
pub(crate) fn restore(
    request: &Request,
    settings: &Settings,
    signals: &Signals,
    report: &mut dyn Report,
) -> Result<Outcome> {
    // 1.
    entry::refuse_restricted()?;
    let defined = Defined::load(&request.name, &request.lxcpath, request.config.as_deref())
        .map_err(|e| copy::not_defined(e, &request.name, &request.lxcpath, &request.images))?;
    let criu = version::find_cached(settings.criu.as_deref(), &lock::criu_version_cache())
        .map_err(no_criu)?;
    let deadline = deadline(settings);
    let operation = entry::operation(&defined, Command::Restore)?;

    // 2.
    let request = &Request { images: check_places(&defined, &request.images)?, ..request.clone() };
    let Opened { held, record } = open::open(&request.images)?;
    let root = assess::root_of(&defined)?;
    record.as_ref().map_or(Ok(()), |record| copy::refuse_root_in_use(record, &defined))?;
    let found = Found { defined, criu, deadline, operation, record, root };
    let way = match request.replace {
        true => replace::make_way(request, settings, &found, signals, report)?,
        false => Way::Free,
    };
    let name = &request.name;
    let mut outcome =
        bring_back(request, settings, found, way, signals, report).map_err(|mut failure| {
            // That it runs: somebody has started it meanwhile.
            if !matches!(way, Way::Cleared { .. }) || failure.exit == Exit::WrongState {
                return failure;
            }
            // What ran is not as before.
            if matches!(failure.exit, Exit::CriuFailed | Exit::Refused) {
                failure.exit = Exit::ContainerLost;
            }
            match failure.state {
                None => failure.state(format!("{name} is stopped, its checkpoint is as before")),
                Some(_) => failure,
            }
        })?;
    if let Outcome::Running(restored) = &mut outcome
        && let Some(filling) = &mut restored.filling
    {
        filling.hold(held);
    }
    Ok(outcome)
}

/// What a restore starts from: the container as it is defined, and the checkpoint.
#[derive(Debug)]
struct Found {
    defined: Defined,
    criu: Criu,
    deadline: Option<Instant>,
    operation: Operation,
    record: Option<Record>,
    root: Root,
}

/// Steps 3 to 8.
fn bring_back(
    request: &Request,
    settings: &Settings,
    found: Found,
    way: Way,
    signals: &Signals,
    report: &mut dyn Report,
) -> Result<Outcome> {
    // 3.
    let claimed = match way {
        Way::InUse => None,
        Way::Free | Way::Cleared { .. } => {
            Some(claim::claim(&found.defined, &found.operation, report)?)
        }
    };

    // 4.
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let assessed = Assessed::of(request, &found, &mut netlink)?;
    // What runs has its addresses and its root.
    let held = match way {
        Way::InUse => None,
        Way::Free | Way::Cleared { .. } => assessed.judge(&mut netlink, report)?,
    };
    assessed.refuse_connections()?;
    if let Some(copy) = assessed.copy() {
        copy.notes.iter().for_each(|note| report.note(note));
    }
    if request.dry_run {
        let plan = assessed.plan(settings, &mut netlink)?;
        return in_words(&assessed, &found, &plan, request, settings).map(Outcome::Planned);
    }
    if let Some(record) = assessed.record() {
        stale_veth::wait(&record.ports, &mut netlink, report)?;
    }
    let plan = assessed.plan(settings, &mut netlink)?;
    plan.notes.iter().for_each(|note| report.note(note));
    let Some((mut server, mut journal)) = claimed else {
        return Err(Failure::msg(Exit::WrongState, "it is running"));
    };

    // 5. to 8.
    server.set_state(State::Starting);
    if found.defined.config.monitor_unshare() {
        mount::leave_hosts_namespace()
            .context("make a mount namespace for the container's hooks")?;
    }
    let inputs = Inputs {
        request,
        lazy: settings.lazy,
        verify: settings.verify && way != Way::Cleared { compared: true },
        deadline: found.deadline,
        defined: &found.defined,
        record: assessed.record(),
        criu: &found.criu,
        root: &found.root,
        subject: assessed.subject(),
        operation: &found.operation,
        signals,
    };
    let decide = |netlink: &mut Netlink| assessed.plan(settings, netlink);
    let (plan, running) =
        retry::restore(inputs, plan, held, &decide, &mut journal, &mut netlink, report)?;
    let is_copy = assessed.copy().is_some();
    let Found { defined, operation, .. } = found;
    let Running { init, payload, ports, phys_interfaces, in_force, filling, cut_off, took } =
        running;
    let pivots = cgroups::pivots(&plan.cgroups)?;
    let devices = in_force.hold(&attempt::unified(&payload)?.dir, &plan.confinement)?;
    // CRIU has removed what it had in the root. At the container's end nobody shall mount it for a
    // look. And its down scripts are the monitor's, when the container has ended.
    if let Err(e) = journal.forget(|u| {
        matches!(u, Undo::CleanRoot { .. } | Undo::Mark { .. } | Undo::RunDownScript(_))
    }) {
        report.note(&format!("{e:#}"));
    }
    if !is_copy
        && shared_dir::is_place(&request.images, &defined.name)
        && let Err(e) = shared_dir::note_restart(&request.images)
    {
        report.note(&format!("its next checkpoint will not replace this one: {e:#}"));
    }
    if !is_copy {
        note_restore(&request.images);
    }
    let journal = journal.hand_over(&operation.held())?;
    let cut_off = cut_off.map(|cause| note_cut_off(cause, &operation, &ports));
    Ok(Outcome::Running(Box::new(Restored {
        init,
        server,
        journal,
        payload,
        pivots,
        terminals: plan.terminals,
        ports,
        phys_interfaces,
        cut_off,
        operation: Some(operation),
        devices,
        filling,
        criu: took,
        defined,
    })))
}

/// A dry run: what would be done, and CRIU's command line.
fn in_words(
    assessed: &Assessed<'_>,
    found: &Found,
    plan: &Plan,
    request: &Request,
    settings: &Settings,
) -> Result<Vec<String>> {
    let mut options = plan.criu(request, &plan.expected_payload(), &found.operation.pidfile());
    let id_mapped = found.defined.config.guest().is_some();
    let memory = lazy::decide(settings.lazy, assessed.record(), &request.images, id_mapped);
    options.lazy = matches!(memory.map_err(|e| damaged(&request.images, e))?, Decision::Lazy(_));
    let mut words = assessed.copy().map(Copy::in_words).unwrap_or_default();
    words.extend(plan.in_words(&found.criu.path, &options));
    Ok(words)
}

/// Notes in the checkpoint's history that its container was restored from it.
fn note_restore(images: &Path) {
    let now = history::now();
    if let Err(e) = History::change(images, |history| history.restored = Some(now)) {
        log::warn!("when it was restored is not kept: {e:#}");
    }
}

/// Leaves a note for `lxc-cr recover`, which can put the ports on their bridges when these are
/// back.
fn note_cut_off(cause: anyhow::Error, operation: &Operation, ports: &[Port]) -> String {
    let noted = Journal::open(&operation.journal()).and_then(|mut journal| {
        ports.iter().try_for_each(|port| journal.note(Undo::PutPortBack(Box::new(port.clone()))))
    });
    match noted {
        Ok(()) => format!("{cause:#}"),
        Err(e) => format!("{cause:#}; {e:#}"),
    }
}
