//! Keys and keyrings that a task can reach: only it is told of them, so it is
//! [asked](super::asked).

use std::collections::BTreeSet;

use super::compare::plain;
use super::proc::{Thread, digest};
use super::snapshot::{Subject, Values};
use super::state::{Class, PutBack, State, states};
use crate::sys::inject::Page;
use crate::sys::keys::{self, Ring};

states! { rows;
    SESSION = "keyring.session", PutBack::Us, Class::Breaks, "it has another session keyring";
    PROCESS = "keyring.process", PutBack::Us, Class::Breaks, "keys of the process are lost";
    THREAD = "keyring.thread", PutBack::Us, Class::Breaks, "keys of the thread are lost";
    KEY = "key", PutBack::Us, Class::Breaks, "the key is lost";
    OWNER = "key.owner", PutBack::Us, Class::Weakens, "others may read or change the key";
    PAYLOAD = "key.payload", PutBack::Us, Class::Breaks, "the key holds something else";
}

/// Its rows.
pub(crate) fn asked_rows() -> Vec<&'static State> {
    rows()
}

static RINGS: [(Ring, &State); 3] =
    [(Ring::Thread, &THREAD), (Ring::Process, &PROCESS), (Ring::Session, &SESSION)];
/// The user's keyrings, which all sessions reach.
const OF_USER: [Ring; 2] = [Ring::User, Ring::UserSession];
/// How many keys are followed.
const MOST: usize = 200;

/// Asks a thread for its keyrings and for what is in them.
pub(crate) fn ask(thread: &Thread, is_first: bool, page: &Page<'_>, found: &mut Values) {
    let mut serials = Vec::new();
    for (ring, state) in RINGS {
        // It has none, or the kernel has no keys.
        let value = match keys::serial_of(page, ring) {
            Some(serial) => {
                serials.push(serial);
                keys::describe(page, serial)
                    .map_or_else(|| "not visible".to_owned(), |key| plain(key.name().as_bytes()))
            }
            None => "none".to_owned(),
        };
        found.push((thread.subject(), state, value));
    }
    if is_first {
        serials.extend(OF_USER.into_iter().filter_map(|ring| keys::serial_of(page, ring)));
        follow(thread, page, serials, found);
    }
}

/// Enters the keys of these rings and of those in them, by where they are.
fn follow(thread: &Thread, page: &Page<'_>, rings: Vec<i32>, found: &mut Values) {
    let (mut seen, mut ahead) = (BTreeSet::new(), rings);
    while let Some(serial) = ahead.pop() {
        if seen.len() >= MOST || !seen.insert(serial) {
            continue;
        }
        let Some(key) = keys::describe(page, serial) else { continue };
        let subject = || Subject::Key {
            description: format!("{} of process {}", plain(key.name().as_bytes()), thread.pid),
        };
        found.push((subject(), &KEY, "there".to_owned()));
        found.push((subject(), &OWNER, key.owner.clone()));
        // What may be used but not read stays the kernel's.
        let Some(payload) = keys::read(page, serial) else { continue };
        if key.is_ring() {
            ahead.extend(keys::members(&payload));
        } else {
            found.push((subject(), &PAYLOAD, digest(&payload)));
        }
    }
}
