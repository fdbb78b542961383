//! The host's files, as they are or below another root for tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::prepare::change::{Change, Content};
use crate::sys::files;

/// The mode of a file that everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// A root.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The host's own is `/`.
    pub fn new(path: &Path) -> Root {
        Root(path.to_owned())
    }

    /// Where a path of the host's is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Whether something is there; a link counts wherever it leads.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The text of a file; none if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The files of a directory whose names end so, sorted.
    pub fn files(&self, dir: &str, end: &str) -> Vec<String> {
        let names = files::names(&self.path(dir)).unwrap_or_default();
        let names =
            names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(end));
        names.map(|name| format!("{dir}/{name}")).collect()
    }

    /// A file that shall hold this, and not what it holds now; none if it does.
    pub fn change(&self, path: &str, after: String, mode: u32) -> anyhow::Result<Option<Change>> {
        let path = self.path(path);
        let before =
            Content::read(&path).map_err(|e| anyhow::anyhow!("read {}: {e}", path.display()))?;
        let after = Content(after.into_bytes());
        Ok((before.as_ref() != Some(&after)).then_some(Change { path, before, after, mode }))
    }

    /// As [`Root::change`] with lines added at the end of what is there.
    pub fn append(&self, path: &str, lines: &str) -> anyhow::Result<Option<Change>> {
        let before = self.text(path).unwrap_or_default();
        let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        self.change(path, format!("{before}{end}{lines}"), PUBLIC)
    }

    /// Whether systemd starts a unit by itself.
    pub fn enables(&self, unit: &str) -> bool {
        let system = "etc/systemd/system";
        self.files(system, ".wants").iter().any(|dir| self.has(&format!("{dir}/{unit}")))
    }
}
