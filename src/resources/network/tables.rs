//! Tables of the old iptables in a container's network namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

/// The names of the tables that a network namespace has, seen through one of its tasks
/// (net/netfilter/x_tables.c). The kernel has these files for every namespace, or for none.
const FILES: [&str; 2] = ["ip_tables_names", "ip6_tables_names"];

/// Whether any of these tasks has a network namespace with such a table.
pub(crate) fn in_use(tasks: &[i32]) -> Result<bool> {
    let mut seen = BTreeSet::new();
    for pid in tasks {
        // A task that has ended has no table to save.
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/net")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        for file in FILES {
            let path = format!("/proc/{pid}/net/{file}");
            match fs::read_to_string(&path) {
                Ok(names) if names.trim().is_empty() => {}
                Ok(_) => return Ok(true),
                // No such tables in this kernel, or the task has ended.
                Err(e)
                    if e.kind() == ErrorKind::NotFound
                        || e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(e).with_context(|| format!("read {path}")),
            }
        }
    }
    Ok(false)
}
