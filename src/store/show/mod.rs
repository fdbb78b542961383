//! What a checkpoint holds, read from its images and its record, and which checkpoints there are.
//!
//! Nothing here trusts what it reads: an image that is damaged or was made by hand is named as a
//! problem, and the rest is told all the same.

mod open;
mod text;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::criu::images::{self, Inventory, NamespaceIds};
use crate::criu::options::DUMP_LOG;
use crate::report::Foreign;
use crate::store::calendar::Calendar;
use crate::store::record::Record;
use crate::store::{layout, resume_mark};
use crate::sys::files;

pub(crate) use open::{Descriptor, Socket};
pub(crate) use text::{Details, Text};

/// CRIU's log tells in its first lines who wrote it.
const LOG_HEAD: u64 = 4096;

/// What a checkpoint holds.
#[derive(Debug, Serialize)]
pub(crate) struct Contents {
    /// Its directory.
    pub directory: PathBuf,
    /// Whose it is; not known without a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// When it was made, in seconds since 1970; for programs as RFC 3339 writes it.
    #[serde(serialize_with = "rfc3339")]
    pub created: u64,
    /// Whether `lxc-cr resume` brings it back.
    pub to_be_resumed: bool,
    /// What made it.
    pub by: By,
    /// The bytes of all its images.
    #[serde(rename = "size_bytes")]
    pub size: u64,
    /// How many images.
    pub images: usize,
    /// How long its processes stood still, in microseconds, by CRIU's statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
    /// The bytes of the copies of memory that were made before that, the first one first.
    #[serde(rename = "precopied_bytes", skip_serializing_if = "Vec::is_empty")]
    pub precopied: Vec<u64>,
    /// The processes, parents before children.
    pub processes: Vec<Process>,
    /// The sockets that were open.
    pub sockets: Vec<Socket>,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// What could not be read, or is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The container of a checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct Container {
    /// Its name.
    pub name: String,
    /// The directory that holds its directory.
    pub lxcpath: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
}

/// What made a checkpoint; what is not known is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct By {
    /// Our version; none where another program asked CRIU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lxc_cr: Option<String>,
    /// CRIU's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criu: Option<String>,
    /// LXC's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lxc: Option<String>,
    /// The kernel's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The machine, as `uname -m` calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// A process. Pids are those in the container.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its parent's; 0 for the first.
    pub parent: u32,
    /// Its name, as in `ps`.
    pub name: Foreign,
    /// The path of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Foreign>,
    /// How many threads it has.
    pub threads: usize,
    /// Whether it had ended and was not yet collected.
    pub zombie: bool,
    /// Bytes of its address space.
    #[serde(rename = "mapped_bytes")]
    pub mapped: u64,
    /// Bytes of its memory in this checkpoint.
    #[serde(rename = "memory_bytes")]
    pub memory: u64,
    /// Bytes of its memory in an earlier checkpoint, on which this one builds.
    #[serde(rename = "memory_in_parent_bytes")]
    pub memory_in_parent: u64,
    /// What it had open.
    pub open: Vec<Descriptor>,
}

/// An interface in the container.
#[derive(Debug, Serialize)]
pub(crate) struct Interface {
    /// Its name.
    pub name: Foreign,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<String>,
    /// The bridge that the host's end was on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

/// A mount in the container.
#[derive(Debug, Serialize)]
pub(crate) struct Mount {
    /// Where.
    pub point: Foreign,
    /// The file system.
    pub kind: Foreign,
    /// Where on the host it comes from; an empty path where that was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_host: Option<PathBuf>,
}

impl Contents {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When the directory cannot be opened, or belongs to others. All else is told in `problems`.
    pub(crate) fn read(dir: &Path) -> Result<Contents> {
        files::open_private_dir(dir)?;
        let mut problems = Vec::new();
        let record = keep(&mut problems, Record::read(dir)).flatten();
        if let Some(record) = &record {
            keep(&mut problems, record.check_sizes(dir));
        }
        keep(&mut problems, Inventory::read(dir).map_err(Into::into));
        let (size, images) = measure(dir)?;
        let created = match &record {
            Some(record) => record.created,
            None => written(dir)?,
        };
        let ids = keep(&mut problems, ids_of_root(dir)).unwrap_or_default();
        let open = open::Open::read(dir, &mut problems);
        let processes = processes(dir, &open, &mut problems);
        Ok(Contents {
            directory: dir.to_owned(),
            created,
            to_be_resumed: resume_mark::is_to_be_resumed(dir),
            size,
            images,
            frozen_us: record.as_ref().and_then(|record| record.frozen_us),
            precopied: record.iter().flat_map(|r| &r.rounds).map(|round| round.size).collect(),
            by: By::of(dir, record.as_ref()),
            sockets: open.sockets(&processes),
            processes,
            interfaces: ids
                .net
                .map(|n| interfaces(dir, n, record.as_ref(), &mut problems))
                .unwrap_or_default(),
            mounts: ids
                .mnt
                .map(|n| mounts(dir, n, record.as_ref(), &mut problems))
                .unwrap_or_default(),
            container: record.map(|r| Container {
                name: r.container.name,
                lxcpath: r.container.lxcpath,
                rootfs: r.container.rootfs,
            }),
            problems,
        })
    }
}

fn rfc3339<S: serde::Serializer>(seconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Calendar::of_host().rfc3339(*seconds))
}

/// The value; an error becomes a problem.
fn keep<T>(problems: &mut Vec<String>, result: Result<T>) -> Option<T> {
    result.map_err(|e| problems.push(format!("{e:#}"))).ok()
}

/// The bytes of all images, and how many there are.
pub(crate) fn measure(dir: &Path) -> Result<(u64, usize)> {
    let (mut size, mut count) = (0u64, 0);
    for name in files::names(dir)? {
        let path = dir.join(&name);
        if name.to_str().is_some_and(layout::is_round) {
            let (more, images) = measure(&path)?;
            (size, count) = (size.saturating_add(more), count + images);
        } else if layout::is_image(&name) {
            size = size.saturating_add(
                fs::symlink_metadata(&path)
                    .with_context(|| format!("stat {}", path.display()))?
                    .size(),
            );
            count += 1;
        }
    }
    Ok((size, count))
}

/// When the images were written.
pub(crate) fn written(dir: &Path) -> Result<u64> {
    let path = [dir.join("inventory.img"), dir.to_owned()].into_iter().find(|p| p.exists());
    let meta = fs::symlink_metadata(path.as_deref().unwrap_or(dir));
    Ok(meta.with_context(|| format!("stat {}", dir.display()))?.mtime().max(0).unsigned_abs())
}

fn ids_of_root(dir: &Path) -> Result<NamespaceIds> {
    Ok(NamespaceIds::of_task(dir, images::root_of_tree(dir)?)?)
}

impl By {
    fn of(dir: &Path, record: Option<&Record>) -> By {
        let Some(record) = record else { return By::of_log(dir) };
        let host = record.host.clone();
        By {
            lxc_cr: Some(host.lxc_cr),
            criu: Some(host.criu),
            lxc: host.lxc,
            kernel: Some(host.kernel),
            machine: Some(host.machine),
        }
    }

    /// From the first lines of CRIU's log: `(00.000029) Version: 4.2.1 (gitid 0)` and
    /// `(00.000035) Running on HOST Linux RELEASE … MACHINE`.
    fn of_log(dir: &Path) -> By {
        let mut bytes = Vec::new();
        let read = files::open_file(&dir.join(DUMP_LOG))
            .and_then(|f| f.take(LOG_HEAD).read_to_end(&mut bytes));
        if read.is_err() {
            return By::default();
        }
        let text = String::from_utf8_lossy(&bytes);
        let after =
            |key: &str| text.lines().find_map(|l| l.split_once(key)).map(|(_, rest)| rest.trim());
        let running: Vec<&str> =
            after("Running on ").map(|l| l.split(' ').collect()).unwrap_or_default();
        By {
            criu: after("Version: ").and_then(|v| v.split(' ').next()).map(str::to_owned),
            kernel: running.get(2).map(|s| (*s).to_owned()),
            machine: images::machine_of(dir).ok().flatten().map(str::to_owned),
            ..By::default()
        }
    }
}

fn processes(dir: &Path, open: &open::Open, problems: &mut Vec<String>) -> Vec<Process> {
    let tree = keep(problems, images::process_tree(dir).map_err(Into::into)).unwrap_or_default();
    let page = procfs::page_size();
    let mut found = Vec::new();
    for process in tree {
        let memory = keep(problems, images::memory(dir, process.pid).map_err(Into::into)).flatten();
        found.push(Process {
            pid: process.pid,
            parent: process.ppid,
            program: memory.and_then(|m| open.path_of(m.program)),
            threads: process.threads.len(),
            zombie: process.zombie,
            mapped: memory.map_or(0, |m| m.mapped),
            memory: memory.map_or(0, |m| m.pages.saturating_mul(page)),
            memory_in_parent: memory.map_or(0, |m| m.pages_in_parent.saturating_mul(page)),
            open: open.of_process(dir, process.pid, process.zombie, problems),
            name: process.comm.into(),
        });
    }
    found
}

fn interfaces(
    dir: &Path,
    netns: u32,
    record: Option<&Record>,
    problems: &mut Vec<String>,
) -> Vec<Interface> {
    let found = match images::interfaces(dir, netns) {
        // It was in the host's network.
        Err(e) if e.is_not_found() => Vec::new(),
        found => keep(problems, found.map_err(Into::into)).unwrap_or_default(),
    };
    let addresses =
        keep(problems, images::addresses(dir, netns).map_err(Into::into)).unwrap_or_default();
    let port = |name: &str| record.and_then(|r| r.ports.iter().find(|p| p.inside == name));
    found
        .into_iter()
        .map(|i| Interface {
            mac: i.mac.filter(|m| *m != [0; 6]).map(|m| m.map(|b| format!("{b:02x}")).join(":")),
            mtu: i.mtu,
            addresses: addresses
                .iter()
                .filter(|a| a.interface == i.index)
                .map(|a| format!("{}/{}", a.ip, a.prefix))
                .collect(),
            bridge: port(&i.name).and_then(|p| p.bridge.clone()),
            name: i.name.into(),
        })
        .collect()
}

fn mounts(
    dir: &Path,
    mntns: u32,
    record: Option<&Record>,
    problems: &mut Vec<String>,
) -> Vec<Mount> {
    let mut found = match images::mounts(dir, mntns) {
        // It was in the host's mount namespace.
        Err(e) if e.is_not_found() => Vec::new(),
        found => keep(problems, found.map_err(Into::into)).unwrap_or_default(),
    };
    found.sort_by(|a, b| a.point.cmp(&b.point));
    let source = |key: &str| {
        let known = record.and_then(|r| r.externals.iter().find(|e| e.key == key));
        known.map(|e| e.source.clone()).unwrap_or_default()
    };
    found
        .into_iter()
        .map(|m| Mount {
            from_host: m.external.as_deref().map(source),
            point: m.point.as_path().into(),
            kind: m.kind.into(),
        })
        .collect()
}
