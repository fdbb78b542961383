//! What CRIU loses of files in a tmpfs: it saves them with tar, which keeps whole seconds and
//! neither extended attributes nor ACLs nor capabilities.
//!
//! It is read while all tasks stand still, and given back while they still do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::resources::mounts;
use crate::sys::entry::{Entry, Facts};

/// More were made to hold us up.
const LIMIT: usize = 20_000;
/// The attributes that are restored: a user's, an administrator's, capabilities, ACLs.
const ATTRIBUTES: [&str; 4] = ["user.", "trusted.", "security.capability", "system.posix_acl_"];

/// A file of a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsFile {
    /// Where init sees it.
    pub path: PathBuf,
    /// When it was changed last: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Its extended attributes: name, and value in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// The files of each tmpfs that init sees and the host does not have.
///
/// # Errors
/// Where a mount or a file cannot be read, or there are more files than could be kept.
pub(crate) fn read(init: i32) -> Result<Vec<TmpfsFile>> {
    let of_host = mounts::table(std::process::id().cast_signed())?;
    let table = mounts::table(init)?;
    let mut seen: BTreeSet<&str> = of_host.iter().map(|mount| mount.device.as_str()).collect();
    let mut found = Vec::new();
    for mount in table.iter().filter(|mount| mount.kind == "tmpfs" && mount.root == Path::new("/"))
    {
        if !seen.insert(&mount.device) || is_behind_a_server(mount, &table) {
            continue;
        }
        let entry =
            below(init, &mount.point).with_context(|| format!("open {}", mount.point.display()))?;
        let facts = entry.facts()?;
        // What another mount hides CRIU does not see either.
        if facts.mount == 0 || u64::try_from(mount.id) == Ok(facts.mount) {
            walk(&entry, facts, mount.point.clone(), &mut found)?;
        }
    }
    Ok(found)
}

/// FUSE and the like on the way: whose server stands still does not answer.
fn is_behind_a_server(mount: &mounts::Mount, table: &[mounts::Mount]) -> bool {
    let served = |kind: &str| {
        ["fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "autofs"]
            .iter()
            .any(|s| kind.starts_with(s))
    };
    table.iter().any(|other| served(&other.kind) && mount.point.starts_with(&other.point))
}

fn below(init: i32, path: &Path) -> std::io::Result<Entry> {
    Entry::of_process(init, path)
}

fn walk(entry: &Entry, facts: Facts, path: PathBuf, found: &mut Vec<TmpfsFile>) -> Result<()> {
    if found.len() >= LIMIT {
        bail!("there are more than {LIMIT} files in memory");
    }
    let mut attributes = entry.attributes()?;
    attributes.retain(|(name, _)| ATTRIBUTES.iter().any(|kept| name.starts_with(kept)));
    found.push(TmpfsFile { path: path.clone(), modified: facts.modified, attributes });
    if facts.is_directory() {
        for name in entry.names()? {
            if let Some(child) = entry.child(&name)? {
                let facts = child.facts()?;
                walk(&child, facts, path.join(&name), found)?;
            }
        }
    }
    Ok(())
}

/// Gives them back what they had; a file that is not there any more has nothing.
///
/// # Errors
/// The first that the kernel has refused; the others are tried all the same.
pub(crate) fn restore(init: i32, files: &[TmpfsFile]) -> Result<()> {
    let mut outcome = Ok(());
    for file in files {
        let entry = match below(init, &file.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entry => entry,
        };
        let done = entry.and_then(|entry| {
            // Another mount may be there now.
            if !entry.is_in_tmpfs()? {
                return Ok(());
            }
            for (name, value) in &file.attributes {
                entry.set_attribute(name, value)?;
            }
            entry.set_modified(file.modified)
        });
        let done =
            done.with_context(|| format!("{} in memory is not all as it was", file.path.display()));
        outcome = outcome.and(done);
    }
    outcome
}
