//! What holds a container's cgroups back: limits, and the device programs on them.
//!
//! CRIU is born in the payload cgroup, has to open and make devices there, and needs more memory
//! and processes than the container. So all of it is put in force when CRIU has done its part,
//! while the restored tasks still stand still. Controllers can only be handed on by a cgroup
//! without tasks; so CRIU moves aside when init has gone to its place, and before it makes the
//! other tasks.
//!
//! On a hybrid host v1's hierarchies hold it back, too (`legacy`).

mod legacy;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lxc::config::Config;
use crate::resources::cgroup::devices::{self, Attached, NoRule, Policy, Program};
use crate::resources::cgroup::settings::{self, Limits};
use crate::resources::cgroup::{self, Cgroup, Tree};

use legacy::Legacy;

/// Where CRIU waits; no part of the container, by its name.
const ASIDE: &str = ".lxc-cr-criu";

/// What holds one directory of the payload cgroup back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confined {
    /// Relative to the payload cgroup; empty for itself.
    pub path: PathBuf,
    /// Settings.
    pub limits: Limits,
    /// Device programs.
    pub devices: Vec<Program>,
}

/// What holds a container back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// The directories on which there is something, parents before children.
    pub directories: Vec<Confined>,
    /// Where its tasks begin below the payload cgroup.
    inner: PathBuf,
    /// What its monitor thinks of devices where no rules are in force.
    pub devices_at_start: Policy,
    /// What is on its directories in the hierarchies of v1.
    legacy: Vec<Legacy>,
}

impl Confinement {
    /// As it was at the checkpoint, or, where nobody has recorded it, as the configuration says.
    pub(crate) fn new(
        unified: Option<&Tree>,
        legacy: &[Tree],
        config: &Config,
    ) -> Result<Confinement, NoRule> {
        let devices_at_start = Policy::at_start(config.cgroup2_items())?;
        let recorded = unified.is_some() || !legacy.is_empty();
        let legacy = match recorded {
            true => legacy.iter().map(Legacy::of_tree).collect(),
            false => Legacy::of_config(config.cgroup_items())?,
        };
        let directories = match unified {
            Some(tree) => confined(tree),
            None if recorded => Vec::new(),
            None => vec![Confined {
                path: PathBuf::new(),
                limits: settings::of_config(config.cgroup2_items()),
                devices: Policy::configured(config.cgroup2_items())?
                    .map(Program::Rules)
                    .into_iter()
                    .collect(),
            }],
        };
        let inner = unified.map(|tree| tree.inner.clone()).unwrap_or_default();
        Ok(Confinement { directories, inner, devices_at_start, legacy })
    }

    /// Limits that this host does not have for the payload cgroups that are made.
    pub(crate) fn missing(&self, payload: &[Cgroup]) -> Vec<String> {
        let top = self.directories.iter().find(|c| c.path.as_os_str().is_empty());
        let unified = payload.iter().find(|c| c.hierarchy.is_unified());
        let missing =
            top.zip(unified).map(|(top, cgroup)| settings::missing(&cgroup.dir, &top.limits));
        missing
            .into_iter()
            .flatten()
            .chain(self.legacy.iter().flat_map(|l| l.missing(payload)))
            .collect()
    }

    /// Prepares payload cgroups that are new, before there is anything below them.
    pub(crate) fn prepare(&self, payload: &[Cgroup]) -> Result<()> {
        self.legacy.iter().try_for_each(|legacy| legacy.prepare(payload))
    }

    /// Makes the directories what they were, while there is nobody but CRIU's init in them, at its
    /// place. CRIU's other processes, which are where its tasks begin, move aside where they are in
    /// the way.
    pub(crate) fn set_structure(&self, payload: &Path) -> Result<()> {
        // What is above the place where they are is no concern of theirs.
        let concerns_criu =
            |c: &Confined| c.path.starts_with(&self.inner) && settings::has_structure(&c.limits);
        if self.directories.iter().any(concerns_criu) {
            let home = payload.join(&self.inner);
            let aside = home.join(ASIDE);
            match fs::create_dir(&aside) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e).with_context(|| format!("make cgroup {}", aside.display()));
                }
                _ => {}
            }
            for pid in cgroup::own_tasks(&home)? {
                cgroup::enter(&aside, pid)?;
            }
        }
        for confined in &self.directories {
            settings::set_structure(
                &cgroup::directory(payload, &confined.path)?,
                &confined.limits,
            )?;
        }
        Ok(())
    }

    /// Takes away what [`Confinement::set_structure`] has made for CRIU, which has ended.
    pub(crate) fn tidy(&self, payload: &Path) -> Result<()> {
        cgroup::remove(&payload.join(&self.inner).join(ASIDE))
    }

    /// Puts it in force on the payload cgroups that are made, and below them.
    pub(crate) fn apply(&self, payload: &[Cgroup]) -> Result<InForce> {
        let mut in_force = InForce::default();
        for legacy in &self.legacy {
            in_force.notes.extend(legacy.apply(payload)?);
        }
        let Some(unified) = payload.iter().find(|c| c.hierarchy.is_unified()) else {
            return Ok(in_force);
        };
        for confined in &self.directories {
            let dir = cgroup::directory(&unified.dir, &confined.path)?;
            in_force.notes.extend(settings::apply(&dir, &confined.limits)?);
            let attached = devices::attach(&dir, &confined.devices)?;
            if confined.path.as_os_str().is_empty() {
                in_force.programs.clone_from(&confined.devices);
                in_force.attached = attached;
            }
        }
        Ok(in_force)
    }
}

/// The directories of a tree on which there is something.
fn confined(tree: &Tree) -> Vec<Confined> {
    let all = tree.directories.iter();
    let all = all.map(|d| Confined {
        path: d.path.clone(),
        limits: d.limits.clone(),
        devices: d.devices.clone(),
    });
    all.filter(|c| !c.limits.is_empty() || !c.devices.is_empty()).collect()
}

/// What is in force.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// What could not be set, and confines nobody.
    pub notes: Vec<String>,
    programs: Vec<Program>,
    attached: Vec<OwnedFd>,
}

impl InForce {
    /// Hands them over to the monitor.
    pub(crate) fn hold(self, payload: &Path, confinement: &Confinement) -> Result<Attached> {
        Attached::new(payload, &self.programs, self.attached, confinement.devices_at_start.clone())
    }
}

/// Reads the device rules of a running container's cgroups into its tree; returns what the user
/// should know.
///
/// # Errors
/// When there is a program that nobody could put in force again.
pub(crate) fn read_devices(
    tree: &mut Tree,
    payload: &Path,
    config: &Config,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if !tree.controllers.is_empty() {
        legacy::read_devices(tree, payload, config)?;
        return Ok(notes);
    }
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
                            "on cgroup {} is a device program that uses more than itself: it \
                             cannot be carried over",
                            dir.display()
                        )
                    })?;
                    notes.push(
                        "the kernel does not show the device rules in force: those of the \
                         configuration are recorded"
                            .to_owned(),
                    );
                    directory.devices.push(Program::Rules(policy));
                }
            }
        }
    }
    Ok(notes)
}
