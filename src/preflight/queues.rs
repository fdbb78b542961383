//! Sockets through which something waits: requests to a unix socket, packets that the kernel hands
//! to a program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::descriptor::{Kind, Opened};
use super::finding::{Finding, Place};
use super::task::{Task, Tasks, end};
use crate::sys::namespace;
use crate::sys::netlink::{in_netns, unix_requests};

/// The protocol of netlink that nfnetlink has.
const NETLINK_NETFILTER: u64 = 12;
/// Where the kernel lists who receives packets, and how a user calls it.
const RECEIVERS: [(&str, &str); 2] = [("nfnetlink_queue", "NFQUEUE"), ("nfnetlink_log", "NFLOG")];

/// What waits, by the inode of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// Listening unix sockets with a request that no process has accepted.
    pub requests: BTreeSet<u64>,
    /// Netlink sockets that receive packets: by which target of a rule.
    pub packets: BTreeMap<u64, &'static str>,
}

impl Queues {
    /// Asks the kernel, in each network namespace of the container.
    pub(crate) fn read(tasks: &Tasks) -> Result<Queues> {
        let mut queues = Queues::default();
        for task in tasks.one_of_each("net") {
            let table = |name: &str| {
                fs::read_to_string(format!("/proc/{}/net/{name}", task.pid)).unwrap_or_default()
            };
            let sockets = table("netlink");
            for (list, target) in RECEIVERS {
                let ports = ports(&table(&format!("netfilter/{list}")));
                queues.packets.extend(netfilter(&sockets, &ports).map(|inode| (inode, target)));
            }
            let Ok(netns) = namespace::network_of(task.pid) else { continue };
            let requests = in_netns(netns.as_fd(), unix_requests)
                .context("enter the container's network namespace")?;
            // CRIU cannot do without this list either, and says so better.
            let requests =
                requests.inspect_err(|e| log::debug!("list unix sockets: {e}")).unwrap_or_default();
            queues.requests.extend(requests.into_iter().map(u64::from));
        }
        Ok(queues)
    }
}

/// Who receives: the second column is the number of a netlink socket.
fn ports(list: &str) -> BTreeSet<u32> {
    list.lines().filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()).collect()
}

/// The inodes of those sockets of nfnetlink; the second column is the protocol, the third the
/// number, the last the inode.
fn netfilter(sockets: &str, ports: &BTreeSet<u32>) -> impl Iterator<Item = u64> {
    sockets.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_netfilter = words.get(1)?.parse() == Ok(NETLINK_NETFILTER);
        let receives = ports.contains(&words.get(2)?.parse().ok()?);
        if is_netfilter && receives { words.last()?.parse().ok() } else { None }
    })
}

/// Judges them; pure.
pub(crate) fn judge(opened: &[Opened<'_>], queues: &Queues) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for Opened { task, descriptors, .. } in opened {
        for descriptor in descriptors {
            let Kind::Socket { inode, .. } = descriptor.kind else { continue };
            let place = Place { file: Some(descriptor.target.clone()), ..task.place() };
            // Processes share sockets: the first that has it is named.
            if !told.insert(inode) {
                continue;
            }
            found.extend(queues.requests.contains(&inode).then(|| request(task).at(place.clone())));
            found.extend(queues.packets.get(&inode).map(|target| packets(task, target).at(place)));
        }
    }
    found
}

/// sk-queue.c, sk-unix.c: the data of a connection that has no second end yet.
fn request(task: &Task) -> Finding {
    Finding::warning(
        format!("{} has not yet accepted a request at its unix socket", task.name()),
        "CRIU cannot dump what was sent before a connection is accepted; a checkpoint tries three \
         times",
    )
    .remedy(format!(
        "if it stays so, the process is busy or hangs: give it more workers, restart it, or {}",
        end(task)
    ))
}

/// sk-netlink.c does not know what the socket was told of queues.
fn packets(task: &Task, target: &str) -> Finding {
    Finding::blocker(
        format!("{} receives packets from rules of the firewall ({target})", task.name()),
        "CRIU restores its socket, but not that packets come there: they would be lost",
    )
    .on_restore()
    .remedy(end(task))
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::finding::{Fails, Severity};
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn receivers_are_found_by_the_number_of_their_socket() {
        let list = "    5   4242     0 2 65531     0     0        0  1\n";
        assert_eq!(ports(list), [4242].into());
        let sockets = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    \
                       Drops    Inode\n000000004f7a58e3 12  4242       00000000 0        0        \
                       0     2        0        15861\n000000004f7a58e4 12  4243       00000000 \
                       0        0        0     2        0        15862\n000000004f7a58e5 0   \
                       4242       00000000 0        0        0     2        0        15863\n";
        assert_eq!(netfilter(sockets, &[4242].into()).collect::<Vec<_>>(), [15861]);
    }

    #[test]
    fn a_request_may_pass_and_packets_do_not() {
        let socket = |inode| Descriptor {
            number: 3,
            target: format!("socket:[{inode}]").into(),
            kind: Kind::Socket { inode, protocol: "UNIX".to_owned() },
        };
        let fpm = task(105, "php-fpm");
        let descriptors = vec![socket(1), socket(2), socket(3)];
        let opened = Opened {
            task: &fpm,
            descriptors,
            mapped: Vec::new(),
            shared_code: None,
            program: None,
        };
        let queues = Queues { requests: [1].into(), packets: [(2, "NFQUEUE")].into() };
        let found = judge(&[opened.clone(), opened], &queues);
        let told: Vec<_> = found.iter().map(|f| (f.severity, f.fails)).collect();
        assert_eq!(told, [(Severity::Warning, Fails::Dump), (Severity::Blocker, Fails::Restore)]);
    }
}
