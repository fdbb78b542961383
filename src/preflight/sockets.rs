//! Sockets that CRIU does not know, that hold data it would lose, or whose other end is outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use super::Names;
use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::task::{Task, Tasks, end, is_plain_service};
use crate::sys::multicast;
use crate::sys::namespace;
use crate::sys::netlink::{Error, in_netns, tcp_listeners, unix_peers};
use crate::sys::process::Process;

/// Protocols that CRIU 4.2 dumps, as the kernel calls them (sockets.c: `dump_socket`; sk-inet.c:
/// `can_dump_ipproto`).
const KNOWN: &[&str] = &[
    "TCP",
    "TCPv6",
    "UDP",
    "UDPv6",
    "UDP-Lite",
    "UDPLITEv6",
    "RAW",
    "RAWv6",
    "PING",
    "PINGv6",
    "UNIX",
    "UNIX-STREAM",
    "PACKET",
    "NETLINK",
];

/// Protocols of which it is known that CRIU refuses them; of others it is only guessed.
const REFUSED: &[&str] = &[
    "MPTCP", "MPTCPv6", "SCTP", "SCTPv6", "AF_VSOCK", "XDP", "ALG", "KEY", "CAN", "CAN_RAW",
    "CAN_BCM", "TIPC", "RDS", "SMC", "SMC6", "DCCP", "DCCPv6", "HCI", "L2CAP", "RFCOMM",
];

/// What the kernel tells of the sockets of all network namespaces of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    /// Netlink sockets with unread data, by inode.
    pub unread: BTreeSet<u64>,
    /// Netlink sockets that listen to groups beyond the first 32, by inode.
    pub far_groups: BTreeSet<u64>,
    /// Listening TCP sockets with connections that nobody has accepted yet, by inode.
    pub waiting: BTreeSet<u64>,
    /// Established TCP connections at link-local addresses, by inode.
    pub link_local: BTreeSet<u64>,
    /// The other end of each connected unix socket.
    pub peers: BTreeMap<u64, u64>,
    /// Who outside the container holds the other end of one of its sockets.
    pub holders: BTreeMap<u64, (i32, String)>,
}

impl Sockets {
    /// Asks the kernel, in each network namespace of the container and in ours.
    pub(crate) fn read(tasks: &Tasks, opened: &[Opened<'_>]) -> Result<Sockets> {
        let mut found = Sockets::default();
        let inside: BTreeSet<u64> = sockets(opened).map(|s| s.inode).collect();
        // CRIU cannot do without these lists either, and says so better.
        let listed = |list: Result<_, Error>, what: &str| {
            list.inspect_err(|e| log::debug!("list {what}: {e}")).unwrap_or_default()
        };
        let wide = |(one, other): (u32, u32)| (u64::from(one), u64::from(other));
        // What it was started with may be of the host's network: the streams of a unit of
        // systemd's.
        let ours = listed(unix_peers(), "unix sockets").into_iter().map(wide);
        found.peers.extend(ours.filter(|(inode, _)| inside.contains(inode)));
        for task in tasks.one_of_each("net") {
            found.unread.extend(unread(task.pid));
            found.link_local.extend(link_local(task.pid));
            let Ok(netns) = namespace::network_of(task.pid) else { continue };
            let (peers, listeners) = in_netns(netns.as_fd(), || (unix_peers(), tcp_listeners()))
                .context("enter the container's network namespace")?;
            found.peers.extend(listed(peers, "unix sockets").into_iter().map(wide));
            let waiting =
                listed(listeners, "TCP sockets").into_iter().filter(|(_, queue)| *queue > 0);
            found.waiting.extend(waiting.map(|(inode, _)| u64::from(inode)));
        }
        let netlink = sockets(opened).filter(|held| held.protocol == "NETLINK");
        found.far_groups.extend(netlink.filter(has_far_groups).map(|held| held.inode));
        let outside: BTreeSet<u64> =
            inside.iter().filter_map(|i| found.peers.get(i)).copied().collect();
        let outside: BTreeSet<u64> = outside.difference(&inside).copied().collect();
        if !outside.is_empty() {
            found.holders = holders(&outside)?;
        }
        // A process that began after the tasks were listed is not outside.
        let own: BTreeSet<u64> = opened.iter().filter_map(|o| o.task.namespace("pid")).collect();
        let holders = &found.holders;
        found.peers.retain(|_, peer| {
            let holder = holders
                .get(peer)
                .and_then(|(pid, _)| fs::metadata(format!("/proc/{pid}/ns/pid")).ok());
            holder.is_none_or(|namespace| !own.contains(&namespace.ino()))
        });
        Ok(found)
    }
}

/// A socket that a process has open.
struct Held<'a> {
    task: &'a Task,
    descriptor: u32,
    inode: u64,
    protocol: &'a str,
}

fn sockets<'a>(opened: &'a [Opened<'_>]) -> impl Iterator<Item = Held<'a>> {
    opened.iter().flat_map(|o| {
        o.descriptors.iter().filter_map(|d| match &d.kind {
            Kind::Socket { inode, protocol } => {
                Some(Held { task: o.task, descriptor: d.number, inode: *inode, protocol })
            }
            _ => None,
        })
    })
}

impl Held<'_> {
    /// Whether it is what init was started with.
    fn is_stream_of_init(&self) -> bool {
        self.task.pid_inside == 1 && [1, 2].contains(&self.descriptor)
    }
}

/// What has ended, or was closed, has none.
fn has_far_groups(held: &Held<'_>) -> bool {
    let Ok(process) = Process::open(held.task.pid) else { return false };
    let Ok(number) = i32::try_from(held.descriptor) else { return false };
    multicast::socket(&process, number)
        .ok()
        .flatten()
        .is_some_and(|socket| multicast::has_far_groups(&socket))
}

/// `/proc/PID/net/netlink`: the fifth column counts what waits to be read, the last is the inode.
fn unread(pid: i32) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
    text.lines().filter_map(unread_line).collect()
}

fn unread_line(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let waits = words.get(4)?.parse::<u64>().ok()? > 0;
    if waits { words.last()?.parse().ok() } else { None }
}

/// `/proc/PID/net/tcp6`: the second column is the address, a word of four bytes after the other,
/// the fourth the state, the tenth the inode.
fn link_local(pid: i32) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/tcp6")).unwrap_or_default();
    text.lines().filter_map(link_local_line).collect()
}

fn link_local_line(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let first = u32::from_str_radix(words.get(1)?.get(..8)?, 16).ok()?.to_ne_bytes();
    let is_link_local = first[0] == 0xfe && first[1] & 0xc0 == 0x80;
    let is_established = *words.get(3)? == "01";
    if is_link_local && is_established { words.get(9)?.parse().ok() } else { None }
}

/// Looks through all processes of the host for those that hold one of these sockets.
fn holders(wanted: &BTreeSet<u64>) -> Result<BTreeMap<u64, (i32, String)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|i| wanted.contains(i)) {
                let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.insert(inode, (pid, command.trim_end().to_owned()));
            }
        }
    }
    Ok(found)
}

/// Judges the sockets; pure.
pub(crate) fn judge(opened: &[Opened<'_>], known: &Sockets, names: &Names) -> Vec<Finding> {
    let inside: BTreeSet<u64> = sockets(opened).map(|s| s.inode).collect();
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for held in sockets(opened) {
        let Held { task, inode, protocol, .. } = held;
        // Processes share sockets: the first that has it is named.
        if !told.insert(inode) {
            continue;
        }
        found.extend(unknown(task, inode, protocol));
        if known.far_groups.contains(&inode) {
            found.push(far_groups(task, inode, names));
        }
        if known.unread.contains(&inode) {
            found.push(unread_data(task, inode));
        }
        if known.waiting.contains(&inode) {
            found.push(waiting_connection(task, inode));
        }
        if known.link_local.contains(&inode) {
            found.push(link_local_connection(task, inode));
        }
        let peer = known.peers.get(&inode).filter(|peer| !inside.contains(peer));
        match peer.map(|peer| known.holders.get(peer)) {
            Some(Some(holder)) if held.is_stream_of_init() => {
                found.push(stream_of_init(&held, holder, names))
            }
            Some(holder) => found.push(external(task, inode, holder)),
            None => {}
        }
    }
    found
}

fn place(task: &Task, inode: u64) -> Place {
    Place { file: Some(format!("socket:[{inode}]").into()), ..task.place() }
}

fn unknown(task: &Task, inode: u64, protocol: &str) -> Option<Finding> {
    if protocol.is_empty() || KNOWN.contains(&protocol) {
        return None;
    }
    let what = format!("{} has a socket of the kind {protocol}", task.name());
    let finding = match REFUSED.contains(&protocol) {
        true => Finding::blocker(what, "CRIU cannot dump it"),
        false => Finding::warning(what, "CRIU may not know it and fail"),
    };
    let remedy = match protocol {
        "MPTCP" | "MPTCPv6" => format!(
            "start the program without MPTCP (a Go program: with GODEBUG=multipathtcp=0 in its \
             environment), or {}",
            end(task)
        ),
        _ => format!("have the process close that socket, or {}", end(task)),
    };
    Some(finding.at(place(task, inode)).remedy(remedy))
}

/// sk-netlink.c: `The netlink socket … has more than 32 groups`.
fn far_groups(task: &Task, inode: u64, names: &Names) -> Finding {
    let finding = Finding::blocker(
        format!(
            "{} listens to netlink groups beyond the first 32 (nexthops, for instance)",
            task.name()
        ),
        "CRIU cannot dump such a socket",
    )
    .at(Place { file: Some(format!("socket:[{inode}]").into()), ..task.place() });
    match task.unit().filter(is_plain_service) {
        Some(unit) => finding.remedy(format!(
            "stop it for the checkpoint: {}",
            names.attach(&format!("systemctl stop {unit}"))
        )),
        None => finding.remedy(end(task)),
    }
}

/// sk-netlink.c: `The socket has data to read`. It is mostly read in a moment, so a dump is tried
/// again.
fn unread_data(task: &Task, inode: u64) -> Finding {
    Finding::warning(
        format!("{} has unread netlink messages", task.name()),
        "CRIU cannot dump a netlink socket with unread data; a checkpoint tries three times",
    )
    .at(place(task, inode))
    .remedy(format!("if it stays so, the process hangs: restart it, or {}", end(task)))
}

/// sk-inet.c: `In-flight connection`.
fn waiting_connection(task: &Task, inode: u64) -> Finding {
    Finding::warning(
        format!("{} has not yet accepted a TCP connection", task.name()),
        "CRIU cannot dump a connection before it is accepted; a checkpoint tries three times",
    )
    .at(place(task, inode))
    .remedy(format!("if it stays so, the process hangs: restart it, or {}", end(task)))
}

/// soccr.c: `Can't bind inet socket back: Invalid argument`.
fn link_local_connection(task: &Task, inode: u64) -> Finding {
    Finding::warning(
        format!("{} has a TCP connection at a link-local address of IPv6", task.name()),
        "CRIU forgets the link of it, and a restart fails, but for one that closes the \
         connections: lxc-restart --tcp-close",
    )
    .at(place(task, inode))
    .remedy(format!("let it use another address, or {}", end(task)))
}

/// sk-unix.c: `External socket is used`, `Can't dump half of stream unix connection`.
fn external(task: &Task, inode: u64, holder: Option<&(i32, String)>) -> Finding {
    let why = "CRIU cannot restore half of a connection";
    let finding = match holder {
        Some((pid, command)) => Finding::blocker(
            format!(
                "{} is connected by a unix socket to process {pid} ({command}) outside of the \
                 container",
                task.name()
            ),
            why,
        ),
        // Perhaps it is on its way between two processes of the container.
        None => Finding::warning(
            format!("{} has a unix connection whose peer cannot be found", task.name()),
            why,
        ),
    };
    finding.at(place(task, inode)).remedy(format!(
        "close the connection (is a socket of the host bind-mounted?), or {}",
        end(task)
    ))
}

/// sk-unix.c: `Unix socket … not found`. With `lxc.console.path = none` an init that `lxc-start -F`
/// starts keeps the streams of that: those of a unit lead to the journal.
fn stream_of_init(held: &Held<'_>, (pid, command): &(i32, String), names: &Names) -> Finding {
    let what = format!(
        "{} has its standard output from the host: a unix socket to process {pid} ({command}) \
         there",
        held.task.name()
    );
    let remedy = format!(
        "a unit of systemd's that starts it needs StandardOutput=null; write that, and restart the \
         unit: {}",
        names.null_output()
    );
    Finding::blocker(what, "CRIU knows no socket of another network namespace")
        .at(Place { descriptor: Some(held.descriptor), ..place(held.task, held.inode) })
        .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::finding::Severity;
    use super::super::task::tests::task;
    use super::*;

    fn judged(of: &[(u64, &str)], sockets: &Sockets) -> Vec<Finding> {
        let task = task(105, "x");
        let descriptors = of.iter().map(|(inode, protocol)| Descriptor {
            number: 3,
            target: format!("socket:[{inode}]").into(),
            kind: Kind::Socket { inode: *inode, protocol: (*protocol).to_owned() },
        });
        let opened = Opened {
            task: &task,
            descriptors: descriptors.collect(),
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        };
        judge(&[opened], sockets, &Names::test())
    }

    #[test]
    fn protocols_are_known_refused_or_guessed() {
        for good in KNOWN.iter().chain(&[""]) {
            assert_eq!(judged(&[(1, good)], &Sockets::default()), [], "{good}");
        }
        assert_eq!(judged(&[(1, "AF_VSOCK")], &Sockets::default())[0].severity, Severity::Blocker);
        assert_eq!(judged(&[(1, "NEW")], &Sockets::default())[0].severity, Severity::Warning);
        let mptcp = judged(&[(1, "MPTCP"), (1, "MPTCP")], &Sockets::default());
        assert!(mptcp.len() == 1 && mptcp[0].remedy.contains("GODEBUG=multipathtcp=0"));
    }

    #[test]
    fn the_other_end_of_a_connection_must_be_inside() {
        let peers = BTreeMap::from([(1, 2), (2, 1), (3, 9), (4, 8)]);
        let sockets = Sockets {
            peers,
            holders: BTreeMap::from([(9, (77, "sshd".into()))]),
            ..Sockets::default()
        };
        let found =
            judged(&[(1, "UNIX"), (2, "UNIX"), (3, "UNIX"), (4, "UNIX"), (5, "UNIX")], &sockets);
        assert_eq!(
            found.iter().map(|f| f.severity).collect::<Vec<_>>(),
            [Severity::Blocker, Severity::Warning]
        );
        assert!(found[0].what.contains("process 77 (sshd)"));
    }

    #[test]
    fn streams_that_init_was_started_with_have_a_remedy_of_their_own() {
        let init = Task { pid_inside: 1, ..task(105, "init") };
        let socket = |number| Descriptor {
            number,
            target: "socket:[3]".into(),
            kind: Kind::Socket { inode: 3, protocol: "UNIX-STREAM".into() },
        };
        let holders = BTreeMap::from([(9, (43, "systemd-journal".into()))]);
        let sockets = Sockets { peers: BTreeMap::from([(3, 9)]), holders, ..Sockets::default() };
        let opened = Opened {
            task: &init,
            descriptors: vec![socket(1), socket(2)],
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        };
        let found = judge(&[opened], &sockets, &Names::test());
        assert_eq!(
            (found.len(), found[0].severity, found[0].place.descriptor),
            (1, Severity::Blocker, Some(1))
        );
        assert!(
            found[0].what.contains("its standard output")
                && found[0].what.contains("43 (systemd-journal)")
        );
        assert!(
            found[0].remedy.contains("'/etc/systemd/system/lxc@web.service.d'"),
            "{}",
            found[0].remedy
        );
    }

    #[test]
    fn what_passes_by_itself_is_a_warning() {
        let sockets = Sockets { unread: [1].into(), waiting: [2].into(), ..Sockets::default() };
        let found = judged(&[(1, "NETLINK"), (2, "TCP"), (3, "TCP")], &sockets);
        assert_eq!(found.iter().map(|f| f.severity).collect::<Vec<_>>(), [Severity::Warning; 2]);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let tcp6 = |address: &str, state: &str| {
            let tail = "0000:1B5F 00000000:00000000 00:00000000 00000000     0        0 15862 1 0";
            let tail = tail.replace(" 00000000:00000000", &format!(" {state} 00000000:00000000"));
            link_local_line(&format!("   0: {address}:1B5F {tail}"))
        };
        let fe80 = "000080FE00000000FF3BF13CE853D1FE";
        assert_eq!(tcp6(fe80, "01"), Some(15862));
        assert_eq!(tcp6(fe80, "0A"), None);
        assert_eq!(tcp6("990000FD000000000000000008000000", "01"), None);

        let netlink = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    \
                       Drops    Inode";
        assert_eq!(unread_line(netlink), None);
        assert_eq!(
            unread_line(
                "000000004f7a58e3 0   1          00000111 0        0        0     2        0   \
                 15861"
            ),
            None
        );
        assert_eq!(
            unread_line(
                "000000004f7a58e3 0   1          00000111 212992   0        0     2        0   \
                 15861"
            ),
            Some(15861)
        );
    }
}
