//! Where LXC has put a container among the cgroups, whatever its init has made for itself below
//! that.
//!
//! The kernel tells it where init has a cgroup namespace, for its root is the very place; else the
//! names do that liblxc gives. With `lxc.cgroup.dir.container.inner` the place has two parts: the
//! outer cgroup has the limits and device rules, which the container cannot reach, and the inner
//! one its tasks ([`Home`]).

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::config::Config;
use crate::sys::process;

/// A container's place in one hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The cgroup with the limits; relative to the hierarchy's root, with a leading slash.
    pub path: PathBuf,
    /// Where its tasks begin below that; empty where these are the same.
    pub inner: PathBuf,
}

impl Home {
    /// The place of a container by its init, in the hierarchy of these controllers (none: cgroup2).
    /// `inner` is its `lxc.cgroup.dir.container.inner`.
    pub(crate) fn of(
        init: i32,
        controllers: &[String],
        inner: Option<&str>,
    ) -> Result<Option<Home>> {
        let file = format!("/proc/{init}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let Some(outside) = path_in(&text, controllers) else { return Ok(None) };
        let within = process::cgroups_within(init)
            .with_context(|| format!("read {file} within its namespace"))?;
        let within = within.and_then(|text| path_in(&text, controllers));
        Ok(Some(Home::split(place(&outside, within.as_deref()), inner)))
    }

    fn split(place: PathBuf, inner: Option<&str>) -> Home {
        let inner = inner.map(Path::new).unwrap_or(Path::new(""));
        match place.parent() {
            Some(outer)
                if !inner.as_os_str().is_empty()
                    && outer != Path::new("/")
                    && place.ends_with(inner) =>
            {
                Home { path: outer.to_owned(), inner: inner.to_owned() }
            }
            _ => Home { path: place, inner: PathBuf::new() },
        }
    }
}

/// `/proc/PID/cgroup`: the path of a process in the hierarchy of these controllers.
fn path_in(text: &str, controllers: &[String]) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (found, path) = (fields.next()?, fields.next()?);
        let is_it =
            found.split(',').filter(|c| !c.is_empty()).eq(controllers.iter().map(String::as_str));
        is_it.then(|| PathBuf::from(path))
    })
}

/// Where LXC has put it, by its path as we see it and as it sees it itself.
fn place(outside: &Path, within: Option<&Path>) -> PathBuf {
    let root = within.and_then(|within| root_of_namespace(outside, within));
    // A restore by LXC itself leaves a namespace that begins at the top.
    let root = root.filter(|root| root != Path::new("/"));
    payload_part(root.as_deref().unwrap_or(outside))
}

fn root_of_namespace(outside: &Path, within: &Path) -> Option<PathBuf> {
    let mut root = outside.to_owned();
    for part in within.strip_prefix("/").ok()?.components().rev() {
        let Component::Normal(name) = part else { return None };
        if root.file_name() != Some(name) {
            return None;
        }
        root.pop();
    }
    Some(root)
}

/// Where liblxc puts a container and its monitor at a start (cgfsng.c, `cgfsng_monitor_create`,
/// `cgfsng_payload_create`, `cgfsng_monitor_destroy`), below where its cgroups begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The container's, with the limits.
    pub payload: PathBuf,
    /// Where its tasks begin below that.
    pub inner: PathBuf,
    /// The monitor's.
    pub monitor: PathBuf,
    /// Where the monitor goes when its own is removed.
    pub pivot: PathBuf,
    /// They are what the configuration says, and get no number where one is taken.
    pub exact: bool,
}

impl Names {
    /// By a container's configuration, and the pattern of LXC's own settings
    /// (`lxc.cgroup.pattern`).
    pub(crate) fn new(name: &str, config: &Config, pattern: Option<&str>) -> Names {
        let dir = config.cgroup_dir();
        let pivot = config
            .cgroup_dir_pivot()
            .or(dir)
            .map(Path::new)
            .unwrap_or(Path::new(""))
            .join("lxc.pivot");
        let inner = PathBuf::new();
        if let (Some(payload), Some(monitor)) =
            (config.cgroup_dir_container(), config.cgroup_dir_monitor())
        {
            let inner = config.cgroup_dir_inner().map(PathBuf::from).unwrap_or_default();
            return Names {
                payload: payload.into(),
                inner,
                monitor: monitor.into(),
                pivot,
                exact: true,
            };
        }
        let (above, payload, monitor) = match (dir, pattern.filter(|p| !p.is_empty())) {
            (None, Some(pattern)) => {
                (pattern.replace("%n", name), "payload".to_owned(), "monitor".to_owned())
            }
            (dir, _) => (
                dir.unwrap_or_default().to_owned(),
                format!("lxc.payload.{name}"),
                format!("lxc.monitor.{name}"),
            ),
        };
        let above = Path::new(above.trim_start_matches('/'));
        Names {
            payload: above.join(payload),
            inner,
            monitor: above.join(monitor),
            pivot,
            exact: false,
        }
    }
}

/// The path up to the component that liblxc made; the whole path if none looks like it
/// (`lxc.cgroup.dir.container`).
pub(crate) fn payload_part(path: &Path) -> PathBuf {
    let mut part = PathBuf::new();
    for component in path.components() {
        part.push(component);
        if component.as_os_str().to_string_lossy().starts_with("lxc.payload") {
            return part;
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_its_namespace_is_the_place() {
        let at = |outside: &str, within: &str| place(Path::new(outside), Some(Path::new(within)));
        assert_eq!(at("/lxc/101/ns/init.scope", "/init.scope"), Path::new("/lxc/101/ns"));
        assert_eq!(at("/lxc/101/ns", "/"), Path::new("/lxc/101/ns"));
        assert_eq!(at("/own/dir/init.scope", "/../x"), Path::new("/own/dir/init.scope"));
        assert_eq!(
            at("/lxc.payload.t/init.scope", "/lxc.payload.t/init.scope"),
            Path::new("/lxc.payload.t")
        );
        assert_eq!(at("/lxc.payload.t/init.scope", "/"), Path::new("/lxc.payload.t"));
        assert_eq!(place(Path::new("/lxc.payload.t/a"), None), Path::new("/lxc.payload.t"));
    }

    #[test]
    fn limits_are_on_the_outer_part() {
        let split = |place: &str, inner| {
            let home = Home::split(place.into(), inner);
            (home.path.display().to_string(), home.inner.display().to_string())
        };
        assert_eq!(split("/lxc/101/ns", Some("ns")), ("/lxc/101".into(), "ns".into()));
        assert_eq!(split("/lxc/101", Some("ns")), ("/lxc/101".into(), String::new()));
        assert_eq!(split("/lxc/101/ns", None), ("/lxc/101/ns".into(), String::new()));
        assert_eq!(split("/ns", Some("ns")), ("/ns".into(), String::new()));
    }

    #[test]
    fn a_path_is_that_of_its_controllers() {
        let text = "4:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n";
        let words =
            |list: &[&str]| -> Vec<String> { list.iter().map(|w| (*w).to_owned()).collect() };
        assert_eq!(path_in(text, &[]), Some("/c".into()));
        assert_eq!(path_in(text, &words(&["cpu", "cpuacct"])), Some("/a".into()));
        assert_eq!(path_in(text, &words(&["cpu"])), None);
    }

    #[test]
    fn names_are_those_that_liblxc_gives() {
        let names = |text: &str, pattern| {
            let config = Config::parse(Path::new("/x"), text.as_bytes()).unwrap();
            let n = Names::new("101", &config, pattern);
            [n.payload, n.inner, n.monitor, n.pivot].map(|p| p.display().to_string()).join(" ")
        };
        assert_eq!(names("", None), "lxc.payload.101  lxc.monitor.101 lxc.pivot");
        let all = "lxc.cgroup.dir.monitor = lxc.monitor/101\nlxc.cgroup.dir.container = lxc/101\n\
                   lxc.cgroup.dir.container.inner = ns\n";
        assert_eq!(names(all, None), "lxc/101 ns lxc.monitor/101 lxc.pivot");
        let pivot = format!("{all}lxc.cgroup.dir.monitor.pivot = p\n");
        assert_eq!(names(&pivot, None), "lxc/101 ns lxc.monitor/101 p/lxc.pivot");
        assert_eq!(
            names("lxc.cgroup.dir = d\n", None),
            "d/lxc.payload.101  d/lxc.monitor.101 d/lxc.pivot"
        );
        assert_eq!(names("", Some("lxc/%n")), "lxc/101/payload  lxc/101/monitor lxc.pivot");
    }
}
