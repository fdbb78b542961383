//! What holds a container's cgroups back: the device programs on them.
//!
//! CRIU is born in the payload cgroup and has to open and make devices there, so all of it is put in force when CRIU
//! has done its part, while the restored tasks still stand still.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cgroup::{self, Tree};
use crate::devices::{self, Attached, NoRule, Policy, Program};
use crate::lxc::config::Config;

/// What holds one directory of the payload cgroup back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Relative to the payload cgroup; empty for itself.
    pub path: PathBuf,
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
                .map(|d| Confined { path: d.path.clone(), devices: d.devices.clone() })
                .filter(|c| !c.devices.is_empty())
                .collect(),
            None => Policy::configured(config.cgroup2_items())?
                .map(|policy| Confined { path: PathBuf::new(), devices: vec![Program::Rules(policy)] })
                .into_iter()
                .collect(),
        };
        Ok(Confinement { directories, devices_at_start })
    }

    /// Puts it in force below a payload cgroup that is made.
    pub fn apply(&self, payload: &Path) -> Result<InForce> {
        let mut in_force = InForce::default();
        for confined in &self.directories {
            let dir = cgroup::directory(payload, &confined.path)?;
            let attached = devices::attach(&dir, &confined.devices)?;
            if confined.path.as_os_str().is_empty() {
                in_force = InForce { programs: confined.devices.clone(), attached };
            }
        }
        Ok(in_force)
    }
}

/// The device programs that are in force on a payload cgroup.
#[derive(Debug, Default)]
pub struct InForce {
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
