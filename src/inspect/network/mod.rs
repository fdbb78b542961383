//! The network namespaces, over netlink: interfaces, addresses, routes, rules, neighbours,
//! queueing, firewalls, tracked connections, IPsec, and the settings below /proc/sys/net.
//!
//! What the kernel tells in attributes is compared attribute by attribute ([`attributes`]), those
//! that this program does not know among them. Counters, timers and numbers of this boot are left
//! out, each where it is said why.

use std::os::fd::AsFd;

use super::distinct;
use super::family::Family;
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::State;
use crate::sys::netlink::in_netns;

use reader::Reader;

mod attributes;
mod connections;
mod firewall;
mod links;
mod queueing;
mod reader;
mod routes;
mod settings;

/// The family.
pub(crate) const FAMILY: Family = Family { name: "network", states: rows, read };

fn rows() -> Vec<&'static State> {
    let parts: [fn() -> Vec<&'static State>; 6] = [
        links::rows,
        routes::rows,
        queueing::rows,
        firewall::rows,
        connections::rows,
        settings::rows,
    ];
    parts.iter().flat_map(|rows| rows()).collect()
}

/// Enters each network namespace that is not ours.
pub(crate) fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let namespaces = match distinct::namespaces(standing, "net") {
        Ok(namespaces) => namespaces,
        Err(e) => return snapshot.miss(Subject::Container, &links::KIND, e),
    };
    for one in &namespaces {
        if let Err(e) = in_netns(one.namespace.as_fd(), || of_namespace(one.pid, snapshot)) {
            snapshot.miss(
                Subject::Network { pid: one.pid, part: "all".to_owned() },
                &links::KIND,
                e,
            );
        }
    }
}

/// Enters this thread's network namespace.
fn of_namespace(pid: i32, snapshot: &mut Snapshot) {
    let all = Subject::Network { pid, part: "all".to_owned() };
    let opened = Reader::open(pid, snapshot);
    match opened {
        Ok(mut reader) => {
            let links = links::list(&mut reader);
            reader.names = links::names(&links);
            links::read(&links, &mut reader);
            routes::read(&mut reader);
            queueing::read(&mut reader);
            firewall::read(&mut reader);
            connections::read(&mut reader);
            settings::read(&mut reader);
        }
        Err(e) => snapshot.miss(all, &links::KIND, e),
    }
}
