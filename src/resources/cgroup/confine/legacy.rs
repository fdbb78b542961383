//! What holds a container back in the hierarchies of cgroup v1.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Confined, confined};
use crate::lxc::config::Config;
use crate::resources::cgroup::devices::{NoRule, Policy, Program, legacy as devices};
use crate::resources::cgroup::settings::{self, Limits};
use crate::resources::cgroup::{self, Cgroup, Tree};

/// What holds a container back in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Legacy {
    /// A controller of the hierarchy, by which it is found.
    controller: String,
    /// The directories on which there is something, parents before children.
    directories: Vec<Confined>,
}

impl Legacy {
    /// As it was at the checkpoint.
    pub(super) fn of_tree(tree: &Tree) -> Legacy {
        Legacy {
            controller: tree.controllers.first().cloned().unwrap_or_default(),
            directories: confined(tree),
        }
    }

    /// As the `lxc.cgroup.*` lines of the configuration say.
    pub(super) fn of_config(items: &[(String, String)]) -> Result<Vec<Legacy>, NoRule> {
        let on_top = |controller: &str, limits, devices| Legacy {
            controller: controller.to_owned(),
            directories: vec![Confined { path: PathBuf::new(), limits, devices }],
        };
        let mut found: Vec<Legacy> = Vec::new();
        for (name, value) in settings::of_config(items) {
            let controller = name.split('.').next().unwrap_or_default();
            match found
                .iter_mut()
                .find(|l| l.controller == controller)
                .and_then(|l| l.directories.first_mut())
            {
                Some(top) => drop(top.limits.insert(name, value)),
                None => found.push(on_top(
                    controller,
                    Limits::from([(name.clone(), value)]),
                    Vec::new(),
                )),
            }
        }
        let devices = Policy::configured_of_v1(items)?;
        found.extend(
            devices.map(|policy| on_top("devices", Limits::new(), vec![Program::Rules(policy)])),
        );
        Ok(found)
    }

    fn of<'a>(&self, payload: &'a [Cgroup]) -> Option<&'a Path> {
        payload.iter().find(|c| c.hierarchy.has(&self.controller)).map(|c| c.dir.as_path())
    }

    /// Limits that this host does not have.
    pub(super) fn missing(&self, payload: &[Cgroup]) -> Vec<String> {
        // Without the hierarchy none of them is there.
        let dir = self.of(payload).unwrap_or(Path::new("/nowhere"));
        let mut missing: Vec<String> =
            self.directories.iter().flat_map(|c| settings::missing(dir, &c.limits)).collect();
        if self.of(payload).is_none() && self.policies().next().is_some() {
            missing.push("rules for devices".to_owned());
        }
        missing
    }

    fn policies(&self) -> impl Iterator<Item = (&Path, &Policy)> {
        self.directories.iter().flat_map(|confined| {
            confined.devices.iter().filter_map(|program| match program {
                Program::Rules(policy) => Some((confined.path.as_path(), policy)),
                Program::Instructions { .. } => None,
            })
        })
    }

    /// See [`devices::prepare`].
    pub(super) fn prepare(&self, payload: &[Cgroup]) -> Result<()> {
        let Some(dir) = self.of(payload) else { return Ok(()) };
        let top = self.policies().find(|(path, _)| path.as_os_str().is_empty());
        top.map_or(Ok(()), |(_, policy)| devices::prepare(dir, policy))
    }

    /// Puts it in force; returns what could not be set and confines nobody.
    pub(super) fn apply(&self, payload: &[Cgroup]) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let Some(top) = self.of(payload) else { return Ok(notes) };
        for confined in &self.directories {
            notes.extend(settings::apply(
                &cgroup::directory(top, &confined.path)?,
                &confined.limits,
            )?);
        }
        for (path, policy) in self.policies() {
            devices::narrow(&cgroup::directory(top, path)?, policy)?;
        }
        Ok(notes)
    }
}

/// Reads the device rules of a running container's cgroups into its tree.
pub(super) fn read_devices(tree: &mut Tree, payload: &Path, config: &Config) -> Result<()> {
    if !tree.controllers.iter().any(|c| c == "devices") {
        return Ok(());
    }
    for directory in &mut tree.directories {
        let configured = match directory.path.as_os_str().is_empty() {
            true => Policy::configured_of_v1(config.cgroup_items())?,
            false => None,
        };
        let rules = devices::read(&cgroup::directory(payload, &directory.path)?, configured)?;
        directory.devices.extend(rules.map(Program::Rules));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_configuration_goes_to_its_hierarchy() {
        let items: Vec<(String, String)> = [
            ("memory.limit_in_bytes", "64M"),
            ("devices.deny", "a"),
            ("cpu.shares", "512"),
            ("memory.swappiness", "0"),
            ("devices.allow", "c 1:3 rwm"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let found = Legacy::of_config(&items).unwrap();
        let names: Vec<&str> = found.iter().map(|l| l.controller.as_str()).collect();
        assert_eq!(names, ["cpu", "memory", "devices"]);
        assert_eq!(found[1].directories[0].limits.len(), 2);
        assert_eq!(found[2].policies().count(), 1);
        assert_eq!(found[1].missing(&[]), ["memory.limit_in_bytes = 64M"]);
        assert_eq!(found[2].missing(&[]), ["rules for devices"]);
    }
}
