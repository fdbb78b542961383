//! Settings below /proc/sys/net, and the multicast groups that links listen to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::attributes::{Names, Shape};
use super::reader::{Reader, part};
use crate::inspect::compare::plain;
use crate::inspect::state::{Class, PutBack, State, states};

states! { rows;
    CORE = "sysctl.core", PutBack::Us, Class::Breaks,
        "limits of sockets and queues are others";
    IPV4 = "sysctl.ipv4", PutBack::Us, Class::Breaks,
        "IPv4, TCP or UDP work in another way";
    IPV4_LINK = "sysctl.ipv4-interface", PutBack::Us, Class::Weakens,
        "an interface forwards or takes packets that it did not, or the other way round";
    IPV4_NEIGHBOUR = "sysctl.ipv4-neighbour", PutBack::Us, Class::Bearable,
        "neighbours are looked for in another way";
    IPV6 = "sysctl.ipv6", PutBack::Us, Class::Breaks,
        "IPv6 works in another way";
    IPV6_LINK = "sysctl.ipv6-interface", PutBack::Us, Class::Weakens,
        "an interface forwards, or believes router advertisements, as it did not";
    IPV6_NEIGHBOUR = "sysctl.ipv6-neighbour", PutBack::Us, Class::Bearable,
        "neighbours are looked for in another way";
    NETFILTER = "sysctl.netfilter", PutBack::Us, Class::Weakens,
        "connections are tracked in another way";
    UNIX = "sysctl.unix", PutBack::Us, Class::Bearable,
        "more or fewer datagrams may wait";
    MPTCP = "sysctl.mptcp", PutBack::Us, Class::Breaks,
        "multipath TCP works in another way";
    SYSCTL_OTHER = "sysctl.other", PutBack::Us, Class::Breaks,
        "another protocol works in another way";

    GROUPS = "multicast.ipv4", PutBack::Us, Class::Breaks,
        "packets to a multicast group do not arrive";
    GROUPS6 = "multicast.ipv6", PutBack::Us, Class::Breaks,
        "packets to a multicast group of IPv6 do not arrive";
    LINK_GROUPS = "multicast.link", PutBack::Us, Class::Breaks,
        "frames to a multicast address do not arrive";
    ANYCAST = "multicast.anycast", PutBack::Cannot("CRIU does not save them"), Class::Breaks,
        "the container does not answer for an anycast address";
}

const BASE: &str = "/proc/sys/net";
/// Rows by the beginning of the name; the first that fits.
const PREFIXES: [(&str, &State); 9] = [
    ("core/", &CORE),
    ("ipv4/conf/", &IPV4_LINK),
    ("ipv4/neigh/", &IPV4_NEIGHBOUR),
    ("ipv4/", &IPV4),
    ("ipv6/conf/", &IPV6_LINK),
    ("ipv6/neigh/", &IPV6_NEIGHBOUR),
    ("ipv6/", &IPV6),
    ("netfilter/", &NETFILTER),
    ("unix/", &UNIX),
];
const MPTCP_PREFIX: &str = "mptcp/";
/// Settings that nobody may read: their checksums are compared.
const SECRETS: [&str; 2] = ["tcp_fastopen_key", "stable_secret"];

/// Enters them.
pub(super) fn read(reader: &mut Reader<'_>) {
    if let Err(e) = below(Path::new(BASE), reader) {
        let subject = reader.subject("sysctl");
        reader.snapshot.miss(subject, &SYSCTL_OTHER, e);
    }
    groups("igmp", &GROUPS, igmp, reader);
    groups("igmp6", &GROUPS6, columns::<1, 2>, reader);
    groups("dev_mcast", &LINK_GROUPS, columns::<1, 4>, reader);
    groups("anycast6", &ANYCAST, columns::<1, 2>, reader);
}

/// Settings that can be set in this thread's network namespace; the others are the host's.
fn below(dir: &Path, reader: &mut Reader<'_>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            below(&path, reader)?;
            continue;
        }
        let Ok(name) = path.strip_prefix(BASE) else { continue };
        let name = name.to_string_lossy().into_owned();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.mode() & 0o600 != 0o600 {
            continue;
        }
        let state = state_of(&name);
        let subject = reader.subject(&part(&["sysctl", &plain(name.as_bytes())]));
        match fs::read(&path) {
            Ok(value) if SECRETS.iter().any(|secret| name.ends_with(secret)) => {
                let sum = Shape::Secret.write(&value, &Names::new());
                reader.snapshot.enter(subject, state, sum);
            }
            Ok(value) => {
                let value = String::from_utf8_lossy(&value);
                let words: Vec<&str> = value.split_ascii_whitespace().collect();
                reader.snapshot.enter(subject, state, plain(words.join(" ").as_bytes()));
            }
            // One that was never set has no value.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {}
            Err(e) => reader.snapshot.miss(subject, state, e),
        }
    }
    Ok(())
}

fn state_of(name: &str) -> &'static State {
    match PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, state)) => state,
        None if name.starts_with(MPTCP_PREFIX) => &MPTCP,
        None => &SYSCTL_OTHER,
    }
}

/// Links with groups, from a table of this thread's network namespace.
fn groups(
    file: &str,
    state: &'static State,
    parse: fn(&str) -> Vec<(String, String)>,
    reader: &mut Reader<'_>,
) {
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Ok(table) => {
            let mut found = parse(&table);
            found.sort_unstable();
            for (link, group) in found.into_iter().filter(|(_, group)| !is_of_address(group)) {
                let subject = reader.subject(&plain(link.as_bytes()));
                reader.snapshot.enter(subject, state, plain(group.as_bytes()));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            let subject = reader.subject("multicast");
            reader.snapshot.miss(subject, state, e);
        }
    }
}

/// Whether the kernel listens to a group only to be found by one of its addresses (RFC 4291,
/// solicited-node).
fn is_of_address(group: &str) -> bool {
    group.starts_with("ff0200000000000000000001ff") || group.starts_with("3333ff")
}

/// Lines in which these columns are the link and the group.
fn columns<const LINK: usize, const GROUP: usize>(table: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(((*words.get(LINK)?).to_owned(), (*words.get(GROUP)?).to_owned()))
    };
    table.lines().filter_map(line).collect()
}

/// /proc/net/igmp: a line for each link, "INDEX NAME : COUNT VERSION", then one for each group,
/// "GROUP USERS TIMER …".
fn igmp(table: &str) -> Vec<(String, String)> {
    let (mut link, mut found) = (String::new(), Vec::new());
    for line in table.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if line.starts_with(char::is_whitespace) {
            found.push((link.clone(), format!("{first} {}", words.next().unwrap_or_default())));
        } else {
            link = words.next().unwrap_or_default().to_owned();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_by_their_link() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        \
                     :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n2\teth0      :     \
                     2      V3\n\t\t\t\tFB0000E0     2 0:0\t0\n";
        let found: Vec<(String, String)> = igmp(table);
        assert_eq!(found[0], ("lo".to_owned(), "010000E0 1".to_owned()));
        assert_eq!(found[1], ("eth0".to_owned(), "FB0000E0 2".to_owned()));
        let six = columns::<1, 2>("1 lo ff020001 1 0000000C 0\n");
        assert_eq!(six, [("lo".to_owned(), "ff020001".to_owned())]);
    }

    #[test]
    fn settings_have_the_row_of_their_protocol() {
        assert_eq!(state_of("ipv4/conf/eth0/forwarding").name, "sysctl.ipv4-interface");
        assert_eq!(state_of("ipv4/tcp_mem").name, "sysctl.ipv4");
        assert_eq!(state_of("mptcp/enabled").name, "sysctl.mptcp");
        assert_eq!(state_of("sctp/x").name, "sysctl.other");
    }
}
