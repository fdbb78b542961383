//! `lxc-cr prepare NAME`: a stopped container gets what it needs to be checkpointed.
//!
//! All of it goes into the container's configuration; its root is looked into, to find the init,
//! and not changed. What systemd has to be told is mounted into it by LXC at each start. One of
//! Proxmox VE's has to run, for its root to be there.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::change::{Change, Content};
use super::init::{self, Init};
use super::installed::Installed;
use super::programs;
use super::pve;
use super::seccomp;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::config::{Config, RootfsKind};
use crate::lxc::definition::Defined;
use crate::lxc::{container, shell};
use crate::preflight::{Finding, Findings};
use crate::prepare::config_edits::{self, DROP_INS, Lacking};
use crate::prepare::undo::{Kept, Step, Undone};
use crate::rollback::holder::Command;
use crate::rollback::lock::Operation;
use crate::store::list::{self, State};
use crate::sys::in_root::Below;
use crate::sys::{files, path_trust};

/// What is kept beside a container to take its preparation back.
pub(crate) const KEPT: &str = "lxc-cr.prepare";
/// No seccomp profile is longer, in bytes.
const PROFILE_MAX: u64 = 1 << 20;

/// What is to be done to a container.
#[derive(Debug)]
pub struct Plan {
    /// Its init.
    pub init: Init,
    /// Whether it has an id map.
    pub id_map: bool,
    /// The change of its configuration; none if it lacks nothing.
    pub change: Option<Change>,
    /// Whether the change makes a container that cannot be checkpointed one that can, from its next
    /// start on.
    pub cures: bool,
    /// What else is to be said.
    pub notes: Findings,
    /// What LXC will make in the root at the next start, and where that is.
    mount_points: Option<(PathBuf, Vec<PathBuf>)>,
}

/// Looks at a container and plans what to do to it; nothing is changed. `named`: its init, where
/// the user names it.
///
/// # Errors
/// When its root or its init cannot be found, or something in the root stands in the way.
pub fn plan(defined: &Defined, installed: &Installed, named: Option<Init>) -> Result<Plan> {
    let pve = pve::Definition::of(defined).or_exit(Exit::Refused)?;
    let text_of = |text: &Content| match &pve {
        Some(_) => pve::config_of(text, &defined.config, installed),
        None => Config::parse(defined.config.file(), &text.0),
    };
    let (path, before) = match &pve {
        Some(definition) => (definition.path.clone(), definition.text.clone()),
        None => read_own(defined)?,
    };
    let config = &text_of(&before).or_exit(Exit::Other)?;
    let root = match &pve {
        Some(_) => open_root_of_running(defined)?,
        None => open_root(defined)?,
    };
    let init = match (named, &root) {
        (Some(init), _) => init,
        (None, Some((_, below))) => find_init(config, below)?,
        (None, None) if pve.is_some() => {
            return Err(Failure::msg(Exit::WrongState, "its root is mounted only while it runs")
                .hint(format!(
                    "start it first: pct start {}; or say which init it has: --init systemd",
                    defined.name
                )));
        }
        (None, None) => {
            return Err(Failure::msg(
                Exit::Other,
                format!("its root '{}' is not a directory", defined.rootfs.display()),
            )
            .hint("say which init it has: --init systemd, or sysvinit, openrc, runit, busybox"));
        }
    };
    let mut notes = Vec::new();
    let profile = lacks_profile(config, &init, installed, &mut notes)?;
    let programs = match &root {
        Some((place, below)) => {
            programs::find(below).with_context(|| format!("list {}", place.display()))?
        }
        None => Vec::new(),
    };
    let lacking = Lacking::of(config, &init, profile, &programs).or_exit(Exit::Other)?;
    let change = (!lacking.is_nothing()).then(|| Change {
        after: match &pve {
            Some(definition) => definition.with(&lacking.lines(config, installed)),
            None => Content(lacking.put_into(&before.0, config, installed)),
        },
        path,
        before: Some(before),
        mode: 0o644,
    });
    if let Some(change) = &change {
        let new = text_of(&change.after).or_exit(Exit::Other)?;
        let profile = profile && new.seccomp_profile() == config.seccomp_profile();
        check(change, &Lacking::of(&new, &init, profile, &programs).or_exit(Exit::Other)?)?;
        say(&mut notes, defined, &lacking);
    }
    let mut mount_points = None;
    if let Some((place, below)) = &root {
        let of_systemd =
            DROP_INS.iter().filter(|_| lacking.drop_ins).map(|(_, target)| Path::new(target));
        let targets: Vec<&Path> =
            of_systemd.chain(lacking.programs.iter().map(|d| d.target.as_path())).collect();
        let new = new_mount_points(below, &targets)?;
        // A root of PVE's is somewhere else at each start: nothing can be removed there later.
        mount_points = (pve.is_none() && !new.is_empty()).then(|| (place.clone(), new));
    }
    let cures = lacking.drop_ins || lacking.terminals || lacking.profile;
    Ok(Plan {
        init,
        id_map: !config.idmap().is_empty(),
        change,
        cures,
        notes: Findings::new(notes),
        mount_points,
    })
}

/// Does it to a container that is held.
pub(crate) fn apply(defined: &Defined, plan: &Plan, _held: &Operation) -> Result<()> {
    let Some(change) = &plan.change else { return Ok(()) };
    let mut kept = open_kept(defined)?;
    if let Some((root, paths)) = &plan.mount_points {
        kept.note(Step::MountPoints { root: root.clone(), paths: paths.clone() })?;
    }
    kept.change(change).or_exit(Exit::Other)
}

/// Takes all back that was done to a container that is held.
pub(crate) fn undo(defined: &Defined, _held: &Operation) -> Result<Undone> {
    Ok(open_kept(defined)?.undo()?)
}

fn open_kept(defined: &Defined) -> Result<Kept> {
    Kept::open(defined.config.guest(), &defined.dir().join(KEPT)).or_exit(Exit::Refused)
}

/// Holds a container. It may be running: it reads its configuration when it starts.
pub(crate) fn hold(defined: &Defined) -> Result<Operation> {
    let held =
        Operation::begin(defined.lxcpath.as_path(), defined.name.as_str(), Command::Prepare)?;
    match pve::Definition::of(defined)
        .or_exit(Exit::Refused)?
        .and_then(|definition| definition.lock())
    {
        None => Ok(held),
        Some(what) => {
            Err(Failure::msg(Exit::WrongState, format!("Proxmox VE has locked it ({what})"))
                .hint("wait until that has ended, and try again"))
        }
    }
}

/// Holds a container that must not run, for it has mounted what an undo removes. Nothing is removed
/// from one of PVE's.
pub(crate) fn hold_stopped(defined: &Defined) -> Result<Operation> {
    let held = hold(defined)?;
    if pve::Definition::of(defined).or_exit(Exit::Refused)?.is_some() {
        return Ok(held);
    }
    let name = defined.name.as_str();
    match container::find(&defined.lxcpath_text(), name, container::Marks::of(defined))? {
        None => Ok(held),
        Some(_) => {
            Err(Failure::msg(Exit::WrongState, "it is running with what the undo would remove")
                .hint(format!(
                    "stop it first: lxc-stop {}",
                    shell::options(&defined.name, &defined.lxcpath)
                ))
                .state(format!("{name} is running as before")))
        }
    }
}

/// Its configuration file, by the way that leads there, and what it holds.
fn read_own(defined: &Defined) -> Result<(PathBuf, Content)> {
    let path =
        path_trust::walk(defined.config.guest(), defined.config.file()).or_exit(Exit::Refused)?;
    let text = Content::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok((path, text.unwrap_or(Content(Vec::new()))))
}

/// The root that a running container's init has.
fn open_root_of_running(defined: &Defined) -> Result<Option<(PathBuf, Below)>> {
    let found = container::find(
        &defined.lxcpath_text(),
        defined.name.as_str(),
        container::Marks::of(defined),
    )?;
    let Some(running) = found else { return Ok(None) };
    let below = Below::of_process(running.init.pid()).context("open the container's root")?;
    Ok(Some((defined.rootfs.clone(), below)))
}

/// The directory that is the container's root, or in which its programs are found.
fn open_root(defined: &Defined) -> Result<Option<(PathBuf, Below)>> {
    let path = &defined.rootfs;
    let kind = defined.config.rootfs().map(|r| r.kind);
    // The programs of an overlay are in what lies below it.
    let path = match (kind, path.to_str()) {
        (Some(RootfsKind::Overlay), Some(text)) => {
            PathBuf::from(text.split(':').next().unwrap_or_default())
        }
        _ => path.clone(),
    };
    if !path.is_dir() {
        return Ok(None);
    }
    path_trust::check_of(defined.config.guest(), &path).or_exit(Exit::Refused)?;
    let below = Below::open(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(Some((path, below)))
}

fn find_init(config: &Config, root: &Below) -> Result<Init> {
    let command = config.init_command().unwrap_or(init::DEFAULT);
    let program = Path::new(command.split_ascii_whitespace().next().unwrap_or_default());
    let found = Init::find(root, program)
        .with_context(|| format!("find {} in the root", program.display()))?;
    found.ok_or_else(|| {
        Failure::msg(Exit::Other, format!("its root has no {}", program.display()))
            .hint("give the container an init first, or say which one it will have: --init systemd")
    })
}

/// Whether programs may do what CRIU cannot dump, and our profile can take the place of the one
/// that is configured.
fn lacks_profile(
    config: &Config,
    init: &Init,
    installed: &Installed,
    notes: &mut Vec<Finding>,
) -> Result<bool> {
    let Some(path) = config.seccomp_profile() else { return Ok(true) };
    let read = |path: &Path| -> anyhow::Result<String> {
        let file = files::open_file(path).with_context(|| format!("open {}", path.display()))?;
        let file = std::io::Read::take(file, PROFILE_MAX);
        std::io::read_to_string(file).with_context(|| format!("read {}", path.display()))
    };
    let theirs = read(path)?;
    // In a user namespace the kernel denies eBPF programs by itself.
    let loads_bpf = *init == Init::Systemd
        && config.idmap().is_empty()
        && !seccomp::denies(&theirs, seccomp::BPF);
    let allowed: Vec<(&str, &str)> = [
        (loads_bpf, ("systemd load eBPF programs", "bpf errno 1")),
        (
            !seccomp::denies(&theirs, seccomp::IO_URING),
            ("programs use io_uring", "io_uring_setup errno 38"),
        ),
    ]
    .into_iter()
    .filter_map(|(may, words)| may.then_some(words))
    .collect();
    if allowed.is_empty() {
        return Ok(false);
    }
    if seccomp::covers(&read(&installed.profile())?, &theirs) {
        return Ok(true);
    }
    for (what, line) in allowed {
        notes.push(
            Finding::warning(
                format!("the seccomp profile {} lets {what}", path.display()),
                "CRIU cannot dump them; the profile is yours, and stays as it is",
            )
            .remedy(format!("add the line '{line}' to its section [all]")),
        );
    }
    Ok(false)
}

/// What was planned must be what LXC will read: a NUL in the file, for instance, ends it for LXC.
fn check(change: &Change, still: &Lacking) -> Result<()> {
    if !still.is_nothing() {
        return Err(Failure::msg(
            Exit::Refused,
            format!("lines added to {} would not be read", change.path.display()),
        )
        .hint("check it for a NUL, and for lines that contradict each other"));
    }
    Ok(())
}

fn say(notes: &mut Vec<Finding>, defined: &Defined, lacking: &Lacking) {
    let (name, config) = (&defined.name, &defined.config);
    let named = shell::options(name, &defined.lxcpath);
    if lacking.drop_ins && config_edits::has_terminals(config) || lacking.terminals {
        notes.push(
            Finding::note(
                "it will have no console and no ttys of LXC",
                "systemd's services have mount namespaces of their own, and CRIU cannot mount \
                 terminals twice",
            )
            .remedy(format!("for a shell inside: lxc-attach {named}")),
        );
    }
    if lacking.profile {
        notes.push(Finding::note(
            "its programs will do without io_uring and eBPF, which a seccomp profile forbids",
            "CRIU can dump neither; MariaDB, Node.js and others then use other system calls",
        ));
    }
    notes.extend(
        lacking.programs.iter().map(|drop_in| Finding::note(drop_in.note.0, drop_in.note.1)),
    );
    if config_edits::is_legacy(config) {
        notes.push(
            Finding::warning(
                "its configuration is written for LXC <= 2.0",
                "LXC >= 2.1 does not start it",
            )
            .remedy(format!("run: lxc-update-config -c {}", config.file().display())),
        );
    }
    if lacking.drop_ins {
        let made = list::find(&defined.lxcpath, Some(name)).unwrap_or_else(|e| {
            log::warn!("find checkpoints of {name}: {:#}", e);
            Vec::new()
        });
        for entry in made.into_iter().filter(|e| e.state == State::Complete) {
            notes.push(
                Finding::note(
                    format!("{} was made before this", entry.directory.display()),
                    "the mounts that systemd now gets were not there: lxc-restart refuses it \
                     without --force",
                )
                .remedy(format!("to restart it as it was: lxc-cr prepare --undo {named}")),
            );
        }
    }
}

/// What LXC will make in a root for the mounts of drop-ins.
///
/// # Errors
/// When a link is in the way: LXC mounts nothing through one, and would not start the container.
fn new_mount_points(root: &Below, targets: &[&Path]) -> Result<Vec<PathBuf>> {
    let mut new: Vec<PathBuf> = Vec::new();
    for target in targets {
        if root.has_link(target).with_context(|| format!("inspect {target:?} in the root"))? {
            return Err(Failure::msg(
                Exit::Refused,
                format!("a symbolic link is in the way of /{} in its root", target.display()),
            )
            .hint("put a directory in place of the link: LXC mounts nothing through one"));
        }
        let mut way: Vec<&Path> =
            target.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        way.reverse();
        let missing = way.into_iter().filter(|p| root.look(p).is_err());
        new.extend(missing.map(Path::to_owned));
    }
    new.sort();
    new.dedup();
    Ok(new)
}
