//! A restore beside the container that it is of, which stands still meanwhile: a *twin*, restored
//! to be looked at and ended before it runs.
//!
//! CRIU and we do for it what we do in a [restore](super::restore), by the same [`Plan`] and the
//! same [watch](RestoreActions), so that what fails here would fail there, and what is put right
//! there is put right here. What the twin has of the host is not the host's own, and [`Scene`] says
//! what it is instead. Left out is what others would notice: hooks and scripts of the user's,
//! bridges, what is told of the container's addresses, the AppArmor profile (loaded already), LXC's
//! command socket, the monitor's cgroup, and the pages that are otherwise made in advance.
//!
//! No task of the twin ever runs: CRIU is to leave all of them stopped, and they and it are killed
//! at its last action, while it still traces them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Request;
use super::actions::RestoreActions;
use super::assess::{place_of, root_of};
use super::attempt::unified;
use super::cgroups::{self, Made, Wanted};
use super::failure::failure_of;
use super::failure::no_plan;
use super::open::lend_images;
use super::plan::{self, Plan};
use super::preflight::{self, Subject, Weight};
use super::sandbox;
use crate::criu::control::Control;
use crate::criu::log::reader::LogReader;
use crate::criu::options::{External, RESTORE_LOG};
use crate::criu::run::{self, Job};
use crate::criu::version::Criu;
use crate::error::{Exit, Failure, Result};
use crate::lxc::definition::Defined;
use crate::report::Report;
use crate::resources::cgroup::confine::InForce;
use crate::resources::cgroup::{self, Cgroup};
use crate::resources::network::interfaces::PhysInterfaces;
use crate::resources::rootfs::{Held, Root};
use crate::resources::terminals;
use crate::rollback::criu_cgroup::CriuCgroup;
use crate::rollback::lock::Operation;
use crate::rollback::{Journal, Undo};
use crate::settings::Settings;
use crate::store::record::Record;
use crate::sys::files;
use crate::sys::mount::Detached;
use crate::sys::netlink::Netlink;
use crate::sys::signals::Signals;
use crate::sys::spawn::Place;

pub(crate) use super::actions::Onlooker;

/// How the name of the twin's cgroup begins and ends; the container's key is in between.
const CGROUP: [&str; 2] = ["lxc-cr.", ".twin"];
/// The socket at which its CRIU's action script asks.
const CONTROL: &str = "rehearsal";
/// The file with its init's pid, in CRIU's own place.
const PIDFILE: &str = "rehearsal-pid";
/// What CRIU writes beside the images, besides its log.
const STATISTICS: &str = "stats-restore";
/// CRIU is to leave what it restores stopped (criu/cr-restore.c: SIGSTOP before the tasks are let
/// go).
const LEAVE_STOPPED: &str = "--leave-stopped";

/// A twin to be restored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The complete images.
    pub images: &'a Path,
    /// What was recorded with them.
    pub record: &'a Record,
    /// The container.
    pub defined: &'a Defined,
    /// Another configuration file than its own.
    pub config: Option<&'a Path>,
    /// The CRIU that restores.
    pub criu: &'a Criu,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// Our right to change the container.
    pub operation: &'a Operation,
    /// Our action script.
    pub action_script: &'a Path,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// The signals that end us before it is done.
    pub signals: &'a Signals,
}

/// What a twin has in place of the host's.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Its root.
    pub root: Held,
    /// What it has mounted from the host, by the names in the images. What is missing is the host's
    /// own.
    pub mounts: BTreeMap<String, Detached>,
    /// The network namespace in which the other ends of its interfaces are, and CRIU.
    pub network: &'a File,
    /// A socket in there.
    pub netlink: &'a mut Netlink,
}

/// How a twin will be restored.
#[derive(Debug)]
pub(crate) struct Twin<'a> {
    asked: Asked<'a>,
    request: Request,
    root: Root,
    plan: Plan,
}

impl<'a> Twin<'a> {
    /// Decides; nothing is made.
    ///
    /// # Errors
    /// What a restore itself would refuse here and now.
    pub(crate) fn plan(
        asked: Asked<'a>,
        older_mount_engine: bool,
        netlink: &mut Netlink,
    ) -> Result<Twin<'a>> {
        let Asked { images, record, defined, criu, settings, .. } = asked;
        let request = Request {
            name: defined.name.clone(),
            lxcpath: defined.lxcpath.clone(),
            config: asked.config.map(Path::to_owned),
            images: images.to_owned(),
            veth: BTreeMap::new(),
            action_script: asked.action_script.to_owned(),
            user_script: None,
            tcp_close: false,
            force: false,
            replace: false,
            dry_run: false,
        };
        let root = root_of(defined)?;
        let subject =
            Subject { images, record: Some(record), copy: None, defined, criu, beside: true };
        let place = place_of(&root, &subject)?;
        let terminals = terminals::make(&record.ttys).context("make the twin's terminals")?;
        let plan =
            plan::plan(&request, settings, &subject, terminals, place, netlink).map_err(no_plan)?;
        let plan = Plan { older_mount_engine, ..plan.beside(asked.operation)? };
        Ok(Twin { asked, request, root, plan })
    }

    /// The directories and files of the host that it has mounted, by the names in the images.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.plan.mounts.iter().filter_map(|mount| match mount {
            External::Mount { key, path } if self.is_of_host(key) => {
                Some((key.as_str(), path.as_path()))
            }
            _ => None,
        })
    }

    /// Where in it is something of the host's, or in place of that.
    pub(crate) fn points(&self) -> BTreeSet<PathBuf> {
        let binds = self.asked.record.externals.iter().map(|external| external.point.clone());
        let terminals =
            self.plan.terminals.iter().flat_map(|t| &t.tty.points).map(|point| point.path.clone());
        binds.chain(terminals).chain([PathBuf::from("/")]).collect()
    }

    /// Not a terminal, which is new.
    fn is_of_host(&self, key: &str) -> bool {
        !self.plan.terminals.iter().flat_map(|t| &t.tty.points).any(|point| point.key == key)
    }

    /// The interfaces of the host that it would need.
    pub(crate) fn host_interfaces(&self) -> impl Iterator<Item = &str> {
        self.plan.devices.iter().map(|device| device.from.host())
    }

    /// The root that the configuration names.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// What a restore would refuse for certain, with the root as it is now.
    pub(crate) fn doubts_of_root(&self, mounted: &Path) -> Result<Option<String>> {
        let Asked { images, record, defined, criu, .. } = self.asked;
        let subject =
            Subject { images, record: Some(record), copy: None, defined, criu, beside: true };
        let mut reasons = subject.of_definition().map_err(no_plan)?;
        // What hooks put there is not where the host sees it.
        if !subject.root_may_come_from_hooks() {
            reasons.extend(subject.of_root(&self.root, mounted).map_err(no_plan)?);
        }
        reasons.retain(|reason| reason.weight == Weight::Certain);
        Ok(preflight::judge(&subject.called(), reasons, false)
            .err()
            .map(|refused| refused.to_string()))
    }

    /// Restores it, has it looked at, and ends it.
    ///
    /// # Errors
    /// Why it could not be restored. What was made is in the journal.
    pub(crate) fn restore(
        &mut self,
        scene: &mut Scene<'_>,
        onlooker: &mut dyn Onlooker,
        journal: &mut Journal,
        report: &mut dyn Report,
    ) -> Result<()> {
        let criu_cgroup = CriuCgroup::beside(self.asked.operation.dir())?;
        let made = self.make_cgroups(&criu_cgroup, journal)?;
        let payload = unified(&made.payload)?.dir.clone();
        let inode = cgroup::identity(&payload)?;
        journal.note(Undo::EndTasks { cgroup: payload.clone(), inode })?;
        let mut ending =
            Ending { onlooker, payload: &payload, criu_cgroup: &criu_cgroup, seen: false };
        let lent = lend_images(self.asked.images, self.asked.defined, journal)?;
        let outcome = self.run_criu(scene, &made, &mut ending, journal, report);
        for dir in lent {
            files::make_private(&dir)?;
        }
        let seen = ending.seen;
        drop(criu_cgroup);
        match (outcome, seen) {
            (_, true) => Ok(()),
            (Err(failure), false) => Err(failure),
            (Ok(()), false) => {
                Err(Failure::msg(Exit::CriuFailed, "CRIU has not come to its last action"))
            }
        }
    }

    fn make_cgroups(&self, criu_cgroup: &CriuCgroup, journal: &mut Journal) -> Result<Made> {
        let mut note = |path: &Path, identity: Option<i64>| {
            let step = |inode| Undo::RemoveCgroup { path: path.to_owned(), inode };
            match identity {
                None => journal.note(step(None)),
                Some(_) => journal.exchange(&step(None), step(identity)),
            }
        };
        let payload = cgroups::make_payload(&self.plan.cgroups, &self.plan.confinement, &mut note)?;
        // Where CRIU goes when it leaves the twin's.
        let ours = self.plan.cgroups.iter().map(|wanted| -> Result<Cgroup> {
            if wanted.hierarchy.is_unified() {
                return Ok(criu_cgroup.cgroup().clone());
            }
            let path = cgroup::own_base(&wanted.hierarchy)?;
            Ok(Cgroup::plain(
                wanted.hierarchy.clone(),
                cgroup::directory(&wanted.hierarchy.mount, &path)?,
            ))
        });
        Ok(Made { monitor: ours.collect::<Result<_>>()?, payload })
    }

    fn run_criu(
        &self,
        scene: &mut Scene<'_>,
        made: &Made,
        ending: &mut Ending<'_>,
        journal: &mut Journal,
        report: &mut dyn Report,
    ) -> Result<()> {
        let Asked { images, operation, criu, defined, .. } = self.asked;
        let log_file = images.join(RESTORE_LOG);
        let control_path = operation.dir().join(CONTROL);
        let pidfile = operation.dir().join(PIDFILE);
        let control = Control::listen(&control_path).context("listen for CRIU's actions")?;
        let mut criu_options = self.plan.criu(&self.request, &made.payload, &pidfile);
        criu_options.common.extra.push(LEAVE_STOPPED.into());
        let needs = sandbox::Needs {
            lazy_socket: None,
            lazy_images: &[],
            request: &self.request,
            plan: &self.plan,
            control: &control_path,
            pidfile: &pidfile,
            program: &criu.path,
            root: &scene.root,
            guest: defined.config.guest().map(|guest| guest.gid),
            looked_through: self.asked.record.looked_through,
            covers: &scene.mounts,
        };
        let sandbox = sandbox::make(&needs).context("make the place in which CRIU works")?;
        let mut place = Place::here()
            .own_session()
            .dies_with_us()
            .within(sandbox)
            .personality(self.plan.personality);
        if defined.config.has_own_keyring() {
            place = place.own_keyring();
        }
        let network: OwnedFd =
            scene.network.try_clone().context("hold the twin's surroundings")?.into();
        place = place.in_namespace(network).in_cgroups(self.doors(made, ending.criu_cgroup)?);
        if self.plan.cgroup_namespace {
            place = place.own_cgroup_namespace();
        }
        for (fd, inherited) in self.plan.handed_over()?.into_iter().zip(self.plan.inherited()) {
            place = place.keep(fd, inherited.number);
        }
        let job = Job {
            program: &criu.path,
            args: sandbox::seen(criu_options, &self.plan, &self.request).args(),
            place,
            control,
            environment: Vec::new(),
            deadline: self.asked.deadline,
        };
        let (payload, criu_cgroup) = (ending.payload, ending.criu_cgroup);
        let mut watch = RestoreActions {
            lazy: false,
            netlink: scene.netlink,
            journal,
            plan: &self.plan,
            defined,
            rcfile: None,
            hook_limit: Duration::ZERO,
            made: Vec::new(),
            gated: Vec::new(),
            phys_interfaces: PhysInterfaces::default(),
            init: None,
            on_bridge: false,
            cut_off: None,
            mended: false,
            cgroups: made,
            criu_cgroup,
            payload,
            in_force: InForce::default(),
            own_dir: defined.dir(),
            verification: None,
            loading: None,
            images,
            prefault: None,
            less_safe: None,
            waits_for_calls: false,
            onlooker: Some(ending),
            log: LogReader::new(log_file.clone(), report),
        };
        let ended = run::run(job, self.asked.signals, &mut watch)?;
        let crashed = watch.log.tells_of_a_crash();
        match ended.success() {
            true => Ok(()),
            false => Err(failure_of(ended, crashed, images).log(log_file)),
        }
    }

    /// The cgroups in which CRIU is born.
    fn doors(&self, made: &Made, criu_cgroup: &CriuCgroup) -> Result<Vec<OwnedFd>> {
        if !self.plan.born_there && !self.plan.cgroup_namespace {
            return Ok(vec![criu_cgroup.door()?]);
        }
        Ok(made
            .payload
            .iter()
            .map(|cgroup| cgroup::open_procs(&cgroup.home()))
            .collect::<anyhow::Result<_>>()?)
    }
}

/// Removes what CRIU has written beside the images.
pub(crate) fn remove_traces(images: &Path) -> anyhow::Result<()> {
    [RESTORE_LOG, STATISTICS].iter().try_for_each(|name| files::remove_if_there(&images.join(name)))
}

/// Has the twin looked at, and ends it.
#[derive(Debug)]
struct Ending<'a> {
    onlooker: &'a mut dyn Onlooker,
    payload: &'a Path,
    criu_cgroup: &'a CriuCgroup,
    /// When all stood still.
    seen: bool,
}

impl Onlooker for Ending<'_> {
    fn look(&mut self, init: Option<i32>, payload: &Path) -> anyhow::Result<()> {
        self.seen = true;
        let looked = self.onlooker.look(init, payload);
        // First the tasks: those that CRIU lets go by its own end would run. And then CRIU itself,
        // for it waits for the end of an init that waits for the others, which CRIU does not
        // collect.
        cgroup::kill(self.payload).context("end the twin")?;
        self.criu_cgroup.end_all().context("end the twin's CRIU")?;
        looked
    }
}

impl Plan {
    /// The same for a twin: nothing leads out, and nothing is told to others.
    fn beside(mut self, operation: &Operation) -> Result<Plan> {
        let key = operation
            .dir()
            .file_name()
            .context("a state directory without a name")?
            .to_string_lossy();
        let [begin, end] = CGROUP;
        for wanted in &mut self.cgroups {
            let name = PathBuf::from(format!("{begin}{key}{end}"));
            *wanted = Wanted {
                payload: cgroup::base(&wanted.hierarchy)?.join(name),
                exact: false,
                ..wanted.clone()
            };
        }
        for veth in &mut self.veths {
            veth.scripted = false;
            (veth.port.bridge, veth.port.state) = (None, None);
        }
        self.elsewhere.clear();
        self.profile = None;
        Ok(self)
    }
}
