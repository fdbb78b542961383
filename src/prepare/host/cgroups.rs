//! The host's cgroups: cgroup2 must be there, and hand controllers on to containers. Pure but for
//! reading.

use std::path::PathBuf;

use super::root::{PUBLIC, Root};
use crate::preflight::Finding;
use crate::prepare::change::Change;

/// Where LXC looks for them.
pub(super) const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// The controllers by which containers are limited.
const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// What has it mounted at boot, where systemd does not do it.
const FSTAB_LINE: &str = "cgroup2 /sys/fs/cgroup cgroup2 nosuid,nodev,noexec 0 0\n";
/// LXC's own service: with a delegated cgroup systemd hands all controllers on at the root.
const LXC_SERVICE: [&str; 2] =
    ["usr/lib/systemd/system/lxc.service", "lib/systemd/system/lxc.service"];
const DROP_IN: &str = "etc/systemd/system/lxc.service.d/lxc-cr.conf";

/// What is to be done with the cgroups.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Files.
    pub changes: Vec<Change>,
    /// It is to be mounted.
    pub mount: bool,
    /// Controllers that are to be handed on, and the file that does it.
    pub controllers: Option<(PathBuf, Vec<String>)>,
}

/// How they are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Unified,
    Hybrid,
    Old,
    None,
}

fn layout(mountinfo: &str) -> Layout {
    let mounts = || {
        mountinfo.lines().filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            Some((mount.split(' ').nth(4)?, kind.split(' ').next()?))
        })
    };
    if mounts().any(|mount| mount == (MOUNT_POINT, "cgroup2")) {
        Layout::Unified
    } else if mounts().any(|(_, kind)| kind == "cgroup2") {
        Layout::Hybrid
    } else if mounts().any(|(_, kind)| kind == "cgroup") {
        Layout::Old
    } else {
        Layout::None
    }
}

/// Looks at them.
pub(super) fn plan(root: &Root) -> anyhow::Result<Cgroups> {
    let mut plan = Cgroups::default();
    let boot = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line";
    match layout(&root.text("proc/self/mountinfo").unwrap_or_default()) {
        Layout::Unified => {}
        Layout::Hybrid => {
            let why =
                "LXC 7 runs no container on this layout, and the old controllers are not restored";
            plan.findings.push(
                Finding::warning("cgroup2 and the old cgroups are both mounted", why).remedy(boot),
            );
            return Ok(plan);
        }
        Layout::Old => {
            let why = "containers are found and restored by their cgroup2";
            plan.findings
                .push(Finding::blocker("only the old cgroups are mounted", why).remedy(boot));
            return Ok(plan);
        }
        Layout::None => {
            plan.findings.push(
                Finding::blocker(
                    "no cgroup2 is mounted",
                    "containers are found and restored by their cgroup2",
                )
                .remedy(format!("mount -t cgroup2 cgroup2 {MOUNT_POINT}")),
            );
            plan.mount = true;
            if !root.has("run/systemd/system") {
                plan.changes.extend(root.append("etc/fstab", FSTAB_LINE)?);
            }
            return Ok(plan);
        }
    }
    let words = |file: &str| -> Vec<String> {
        let text = root.text(&format!("{MOUNT_POINT}/{file}")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let (offered, given) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    let missing: Vec<String> = WANTED
        .iter()
        .filter(|name| offered.iter().any(|o| o == *name) && !given.iter().any(|g| g == *name))
        .map(|name| (*name).to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(plan);
    }
    let control = format!("{MOUNT_POINT}/cgroup.subtree_control");
    let signed: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    plan.findings.push(
        Finding::warning(
            format!("controllers are not handed on to containers: {}", missing.join(", ")),
            "a container cannot be limited by them, and limits of a checkpoint cannot be set again",
        )
        .remedy(format!("echo '{}' > {control}", signed.join(" "))),
    );
    plan.controllers = Some((root.path(&control), missing));
    let service = LXC_SERVICE.iter().find_map(|file| root.text(file));
    if service.is_some_and(|text| !text.lines().any(|line| line.trim().starts_with("Delegate="))) {
        let text = "# By lxc-cr prepare: controllers for containers.\n[Service]\nDelegate=yes\n"
            .to_owned();
        plan.changes.extend(root.change(DROP_IN, text, PUBLIC)?);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let line = |at: &str, kind: &str| {
            format!("31 23 0:27 / {at} rw,nosuid shared:9 - {kind} {kind} rw\n")
        };
        let old = line("/sys/fs/cgroup/memory", "cgroup");
        assert_eq!(layout(&line("/sys/fs/cgroup", "cgroup2")), Layout::Unified);
        assert_eq!(layout(&(line("/sys/fs/cgroup/unified", "cgroup2") + &old)), Layout::Hybrid);
        assert_eq!(layout(&old), Layout::Old);
        assert_eq!(layout(&line("/", "ext4")), Layout::None);
    }
}
