//! A container as it is defined: its name, its place and its configuration, whether it runs or not.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::config::{Config, ConfigError};
use super::name::{ContainerName, LxcPath};

/// A container whose configuration has been read.
#[derive(Debug)]
pub struct Defined {
    /// Its name.
    pub name: ContainerName,
    /// The directory that holds its directory.
    pub lxcpath: LxcPath,
    /// Its configuration.
    pub config: Config,
    /// Its root as the configuration names it, without the prefix for its kind.
    pub rootfs: PathBuf,
}

/// Why there is no such container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no configuration for this name.
    #[error("there is no container of this name in {}", .0.display())]
    NotDefined(PathBuf),
    /// Its configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration names no root file system.
    #[error("{} names no lxc.rootfs.path", .0.display())]
    NoRootfs(PathBuf),
}

impl Defined {
    /// Reads the definition of a container, from `file` if it is given (LXC's `--rcfile`).
    pub fn load(
        name: &ContainerName,
        lxcpath: &LxcPath,
        file: Option<&Path>,
    ) -> Result<Defined, Error> {
        let path = file.map_or_else(|| lxcpath.config_file(name), Path::to_owned);
        let config = match Config::load(&path) {
            Ok(config) => config,
            Err(ConfigError::Read { source, from: None, .. }) if is_absent(&source) => {
                return Err(Error::NotDefined(lxcpath.as_path().to_owned()));
            }
            Err(e) => return Err(e.into()),
        };
        let rootfs = config.rootfs().ok_or(Error::NoRootfs(path))?.path;
        Ok(Defined { name: name.clone(), lxcpath: lxcpath.clone(), config, rootfs })
    }

    /// The container's own directory.
    pub fn dir(&self) -> PathBuf {
        self.lxcpath.container_dir(&self.name)
    }

    /// Where LXC mounts its root while it starts; none if LXC's own directory for that is not
    /// there.
    pub fn rootfs_mount(&self) -> Option<PathBuf> {
        self.config.rootfs_mount().map(Path::to_owned).or_else(default_rootfs_mount)
    }

    /// The LXC path as LXC writes it into names.
    pub fn lxcpath_text(&self) -> String {
        self.lxcpath.as_os_str().to_string_lossy().into_owned()
    }

    /// The configuration with everything included, in the modern spelling, one item a line.
    pub fn config_text(&self) -> String {
        let mut text = OsString::new();
        for item in self.config.items() {
            text.push(item.to_line());
            text.push("\n");
        }
        String::from_utf8_lossy(text.as_bytes()).into_owned()
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Where LXC mounts roots unless told otherwise: a constant of its build, so the one that is there.
fn default_rootfs_mount() -> Option<PathBuf> {
    let multiarch = format!("/usr/lib/{}-linux-gnu/lxc/rootfs", std::env::consts::ARCH);
    [
        multiarch.as_str(),
        "/usr/lib/lxc/rootfs",
        "/usr/lib64/lxc/rootfs",
        "/usr/local/lib/lxc/rootfs",
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|p| p.is_dir())
}
