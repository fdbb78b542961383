//! The record: the one file of ours in an image directory.
//!
//! CRIU's images know the processes. What LXC and the host had around them (where the container
//! lived, its bridge ports, cgroups, sources of bind mounts) stands in the record, and the checksum
//! of each image. Writing it is what makes a directory a checkpoint: it is written last, when all
//! images are there.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::report::Foreign;
use crate::resources::apparmor::Profile;
use crate::resources::cgroup::Tree;
use crate::resources::mounts::{External, HostFile};
use crate::resources::network::interfaces::Device;
use crate::resources::network::multicast::Membership;
use crate::resources::network::state::Within;
use crate::resources::network::sysctl::Sysctls;
use crate::resources::network::{Elsewhere, Port, iptables};
use crate::resources::states::States;
use crate::resources::states::core_filters::CoreFilter;
use crate::resources::states::tmpfs::TmpfsFile;
use crate::store::checksums::Image;
use crate::store::layout::{self, RECORD};
use crate::sys::files;
use crate::sys::netlink::Route;

use crate::resources::terminals::Tty;

/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 1;
/// A record is a few KiB and the container's configuration, and half a KiB for each connection
/// through NAT; more than this was not written by us.
const MAX_SIZE: u64 = 64 << 20;

/// A copy of memory that was made for a checkpoint, and is a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The name of its directory in the checkpoint's.
    pub directory: String,
    /// The bytes of its images.
    pub size: u64,
    /// How long the processes stood still for it, in microseconds, by CRIU's statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
}

/// A checkpoint's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// Whether it is no checkpoint, only a copy of memory to build one on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory_only: bool,
    /// The checksum of the record of what it builds on (SHA-256, hexadecimal), as that has those of
    /// its images. Missing where another program wrote that, and it has no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builds_on: Option<String>,
    /// The copies of its memory that were made before it stood still, in directories in this one:
    /// it builds on the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// When the images were complete, in seconds since 1970. Its tasks stood still then.
    pub created: u64,
    /// A moment at which its tasks stood still and everything was dumped, in nanoseconds since
    /// 1970: what was written to later is not what they knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_ns: Option<i64>,
    /// Whether the container went on afterwards, and wrote to its files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_running: bool,
    /// What its user has called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How many processes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// How long they stood still, in microseconds, by CRIU's statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
    /// Whether, when its tasks stood still, no deleted file was behind a symbolic link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looked_through: bool,
    /// What a rehearsal has seen to come back different, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// The container.
    pub container: Container,
    /// Where and by what it was dumped.
    pub host: Host,
    /// Its init.
    pub init: Init,
    /// Its payload cgroup on cgroup2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Tree>,
    /// Its payload cgroups in the hierarchies of v1, on a hybrid host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legacy_cgroups: Vec<Tree>,
    /// The host's ends of its veth pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Its interfaces that are no veth pairs, but need something of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// What other links of the host have for the sake of its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    /// Its routes in tables that policy rules lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// What else its network namespace has that CRIU does not bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// Its tables of iptables-nft with extensions that CRIU's tool does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iptables: Vec<iptables::Saved>,
    /// Its bind mounts from the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub externals: Vec<External>,
    /// Mount points at which no symbolic link is followed (`nosymfollow`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_symlinks: Vec<PathBuf>,
    /// Files of the host that init had open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_files: Vec<HostFile>,
    /// Settings of its network namespace that CRIU does not save, by their path below
    /// /proc/sys/net.
    #[serde(default, skip_serializing_if = "Sysctls::is_empty")]
    pub net_settings: Sysctls,
    /// Those of its interfaces. None where they were not read: then only CRIU knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_settings: Option<Sysctls>,
    /// Sockets that have joined multicast groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Membership>,
    /// Processes with another filter for core dumps than most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core_filters: Vec<CoreFilter>,
    /// What CRIU loses of its files in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<TmpfsFile>,
    /// Other states of its tasks that CRIU does not save. None where they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<States>,
    /// The console and the ttys that LXC lent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttys: Vec<Tty>,
    /// The profile of AppArmor that LXC has made up for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// CRIU's images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
}

/// Whose checkpoint it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The directory that holds its directory.
    pub lxcpath: PathBuf,
    /// Its root file system as the configuration names it, without the prefix for its kind.
    pub rootfs: PathBuf,
    /// The inode of the root directory, image or upper layer: another number is another root.
    pub rootfs_inode: u64,
    /// Its configuration with everything included, in the modern spelling.
    pub config: String,
}

/// What dumped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// Machine, as `uname -m` says it.
    pub machine: String,
    /// CRIU's version.
    pub criu: String,
    /// LXC's version; none where LXC's tools are not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lxc: Option<String>,
    /// Our own.
    pub lxc_cr: String,
}

/// The container's first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Its pid on the host at the checkpoint.
    pub pid: i32,
    /// Its command.
    pub command: Foreign,
    /// The namespaces that the container has for itself: `mnt`, `pid`, `net`, …
    pub namespaces: Vec<String>,
    /// Lines of `/proc/PID/uid_map`, when it has a user namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_map: Vec<String>,
    /// Lines of `/proc/PID/gid_map`, when it has a user namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_map: Vec<String>,
    /// Its personality (lxc.arch); 0 for that of the host.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub personality: u32,
    /// LSM label, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a checkpoint cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The record is not one that we can read.
    #[error("its record {RECORD} cannot be read: {0}")]
    Unreadable(String),
    /// It was written by a newer program.
    #[error("its record has version {0}; this program reads up to version {VERSION}")]
    TooNew(u32),
    /// An image is missing.
    #[error("image '{0}' is missing")]
    Missing(String),
    /// An image has another size than when it was written.
    #[error("image '{name}' has {found} bytes; {size} were written")]
    Size {
        /// Its name.
        name: String,
        /// As recorded.
        size: u64,
        /// As found.
        found: u64,
    },
    /// An image's content is not what was written.
    #[error("image '{0}' was changed after it was written (its checksum differs)")]
    Checksum(String),
    /// What it builds on is another copy of memory than when it was written.
    #[error("it builds on a copy of memory that was in {0}; another one is there now")]
    AnotherParent(String),
}

impl Record {
    /// The record of an image directory; `None` when there is none, as in a directory that LXC's
    /// tool wrote.
    ///
    /// # Errors
    /// A [`Damage`] when there is one that cannot be used, an I/O error otherwise.
    pub fn read(dir: &Path) -> Result<Option<Record>> {
        let path = dir.join(RECORD);
        let file = match files::open_file(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
        };
        let meta = file.metadata().with_context(|| format!("stat {}", path.display()))?;
        if !meta.is_file() || meta.len() > MAX_SIZE {
            bail!(Damage::Unreadable("it is not a file of a sensible size".to_owned()));
        }
        let mut text = String::new();
        file.take(MAX_SIZE)
            .read_to_string(&mut text)
            .map_err(|e| Damage::Unreadable(e.to_string()))?;
        Ok(Some(Record::parse(&text)?))
    }

    /// Reads a record's text. What it names is checked: nothing may lead out of the directory it
    /// lies in.
    pub fn parse(text: &str) -> Result<Record, Damage> {
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        // A newer one may have anything else in it.
        let too_new = |version: u32| (version > VERSION).then_some(Damage::TooNew(version));
        let record: Record = toml::from_str(text).map_err(|e| {
            let newer =
                toml::from_str(text).ok().and_then(|OnlyVersion { version }| too_new(version));
            newer.unwrap_or_else(|| Damage::Unreadable(e.message().to_owned()))
        })?;
        if let Some(newer) = too_new(record.version) {
            return Err(newer);
        }
        match record.out_of_place() {
            None => Ok(record),
            Some(what) => Err(Damage::Unreadable(what)),
        }
    }

    /// Its payload cgroups in all hierarchies.
    pub fn cgroups(&self) -> impl Iterator<Item = &Tree> + Clone {
        self.cgroup.iter().chain(&self.legacy_cgroups)
    }

    /// Gives it its payload cgroups.
    pub fn set_cgroups(&mut self, trees: Vec<Tree>) {
        let (unified, legacy): (Vec<_>, Vec<_>) =
            trees.into_iter().partition(|tree| tree.controllers.is_empty());
        self.cgroup = unified.into_iter().next();
        self.legacy_cgroups = legacy;
    }

    /// What in a record that was made by hand would lead a restore elsewhere than to what it says
    /// it is about.
    fn out_of_place(&self) -> Option<String> {
        let file = |name: &str| is_one_component(Path::new(name)) && !name.contains('\0');
        if !file(&self.container.name) {
            return Some(format!("'{}' is not a name of a container", self.container.name));
        }
        if let Some(image) = self.images.iter().find(|i| !file(&i.name)) {
            return Some(format!("'{}' is not a name of an image", image.name));
        }
        if let Some(round) = self.rounds.iter().find(|round| !layout::is_round(&round.directory)) {
            return Some(format!("'{}' is not a copy of memory of it", round.directory));
        }
        let directories = self.cgroups().flat_map(|c| &c.directories);
        let owned = directories.clone().flat_map(|d| &d.files);
        if let Some(owned) = owned.into_iter().find(|f| !file(&f.name)) {
            return Some(format!("'{}' is not a name of a file", owned.name));
        }
        let host = [&self.container.lxcpath, &self.container.rootfs].into_iter();
        let host = host
            .chain(self.externals.iter().map(|e| &e.source))
            .chain(self.cgroups().map(|c| &c.path));
        if let Some(path) = host.into_iter().find(|p| !p.is_absolute() || has_parent(p)) {
            return Some(format!("'{}' is not a plain path", path.display()));
        }
        if let Some(path) = directories.map(|d| &d.path).find(|p| p.is_absolute() || has_parent(p))
        {
            return Some(format!("'{}' is not a cgroup of the container", path.display()));
        }
        if let Some(what) = self.profile.as_ref().and_then(Profile::out_of_place) {
            return Some(what);
        }
        // The only one that is ever written, see `mounts::host_streams`.
        let strange = self.host_files.iter().find(|f| f.path != Path::new("/dev/null"));
        strange.map(|file| {
            format!(
                "a file of the host, '{}', would be given to the container",
                file.path.display()
            )
        })
    }

    /// Writes the record, as a whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = toml::to_string(self).context("put the record into words")?;
        files::write_atomically(&dir.join(RECORD), text.as_bytes())
    }

    /// Checks that every image is there and has its size: takes no time worth naming.
    pub fn check_sizes(&self, dir: &Path) -> Result<()> {
        for image in &self.images {
            let meta = match fs::symlink_metadata(dir.join(&image.name)) {
                Ok(meta) if meta.is_file() => meta,
                Ok(_) => bail!(Damage::Missing(image.name.clone())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    bail!(Damage::Missing(image.name.clone()))
                }
                Err(e) => return Err(e).with_context(|| format!("inspect image '{}'", image.name)),
            };
            if meta.len() != image.size {
                bail!(Damage::Size {
                    name: image.name.clone(),
                    size: image.size,
                    found: meta.len()
                });
            }
        }
        Ok(())
    }

    /// Checks the content of the images that `which` chooses: reads all of them.
    pub fn check_content(&self, dir: &Path, which: impl Fn(&Image) -> bool) -> Result<()> {
        for image in self.images.iter().filter(|i| which(i)) {
            if !image.has_its_sum(dir)? {
                bail!(Damage::Checksum(image.name.clone()));
            }
        }
        Ok(())
    }

    /// Adds checksums that were taken apart. One of an image that has another size is none.
    pub fn add_sums(&mut self, taken: &[Image]) {
        for image in &mut self.images {
            if let Some(found) = taken.iter().find(|t| t.name == image.name && t.size == image.size)
            {
                image.sum.clone_from(&found.sum);
                image.as_written.clone_from(&found.as_written);
            }
        }
    }

    /// The last moment at which a file can have been written to by what is in the images, in
    /// nanoseconds since 1970.
    pub fn last_write(&self) -> i64 {
        // Of an older record only the second is known.
        self.still_ns.unwrap_or_else(|| {
            self.created.cast_signed().saturating_add(1).saturating_mul(1_000_000_000) - 1
        })
    }

    /// The bytes of all images, with those of the copies of memory that are a part of it.
    pub fn size(&self) -> u64 {
        let own = self.images.iter().map(|image| image.size);
        own.chain(self.rounds.iter().map(|round| round.size)).fold(0, u64::saturating_add)
    }
}

fn is_one_component(path: &Path) -> bool {
    let mut parts = path.components();
    // Components leaves a slash at the end out.
    let (first, second) = (parts.next(), parts.next());
    first == Some(Component::Normal(path.as_os_str())) && second.is_none()
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|c| c == Component::ParentDir)
        || path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::checksums::{Memory, measure_images};

    pub(crate) fn sample() -> Record {
        Record {
            version: VERSION,
            memory_only: false,
            builds_on: None,
            rounds: Vec::new(),
            created: 1_790_000_000,
            still_ns: None,
            left_running: false,
            label: None,
            processes: None,
            frozen_us: None,
            looked_through: false,
            differences: Vec::new(),
            container: Container {
                name: "t".into(),
                lxcpath: "/var/lib/lxc".into(),
                rootfs: "/var/lib/lxc/t/rootfs".into(),
                rootfs_inode: 7,
                config: "lxc.uts.name = t\n".into(),
            },
            host: Host {
                kernel: "6.12".into(),
                machine: "x86_64".into(),
                criu: "4.2.1".into(),
                lxc: Some("7.0.0".into()),
                lxc_cr: "0.1.0".into(),
            },
            init: Init {
                pid: 812,
                command: "init".into(),
                namespaces: vec!["mnt".into()],
                uid_map: vec![],
                gid_map: vec![],
                personality: 0,
                label: None,
            },
            cgroup: None,
            legacy_cgroups: vec![],
            ports: vec![],
            devices: vec![],
            elsewhere: Vec::new(),
            routes: vec![],
            within: None,
            iptables: vec![],
            externals: vec![],
            without_symlinks: vec![],
            host_files: vec![],
            net_settings: Sysctls::new(),
            groups: Vec::new(),
            core_filters: Vec::new(),
            tmpfs: Vec::new(),
            states: None,
            interface_settings: None,
            ttys: vec![],
            profile: None,
            images: vec![],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Record::read(dir.path()).unwrap().is_none());
        sample().write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(sample()));
    }

    #[test]
    fn an_image_that_was_changed_or_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pages-1.img"), b"memory").unwrap();
        fs::write(dir.path().join("dump.log"), b"text").unwrap();
        let mut record = sample();
        record.images = measure_images(dir.path(), Memory::WithSums).unwrap();
        assert_eq!(record.images.len(), 1);
        record.check_sizes(dir.path()).unwrap();
        record.check_content(dir.path(), |_| true).unwrap();
        fs::write(dir.path().join("pages-1.img"), b"mem0ry").unwrap();
        record.check_sizes(dir.path()).unwrap();
        assert!(
            record
                .check_content(dir.path(), |_| true)
                .unwrap_err()
                .to_string()
                .contains("was changed")
        );
        fs::write(dir.path().join("pages-1.img"), b"mem").unwrap();
        assert!(
            record
                .check_sizes(dir.path())
                .unwrap_err()
                .to_string()
                .contains("3 bytes; 6 were written")
        );
        fs::remove_file(dir.path().join("pages-1.img")).unwrap();
        assert!(record.check_sizes(dir.path()).unwrap_err().to_string().contains("is missing"));
    }

    #[test]
    fn a_record_made_by_hand_cannot_lead_out_of_its_directory() {
        let mut record = sample();
        record.images =
            vec![Image { name: "../../etc/shadow".into(), size: 1, sum: None, as_written: None }];
        let text = toml::to_string(&record).unwrap();
        assert!(Record::parse(&text).unwrap_err().to_string().contains("not a name of an image"));
        let refused = |change: &dyn Fn(&mut Record)| {
            let mut record = sample();
            change(&mut record);
            Record::parse(&toml::to_string(&record).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(&|r| r.container.name = "..".into()).contains("not a name of a container"));
        assert!(refused(&|r| r.container.name = "a/".into()).contains("not a name of a container"));
        assert!(
            refused(&|r| r.container.rootfs = "/var/../etc".into())
                .contains("'/var/../etc' is not a plain path")
        );
        let tree = |path: &str, below: &str, file: &str| Tree {
            inner: PathBuf::new(),
            controllers: vec![],
            path: path.into(),
            frozen: false,
            directories: vec![crate::resources::cgroup::Directory {
                path: below.into(),
                uid: 0,
                gid: 0,
                mode: 0o755,
                files: vec![crate::resources::cgroup::OwnedFile {
                    name: file.into(),
                    uid: 0,
                    gid: 0,
                    mode: 0o644,
                }],
                tasks: true,
                limits: crate::resources::cgroup::settings::Limits::new(),
                devices: vec![],
            }],
        };
        assert!(
            refused(&|r| r.cgroup = Some(tree("/../etc", "", "x"))).contains("not a plain path")
        );
        assert!(
            refused(&|r| r.cgroup = Some(tree("/a", "../etc", "x")))
                .contains("not a cgroup of the container")
        );
        assert!(
            refused(&|r| r.cgroup = Some(tree("/a", "", "../../../etc/shadow")))
                .contains("not a name of a file")
        );
        assert!(
            refused(&|r| r.legacy_cgroups = vec![tree("/a", "../etc", "x")])
                .contains("not a cgroup of the container")
        );
        let file = HostFile { mount_id: 1, inode: 2, path: "/etc/shadow".into() };
        assert!(
            refused(&|r| r.host_files = vec![file.clone()])
                .contains("would be given to the container")
        );
        let external = External {
            key: "k".into(),
            point: "/a".into(),
            source: "/srv/../etc".into(),
            read_only: false,
            identity: None,
        };
        assert!(
            refused(&|r| r.externals = vec![external.clone()])
                .contains("'/srv/../etc' is not a plain path")
        );
        assert!(matches!(Record::parse("version = 99"), Err(Damage::TooNew(99))));
        assert!(matches!(Record::parse("rubbish"), Err(Damage::Unreadable(_))));
    }
}
