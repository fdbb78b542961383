//! The device rules of cgroup v1: files of the `devices` hierarchy, where LXC 5 and 6 put them on a
//! hybrid host.
//!
//! The kernel takes "nothing but this" for a cgroup without others below it only, and CRIU has to
//! open and make devices while it restores. So a new cgroup is first one where nothing is allowed
//! but every device by name, and the list is narrowed in the end; what is below it loses what it
//! loses.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::Policy;

/// What `devices.list` says where all is allowed, whatever was denied: the kernel does not show
/// that.
const ALL: &str = "a *:* rwm";
/// Every device, by name.
const EVERYTHING: [&str; 2] = ["b *:* rwm", "c *:* rwm"];

/// The rules in force on a cgroup; none where there are none. `configured` are those of the
/// container's configuration, for what the kernel does not show.
pub(crate) fn read(dir: &Path, configured: Option<Policy>) -> Result<Option<Policy>> {
    let path = dir.join("devices.list");
    let what = || format!("read {}", path.display());
    let text = fs::read_to_string(&path).with_context(what)?;
    if text.trim() == ALL {
        return Ok(configured.filter(|policy| policy.allow_by_default && !policy.rules.is_empty()));
    }
    let rules = text.lines().map(str::parse).collect::<Result<_, _>>().with_context(what)?;
    Ok(Some(Policy { allow_by_default: false, rules }))
}

/// Prepares a cgroup that is new, with none below it.
pub(crate) fn prepare(dir: &Path, policy: &Policy) -> Result<()> {
    if policy.allow_by_default {
        return Ok(());
    }
    write(dir, "devices.deny", "a")?;
    EVERYTHING.iter().try_for_each(|all| write(dir, "devices.allow", all))
}

/// Puts the rules in force, on one that was prepared or that is below such a one.
pub(crate) fn narrow(dir: &Path, policy: &Policy) -> Result<()> {
    let file = if policy.allow_by_default { "devices.deny" } else { "devices.allow" };
    if !policy.allow_by_default {
        // Before the rules, whose letters it would take from them.
        EVERYTHING.iter().try_for_each(|all| write(dir, "devices.deny", all))?;
    }
    policy.rules.iter().try_for_each(|rule| write(dir, file, &rule.to_string()))
}

fn write(dir: &Path, file: &str, line: &str) -> Result<()> {
    let path = dir.join(file);
    let written =
        OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes()));
    written.map_err(|e: io::Error| {
        anyhow::Error::new(e).context(format!("write '{line}' to {}", path.display()))
    })
}
