//! Settings: `/etc/lxc/lxc-cr.toml`, every key of which has a default.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sys::files;

/// The administrator's file.
pub const FILE: &str = "/etc/lxc/lxc-cr.toml";
/// More than this is no settings file.
const MAX_SIZE: u64 = 1 << 20;

/// What an administrator can choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The criu program; looked for in the system's directories when not set.
    pub criu: Option<PathBuf>,
    /// The bridge for interfaces of which neither the checkpoint nor the configuration names one.
    pub bridge: String,
    /// Deleted files that are still open are copied into the checkpoint up to this size, in MiB.
    pub ghost_limit: u64,
    /// Seconds after which a checkpoint or restart is given up; 0 for never.
    pub timeout: u64,
    /// Wait until the checkpoint is on the disk before the container is stopped.
    pub sync: bool,
    /// Compare the checksums of all images before a container is restarted.
    pub verify: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { criu: None, bridge: "br0".to_owned(), ghost_limit: 256, timeout: 0, sync: true, verify: true }
    }
}

impl Settings {
    /// Reads the settings; the defaults where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, holds an unknown key, or is not root's alone to write.
    pub fn load(path: &Path) -> Result<Settings> {
        let mut file = match files::open_file(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
        };
        // It names programs that root runs.
        files::check_own_file(None, path)?;
        let mut text = String::new();
        file.by_ref().take(MAX_SIZE).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_means_defaults_and_an_unknown_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lxc-cr.toml");
        assert_eq!(Settings::load(&path).unwrap(), Settings::default());
        std::fs::write(&path, "bridge = \"lxcbr0\"\n").unwrap();
        assert_eq!(Settings::load(&path).unwrap().bridge, "lxcbr0");
        std::fs::write(&path, "brigde = \"lxcbr0\"\n").unwrap();
        let error = Settings::load(&path).unwrap_err().to_string();
        assert!(error.contains("brigde") && error.contains("bridge"), "{error}");
    }

    #[test]
    fn the_sample_file_says_what_the_defaults_are() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("lxc-config/lxc-cr.toml");
        assert_eq!(Settings::load(&sample).unwrap(), Settings::default());
    }
}
