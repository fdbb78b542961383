//! The dump itself: CRIU runs, and at three of its actions we have something to do.
//!
//! From the moment on at which all tasks are dumped the freezer holds them, too: were CRIU killed
//! now, they would run with sockets in repair mode and lose their connections. When CRIU lets the
//! network go, their sockets are well again.

use std::fs::{self};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::Request;
use super::limits::Limits;
use crate::checkpoint::directories::{Target, partial, seal};
use crate::criu::action_env::Action;
use crate::criu::control::Control;
use crate::criu::log::reader::LogReader;
use crate::criu::options::{AfterDump, DUMP_LOG};
use crate::criu::run::{self, Ended, GiveUp, Giving, Job, Watch};
use crate::criu::version::Criu;
use crate::error::{ErrorList, Failure};
use crate::lxc::container::Running;
use crate::lxc::definition::Defined;
use crate::rehearse::{self, Rehearsed};
use crate::report::Report;
use crate::resources::cgroup::{self, Cgroup};
use crate::resources::network::drop_filter::DropFilter;
use crate::resources::network::{Port, interfaces, ports};
use crate::restore::beside::Asked;
use crate::rollback::criu_cgroup::CriuCgroup;
use crate::rollback::killed_dump::Seized;
use crate::rollback::lock::Operation;
use crate::rollback::{Journal, Undo, uncommit};
use crate::settings::{Rehearse, Settings};
use crate::store::checksums::Memory;
use crate::store::hasher::{Disk, Sealer};
use crate::store::record::Record;
use crate::sys::netlink::Netlink;
use crate::sys::spawn::Place;
use crate::sys::{process, timerfd};

use super::plan::Plan;
use super::surroundings::{self, Surroundings};
use super::{asked, links};

/// How a dump ended.
#[derive(Debug)]
pub(crate) struct Dumped {
    /// CRIU's end.
    pub ended: Ended,
    /// Whether the checkpoint is already complete under its own name, and its container is no more.
    pub sealed: bool,
    /// Whether a container that goes on does so, and has its network.
    pub let_go: bool,
    /// The directory of the images.
    pub target: Target,
    /// The record; with its images when sealed.
    pub record: Record,
    /// Who takes the checksums of the memory images.
    pub sealer: Sealer,
    /// What the rehearsal of its restore has shown, if there was one.
    pub rehearsal: Option<Rehearsed>,
    /// Why the rehearsal keeps it from being ended.
    pub refused: Option<Failure>,
}

/// What a dump is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means<'a> {
    /// What is asked.
    pub request: &'a Request,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// The CRIU that dumps.
    pub criu: &'a Criu,
    /// The container as it is defined.
    pub defined: &'a Defined,
    /// And as it runs.
    pub running: &'a Running,
    /// Its payload cgroups.
    pub payload: &'a [Cgroup],
    /// What CRIU lays its hands on.
    pub seized: &'a Seized,
    /// Our right to change the container.
    pub operation: &'a Operation,
    /// What ends us before it is done.
    pub limits: &'a Limits,
}

/// Runs CRIU.
///
/// # Errors
/// When CRIU cannot be started or watched; that it failed is told by [`Dumped`].
pub(crate) fn run<'a>(
    means: &'a Means<'a>,
    mut plan: Plan,
    target: Target,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<Dumped> {
    let Means { request, settings, criu, defined, running, payload, seized, operation, limits } =
        *means;
    let dir = partial(&request.images);
    let control = Control::listen(&operation.control()).context("listen for CRIU's actions")?;
    let criu_cgroup = CriuCgroup::open(operation.dir())?;
    let mut place = place(&criu_cgroup)?;
    let (images, held, number) = target.for_criu().context("hold the images")?;
    plan.dump.common.images = images;
    place = place.keep(held, number);
    if plan.in_cgroup_namespace {
        let path = format!("/proc/{}/ns/cgroup", plan.dump.tree);
        let namespace = std::fs::File::open(&path).with_context(|| format!("open {path}"))?;
        place = place.in_namespace(namespace.into());
    }
    if let Some(path) = plan.search_path {
        place = place.search_path(path);
    }
    let job = Job {
        program: &criu.path,
        args: plan.dump.args(),
        place,
        control,
        environment: Vec::new(),
        deadline: limits.deadline,
    };
    let disk = if settings.sync { Disk::IsWaitedFor } else { Disk::IsNotWaitedFor };
    let sealer = Sealer::start(&dir, disk)?;
    let surroundings = Surroundings {
        net_settings: plan.netns.clone().map(surroundings::read_net_settings).transpose()?,
        netns: plan.netns,
        own_calls: asked::ask(seized, payload, journal, report)?,
        began: timerfd::now(libc::CLOCK_REALTIME).context("read the clock")?,
        config: &defined.config,
        payload,
        seized,
    };
    let mut watch = DumpActions {
        means,
        rehearsal: None,
        refused: None,
        request,
        target,
        settings,
        ports: &plan.ports,
        gates: DropFilter::of(
            interfaces::without_bridge(&plan.record.devices, &plan.ports),
            &running.init,
        ),
        record: plan.record,
        surroundings,
        payload,
        seized,
        criu_cgroup: &criu_cgroup,
        thawed: Vec::new(),
        heard: Vec::new(),
        journal,
        netlink,
        sealed: false,
        let_go: false,
        log: LogReader::new(dir.join(DUMP_LOG), report),
    };
    watch.log.report.phase("freezing");
    watch.journal.note(Undo::Release(Box::new(seized.clone())))?;
    let ended = run::run(job, &limits.signals, &mut watch);
    if request.after == AfterDump::LeaveRunning
        && ended.as_ref().is_ok_and(Ended::success)
        && !watch.let_go
    {
        // There is no such action without a network of the container's own, and CRIU goes on where
        // it fails.
        if let Err(e) = watch.let_go() {
            // The journal has it, and is played back at the end.
            log::info!("{e:#}");
        }
    }
    watch.freeze_again();
    let goes_on = !ended.as_ref().is_ok_and(Ended::success) && seized.goes_on();
    if goes_on {
        watch.journal.play_back_these(&|undo| matches!(undo, Undo::Unseal { .. }))?;
    }
    let (sealed, let_go) = (watch.sealed && !goes_on, watch.let_go);
    let DumpActions { target, record, rehearsal, refused, .. } = watch;
    Ok(Dumped { ended: ended?, sealed, let_go, target, record, sealer, rehearsal, refused })
}

/// Where CRIU lives that lays its hands on tasks that run. A Ctrl-C at the terminal must reach us,
/// not CRIU: it would leave them half seized. Nor must the host's lack of memory end it. It may be
/// forbidden to write, to make it give up.
pub(super) fn place(criu_cgroup: &CriuCgroup) -> Result<Place> {
    let place = Place::here().own_session().in_cgroups(vec![criu_cgroup.door()?]);
    Ok(place.spared().heeds_no_file_limit())
}

/// What we do while CRIU dumps.
struct DumpActions<'a> {
    means: &'a Means<'a>,
    rehearsal: Option<Rehearsed>,
    refused: Option<Failure>,
    request: &'a Request,
    target: Target,
    settings: &'a Settings,
    ports: &'a [Port],
    /// Those that are closed meanwhile.
    gates: Option<DropFilter>,
    record: Record,
    surroundings: Surroundings<'a>,
    payload: &'a [Cgroup],
    seized: &'a Seized,
    criu_cgroup: &'a CriuCgroup,
    /// What the container had frozen by itself.
    thawed: Vec<PathBuf>,
    /// The actions of which we have heard before the user's script, and hear again after it.
    heard: Vec<Action>,
    journal: &'a mut Journal,
    netlink: &'a mut Netlink,
    sealed: bool,
    /// The container has its network and runs.
    let_go: bool,
    log: LogReader<'a>,
}

impl DumpActions<'_> {
    /// CRIU has its code run in each task, and waits for ever for one that is frozen in a cgroup of
    /// the container's own. It could not even put that task back. Says whether there was any that
    /// is thawed now.
    fn has_thawed_below(&mut self) -> bool {
        let Some(payload) = &self.seized.cgroup else { return false };
        let frozen = cgroup::frozen_below(payload).unwrap_or_default();
        let mut thaw = |dir: &Path| -> Result<()> {
            self.journal.note(asked::frozen_again(dir)?)?;
            cgroup::set_frozen(dir, false)
        };
        let thawed: Vec<_> = frozen.into_iter().filter(|dir| thaw(dir).is_ok()).collect();
        thawed.iter().for_each(|dir| {
            log::warn!("CRIU waits for what is frozen: {} is thawed", dir.display())
        });
        self.thawed.extend(thawed.iter().cloned());
        !thawed.is_empty()
    }

    /// What was thawed for CRIU is frozen again.
    fn freeze_again(&mut self) {
        for dir in self.thawed.drain(..) {
            // What cannot be frozen now stays in the journal.
            let frozen = cgroup::set_frozen(&dir, true).and_then(|()| asked::frozen_again(&dir));
            if let Err(e) = frozen.and_then(|step| self.journal.forget(|undo| *undo == step)) {
                self.log.report.note(&format!("it was frozen before: {e:#}"));
            }
        }
    }

    /// Whether the user's script has yet to see this action.
    fn is_early(&mut self, action: &Action) -> bool {
        let early = self.request.user_script.is_some() && !self.heard.contains(action);
        if early {
            self.heard.push(action.clone());
        }
        early
    }

    /// The tasks are stopped, all images are written, and CRIU waits for us before it ends the
    /// tasks or lets them go on.
    fn complete(&mut self) -> Result<()> {
        self.seized.hold().context("freeze the container")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.record.still_ns = i64::try_from(now.as_nanos()).ok();
        let images = partial(&self.request.images);
        self.record.looked_through = links::refuse(&images, self.seized.init)?;
        self.surroundings.read(&mut self.record, &images, self.log.report)?;
        self.rehearse()?;
        if self.request.after == AfterDump::Stop {
            self.log.report.phase("completing the checkpoint");
            self.journal.note(uncommit::of(&self.request.images, self.seized)?)?;
            self.record = seal(
                self.request,
                &self.target,
                self.settings,
                self.record.clone(),
                Memory::SumsFollow,
            )?;
            self.sealed = true;
            self.log.moved(&self.request.images.join(DUMP_LOG));
        }
        Ok(())
    }

    /// Restores the container once beside itself, before it is ended.
    fn rehearse(&mut self) -> Result<()> {
        let Means { request, settings, criu, defined, operation, limits, .. } = *self.means;
        let when = request.rehearse.unwrap_or(settings.rehearse);
        // One that goes on loses nothing by a checkpoint that cannot be restored, unless that is
        // what was asked.
        if when == Rehearse::Never
            || (request.after == AfterDump::LeaveRunning && request.rehearse.is_none())
        {
            return Ok(());
        }
        let asked = Asked {
            images: &partial(&request.images),
            record: &self.record,
            defined,
            config: request.config.as_deref(),
            criu,
            settings,
            operation,
            action_script: &request.action_script,
            deadline: limits.deadline,
            signals: &limits.signals,
        };
        let accept: Vec<String> = settings.accept.iter().chain(&request.accept).cloned().collect();
        let (init, payload) = (self.seized.init, self.payload);
        let subject = rehearse::Subject { asked, init, payload, when, accept: &accept };
        match rehearse::rehearse(&subject, self.journal, self.log.report) {
            Ok(rehearse::Outcome::LeftOut(why)) => {
                self.log.report.note(&format!("its restore was not rehearsed: {why}"));
                Ok(())
            }
            Ok(rehearse::Outcome::Rehearsed(rehearsed)) => {
                for difference in &rehearsed.differences {
                    let text = format!("after a restore it differs in {difference}");
                    match when {
                        Rehearse::Always => self.log.report.note(&text),
                        Rehearse::Auto | Rehearse::Never => log::info!("{text}"),
                    }
                }
                self.record.differences.clone_from(&rehearsed.differences);
                self.rehearsal = Some(rehearsed);
                Ok(())
            }
            Err(failure) => {
                let told = anyhow::anyhow!("{failure}");
                self.refused = Some(failure);
                Err(told)
            }
        }
    }

    /// The sockets are well again, and nothing that CRIU has yet to do can harm the tasks.
    fn let_go(&mut self) -> Result<()> {
        let mut errors = ErrorList::default();
        errors.note(
            ports::unlock(self.netlink, self.ports).context("put the container back on its bridge"),
        );
        errors.note(self.gates.as_ref().map_or(Ok(()), DropFilter::open));
        errors.note(self.seized.thaw().context("thaw the container"));
        errors.into_result()?;
        self.let_go = true;
        self.journal.forget(|u| matches!(u, Undo::PutPortBack(_) | Undo::OpenGates(_)))
    }
}

impl Watch for DumpActions<'_> {
    fn action(&mut self, action: &Action, _init_pid: Option<i32>) -> Result<()> {
        if self.is_early(action) {
            return match action {
                Action::PostDump => self.seized.hold().context("freeze the container"),
                _ => Ok(()),
            };
        }
        match action {
            Action::NetworkLock => {
                let journal = &mut *self.journal;
                ports::lock(self.netlink, self.ports, &mut |port| {
                    journal.note(Undo::PutPortBack(Box::new(port.clone())))
                })
                .context("take the container off its bridge")?;
                if let Some(gates) = &self.gates {
                    self.journal.note(Undo::OpenGates(gates.clone()))?;
                    gates.close()?;
                }
                Ok(())
            }
            Action::PostDump => self.complete(),
            Action::NetworkUnlock => self.let_go(),
            _ => Ok(()),
        }
    }

    fn is_lost(&mut self, _child_ended: bool) -> bool {
        // When the checkpoint is complete, CRIU ends the container.
        !self.sealed && process::is_ending(self.seized.init)
    }

    fn give_up(&mut self, why: GiveUp) -> Giving {
        match why {
            GiveUp::Standstill if self.has_thawed_below() => Giving::TooLate,
            GiveUp::Lost | GiveUp::Standstill => Giving::Now,
            // The container is about to be ended, and its checkpoint is complete.
            _ if self.sealed => Giving::TooLate,
            _ => Giving::AtNextAction,
        }
    }

    fn pulse(&mut self) -> Option<u64> {
        Some(pulse(self.criu_cgroup, &partial(&self.request.images)))
    }

    fn nudge(&mut self) {
        self.criu_cgroup.nudge();
    }

    fn wants_ticks(&self) -> bool {
        self.log.wanted()
    }

    fn tick(&mut self) {
        self.log.read();
        self.log.tell_amount(&partial(&self.request.images));
    }
}

/// What changes as long as CRIU gets on: the time that it uses, and what it writes.
pub(super) fn pulse(criu_cgroup: &CriuCgroup, images: &Path) -> u64 {
    let files = fs::read_dir(images).into_iter().flatten().flatten();
    let written: u64 = files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    criu_cgroup.cpu_time().wrapping_add(written)
}
