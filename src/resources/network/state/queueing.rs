//! How packets queue at a link: qdiscs, classes, filters with their actions (tc(8)).
//!
//! The kernel describes them in nearly the words in which it wants to be told. The differences are
//! here: of a qdisc of kind `htb` the version, of a policer the table that old kernels computed
//! from, of an action its number, which may be another one's by now.

use std::collections::BTreeSet;

use crate::sys::netlink::Error;
use crate::sys::netlink::raw::{self, EXCLUSIVE, Message, REPLACE, Socket, changed};

const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const GET_CLASS: u16 = 42;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// The size of `tcmsg`, and where it has index, handle, parent.
const HEADER: usize = 20;
const INDEX: usize = 4;
const HANDLE: usize = 8;
const PARENT: usize = 12;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS: u16 = 3;
const TCA_XSTATS: u16 = 4;
const TCA_RATE: u16 = 5;
const TCA_STATS2: u16 = 7;
const TCA_STAB: u16 = 8;
const TCA_HW_OFFLOAD: u16 = 12;
/// What counts, and is not told.
const COUNTERS: [u16; 6] = [TCA_STATS, TCA_XSTATS, TCA_RATE, TCA_STATS2, TCA_STAB, TCA_HW_OFFLOAD];
/// The ends of `ingress` and `clsact` at which filters hang.
const INGRESS_ENDS: [u32; 3] = [0xffff_0000, 0xffff_fff2, 0xffff_fff3];
const TCA_HTB_INIT: u16 = 2;
/// The version of `htb` that a program names; the kernel tells it with more digits.
const HTB_VERSION: u32 = 3;
/// Kinds whose classes somebody makes; those of the others come with the qdisc.
const WITH_CLASSES: [&str; 5] = ["htb", "hfsc", "drr", "qfq", "cbq"];
const NEW_CLASS: u16 = 40;
/// Of filters of kind `u32`: a table of hashes; the kernel makes the first of each list by itself,
/// and numbers it from here on.
const TCA_U32_DIVISOR: u16 = 4;
const TCA_U32_POLICE: u16 = 6;
const TCA_U32_ACT: u16 = 7;
const TCA_U32_PCNT: u16 = 9;
const FIRST_TABLE: u32 = 0x8000_0000;
/// Where each kind of filter has flags, and which of them somebody chooses: not in hardware, not in
/// software.
const FILTER_FLAGS: [(&str, u16); 4] = [("u32", 11), ("matchall", 3), ("flower", 22), ("bpf", 9)];
const CHOSEN_FLAGS: u32 = 3;
/// The lists of actions of `matchall`, `flower`, `basic`, `fw`, `bpf`.
const ACTIONS: [(&str, u16); 5] =
    [("matchall", 2), ("flower", 3), ("basic", 3), ("fw", 4), ("bpf", 1)];
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// The attribute in which a policer has its parameters, others theirs; both begin with the number
/// of the action.
const POLICER_PARAMETERS: u16 = 1;
const PARAMETERS: u16 = 2;
const POLICER_TABLE: u16 = 2;
const TABLE_SIZE: usize = 1024;

/// What these links have; what the kernel gives each by itself is left out.
pub(super) fn read(socket: &mut Socket, links: &[u32]) -> Result<Vec<Message>, Error> {
    let question = |kind, index: u32, parent: u32| {
        let mut message = Message::new(kind, [0; HEADER]);
        message.set_number(INDEX, index);
        message.set_number(PARENT, parent);
        message
    };
    let known = |found: Result<Vec<Message>, Error>| super::unless_unknown(found);
    let mut found = Vec::new();
    let chosen = |m: &Message| links.contains(&m.number(INDEX)) && m.number(HANDLE) != 0;
    let qdiscs: Vec<Message> =
        known(socket.dump(&question(GET_QDISC, 0, 0)))?.into_iter().filter(chosen).collect();
    for index in qdiscs.iter().map(|m| m.number(INDEX)).collect::<BTreeSet<_>>() {
        let own = qdiscs.iter().filter(|m| m.number(INDEX) == index);
        let classes = known(socket.dump(&question(GET_CLASS, index, 0)))?;
        let ends: BTreeSet<u32> =
            own.clone().map(|m| m.number(HANDLE)).chain(INGRESS_ENDS).collect();
        let ends = ends.into_iter().chain(classes.iter().map(|m| m.number(HANDLE)));
        let mut filters = Vec::new();
        for end in ends.collect::<BTreeSet<_>>() {
            filters.extend(known(socket.dump(&question(GET_FILTER, index, end)))?);
        }
        // A qdisc stands before what hangs on it.
        found.extend(own.cloned());
        found.extend(parents_first(
            classes.into_iter().filter(|m| m.number(INDEX) == index).collect(),
        ));
        found.extend(filters);
    }
    let quiet = |m: &Message| {
        m.changed(HEADER, |kind, value| (!COUNTERS.contains(&kind)).then(|| value.to_vec()))
    };
    let mut quiet: Vec<Message> = found.iter().map(quiet).collect();
    quiet.dedup();
    Ok(quiet)
}

/// Each class after its parent: of one whose parent is not there yet the kernel makes a root,
/// without a word.
fn parents_first(mut classes: Vec<Message>) -> Vec<Message> {
    let mut sorted: Vec<Message> = Vec::new();
    while !classes.is_empty() {
        let waits = |class: &Message, all: &[Message]| {
            all.iter().any(|m| m.number(HANDLE) == class.number(PARENT))
        };
        let (later, now): (Vec<_>, Vec<_>) =
            classes.iter().cloned().partition(|class| waits(class, &classes));
        if now.is_empty() {
            sorted.extend(later);
            return sorted;
        }
        sorted.extend(now);
        classes = later;
    }
    sorted
}

/// The kind of a qdisc, class or filter.
pub(super) fn kind(message: &Message) -> String {
    let kind = message.attribute(HEADER, TCA_KIND).unwrap_or_default();
    String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned()
}

/// Gives a link all of it; what needs another thing first is tried again after that.
pub(super) fn put_back(
    socket: &mut Socket,
    index: u32,
    queueing: &[Message],
    note: &mut dyn FnMut(&str, Result<(), Error>),
) {
    let mut left: Vec<Message> = queueing.iter().filter_map(tellable).collect();
    loop {
        let (before, mut refused) = (left.len(), Vec::new());
        left.retain(|message| {
            let outcome = add(socket, index, message);
            let stays = outcome.is_err();
            if stays {
                refused.push((what(message), outcome));
            }
            stays
        });
        if left.is_empty() || left.len() == before {
            refused.into_iter().for_each(|(what, outcome)| note(&what, outcome));
            return;
        }
    }
}

fn what(message: &Message) -> String {
    let word = match message.kind() {
        NEW_QDISC => "qdisc",
        NEW_FILTER => "filter",
        _ => "class",
    };
    format!("the {word} of the kind {}", kind(message))
}

fn add(socket: &mut Socket, index: u32, message: &Message) -> Result<(), Error> {
    match super::send(socket, index, message, EXCLUSIVE) {
        // A script may have made it, or the kernel another one by itself.
        Err(Error::Exists) => super::send(socket, index, message, REPLACE),
        other => other,
    }
}

/// As the kernel wants to be told; none for what comes by itself.
fn tellable(message: &Message) -> Option<Message> {
    let kind = kind(message);
    let options = message.attribute(HEADER, TCA_OPTIONS);
    if message.kind() == NEW_FILTER {
        let options = options?;
        let divisor = raw::attribute(options, TCA_U32_DIVISOR).and_then(raw::number_of);
        if kind == "u32" && divisor == Some(1) && message.number(HANDLE) >= FIRST_TABLE {
            return None;
        }
        return Some(with_options(message, &filter(&kind, options)));
    }
    if message.kind() == NEW_CLASS && !WITH_CLASSES.contains(&kind.as_str()) {
        return None;
    }
    match options {
        Some(options) if kind == "htb" && message.kind() == NEW_QDISC => {
            Some(with_options(message, &changed(options, |kind, value| Some(htb(kind, value)))))
        }
        _ => Some(message.clone()),
    }
}

fn with_options(message: &Message, options: &[u8]) -> Message {
    message.changed(HEADER, |kind, value| {
        Some(if kind == TCA_OPTIONS { options.to_vec() } else { value.to_vec() })
    })
}

fn htb(kind: u16, value: &[u8]) -> Vec<u8> {
    match value {
        [_, _, _, _, rest @ ..] if kind == TCA_HTB_INIT => {
            [&HTB_VERSION.to_ne_bytes(), rest].concat()
        }
        _ => value.to_vec(),
    }
}

fn filter(filter: &str, options: &[u8]) -> Vec<u8> {
    let flags = FILTER_FLAGS.iter().find(|(name, _)| *name == filter).map(|(_, flags)| *flags);
    let list = ACTIONS.iter().find(|(name, _)| *name == filter).map(|(_, list)| *list);
    changed(options, |kind, value| match (filter, kind) {
        ("u32", TCA_U32_PCNT) => None,
        ("u32", TCA_U32_POLICE) => Some(policer(value)),
        ("u32", TCA_U32_ACT) => Some(actions(value)),
        _ if list == Some(kind) => Some(actions(value)),
        _ if flags == Some(kind) => {
            Some((raw::number_of(value)? & CHOSEN_FLAGS).to_ne_bytes().to_vec())
        }
        _ => Some(value.to_vec()),
    })
}

/// A list of actions: each by its place in it.
fn actions(list: &[u8]) -> Vec<u8> {
    changed(list, |_, action| {
        let is_policer =
            raw::attribute(action, TCA_ACT_KIND).is_some_and(|kind| kind.starts_with(b"police"));
        Some(changed(action, |kind, value| match kind {
            TCA_ACT_KIND => Some(value.to_vec()),
            TCA_ACT_OPTIONS if is_policer => Some(policer(value)),
            TCA_ACT_OPTIONS => Some(changed(value, |kind, value| {
                Some(if kind == PARAMETERS { numberless(value) } else { value.to_vec() })
            })),
            // Counters, and where it was put in hardware.
            _ => None,
        }))
    })
}

fn policer(options: &[u8]) -> Vec<u8> {
    let mut told = changed(options, |kind, value| match kind {
        POLICER_PARAMETERS => Some(numberless(value)),
        POLICER_TABLE => None,
        _ => Some(value.to_vec()),
    });
    raw::push(&mut told, POLICER_TABLE, &[0; TABLE_SIZE]);
    told
}

fn numberless(parameters: &[u8]) -> Vec<u8> {
    match parameters {
        [_, _, _, _, rest @ ..] => [&[0; 4], rest].concat(),
        short => short.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_comes_after_its_parent() {
        let class = |handle, parent| {
            let mut message = Message::new(NEW_CLASS, [0; HEADER]);
            message.set_number(HANDLE, handle);
            message.set_number(PARENT, parent);
            message
        };
        let sorted = parents_first(vec![class(3, 2), class(2, 1), class(4, 9), class(1, u32::MAX)]);
        let handles: Vec<u32> = sorted.iter().map(|m| m.number(HANDLE)).collect();
        assert_eq!(handles, [4, 1, 2, 3]);
        assert_eq!(parents_first(vec![class(1, 2), class(2, 1)]).len(), 2, "a circle");
    }

    #[test]
    fn a_description_becomes_a_wish() {
        let mut options = Vec::new();
        raw::push(&mut options, TCA_HTB_INIT, &[0x11, 0, 3, 0, 10, 0, 0, 0]);
        let mut qdisc = Message::new(NEW_QDISC, [0; HEADER]);
        qdisc.push(TCA_KIND, b"htb\0");
        qdisc.push(TCA_OPTIONS, &options);
        let told = tellable(&qdisc).unwrap();
        let init =
            raw::attribute(told.attribute(HEADER, TCA_OPTIONS).unwrap(), TCA_HTB_INIT).unwrap();
        assert_eq!(init, [3, 0, 0, 0, 10, 0, 0, 0]);
        assert_eq!(what(&told), "the qdisc of the kind htb");

        let mut parameters = Vec::new();
        raw::push(&mut parameters, POLICER_PARAMETERS, &[5, 0, 0, 0, 7, 0, 0, 0]);
        let told = policer(&parameters);
        assert_eq!(raw::attribute(&told, POLICER_PARAMETERS), Some(&[0, 0, 0, 0, 7, 0, 0, 0][..]));
        assert_eq!(raw::attribute(&told, POLICER_TABLE).map(<[u8]>::len), Some(TABLE_SIZE));

        let mut table = Vec::new();
        raw::push(&mut table, TCA_U32_DIVISOR, &[1, 0, 0, 0]);
        let mut filter = Message::new(NEW_FILTER, [0; HEADER]);
        filter.push(TCA_KIND, b"u32\0");
        assert_eq!(tellable(&filter), None, "the head of a list");
        filter.push(TCA_OPTIONS, &table);
        assert!(tellable(&filter).is_some());
        filter.set_number(HANDLE, FIRST_TABLE);
        assert_eq!(tellable(&filter), None);
    }
}
