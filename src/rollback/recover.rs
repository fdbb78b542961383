//! After a command that died: what it has left on the host is undone, by the next command or by
//! `lxc-cr recover`.
//!
//! What there is to do stands in two journals of the container's state directory. `journal` is that
//! of the last command; it is empty unless that was cut short. `held` is what a restored container
//! has of the host, for its monitor to take back at its end; if the monitor was killed, we do.
//!
//! The container need not be defined any more, and need not be known by name: its state directory
//! says whose it is.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::error::{self, ErrorList, Exit, Failure};
use crate::lxc::command::Client;
use crate::lxc::config::{Config, NicKind};
use crate::lxc::container;
use crate::lxc::definition::Defined;
use crate::lxc::home::Names;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::protocol::State;
use crate::report::Report;
use crate::resources::cgroup;
use crate::resources::network::ports;
use crate::rollback::Journal;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Container, Operation};
use crate::sys::namespace;
use crate::sys::netlink::Netlink;
use crate::sys::process;

/// What an operation that was not finished leaves in its state directory beside its journals.
const SCRAPS: [&str; 3] = ["control", "pid", "rehearsal"];
/// How other files of that kind begin: one that was to be put in another one's place.
const SCRAPS_BEGIN: [&str; 1] = [".lxc-cr-"];
/// How long an init that was killed may take to end; its processes end before it.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Undoes what a command that died has left on the host, and opens the journal for a new one.
pub(crate) fn before(operation: &Operation, report: &mut dyn Report) -> error::Result<Journal> {
    played_back(&operation.journal(), "a previous command was interrupted; rolling back", report)
}

/// Undoes what a monitor that died has held for its container, which does not run any more.
pub(crate) fn held(operation: &Operation, report: &mut dyn Report) -> error::Result<()> {
    played_back(&operation.held(), "its last monitor has died: undoing what it held", report)
        .map(drop)
}

fn played_back(path: &Path, note: &str, report: &mut dyn Report) -> error::Result<Journal> {
    let mut journal = Journal::open(path)?;
    if !journal.is_empty() {
        report.note(note);
        journal.play_back_telling(&mut |done| report.note(done)).map_err(|e| {
            Failure::new(Exit::RollbackIncomplete, e.context("undo what an earlier command left"))
                .hint("fix the problems above, then run the command again")
        })?;
    }
    Ok(journal)
}

/// A container with a state directory.
#[derive(Debug)]
pub(crate) struct Known {
    dir: PathBuf,
    /// Whose it is; a directory that does not say so is still recovered.
    pub container: Option<Container>,
}

impl Known {
    /// All of them.
    pub(crate) fn all() -> Result<Vec<Known>> {
        Ok(lock::all()?.into_iter().map(|(dir, container)| Known { dir, container }).collect())
    }

    /// One by its name; none if no command of ours has ever worked on it.
    pub(crate) fn find(lxcpath: &Path, name: &str) -> Result<Option<Known>> {
        let dir = Path::new(lock::STATE_ROOT).join(lock::key(lxcpath, name));
        let container = Some(Container { name: name.to_owned(), lxcpath: lxcpath.to_owned() });
        Ok(Known::all()?
            .into_iter()
            .find(|known| known.dir == dir)
            .map(|known| Known { container, ..known }))
    }

    /// What a person calls it.
    pub(crate) fn name(&self) -> String {
        match &self.container {
            Some(container) => container.name.clone(),
            None => self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Undoes all that is left of it, and tells of each thing.
    ///
    /// # Errors
    /// Exit 10 when a command is at work on it, 8 when something could not be undone; the rest is
    /// undone all the same.
    pub(crate) fn recover(&self, tell: &mut dyn FnMut(&str)) -> error::Result<()> {
        let operation = Operation::begin_in(&self.dir, Command::Recover)?;
        let mut errors = ErrorList::default();
        let mut play = |path: PathBuf| {
            errors.note(Journal::open(&path).and_then(|mut journal| match journal.is_empty() {
                true => Ok(()),
                false => journal.play_back_telling(tell),
            }));
        };
        play(self.dir.join("journal"));
        // What a living monitor holds, it needs.
        match self.is_stopped() {
            Ok(true) => play(operation.held()),
            Ok(false) => {}
            Err(e) => errors.note::<()>(Err(e)),
        }
        errors.note(self.rejoin(tell));
        errors.note(self.sweep(tell));
        errors.into_result().map_err(|e| {
            Failure::new(Exit::RollbackIncomplete, e)
                .hint("fix the problems above, then run 'lxc-cr recover' again")
        })
    }

    /// Puts the ports of a running container on the bridges that its configuration names, where
    /// they are on none: a bridge that was deleted and made again has forgotten them.
    fn rejoin(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let Some(Container { name, lxcpath }) = &self.container else { return Ok(()) };
        let Ok(init) = Client::new(&lxcpath.to_string_lossy(), name).init_pid() else {
            return Ok(());
        };
        // A container that is not defined any more may run all the same.
        let Some(config) = ContainerName::new(name).ok().zip(LxcPath::new(lxcpath).ok()).and_then(
            |(name, lxcpath)| {
                Defined::load(&name, &lxcpath, None).ok().map(|defined| defined.config)
            },
        ) else {
            return Ok(());
        };
        let netns = match namespace::network_of(init.as_raw()) {
            // It ends at this moment, and its ports with it.
            Err(_) if process::is_ending(init.as_raw()) => return Ok(()),
            netns => netns.context("open the container's network namespace")?,
        };
        let mut netlink = Netlink::open().context("open a netlink socket")?;
        let mut errors = ErrorList::default();
        for mut port in ports::find(&mut netlink, netns.as_fd())?
            .into_iter()
            .filter(|port| port.bridge.is_none())
        {
            let mut nics = config.nics().iter().filter(|nic| nic.kind == NicKind::Veth);
            let nic = nics.find(|nic| nic.name_inside() == port.inside);
            let Some(bridge) = nic.and_then(|nic| nic.link.clone()) else { continue };
            let joins = format!("{} ({}) is on {bridge} again", port.host, port.inside);
            port.bridge = Some(bridge);
            match ports::unlock(&mut netlink, std::slice::from_ref(&port)) {
                Ok(()) => tell(&joins),
                Err(e) => errors.note::<()>(Err(e)),
            }
        }
        errors.into_result()
    }

    /// Whether nothing of the container runs.
    fn is_stopped(&self) -> Result<bool> {
        let Some(Container { name, lxcpath }) = &self.container else { return Ok(false) };
        let lxcpath = lxcpath.to_string_lossy();
        // A monitor that is just cleaning up does not answer: it is not stopped yet.
        if !matches!(Client::new(&lxcpath, name).state(), Ok(State::Stopped)) {
            return Ok(false);
        }
        let Some(running) = container::find_without_monitor(name, container::Marks::default())?
        else {
            return Ok(true);
        };
        // An init that dies with its monitor does so a moment later: what it had would be left if
        // nobody waited.
        let init = running.init;
        Ok(process::is_killed(init.pid())
            && init.wait_exit(END_LIMIT).context("wait for the end of the container")?)
    }

    /// Removes what nobody needs who has not finished.
    fn sweep(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let mut errors = ErrorList::default();
        for name in crate::sys::files::names(&self.dir)? {
            let text = name.to_string_lossy();
            if SCRAPS.contains(&text.as_ref())
                || SCRAPS_BEGIN.iter().any(|begin| text.starts_with(begin))
            {
                let path = self.dir.join(&name);
                match fs::remove_file(&path) {
                    Ok(()) => tell(&format!("{} removed", path.display())),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => errors
                        .note::<()>(Err(e).with_context(|| format!("remove {}", path.display()))),
                }
            }
        }
        if let Some(container) = &self.container
            && self.is_stopped()?
        {
            errors.note(remove_empty_cgroups(container, tell));
        }
        errors.into_result()
    }
}

/// Removes the cgroups of a container that has ended without its monitor, who would have done it.
/// One in which anything runs is another container's of that name.
fn remove_empty_cgroups(container: &Container, tell: &mut dyn FnMut(&str)) -> Result<()> {
    // Of one that is no longer defined only LXC's own names can be guessed.
    let file = container.lxcpath.join(&container.name).join("config");
    let config = Config::load(&file).or_else(|_| Config::parse(&file, b""))?;
    let names = Names::new(&container.name, &config, None);
    for hierarchy in cgroup::hierarchies()? {
        let base = cgroup::directory(&hierarchy.mount, &cgroup::base(&hierarchy)?)?;
        for dir in [&names.payload, &names.monitor].map(|name| base.join(name)) {
            if !dir.is_dir() || !cgroup::tasks(&dir)?.is_empty() {
                continue;
            }
            cgroup::remove(&dir)?;
            tell(&format!("cgroup {} removed", dir.display()));
        }
    }
    Ok(())
}

/// Recovers one container, or all that are known. `tell` hears the container's name and what was
/// done.
pub(crate) fn recover(
    wanted: Option<(&Path, &str)>,
    tell: &mut dyn FnMut(&str, &str),
) -> error::Result<()> {
    let known = match wanted {
        Some((lxcpath, name)) => Known::find(lxcpath, name)?.into_iter().collect(),
        None => Known::all()?,
    };
    let mut failed: Vec<Failure> = Vec::new();
    for known in &known {
        let name = known.name();
        if let Err(mut failure) = known.recover(&mut |done| tell(&name, done)) {
            failure.cause = anyhow!("{name}: {:#}", failure.cause);
            failed.push(failure);
        }
    }
    let texts: Vec<String> = failed.iter().map(ToString::to_string).collect();
    // What could not be undone weighs more than what is still at work.
    match failed.into_iter().min_by_key(|f| f.exit != Exit::RollbackIncomplete) {
        Some(failure) => Err(Failure { cause: anyhow!(texts.join("; ")), ..failure }),
        None => Ok(()),
    }
}
