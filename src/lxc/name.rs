//! A container's name and the directory of all containers, checked once and then trusted.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// The longest name: a file name of the kernel (255) less the longest thing that is put before or
/// behind it (`lxc.monitor.` as a cgroup, `.partial` and the like as files).
const NAME_MAX: usize = 200;

/// The longest LXC path, so that the paths below it stay under the kernel's limit of 4096.
const PATH_MAX: usize = 2048;

/// Why a text is not a container's name or not an LXC path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty.
    #[error("the container's name is empty")]
    Empty,
    /// Holds a `/`, or is `.` or `..`.
    #[error("'{0}' is a path, not a container name")]
    Path(String),
    /// Holds a control character.
    #[error("the container's name holds a control character")]
    Control,
    /// Too long.
    #[error("the container's name is longer than {NAME_MAX} bytes")]
    TooLong,
    /// An LXC path that does not begin with `/`.
    #[error("the LXC path '{}' is not absolute", .0.display())]
    Relative(PathBuf),
    /// An LXC path that cannot be used as it is.
    #[error("the LXC path is longer than {PATH_MAX} bytes or holds a NUL")]
    Unusable,
}

/// The name of a container. It is a single component of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<ContainerName, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        if name.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if name.contains('/') || matches!(name, "." | "..") {
            return Err(NameError::Path(name.to_owned()));
        }
        Ok(ContainerName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<ContainerName, NameError> {
        ContainerName::new(name)
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory that holds the containers.
///
/// It is not canonicalised: LXC makes the names of its sockets from the path as it was given, so
/// two spellings of one directory are two LXC paths. Only slashes at the end go, as LXC takes them
/// off too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LxcPath(PathBuf);

impl LxcPath {
    /// Checks a path.
    pub fn new(path: impl AsRef<Path>) -> Result<LxcPath, NameError> {
        let path = path.as_ref();
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        if bytes.first() != Some(&b'/') {
            return Err(NameError::Relative(path.to_owned()));
        }
        if bytes.len() > PATH_MAX || bytes.contains(&0) {
            return Err(NameError::Unusable);
        }
        while bytes.len() > 1 && bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        Ok(LxcPath(OsString::from_vec(bytes).into()))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The path as LXC writes it into the names of its sockets.
    pub fn as_os_str(&self) -> &OsStr {
        self.0.as_os_str()
    }

    /// The directory of a container.
    pub fn container_dir(&self, name: &ContainerName) -> PathBuf {
        self.0.join(name.as_str())
    }

    /// The configuration file of a container.
    pub fn config_file(&self, name: &ContainerName) -> PathBuf {
        self.container_dir(name).join("config")
    }
}

impl FromStr for LxcPath {
    type Err = NameError;

    fn from_str(path: &str) -> Result<LxcPath, NameError> {
        LxcPath::new(path)
    }
}

impl fmt::Display for LxcPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        for good in ["c", "test-lxc", "a.b", "…", "with space", "..."] {
            assert_eq!(ContainerName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0b", "a\nb", "\x7f", &"x".repeat(NAME_MAX + 1)] {
            assert!(ContainerName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_lxc_path_keeps_its_spelling() {
        for (given, want) in [
            ("/var/lib/lxc", "/var/lib/lxc"),
            ("/a//b/../c//", "/a//b/../c"),
            ("//", "/"),
            ("/", "/"),
        ] {
            assert_eq!(LxcPath::new(given).unwrap().as_os_str(), want);
        }
        for bad in ["", "a", "./a"] {
            assert!(LxcPath::new(bad).is_err(), "{bad:?}");
        }
        let name = ContainerName::new("c").unwrap();
        assert_eq!(LxcPath::new("/p/").unwrap().config_file(&name), Path::new("/p/c/config"));
    }
}
