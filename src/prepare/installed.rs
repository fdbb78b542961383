//! Where our own files were installed: the prefix is that of the program that runs.

use std::path::{Path, PathBuf};

use crate::error::{Exit, Failure, Result};
use crate::sys::path_trust;

/// The include with our hooks.
pub(crate) const HOOKS: &str = "lxc-cr.conf";
/// The include for a container with systemd.
pub(crate) const SYSTEMD: &str = "lxc-cr-systemd.conf";

/// The directories of an installation, as the Makefile lays them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Configurations to include: its CONFIGDIR.
    pub config: PathBuf,
    /// What these name: its DATADIR.
    pub data: PathBuf,
    /// The hooks: its LIBEXECDIR.
    pub hooks: PathBuf,
}

impl Installed {
    /// The directories below a prefix.
    pub fn below(prefix: &Path) -> Installed {
        Installed {
            config: prefix.join("share/lxc/config"),
            data: prefix.join("share/lxc-cr"),
            hooks: prefix.join("libexec/lxc-cr"),
        }
    }

    /// Those of the running program.
    ///
    /// # Errors
    /// When it was not installed (a build tree), or somebody else could change what was.
    pub fn find() -> Result<Installed> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::msg(Exit::Other, format!("find our own program: {e}")))?;
        let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let found = Installed::below(prefix);
        for file in found.files() {
            if !file.is_file() {
                return Err(Failure::msg(
                    Exit::Other,
                    format!("{} is not installed", file.display()),
                )
                .hint(
                    "install lxc-cr (make install, or its package) and run the lxc-cr that was \
                     installed",
                ));
            }
            path_trust::check(&file).map_err(|e| Failure::new(Exit::Other, e))?;
        }
        Ok(found)
    }

    fn files(&self) -> [PathBuf; 5] {
        let hook = self.hooks.join("lxc-cr-pre-start");
        [
            self.hooks_include(),
            self.systemd_include(),
            self.profile(),
            self.program("php.ini"),
            hook,
        ]
    }

    /// The include with our hooks.
    pub fn hooks_include(&self) -> PathBuf {
        self.config.join(HOOKS)
    }

    /// The include for a container with systemd.
    pub fn systemd_include(&self) -> PathBuf {
        self.config.join(SYSTEMD)
    }

    /// What is mounted into a container for a program in it.
    pub fn program(&self, file: &str) -> PathBuf {
        self.data.join("programs").join(file)
    }

    /// The seccomp profile that forbids what CRIU cannot dump: io_uring and eBPF.
    pub fn profile(&self) -> PathBuf {
        self.data.join("systemd/no-bpf.seccomp")
    }
}
