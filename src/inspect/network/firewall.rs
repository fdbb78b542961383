//! Firewalls: nftables object by object, as the kernel keeps them (the rules of iptables-nft with
//! their extensions among them), the tables of the old iptables, and the sets of ipset.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::attributes::{Names, Shape};
use super::reader::{Reader, part};
use crate::inspect::compare::plain;
use crate::inspect::state::{Class, PutBack, State, states};
use crate::sys::child;
use crate::sys::netlink::raw::{self, Message, Protocol, Socket};
use crate::sys::spawn::SAFE_PATH;

/// How long a program may take to list its rules.
const LIMIT: Duration = Duration::from_secs(20);

states! { rows;
    TABLE = "nftables.table", PutBack::Criu, Class::Weakens,
        "a table of the firewall is missing, or dormant";
    CHAIN = "nftables.chain", PutBack::Criu, Class::Weakens,
        "a chain of the firewall is missing, is called elsewhere, or has another policy";
    RULE = "nftables.rule", PutBack::Criu, Class::Weakens,
        "a rule of the firewall is missing, or is for other packets";
    SET = "nftables.set", PutBack::Criu, Class::Weakens,
        "a set of the firewall is missing, or is of another kind";
    ELEMENT = "nftables.element", PutBack::Criu, Class::Weakens,
        "an address is no longer allowed or forbidden";
    OBJECT = "nftables.object", PutBack::Criu, Class::Breaks,
        "a counter, quota or limit that rules share is missing";
    FLOW_TABLE = "nftables.flowtable", PutBack::Criu, Class::Bearable,
        "packets take the slow path";
    LEGACY = "iptables.legacy", PutBack::Criu, Class::Weakens,
        "a rule of the old iptables is missing, or is for other packets";
    LEGACY6 = "ip6tables.legacy", PutBack::Criu, Class::Weakens,
        "a rule of the old ip6tables is missing, or is for other packets";
    ARP_TABLES = "arptables.legacy", PutBack::Cannot("CRIU does not save them"), Class::Weakens,
        "a rule for ARP is missing";
    BRIDGE_TABLES = "ebtables.legacy", PutBack::Cannot("CRIU does not save them"), Class::Weakens,
        "a rule of a bridge inside is missing";
    IP_SET = "ipset.set", PutBack::Cannot("CRIU does not save sets of ipset"), Class::Weakens,
        "a set of addresses that rules use is missing, or has other members";
}

/// Subsystems of nfnetlink (linux/netfilter/nfnetlink.h).
const NFTABLES: u16 = 10;
const IPSET: u16 = 6;
/// The size of `nfgenmsg`.
const HEADER: usize = 4;
/// Questions of nftables (linux/netfilter/nf_tables.h).
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENT: u16 = 13;
const GET_OBJECT: u16 = 19;
const GET_FLOW_TABLE: u16 = 23;
/// Of `ipset`: the question, the version, and what is answered.
const IPSET_LIST: u16 = 7;
const IPSET_PROTOCOL: u16 = 1;
const IPSET_VERSION: u8 = 6;
/// Members that count down: `IPSET_ATTR_ADT`, `IPSET_ATTR_DATA`, and in the latter references and
/// size of memory.
const IPSET_NAME: u16 = 2;
const IPSET_DATA: u16 = 7;
const IPSET_PASSING: [u16; 3] = [25, 26, 27];

/// What a kind of object of nftables is named by, and which of its attributes pass: handles,
/// numbers of uses, counters.
struct Kind {
    question: u16,
    state: &'static State,
    word: &'static str,
    name: &'static [u16],
    passing: &'static [u16],
}

const KINDS: [Kind; 4] = [
    Kind { question: GET_TABLE, state: &TABLE, word: "table", name: &[1], passing: &[3, 4, 7] },
    Kind {
        question: GET_CHAIN,
        state: &CHAIN,
        word: "chain",
        name: &[1, 3],
        passing: &[2, 6, 8, 9, 11],
    },
    Kind {
        question: GET_OBJECT,
        state: &OBJECT,
        word: "object",
        name: &[1, 2],
        passing: &[5, 6, 7],
    },
    Kind {
        question: GET_FLOW_TABLE,
        state: &FLOW_TABLE,
        word: "flowtable",
        name: &[1, 2],
        passing: &[4, 5, 6],
    },
];
/// Of a rule: its chain, expressions, data of the user; handle, position and id pass.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_PASSING: [u16; 5] = [3, 6, 8, 9, 10];
/// Of a set: its name, flags; id, handle, padding pass, and the number of its elements.
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_PASSING: [u16; 6] = [10, 14, 15, 16, 19, 20];
/// `NFT_SET_ANONYMOUS`: the kernel numbers those anew.
const ANONYMOUS: u32 = 1;
/// Of an element: when it goes, and what it counts.
const ELEMENT_PASSING: [u16; 4] = [5, 7, 8, 10];
/// Within an expression: its name and its data; and the one that names a set.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const LOOKUP: &[u8] = b"lookup";

/// Names of tables that the old tools have, and the programs that show them.
const OLD: [(&str, &str, &State); 2] = [
    ("ip_tables_names", "iptables-legacy-save", &LEGACY),
    ("ip6_tables_names", "ip6tables-legacy-save", &LEGACY6),
];
/// The same by other programs, of which there is only the kernel's word that there is a table.
const OLDER: [(&str, &State); 1] = [("arp_tables_names", &ARP_TABLES)];

/// Enters them.
pub(super) fn read(reader: &mut Reader<'_>) {
    match Socket::open(Protocol::Netfilter) {
        Ok(mut socket) => {
            nftables(&mut socket, reader);
            ipset(&mut socket, reader);
        }
        Err(e) => {
            let subject = reader.subject("nftables");
            reader.snapshot.miss(subject, &TABLE, e);
        }
    }
    for (names, program, state) in OLD {
        legacy(names, program, state, reader);
    }
    for (names, state) in OLDER {
        if let Ok(tables) = table_names(names)
            && !tables.is_empty()
        {
            let subject = reader.subject("arptables");
            reader.snapshot.enter(subject, state, tables);
        }
    }
}

fn question(command: u16) -> Message {
    Message::new(NFTABLES << 8 | command, [0; HEADER])
}

fn nftables(socket: &mut Socket, reader: &mut Reader<'_>) {
    for kind in &KINDS {
        let found = socket.dump(&question(kind.question));
        for object in reader.known(found, "nftables", kind.state) {
            let names = kind.name.iter().map(|name| text(object.attribute(HEADER, *name)));
            let names: Vec<String> = names.collect();
            let subject =
                reader.subject(&part(&["nftables", family(&object), &names.join(" "), kind.word]));
            let value = quiet(&object, kind.passing);
            reader.snapshot.enter(subject, kind.state, value);
        }
    }
    let found = socket.dump(&question(GET_RULE));
    for rule in reader.known(found, "nftables", &RULE) {
        let place =
            [text(rule.attribute(HEADER, 1)), text(rule.attribute(HEADER, RULE_CHAIN))].join(" ");
        let subject = reader.subject(&part(&["nftables", family(&rule), &place]));
        reader.snapshot.enter(subject, &RULE, rule_in_words(&rule));
    }
    let found = socket.dump(&question(GET_SET));
    for set in reader.known(found, "nftables", &SET) {
        let (table, name) = (text(set.attribute(HEADER, 1)), text(set.attribute(HEADER, SET_NAME)));
        let anonymous =
            set.attribute(HEADER, SET_FLAGS).and_then(network_number).unwrap_or_default()
                & ANONYMOUS
                != 0;
        let shown = if anonymous { "anonymous".to_owned() } else { name };
        let subject = reader.subject(&part(&["nftables", family(&set), &table, "set", &shown]));
        let mut passing = SET_PASSING.to_vec();
        if anonymous {
            passing.push(SET_NAME);
        }
        reader.snapshot.enter(subject.clone(), &SET, quiet(&set, &passing));
        elements(socket, &set, subject, reader);
    }
}

fn network_number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

fn family(object: &Message) -> &'static str {
    match object.byte(0) {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "other",
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    Shape::Text.write(bytes.unwrap_or_default(), &Names::new())
}

/// An object without what passes.
fn quiet(object: &Message, passing: &[u16]) -> String {
    let kept = object.attributes(HEADER).into_iter().filter(|(kind, _)| !passing.contains(kind));
    let kept =
        kept.map(|(kind, value)| format!("{kind}={}", Shape::Tree.write(value, &Names::new())));
    let mut kept: Vec<String> = kept.collect();
    kept.sort_unstable();
    kept.join(" ")
}

/// The expressions of a rule in their order, without what they count.
fn rule_in_words(rule: &Message) -> String {
    let list = rule.attribute(HEADER, RULE_EXPRESSIONS).map(raw::attributes).unwrap_or_default();
    let words = list.iter().map(|(_, expression)| expression_in_words(expression));
    let mut words: Vec<String> = words.collect();
    let others = rule.attributes(HEADER).into_iter().filter(|(kind, _)| {
        !RULE_PASSING.contains(kind) && ![1, RULE_CHAIN, RULE_EXPRESSIONS].contains(kind)
    });
    words.extend(
        others.map(|(kind, value)| format!("{kind}={}", Shape::Tree.write(value, &Names::new()))),
    );
    words.join(", ")
}

fn expression_in_words(expression: &[u8]) -> String {
    let name = raw::attribute(expression, EXPRESSION_NAME).unwrap_or_default();
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    let data = raw::attribute(expression, EXPRESSION_DATA).unwrap_or_default();
    let passing: &[u16] = match name {
        b"counter" => &[1, 2],
        b"quota" => &[3, 4],
        b"last" => &[1, 2],
        // The name of an anonymous set, and its number.
        LOOKUP => &[1, 4],
        _ => &[],
    };
    let kept = raw::changed(data, |kind, value| (!passing.contains(&kind)).then(|| value.to_vec()));
    format!("{} {}", plain(name), Shape::Tree.write(&kept, &Names::new()))
}

/// The elements of a set, in no order of their own.
fn elements(
    socket: &mut Socket,
    set: &Message,
    subject: crate::inspect::snapshot::Subject,
    reader: &mut Reader<'_>,
) {
    let mut wanted = Message::new(NFTABLES << 8 | GET_ELEMENT, [set.byte(0), 0, 0, 0]);
    wanted.push(1, set.attribute(HEADER, 1).unwrap_or_default());
    wanted.push(2, set.attribute(HEADER, SET_NAME).unwrap_or_default());
    let found = socket.dump(&wanted);
    let mut all: Vec<String> = Vec::new();
    for answer in reader.known(found, "nftables", &ELEMENT) {
        let list = answer.attribute(HEADER, 3).map(raw::attributes).unwrap_or_default();
        all.extend(list.iter().map(|(_, element)| {
            let kept = raw::changed(element, |kind, v| {
                (!ELEMENT_PASSING.contains(&kind)).then(|| v.to_vec())
            });
            Shape::Tree.write(&kept, &Names::new())
        }));
    }
    all.sort_unstable();
    reader.snapshot.enter(subject, &ELEMENT, all.join("\n"));
}

fn ipset(socket: &mut Socket, reader: &mut Reader<'_>) {
    let mut wanted = Message::new(IPSET << 8 | IPSET_LIST, [0; HEADER]);
    wanted.push(IPSET_PROTOCOL, &[IPSET_VERSION]);
    let found = socket.dump(&wanted);
    for set in reader.known(found, "ipset", &IP_SET) {
        let subject = reader.subject(&part(&["ipset", &text(set.attribute(HEADER, IPSET_NAME))]));
        let words = set.attributes(HEADER).into_iter().map(|(kind, value)| match kind {
            IPSET_DATA => {
                let kept =
                    raw::changed(value, |k, v| (!IPSET_PASSING.contains(&k)).then(|| v.to_vec()));
                format!("{kind}={}", Shape::Tree.write(&kept, &Names::new()))
            }
            _ => format!("{kind}={}", Shape::Tree.write(value, &Names::new())),
        });
        let words: Vec<String> = words.collect();
        reader.snapshot.enter(subject, &IP_SET, words.join(" "));
    }
}

/// The tables of this thread's network namespace, of which the kernel tells the names.
fn table_names(file: &str) -> io::Result<String> {
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        names => Ok(names?.split_ascii_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

fn legacy(names: &str, program: &str, state: &'static State, reader: &mut Reader<'_>) {
    let subject = reader.subject(program.trim_end_matches("-legacy-save"));
    let told = match table_names(names) {
        Ok(names) if names.is_empty() => return,
        Ok(_) => run(program),
        Err(e) => Err(e),
    };
    match told {
        Ok(text) => {
            // Comments name the time. Counters stand in brackets behind the policies of chains.
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let lines = lines.map(|line| match line.strip_prefix(':') {
                Some(chain) => plain(chain.split(" [").next().unwrap_or(chain).as_bytes()),
                None => plain(line.as_bytes()),
            });
            reader.snapshot.enter(subject, state, lines.collect::<Vec<_>>().join("\n"));
        }
        Err(e) => reader.snapshot.miss(subject, state, format!("{program}: {e}")),
    }
}

/// Runs a program in this thread's network namespace, which its child inherits.
fn run(program: &str) -> io::Result<String> {
    let directories = SAFE_PATH.split(':').map(|dir| std::path::Path::new(dir).join(program));
    let path =
        directories.into_iter().find(|path| path.is_file()).ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    let output = child::run(&mut command, LIMIT)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(io::Error::other(plain(output.stderr.trim().as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(name: &[u8], data: &[(u16, &[u8])]) -> Vec<u8> {
        let (mut within, mut made) = (Vec::new(), Vec::new());
        data.iter().for_each(|(kind, value)| raw::push(&mut within, *kind, value));
        raw::push(&mut made, EXPRESSION_NAME, name);
        raw::push(&mut made, EXPRESSION_DATA, &within);
        made
    }

    #[test]
    fn what_a_rule_counts_is_no_part_of_it() {
        let counter = |packets: u8| expression(b"counter\0", &[(1, &[0; 8]), (2, &[packets; 8])]);
        assert_eq!(expression_in_words(&counter(1)), expression_in_words(&counter(9)));
        let mark = |to: u8| expression(b"meta\0", &[(1, &[0, 0, 0, to])]);
        assert_ne!(expression_in_words(&mark(1)), expression_in_words(&mark(2)));
    }
}
