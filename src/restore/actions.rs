//! What we do at CRIU's actions, while it restores.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::criu::action_env::Action;
use crate::criu::log::reader::LogReader;
use crate::criu::run::{GiveUp, Giving, Watch};
use crate::error::ErrorList;
use crate::lxc::config::HookKind;
use crate::lxc::definition::Defined;
use crate::lxc::hook;
use crate::resources::cgroup::confine::InForce;
use crate::resources::network::interfaces::{self, PhysInterface, PhysInterfaces};
use crate::resources::network::{
    NoBridge, Port, apply, drop_filter, inside, iptables, multicast, ports, sysctl,
};
use crate::resources::states::{self, States, own_calls};
use crate::resources::{cgroup, mounts};
use crate::restore::cgroups::Made;
use crate::restore::links;
use crate::restore::plan::Plan;
use crate::restore::prefault::Prefault;
use crate::rollback::criu_cgroup::{self, CriuCgroup};
use crate::rollback::{Journal, Undo};
use crate::store::resume_mark;
use crate::sys::namespace;
use crate::sys::netlink::{self, Netlink};
use crate::sys::process;

/// Who looks at a restored container, and ends it before it runs.
pub(crate) trait Onlooker: std::fmt::Debug {
    /// All is back and put right, and stands still; it is ended when this returns.
    fn look(&mut self, init: Option<i32>, payload: &Path) -> Result<()>;
}

/// The watch over a restore.
pub(super) struct RestoreActions<'a> {
    pub netlink: &'a mut Netlink,
    pub journal: &'a mut Journal,
    pub plan: &'a Plan,
    /// The container as it is defined.
    pub defined: &'a Defined,
    /// Another configuration file than its own.
    pub rcfile: Option<PathBuf>,
    /// How long a script of the user's may take.
    pub hook_limit: Duration,
    /// The veth pairs that were made.
    pub made: Vec<Port>,
    /// The interfaces that nothing reaches yet.
    pub gated: Vec<String>,
    /// What it has of the host.
    pub phys_interfaces: PhysInterfaces,
    /// The pid of the restored init, when CRIU has told it.
    pub init: Option<i32>,
    /// Whether packets may reach it.
    pub on_bridge: bool,
    /// Why they cannot, all the same.
    pub cut_off: Option<anyhow::Error>,
    /// Whether what CRIU leaves was mended.
    pub mended: bool,
    /// Whether the tasks are frozen until they have set states by calls of their own.
    pub waits_for_calls: bool,
    /// Why they would be less safe than before: then they were ended.
    pub less_safe: Option<anyhow::Error>,
    /// The cgroups.
    pub cgroups: &'a Made,
    /// Where CRIU works once it may leave them.
    pub criu_cgroup: &'a CriuCgroup,
    /// The directory of cgroup2's, in which all tasks are.
    pub payload: &'a Path,
    /// What holds it back, as far as it is in force.
    pub in_force: InForce,
    /// The container's own directory.
    pub own_dir: PathBuf,
    /// The thread that compares the checksums of memory images.
    pub verification: Option<JoinHandle<Result<()>>>,
    /// The thread that loads its profile of AppArmor.
    pub loading: Option<JoinHandle<Result<()>>>,
    /// The checkpoint.
    pub images: &'a Path,
    /// Whether its memory comes later. A page that is made ahead would keep out what belongs there.
    pub lazy: bool,
    /// What makes the pages of its memory meanwhile.
    pub prefault: Option<Prefault>,
    /// Who only wants to see what is restored: beside the container that still is there, reached by
    /// nothing, and never let go.
    pub onlooker: Option<&'a mut dyn Onlooker>,
    pub log: LogReader<'a>,
}

impl RestoreActions<'_> {
    /// Waits for the checksums, and says whether they were right.
    pub(super) fn verified(&mut self) -> Result<()> {
        end_of(self.verification.take(), "compares checksums")
    }

    /// Waits for the profile to be loaded.
    pub(super) fn loaded(&mut self) -> Result<()> {
        end_of(self.loading.take(), "loads its AppArmor profile")
            .context("load its AppArmor profile")
    }

    /// Makes what is in the namespace that CRIU has just made for init: all of it, or only the veth
    /// pairs.
    fn make_network(&mut self, init_pid: Option<i32>) -> Result<()> {
        let Some((inside, settings)) = &self.plan.inside else { return self.make_veths(init_pid) };
        let netns = network_namespace(init_pid)?;
        let (early, of_interfaces) = sysctl::before_interfaces(settings);
        let mut notes = sysctl::apply(netns.as_fd(), &early)?;
        self.make_veths(init_pid)?;
        notes.extend(sysctl::apply(netns.as_fd(), &of_interfaces)?);
        notes.extend(sysctl::apply(netns.as_fd(), &self.plan.net_settings)?);
        notes.iter().for_each(|note| self.log.report.note(note));
        inside::fill(netns.as_fd(), inside)
    }

    /// Makes or moves its other interfaces into the namespace that CRIU has just made for init.
    fn bring_in_devices(&mut self, init_pid: Option<i32>) -> Result<()> {
        if self.plan.devices.is_empty() {
            return Ok(());
        }
        let netns = network_namespace(init_pid)?;
        let (journal, rehearsed) = (&mut *self.journal, self.onlooker.is_some());
        let mut note = |phys_interface: &PhysInterface| match rehearsed {
            // It comes from a network namespace that goes with it.
            true => Ok(()),
            false => journal.note(Undo::BringBack(phys_interface.clone())),
        };
        let init = init_pid.unwrap_or_default();
        interfaces::bring_in(
            self.netlink,
            &self.plan.devices,
            netns.as_fd(),
            init,
            &mut self.phys_interfaces,
            &mut note,
        )
    }

    /// Lets packets reach them.
    fn open_devices(&self) -> Result<()> {
        let devices = self.plan.devices.iter().map(|device| device.inside.clone());
        let closed: Vec<String> = devices.chain(self.gated.iter().cloned()).collect();
        if closed.is_empty() {
            return Ok(());
        }
        drop_filter::open(&closed, network_namespace(self.init)?.as_fd())
    }

    /// CRIU has restored it all, but goes on where a script fails in the end: what was to be done
    /// then is done now.
    pub(super) fn do_what_was_missed(&mut self) -> Result<()> {
        let has_network = !self.made.is_empty() || !self.plan.devices.is_empty();
        let locked = !self.on_bridge && has_network;
        for (missed, action) in [(locked, Action::NetworkUnlock), (!self.mended, Action::PreResume)]
        {
            if missed {
                self.log.report.note(&format!(
                    "CRIU's action script has failed at {}: it is done late",
                    action.name()
                ));
                self.action(&action, None)?;
            }
        }
        Ok(())
    }

    /// Ends what was frozen for [`RestoreActions::hold_for_calls`].
    ///
    /// # Errors
    /// When processes would be less safe than before. They were ended.
    pub(super) fn complete_states(&mut self) -> Result<()> {
        if self.waits_for_calls {
            self.have_states_set();
        }
        self.less_safe
            .take()
            .map_or(Ok(()), |e| Err(e.context("restore states that guard its processes")))
    }

    /// What the processes have to set by calls of their own they cannot set before CRIU lets them
    /// go: until then they are frozen.
    fn hold_for_calls(&mut self) {
        if self.plan.states.as_ref().is_some_and(States::need_calls) {
            self.waits_for_calls = true;
            if let Err(e) = cgroup::set_frozen(self.payload, true) {
                self.end_as_less_safe(e);
            }
        }
    }

    /// CRIU has let go of them.
    fn have_states_set(&mut self) {
        self.waits_for_calls = false;
        let Some(states) = &self.plan.states else { return };
        match own_calls::restore(self.payload, &states.own_calls, &states.alarms) {
            Ok(missed) => missed.iter().for_each(|missed| self.log.report.note(missed)),
            Err(e) => self.end_as_less_safe(e),
        }
    }

    fn end_as_less_safe(&mut self, why: anyhow::Error) {
        // Else the journal does it.
        if let Err(e) = cgroup::kill(self.payload) {
            log::warn!("{e:#}");
        }
        self.waits_for_calls = false;
        self.less_safe.get_or_insert(why);
    }

    /// Adds the routes that CRIU does not bring back; one that cannot be added is told.
    fn add_routes(&mut self, init_pid: Option<i32>) {
        let routes = &self.plan.routes;
        if !routes.is_empty()
            && let Err(e) =
                network_namespace(init_pid).and_then(|n| apply::add_routes(n.as_fd(), routes))
        {
            self.log.report.note(&format!("{e:#}"));
        }
    }

    /// Gives its network namespace what CRIU has not; what is refused is told.
    fn give_within(&mut self, init_pid: Option<i32>) -> Result<()> {
        let plan = self.plan;
        if !plan.iptables.is_empty() {
            // Without its rules a container must not run.
            iptables::restore(network_namespace(init_pid)?.as_fd(), &plan.iptables)
                .context("restore its rules")?;
        }
        let Some(within) = &plan.within else { return Ok(()) };
        let netns = network_namespace(init_pid)?;
        within.put_back(netns.as_fd()).iter().for_each(|note| self.log.report.note(note));
        Ok(())
    }

    /// Sets what CRIU has left as in a new network namespace; one that cannot be set is told.
    fn set_net(&mut self, init_pid: Option<i32>) -> Result<()> {
        if self.plan.net_settings.is_empty() || self.plan.inside.is_some() {
            return Ok(());
        }
        let notes = sysctl::apply(network_namespace(init_pid)?.as_fd(), &self.plan.net_settings)?;
        notes.iter().for_each(|note| self.log.report.note(note));
        Ok(())
    }

    /// The `lxc.hook.start-host` hooks, as at a start: init is there and has not run yet.
    fn run_start_host(&self) -> Result<()> {
        if self.defined.config.hooks(HookKind::StartHost).is_empty() {
            return Ok(());
        }
        let init = self.init.context("CRIU does not say which process init is")?;
        let context = hook::Context::new(self.defined).with_pid(init).with_limit(self.hook_limit);
        hook::run_all(HookKind::StartHost, &context).context("before the container runs")
    }

    /// Tells the neighbours of a container that is new to them.
    fn announce(&mut self, init_pid: Option<i32>) {
        if self.plan.is_copy
            && let Err(e) =
                network_namespace(init_pid).and_then(|n| apply::announce(n.as_fd(), &self.made))
        {
            self.log.report.note(&format!("{e:#}"));
        }
    }

    /// Puts limits and device rules in force. They are not CRIU's, nor those of the scripts that it
    /// has yet to run, which may want as little as /dev/null: it leaves the container's cgroups for
    /// ours.
    fn confine(&mut self) -> Result<()> {
        let monitor = self.cgroups.monitor.iter();
        let ours: Vec<_> = monitor
            .map(|c| if c.hierarchy.is_unified() { self.criu_cgroup.cgroup() } else { c })
            .collect();
        cgroup::move_our_kind(self.payload, &ours)
            .context("move CRIU out of the container's cgroups")?;
        let payload = &self.cgroups.payload;
        self.in_force =
            self.plan.confinement.apply(payload).context("confine the container as before")?;
        self.in_force.notes.iter().for_each(|note| self.log.report.note(note));
        Ok(())
    }
}

/// Waits for a thread, and says how its work came out.
#[expect(
    clippy::disallowed_methods,
    reason = "it reads images, as CRIU does, or waits for a program with a limit"
)]
fn end_of(thread: Option<JoinHandle<Result<()>>>, what: &str) -> Result<()> {
    match thread.map(JoinHandle::join) {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(anyhow!("the thread that {what} has crashed")),
    }
}

pub(super) fn network_namespace(init_pid: Option<i32>) -> Result<File> {
    let init = init_pid.context("CRIU does not say which process init is")?;
    namespace::network_of(init).context("open the container's network namespace")
}

impl RestoreActions<'_> {
    /// The bridges were there when we began; later a container that misses one would run all the
    /// same.
    fn look_for_bridges(&mut self) -> Result<()> {
        for bridge in self.made.iter().filter_map(|port| port.bridge.as_deref()) {
            match self.netlink.link(bridge) {
                Err(netlink::Error::NotFound) => {
                    return Err(NoBridge { name: bridge.to_owned() }.into());
                }
                found => drop(found.with_context(|| format!("find the bridge {bridge}"))?),
            }
        }
        Ok(())
    }
}

impl Watch for RestoreActions<'_> {
    fn action(&mut self, action: &Action, init_pid: Option<i32>) -> Result<()> {
        self.init = init_pid.or(self.init);
        match action {
            // Init is there, in namespaces that are still empty.
            Action::SetupNamespaces => {
                self.make_network(init_pid)?;
                self.bring_in_devices(init_pid)
            }
            // Init is at its place among the cgroups, still alone, and its interfaces have their
            // addresses.
            Action::PostSetupNamespaces => {
                self.add_routes(init_pid);
                self.put_routes_back();
                self.give_within(init_pid)?;
                self.plan.confinement.set_structure(self.payload)?;
                if self.onlooker.is_none() && !self.lazy {
                    self.prefault =
                        init_pid.and_then(|init| Prefault::start(self.images, self.payload, init));
                }
                Ok(())
            }
            // All is restored and stands still: the last moment at which CRIU heeds a no.
            Action::PostRestore => {
                if let Some(prefault) = self.prefault.take() {
                    prefault.end();
                }
                self.look_for_bridges()?;
                self.set_net(init_pid)?;
                links::allow(self.payload)?;
                if let Some(init) = self.init.filter(|_| !self.plan.mount_flags.is_empty()) {
                    mounts::mend_flags(init, &self.plan.mount_flags)?;
                }
                let missed =
                    states::States::restore_early(self.plan.states.as_ref(), self.payload)?;
                missed.iter().for_each(|missed| self.log.report.note(missed));
                self.confine()?;
                self.verified()?;
                self.loaded()?;
                if self.onlooker.is_some() {
                    return Ok(());
                }
                self.run_start_host()?;
                // From its first instruction on, what was suspended is of the past.
                self.journal
                    .note(Undo::Mark { container: self.own_dir.clone(), has_run: false })?;
                match resume_mark::clear_mark(&self.own_dir)? {
                    true => Ok(()),
                    false => self.journal.forget(|undo| matches!(undo, Undo::Mark { .. })),
                }
            }
            Action::NetworkUnlock => {
                self.on_bridge = true;
                if self.onlooker.is_some() {
                    return self.open_devices();
                }
                let mark = |has_run| Undo::Mark { container: self.own_dir.clone(), has_run };
                let noted = match self.journal.steps().contains(&mark(false)) {
                    true => self.journal.exchange(&mark(false), mark(true)),
                    false => Ok(()),
                };
                // CRIU does not heed a no any more: the container will run.
                let mut errors = ErrorList::default();
                errors.note(noted);
                errors.note(ports::unlock(self.netlink, &self.made));
                errors.note(self.open_devices());
                self.cut_off = errors.into_result().err();
                self.announce(init_pid);
                Ok(())
            }
            // All is back and still stopped. CRIU does not heed a no any more.
            Action::PreResume => {
                self.mended = true;
                let groups = multicast::rejoin(self.payload, &self.plan.groups);
                let filters = states::core_filters::set(self.payload, &self.plan.core_filters);
                let states =
                    states::States::restore(self.plan.states.as_ref(), self.payload, self.init);
                let files =
                    self.init.map_or(Ok(()), |init| states::tmpfs::restore(init, &self.plan.tmpfs));
                for e in [states, groups, filters, files].into_iter().filter_map(Result::err) {
                    self.log.report.note(&format!("{e:#}"));
                }
                let (init, payload) = (self.init, self.payload);
                if let Some(onlooker) = self.onlooker.as_mut() {
                    return onlooker.look(init, payload);
                }
                self.hold_for_calls();
                Ok(())
            }
            // None is traced any more. Before scripts of the user's, which may wait for the
            // container.
            Action::PostResume if self.waits_for_calls => {
                self.have_states_set();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pulse(&mut self) -> Option<u64> {
        // When the first of them run again, they tell nothing of CRIU any more.
        let restored = if self.on_bridge { 0 } else { criu_cgroup::cpu_time(self.payload) };
        Some(self.criu_cgroup.cpu_time().wrapping_add(restored).wrapping_add(self.log.size()))
    }

    fn nudge(&mut self) {
        self.criu_cgroup.nudge();
    }

    fn wants_ticks(&self) -> bool {
        self.log.wanted() || self.on_bridge
    }

    fn tick(&mut self) {
        self.log.read();
        self.log.tell_amount(self.images);
    }

    fn is_lost(&mut self, child_ended: bool) -> bool {
        // At the end CRIU traces the tasks, and an init that is killed then hangs in its own end:
        // its children, traced by a CRIU that waits for init, are collected by nobody.
        let ending = || self.init.is_some_and(process::is_ending);
        // Until it is known which one init is, it may be the compiler of the profile that has
        // ended.
        let compiling = self.loading.as_ref().is_some_and(|thread| !thread.is_finished());
        let lost = child_ended && if self.init.is_some() { ending() } else { !compiling };
        lost || (self.on_bridge && (self.log.tells_of_a_crash() || ending()))
    }

    fn give_up(&mut self, why: GiveUp) -> Giving {
        // The peers of its connections have heard of it by now: what they say is received, and
        // would be lost.
        let has_peers = self.on_bridge && self.onlooker.is_none();
        if has_peers && !matches!(why, GiveUp::Lost | GiveUp::Standstill) {
            return Giving::TooLate;
        }
        // Unlike a dump, a restore can be ended before that at any moment: all that it has made is
        // in this cgroup.
        if let Err(e) = cgroup::kill(self.payload) {
            log::warn!("{e:#}");
        }
        Giving::Now
    }
}
