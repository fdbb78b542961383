//! What stands in the way of a checkpoint, looked for before anything is touched.
//!
//! CRIU finds what it cannot dump when the container is frozen already, and what it cannot restore
//! when the container is gone. Nearly all of it can be seen beforehand in /proc and over netlink.
//! [`look`] gathers what there is to see and has it judged; each subject has its own file, in which
//! reading is apart from judging. What it finds is a blocker only if CRIU is known to fail on it
//! with the very options that a checkpoint gives it.
//!
//! | file | what it judges |
//! |---|---|
//! | [`threads`] | what a thread has for itself, a main thread that has ended |
//! | [`landlock`] | processes that Landlock confines |
//! | [`epoll`] | epolls that watch what their process has not open |
//! | [`queues`] | requests and packets that wait in a socket |
//! | [`processes`] | sessions from outside, debuggers, attached shells, limits, profiles |
//! | [`namespaces`] | kinds that cannot be nested |
//! | [`start_state`] | what LXC or a user has given it, and a restore cannot |
//! | [`files`] | eBPF, io_uring, devices, deleted and hidden files, files from outside |
//! | [`memory`] | shared memory with code |
//! | [`sockets`] | kinds, unread data, other ends outside |
//! | [`unix_names`] | sockets that cannot be found again by their names |
//! | [`terminals`] | terminals whose other end is outside |
//! | [`mounts`] | file systems that cannot be mounted again |
//! | [`network`] | interfaces and bridges |
//! | [`firewall`] | rules that no tool can restore |
//! | [`space`] | room for the memory |
//! | [`host`] | kernel, tools, CRIU |

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::minor;

use crate::criu::version::Criu;
use crate::lxc::config::NicKind;
use crate::lxc::container::Running;
use crate::lxc::definition::Defined;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::shell;
use crate::resources::cgroup;
use crate::resources::mounts::external;
use crate::resources::network::interfaces;
use crate::resources::network::ports::{self, Survey};
use crate::resources::rootfs::Root;
use crate::resources::terminals::{is_lent, lent};
use crate::settings::Settings;
use crate::sys::namespace;
use crate::sys::netlink::{Link, Netlink};

pub(crate) mod descriptor;
pub(crate) mod entry;
pub(crate) mod epoll;
pub(crate) mod files;
mod finding;
pub(crate) mod firewall;
pub(crate) mod host;
pub(crate) mod landlock;
pub(crate) mod memory;
pub(crate) mod mount_sources;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod processes;
pub(crate) mod propagation;
pub(crate) mod queues;
pub(crate) mod sockets;
pub(crate) mod space;
pub(crate) mod start_state;
pub(crate) mod task;
pub(crate) mod terminals;
pub(crate) mod threads;
pub(crate) mod unix_names;

pub(crate) use finding::{Fails, Finding, Findings, Severity};

use descriptor::{Kind, Opened};

/// Who is looked at, and for what checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The container as it is defined.
    pub defined: &'a Defined,
    /// The same as it runs.
    pub running: &'a Running,
    /// The CRIU that will dump it.
    pub criu: &'a Criu,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// Where the checkpoint is to go.
    pub images: &'a Path,
    /// Whether it builds on a pre-dump.
    pub incremental: bool,
}

/// Looks at a running container. Nothing is changed, and nothing in the container notices.
///
/// # Errors
/// When /proc or netlink cannot be read, or the container ends meanwhile.
pub(crate) fn look(subject: &Subject<'_>, netlink: &mut Netlink) -> Result<Findings> {
    let Subject { defined, running, criu, settings, images, incremental } = *subject;
    let init = running.init.pid();
    let names = Names::of(&defined.name, &defined.lxcpath);

    let tasks = task::Tasks::read(init)?;
    let alive = tasks.tree.iter().filter(|t| !t.is_zombie());
    let opened = alive.map(Opened::read).collect::<Result<Vec<Opened<'_>>>>()?;
    let tables = mounts::Tables::read(&tasks)?;
    let monitor = crate::resources::mounts::monitor_of(init)?;
    let own = crate::resources::mounts::table(monitor)?;
    let from_host: Vec<_> = tables.main().iter().filter(|m| !is_lent(m)).cloned().collect();
    let host_mounts = external::Host { table: &own, own_users: tasks.has_own_users() };
    let externals = external::externals(&from_host, host_mounts);
    let host_files = crate::resources::mounts::host_streams(init, tables.main())?;
    let sockets = sockets::Sockets::read(&tasks, &opened)?;
    let netns = namespace::network_of(init).context("open the container's network namespace")?;
    let mut survey = ports::survey(netlink, netns.as_fd())?;
    let links = netlink.links().context("list the host's links")?;
    // With a network of the host's own there is nothing of it to dump.
    let own_network = !survey.ports.is_empty() || !survey.others.is_empty();
    let interfaces = survey.others.clone();
    let devices = interfaces::among(&mut survey, &interfaces::lent_by(&defined.config));
    let bridges = bridges(defined, &survey, &links);
    let loopback_up = links.iter().any(|l| l.name == "lo" && l.up);
    let cures = files::Cures {
        ghost_limit: settings.ghost_limit << 20,
        host_files: &host_files,
        bpf_maps: has_bpf_map(&opened) && host::dumps_bpf_maps(&criu.path),
        prepare: &names.prepare(),
    };
    let target = space::Target::read(images, incremental)?;
    let host = host::Host::read(loopback_up, tasks.no_children, is_frozen(running));

    let mut found = host::judge(&host, criu, &opened, &tables, own_network);
    found.extend(processes::judge(&tasks, &host::Caller::read()?, host.frozen));
    for cgroup in
        cgroup::of_container(running)?.iter().filter(|cgroup| cgroup.hierarchy.is_unified())
    {
        found.extend(processes::frozen_below(
            &cgroup.dir,
            &cgroup::frozen_below(&cgroup.dir)?,
            &names,
        ));
    }
    let threads: Vec<_> =
        tasks.tree.iter().map(|task| (task, threads::Threads::read(task))).collect();
    found.extend(threads::judge(&threads));
    if !host.frozen {
        found.extend(landlock::judge(&landlock::read(&tasks)));
    }
    found.extend(namespaces::judge(&tasks, &names));
    found.extend(namespaces::shared(&defined.config));
    found.extend(start_state::judge(&start_state::Given::read(&defined.config, &tasks)));
    found.extend(mounts::judge(&tables, &externals, &names));
    found.extend(propagation::judge(&tables, &externals, &own));
    let seen =
        mount_sources::Seen::read(init, &tables, &externals, (monitor, &own), &defined.rootfs);
    found.extend(mount_sources::judge(&tables, &opened, &seen, &defined.config, &names));
    found.extend(Root::of(defined).err().map(|e| mounts::of_root(&e)));
    found.extend(files::judge(&opened, &tables, &cures));
    found.extend(epoll::judge(&epoll::read(&opened)));
    found.extend(memory::judge(&opened, &names));
    let named = unix_names::read(init);
    found.extend(unix_names::mounted(&named, &tables, &externals, &opened, &names));
    found.extend(unix_names::homeless(&named, &opened, init));
    let lent: Vec<u32> = lent(tables.main()).iter().map(|t| minor(t.rdev) as u32).collect();
    found.extend(terminals::judge(&opened, &tables, &lent));
    found.extend(sockets::judge(&opened, &sockets, &names));
    found.extend(queues::judge(&opened, &queues::Queues::read(&tasks)?));
    found.extend(network::judge(&interfaces, &devices, &bridges, &names));
    found.extend(network::judge_ports(&survey.ports));
    if own_network {
        found.extend(firewall::judge(&firewall::try_out(netns.as_fd()), &names));
    }
    found.extend(space::judge(&tasks, &target));
    Ok(Findings::new(found))
}

fn has_bpf_map(opened: &[Opened<'_>]) -> bool {
    opened
        .iter()
        .flat_map(|o| &o.descriptors)
        .any(|d| d.kind == Kind::Anonymous("bpf-map".to_owned()))
}

/// The bridges that a restart will ask for: what the configuration names where it differs from what
/// there is now.
fn bridges(defined: &Defined, survey: &Survey, links: &[Link]) -> Vec<network::Bridge> {
    let nics = defined.config.nics().iter().filter(|n| n.kind == NicKind::Veth);
    let named = nics.filter_map(|nic| {
        let interface = nic.name_inside();
        let name = nic.link.clone()?;
        survey.ports.iter().any(|p| p.inside == interface).then(|| network::Bridge {
            exists: links.iter().any(|l| l.name == name),
            interface,
            name,
        })
    });
    named.collect()
}

fn is_frozen(running: &Running) -> bool {
    let payload = cgroup::of_container(running).unwrap_or_default();
    payload.iter().any(|cgroup| cgroup::is_frozen(&cgroup.home()).unwrap_or(false))
}

/// How a command in the container is typed on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    name: String,
    options: String,
    restart: String,
}

impl Names {
    fn of(name: &ContainerName, lxcpath: &LxcPath) -> Names {
        Names {
            name: name.to_string(),
            options: shell::options(name, lxcpath),
            restart: shell::restart(name, lxcpath),
        }
    }

    /// The command to paste.
    pub(crate) fn attach(&self, command: &str) -> String {
        format!("lxc-attach {} -- {command}", self.options)
    }

    /// The commands that prepare the container, which has to be restarted for that.
    pub(crate) fn prepare(&self) -> String {
        format!("lxc-cr prepare {} && {}", self.options, self.restart)
    }

    /// The command that gives LXC's unit for the container no stream to the journal, at its next
    /// start.
    pub(crate) fn null_output(&self) -> String {
        let dir = format!("/etc/systemd/system/lxc@{}.service.d", self.name);
        format!(
            "mkdir -p '{dir}' && printf '[Service]\\nStandardOutput=null\\nStandardError=null\\n' \
             > '{dir}/no-journal.conf' && systemctl daemon-reload"
        )
    }

    #[cfg(test)]
    fn test() -> Names {
        Names {
            name: "web".to_owned(),
            options: "-n web".to_owned(),
            restart: "lxc-stop -n web && lxc-start -n web".to_owned(),
        }
    }
}
