//! A restore, from the request to the running container.
//!
//! It runs in the process that becomes the container's monitor, because init must be its child.
//!
//! 1. Read the container's definition and take its lock; roll back what a dead command left.
//! 2. Open the checkpoint: is it one, and whole? If it belongs to another container, this one
//!    becomes a [`copy`] of that. If the container runs and is to be [replaced](replace), stop it.
//! 3. Take LXC's command socket: from now on the container is "starting", and nothing else can
//!    start it.
//! 4. Compare the checkpoint with the host as it is now ([`preflight`]): machine, configuration,
//!    files that were open. Decide what to make ([`plan`]). A dry run ends here.
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
mod attempt;
pub(crate) mod beside;
pub(crate) mod cgroups;
mod connections;
mod copy;
pub(crate) mod lazy;
mod links;
pub(crate) mod plan;
mod prefault;
mod preflight;
mod replace;
mod retry;
pub(crate) mod sandbox;
mod veth;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::criu::images;
use crate::criu::version::{self, Criu};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::command::Client;
use crate::lxc::container;
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::protocol::{self, State};
use crate::lxc::server::{self, Server};
use crate::preflight::entry::{self, check_places, deadline, no_criu};
use crate::report::Report;
use crate::resources::cgroup::Cgroup;
use crate::resources::cgroup::devices::Attached;
use crate::resources::mounts;
use crate::resources::network::interfaces::PhysInterfaces;
use crate::resources::network::{Port, stale_veth};
use crate::resources::rootfs::{Held, Root};
use crate::resources::terminals::{self, Terminal};
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::rollback::{Journal, Undo, recover};
use crate::settings::Settings;
use crate::store::checksums::Image;
use crate::store::history::{self, History};
use crate::store::parents::Parents;
use crate::store::record::{Damage, Record};
use crate::store::shared_dir;
use crate::sys::netlink::Netlink;
use crate::sys::process::Process;
use crate::sys::signals::Signals;
use crate::sys::{files, mount};

use attempt::{Inputs, Running};
use copy::Copy;
use lazy::{Decision, Filling};
use preflight::{Reason, Subject};
use replace::Way;

/// How long a monitor that is cleaning up may take to let the container's address go.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// How long another container's restart from the same checkpoint is waited for.
const OTHER_RESTART_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at an address that somebody has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The link by which CRIU finds the images that others build on.
const PARENT: &str = "parent";

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
    let (held, record) = open_checkpoint(request)?;
    let root = root_of(&defined)?;
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
    let Found { defined, criu, deadline, operation, record, root } = found;

    // 3.
    let taken = match way {
        Way::InUse => None,
        Way::Free | Way::Cleared { .. } => Some(take(&defined, &operation, report)?),
    };

    // 4.
    let mut netlink = Netlink::open().or_exit(Exit::Other)?;
    let (copy, record) = match record {
        Some(record) => {
            match Copy::of(&record, &defined, &request.images, &mut netlink).map_err(no_plan)? {
                Some((copy, own)) => (Some(copy), Some(own)),
                None => (None, Some(record)),
            }
        }
        None => (None, None),
    };
    let copy = copy.as_ref();
    let subject = Subject {
        images: &request.images,
        record: record.as_ref(),
        copy,
        defined: &defined,
        criu: &criu,
        beside: false,
    };
    // What runs has its addresses and its root.
    let held = match way {
        Way::InUse => None,
        Way::Free | Way::Cleared { .. } => judge(request, &subject, &root, &mut netlink, report)?,
    };
    if let Some(copy) = copy {
        refuse_connections(request, copy)?;
        copy.notes.iter().for_each(|note| report.note(note));
    }
    let place = place_of(&root, &subject)?;
    let decide = |netlink: &mut Netlink| {
        let terminals = subject.record.map(|r| r.ttys.as_slice()).unwrap_or_default();
        let terminals = terminals::make(terminals).context("make the container's terminals")?;
        plan::plan(request, settings, &subject, terminals, place.clone(), netlink).map_err(no_plan)
    };
    if let Some(record) = subject.record.filter(|_| !request.dry_run) {
        stale_veth::wait(&record.ports, &mut netlink, report)?;
    }
    let plan = decide(&mut netlink)?;
    if !request.dry_run {
        plan.notes.iter().for_each(|note| report.note(note));
    }
    if request.dry_run {
        let mut criu_options = plan.criu(request, &plan.expected_payload(), &operation.pidfile());
        let id_mapped = defined.config.guest().is_some();
        let memory = lazy::decide(settings.lazy, subject.record, &request.images, id_mapped);
        criu_options.lazy =
            matches!(memory.map_err(|e| damaged(&request.images, e))?, Decision::Lazy(_));
        let mut words = copy.map(Copy::in_words).unwrap_or_default();
        words.extend(plan.in_words(&criu.path, &criu_options));
        return Ok(Outcome::Planned(words));
    }
    let Some((mut server, mut journal)) = taken else {
        return Err(Failure::msg(Exit::WrongState, "it is running"));
    };

    // 5. to 8.
    server.set_state(State::Starting);
    if defined.config.monitor_unshare() {
        mount::leave_hosts_namespace()
            .context("make a mount namespace for the container's hooks")?;
    }
    let inputs = Inputs {
        request,
        lazy: settings.lazy,
        verify: settings.verify && way != Way::Cleared { compared: true },
        deadline,
        defined: &defined,
        record: record.as_ref(),
        criu: &criu,
        root: &root,
        subject,
        operation: &operation,
        signals,
    };
    let (plan, running) =
        retry::restore(inputs, plan, held, &decide, &mut journal, &mut netlink, report)?;
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
    if copy.is_none()
        && shared_dir::is_place(&request.images, &defined.name)
        && let Err(e) = shared_dir::note_restart(&request.images)
    {
        report.note(&format!("its next checkpoint will not replace this one: {e:#}"));
    }
    if copy.is_none() {
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

/// Notes in the checkpoint's history that its container was restored from it.
fn note_restore(images: &Path) {
    let now = history::now();
    if let Err(e) = History::change(images, |history| history.restored = Some(now)) {
        log::warn!("when it was restored is not kept: {e:#}");
    }
}

/// Takes the container's place before anybody else does, and what a dead command has left there.
fn take(
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

/// Where CRIU is to find the root: a directory where it is, anything else where LXC mounts it, too;
/// and so a directory in which hooks mount what the container is to have, for that would be hidden.
fn place_of(root: &Root, subject: &Subject<'_>) -> Result<PathBuf> {
    let defined = subject.defined;
    // CRIU looks for it in the mount table, which knows no links.
    let plain =
        |directory: &Path| fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    match (root.directory(), defined.rootfs_mount()) {
        (Some(directory), None) => return Ok(plain(directory)),
        (Some(directory), Some(_))
            if !subject.root_may_come_from_hooks() && !has_mounts_below(directory)? =>
        {
            return Ok(plain(directory));
        }
        _ => {}
    }
    defined.rootfs_mount().ok_or_else(|| {
        Failure::msg(Exit::Refused, "LXC's directory for mounting roots is not there")
            .hint("name one in the configuration: lxc.rootfs.mount")
    })
}

fn has_mounts_below(directory: &Path) -> Result<bool> {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let table = mounts::table(std::process::id().cast_signed())?;
    Ok(table.iter().any(|m| m.point != directory && m.point.starts_with(&directory)))
}

/// Tells all that speaks against the checkpoint here and now, and gives the root that was looked
/// at. None where a hook of the user's may be what puts the root into its place: then it has to be
/// looked at after that.
fn judge(
    request: &Request,
    subject: &Subject<'_>,
    root: &Root,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<Option<Held>> {
    let mut reasons = subject.of_host(netlink).map_err(no_plan)?;
    if subject.defined.config.monitor_unshare() {
        preflight::judge(&subject.called(), reasons, request.force)?
            .iter()
            .for_each(|note| report.note(note));
        return Ok(None);
    }
    let looked = look_at_root(subject, root);
    let is_good = matches!(&looked, Ok((_, of_root)) if of_root.is_empty());
    let held = if !is_good && subject.root_may_come_from_hooks() {
        None
    } else {
        let (held, of_root) = looked?;
        reasons.extend(of_root);
        Some(held)
    };
    preflight::judge(&subject.called(), reasons, request.force)?
        .iter()
        .for_each(|note| report.note(note));
    Ok(held)
}

/// Mounts the root, and says what in it speaks against the checkpoint.
fn look_at_root(subject: &Subject<'_>, root: &Root) -> Result<(Held, Vec<Reason>)> {
    let held = root.open().or_exit(Exit::BadCheckpoint)?;
    let reasons = subject.of_root(root, held.path()).map_err(no_plan)?;
    Ok((held, reasons))
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

/// Opens and holds the checkpoint and checks all that can be checked in no time.
fn open_checkpoint(request: &Request) -> Result<(fs::File, Option<Record>)> {
    let dir = &request.images;
    let unusable = |text: String| Failure::msg(Exit::BadCheckpoint, text);
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Failure::msg(Exit::Usage, format!("{} is not a directory", dir.display())));
        }
        Err(e) => {
            return Err(Failure::new(
                Exit::BadCheckpoint,
                anyhow!(e).context(format!("open {}", dir.display())),
            )
            .hint(
                "-D names the directory of a checkpoint; without it, LXCPATH/NAME/dump is used",
            ));
        }
    }
    files::open_private_dir(dir).or_exit(Exit::BadCheckpoint)?;
    if !dir.join("inventory.img").is_file() {
        return Err(unusable(format!("{} holds no checkpoint", dir.display())));
    }
    let held = lock::hold_images(dir, OTHER_RESTART_LIMIT)?;
    files::check_content(dir, &[PARENT]).or_exit(Exit::BadCheckpoint)?;
    let Some(record) = Record::read(dir).or_exit(Exit::BadCheckpoint)? else {
        return Ok((held, None));
    };
    if record.memory_only {
        return Err(unusable(format!(
            "{} holds a copy of memory and no checkpoint",
            dir.display()
        ))
        .hint("restart the checkpoint that builds on it (lxc-checkpoint --predump-dir)"));
    }
    let damaged = |e: anyhow::Error| damaged(dir, e);
    let parents = Parents::of(dir).map_err(damaged)?;
    record.check_sizes(dir).and_then(|()| parents.check_sizes()).map_err(damaged)?;
    let small = |i: &Image| !i.is_memory();
    record
        .check_content(dir, small)
        .and_then(|()| parents.check_content(small))
        .map_err(damaged)?;
    Ok((held, Some(record)))
}

/// A copy cannot have the connections that its original has with others.
fn refuse_connections(request: &Request, copy: &Copy) -> Result<()> {
    if request.tcp_close
        || connections::were_closed(&request.images).or_exit(Exit::BadCheckpoint)?
    {
        return Ok(());
    }
    let open = connections::outside(&request.images).or_exit(Exit::BadCheckpoint)?;
    match open.is_empty() {
        true => Ok(()),
        false => Err(copy::refuse_connections(&copy.original.name, &open)),
    }
}

fn damaged(dir: &Path, error: anyhow::Error) -> Failure {
    let exit = if error.is::<Damage>() { Exit::BadCheckpoint } else { Exit::Other };
    Failure::new(exit, error.context(format!("the checkpoint in {} is damaged", dir.display())))
}

/// The container's root, if it is of a kind that can be mounted again.
fn root_of(defined: &Defined) -> Result<Root> {
    Root::of(defined).map_err(|e| {
        let hint = e.hint();
        Failure::new(Exit::Refused, e).hint(hint)
    })
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
                let text = "its old monitor does not end, or another program has the address of its command socket";
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

fn no_plan(error: anyhow::Error) -> Failure {
    use crate::resources::network::plan::Error;
    let hint = error.downcast_ref::<Error>().and_then(Error::hint);
    let exit = if error.is::<images::Error>() { Exit::BadCheckpoint } else { Exit::Refused };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
