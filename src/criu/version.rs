//! Which CRIU is installed, and what that version can do.
//!
//! `criu --version` takes 4 to 5 ms (4.2.1, measured; most of it is the loading of its libraries),
//! so [`find_cached`] remembers the answer for as long as the program file is the same.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sys::{child, files, path_trust};

/// Where CRIU is looked for when the settings don't name it. A fixed list: `$PATH` is the caller's.
const PLACES: &[&str] =
    &["/usr/sbin/criu", "/usr/local/sbin/criu", "/usr/bin/criu", "/usr/local/bin/criu"];

/// How much of the output of a program that says it is CRIU is quoted in a message.
const QUOTED: usize = 120;

/// How long it may take to tell its version.
const LIMIT: Duration = Duration::from_secs(10);

/// A version of CRIU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The 4 of 4.2.1.
    pub major: u32,
    /// The 2 of 4.2.1.
    pub minor: u32,
    /// The 1 of 4.2.1; 0 when there is none.
    pub sub: u32,
    /// The `GitID:` line of a build from git, for example `v4.2-20-g2cf8f13`.
    pub git: Option<String>,
}

/// The oldest CRIU that this program works with.
pub(crate) const OLDEST: Version = Version::new(3, 17, 0);

impl Version {
    /// A released version.
    pub(crate) const fn new(major: u32, minor: u32, sub: u32) -> Version {
        Version { major, minor, sub, git: None }
    }

    /// Reads the output of `criu --version`: a line `Version: 4.2.1`, and `GitID: …` if built from
    /// git.
    ///
    /// Anything after the numbers (`4.2.1-3`, `4.2-rc1`) is left out.
    pub(crate) fn parse(output: &str) -> Option<Version> {
        let value =
            |key: &str| output.lines().find_map(|l| l.trim().strip_prefix(key)).map(str::trim);
        let text = value("Version:")?;
        let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let sub = match parts.next() {
            Some(text) if !text.is_empty() => text.parse().ok()?,
            _ => 0,
        };
        let git = value("GitID:").filter(|id| !id.is_empty()).map(str::to_owned);
        Some(Version { major, minor, sub, git })
    }

    /// Whether this is the given version or a newer one.
    pub(crate) fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// `--network-lock skip`: CRIU leaves the lock to its caller.
    pub(crate) fn supports_network_lock_skip(&self) -> bool {
        self.at_least(3, 19)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.sub != 0 {
            write!(f, ".{}", self.sub)?;
        }
        match &self.git {
            Some(git) => write!(f, " (git {git})"),
            None => Ok(()),
        }
    }
}

/// An installed CRIU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Criu {
    /// The program.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// Why there is no usable CRIU.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such program.
    #[error("criu is not installed (looked for {})", places(.looked_at))]
    NotInstalled {
        /// The paths that were looked at.
        looked_at: Vec<PathBuf>,
    },
    /// Somebody else could have put another program there.
    #[error("run {}", path.display())]
    Untrusted {
        /// The program.
        path: PathBuf,
        /// The file or directory with the wrong owner or mode.
        #[source]
        source: path_trust::Untrusted,
    },
    /// It is there, but older than what we work with.
    #[error("{} is CRIU {found}; {needed} or newer is needed", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest version that serves.
        needed: Version,
    },
    /// It ran, but did not say which version it is.
    #[error("'{} --version' says no version: {said:?}", path.display())]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// The beginning of what it printed.
        said: String,
    },
    /// It could not be run.
    #[error("run {}", path.display())]
    NotRun {
        /// The program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn places(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

/// Finds CRIU (at the path from the settings, else at its usual places) and asks for its version.
///
/// # Errors
/// See [`Error`]; a CRIU older than [`OLDEST`] is an error too.
pub(crate) fn find(setting: Option<&Path>) -> Result<Criu, Error> {
    let path = locate(setting)?;
    let version = ask(&path)?;
    accept(path, version)
}

/// Like [`find`], but takes the version from the file `cache` if that was written for the same
/// program file, and writes it otherwise. Only root may be able to write the cache's directory.
///
/// # Errors
/// As [`find`]. A cache that cannot be read or written is no error.
pub(crate) fn find_cached(setting: Option<&Path>, cache: &Path) -> Result<Criu, Error> {
    let path = locate(setting)?;
    let Some(key) = identity(&path) else { return find(Some(&path)) };
    let kept = fs::read_to_string(cache).ok();
    let kept = kept.as_deref().and_then(|text| text.split_once('\n')).filter(|(k, _)| *k == key);
    if let Some(version) = kept.and_then(|(_, text)| Version::parse(text)) {
        return accept(path, version);
    }
    let version = ask(&path)?;
    if let Err(e) = remember(cache, &key, &version) {
        log::debug!("{e:#}");
    }
    accept(path, version)
}

/// What changes when another program is installed at the path.
fn identity(path: &Path) -> Option<String> {
    let m = path.metadata().ok()?;
    let changed = (m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec());
    // A path with a newline in it would only miss the cache.
    Some(format!("{} {} {} {} {changed:?}", path.display(), m.dev(), m.ino(), m.size()))
}

fn remember(cache: &Path, key: &str, version: &Version) -> anyhow::Result<()> {
    let mut text = format!("{key}\nVersion: {}.{}.{}\n", version.major, version.minor, version.sub);
    if let Some(git) = &version.git {
        text.push_str(&format!("GitID: {git}\n"));
    }
    files::write_atomically(cache, text.as_bytes())
}

fn locate(setting: Option<&Path>) -> Result<PathBuf, Error> {
    let looked_at: Vec<PathBuf> = match setting {
        Some(path) => vec![path.to_owned()],
        None => PLACES.iter().map(PathBuf::from).collect(),
    };
    let Some(path) = looked_at.iter().find(|p| is_program(p)).cloned() else {
        return Err(Error::NotInstalled { looked_at });
    };
    match path_trust::check_file(None, &path) {
        Err(source) => Err(Error::Untrusted { path, source }),
        Ok(()) => Ok(path),
    }
}

fn accept(path: PathBuf, version: Version) -> Result<Criu, Error> {
    if version.at_least(OLDEST.major, OLDEST.minor) {
        Ok(Criu { path, version })
    } else {
        Err(Error::TooOld { path, found: version, needed: OLDEST })
    }
}

fn is_program(path: &Path) -> bool {
    // A relative path would be looked up in $PATH by Command.
    path.is_absolute()
        && path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn ask(path: &Path) -> Result<Version, Error> {
    // The environment is cleared because CRIU takes a configuration file from CRIU_CONFIG_FILE.
    let mut command = Command::new(path);
    command.args(["--no-default-config", "--version"]).env_clear().stdin(Stdio::null());
    let output = child::run(&mut command, LIMIT)
        .map_err(|source| Error::NotRun { path: path.to_owned(), source })?;
    let said = output.stdout;
    Version::parse(&said).ok_or_else(|| {
        let all = format!("{said}{}", output.stderr);
        Error::Unreadable { path: path.to_owned(), said: all.trim().chars().take(QUOTED).collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("criu");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn reads_what_criu_prints() {
        assert_eq!(Version::parse("Version: 4.2.1\n"), Some(Version::new(4, 2, 1)));
        assert_eq!(Version::parse("Version: 4.0\n"), Some(Version::new(4, 0, 0)));
        assert_eq!(Version::parse("Version: 4.2.1-3\n"), Some(Version::new(4, 2, 1)));
        assert_eq!(Version::parse("Version: 4.2-rc1\n"), Some(Version::new(4, 2, 0)));
        assert_eq!(Version::parse("Warn\nVersion: 3.17.1\n"), Some(Version::new(3, 17, 1)));
        let git = Version::parse("Version: 4.2\nGitID: v4.2-20-g2cf8f13\n").unwrap();
        assert_eq!(git.git.as_deref(), Some("v4.2-20-g2cf8f13"));
        assert_eq!(git.to_string(), "4.2 (git v4.2-20-g2cf8f13)");
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in [
            "",
            "Version:",
            "Version: x",
            "Version: 4",
            "4.2.1",
            "Version: 99999999999.1",
            "Version: 4.2.99999999999",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn knows_what_a_version_can_do() {
        let v = |major, minor| Version::new(major, minor, 0);
        assert!(!v(3, 18).supports_network_lock_skip() && v(3, 19).supports_network_lock_skip());
    }

    #[test]
    fn runs_criu_with_a_cleared_environment() {
        let (_dir, path) = fake("[ -z \"$CARGO_MANIFEST_DIR\" ] && echo 'Version: 4.2.1'");
        assert_eq!(find(Some(&path)).unwrap(), Criu { path, version: Version::new(4, 2, 1) });
    }

    #[test]
    fn remembers_the_version_of_the_same_file() {
        let (dir, path) =
            fake("echo run >>\"${0%/*}\"/runs; echo Version: 4.2.1; echo GitID: v4.2");
        let runs = || fs::read_to_string(dir.path().join("runs")).unwrap().lines().count();
        let cache = dir.path().join("criu-version");
        let first = find_cached(Some(&path), &cache).unwrap();
        assert_eq!(find_cached(Some(&path), &cache).unwrap(), first);
        assert_eq!(runs(), 1);
        assert_eq!(find(Some(&path)).unwrap(), first);
        fs::write(&path, "#!/bin/sh\necho Version: 4.3\n").unwrap();
        assert_eq!(find_cached(Some(&path), &cache).unwrap().version, Version::new(4, 3, 0));
        for bad in ["", "x", "x\nVersion: 9.9\n"] {
            fs::write(&cache, bad).unwrap();
            assert_eq!(
                find_cached(Some(&path), &cache).unwrap().version,
                Version::new(4, 3, 0),
                "{bad:?}"
            );
        }
        assert!(find_cached(Some(&path), Path::new("/nonexistent/cache")).is_ok());
        fs::write(&path, "#!/bin/sh\necho Version: 3.1\n").unwrap();
        for _ in 0..2 {
            assert!(matches!(find_cached(Some(&path), &cache), Err(Error::TooOld { .. })));
        }
    }

    #[test]
    fn refuses_a_program_that_others_can_write() {
        let (dir, path) = fake("echo Version: 4.2.1");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        let told = find(Some(&path)).unwrap_err();
        assert!(
            matches!(
                told,
                Error::Untrusted { source: path_trust::Untrusted::WritableFile { .. }, .. }
            ),
            "{told:?}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(find(Some(&path)), Err(Error::Untrusted { .. })));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(find(Some(&path)).is_ok());
    }

    #[test]
    fn says_why_criu_cannot_be_used() {
        let (_dir, old) = fake("echo Version: 3.16.1");
        let text = find(Some(&old)).unwrap_err().to_string();
        assert!(text.ends_with("is CRIU 3.16.1; 3.17 or newer is needed"), "{text}");
        let (_dir, odd) = fake("echo hello; echo oops >&2");
        assert!(
            matches!(find(Some(&odd)), Err(Error::Unreadable { said, .. }) if said == "hello\noops")
        );
        let (_dir, broken) = fake("");
        fs::write(&broken, "#!/nonexistent/shell\n").unwrap();
        assert!(matches!(find(Some(&broken)), Err(Error::NotRun { .. })));
        for none in ["/nonexistent/criu", "criu", "/"] {
            assert!(
                matches!(find(Some(Path::new(none))), Err(Error::NotInstalled { .. })),
                "{none}"
            );
        }
    }
}
