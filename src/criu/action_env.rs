//! What CRIU tells an action script.
//!
//! CRIU runs the script without arguments; everything is in the environment
//! (`criu/action-scripts.c`): `CRTOOLS_SCRIPT_ACTION` always, `CRTOOLS_IMAGE_DIR` as
//! `/proc/<criu>/fd/<n>`, which works only while CRIU lives, and `CRTOOLS_INIT_PID` (as the host
//! counts) once the root task is known.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

/// At which moment CRIU calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Before anything, with `--stream` only.
    PreStream,
    /// Dump: first act, tasks still run.
    PreDump,
    /// Dump: all tasks are stopped, nothing is dumped yet. Only if the root task has its own
    /// network namespace.
    NetworkLock,
    /// Dump: the images are complete, tasks are still stopped.
    PostDump,
    /// Dump: on an error, or when tasks go on. Restore: after `post-restore`.
    NetworkUnlock,
    /// Restore: before anything is created; init's pid is not known.
    PreRestore,
    /// Restore: the root task is forked, its namespaces are empty.
    SetupNamespaces,
    /// Restore: the namespaces have their contents.
    PostSetupNamespaces,
    /// Restore: all tasks are restored and stopped.
    PostRestore,
    /// Restore: just before the tasks run.
    PreResume,
    /// Restore: the tasks run; the image directory is gone from CRIU's descriptors.
    PostResume,
    /// The page server or the lazy-pages daemon listens.
    StatusReady,
    /// The master of a terminal, over RPC only.
    OrphanPtsMaster,
    /// Asks for more external files, over RPC only.
    QueryExtFiles,
    /// An action of a CRIU newer than this program; to be passed over.
    Unknown(String),
}

/// Each action and CRIU's name for it.
const NAMES: &[(Action, &str)] = &[
    (Action::PreStream, "pre-stream"),
    (Action::PreDump, "pre-dump"),
    (Action::NetworkLock, "network-lock"),
    (Action::PostDump, "post-dump"),
    (Action::NetworkUnlock, "network-unlock"),
    (Action::PreRestore, "pre-restore"),
    (Action::SetupNamespaces, "setup-namespaces"),
    (Action::PostSetupNamespaces, "post-setup-namespaces"),
    (Action::PostRestore, "post-restore"),
    (Action::PreResume, "pre-resume"),
    (Action::PostResume, "post-resume"),
    (Action::StatusReady, "status-ready"),
    (Action::OrphanPtsMaster, "orphan-pts-master"),
    (Action::QueryExtFiles, "query-ext-files"),
];

impl Action {
    /// The action of this name.
    pub(crate) fn from_name(name: &str) -> Action {
        let known = NAMES.iter().find(|(_, n)| *n == name);
        known.map_or_else(|| Action::Unknown(name.to_owned()), |(action, _)| action.clone())
    }

    /// CRIU's name for the action.
    pub(crate) fn name(&self) -> &str {
        if let Action::Unknown(name) = self {
            return name;
        }
        NAMES.iter().find(|(action, _)| action == self).map_or("", |(_, name)| name)
    }
}

/// What CRIU told in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActionEnv {
    /// The moment.
    pub action: Action,
    /// The image directory, as a path that outlives CRIU. `None` at `post-resume`, when CRIU has
    /// let go of it.
    pub image_dir: Option<PathBuf>,
    /// The host's pid of the root task, when CRIU knows it already.
    pub init_pid: Option<i32>,
}

/// Why the environment does not look like CRIU's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A variable that CRIU always sets is missing: somebody else runs the script.
    #[error("{0} is not set: this program is run by CRIU")]
    Missing(&'static str),
    /// A variable holds something that CRIU never writes.
    #[error("{name} is {value:?}, which CRIU never sets")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
    },
    /// The image directory cannot be found out.
    #[error("read the link {}", path.display())]
    ImageDir {
        /// The link that CRIU named.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The image directory was removed while CRIU works.
    #[error("the image directory {} was removed", .0.display())]
    ImageDirRemoved(PathBuf),
}

pub(super) const ACTION: &str = "CRTOOLS_SCRIPT_ACTION";
/// The variable with the path to the image directory.
pub(crate) const IMAGE_DIR: &str = "CRTOOLS_IMAGE_DIR";
const INIT_PID: &str = "CRTOOLS_INIT_PID";

impl ActionEnv {
    /// Reads the environment through `lookup`, for example `std::env::var_os`.
    ///
    /// # Errors
    /// When a variable is missing, malformed, or the image directory cannot be resolved.
    pub(crate) fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<ActionEnv, Error> {
        let action = lookup(ACTION).ok_or(Error::Missing(ACTION))?;
        let action = match action.to_str() {
            Some(name) if !name.is_empty() => Action::from_name(name),
            _ => return Err(Error::Invalid { name: ACTION, value: action }),
        };
        let init_pid = match lookup(INIT_PID) {
            None => None,
            Some(value) => match value.to_str().and_then(|text| text.parse::<i32>().ok()) {
                Some(pid) if pid > 0 => Some(pid),
                _ => return Err(Error::Invalid { name: INIT_PID, value }),
            },
        };
        let link = PathBuf::from(lookup(IMAGE_DIR).ok_or(Error::Missing(IMAGE_DIR))?);
        // At post-resume CRIU's descriptor of the directory is closed, and its number may stand for
        // another file.
        let image_dir = if action == Action::PostResume { None } else { Some(resolve(link)?) };
        Ok(ActionEnv { action, image_dir, init_pid })
    }
}

fn resolve(link: PathBuf) -> Result<PathBuf, Error> {
    if !link.is_absolute() {
        return Err(Error::Invalid { name: IMAGE_DIR, value: link.into_os_string() });
    }
    let path = fs::read_link(&link).map_err(|source| Error::ImageDir { path: link, source })?;
    if path.is_dir() {
        return Ok(path);
    }
    // The kernel adds " (deleted)" to the path of a removed directory.
    Err(Error::ImageDirRemoved(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn read(vars: &[(&str, &str)]) -> Result<ActionEnv, Error> {
        ActionEnv::from_env(|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn reads_what_criu_sets() {
        let dir = tempfile::tempdir().unwrap();
        let open = fs::File::open(dir.path()).unwrap();
        let link = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
        let env = read(&[(ACTION, "pre-dump"), (IMAGE_DIR, &link), (INIT_PID, "256")]).unwrap();
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(
            env,
            ActionEnv { action: Action::PreDump, image_dir: Some(real), init_pid: Some(256) }
        );
        let env = read(&[(ACTION, "pre-restore"), (IMAGE_DIR, &link)]).unwrap();
        assert_eq!(env.init_pid, None);
        fs::remove_dir(dir.path()).unwrap();
        let gone = read(&[(ACTION, "pre-restore"), (IMAGE_DIR, &link)]);
        assert!(
            matches!(gone, Err(Error::ImageDirRemoved(p)) if p.to_string_lossy().ends_with("(deleted)"))
        );
    }

    #[test]
    fn the_image_directory_is_gone_after_the_resume() {
        let env = read(&[(ACTION, "post-resume"), (IMAGE_DIR, "/proc/1/fd/999"), (INIT_PID, "7")])
            .unwrap();
        assert_eq!((env.image_dir, env.init_pid), (None, Some(7)));
    }

    #[test]
    fn names_what_is_wrong() {
        assert!(matches!(read(&[]), Err(Error::Missing(ACTION))));
        assert!(matches!(read(&[(ACTION, "pre-dump")]), Err(Error::Missing(IMAGE_DIR))));
        assert!(matches!(read(&[(ACTION, "")]), Err(Error::Invalid { name: ACTION, .. })));
        for pid in ["", "x", "0", "-1", "99999999999"] {
            let env = read(&[(ACTION, "pre-dump"), (INIT_PID, pid)]);
            assert!(matches!(env, Err(Error::Invalid { name: INIT_PID, .. })), "{pid}");
        }
        let env = read(&[(ACTION, "pre-dump"), (IMAGE_DIR, "/nonexistent")]);
        assert!(matches!(env, Err(Error::ImageDir { .. })));
    }

    #[test]
    fn every_action_has_its_name_back() {
        for (action, name) in NAMES {
            assert_eq!((&Action::from_name(name), action.name()), (action, *name));
        }
        assert_eq!(Action::from_name("pre-lunch"), Action::Unknown("pre-lunch".into()));
        assert_eq!(Action::from_name("pre-lunch").name(), "pre-lunch");
    }
}
