//! The veth pairs of a restore, made when CRIU has made the container's network namespace:
//!
//! 1. the pairs, the inner ends in that namespace;
//! 2. a gate at each inner end that no bridge will keep packets from;
//! 3. where the interface has a `script.up`: what LXC gives the host's end before it, then the
//!    script, as at a start;
//! 4. all that the host's end had at the checkpoint, whoever made it; its routes when the inner end
//!    is up;
//! 5. what other links of the host had for the sake of the container's addresses.
//!
//! Everything goes with the pair, or has its undo in the journal.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};

use crate::lxc::hook::{self, Direction};
use crate::resources::network::state::{self, Target};
use crate::resources::network::{Elsewhere, Port, apply, drop_filter, lxc_defaults, ports};
use crate::restore::actions::{RestoreActions, network_namespace};
use crate::rollback::{DownScript, Undo};
use crate::sys::netlink;

impl RestoreActions<'_> {
    /// Makes them all.
    pub(super) fn make_veths(&mut self, init_pid: Option<i32>) -> Result<()> {
        let plan = self.plan;
        if !plan.veths.is_empty() {
            let netns = network_namespace(init_pid)?;
            let (journal, rehearsed) = (&mut *self.journal, self.onlooker.is_some());
            let made = apply::create(self.netlink, &plan.veths, netns.as_fd(), &mut |new| {
                if rehearsed {
                    // Its other end is in a network namespace that goes with it.
                    return Ok(());
                }
                let mac = new.port.mac_host.context("the plan gives no hardware address")?;
                journal.note(Undo::RemoveVeth { host: new.host.clone(), mac })
            });
            self.made = made.context("make the veth pairs")?;
            let open = plan.veths.iter().filter(|new| new.scripted || new.port.bridge.is_none());
            self.gated = open.map(|new| new.port.inside.clone()).collect();
            drop_filter::close(&self.gated, netns.as_fd())?;
        }
        for (at, new) in plan.veths.iter().enumerate() {
            if new.scripted {
                self.run_script(at, init_pid)?;
            }
            self.put_back(at);
        }
        plan.elsewhere.iter().try_for_each(|elsewhere| self.tell_link(elsewhere))
    }

    /// Runs the `script.up` of a pair's interface. The port may be on a bridge then that was not
    /// there before.
    fn run_script(&mut self, at: usize, init_pid: Option<i32>) -> Result<()> {
        let defined = self.defined;
        let port = &self.made[at];
        let nics = defined.config.nics().iter();
        let Some(nic) =
            nics.into_iter().find(|n| n.script_up.is_some() && n.name_inside() == port.inside)
        else {
            return Ok(());
        };
        let of_lxc =
            lxc_defaults::of_host_end(nic, &lxc_defaults::addresses_of_link(nic, self.netlink)?);
        let set_up =
            of_lxc.put_back(target(port)).and_then(|()| of_lxc.put_routes_back(target(port)));
        set_up.with_context(|| format!("set {} up as LXC does", port.host))?;
        if nic.link.is_some() && !lxc_defaults::is_routed(nic) {
            ports::unlock(self.netlink, std::slice::from_ref(port))?;
        }
        self.journal.note(Undo::RunDownScript(DownScript::of(
            defined,
            self.rcfile.as_deref(),
            nic.index,
            &port.host,
        )))?;
        let mut context = hook::Context::new(defined).with_limit(self.hook_limit);
        if let Some(pid) = init_pid {
            context = context.with_pid(pid);
        }
        hook::run_net_script(nic, Direction::Up, Some(&port.host), &context)
            .context("before the restore")?;
        self.follow(at)
    }

    /// Where a script has put a port, there it belongs.
    fn follow(&mut self, at: usize) -> Result<()> {
        let port = &self.made[at];
        let link = self
            .netlink
            .link_by_index(port.host_index)
            .with_context(|| format!("find {}", port.host))?;
        let bridge = match link.controller {
            Some(index) => Some(self.netlink.link_by_index(index).context("find its bridge")?.name),
            None => match &port.bridge {
                Some(bridge) if self.netlink.link(bridge).is_err() => {
                    bail!(
                        "{} was on the bridge {bridge}, which its script has not made again",
                        port.host
                    )
                }
                recorded => recorded.clone(),
            },
        };
        let port = &mut self.made[at];
        if bridge != port.bridge {
            (port.settings, port.vlans) = (None, None);
        }
        port.bridge = bridge;
        Ok(())
    }

    /// Gives the host's end what it had. What the kernel refuses is told: the container is better
    /// back without it than not at all.
    fn put_back(&mut self, at: usize) {
        let port = &self.made[at];
        let Some(state) = &port.state else { return };
        if let Err(e) = state.put_back(target(port)) {
            let (host, inside) = (&port.host, &port.inside);
            self.log
                .report
                .note(&format!("{host}, the host's end of {inside}, is not as it was: {e:#}"));
        }
    }

    /// Gives the host's ends their routes: the inner ends are up by now.
    pub(super) fn put_routes_back(&mut self) {
        for port in &self.made {
            if let Some(Err(e)) =
                port.state.as_ref().map(|state| state.put_routes_back(target(port)))
            {
                let (host, inside) = (&port.host, &port.inside);
                self.log
                    .report
                    .note(&format!("{host}, the host's end of {inside}, is not as it was: {e:#}"));
            }
        }
    }

    fn tell_link(&mut self, elsewhere: &Elsewhere) -> Result<()> {
        let Elsewhere { link, message } = elsewhere;
        let index = match self.netlink.link(link) {
            Ok(found) => found.index,
            Err(netlink::Error::NotFound) => {
                self.log.report.note(&format!(
                    "{link}, which answered for the container, is not there any more"
                ));
                return Ok(());
            }
            Err(e) => return Err(e).with_context(|| format!("find {link}")),
        };
        let undo = Undo::TakeFromLink(elsewhere.clone());
        self.journal.note(undo.clone())?;
        match state::add_elsewhere(index, message) {
            Ok(true) => Ok(()),
            // Somebody else's, who wants to keep it.
            Ok(false) => self.journal.forget(|step| *step == undo),
            Err(e) => {
                self.log
                    .report
                    .note(&format!("{link} does not answer for the container as it did: {e}"));
                self.journal.forget(|step| *step == undo)
            }
        }
    }
}

fn target(port: &Port) -> Target<'_> {
    Target { index: port.host_index, name: &port.host }
}
