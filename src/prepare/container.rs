//! `lxc-cr prepare NAME`: a stopped container gets what it needs to be checkpointed.
//!
//! All of it goes into the container's configuration; its root is looked into, to find the init, and not changed. What
//! systemd has to be told is mounted into it by LXC at each start.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::change::{Change, Content};
use super::init::{self, Init};
use super::installed::Installed;
use super::kept::{Kept, Step, Undone};
use super::lines::{self, DROP_INS, Lacking};
use super::seccomp;
use crate::contents::catalogue::{self, State};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::config::{Config, RootfsKind};
use crate::lxc::container;
use crate::lxc::defined::Defined;
use crate::lxc::typed;
use crate::operation::Operation;
use crate::preflight::{Finding, Findings};
use crate::sys::below::Below;
use crate::sys::files;
use crate::sys::place;

/// What is kept beside a container to take its preparation back.
pub const KEPT: &str = "lxc-cr.prepare";
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
    /// What else is to be said.
    pub notes: Findings,
    /// What LXC will make in the root at the next start, and where that is.
    mount_points: Option<(PathBuf, Vec<PathBuf>)>,
}

/// Looks at a container and plans what to do to it; nothing is changed. `named`: its init, where the user names it.
///
/// # Errors
/// When its root or its init cannot be found, or something in the root stands in the way.
pub fn plan(defined: &Defined, installed: &Installed, named: Option<Init>) -> Result<Plan> {
    let config = &defined.config;
    let path = place::walk(config.guest(), config.file()).or_exit(Exit::Refused)?;
    let root = open_root(defined)?;
    let init = match (named, &root) {
        (Some(init), _) => init,
        (None, Some((_, below))) => find_init(config, below)?,
        (None, None) => {
            return Err(Failure::msg(Exit::Other, format!("its root '{}' is no directory", defined.rootfs.display()))
                .hint("say which init it has: --init systemd, or sysvinit, openrc, runit, busybox"));
        }
    };
    let mut notes = Vec::new();
    let profile = init == Init::Systemd && config.idmap().is_empty() && lacks_profile(config, installed, &mut notes)?;
    let lacking = Lacking::of(config, &init, profile).or_exit(Exit::Other)?;
    let before =
        Content::read(&path).with_context(|| format!("read {}", path.display()))?.unwrap_or(Content(Vec::new()));
    let change = (!lacking.is_nothing()).then(|| Change {
        after: Content(lacking.put_into(&before.0, config, installed)),
        path,
        before: Some(before),
        mode: 0o644,
    });
    if let Some(change) = &change {
        check(change, config, &init, profile)?;
        say(&mut notes, defined, &lacking);
    }
    let mut mount_points = None;
    if let (true, Some((place, below))) = (lacking.drop_ins, &root) {
        mount_points = Some((place.clone(), new_mount_points(below)?)).filter(|(_, paths)| !paths.is_empty());
    }
    Ok(Plan { init, id_map: !config.idmap().is_empty(), change, notes: Findings::new(notes), mount_points })
}

/// Does it to a container that is held.
pub fn apply(defined: &Defined, plan: &Plan, _held: &Operation) -> Result<()> {
    let Some(change) = &plan.change else { return Ok(()) };
    let mut kept = open_kept(defined)?;
    if let Some((root, paths)) = &plan.mount_points {
        kept.note(Step::MountPoints { root: root.clone(), paths: paths.clone() })?;
    }
    kept.change(change).or_exit(Exit::Other)
}

/// Takes all back that was done to a container that is held.
pub fn undo(defined: &Defined, _held: &Operation) -> Result<Undone> {
    Ok(open_kept(defined)?.undo()?)
}

fn open_kept(defined: &Defined) -> Result<Kept> {
    Kept::open(defined.config.guest(), &defined.dir().join(KEPT)).or_exit(Exit::Refused)
}

/// Holds a container, which must not run.
pub fn hold(defined: &Defined) -> Result<Operation> {
    let name = defined.name.as_str();
    let held = Operation::begin(defined.lxcpath.as_path(), name, "lxc-cr prepare")?;
    match container::find(&defined.lxcpath_text(), name, Some(&defined.rootfs))? {
        None => Ok(held),
        Some(_) => Err(Failure::msg(Exit::WrongState, "it is running, and reads its configuration when it starts")
            .hint(format!("stop it first: lxc-stop {}", typed::options(&defined.name, &defined.lxcpath)))
            .state(format!("{name} is running as before"))),
    }
}

/// The directory that is the container's root, or in which its programs are found.
fn open_root(defined: &Defined) -> Result<Option<(PathBuf, Below)>> {
    let path = &defined.rootfs;
    let kind = defined.config.rootfs().map(|r| r.kind);
    // The programs of an overlay are in what lies below it.
    let path = match (kind, path.to_str()) {
        (Some(RootfsKind::Overlay), Some(text)) => PathBuf::from(text.split(':').next().unwrap_or_default()),
        _ => path.clone(),
    };
    if !path.is_dir() {
        return Ok(None);
    }
    place::check_of(defined.config.guest(), &path).or_exit(Exit::Refused)?;
    let below = Below::open(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(Some((path, below)))
}

fn find_init(config: &Config, root: &Below) -> Result<Init> {
    let command = config.init_command().unwrap_or(init::DEFAULT);
    let program = Path::new(command.split_ascii_whitespace().next().unwrap_or_default());
    let found = Init::find(root, program).with_context(|| format!("look for {} in the root", program.display()))?;
    found.ok_or_else(|| {
        Failure::msg(Exit::Other, format!("its root has no {}", program.display()))
            .hint("give the container an init first, or say which one it will have: --init systemd")
    })
}

/// Whether systemd may load eBPF programs, and our profile can take the place of the one that is configured.
fn lacks_profile(config: &Config, installed: &Installed, notes: &mut Vec<Finding>) -> Result<bool> {
    let Some(path) = config.seccomp_profile() else { return Ok(true) };
    let read = |path: &Path| -> anyhow::Result<String> {
        let file = files::open_file(path).with_context(|| format!("open {}", path.display()))?;
        let file = std::io::Read::take(file, PROFILE_MAX);
        std::io::read_to_string(file).with_context(|| format!("read {}", path.display()))
    };
    let theirs = read(path)?;
    if seccomp::denies_bpf(&theirs) {
        return Ok(false);
    }
    if seccomp::covers(&read(&installed.profile())?, &theirs) {
        return Ok(true);
    }
    notes.push(
        Finding::warning(
            format!("the seccomp profile {} lets systemd load eBPF programs", path.display()),
            "CRIU cannot dump them; the profile is yours, and stays as it is",
        )
        .remedy("add the line 'bpf errno 1' to it, or give the container an id map"),
    );
    Ok(false)
}

/// What was planned must be what LXC will read: a NUL in the file, for instance, ends it for LXC.
fn check(change: &Change, config: &Config, init: &Init, profile: bool) -> Result<()> {
    let new = Config::parse(config.file(), &change.after.0).or_exit(Exit::Other)?;
    let profile = profile && new.seccomp_profile() == config.seccomp_profile();
    if !Lacking::of(&new, init, profile).or_exit(Exit::Other)?.is_nothing() {
        return Err(Failure::msg(Exit::Refused, format!("lines added to {} would not be read", change.path.display()))
            .hint("look for a NUL in it, and for lines that take back what others say"));
    }
    Ok(())
}

fn say(notes: &mut Vec<Finding>, defined: &Defined, lacking: &Lacking) {
    let (name, config) = (&defined.name, &defined.config);
    let named = typed::options(name, &defined.lxcpath);
    if lacking.drop_ins && lines::has_terminals(config) || lacking.terminals {
        notes.push(
            Finding::note(
                "it will have no console and no ttys of LXC",
                "systemd's services have mount namespaces of their own, and CRIU cannot mount terminals twice",
            )
            .remedy(format!("for a shell in it: lxc-attach {named}")),
        );
    }
    if lines::is_legacy(config) {
        notes.push(
            Finding::warning("its configuration is written for LXC <= 2.0", "LXC >= 2.1 does not start it")
                .remedy(format!("run: lxc-update-config -c {}", config.file().display())),
        );
    }
    if lacking.drop_ins {
        let made = catalogue::find(&defined.lxcpath, Some(name)).unwrap_or_else(|e| {
            log::warn!("look for checkpoints of {name}: {:#}", e);
            Vec::new()
        });
        for entry in made.into_iter().filter(|e| e.state == State::Complete) {
            notes.push(
                Finding::note(
                    format!("{} was made before this", entry.directory.display()),
                    "the mounts that systemd now gets were not there: lxc-restart refuses it without --force",
                )
                .remedy(format!("to restart it as it was: lxc-cr prepare --undo {named}")),
            );
        }
    }
}

/// What LXC will make in a root for the mounts of systemd's drop-ins.
///
/// # Errors
/// When a link is in the way: LXC mounts nothing through one, and would not start the container.
fn new_mount_points(root: &Below) -> Result<Vec<PathBuf>> {
    let mut new: Vec<PathBuf> = Vec::new();
    for (_, target) in DROP_INS {
        let target = Path::new(target);
        if root.has_link(target).with_context(|| format!("look at {target:?} in the root"))? {
            return Err(Failure::msg(
                Exit::Refused,
                format!("a symbolic link is in the way of /{} in its root", target.display()),
            )
            .hint("put a directory in place of the link: LXC mounts nothing through one"));
        }
        let mut way: Vec<&Path> = target.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        way.reverse();
        let missing = way.into_iter().filter(|p| root.look(p).is_err());
        new.extend(missing.map(Path::to_owned));
    }
    new.sort();
    new.dedup();
    Ok(new)
}
