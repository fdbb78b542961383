//! The part of a restore that changes the host: the container's hooks, its cgroups, CRIU, and what
//! CRIU leaves to do.
//!
//! Each change is noted in the journal before it is made, and [`Work::undo`] takes all of it back.
//! So whoever holds a [`Work`] can do one of two things after it failed: tell the failure, or do
//! the same work again on a clean host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::criu::control::Control;
use crate::criu::log::reader::LogReader;
use crate::criu::options::RESTORE_LOG;
use crate::criu::run::{self, Job};
use crate::criu::version::Criu;
use crate::error::{ErrorList, Exit, Failure, Result};
use crate::lxc::config::HookKind;
use crate::lxc::definition::Defined;
use crate::lxc::hook;
use crate::report::Report;
use crate::resources::apparmor::Profile;
use crate::resources::cgroup::confine::InForce;
use crate::resources::cgroup::{self, Cgroup};
use crate::resources::network::Port;
use crate::resources::network::interfaces::PhysInterfaces;
use crate::resources::rootfs::{Held, Root};
use crate::restore::lazy::{self, Decision, Filling};
use crate::rollback::criu_cgroup::CriuCgroup;
use crate::rollback::lock::Operation;
use crate::rollback::{Journal, Undo};
use crate::settings::Lazy;
use crate::store::record::Record;
use crate::store::verify::Comparison;
use crate::sys::netlink::Netlink;
use crate::sys::process::Process;
use crate::sys::sandbox::Inside;
use crate::sys::signals::Signals;
use crate::sys::spawn::Place;
use crate::sys::{self, files};

use super::Request;
use super::assess::look_at_root;
use super::cgroups::{self, Made};
use super::failure::{damaged, damaged_or_not, failure_of};
use super::open::lend_images;
use super::plan::Plan;
use crate::restore::actions::RestoreActions;
use crate::restore::preflight::{self, Subject};
use crate::restore::sandbox::{self, HOST_VARIABLE, USER_SCRIPT_VARIABLE};

/// What a restore is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    /// What is asked.
    pub request: &'a Request,
    /// Whether the memory images' checksums are to be compared.
    pub verify: bool,
    /// Whether memory may come later.
    pub lazy: Lazy,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// The container.
    pub defined: &'a Defined,
    /// The checkpoint's record, if it has one.
    pub record: Option<&'a Record>,
    /// The CRIU that restores.
    pub criu: &'a Criu,
    /// Where the container's root is.
    pub root: &'a Root,
    /// What the root is compared with.
    pub subject: Subject<'a>,
    /// Our right to change the container.
    pub operation: &'a Operation,
    /// The signals that end us before it is done.
    pub signals: &'a Signals,
}

/// A restore that is being done, or being undone.
#[derive(Debug)]
pub(super) struct Work<'a> {
    inputs: Inputs<'a>,
    plan: &'a Plan,
    journal: &'a mut Journal,
    netlink: &'a mut Netlink,
    /// The cgroups, once they are made.
    cgroups: Made,
    /// What the container has of the host.
    phys_interfaces: PhysInterfaces,
    /// What fills its memory, where that comes later.
    filling: Option<Filling>,
    /// Whether the container's pre-start hooks have run, so that its post-stop hooks have something
    /// to take back.
    hooks_ran: bool,
}

/// What a restore has made.
#[derive(Debug)]
pub(super) struct Running {
    /// The container's first process, our child.
    pub init: Process,
    /// Its cgroups.
    pub payload: Vec<Cgroup>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// What it has of the host.
    pub phys_interfaces: PhysInterfaces,
    /// Its device programs, on the payload cgroup.
    pub in_force: InForce,
    /// What fills its memory, where that comes later.
    pub filling: Option<Filling>,
    /// Why it is not on its network, though it runs.
    pub cut_off: Option<anyhow::Error>,
    /// How long CRIU ran.
    pub took: Duration,
}

impl<'a> Work<'a> {
    /// Nothing is done yet.
    pub(super) fn new(
        inputs: Inputs<'a>,
        plan: &'a Plan,
        journal: &'a mut Journal,
        netlink: &'a mut Netlink,
    ) -> Work<'a> {
        let (cgroups, phys_interfaces) = (Made::default(), PhysInterfaces::default());
        Work {
            inputs,
            plan,
            journal,
            netlink,
            cgroups,
            phys_interfaces,
            filling: None,
            hooks_ran: false,
        }
    }

    /// Does it. `held` is the root, if it was found good already; else it is looked at once the
    /// hooks have run.
    pub(super) fn run(&mut self, held: Option<Held>, report: &mut dyn Report) -> Result<Running> {
        report.phase("running hooks");
        self.run_hooks()?;
        let root = match held {
            Some(held) => held,
            None => self.hold_root(report)?,
        };

        report.phase("making cgroups");
        self.cgroups = self.make_cgroups()?;

        report.phase("restoring");
        let mut running = match self.run_criu(&root, report) {
            Ok(running) => running,
            Err(failure) => return Err(self.reason(failure)),
        };
        for (cgroup, wanted) in running.payload.iter().zip(&self.plan.cgroups) {
            if wanted.tree.as_ref().is_some_and(|tree| tree.frozen) {
                cgroup::set_frozen(&cgroup.home(), true)?;
            }
        }
        running.phys_interfaces = std::mem::take(&mut self.phys_interfaces);
        running.filling = self.filling.take();
        Ok(running)
    }

    /// Where memory could not be completed the tasks were ended, and whatever came upon that is not
    /// the reason.
    fn reason(&mut self, failure: Failure) -> Failure {
        match self.filling.as_mut().and_then(Filling::failure) {
            Some(cause) => damaged_or_not(&self.inputs.request.images, cause),
            None => failure,
        }
    }

    fn run_hooks(&mut self) -> Result<()> {
        let Inputs { defined, deadline, .. } = self.inputs;
        self.hooks_ran = true;
        hook::run_all(
            HookKind::PreStart,
            &hook::Context::new(defined).with_limit(hook_limit(deadline)),
        )
        .context("before the restore")?;
        Ok(())
    }

    /// Mounts the root that the hooks may have put into its place.
    fn hold_root(&self, report: &mut dyn Report) -> Result<Held> {
        let Inputs { subject, root, request, .. } = self.inputs;
        let (held, reasons) = look_at_root(&subject, root)?;
        preflight::judge(&subject.called(), reasons, request.force)?
            .iter()
            .for_each(|note| report.note(note));
        Ok(held)
    }

    /// Runs CRIU, does at its actions what is ours to do, and holds what it has restored.
    fn run_criu(&mut self, root: &Held, report: &mut dyn Report) -> Result<Running> {
        let Inputs { request, operation, .. } = self.inputs;
        let cgroups = self.cgroups.clone();
        let payload = unified(&cgroups.payload)?.dir.clone();
        let log_file = request.images.join(RESTORE_LOG);
        let verification = self.prepare_memory(&payload, report)?;
        let mut asked = self.plan.criu(request, &cgroups.payload, &operation.pidfile());
        asked.lazy = self.filling.is_some();
        let control = Control::listen(&operation.control()).context("listen for CRIU's actions")?;
        let criu_cgroup = CriuCgroup::open(operation.dir())?;
        let (place, inside) = self.place(root, &criu_cgroup)?;
        let job = Job {
            program: &self.inputs.criu.path,
            args: sandbox::seen(asked, self.plan, request).args(),
            place,
            control,
            environment: self.environment(),
            deadline: self.inputs.deadline,
        };
        self.journal
            .note(Undo::CleanRoot { root: self.inputs.root.clone(), log: log_file.clone() })?;
        let own_dir = self.inputs.defined.dir();
        if let Some(Profile { name, namespace, .. }) = &self.plan.profile {
            let (name, namespace) = (name.clone(), namespace.clone());
            self.journal.note(Undo::UnloadProfile { dir: own_dir.clone(), name, namespace })?;
        }
        let inode = cgroup::identity(&payload)?;
        // Played back before that: those who are confined by it have to be gone.
        self.journal.note(Undo::EndTasks { cgroup: payload.clone(), inode })?;
        let mut watch = RestoreActions {
            netlink: self.netlink,
            journal: self.journal,
            plan: self.plan,
            defined: self.inputs.defined,
            rcfile: request.config.clone(),
            hook_limit: hook_limit(self.inputs.deadline),
            made: Vec::new(),
            gated: Vec::new(),
            phys_interfaces: PhysInterfaces::default(),
            init: None,
            on_bridge: false,
            cut_off: None,
            mended: false,
            waits_for_calls: false,
            less_safe: None,
            cgroups: &cgroups,
            criu_cgroup: &criu_cgroup,
            payload: &payload,
            in_force: InForce::default(),
            own_dir,
            verification,
            loading: None,
            images: &request.images,
            lazy: self.filling.is_some(),
            prefault: None,
            onlooker: None,
            log: LogReader::new(log_file.clone(), report),
        };
        let lent = lend_images(&request.images, self.inputs.defined, watch.journal)?;
        let ended = start_loading(self.plan.profile.clone(), &watch.own_dir).and_then(|loading| {
            watch.loading = loading;
            run::run(job, self.inputs.signals, &mut watch)
        });
        // Also where it was ended before: what is still being loaded could not be taken away.
        let loaded = watch.loaded();
        self.phys_interfaces = std::mem::take(&mut watch.phys_interfaces);
        for dir in lent {
            files::make_private(&dir)?;
        }
        watch.journal.forget(|undo| matches!(undo, Undo::TakeBackImages { .. }))?;
        let ended = ended?;
        if !ended.success() {
            // CRIU stumbles over a damaged image too: then the damage is the reason, not what CRIU
            // says of it.
            watch.verified().map_err(|e| damaged(&request.images, e))?;
            loaded?;
            if let Some(e) = self.filling.as_mut().and_then(Filling::failure) {
                return Err(damaged_or_not(&request.images, e));
            }
            let crashed = watch.log.tells_of_a_crash();
            return Err(failure_of(ended, crashed, &request.images).log(log_file));
        }
        criu_cgroup.hand_over(&payload)?;
        watch.do_what_was_missed()?;
        watch.complete_states().map_err(|e| Failure::new(Exit::CriuFailed, e).log(log_file))?;
        self.plan.confinement.tidy(&payload)?;
        let (ports, in_force) =
            (std::mem::take(&mut watch.made), std::mem::take(&mut watch.in_force));
        let cut_off = watch.cut_off.take();
        Ok(Running {
            init: self.hold_init(&inside)?,
            payload: cgroups.payload,
            ports,
            phys_interfaces: PhysInterfaces::default(),
            filling: None,
            in_force,
            cut_off,
            took: ended.took,
        })
    }

    fn make_cgroups(&mut self) -> Result<Made> {
        let journal = &mut *self.journal;
        let mut note = |path: &Path, identity: Option<i64>| {
            let step = |inode| Undo::RemoveCgroup { path: path.to_owned(), inode };
            match identity {
                None => journal.note(step(None)),
                Some(_) => journal.exchange(&step(None), step(identity)),
            }
        };
        let made = cgroups::make(&self.plan.cgroups, &self.plan.confinement, &mut note)?;
        let missing = self.plan.confinement.missing(&made.payload);
        if !missing.is_empty() {
            return Err(Failure::msg(
                Exit::Refused,
                format!("this host cannot limit it as before: {}", missing.join(", ")),
            )
            .hint(
                "enable the controllers in cgroup.subtree_control of the cgroups above, or change \
                 the limits back before the checkpoint",
            ));
        }
        Ok(made)
    }

    /// Where CRIU starts its life, and our way to what it writes there.
    fn place(&self, root: &Held, criu_cgroup: &CriuCgroup) -> Result<(Place, Inside)> {
        let Inputs { request, operation, defined, criu, record, .. } = self.inputs;
        let needs = sandbox::Needs {
            request,
            plan: self.plan,
            control: &operation.control(),
            pidfile: &operation.pidfile(),
            program: &criu.path,
            root,
            guest: defined.config.guest().map(|guest| guest.gid),
            lazy_socket: self.filling.as_ref().map(Filling::socket),
            lazy_images: self.filling.as_ref().map(Filling::marked).unwrap_or_default(),
            looked_through: record.is_some_and(|record| record.looked_through),
            covers: &BTreeMap::new(),
        };
        let sandbox = sandbox::make(&needs).context("make the place in which CRIU works")?;
        let inside = sandbox.inside().context("hold the place in which CRIU works")?;
        // A Ctrl-C at the terminal must reach us, who can undo things.
        // Without us nobody would be there to end what it restores.
        let mut place = Place::here().own_session().dies_with_us().within(sandbox);
        place = place.personality(self.plan.personality);
        if self.filling.is_some() {
            place = place.small_pages();
        }
        if self.inputs.defined.config.has_own_keyring() {
            place = place.own_keyring();
        }
        if self.plan.born_there || self.plan.cgroup_namespace {
            let procs =
                self.cgroups.payload.iter().map(|cgroup| cgroup::open_procs(&cgroup.home()));
            place = place.in_cgroups(procs.collect::<anyhow::Result<_>>()?);
        } else {
            place = place.in_cgroups(vec![criu_cgroup.door()?]);
        }
        if self.plan.cgroup_namespace {
            place = place.own_cgroup_namespace();
        }
        for (fd, inherited) in self.plan.handed_over()?.into_iter().zip(self.plan.inherited()) {
            place = place.keep(fd, inherited.number);
        }
        Ok((place, inside))
    }

    /// What the user's action script needs to find back to the host's tree.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some(script) = &self.inputs.request.user_script else { return Vec::new() };
        let namespace = format!("/proc/{}/ns/mnt", std::process::id());
        vec![(USER_SCRIPT_VARIABLE, script.into()), (HOST_VARIABLE, namespace.into())]
    }

    /// Decides whether its memory comes first or follows, and begins to compare the checksums of
    /// what CRIU reads itself. Before the images are lent to the container's root, which changes
    /// them.
    fn prepare_memory(
        &mut self,
        payload: &Path,
        report: &mut dyn Report,
    ) -> Result<Option<Verification>> {
        let Inputs { request, defined, record, operation, .. } = self.inputs;
        let images = &request.images;
        let id_mapped = defined.config.guest().is_some();
        match lazy::decide(self.inputs.lazy, record, images, id_mapped)
            .map_err(|e| damaged(images, e))?
        {
            Decision::Eager(note) => {
                note.iter().for_each(|note| report.note(note));
                self.start_verification()
            }
            Decision::Lazy(source) => {
                let verify = source.verifier()?;
                self.filling = Some(Filling::start(source, images, payload, operation.dir())?);
                start_thread(verify).map(Some)
            }
        }
    }

    fn start_verification(&self) -> Result<Option<Verification>> {
        let Some(record) = self.inputs.record.filter(|_| self.inputs.verify) else {
            return Ok(None);
        };
        let images = &self.inputs.request.images;
        let comparison = Comparison::of_memory(record, images).map_err(|e| damaged(images, e))?;
        start_thread(move || comparison.make()).map(Some)
    }

    fn hold_init(&self, inside: &Inside) -> Result<Process> {
        let path = self.inputs.operation.pidfile();
        let text = inside.read(&path).with_context(|| format!("read {}", path.display()))?;
        let pid: i32 =
            text.trim().parse().with_context(|| format!("{} names no pid", path.display()))?;
        let init = Process::open(pid).context("hold the restored init")?;
        if sys::process::parent(pid).ok() != Some(std::process::id() as i32) {
            return Err(Failure::msg(
                Exit::Other,
                format!("process {pid}, which CRIU restored, is not our child"),
            ));
        }
        Ok(init)
    }

    /// Ends what CRIU may have begun, plays the journal back, and tells how things stand.
    pub(super) fn undo(&mut self, mut failure: Failure) -> Failure {
        let mut errors = ErrorList::default();
        // The process that belongs to it is in our cgroup.
        self.filling = None;
        // Our own cgroup goes, too.
        errors.note(cgroups::pivots(&self.plan.cgroups).and_then(|pivots| cgroups::leave(&pivots)));
        errors.note(std::mem::take(&mut self.phys_interfaces).bring_back());
        errors.note(self.journal.play_back());
        reap_children();
        if self.hooks_ran {
            let stopped = hook::Context::new(self.inputs.defined).with_target(hook::Target::Stop);
            errors.note(hook::run_all(HookKind::PostStop, &stopped));
        }
        let name = &self.inputs.request.name;
        failure.state = Some(format!("{name} is stopped, its checkpoint is as before"));
        if let Err(e) = errors.into_result() {
            failure.exit = Exit::RollbackIncomplete;
            failure.cause = anyhow!("{:#}; undoing it: {e:#}", failure.cause);
        }
        failure
    }
}

type Verification = JoinHandle<anyhow::Result<()>>;

fn start_thread(
    verify: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Result<Verification> {
    Ok(std::thread::Builder::new()
        .name("verify".to_owned())
        .spawn(verify)
        .context("start a thread")?)
}

/// How long a hook may take, now.
fn hook_limit(deadline: Option<Instant>) -> Duration {
    deadline.map_or(hook::LIMIT, |d| d.saturating_duration_since(Instant::now()).min(hook::LIMIT))
}

/// cgroup2's, which is always among them.
pub(super) fn unified(payload: &[Cgroup]) -> anyhow::Result<&Cgroup> {
    payload
        .iter()
        .find(|c| c.hierarchy.is_unified())
        .context("no cgroup2 file system is mounted on this host")
}

/// Begins to load its profile of AppArmor: compiling it takes longer than most of what CRIU does.
fn start_loading(
    profile: Option<Profile>,
    dir: &Path,
) -> anyhow::Result<Option<JoinHandle<anyhow::Result<()>>>> {
    let (Some(profile), dir) = (profile, dir.to_owned()) else { return Ok(None) };
    let load = move || profile.load(&dir);
    std::thread::Builder::new()
        .name("apparmor".to_owned())
        .spawn(load)
        .context("start a thread")
        .map(Some)
}

/// Takes the exit status of children that have ended, so that no zombie keeps a cgroup busy.
#[expect(clippy::disallowed_methods, reason = "WNOHANG")]
fn reap_children() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
