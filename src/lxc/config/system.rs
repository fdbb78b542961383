//! LXC's own settings, `/etc/lxc/lxc.conf`: where the containers are.
//!
//! Its language is not that of containers: the first line that sets a key counts, there are no
//! quotes, and a value ends at the end of its line (`lxc_global_config_value` in liblxc's
//! `initutils.c`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::load;

/// Where LXC looks for its settings.
pub(crate) const SYSTEM_CONFIG: &str = "/etc/lxc/lxc.conf";

/// Where the containers are unless the settings say otherwise.
pub(crate) const DEFAULT_LXCPATH: &str = "/var/lib/lxc";

/// The settings of LXC that matter to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemConfig {
    /// `lxc.lxcpath`, without slashes at its end.
    pub lxcpath: PathBuf,
    /// `lxc.cgroup.pattern`: the cgroup of a container, with `%n` for its name.
    pub cgroup_pattern: Option<String>,
}

impl Default for SystemConfig {
    fn default() -> SystemConfig {
        SystemConfig { lxcpath: PathBuf::from(DEFAULT_LXCPATH), cgroup_pattern: None }
    }
}

impl SystemConfig {
    /// Reads the settings from a file, usually [`SYSTEM_CONFIG`]; a file that isn't there sets
    /// nothing.
    pub fn load(path: &Path) -> Result<SystemConfig, ConfigError> {
        match load::read_file(path, None, None) {
            Ok(text) => Ok(SystemConfig::parse(&text)),
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(SystemConfig::default())
            }
            Err(e) => Err(e),
        }
    }

    /// The settings in a text.
    pub fn parse(text: &[u8]) -> SystemConfig {
        let lxcpath = value(text, "lxc.lxcpath").map(|path| {
            let length = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
            OsStr::from_bytes(path.get(..length).unwrap_or_default())
        });
        SystemConfig {
            lxcpath: PathBuf::from(lxcpath.unwrap_or(OsStr::new(DEFAULT_LXCPATH))),
            cgroup_pattern: value(text, "lxc.cgroup.pattern")
                .map(|p| String::from_utf8_lossy(p).into_owned()),
        }
    }
}

/// The value of the first line that sets a key to something.
fn value<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let trim = |mut t: &'a [u8]| {
        while let [b' ' | b'\t', rest @ ..] = t {
            t = rest;
        }
        t
    };
    text.split(|b| *b == b'\n').filter(|line| !line.starts_with(b"#")).find_map(|line| {
        let rest = trim(trim(line).strip_prefix(key.as_bytes())?);
        let value = trim(rest.strip_prefix(b"=")?).trim_ascii_end();
        (!value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_first_value() {
        for (text, path, pattern) in [
            ("", DEFAULT_LXCPATH, None),
            ("lxc.lxcpath = /srv/lxc//\n", "/srv/lxc", None),
            (" \tlxc.lxcpath=/a\nlxc.lxcpath=/b\n", "/a", None),
            ("#lxc.lxcpath=/a\nlxc.lxcpath =\nlxc.lxcpathx = /c\nlxc.lxcpath = /b", "/b", None),
            ("lxc.cgroup.pattern = lxc/%n\n", DEFAULT_LXCPATH, Some("lxc/%n")),
        ] {
            let got = SystemConfig::parse(text.as_bytes());
            assert_eq!(
                (got.lxcpath.to_str().unwrap(), got.cgroup_pattern.as_deref()),
                (path, pattern),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_missing_file_gives_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            SystemConfig::load(&dir.path().join("lxc.conf")).unwrap(),
            SystemConfig::default()
        );
        assert!(SystemConfig::load(dir.path()).is_err());
    }
}
