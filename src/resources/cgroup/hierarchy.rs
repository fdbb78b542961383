//! The host's cgroup hierarchies: cgroup2, and those of v1 beside it on a hybrid host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers of v1 that are mounted here, as /proc/PID/cgroup names them (`cpu` and
    /// `cpuacct`, or `name=systemd`). None on cgroup2, which is one for all.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Hierarchy {
    /// Whether it is cgroup2.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether it has this controller of v1.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// The hierarchies that are mounted here: cgroup2 first, then v1's in the kernel's order.
///
/// # Errors
/// When cgroup2 is not mounted: on a pure v1 host nothing is done.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = mounts()?;
    let mut found = vec![Hierarchy { controllers: Vec::new(), mount: unified_of(&mounts)? }];
    for (controllers, _) in
        memberships("self")?.into_iter().filter(|(controllers, _)| !controllers.is_empty())
    {
        let here =
            |m: &&CgroupMount| !m.unified && controllers.iter().all(|c| m.options.contains(c));
        if let Some(mount) = mounts.iter().find(here) {
            found.push(Hierarchy { controllers, mount: mount.point.clone() });
        }
    }
    Ok(found)
}

/// Where cgroup2 is mounted.
///
/// # Errors
/// When it is not.
pub(crate) fn unified_mount() -> Result<PathBuf> {
    unified_of(&mounts()?)
}

/// The path of a process in a hierarchy; none where it has no such hierarchy.
pub(super) fn path_in(hierarchy: &Hierarchy, pid: i32) -> Result<Option<PathBuf>> {
    path_of(&pid.to_string(), &hierarchy.controllers)
}

/// liblxc's base with `lxc.cgroup.relative = 1`: our own cgroup.
pub(crate) fn own_base(hierarchy: &Hierarchy) -> Result<PathBuf> {
    Ok(path_of("self", &hierarchy.controllers)?.unwrap_or_else(|| PathBuf::from("/")))
}

/// liblxc's base for containers of root: the cgroup of pid 1, without systemd's own part of it.
pub(crate) fn base(hierarchy: &Hierarchy) -> Result<PathBuf> {
    let path = path_in(hierarchy, 1)?.unwrap_or_else(|| PathBuf::from("/"));
    Ok(match path.file_name() {
        Some(last) if last == "init.scope" => path.parent().unwrap_or(Path::new("/")).to_owned(),
        _ => path,
    })
}

fn path_of(pid: &str, controllers: &[String]) -> Result<Option<PathBuf>> {
    Ok(memberships(pid)?.into_iter().find(|(found, _)| found == controllers).map(|(_, path)| path))
}

/// The controllers of each hierarchy, and the path of a process there.
fn memberships(pid: &str) -> Result<Vec<(Vec<String>, PathBuf)>> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    Ok(text.lines().filter_map(membership).collect())
}

/// `ID:CONTROLLER,CONTROLLER:PATH`.
fn membership(line: &str) -> Option<(Vec<String>, PathBuf)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    Some((
        controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect(),
        path.into(),
    ))
}

struct CgroupMount {
    unified: bool,
    point: PathBuf,
    /// The controllers, among other options.
    options: Vec<String>,
}

fn mounts() -> Result<Vec<CgroupMount>> {
    let mounts = procfs::process::Process::myself()
        .and_then(|me| me.mountinfo())
        .context("read /proc/self/mountinfo")?;
    let cgroups =
        mounts.into_iter().filter(|m| ["cgroup", "cgroup2"].contains(&m.fs_type.as_str()));
    let option = |(name, value): (String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    };
    Ok(cgroups
        .map(|m| CgroupMount {
            unified: m.fs_type == "cgroup2",
            point: m.mount_point,
            options: m.super_options.into_iter().map(option).collect(),
        })
        .collect())
}

fn unified_of(mounts: &[CgroupMount]) -> Result<PathBuf> {
    let unified = mounts
        .iter()
        .find(|m| m.unified)
        .context("no cgroup2 file system is mounted on this host")?;
    Ok(unified.point.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_controllers_and_a_path() {
        let words =
            |list: &[&str]| -> Vec<String> { list.iter().map(|w| (*w).to_owned()).collect() };
        assert_eq!(membership("0::/lxc.payload.t"), Some((vec![], "/lxc.payload.t".into())));
        assert_eq!(
            membership("4:cpu,cpuacct:/a:b"),
            Some((words(&["cpu", "cpuacct"]), "/a:b".into()))
        );
        assert_eq!(membership("9:name=systemd:/"), Some((words(&["name=systemd"]), "/".into())));
        assert_eq!(membership("x"), None);
    }
}
