//! DropFilter: programs that drop whatever arrives at an interface in the container, for interfaces
//! that are on no bridge from which they could be taken (macvlan, interfaces of the host, veth
//! pairs whose host's end has addresses and routes), and for those that a script of the user's puts
//! on its bridge before the container is whole.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::ErrorList;
use crate::resources::network::namespace_of;
use crate::sys::bpf;
use crate::sys::netlink::{Error, Netlink, in_netns};
use crate::sys::process::Process;

/// DropFilter in a container that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DropFilter {
    /// The container's init.
    pub init: i32,
    /// When that was started, as the kernel counts: another one has no gates.
    pub start_time: u64,
    /// The names of the interfaces in the container.
    pub interfaces: Vec<String>,
}

impl DropFilter {
    /// Those of these interfaces; none if there is none.
    pub(crate) fn of(interfaces: Vec<String>, init: &Process) -> Option<DropFilter> {
        (!interfaces.is_empty()).then(|| DropFilter {
            init: init.pid(),
            start_time: init.start_time(),
            interfaces,
        })
    }

    /// Closes them.
    pub(crate) fn close(&self) -> Result<()> {
        let gate = make()?;
        match self.namespace()? {
            Some(namespace) => set_gates(&self.interfaces, namespace.as_fd(), Some(gate.as_fd())),
            None => Ok(()),
        }
    }

    /// Opens them; fine if the container is gone, and they with it.
    pub(crate) fn open(&self) -> Result<()> {
        match self.namespace()? {
            Some(namespace) => set_gates(&self.interfaces, namespace.as_fd(), None),
            None => Ok(()),
        }
    }

    fn namespace(&self) -> Result<Option<File>> {
        let Ok(init) = Process::reopen(self.init, self.start_time) else { return Ok(None) };
        let namespace = namespace_of(init.pid())?;
        // The number was still its own when the namespace was opened.
        Ok(namespace.filter(|_| init.is_alive()))
    }
}

/// A gate, to be set at any number of interfaces.
pub(crate) fn make() -> Result<OwnedFd> {
    bpf::load_drop_all().context("make a gate for the container's interfaces (eBPF)")
}

/// Lets nothing reach these interfaces of a container.
///
/// # Errors
/// All that could not be closed.
pub(crate) fn close(interfaces: &[String], container: BorrowedFd<'_>) -> Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let gate = make()?;
    set_gates(interfaces, container, Some(gate.as_fd()))
}

/// Lets packets reach them.
///
/// # Errors
/// All that could not be opened.
pub(crate) fn open(interfaces: &[String], container: BorrowedFd<'_>) -> Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    set_gates(interfaces, container, None)
}

fn set_gates(
    interfaces: &[String],
    container: BorrowedFd<'_>,
    gate: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut errors = ErrorList::default();
    let outcome = in_netns(container, || {
        let mut theirs = Netlink::open()?;
        for name in interfaces {
            let set = match theirs.link(name) {
                // The container has deleted it.
                Err(Error::NotFound) => Ok(()),
                found => found.and_then(|link| theirs.set_gate(link.index, gate)),
            };
            errors.note(set.with_context(|| format!("set the gate of {name}")));
        }
        Ok(())
    });
    errors.note(
        outcome
            .and_then(|done: Result<(), Error>| done)
            .context("set the gates of the container's interfaces"),
    );
    errors.into_result()
}
