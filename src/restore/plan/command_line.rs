//! A plan as CRIU is told it, and as a person is told it (`--dry-run`).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};

use super::Plan;
use crate::criu::options::{
    self, CgroupRoot, Cgroups, Common, External, InheritedFd, Restore, tty_resource,
};
use crate::resources::cgroup::{self, Cgroup};
use crate::resources::network::interfaces::Origin;
use crate::restore::{Request, cgroups};

/// Descriptors that are handed to CRIU get numbers from here on.
const FIRST_INHERITED_FD: i32 = 100;

impl Plan {
    /// The payload cgroups, as far as they are known before they are made.
    pub(crate) fn expected_payload(&self) -> Vec<Cgroup> {
        let expected = |w: &cgroups::Wanted| {
            let dir = cgroup::directory(&w.hierarchy.mount, &w.payload).ok()?;
            Some(Cgroup { hierarchy: w.hierarchy.clone(), dir, inner: w.inner.clone() })
        };
        self.cgroups.iter().filter_map(expected).collect()
    }

    /// What CRIU is asked, once it is known which payload cgroups were made.
    pub(crate) fn criu(&self, request: &Request, payload: &[Cgroup], pidfile: &Path) -> Restore {
        let mut scripts = vec![request.action_script.clone()];
        scripts.extend(request.user_script.clone());
        let own_cgroups = self.own_cgroups.iter().filter_map(|own| {
            // No slash at the end, for CRIU takes the path as it is.
            let path = payload.get(own.hierarchy)?.dir.join(&own.below).components().collect();
            Some(External::Mount { key: own.key.clone(), path })
        });
        // In a cgroup namespace of its own CRIU sees them as the roots that they are.
        let outside = payload.iter().filter(|_| !self.cgroup_namespace);
        let roots =
            outside.map(|c| CgroupRoot::of(&c.hierarchy.controllers, &c.home_path())).collect();
        Restore {
            common: Common {
                images: request.images.clone(),
                action_scripts: scripts,
                externals: self.mounts.iter().cloned().chain(own_cgroups).collect(),
                extra: Vec::new(),
            },
            root: self.root.clone(),
            pidfile: pidfile.to_owned(),
            cgroups: match self.born_there {
                true => Cgroups::Inherited,
                false => Cgroups::Moved { roots },
            },
            tcp_close: self.tcp_close,
            inherited: self.inherited(),
            empty_network: self.inside.is_some(),
            older_mount_engine: self.older_mount_engine,
            lazy: false,
            lsm_profile: None,
        }
    }

    /// What the tasks take over: first the host's files, then the terminals.
    pub(crate) fn inherited(&self) -> Vec<InheritedFd> {
        let files = self.host_files.iter().map(|f| format!("file[{:x}:{:x}]", f.mount_id, f.inode));
        let terminals = self.terminals.iter().map(|t| tty_resource(t.tty.rdev, t.tty.dev));
        files
            .chain(terminals)
            .zip(FIRST_INHERITED_FD..)
            .map(|(resource, number)| InheritedFd { number, resource })
            .collect()
    }

    /// The descriptors for [`Restore::inherited`], in its order.
    pub(crate) fn handed_over(&self) -> Result<Vec<OwnedFd>> {
        let files = self.host_files.iter().map(|f| open_host_file(&f.path));
        let terminals =
            self.terminals.iter().map(|t| t.pty.slave.try_clone().context("hold a terminal"));
        files.chain(terminals).collect()
    }

    /// The plan in words, for `--dry-run`.
    pub(crate) fn in_words(&self, program: &Path, criu: &Restore) -> Vec<String> {
        let of = |w: &cgroups::Wanted| {
            format!("cgroups {} and {}", w.payload.display(), w.monitor.display())
        };
        let mut lines = vec![
            self.cgroups.first().map(of).unwrap_or_default(),
            format!("the root is mounted on {} in CRIU's own mount namespace", criu.root.display()),
        ];
        for veth in &self.veths {
            lines.push(match &veth.port.bridge {
                Some(bridge) => format!(
                    "{} is made for {} and joins {bridge} at the end",
                    veth.host, veth.port.inside
                ),
                None => {
                    format!("{} is made for {} and joins no bridge", veth.host, veth.port.inside)
                }
            });
        }
        for device in &self.devices {
            lines.push(match &device.from {
                Origin::Upon { host, .. } => format!("{} is made upon {host}", device.inside),
                Origin::Lent { host } => {
                    format!("{host} is moved into the container as {}", device.inside)
                }
            });
        }
        lines.push(options::printable(program, &criu.args()));
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

fn open_host_file(path: &Path) -> Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    Ok(file.into())
}
