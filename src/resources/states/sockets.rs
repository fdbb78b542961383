//! Options of sockets. CRIU (4.2, sockets.c and sk-inet.c) saves some thirty of them; of the others
//! a restored socket has what a new one has.
//!
//! What differs from a new socket is recorded while all tasks stand still, and set when the sockets
//! are restored and before packets reach them: an option that guards a socket guards it all the
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::resources::cgroup;
use crate::resources::network::multicast::sockets as sockets_of;
use crate::sys::multicast;
use crate::sys::namespace;
use crate::sys::netlink::in_netns;
use crate::sys::process::{Process, number_inside};
use crate::sys::sockopt::{Kind, SocketOption};

/// A socket with options that a new one does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// A process that has it, by its number in the container.
    pub pid: i32,
    /// Its number there.
    pub descriptor: i32,
    /// Their values by name: bytes as the kernel gives them, in hexadecimal.
    pub options: BTreeMap<String, String>,
}

/// Options by name.
type Options = BTreeMap<&'static str, Vec<u8>>;

/// The sockets of the tasks of a container that stands still, as far as they differ from new ones.
pub(crate) fn of_tasks(payload: &Path, init: i32) -> Result<Vec<Socket>> {
    let mut seen = BTreeSet::new();
    let mut sockets = Vec::new();
    for task in cgroup::tasks(payload)? {
        // What has ended has no sockets.
        let (Some(pid), Ok(process)) = (number_inside(task), Process::open(task)) else { continue };
        for (descriptor, inode) in sockets_of(task) {
            if !seen.insert(inode) {
                continue;
            }
            let socket = multicast::socket(&process, descriptor);
            let socket =
                socket.with_context(|| format!("read socket {descriptor} of process {task}"))?;
            let Some(kind) = socket.as_ref().and_then(|socket| Kind::of(socket).ok()) else {
                continue;
            };
            sockets.extend(socket.map(|socket| (pid, descriptor, kind, read(&socket, kind))));
        }
    }
    let netns = namespace::network_of(init).context("open the container's network namespace")?;
    let kinds: BTreeSet<Kind> = sockets.iter().map(|(_, _, kind, _)| *kind).collect();
    let new = in_netns(netns.as_fd(), || new_ones(&kinds))?;
    let differing = |(pid, descriptor, kind, options): (i32, i32, Kind, Options)| {
        let options = differing(options, new.get(&kind)?);
        (!options.is_empty()).then_some(Socket { pid, descriptor, options })
    };
    Ok(sockets.into_iter().filter_map(differing).collect())
}

/// Sets the options of the sockets of restored tasks, where they differ. Gives what could not be
/// set, in words.
///
/// # Errors
/// When that is an option that guards its socket.
pub(crate) fn restore(payload: &Path, sockets: &[Socket]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if sockets.is_empty() {
        return Ok(notes);
    }
    for task in cgroup::tasks(payload)? {
        let Some(inside) = number_inside(task) else { continue };
        for socket in sockets.iter().filter(|socket| socket.pid == inside) {
            let what = || format!("restore socket {} of process {inside}", socket.descriptor);
            let missed = restore_one(task, socket).with_context(what)?;
            notes.extend(missed.into_iter().map(|missed| format!("{}: {missed}", what())));
        }
    }
    Ok(notes)
}

fn restore_one(task: i32, wanted: &Socket) -> Result<Vec<String>> {
    let socket =
        multicast::socket(&Process::open(task)?, wanted.descriptor)?.context("it is not there")?;
    let mut missed = Vec::new();
    // In the table's order, for some options set others.
    for option in Kind::of(&socket)?.options() {
        let Some(value) = wanted.options.get(option.name) else { continue };
        match restore_option(&socket, option, value).with_context(|| format!("set {}", option.name))
        {
            Err(e) if option.guards() => return Err(e),
            Err(e) => missed.push(format!("{e:#}")),
            Ok(()) => {}
        }
    }
    let unknown = wanted.options.keys().filter(|name| SocketOption::named(name).is_none());
    missed.extend(unknown.map(|name| format!("the option {name} is not known to this program")));
    Ok(missed)
}

fn restore_option(socket: &OwnedFd, option: &SocketOption, value: &str) -> Result<()> {
    let value = from_hexadecimal(value).context("its value is not one")?;
    if option.read(socket).is_some_and(|now| now == value) {
        return Ok(());
    }
    Ok(option.set(socket, &value)?)
}

/// What new sockets of these kinds have, in the network namespace of this thread.
fn new_ones(kinds: &BTreeSet<Kind>) -> BTreeMap<Kind, Options> {
    kinds.iter().filter_map(|kind| Some((*kind, read(&kind.open().ok()?, *kind)))).collect()
}

fn read(socket: &OwnedFd, kind: Kind) -> Options {
    kind.options().filter_map(|option| Some((option.name, option.read(socket)?))).collect()
}

/// The options that differ from those of a new socket, for the record. Pure.
fn differing(options: Options, new: &Options) -> BTreeMap<String, String> {
    let differs = |(name, value): &(&'static str, Vec<u8>)| new.get(name) != Some(value);
    let differing = options.into_iter().filter(differs);
    differing.map(|(name, value)| (name.to_owned(), to_hexadecimal(&value))).collect()
}

fn to_hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_new_socket_does_not_have_is_recorded() {
        let new = Options::from([("IP_TTL", vec![64, 0, 0, 0]), ("IP_TOS", vec![0; 4])]);
        let socket = Options::from([
            ("IP_TTL", vec![33, 0, 0, 0]),
            ("IP_TOS", vec![0; 4]),
            ("IP_OPTIONS", vec![7]),
        ]);
        let found = differing(socket, &new);
        let expected = [("IP_OPTIONS", "07"), ("IP_TTL", "21000000")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        for bytes in [&[][..], &[0, 255, 16]] {
            assert_eq!(from_hexadecimal(&to_hexadecimal(bytes)).as_deref(), Some(bytes));
        }
        for wrong in ["0", "zz", "é"] {
            assert_eq!(from_hexadecimal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_socket_gets_what_was_recorded() {
        let udp = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let (before, after) = (udp(), udp());
        let ttl = SocketOption::named("IP_TTL").unwrap();
        ttl.set(&before, &33i32.to_ne_bytes()).unwrap();
        let kind = Kind::of(&before).unwrap();
        let recorded = differing(read(&before, kind), &new_ones(&[kind].into())[&kind]);
        assert_eq!(recorded.keys().collect::<Vec<_>>(), ["IP_TTL"]);
        restore_option(&after, ttl, &recorded["IP_TTL"]).unwrap();
        assert_eq!(ttl.read(&after), ttl.read(&before));
        assert!(restore_option(&after, ttl, "xx").is_err());
    }
}
