//! What our hook programs do. LXC (or our own monitor) runs them around the life of a container:
//!
//! | program | when | what |
//! |---|---|---|
//! | `pre-start` | before anything is made | refuses while the container is being restored, undoes what a dead command left, looks for the bridges, binds the root if it is asked to |
//! | `start-host` | init is about to run | notes init, its monitor and its ports, for `post-stop` |
//! | `post-stop` | all is over | takes back what the other two did |
//! | `net-up`, `net-down` | with each interface | puts the host's end on a bridge that LXC does not know of |
//!
//! Each can be run twice, for a hook may stand in the configuration twice, and LXC runs them anew
//! at each reboot.

mod bind_root;
pub(crate) mod criu_action;
mod net_script;
mod running_note;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::error::{ErrorList, Exit, Failure};
use crate::lxc::config::system::{SYSTEM_CONFIG, SystemConfig};
use crate::lxc::config::{Config, NicKind, VethMode};
use crate::lxc::hook::{HookCall, Target};
use crate::lxc::name::LxcPath;
use crate::lxc::{container, shell};
use crate::resources::network::NoBridge;
use crate::rollback::Journal;
use crate::rollback::holder::Command;
use crate::rollback::lock::{self, Operation};
use crate::settings::{self, OnStart};
use crate::store::history::{self, History};
use crate::store::register::Register;
use crate::store::{known, resume_mark, status};
use crate::sys::netlink::{Error as NetlinkError, Netlink};
use crate::sys::process;

pub(crate) use net_script::{net_down, net_up};
pub(crate) use running_note::{Owner, Running};

/// What LXC's monitors call themselves, before their LXC path and their container's name.
const MONITOR_TITLE: &str = "[lxc monitor] ";
/// More generations than any hook is away from its monitor.
const GENERATIONS: usize = 32;

/// The `pre-start` hook. `--bind-root` makes the root a mount point.
pub(crate) fn pre_start(call: &HookCall) -> Result<(), Failure> {
    let wants_root = flag(call, "--bind-root")?;
    let lxcpath = lxcpath(call)?;
    refuse_during_restore(lxcpath.as_path(), call)?;
    if let Err(e) = undo_dead_command(lxcpath.as_path(), call) {
        // It does not harm a start, and whoever has to mend it may need the container for that.
        log::warn!("{e:#}");
    }
    check_bridges(call)?;
    if wants_root {
        let path = call
            .rootfs
            .as_deref()
            .context("LXC names no root: --bind-root needs lxc.rootfs.path")?;
        let state = lock::make_state_dir(lxcpath.as_path(), call.name.as_str())?;
        bind_root::bind(&state, path, Owner::parent()?)
            .with_context(|| format!("bind the root {}", path.display()))?;
    }
    // Last: a start that was refused has not changed anything.
    refuse_newer_than_suspended(&lxcpath, call)
}

/// The `start-host` hook. Only state that is not to be trusted makes it fail.
pub(crate) fn start_host(call: &HookCall) -> Result<(), Failure> {
    no_arguments(call)?;
    let lxcpath = lxcpath(call)?;
    let state = lock::make_state_dir(lxcpath.as_path(), call.name.as_str())?;
    let noted =
        call.pid.context("LXC passes no pid").and_then(|pid| Running::of(pid)?.write(&state));
    if let Err(e) = noted {
        log::warn!("note what runs: {e:#}");
    }
    log::info!("it starts: init is process {}", call.pid.unwrap_or_default());
    Ok(())
}

/// The `post-stop` hook.
pub(crate) fn post_stop(call: &HookCall) -> Result<(), Failure> {
    no_arguments(call)?;
    let lxcpath = lxcpath(call)?;
    let mut errors = ErrorList::default();
    if let Some(state) = running_note::state_dir(lxcpath.as_path(), call.name.as_str())? {
        match Running::read(&state) {
            Ok(Some(running)) if running.is_alive() => {
                log::warn!("init (pid {}) still runs: nothing is taken back", running.init.pid);
                return Ok(());
            }
            Ok(Some(_)) => errors.note(Running::remove(&state)),
            Ok(None) => {}
            Err(e) => {
                log::warn!("{e:#}; it is removed");
                errors.note(Running::remove(&state));
            }
        }
        errors.note(Owner::parent().and_then(|parent| bind_root::unbind(&state, parent)));
        errors.note(undo_dead_command(lxcpath.as_path(), call));
    }
    match (errors.into_result(), call.target) {
        (Ok(()), _) => {
            log::info!("it has ended");
            Ok(())
        }
        (Err(e), Some(Target::Reboot)) => {
            // LXC would stop the container for it.
            log::warn!("{e:#}");
            Ok(())
        }
        (Err(e), _) => Err(Failure::new(Exit::RollbackIncomplete, e)),
    }
}

/// The LXC path: by the configuration's place, else by the monitor's title, else by LXC's own
/// settings.
pub(crate) fn lxcpath(call: &HookCall) -> Result<LxcPath> {
    if let Some(lxcpath) = &call.lxcpath {
        return Ok(lxcpath.clone());
    }
    let parent = nix::unistd::getppid();
    let title = fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    match titled(&String::from_utf8_lossy(&title), call.name.as_str()) {
        Some(lxcpath) => Ok(lxcpath),
        None => Ok(LxcPath::new(SystemConfig::load(Path::new(SYSTEM_CONFIG))?.lxcpath)?),
    }
}

fn titled(title: &str, name: &str) -> Option<LxcPath> {
    let rest = title.strip_prefix(MONITOR_TITLE)?.trim_end_matches('\0');
    LxcPath::new(rest.strip_suffix(name)?.strip_suffix(' ')?).ok()
}

/// Two inits on one root are worse than a start that has to be repeated. A restore that runs *us*
/// goes on.
fn refuse_during_restore(lxcpath: &Path, call: &HookCall) -> Result<(), Failure> {
    let Some(holder) = Operation::holder(lxcpath, call.name.as_str())? else { return Ok(()) };
    // A checkpoint that is still being completed does not mind: its container may go on, and may
    // reboot.
    if holder.command != Some(Command::Restore) || holder.pid().is_some_and(is_ancestor) {
        return Ok(());
    }
    Err(Failure::msg(Exit::Busy, format!("the container is being restored: {holder} holds it"))
        .hint("wait until that is done; the container runs then"))
}

/// A container that is started afresh writes to its disk: memory from before must not be put on top
/// of that.
fn refuse_newer_than_suspended(lxcpath: &LxcPath, call: &HookCall) -> Result<(), Failure> {
    if Operation::holder(lxcpath.as_path(), call.name.as_str())?
        .is_some_and(|holder| holder.command == Some(Command::Restore))
    {
        // Ours, or another one would have been refused: it strikes the mark out when the container
        // is about to run.
        return Ok(());
    }
    let lost = suspended_in(lxcpath, call);
    if let Some(first) = lost.first()
        && on_start(call) == OnStart::Refuse
    {
        return Err(refuse_start(lxcpath, call, first));
    }
    for dir in &lost {
        let now = history::now();
        if let Err(e) = History::change(dir, |history| history.superseded = Some(now)) {
            log::warn!("{e:#}");
        }
        let named = shell::options(&call.name, lxcpath);
        log::warn!(
            "it starts afresh: what was suspended in {} is stale now (lxc-cr list {named}); next \
             time lxc-cr resume {named} brings it back instead",
            dir.display()
        );
    }
    let own = lxcpath.container_dir(&call.name);
    match resume_mark::clear_mark(&own) {
        Ok(true) if lost.is_empty() => {
            log::warn!(
                "it boots afresh: the checkpoint in {} will not be resumed",
                resume_mark::dir(&own).display()
            );
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::new(Exit::Other, e.context("mark the suspended checkpoint stale"))
            .hint(format!(
                "resume it: lxc-cr resume {}; or remove {}",
                shell::options(&call.name, lxcpath),
                resume_mark::dir(&own).display()
            ))),
    }
}

/// The checkpoints that are the only state of a container, wherever they lie.
fn suspended_in(lxcpath: &LxcPath, call: &HookCall) -> Vec<PathBuf> {
    let entries = known::all(&Register::of_host(), lxcpath, Some(&call.name)).unwrap_or_else(|e| {
        log::warn!("whether it is suspended is not known: {e:#}");
        Vec::new()
    });
    status::suspended(&entries).map(|entry| entry.directory.clone()).collect()
}

/// What the administrator wants. Settings that cannot be read keep no container from starting.
fn on_start(call: &HookCall) -> OnStart {
    match settings::Files::read(Path::new(settings::FILE)) {
        Ok(files) => files.of(call.name.as_str()).on_start,
        Err(e) => {
            log::warn!("{e:#}");
            OnStart::Warn
        }
    }
}

fn refuse_start(lxcpath: &LxcPath, call: &HookCall, dir: &Path) -> Failure {
    let named = shell::options(&call.name, lxcpath);
    let text = format!(
        "it is suspended: a start would lose what was in its memory, which is in {}",
        dir.display()
    );
    Failure::msg(Exit::Refused, text).hint(format!(
        "bring it back: lxc-cr resume {named}; or give that up: lxc-cr remove --force {} (on_start \
         in lxc-cr.toml)",
        shell::quoted(&dir.to_string_lossy())
    ))
}

fn is_ancestor(pid: i32) -> bool {
    let above =
        std::iter::successors(Some(nix::unistd::getppid().as_raw()), |p| process::parent(*p).ok());
    above.take_while(|p| *p > 0).take(GENERATIONS).any(|p| p == pid)
}

/// Plays back the journal of a command that died, unless the container runs or somebody is at work
/// on it.
fn undo_dead_command(lxcpath: &Path, call: &HookCall) -> Result<()> {
    let name = call.name.as_str();
    if !lock::journal_of(lxcpath, name).exists() {
        return Ok(());
    }
    let operation = match Operation::begin(lxcpath, name, Command::Hook) {
        Ok(operation) => operation,
        Err(lock::Error::Busy(_)) => return Ok(()),
        Err(lock::Error::Other(e)) => return Err(e),
    };
    // A restored container's journal is full as long as it runs. (Its monitor cannot be asked: it
    // may wait for us.)
    if container::find_without_monitor(name, container::Marks::root(call.rootfs.as_deref()))?
        .is_some()
    {
        return Ok(());
    }
    let mut journal = Journal::open(&operation.journal())?;
    if journal.is_empty() {
        return Ok(());
    }
    log::warn!("a previous command was interrupted; rolling back");
    journal.play_back().context("undo what an earlier command left")
}

/// LXC says of a missing bridge that the network could not be created; we say which, and what to
/// do.
fn check_bridges(call: &HookCall) -> Result<(), Failure> {
    let Some(file) = &call.config_file else { return Ok(()) };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(e) => {
            // LXC has read it: what stops us need not stop the container.
            log::warn!("the bridges are not checked: {e}");
            return Ok(());
        }
    };
    let ports = config
        .nics()
        .iter()
        .filter(|n| n.kind == NicKind::Veth && n.veth_mode == Some(VethMode::Bridge));
    let mut netlink = None;
    for bridge in ports.filter_map(|nic| nic.link.as_deref()) {
        let netlink = match &mut netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open().context("open a netlink socket")?),
        };
        match netlink.link(bridge) {
            Ok(_) => {}
            Err(NetlinkError::NotFound) => return Err(no_bridge(bridge)),
            Err(e) => return Err(anyhow!(e).context(format!("find the bridge {bridge}")).into()),
        }
    }
    Ok(())
}

fn no_bridge(name: &str) -> Failure {
    let missing = NoBridge { name: name.to_owned() };
    let hint = missing.hint();
    Failure::new(Exit::Other, missing).hint(hint)
}

/// Whether the hook's only possible argument is given.
fn flag(call: &HookCall, flag: &str) -> Result<bool> {
    match call.own.iter().find(|a| *a != flag) {
        Some(unknown) => Err(anyhow!("'{unknown}' is not an argument of this hook; {flag} is")),
        None => Ok(!call.own.is_empty()),
    }
}

fn no_arguments(call: &HookCall) -> Result<()> {
    match call.own.first() {
        Some(unknown) => Err(anyhow!("'{unknown}' is not an argument of this hook; it takes none")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitors_title_tells_the_lxc_path() {
        let path = |t: &str, name: &str| titled(t, name).map(|p| p.to_string());
        assert_eq!(path("[lxc monitor] /srv/a b web\0", "web").as_deref(), Some("/srv/a b"));
        assert_eq!(path("[lxc monitor] /srv/lxc web\0", "eb"), None);
        assert_eq!(path("/bin/bash\0", "web"), None);
    }

    #[test]
    fn our_own_ancestors_do_not_keep_us_out() {
        assert!(is_ancestor(nix::unistd::getppid().as_raw()));
        assert!(!is_ancestor(std::process::id().cast_signed()));
    }
}
