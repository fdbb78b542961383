//! The record of a copy: that of the original's checkpoint, as if it had been one of the copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::network::Interface;
use super::{own_devices, own_ports};
use crate::lxc::config::MountEntry;
use crate::lxc::definition::Defined;
use crate::resources::mounts::External;
use crate::resources::rootfs::Root;
use crate::store::record::{Container, Record};

/// Keys of the configuration of which a copy has its own.
const OWN: &[&str] = &["lxc.rootfs.path", "lxc.uts.name"];
/// The same, of an interface.
const OWN_OF_NIC: &[&str] =
    &["hwaddr", "ipv4.address", "ipv4.gateway", "ipv6.address", "ipv6.gateway"];
/// Their values are paths of the host, or begin with one.
const FSTAB: &str = "lxc.mount.fstab";
const ENTRY: &str = "lxc.mount.entry";

/// What a copy gets.
#[derive(Debug)]
pub(super) struct Adopted {
    /// Its record.
    pub record: Record,
    /// Directories and files of the host that it has in common with the original, to write to.
    pub shared: Vec<PathBuf>,
}

/// Makes it.
pub(super) fn adopted(
    record: &Record,
    defined: &Defined,
    interfaces: &[Interface],
) -> Result<Adopted> {
    let moved = Moved {
        from: [
            record.container.rootfs.clone(),
            record.container.lxcpath.join(&record.container.name),
        ],
        to: [defined.rootfs.clone(), defined.dir()],
    };
    let entries = defined.config.mount_entries().context("read the mounts of its configuration")?;
    let mut shared = Vec::new();
    let mut externals = Vec::new();
    for external in &record.externals {
        let entry = entries.iter().find(|e| e.is_bind() && point_of(e, &moved) == external.point);
        let source = source_of(external, entry, &moved)?;
        let both_write = entry.is_some_and(|e| !e.has_option("ro")) && !external.read_only;
        if both_write && source == external.source {
            shared.push(source.clone());
        }
        let identity = external.identity.clone().filter(|_| source == external.source);
        externals.push(External { source, identity, ..external.clone() });
    }
    // One that is missing is told later, with the rest.
    let rootfs_inode = Root::of(defined).ok().and_then(|root| root.inode().ok());
    let container = Container {
        name: defined.name.as_str().to_owned(),
        lxcpath: defined.lxcpath.as_path().to_owned(),
        rootfs: defined.rootfs.clone(),
        rootfs_inode: rootfs_inode.unwrap_or(record.container.rootfs_inode),
        config: config_of(&record.container.config, &defined.config_text(), &moved),
    };
    let ports = own_ports(&record.ports, interfaces);
    let devices = own_devices(&record.devices, defined);
    let profile = record
        .profile
        .as_ref()
        .map(|p| p.renamed(defined.name.as_str(), defined.lxcpath.as_path()));
    Ok(Adopted {
        record: Record { container, ports, devices, externals, profile, ..record.clone() },
        shared,
    })
}

/// What of the original's lies elsewhere in the copy: its root, and its directory.
#[derive(Debug)]
struct Moved {
    from: [PathBuf; 2],
    to: [PathBuf; 2],
}

impl Moved {
    fn path(&self, path: &Path) -> Option<PathBuf> {
        let mut places = self.from.iter().zip(&self.to);
        places.find_map(|(from, to)| {
            Some(to.join(path.strip_prefix(from).ok()?).components().collect())
        })
    }

    /// The same of a text that may be a path.
    fn text(&self, text: &str) -> String {
        self.path(Path::new(text))
            .map_or_else(|| text.to_owned(), |path| path.to_string_lossy().into_owned())
    }
}

/// Where a mount is in the container.
fn point_of(entry: &MountEntry, moved: &Moved) -> PathBuf {
    let target = &entry.target;
    let below =
        target.strip_prefix(&moved.to[0]).or_else(|_| target.strip_prefix("/")).unwrap_or(target);
    Path::new("/").join(below)
}

/// What the copy mounts there: what its configuration says, or else what lies at the same place of
/// its own directory.
fn source_of(external: &External, entry: Option<&MountEntry>, moved: &Moved) -> Result<PathBuf> {
    let there = |path: &Path| match fs::canonicalize(path) {
        Ok(path) => Ok(Some(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("stat {}", path.display())),
    };
    if let Some(entry) = entry.filter(|e| e.source.is_absolute()) {
        match there(&entry.source)? {
            Some(source) => return Ok(source),
            None if entry.has_option("optional") => {}
            None => bail!(
                "{}, which is to be mounted at {}, is not there",
                entry.source.display(),
                external.point.display()
            ),
        }
    }
    let own = moved.path(&external.source).map(|path| there(&path)).transpose()?.flatten();
    Ok(own.unwrap_or_else(|| external.source.clone()))
}

/// The original's configuration at the checkpoint, with what a copy has for itself as its own
/// configuration says it.
fn config_of(then: &str, now: &str, moved: &Moved) -> String {
    let mut text = String::new();
    for line in then.lines().filter(|line| !is_own(key_of(line))) {
        text.push_str(&adapted(line, now, moved));
        text.push('\n');
    }
    for line in now.lines().filter(|line| is_own(key_of(line))) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn adapted(line: &str, now: &str, moved: &Moved) -> String {
    let value = || line.split_once('=').map_or("", |(_, value)| value.trim());
    match key_of(line) {
        FSTAB => format!("{FSTAB} = {}", moved.text(value())),
        ENTRY => {
            let (source, rest) = value().split_once([' ', '\t']).unwrap_or((value(), ""));
            let same_place = |other: &&str| {
                let other = other.split_once('=').map_or("", |(_, value)| value.trim());
                key_of(line) == ENTRY
                    && other.split_once([' ', '\t']).is_some_and(|(_, r)| r.trim() == rest.trim())
            };
            match now.lines().filter(|other| key_of(other) == ENTRY).find(same_place) {
                Some(other) => other.to_owned(),
                None => format!("{ENTRY} = {} {rest}", moved.text(source)),
            }
        }
        _ => line.to_owned(),
    }
}

fn key_of(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key).trim()
}

fn is_own(key: &str) -> bool {
    let of_nic = key.strip_prefix("lxc.net.").and_then(|rest| rest.split_once('.'));
    OWN.contains(&key) || of_nic.is_some_and(|(_, sub)| OWN_OF_NIC.contains(&sub))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved() -> Moved {
        Moved {
            from: ["/roots/web".into(), "/var/lib/lxc/web".into()],
            to: ["/roots/copy".into(), "/srv/lxc/copy".into()],
        }
    }

    #[test]
    fn what_lay_with_the_original_lies_with_the_copy() {
        let moved = moved();
        for (from, to) in [
            ("/var/lib/lxc/web/data", Some("/srv/lxc/copy/data")),
            ("/var/lib/lxc/web", Some("/srv/lxc/copy")),
            ("/roots/web/srv", Some("/roots/copy/srv")),
            ("/var/lib/lxc/web2/data", None),
            ("/srv/data", None),
        ] {
            assert_eq!(moved.path(Path::new(from)), to.map(PathBuf::from), "{from}");
        }
    }

    #[test]
    fn the_configurations_differ_only_in_what_is_no_copys_own() {
        let then = "lxc.rootfs.path = dir:/roots/web\nlxc.uts.name = web\nlxc.net.0.type = \
                    veth\nlxc.net.0.hwaddr = 00:16:3e:00:00:01\nlxc.net.0.ipv4.address = \
                    10.0.0.1/24\nlxc.mount.fstab = /var/lib/lxc/web/fstab\nlxc.mount.entry = \
                    /var/lib/lxc/web/data data none bind\nlxc.mount.entry = /srv/web srv none \
                    bind,create=dir 0 0\nlxc.idmap = u 0 100000 9\n";
        let now = "lxc.rootfs.path = /roots/copy\nlxc.net.0.type = veth\nlxc.net.0.ipv6.address = \
                   fd00::1\nlxc.mount.fstab = /srv/lxc/copy/fstab\nlxc.mount.entry = \
                   /srv/lxc/copy/data data none bind\nlxc.mount.entry = /srv/copy srv none \
                   bind,create=dir 0 0\nlxc.idmap = u 0 100000 9\n";
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&config_of(then, now, &moved())), sorted(now));
        let other = now
            .replace("lxc.idmap = u 0 100000 9", "lxc.idmap = u 0 200000 9")
            .replace("veth", "phys");
        let adapted = config_of(then, &other, &moved());
        assert!(
            adapted.contains("lxc.idmap = u 0 100000 9") && adapted.contains("type = veth"),
            "{adapted}"
        );
    }

    #[test]
    fn a_mount_is_what_the_configuration_says_or_what_lies_at_the_same_place() {
        let top = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = top.path().canonicalize().unwrap().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (old, new, elsewhere) = (dir("web/data"), dir("copy/data"), dir("elsewhere"));
        let moved =
            Moved { from: [dir("web/rootfs"), dir("web")], to: [dir("copy/rootfs"), dir("copy")] };
        let external = |source: &Path| External {
            key: "data_0".into(),
            point: "/data".into(),
            source: source.to_owned(),
            read_only: false,
            identity: None,
        };
        let entry = |text: &str| {
            let text = format!("lxc.rootfs.path = /r\nlxc.mount.entry = {text}\n");
            let config =
                crate::lxc::config::Config::parse(Path::new("/c"), text.as_bytes()).unwrap();
            config.mount_entries().unwrap().remove(0)
        };
        assert_eq!(source_of(&external(&old), None, &moved).unwrap(), new);
        assert_eq!(source_of(&external(&elsewhere), None, &moved).unwrap(), elsewhere);
        let said = entry(&format!("{} data none bind", elsewhere.display()));
        assert_eq!(point_of(&said, &moved), Path::new("/data"));
        assert_eq!(source_of(&external(&old), Some(&said), &moved).unwrap(), elsewhere);
        let gone = entry("/nowhere data none bind");
        assert!(
            source_of(&external(&old), Some(&gone), &moved)
                .unwrap_err()
                .to_string()
                .contains("/nowhere")
        );
        let optional = entry("/nowhere data none bind,optional");
        assert_eq!(source_of(&external(&old), Some(&optional), &moved).unwrap(), new);
    }
}
