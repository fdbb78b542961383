//! Find a running container: its init, by whatever still knows it.
//!
//! LXC's monitor is asked first. When it is gone (it crashed, it was killed) or does not answer,
//! the container may still run; then /proc is searched for a process that is the first of a pid
//! namespace and has the container's root (the directory, or a mount of the image, device or
//! overlay), or, where nothing tells the root, lives in its payload cgroup.
//!
//! Others can look like that, too. So the monitor must be the parent of the init that it names, and
//! whatever is found in /proc must be in namespaces that only root can have made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::command::{Client, Error};
use super::home::{Home, payload_part};
use super::protocol;
use super::root::RootIs;
use crate::lxc::definition::Defined;
use crate::sys::namespace;
use crate::sys::process::{self, Process};

/// The key of the part of its cgroup in which its tasks are.
const INNER: &str = "lxc.cgroup.dir.container.inner";

/// A running container.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its first process.
    pub init: Process,
    /// Its `lxc.cgroup.dir.container.inner`.
    pub inner_cgroup: Option<String>,
}

/// By what a container is known besides its name, where its monitor is gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks<'a> {
    /// Its root, as `lxc.rootfs.path` names it.
    pub rootfs: Option<&'a Path>,
    /// `lxc.cgroup.dir.container`.
    pub cgroup: Option<&'a str>,
    /// `lxc.cgroup.dir.container.inner`.
    pub inner_cgroup: Option<&'a str>,
}

impl<'a> Marks<'a> {
    /// Those of a container whose definition is known.
    pub(crate) fn of(defined: &'a Defined) -> Marks<'a> {
        let cgroup = defined.config.cgroup_dir_container();
        let inner_cgroup = cgroup.and(defined.config.cgroup_dir_inner());
        Marks { rootfs: Some(&defined.rootfs), cgroup, inner_cgroup }
    }

    /// Its root alone.
    pub(crate) fn root(rootfs: Option<&'a Path>) -> Marks<'a> {
        Marks { rootfs, ..Marks::default() }
    }

    /// Whether it is the place that the configuration names.
    fn are_of(&self, cgroup: &Path) -> bool {
        let Some(dir) = self.cgroup else { return false };
        let named = self
            .inner_cgroup
            .map_or_else(|| PathBuf::from(dir), |inner| Path::new(dir).join(inner));
        cgroup.ends_with(named)
    }
}

/// Finds a container; `None` when it does not run.
///
/// # Errors
/// When the monitor refuses to talk to us, or /proc cannot be read.
pub(crate) fn find(lxcpath: &str, name: &str, marks: Marks<'_>) -> Result<Option<Running>> {
    let client = Client::new(lxcpath, name);
    match client.init_pid() {
        Ok(pid) => {
            if let Ok(init) = Process::open(pid.as_raw()) {
                // The number was read before the process was held: ask again, now that it cannot be
                // given away.
                if client.init_pid().is_ok_and(|again| again == pid) {
                    if !is_child_of_who_answers(&init, &protocol::socket_name(lxcpath, name))? {
                        log::warn!(
                            "the process on {name}'s command socket is not the parent of {pid}: \
                             ignored"
                        );
                        return find_without_monitor(name, marks);
                    }
                    // What it was started with; the configuration may be another one by now.
                    let inner = match client.config_item(INNER) {
                        Ok(inner) => inner,
                        Err(_) => marks.inner_cgroup.map(str::to_owned),
                    };
                    return Ok(Some(Running { init, inner_cgroup: inner }));
                }
            }
            // It ended between the two: it does not run.
            Ok(None)
        }
        Err(Error::NotRunning) => find_without_monitor(name, marks),
        Err(e @ Error::Denied) => Err(e).context("ask LXC's monitor for the container's init"),
        Err(e) => {
            log::debug!("LXC's monitor gives no answer ({e}); looking in /proc");
            let found = find_without_monitor(name, marks)?;
            if let Some(running) = &found {
                wake_monitor(&running.init, &protocol::socket_name(lxcpath, name));
            }
            Ok(found)
        }
    }
}

/// Continues LXC's monitor where something has stopped it: each question to it would have to be
/// waited for, and what it does when the container ends would not be done.
fn wake_monitor(init: &Process, address: &str) {
    let woken = || -> Result<bool> {
        if !is_child_of_who_answers(init, address)? {
            return Ok(false);
        }
        let monitor = process::parent(init.pid())?;
        if !process::is_stopped(monitor) {
            return Ok(false);
        }
        Process::open(monitor)?.signal(libc::SIGCONT)?;
        Ok(true)
    };
    match woken() {
        Ok(true) => log::warn!("LXC's monitor was stopped: it is continued"),
        Ok(false) => {}
        Err(e) => log::debug!("continue LXC's monitor: {e:#}"),
    }
}

/// Whether init's parent has the socket on which it was named. Any root that shares the host's
/// network can take the address of a stopped container, a container's own, too, and name the init
/// of another one; the monitor of that one does not have its socket.
fn is_child_of_who_answers(init: &Process, address: &str) -> Result<bool> {
    let parent = process::parent(init.pid()).context("find init's parent")?;
    let Some(inode) = namespace::listener(address).context("find the command socket")? else {
        return Ok(false);
    };
    Ok(namespace::has_socket(parent, inode).unwrap_or(false))
}

/// Whether a cgroup path has the name that liblxc gives where it is not told another.
pub(crate) fn is_payload(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str().to_string_lossy().starts_with("lxc.payload"))
}

/// As [`find`], without asking the monitor: for those whom the monitor waits for, its hooks.
pub(crate) fn find_without_monitor(name: &str, marks: Marks<'_>) -> Result<Option<Running>> {
    let running =
        |init| Ok(Some(Running { init, inner_cgroup: marks.inner_cgroup.map(str::to_owned) }));
    let root = marks.rootfs.map(RootIs::of).filter(|root| *root != RootIs::Unknown);
    let mut by_cgroup = None;
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry.context("list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // Processes come and go while we look: what cannot be read is gone. What root has not made
        // is no container of root's, whatever root directory and cgroup it shows.
        if !is_first_of_its_namespace(pid) || !namespace::are_of_root(pid).unwrap_or(false) {
            continue;
        }
        let Ok(init) = Process::open(pid) else { continue };
        let home = Home::of(pid, &[], None).ok().flatten();
        let cgroup = home.map(|home| home.path).unwrap_or_default();
        // Its root may be mounted where only it and its monitor see it (lxc.monitor.unshare).
        if marks.are_of(&cgroup) {
            return running(init);
        }
        let in_cgroup = is_payload_of(&payload_part(&cgroup), name);
        let in_anothers = is_payload_of_another(&cgroup, name);
        match root.as_ref().map(|root| root.is_of(pid)) {
            Some(true) if in_cgroup => return running(init),
            // Containers may share a root; only read, or one after the other.
            Some(true) if !in_anothers => return running(init),
            // The name alone may be that of a container in another LXC path.
            None if in_cgroup => by_cgroup = Some(init),
            _ => {}
        }
    }
    by_cgroup.map_or(Ok(None), running)
}

/// Whether the kernel counts this process as number 1 of a pid namespace just below ours.
fn is_first_of_its_namespace(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    first_below(&status)
}

fn first_below(status: &str) -> bool {
    let Some(line) = status.lines().find_map(|l| l.strip_prefix("NSpid:")) else { return false };
    let numbers: Vec<&str> = line.split_ascii_whitespace().collect();
    numbers.len() == 2 && numbers[1] == "1"
}

/// Whether the innermost cgroup of this path that liblxc has named is of a container of another
/// name.
fn is_payload_of_another(cgroup: &Path, name: &str) -> bool {
    let is_named = |path: &&Path| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lxc.payload."))
    };
    cgroup.ancestors().find(is_named).is_some_and(|innermost| !is_payload_of(innermost, name))
}

/// `lxc.payload.NAME`, with liblxc's `-1`, `-2`, … when the name was taken.
fn is_payload_of(cgroup: &Path, name: &str) -> bool {
    let Some(last) = cgroup.file_name().and_then(|n| n.to_str()) else { return false };
    match last.strip_prefix("lxc.payload.").and_then(|n| n.strip_prefix(name)) {
        Some("") => true,
        Some(suffix) => suffix
            .strip_prefix('-')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_cgroup_belongs_to_one_name() {
        for (cgroup, name, yes) in [
            ("/lxc.payload.web", "web", true),
            ("/lxc.payload.web-3", "web", true),
            ("/lxc.payload.web-3", "web-3", true),
            ("/lxc.payload.web2", "web", false),
            ("/lxc.payload.web-x", "web", false),
            ("/user.slice", "web", false),
        ] {
            assert_eq!(is_payload_of(Path::new(cgroup), name), yes, "{cgroup} {name}");
        }
    }

    #[test]
    fn a_cgroup_of_another_name_is_anothers() {
        for (cgroup, anothers) in [
            ("/lxc.payload.web", false),
            ("/lxc.payload.web/init.scope", false),
            ("/lxc.payload.outer/lxc.payload.web", false),
            ("/lxc.payload/web", false),
            ("/own/dir", false),
            ("/lxc.payload.db", true),
            ("/lxc.payload.db/init.scope", true),
        ] {
            assert_eq!(is_payload_of_another(Path::new(cgroup), "web"), anothers, "{cgroup}");
        }
    }

    #[test]
    fn what_init_made_below_its_cgroup_is_not_the_payload() {
        assert_eq!(
            payload_part(Path::new("/lxc.payload.t/init.scope")),
            Path::new("/lxc.payload.t")
        );
        assert_eq!(
            payload_part(Path::new("/base/lxc.payload.t-1")),
            Path::new("/base/lxc.payload.t-1")
        );
        assert_eq!(payload_part(Path::new("/own/dir")), Path::new("/own/dir"));
    }

    #[test]
    fn only_the_first_of_a_namespace_below_ours_counts() {
        assert!(first_below("Name:\tinit\nNSpid:\t812\t1\n"));
        assert!(!first_below("NSpid:\t1\n"));
        assert!(!first_below("NSpid:\t812\t7\n"));
        assert!(!first_below("NSpid:\t812\t44\t1\n"));
    }
}
