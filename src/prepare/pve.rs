//! A container of Proxmox VE. Its LXC configuration is rewritten at each start, of
//! `/etc/pve/lxc/ID.conf`: so that is the file which gets our lines, as `KEY: VALUE` and before the
//! first section, for each section is a snapshot. They come without a comment, which PVE would take
//! for the container's notes.
//!
//! Its root is mounted by hooks, and only its own processes see it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::change::Content;
use super::installed::Installed;
use crate::lxc::config::{Config, ConfigError};
use crate::lxc::definition::Defined;
use crate::sys::path_trust;

/// The only directory in which PVE has containers.
const LXCPATH: &str = "/var/lib/lxc";
/// Where their definitions are: a FUSE file system.
const DEFINITIONS: &str = "/etc/pve/lxc";

/// The definition of a container.
#[derive(Debug)]
pub(crate) struct Definition {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub text: Content,
}

impl Definition {
    /// That of a container; none if it is not one of PVE's.
    pub(crate) fn of(defined: &Defined) -> Result<Option<Definition>> {
        if defined.lxcpath.as_path() != Path::new(LXCPATH) {
            return Ok(None);
        }
        let path = Path::new(DEFINITIONS).join(format!("{}.conf", defined.name));
        let Some(text) =
            Content::read(&path).with_context(|| format!("read {}", path.display()))?
        else {
            return Ok(None);
        };
        path_trust::check(&path)?;
        Ok(Some(Definition { path, text }))
    }

    /// What PVE is doing with it: `backup`, `migrate`, …
    pub(crate) fn lock(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.text.0);
        current(&text)
            .find_map(|line| line.strip_prefix("lock:").map(|what| what.trim().to_owned()))
    }

    /// It with these lines of LXC's at the end of what is no snapshot.
    pub(crate) fn with(&self, lines: &[String]) -> Content {
        let end = end_of_current(&self.text.0);
        let (head, tail) = self.text.0.split_at(end);
        let mut new = head.to_vec();
        if new.last().is_some_and(|byte| *byte != b'\n') {
            new.push(b'\n');
        }
        for line in lines {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            new.extend(format!("{}: {}\n", key.trim(), value.trim()).bytes());
        }
        new.extend_from_slice(tail);
        Content(new)
    }
}

/// LXC's configuration as PVE will write it of a definition: the one of the last start, without
/// what came from us, and with the lines of the definition.
pub(crate) fn config_of(
    definition: &Content,
    written: &Config,
    installed: &Installed,
) -> Result<Config, ConfigError> {
    let old = Content::read(written.file()).ok().flatten().unwrap_or(Content(Vec::new()));
    let ours =
        [&installed.config.join("lxc-cr"), &installed.data].map(|path| path.display().to_string());
    let mut text = String::new();
    for line in String::from_utf8_lossy(&old.0)
        .lines()
        .filter(|line| !ours.iter().any(|o| line.contains(o)))
    {
        text += line;
        text.push('\n');
    }
    for line in
        current(&String::from_utf8_lossy(&definition.0)).filter(|line| line.starts_with("lxc."))
    {
        let at = line.find([':', '=']).unwrap_or(line.len());
        let (key, value) = line.split_at(at);
        text += &format!("{} = {}\n", key.trim(), value.get(1..).unwrap_or_default().trim());
    }
    Config::parse(written.file(), text.as_bytes())
}

/// The lines before the first section.
fn current(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with('['))
}

/// Where what is no snapshot ends: before the empty lines above the first section.
fn end_of_current(text: &[u8]) -> usize {
    let (mut at, mut end) = (0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"[") {
            return end;
        }
        at += line.len();
        if !line.trim_ascii().is_empty() {
            end = at;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> String {
        let definition = Definition { path: "/etc/pve/lxc/101.conf".into(), text: text.into() };
        let lines = ["lxc.include = /x".to_owned(), "lxc.environment = A=b".to_owned()];
        String::from_utf8(definition.with(&lines).0).unwrap()
    }

    #[test]
    fn lines_go_before_the_first_snapshot() {
        let ours = "lxc.include: /x\nlxc.environment: A=b\n";
        assert_eq!(with("a: 1\n"), format!("a: 1\n{ours}"));
        assert_eq!(with("a: 1"), format!("a: 1\n{ours}"));
        assert_eq!(with("a: 1\n\n[one]\na: 2\n"), format!("a: 1\n{ours}\n[one]\na: 2\n"));
        assert_eq!(with("[one]\na: 2\n"), format!("{ours}[one]\na: 2\n"));
    }

    #[test]
    fn a_lock_is_the_containers_and_not_a_snapshots() {
        let lock = |text: &str| Definition { path: PathBuf::new(), text: text.into() }.lock();
        assert_eq!(lock("a: 1\nlock: backup\n").as_deref(), Some("backup"));
        assert_eq!(lock("a: 1\n[one]\nlock: backup\n"), None);
    }

    #[test]
    fn what_pve_will_write_has_the_lines_of_the_definition() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("config");
        std::fs::write(
            &file,
            "lxc.tty.max = 2\nlxc.mount.entry = /usr/share/lxc-cr/a b none bind 0 0\n",
        )
        .unwrap();
        let written = Config::load(&file).unwrap();
        let definition = "lxc.environment: A=b\n[one]\nlxc.environment: C=d\n".into();
        let config =
            config_of(&definition, &written, &Installed::below(Path::new("/usr"))).unwrap();
        let lines: Vec<_> =
            config.items().iter().map(|i| i.to_line().to_string_lossy().into_owned()).collect();
        assert_eq!(lines, ["lxc.tty.max = 2", "lxc.environment = A=b"]);
    }
}
