//! What holds a container's cgroups back: limits, and the device programs on them.
//!
//! CRIU is born in the payload cgroup, has to open and make devices there, and needs more memory and processes than
//! the container. So all of it is put in force when CRIU has done its part, while the restored tasks still stand
//! still. Controllers can only be handed on by a cgroup without tasks; so CRIU moves aside when init has gone to its
//! place, and before it makes the other tasks.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cgroup::{self, Tree};
use crate::devices::{self, Attached, NoRule, Policy, Program};
use crate::limits::{self, Limits};
use crate::lxc::config::Config;

/// Where CRIU waits; no part of the container, by its name.
const ASIDE: &str = ".lxc-cr-criu";

/// What holds one directory of the payload cgroup back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Relative to the payload cgroup; empty for itself.
    pub path: PathBuf,
    /// Settings.
    pub limits: Limits,
    /// Device programs.
    pub devices: Vec<Program>,
}

/// What holds a container back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The directories on which there is something, parents before children.
    pub directories: Vec<Confined>,
    /// What its monitor thinks of devices where no rules are in force.
    pub devices_at_start: Policy,
}

impl Confinement {
    /// As it was at the checkpoint, or, where nobody has recorded it, as the configuration says.
    pub fn new(tree: Option<&Tree>, config: &Config) -> Result<Confinement, NoRule> {
        let devices_at_start = Policy::at_start(config.cgroup2_items())?;
        let directories = match tree {
            Some(tree) => tree
                .directories
                .iter()
                .map(|d| Confined { path: d.path.clone(), limits: d.limits.clone(), devices: d.devices.clone() })
                .filter(|c| !c.limits.is_empty() || !c.devices.is_empty())
                .collect(),
            None => vec![Confined {
                path: PathBuf::new(),
                limits: limits::of_config(config.cgroup2_items()),
                devices: Policy::configured(config.cgroup2_items())?.map(Program::Rules).into_iter().collect(),
            }],
        };
        Ok(Confinement { directories, devices_at_start })
    }

    /// Limits that this host does not have for the payload cgroup that is made.
    pub fn missing(&self, payload: &Path) -> Vec<String> {
        let top = self.directories.iter().find(|c| c.path.as_os_str().is_empty());
        top.map(|c| limits::missing(payload, &c.limits)).unwrap_or_default()
    }

    /// Makes the directories what they were, while there is nobody but CRIU's init in them, at its place. CRIU's other
    /// processes, which are in the payload cgroup itself, move aside where they are in the way.
    pub fn set_structure(&self, payload: &Path) -> Result<()> {
        if self.directories.iter().any(|c| limits::has_structure(&c.limits)) {
            let aside = payload.join(ASIDE);
            match fs::create_dir(&aside) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e).with_context(|| format!("make cgroup {}", aside.display()));
                }
                _ => {}
            }
            for pid in cgroup::own_tasks(payload)? {
                cgroup::enter(&aside, pid)?;
            }
        }
        for confined in &self.directories {
            limits::set_structure(&cgroup::directory(payload, &confined.path)?, &confined.limits)?;
        }
        Ok(())
    }

    /// Takes away what [`Confinement::set_structure`] has made for CRIU, which has ended.
    pub fn tidy(&self, payload: &Path) -> Result<()> {
        cgroup::remove(&payload.join(ASIDE))
    }

    /// Puts it in force below a payload cgroup that is made.
    pub fn apply(&self, payload: &Path) -> Result<InForce> {
        let mut in_force = InForce::default();
        for confined in &self.directories {
            let dir = cgroup::directory(payload, &confined.path)?;
            in_force.notes.extend(limits::apply(&dir, &confined.limits)?);
            let attached = devices::attach(&dir, &confined.devices)?;
            if confined.path.as_os_str().is_empty() {
                in_force.programs.clone_from(&confined.devices);
                in_force.attached = attached;
            }
        }
        Ok(in_force)
    }
}

/// What is in force.
#[derive(Debug, Default)]
pub struct InForce {
    /// What could not be set, and confines nobody.
    pub notes: Vec<String>,
    programs: Vec<Program>,
    attached: Vec<OwnedFd>,
}

impl InForce {
    /// Hands them over to the monitor.
    pub fn hold(self, payload: &Path, confinement: &Confinement) -> Result<Attached> {
        Attached::new(payload, &self.programs, self.attached, confinement.devices_at_start.clone())
    }
}

/// Reads the device programs of a running container's cgroups into its tree; returns what the user should know.
///
/// # Errors
/// When there is a program that nobody could put in force again.
pub fn read_devices(tree: &mut Tree, payload: &Path, config: &Config) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for directory in &mut tree.directories {
        let dir = cgroup::directory(payload, &directory.path)?;
        for program in devices::read(&dir)? {
            match program {
                Some(program) => directory.devices.push(program),
                None => {
                    let configured = Policy::configured(config.cgroup2_items())?;
                    let policy = configured.filter(|_| directory.path.as_os_str().is_empty());
                    let policy = policy.ok_or_else(|| {
                        anyhow::anyhow!(
                            "on cgroup {} is a device program that uses more than itself: it cannot be carried over",
                            dir.display()
                        )
                    })?;
                    notes.push(
                        "the kernel does not show the device rules in force: those of the configuration are recorded"
                            .to_owned(),
                    );
                    directory.devices.push(Program::Rules(policy));
                }
            }
        }
    }
    Ok(notes)
}
