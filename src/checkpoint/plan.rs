//! What a checkpoint will do: all that has to be known of the running container, gathered before
//! anything is touched.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Request;
use crate::criu::options::{AfterDump, CgroupRoot, Common, Dump, External, NetworkLock};
use crate::criu::tools;
use crate::criu::version::Criu;
use crate::lxc;
use crate::lxc::config::Config;
use crate::lxc::container::Running;
use crate::lxc::definition::Defined;
use crate::resources::apparmor::{Label, Profile};
use crate::resources::cgroup::{self, Cgroup, Tree, confine};
use crate::resources::mounts::identity::Identity;
use crate::resources::mounts::{self, HostFile, Mount, NO_SYMLINKS, external};
use crate::resources::network::interfaces::{self, Origin};
use crate::resources::network::sysctl::Sysctls;
use crate::resources::network::{Port, ports, tables};
use crate::resources::rootfs::Root;
use crate::resources::states::personality;
use crate::resources::terminals::{self, Tty};
use crate::rollback::lock;
use crate::settings::Settings;
use crate::store::record::{self, Record};
use crate::sys::glance::glance_root;
use crate::sys::in_root::Below;
use crate::sys::namespace;
use crate::sys::netlink::Netlink;

/// A checkpoint, ready to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What CRIU is asked.
    pub dump: Dump,
    /// Whether CRIU runs in the container's cgroup namespace.
    ///
    /// From outside, CRIU (4.2, cgroup.c: `get_cg_set`) takes each thread's cgroups for other ones
    /// than init's, and a restore has to move every thread. From inside, all tasks in the payload
    /// cgroup have one and the same set.
    pub in_cgroup_namespace: bool,
    /// The ports that leave their bridges while the container is frozen.
    pub ports: Vec<Port>,
    /// Its network namespace, if it has one for itself.
    pub netns: Option<Arc<fs::File>>,
    /// The directories in which CRIU finds the programs that it runs, where these are not all.
    pub search_path: Option<String>,
    /// The record, but for the images that are not there yet and the settings of the network, which
    /// take some milliseconds to read.
    pub record: Record,
    /// What the user should know of the device rules.
    pub notes: Vec<String>,
}

/// Looks at the container and decides.
pub(crate) fn plan(
    request: &Request,
    settings: &Settings,
    defined: &Defined,
    running: &Running,
    criu: &Criu,
    netlink: &mut Netlink,
) -> Result<Plan> {
    let init = running.init.pid();
    let netns = namespace::network_of(init).context("open the container's network namespace")?;
    let mut survey = ports::survey(netlink, netns.as_fd())?;
    let devices = interfaces::among(&mut survey, &interfaces::lent_by(&defined.config));
    let elsewhere = ports::add_states(&mut survey.ports, &survey.addresses)?;
    let container_mounts = mounts::table(init)?;
    let from_host: Vec<Mount> =
        container_mounts.iter().filter(|m| !terminals::is_lent(m)).cloned().collect();
    let described = describe_init(init)?;
    let monitor = mounts::monitor_of(init)?;
    let own_mounts = mounts::table(monitor)?;
    let own_users = described.namespaces.iter().any(|n| n == "user");
    let mut externals =
        external::externals(&from_host, external::Host { table: &own_mounts, own_users });
    let seen = Below::of_process(monitor).context("open the root of LXC's monitor")?;
    for external in &mut externals {
        external.identity = Identity::seen_from(&seen, &external.source, &own_mounts).ok();
    }
    let host_files = mounts::host_streams(init, &container_mounts)?;
    let payload = cgroup::of_container(running)?;
    let (trees, mut notes) = read_cgroups(&payload, &defined.config)?;
    let unified = payload.iter().find(|c| c.hierarchy.is_unified()).map(|c| c.dir.as_path());
    let (ttys, controlling) = terminals(init, &container_mounts, unified)?;

    let search_path = search_path(request, unified)?;
    let label = described.label.as_deref().and_then(Label::parse);
    let profile = label.map_or(Ok(None), |label| {
        Profile::of_running(label, &defined.dir(), defined.config.guest())
    })?;
    let has_netns = described.namespaces.iter().any(|n| n == "net");
    let in_cgroup_namespace = described.namespaces.iter().any(|n| n == "cgroup");

    if payload.is_empty() {
        notes.push("it has no cgroup of its own and no limits: a restore gives it one".to_owned());
    }
    let frozen =
        trees.iter().zip(&payload).find(|(tree, _)| tree.frozen).map(|(_, cgroup)| cgroup.home());
    let roots = payload.iter().filter(|_| !in_cgroup_namespace);
    let dump = Dump {
        common: Common {
            images: crate::checkpoint::directories::partial(&request.images),
            action_scripts: super::action_scripts(request),
            externals: criu_externals(&externals, &host_files, &ttys, &controlling),
            extra: Vec::new(),
        },
        tree: init,
        after: request.after,
        ghost_limit: settings.ghost_limit << 20,
        freeze_cgroup: frozen,
        cgroup_roots: roots
            .map(|c| CgroupRoot::of(&c.hierarchy.controllers, &c.home_path()))
            .collect(),
        // What reaches it by another way than a bridge, CRIU has to keep away.
        network_lock: match has_netns
            && devices.is_empty()
            && survey.ports.iter().all(|port| port.bridge.is_some())
        {
            false => NetworkLock::Nftables,
            true if criu.version.supports_network_lock_skip() => NetworkLock::Skip,
            true => NetworkLock::Default,
        },
        parent_images: request.parent_images.clone(),
        tcp_close: request.tcp_close,
    };
    let mut record = Record {
        version: record::VERSION,
        memory_only: false,
        // These two are known when the images are complete.
        builds_on: None,
        rounds: Vec::new(),
        created: 0,
        still_ns: None,
        left_running: request.after == AfterDump::LeaveRunning,
        label: request.label.clone(),
        // These two, as well.
        processes: None,
        frozen_us: None,
        looked_through: false,
        differences: Vec::new(),
        container: record::Container {
            name: defined.name.as_str().to_owned(),
            lxcpath: plain(defined.lxcpath.as_path()),
            rootfs: plain(&defined.rootfs),
            rootfs_inode: inode_of_root(defined, init)?,
            config: defined.config_text(),
        },
        host: host(criu),
        init: described,
        cgroup: None,
        legacy_cgroups: Vec::new(),
        ports: survey.ports.clone(),
        devices,
        elsewhere,
        routes: survey.routes,
        within: None,
        iptables: Vec::new(),
        externals,
        without_symlinks: points_without_symlinks(&container_mounts),
        host_files,
        net_settings: Sysctls::new(),
        groups: Vec::new(),
        core_filters: Vec::new(),
        tmpfs: Vec::new(),
        states: None,
        interface_settings: None,
        ttys,
        profile,
        images: Vec::new(),
    };
    record.set_cgroups(trees);
    Ok(Plan {
        dump,
        in_cgroup_namespace,
        ports: survey.ports,
        netns: has_netns.then(|| Arc::new(netns)),
        search_path,
        record,
        notes,
    })
}

impl Plan {
    /// The plan in words, for `--dry-run`.
    pub(crate) fn in_words(&self, program: &Path) -> Vec<String> {
        let record = &self.record;
        let mut lines = vec![format!(
            "container {} (init {}, {})",
            record.container.name, record.init.pid, record.init.command
        )];
        for port in &self.ports {
            lines.push(match &port.bridge {
                Some(bridge) => {
                    format!(
                        "{} ({}) leaves {bridge} while the container is frozen",
                        port.host, port.inside
                    )
                }
                None => {
                    format!("{} ({}) is on no bridge and is left alone", port.host, port.inside)
                }
            });
        }
        for device in &record.devices {
            lines.push(match &device.from {
                Origin::Upon { host, .. } => format!("{} sits on {host}", device.inside),
                Origin::Lent { host } => format!("{} is {host} of the host", device.inside),
            });
        }
        for external in &record.externals {
            lines.push(format!(
                "{} is a bind mount of {}",
                external.point.display(),
                external.source.display()
            ));
        }
        for tty in &record.ttys {
            let points: Vec<_> = tty.points.iter().map(|p| p.path.display().to_string()).collect();
            lines.push(format!("{} is a terminal that LXC's monitor serves", points.join(" and ")));
        }
        lines.push(format!("images go to {}", self.dump.common.images.display()));
        lines.push(match self.dump.after {
            AfterDump::Stop => "the container is stopped when they are complete".to_owned(),
            AfterDump::LeaveRunning => "the container is still running".to_owned(),
        });
        lines.push(crate::criu::options::printable(program, &self.dump.args()));
        lines
    }
}

/// The same path without `..`, which a record does not take.
fn plain(path: &Path) -> PathBuf {
    let goes_up = path.components().any(|c| c == Component::ParentDir);
    let resolved = goes_up.then(|| fs::canonicalize(path).ok()).flatten();
    resolved.unwrap_or_else(|| path.to_owned())
}

/// Where no symbolic link is followed: CRIU does not save that.
fn points_without_symlinks(mounts: &[Mount]) -> Vec<PathBuf> {
    mounts.iter().filter(|m| m.flags.contains(NO_SYMLINKS)).map(|m| m.point.clone()).collect()
}

/// What tells its root from another one in the same place. Of a root that cannot be restored there
/// is none, and only --force leads here.
fn inode_of_root(defined: &Defined, init: i32) -> Result<u64> {
    match Root::of(defined) {
        // The host may see an empty directory there.
        Ok(Root::Directory { .. }) if defined.config.monitor_unshare() => {
            Ok(glance_root(init).context("inspect the container's root")?.ino)
        }
        Ok(root) => root.inode(),
        Err(_) => Ok(0),
    }
}

fn criu_externals(
    externals: &[mounts::External],
    files: &[HostFile],
    ttys: &[Tty],
    controlling: &[Device],
) -> Vec<External> {
    let mount =
        |key: &str, path: &Path| External::Mount { key: key.to_owned(), path: path.to_owned() };
    let mounts = externals.iter().map(|e| mount(&e.key, &e.point));
    let files = files.iter().map(|f| External::File { mount_id: f.mount_id, inode: f.inode });
    let points = ttys.iter().flat_map(|t| &t.points).map(|p| mount(&p.key, &p.path));
    let devices = ttys.iter().map(|t| (t.rdev, t.dev)).chain(controlling.iter().copied());
    mounts
        .chain(files)
        .chain(points)
        .chain(devices.map(|(rdev, dev)| External::Tty { rdev, dev }))
        .collect()
}

/// The device numbers of a terminal, and of the file system that its file is in.
type Device = (u64, u64);

/// The terminals that LXC lent the container, and the `/dev/tty` devices through which they are
/// open.
fn terminals(
    init: i32,
    mounts: &[Mount],
    payload: Option<&Path>,
) -> Result<(Vec<Tty>, Vec<Device>)> {
    let mut lent = terminals::lent(mounts);
    terminals::note_owners(&mut lent, init);
    let Some(payload) = payload.filter(|_| !lent.is_empty()) else { return Ok((lent, Vec::new())) };
    let holders = terminals::holders(&cgroup::tasks(payload)?)?;
    terminals::note_sessions(&mut lent, &holders);
    let controlling = terminals::external_controlling(&lent, &holders);
    Ok((lent, controlling))
}

/// Without the tools of iptables where the container has none of their tables, and CRIU runs no
/// script of the user's, who may want them.
fn search_path(request: &Request, payload: Option<&Path>) -> Result<Option<String>> {
    match payload {
        Some(dir) if request.user_script.is_none() && !tables::in_use(&cgroup::tasks(dir)?)? => {
            Ok(tools::search_path_without_iptables())
        }
        _ => Ok(None),
    }
}

fn host(criu: &Criu) -> record::Host {
    let (kernel, machine) = match nix::sys::utsname::uname() {
        Ok(names) => (
            names.release().to_string_lossy().into_owned(),
            names.machine().to_string_lossy().into_owned(),
        ),
        Err(_) => (String::new(), std::env::consts::ARCH.to_owned()),
    };
    record::Host {
        kernel,
        machine,
        criu: criu.version.to_string(),
        lxc: lxc::version::find_cached(&lock::lxc_version_cache()),
        lxc_cr: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Reads a container's cgroups, with what holds them back; and what the user should know of that.
pub(crate) fn read_cgroups(
    payload: &[Cgroup],
    config: &Config,
) -> Result<(Vec<Tree>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut trees = Vec::new();
    for cgroup in payload {
        let mut tree = Tree::read(cgroup)?;
        notes.extend(confine::read_devices(&mut tree, &cgroup.dir, config)?);
        trees.push(tree);
    }
    Ok((trees, notes))
}

fn describe_init(pid: i32) -> Result<record::Init> {
    let read = |file: &str| -> Result<String> {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let namespaces = own_namespaces(pid)?;
    let lines = |text: String| -> Vec<String> {
        text.lines().map(|l| l.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let in_user_namespace = namespaces.iter().any(|n| n == "user");
    // A kernel without an LSM has no such file to read.
    let label = read("attr/current").ok().map(|l| l.trim_end_matches(['\n', '\0']).to_owned());
    Ok(record::Init {
        pid,
        command: read("comm")?.trim_end().into(),
        uid_map: if in_user_namespace { lines(read("uid_map")?) } else { Vec::new() },
        gid_map: if in_user_namespace { lines(read("gid_map")?) } else { Vec::new() },
        namespaces,
        personality: personality::of(pid).unwrap_or_default(),
        label: label.filter(|l| !l.is_empty() && l != "unconfined"),
    })
}

/// The namespaces that a process does not share with us.
fn own_namespaces(pid: i32) -> Result<Vec<String>> {
    let mut own = Vec::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let theirs = match fs::read_link(format!("/proc/{pid}/ns/{name}")) {
            Ok(link) => link,
            // This kernel has no such namespaces.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("read /proc/{pid}/ns/{name}")),
        };
        if fs::read_link(format!("/proc/self/ns/{name}")).ok().as_ref() != Some(&theirs) {
            own.push(name.to_owned());
        }
    }
    Ok(own)
}
