//! The dump itself: CRIU runs, and at two of its actions we have something to do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Request, partial};
use crate::criu::control::Control;
use crate::criu::log::{Follower, phase_of_line};
use crate::criu::options::{AfterDump, DUMP_LOG, PRE_DUMP_LOG, PreDump};
use crate::criu::run::{self, Ended, Job, Watch};
use crate::criu::version::Criu;
use crate::net::{Port, ports};
use crate::operation::Operation;
use crate::record::{self, Memory, Record};
use crate::report::Report;
use crate::rollback::{Journal, Undo};
use crate::seal::Sealer;
use crate::settings::Settings;
use crate::sys::files;
use crate::sys::netlink::Netlink;
use crate::sys::signals::Signals;
use crate::sys::spawn::Place;
use crate::sysctl::{self, Sysctls};
use crate::ttys;

use super::plan::Plan;

/// How a dump ended.
#[derive(Debug)]
pub struct Dumped {
    /// CRIU's end.
    pub ended: Ended,
    /// Whether the checkpoint is already complete under its own name.
    pub sealed: bool,
    /// The record; with its images when sealed.
    pub record: Record,
    /// Who takes the checksums of the memory images.
    pub sealer: Sealer,
}

/// Runs CRIU.
///
/// # Errors
/// When CRIU cannot be started or watched; that it failed is told by [`Dumped`].
#[allow(clippy::too_many_arguments)]
pub fn run(
    request: &Request,
    settings: &Settings,
    criu: &Criu,
    plan: Plan,
    operation: &Operation,
    journal: &mut Journal,
    netlink: &mut Netlink,
    report: &mut dyn Report,
) -> Result<Dumped> {
    let dir = partial(&request.images);
    let signals = Signals::of_termination().context("take signals")?;
    let control = Control::listen(&operation.control()).context("listen for CRIU's actions")?;
    // A Ctrl-C at the terminal must reach us, not CRIU: it would leave the tasks half seized.
    let mut place = Place::here().own_session();
    if plan.in_cgroup_namespace {
        let path = format!("/proc/{}/ns/cgroup", plan.dump.tree);
        let namespace = std::fs::File::open(&path).with_context(|| format!("open {path}"))?;
        place = place.in_namespace(namespace.into());
    }
    let job = Job {
        program: &criu.path,
        args: plan.dump.args(),
        place,
        control,
        environment: Vec::new(),
        deadline: deadline(settings),
    };
    let sealer = Sealer::start(&dir)?;
    let net_settings = plan.netns.map(read_net_settings).transpose()?;
    let mut watch = DumpWatch {
        request,
        settings,
        ports: &plan.ports,
        record: plan.record,
        net_settings,
        journal,
        netlink,
        sealed: false,
        log: LogReader::new(dir.join(DUMP_LOG), report),
    };
    watch.log.report.phase("freezing");
    let ended = run::run(job, &signals, &mut watch)?;
    Ok(Dumped { ended, sealed: watch.sealed, record: watch.record, sealer })
}

/// What we do while CRIU dumps.
struct DumpWatch<'a> {
    request: &'a Request,
    settings: &'a Settings,
    ports: &'a [Port],
    record: Record,
    /// Who reads the settings of the container's network.
    net_settings: Option<JoinHandle<Result<Sysctls>>>,
    journal: &'a mut Journal,
    netlink: &'a mut Netlink,
    sealed: bool,
    log: LogReader<'a>,
}

impl DumpWatch<'_> {
    fn add_net_settings(&mut self) {
        match self.net_settings.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(settings))) => self.record.net_settings = settings,
            Some(Ok(Err(e))) => self.log.report.note(&format!("settings of its network are not in the record: {e:#}")),
            Some(Err(_)) => self.log.report.note("settings of its network are not in the record: a thread has crashed"),
        }
    }
}

/// Reads the settings of the container's network while CRIU works.
fn read_net_settings(netns: Arc<File>) -> Result<JoinHandle<Result<Sysctls>>> {
    let read = move || sysctl::read(netns.as_fd());
    std::thread::Builder::new().name("sysctl".to_owned()).spawn(read).context("start a thread")
}

impl Watch for DumpWatch<'_> {
    fn action(&mut self, action: &str, _init_pid: Option<i32>) -> Result<()> {
        match action {
            "network-lock" => {
                let journal = &mut *self.journal;
                ports::lock(self.netlink, self.ports, &mut |port| {
                    journal.note(Undo::PutPortBack(Box::new(port.clone())))
                })
                .context("take the container off its bridge")
            }
            // The tasks are frozen, all images are written, and CRIU waits for us before it ends the tasks.
            "post-dump" => {
                self.add_net_settings();
                if self.request.after != AfterDump::Stop {
                    return Ok(());
                }
                self.log.report.phase("completing the checkpoint");
                self.record = seal(self.request, self.settings, self.record.clone(), Memory::SumsFollow, self.journal)?;
                self.sealed = true;
                self.log.moved(&self.request.images.join(DUMP_LOG));
                Ok(())
            }
            "network-unlock" => {
                ports::unlock(self.netlink, self.ports).context("put the container back on its bridge")?;
                self.journal.forget(|u| matches!(u, Undo::PutPortBack(_)))
            }
            _ => Ok(()),
        }
    }

    fn wants_ticks(&self) -> bool {
        self.log.wanted()
    }

    fn tick(&mut self) {
        self.log.read();
    }
}

/// Runs `criu pre-dump`: it stops the tasks for moments only, and no action of ours is needed.
pub fn run_pre_dump(
    options: &PreDump,
    settings: &Settings,
    criu: &Criu,
    operation: &Operation,
    report: &mut dyn Report,
) -> Result<Ended> {
    let signals = Signals::of_termination().context("take signals")?;
    let job = Job {
        program: &criu.path,
        args: options.args(),
        place: Place::here().own_session(),
        control: Control::listen(&operation.control()).context("listen for CRIU's actions")?,
        environment: Vec::new(),
        deadline: deadline(settings),
    };
    let mut watch = LogReader::new(options.images.join(PRE_DUMP_LOG), report);
    watch.report.phase("copying memory");
    run::run(job, &signals, &mut watch)
}

/// When a run of CRIU is to be given up.
pub fn deadline(settings: &Settings) -> Option<Instant> {
    (settings.timeout > 0).then(|| Instant::now() + Duration::from_secs(settings.timeout))
}

/// Makes a checkpoint of the images in `DIR.partial`: record, disk, name. Where the checksums of memory images are to
/// follow, [`add_sums`] does it: the container need not stand still for them.
pub fn seal(
    request: &Request,
    settings: &Settings,
    mut record: Record,
    memory: Memory,
    journal: &mut Journal,
) -> Result<Record> {
    let dir = partial(&request.images);
    files::make_files_private(&dir)?;
    // Better now, while the container can go on, than at its restart.
    ttys::resolve_controlling(&dir, &record.ttys)?;
    record.images = record::measure_images(&dir, memory)?;
    record.write(&dir)?;
    if settings.sync {
        files::sync_file_system(&dir)?;
    }
    put_in_place(&dir, &request.images)?;
    // The directory under the old name is now a checkpoint that was replaced, or gone.
    if !dir.exists() {
        journal.forget(|u| matches!(u, Undo::RemoveImages { .. }))?;
    }
    Ok(record)
}

/// Completes the record of a checkpoint that is in its place.
pub fn add_sums(request: &Request, record: &mut Record, sealer: Sealer) -> Result<()> {
    record.add_sums(&sealer.finish()?);
    record.write(&request.images)
}

/// Gives the directory its name. What has it now is swapped for it in one step.
pub fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("rename {} to {}", from.display(), to.display());
    let replaces = files::names(to).is_ok_and(|names| !names.is_empty());
    if replaces {
        files::exchange(from, to).with_context(what)?;
    } else {
        std::fs::rename(from, to).with_context(what)?;
    }
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => files::sync_dir(parent),
        _ => files::sync_dir(Path::new(".")),
    }
}

/// CRIU's log while it grows, told as phases and, if wanted, line by line.
#[derive(Debug)]
pub struct LogReader<'a> {
    follower: Follower,
    /// Who is told.
    pub report: &'a mut dyn Report,
    phase: String,
}

impl<'a> LogReader<'a> {
    /// Reads this log, which need not be there yet.
    pub fn new(path: PathBuf, report: &'a mut dyn Report) -> LogReader<'a> {
        LogReader { follower: Follower::new(&path), report, phase: String::new() }
    }

    /// The log has another name now.
    fn moved(&mut self, path: &Path) {
        self.follower = Follower::from_offset(path, self.follower.offset());
    }

    /// Whether anybody wants to be told.
    pub fn wanted(&self) -> bool {
        self.report.wants_log() || self.report.wants_phases()
    }

    /// Tells what has come.
    pub fn read(&mut self) {
        // A log that cannot be read now is told of when CRIU has ended.
        for line in self.follower.lines().unwrap_or_default() {
            if self.report.wants_log() {
                self.report.log_line(&line);
            }
            if let Some(phase) = phase_of_line(&line) {
                let text = phase.to_string();
                if text != self.phase {
                    self.report.phase(&text);
                    self.phase = text;
                }
            }
        }
    }
}

/// A run in which nothing is to be done but to watch.
impl Watch for LogReader<'_> {
    fn action(&mut self, _action: &str, _init_pid: Option<i32>) -> Result<()> {
        Ok(())
    }

    fn wants_ticks(&self) -> bool {
        self.wanted()
    }

    fn tick(&mut self) {
        self.read();
    }
}
