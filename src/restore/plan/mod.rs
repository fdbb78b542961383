//! What a restore will do: decided from the record and the configuration before anything is made.

mod command_line;
mod network;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use network::{bridges_of, complete, inside, interfaces, netns, ports_of};

use super::Request;
use super::cgroups;
use super::connections;
use crate::criu::images::{self, NamespaceIds, Shown};
use crate::criu::options::External;
use crate::lxc::config::Nic;
use crate::resources::apparmor::Profile;
use crate::resources::cgroup::confine::Confinement;
use crate::resources::cgroup::{self, Tree};
use crate::resources::mounts::{self, HostFile};
use crate::resources::network::inside::Inside;
use crate::resources::network::interfaces::{self, Device, Origin};
use crate::resources::network::multicast::Membership;
use crate::resources::network::plan::{self as ports, NewPort, Wanted};
use crate::resources::network::state::Within;
use crate::resources::network::sysctl::Sysctls;
use crate::resources::network::{Elsewhere, apply, iptables, lxc_defaults};
use crate::resources::states::core_filters::CoreFilter;
use crate::resources::states::tmpfs::TmpfsFile;
use crate::resources::states::{States, personality};
use crate::resources::terminals::{self, Terminal};
use crate::restore::preflight::Subject;
use crate::settings::Settings;
use crate::store::record::Record;
use crate::sys::netlink::{Netlink, Route};

/// A restore, ready to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The cgroups to make in each hierarchy; cgroup2 is the first.
    pub cgroups: Vec<cgroups::Wanted>,
    /// Whether CRIU is born in the payload cgroups, and all tasks with it.
    pub born_there: bool,
    /// Whether CRIU starts in a new cgroup namespace, which the tasks inherit: they had one, and
    /// were dumped from inside it.
    pub cgroup_namespace: bool,
    /// What holds it back, in force before it runs.
    pub confinement: Confinement,
    /// Settings of its network namespace that CRIU does not bring back.
    pub net_settings: Sysctls,
    /// Sockets that have to join multicast groups again.
    pub groups: Vec<Membership>,
    /// Tasks that get another filter for core dumps than most.
    pub core_filters: Vec<CoreFilter>,
    /// What CRIU loses of its files in memory.
    pub tmpfs: Vec<TmpfsFile>,
    /// Other states of its tasks that CRIU does not restore.
    pub states: Option<States>,
    /// The personality of its processes, which CRIU hands on.
    pub personality: u32,
    /// What is in its network namespace, where we bring it back and not CRIU; with the settings of
    /// its interfaces.
    pub inside: Option<(Inside, Sysctls)>,
    /// The veth pairs to make.
    pub veths: Vec<NewPort>,
    /// What other links of the host are told for the sake of its addresses.
    pub elsewhere: Vec<Elsewhere>,
    /// Its other interfaces that need something of the host.
    pub devices: Vec<Device>,
    /// Files of the host that the container's init had open.
    pub host_files: Vec<HostFile>,
    /// Its routes that CRIU does not bring back.
    pub routes: Vec<Route>,
    /// What else its network namespace had that CRIU does not bring back.
    pub within: Option<Within>,
    /// Tables of iptables-nft that CRIU cannot restore.
    pub iptables: Vec<iptables::Saved>,
    /// The profile of AppArmor to load for it.
    pub profile: Option<Profile>,
    /// Its mount points, and what the mounts there forbid.
    pub mount_flags: Vec<(PathBuf, MsFlags)>,
    /// Images that CRIU is to see otherwise than they are.
    pub images: Vec<ShownImage>,
    /// Whether the checkpoint is another container's.
    pub is_copy: bool,
    /// Whether the images hold no TCP connections.
    pub tcp_close: bool,
    /// Bind mounts from the host, and new terminals.
    pub mounts: Vec<External>,
    /// Mounts of its own cgroups.
    pub own_cgroups: Vec<OwnCgroup>,
    /// Where CRIU finds the container's root: a mount in its own mount namespace.
    pub root: PathBuf,
    /// The new terminals.
    pub terminals: Vec<Terminal>,
    /// Whether CRIU makes the mounts in its older way.
    pub older_mount_engine: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A mount of a piece of its own cgroups.
#[derive(Debug)]
pub(crate) struct OwnCgroup {
    /// The name by which the images know it.
    pub key: String,
    /// The hierarchy, by its place in [`Plan::cgroups`].
    pub hierarchy: usize,
    /// Where it begins below the payload cgroup.
    pub below: PathBuf,
}

/// An image that CRIU is shown in place of the checkpoint's own.
#[derive(Debug)]
pub(crate) struct ShownImage {
    /// Its name in the image directory.
    pub name: String,
    /// What CRIU reads.
    pub content: Vec<u8>,
}

/// Decides.
pub(super) fn plan(
    request: &Request,
    settings: &Settings,
    subject: &Subject<'_>,
    terminals: Vec<Terminal>,
    root: PathBuf,
    netlink: &mut Netlink,
) -> Result<Plan> {
    let Subject { defined, record, copy, .. } = *subject;
    let config = &defined.config;
    let cgroups = cgroups::plan(defined.name.as_str(), config, record)?;
    let links = netlink.links().context("list the host's links")?;
    let mut ports = match record {
        Some(record) => record.ports.clone(),
        None => ports_of(config),
    };
    let mut devices = match record {
        Some(record) => record.devices.clone(),
        None => interfaces::of_config(config),
    };
    // What is lent to a container that runs is not on the host.
    let on_host = |device: &&Device| !subject.beside || !matches!(device.from, Origin::Lent { .. });
    let needed: Vec<Device> = devices.iter().filter(on_host).cloned().collect();
    if let Some(missing) = interfaces::missing(&needed, &links) {
        return Err(missing.into());
    }
    let interfaces = interfaces(&request.images, &mut ports, &mut devices)
        .context("read the container's interfaces")?;
    let mut shown = Shown::of(&request.images);
    if let Some(copy) = copy {
        devices
            .iter_mut()
            .for_each(|device| device.mac = copy.mac_of(&device.inside).or(device.mac));
        copy.show(&mut shown).context("give the copy its own name and addresses")?;
    }
    if let Some(netns) = netns(&request.images)? {
        images::with_plain_routes(&mut shown, netns).context("read the container's routes")?;
        let tables = record
            .map(|r| r.iptables.as_slice())
            .unwrap_or_default()
            .iter()
            .flat_map(iptables::Saved::tables);
        images::without_tables(&mut shown, netns, &tables.collect::<Vec<_>>())
            .context("read the container's rules")?;
    }
    let inside = inside(&shown, record, &ports).context("read the container's network")?;
    if inside.is_none()
        && let Some(netns) = netns(&request.images)?
    {
        images::settle(&mut shown, netns).context("read the container's addresses")?;
    }
    let wanted = Wanted {
        bridges: bridges_of(config, record, settings),
        names: request.veth.clone(),
        scripted: config
            .nics()
            .iter()
            .filter(|n| n.script_up.is_some())
            .map(Nic::name_inside)
            .collect(),
    };
    complete(&mut ports, config, copy, netlink)?;
    let elsewhere = match record {
        Some(record) if copy.is_none() => record.elsewhere.clone(),
        _ => config.nics().iter().flat_map(lxc_defaults::of_link).collect(),
    };
    let veths = ports::plan(&ports, &wanted, &links, apply::random_numbers())?;
    // Of a namespace that it leaves empty CRIU reads no interfaces.
    if let Some((name, content)) = interfaces.filter(|_| inside.is_none()) {
        shown.put([(name.clone(), content)]);
        copy.map_or(Ok(()), |copy| copy.show_macs(&mut shown, &name))
            .context("give the copy its own hardware addresses")?;
    }
    shown.put(
        images::with_openable_executables(&request.images)
            .context("read the container's executables")?,
    );
    if let Some(record) = record {
        shown.put(terminals::resolve_controlling(&request.images, &record.ttys)?);
    }
    if copy.is_some() || request.tcp_close {
        let moved = |ip| copy.and_then(|copy| copy.moved(ip));
        connections::show(&mut shown, request.tcp_close, moved)
            .context("read the container's connections")?;
    }
    let mount =
        |key: &str, path: &Path| External::Mount { key: key.to_owned(), path: path.to_owned() };
    let binds = record.map(|r| r.externals.as_slice()).unwrap_or_default();
    let mut own_cgroups = Vec::new();
    let mut mounts = Vec::new();
    for bind in binds {
        // The payload cgroup gets another name where this one is taken.
        match own_cgroup(bind, &cgroups) {
            Some(own) => own_cgroups.push(own),
            None => mounts.push(mount(&bind.key, &bind.source)),
        }
    }
    for Terminal { tty, pty } in &terminals {
        mounts.extend(tty.points.iter().map(|p| mount(&p.key, &pty.path)));
    }
    let notes = propagation(&request.images, &mounts, &root, subject.beside, &mut shown)
        .context("read the container's mounts")?;
    Ok(Plan {
        born_there: record.is_some_and(|r| r.cgroups().all(Tree::is_flat)),
        cgroup_namespace: record.is_some_and(|r| r.init.namespaces.iter().any(|n| n == "cgroup")),
        confinement: match record {
            Some(record) => {
                Confinement::new(record.cgroup.as_ref(), &record.legacy_cgroups, config)?
            }
            None => Confinement::new(None, &[], config)?,
        },
        cgroups,
        groups: record.map(|r| r.groups.clone()).unwrap_or_default(),
        core_filters: record.map(|r| r.core_filters.clone()).unwrap_or_default(),
        tmpfs: record.map(|r| r.tmpfs.clone()).unwrap_or_default(),
        states: record.and_then(|r| r.states.clone()),
        personality: personality::to_be_handed_on(record.map_or(0, |r| r.init.personality)),
        net_settings: record.map(|r| r.net_settings.clone()).unwrap_or_default(),
        veths,
        elsewhere,
        devices,
        inside,
        routes: record.map(|r| r.routes.clone()).unwrap_or_default(),
        within: record.and_then(|r| r.within.as_ref()).map(|within| match copy {
            Some(copy) => within.readdressed(&|ip| copy.moved(ip)),
            None => within.clone(),
        }),
        iptables: record.map(|r| r.iptables.clone()).unwrap_or_default(),
        profile: record.and_then(|r| r.profile.clone()),
        mount_flags: mount_flags(&request.images, record).context("read the container's mounts")?,
        images: shown
            .into_changed()
            .into_iter()
            .map(|(name, content)| ShownImage { name, content })
            .collect(),
        is_copy: copy.is_some(),
        tcp_close: connections::were_closed(&request.images)?,
        host_files: record.map(|r| r.host_files.clone()).unwrap_or_default(),
        mounts,
        own_cgroups,
        root,
        terminals,
        older_mount_engine: false,
        notes,
    })
}

/// Where mounts propagate, as the host's mounts allow it now; gives what the user should know of
/// that. `covered`: none of them is the host's own mount, so all are private.
fn propagation(
    images: &Path,
    mounts: &[External],
    root: &Path,
    covered: bool,
    shown: &mut Shown,
) -> Result<Vec<String>> {
    if covered {
        shown.put(images::with_groups_apart(images, &|_| true)?);
        return Ok(Vec::new());
    }
    let host = mounts::table(std::process::id().cast_signed())?;
    let lost = RefCell::new(BTreeSet::new());
    let is_private = |key: Option<&str>| {
        let source = match key {
            None => Some(root),
            Some(key) => mounts.iter().find_map(|mount| match mount {
                External::Mount { key: k, path } if k == key => Some(path.as_path()),
                _ => None,
            }),
        };
        let private = source
            .filter(|path| mounts::seen_at(&host, path).is_some_and(mounts::Mount::is_private));
        lost.borrow_mut().extend(private.map(Path::to_owned));
        private.is_some()
    };
    shown.put(images::with_groups_apart(images, &is_private)?);
    let note = |path: PathBuf| {
        format!(
            "{0} is on a private mount now: what the host mounts below {0} later does not reach \
             the container",
            path.display()
        )
    };
    Ok(lost.into_inner().into_iter().map(note).collect())
}

/// Whether what was mounted is a piece of the container's own cgroups, which may get another name.
fn own_cgroup(bind: &mounts::External, cgroups: &[cgroups::Wanted]) -> Option<OwnCgroup> {
    cgroups.iter().enumerate().find_map(|(hierarchy, wanted)| {
        let old = cgroup::directory(&wanted.hierarchy.mount, &wanted.tree.as_ref()?.path).ok()?;
        let below = bind.source.strip_prefix(old).ok()?.to_owned();
        Some(OwnCgroup { key: bind.key.clone(), hierarchy, below })
    })
}

/// What its mounts forbid, in the order of their making.
fn mount_flags(
    images: &Path,
    record: Option<&Record>,
) -> Result<Vec<(PathBuf, MsFlags)>, images::Error> {
    let Some(mntns) = NamespaceIds::of_task(images, images::root_of_tree(images)?)?.mnt else {
        return Ok(Vec::new());
    };
    let mounts = match images::mounts(images, mntns) {
        Ok(mounts) => mounts,
        // It was in the host's namespace.
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let flags = |m: images::Mount| {
        let more = record.is_some_and(|r| r.without_symlinks.contains(&m.point));
        let known = MsFlags::from_bits_truncate(m.flags.into());
        (m.point, if more { known | mounts::NO_SYMLINKS } else { known })
    };
    Ok(mounts.into_iter().map(flags).collect())
}
