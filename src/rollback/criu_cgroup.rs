//! The cgroup in which CRIU works: with it ends all that it has started.
//!
//! CRIU starts helpers (it tries the kernel's features out in some, one of them stopped), tools and
//! scripts. Where CRIU is killed they go on, or stand still for ever, as nobody's children. So CRIU
//! is born in a cgroup of ours beside the container's, `lxc-cr.KEY`, or is moved there as soon as
//! it need not be in the container's any more. When it has ended, what is left in there is killed.
//!
//! The cgroup's name is that of the container's state directory, and who has the container's lock
//! has the cgroup. So a command finds what a dead one has left without any note of it ([`clear`]).
//! None of CRIU's processes holds the lock.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::criu::pulse::Pulse;
use crate::resources::cgroup::{self, Cgroup, Hierarchy};
use crate::sys::process::{self, Process};

/// How its name begins.
const NAME: &str = "lxc-cr.";
/// How that of a second one ends.
const BESIDE: &str = ".rehearsal";
/// How long processes that were killed may take to be gone. One that waits in the kernel for longer
/// is left to it.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long the CRIU of a command that died may take to put the container's tasks back; killed
/// earlier, it would leave them half seized.
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);
/// How long it may do nothing at all meanwhile.
const ORPHAN_STANDSTILL: Duration = Duration::from_secs(2);
/// Between two looks at what nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Between two looks at whether a CRIU gets on.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);
/// What CRIU does to a running container, as its command line says it: killed, it leaves tasks half
/// seized.
const DUMPS: [&str; 2] = ["dump", "pre-dump"];

/// A cgroup in which a CRIU works. It ends with the value, and all that is in it.
#[derive(Debug)]
pub(crate) struct CriuCgroup {
    cgroup: Cgroup,
}

impl CriuCgroup {
    /// Makes it for the container whose state directory (of its lock) this is. What a dead command
    /// has left there was cleared when this one began.
    pub(crate) fn open(state: &Path) -> Result<CriuCgroup> {
        let cgroup = place_of(state, "")?;
        cgroup::make_if_missing(&cgroup)?;
        Ok(CriuCgroup { cgroup })
    }

    /// One for a second CRIU of the same command, beside the first.
    pub(crate) fn beside(state: &Path) -> Result<CriuCgroup> {
        let cgroup = place_of(state, BESIDE)?;
        cgroup::make_if_missing(&cgroup)?;
        Ok(CriuCgroup { cgroup })
    }

    /// The cgroup itself.
    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its `cgroup.procs`, open so that a process can be born in it.
    pub(crate) fn door(&self) -> Result<OwnedFd> {
        cgroup::open_procs(&self.cgroup.dir)
    }

    /// The CPU time that CRIU and its helpers have used in here.
    pub(crate) fn cpu_time(&self) -> u64 {
        cpu_time(&self.cgroup.dir)
    }

    /// Continues what somebody has stopped in here.
    pub(crate) fn nudge(&self) {
        for pid in cgroup::tasks(&self.cgroup.dir)
            .unwrap_or_default()
            .into_iter()
            .filter(|p| cgroup::is_our_kind(*p))
        {
            if let Err(e) = Process::open(pid).and_then(|process| process.signal(libc::SIGCONT)) {
                log::debug!("continue process {pid}: {e}");
            }
        }
    }

    /// Ends all that works in here, at once.
    pub(crate) fn end_all(&self) -> Result<()> {
        cgroup::kill(&self.cgroup.dir)
    }

    /// A container runs again: tasks of it that were born in here, and that CRIU has moved nowhere,
    /// go to its own cgroup.
    pub(crate) fn hand_over(&self, payload: &Path) -> Result<()> {
        for pid in
            cgroup::tasks(&self.cgroup.dir)?.into_iter().filter(|pid| !cgroup::is_our_kind(*pid))
        {
            match cgroup::enter(payload, pid) {
                // One that has ended meanwhile needs no place.
                Err(_) if !Path::new(&format!("/proc/{pid}")).exists() => {}
                moved => moved?,
            }
        }
        Ok(())
    }
}

impl Drop for CriuCgroup {
    fn drop(&mut self) {
        if let Err(e) = end(&self.cgroup.dir) {
            log::warn!("{e:#}");
        }
    }
}

/// Ends what the CRIU of a command that died has left, whose state directory this is, and waits for
/// a CRIU that still puts a container's tasks back. Says whether there was any.
///
/// # Errors
/// When cgroups cannot be read.
pub(crate) fn clear(state: &Path) -> Result<bool> {
    // The second first: it is the first's command that it was for.
    let beside = clear_one(state, BESIDE)?;
    Ok(clear_one(state, "")? || beside)
}

fn clear_one(state: &Path, suffix: &str) -> Result<bool> {
    // Without cgroup2 no command has come as far as that.
    let Some(dir) =
        place_of(state, suffix).ok().map(|cgroup| cgroup.dir).filter(|dir| dir.exists())
    else {
        return Ok(false);
    };
    let left = cgroup::tasks(&dir)?;
    for criu in left.iter().filter(|pid| dumps(**pid)) {
        match Process::open(*criu) {
            Ok(criu) => see_off(&criu, &dir)?,
            Err(e) => log::debug!("process {criu} has ended: {e}"),
        }
    }
    end(&dir)?;
    Ok(!left.is_empty())
}

fn place_of(state: &Path, suffix: &str) -> Result<Cgroup> {
    let mount = cgroup::unified_mount()?;
    let hierarchy = Hierarchy { controllers: Vec::new(), mount };
    let base = cgroup::directory(&hierarchy.mount, &cgroup::base(&hierarchy)?)?;
    let key = state.file_name().context("a state directory without a name")?;
    let mut name = std::ffi::OsString::from(NAME);
    name.push(key);
    name.push(suffix);
    Ok(Cgroup::plain(hierarchy, base.join(name)))
}

/// Whether a process is a CRIU at work on tasks that run. Its helpers have the same command line,
/// but not a session.
fn dumps(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let what = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    DUMPS.iter().any(|dump| dump.as_bytes() == what)
        && process::session(pid).is_ok_and(|session| session == pid)
}

/// Has a CRIU whose command is dead give up, and waits for its end. One that stands still is
/// killed.
fn see_off(criu: &Process, dir: &Path) -> Result<()> {
    let note = |what: &str, done: io::Result<()>| {
        if let Err(e) = done {
            log::debug!("{what} process {}: {e}", criu.pid());
        }
    };
    note("let it give up:", process::forbid_writing(criu.pid()));
    let end = Instant::now() + ORPHAN_LIMIT;
    let mut pulse = Pulse::default();
    while !criu.wait_exit(PULSE_INTERVAL).context("wait for the CRIU of a command that died")? {
        note("continue", criu.signal(libc::SIGCONT));
        if pulse.stands_still_for(Some(cpu_time(dir))) >= ORPHAN_STANDSTILL || Instant::now() >= end
        {
            log::warn!(
                "the CRIU of a command that died does not end: process {} is killed",
                criu.pid()
            );
            note("kill", criu.signal(libc::SIGKILL));
            if !criu.wait_exit(END_LIMIT).context("wait for the end of a CRIU")? {
                bail!("process {}, the CRIU of a command that died, does not end", criu.pid());
            }
            break;
        }
    }
    Ok(())
}

/// Kills what is in the cgroup, and removes it when that is gone. What does not go is left: nothing
/// waits for it.
fn end(dir: &Path) -> Result<()> {
    let limit = Instant::now() + END_LIMIT;
    if !dir.exists() {
        return Ok(());
    }
    // A container's task was never in here but to be restored.
    cgroup::kill(dir)?;
    loop {
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < limit => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed.with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

/// The CPU time that the tasks of a cgroup have used, in microseconds: who works uses some. None is
/// told as 0.
pub(crate) fn cpu_time(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
        .unwrap_or_default()
}
