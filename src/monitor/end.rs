//! The hooks of a container whose init has ended, in the order in which LXC's monitor runs them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::error::ErrorList;
use crate::lxc::config::{Config, HookKind, NicKind};
use crate::lxc::definition::Defined;
use crate::lxc::hook::{self, Direction, Target};
use crate::resources::network::Port;

/// The namespaces of a container that are its own, held beyond the end of its init.
#[derive(Debug, Default)]
pub(super) struct Namespaces(Vec<(&'static str, File)>);

impl Namespaces {
    /// Holds them, if there is a hook that could want them at the end; held ones keep mounts and
    /// links alive.
    pub(super) fn for_hooks(config: &Config, init: i32) -> Result<Namespaces> {
        let wanted = !config.hooks(HookKind::Stop).is_empty()
            || config.nics().iter().any(|n| n.script_down.is_some());
        if wanted { Namespaces::hold(init) } else { Ok(Namespaces::default()) }
    }

    /// Holds those that init does not share with us.
    fn hold(init: i32) -> Result<Namespaces> {
        let mut held = Vec::new();
        for name in hook::NAMESPACES {
            let path = format!("/proc/{init}/ns/{name}");
            let theirs = match fs::read_link(&path) {
                Ok(link) => link,
                // A kernel without this kind.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e).with_context(|| format!("read {path}")),
            };
            if fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|ours| ours == theirs) {
                continue;
            }
            held.push((name, File::open(&path).with_context(|| format!("open {path}"))?));
        }
        Ok(Namespaces(held))
    }

    /// Paths that lead to them, for as long as they are held.
    fn paths(&self) -> Vec<(&'static str, PathBuf)> {
        let us = std::process::id();
        self.0
            .iter()
            .map(|(name, file)| (*name, format!("/proc/{us}/fd/{}", file.as_raw_fd()).into()))
            .collect()
    }
}

/// A container whose init has ended.
#[derive(Debug)]
pub(super) struct AtEnd<'a> {
    /// Its definition.
    pub defined: &'a Defined,
    /// The pid that its init had.
    pub init: i32,
    /// It asked for a reboot.
    pub reboot: bool,
    /// Its namespaces.
    pub namespaces: Namespaces,
}

impl<'a> AtEnd<'a> {
    /// Runs the `script.down` of each interface; the host's ends of the pairs must still be there.
    pub(super) fn network_down(&self, ports: &[Port]) -> Result<()> {
        let context = self.context();
        let mut errors = ErrorList::default();
        for nic in self.defined.config.nics() {
            let inside = nic.name_inside();
            let port = ports.iter().find(|p| p.inside == inside).map(|p| p.host.as_str());
            let host = port.or(nic.veth_pair.as_deref()).filter(|_| nic.kind == NicKind::Veth);
            errors.note(hook::run_net_script(nic, Direction::Down, host, &context));
        }
        errors.into_result()
    }

    /// Runs the stop hooks, which still have the namespaces.
    pub(super) fn run_stop(&self) -> Result<()> {
        hook::run_all(HookKind::Stop, &self.context().with_target(self.target()))
    }

    /// Lets the namespaces go, then runs the post-stop hooks.
    pub(super) fn run_post_stop(self) -> Result<()> {
        let target = self.target();
        let AtEnd { defined, init, namespaces, .. } = self;
        // LXC leaves their variables set, with nothing behind them; a hook is better off without.
        drop(namespaces);
        hook::run_all(
            HookKind::PostStop,
            &hook::Context::new(defined).with_pid(init).with_target(target),
        )
    }

    fn target(&self) -> Target {
        if self.reboot { Target::Reboot } else { Target::Stop }
    }

    fn context(&self) -> hook::Context<'a> {
        hook::Context::new(self.defined)
            .with_pid(self.init)
            .with_namespaces(self.namespaces.paths())
    }
}
