//! What every command on a container begins with: the right to change it, the paths that are to be
//! trusted, the time that it has; and the refusals of those that cannot begin.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::criu::version;
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::definition::{self, Defined};
use crate::lxc::shell;
use crate::resources::rootfs::Root;
use crate::rollback::holder::Command;
use crate::rollback::lock::Operation;
use crate::settings::Settings;
use crate::store::{layout, resume_mark};
use crate::sys::clean_start;
use crate::sys::path_trust::{self, Untrusted};

/// Takes the right to change a container.
pub(crate) fn operation(defined: &Defined, command: Command) -> Result<Operation> {
    Ok(Operation::begin(defined.lxcpath.as_path(), defined.name.as_str(), command)?)
}

/// When a command that begins now is to be given up.
pub(crate) fn deadline(settings: &Settings) -> Option<Instant> {
    // What is beyond all clocks is no limit.
    let limit = (settings.timeout > 0).then_some(Duration::from_secs(settings.timeout))?;
    Instant::now().checked_add(limit)
}

/// The failure for a container that is not defined.
pub(crate) fn not_defined(error: definition::Error) -> Failure {
    match error {
        definition::Error::NotDefined(_) => Failure::new(Exit::WrongState, error)
            .hint("lxc-ls shows the containers; -P chooses another directory"),
        definition::Error::Config(e) => {
            // The line and a caret beneath it, as a compiler shows an error.
            let text = e.parse_error().map(|p| p.render());
            match text {
                Some(text) => Failure::msg(Exit::Other, text),
                None => Failure::new(Exit::Other, anyhow::Error::new(e)),
            }
        }
        definition::Error::NoRootfs(_) => Failure::new(Exit::Other, error),
    }
}

/// The failure for a CRIU that cannot be used.
pub(crate) fn no_criu(error: version::Error) -> Failure {
    let hint = match &error {
        version::Error::NotInstalled { .. } => {
            "install it (Debian: apt install criu), or name it in /etc/lxc/lxc-cr.toml"
        }
        version::Error::Untrusted { .. } => {
            "make root the owner of it and of its directories, writable by root only"
        }
        _ => "install CRIU 4.2 or newer, or name another one in /etc/lxc/lxc-cr.toml",
    };
    Failure::new(Exit::Refused, error).hint(hint)
}

/// The failure for a container that does not run. One that is suspended would be lost by a start.
pub(crate) fn not_running(defined: &Defined) -> Failure {
    let named = shell::options(&defined.name, &defined.lxcpath);
    let suspended = resume_mark::dir(&defined.dir()).join(layout::INVENTORY).exists();
    Failure::msg(Exit::WrongState, "it is not running").hint(match suspended {
        true => {
            format!("bring it back: lxc-restart {named}; or start it afresh: lxc-start {named}")
        }
        false => format!("start it: lxc-start {named}"),
    })
}

/// Refuses what somebody else than root could have written or put into its place: the container's
/// configuration with what it includes (hooks of it are run), its root, and the directory of
/// images; gives the path of that free of links.
pub(crate) fn check_places(defined: &Defined, images: &Path) -> Result<PathBuf> {
    let guest = defined.config.guest();
    let check = || -> anyhow::Result<PathBuf> {
        defined.config.sources().iter().try_for_each(|source| source.judge(guest))?;
        let root =
            Root::of(defined).unwrap_or_else(|_| Root::Directory { path: defined.rootfs.clone() });
        root.paths().into_iter().try_for_each(|path| path_trust::check_of(guest, path))?;
        Ok(path_trust::walk(guest, images)?)
    };
    check().map_err(|e| {
        let hint = match e.downcast_ref() {
            // LXC does not need it to be theirs: as its group they can pass through.
            Some(Untrusted::Shared { at, gid, .. }) => {
                let at = shell::quoted(&at.to_string_lossy());
                format!("give it to root: chown root:{gid} {at} && chmod u=rwx,g=x,o= {at}")
            }
            _ => {
                "what root restores must be root's alone to change: keep it below a directory that \
                 only root can write to, such as /var/lib/lxc"
                    .to_owned()
            }
        };
        Failure::new(Exit::Refused, e).hint(hint)
    })
}

/// Refuses to restore from a process whose restrictions the container would inherit for good.
pub(crate) fn refuse_restricted() -> Result<()> {
    let found = clean_start::lasting_restrictions().or_exit(Exit::Other)?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(Failure::msg(
            Exit::Refused,
            format!(
                "this command is restricted, and the container would be for good: {}",
                found.join(", ")
            ),
        )
        .hint(
            "run it from a root shell, or from a service without NoNewPrivileges=, \
             SystemCallFilter=, MemoryDenyWriteExecute= and CapabilityBoundingSet=",
        )),
    }
}

/// Refuses to stop an ephemeral container: LXC's monitor destroys it then, its root and its
/// directory with the checkpoint in it.
pub(crate) fn refuse_ephemeral(defined: &Defined) -> Result<()> {
    match defined.config.ephemeral() {
        false => Ok(()),
        true => Err(Failure::msg(
            Exit::Refused,
            "it is ephemeral: LXC destroys it when it stops, and nothing could be restarted",
        )
        .hint(
            "keep it running (lxc-checkpoint -D DIR), or take lxc.ephemeral out of its \
             configuration and restart it",
        )),
    }
}
