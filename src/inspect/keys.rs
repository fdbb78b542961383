//! Keys and keyrings that a task can reach: only it is told of them, so it is
//! [asked](super::asked).

use std::collections::BTreeSet;

use super::compare::plain;
use super::proc::{Thread, digest};
use super::snapshot::{Subject, Values};
use super::state::{Class, PutBack, State, states};
use crate::sys::inject::Page;

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

/// Numbers of linux/keyctl.h.
const GET_KEYRING_ID: u64 = 0;
const DESCRIBE: u64 = 6;
const READ: u64 = 11;
const DO_NOT_CREATE: u64 = 0;
const RINGS: [(i32, &State); 3] = [(-1, &THREAD), (-2, &PROCESS), (-3, &SESSION)];
/// The user's keyrings, which all sessions reach.
const OF_USER: [i32; 2] = [-4, -5];
/// How deep keyrings are followed, and how many keys.
const MOST: usize = 200;
const LONGEST: usize = 4000;

/// Asks a thread for its keyrings and for what is in them.
pub(crate) fn ask(thread: &Thread, is_first: bool, page: &Page<'_>, found: &mut Values) {
    let mut serials = Vec::new();
    for (ring, state) in RINGS {
        // It has none, or the kernel has no keys.
        let value = match serial_of(page, ring) {
            Some(serial) => {
                serials.push(serial);
                describe(page, serial).map_or_else(|| "not visible".to_owned(), |key| key.name())
            }
            None => "none".to_owned(),
        };
        found.push((thread.subject(), state, value));
    }
    if is_first {
        serials.extend(OF_USER.into_iter().filter_map(|ring| serial_of(page, ring)));
        follow(thread, page, serials, found);
    }
}

fn serial_of(page: &Page<'_>, ring: i32) -> Option<i32> {
    let ring = i64::from(ring).cast_unsigned();
    let serial =
        page.call(libc::SYS_keyctl, &mut [], |_| vec![GET_KEYRING_ID, ring, DO_NOT_CREATE]).ok()?;
    i32::try_from(serial).ok()
}

/// "keyring;1000;100;3f010000;_ses".
#[derive(Debug, PartialEq, Eq)]
struct Key {
    kind: String,
    owner: String,
    description: String,
}

impl Key {
    fn parse(text: &[u8]) -> Option<Key> {
        let text = text.split(|byte| *byte == 0).next()?;
        let mut parts = text.splitn(5, |byte| *byte == b';').map(plain);
        let kind = parts.next()?;
        let owner = [parts.next()?, parts.next()?, parts.next()?].join(" ");
        Some(Key { kind, owner, description: parts.next()? })
    }

    fn name(&self) -> String {
        format!("{} {}", self.kind, self.description)
    }

    fn is_ring(&self) -> bool {
        self.kind == "keyring"
    }
}

fn describe(page: &Page<'_>, serial: i32) -> Option<Key> {
    let mut text = [0u8; LONGEST];
    let serial = i64::from(serial).cast_unsigned();
    page.call(libc::SYS_keyctl, &mut text, |at| vec![DESCRIBE, serial, at, LONGEST as u64]).ok()?;
    Key::parse(&text)
}

fn read(page: &Page<'_>, serial: i32) -> Option<Vec<u8>> {
    let mut payload = vec![0u8; LONGEST];
    let serial = i64::from(serial).cast_unsigned();
    let length = page
        .call(libc::SYS_keyctl, &mut payload, |at| vec![READ, serial, at, LONGEST as u64])
        .ok()?;
    payload.truncate(usize::try_from(length).ok()?);
    Some(payload)
}

/// Enters the keys of these rings and of those in them, by where they are.
fn follow(thread: &Thread, page: &Page<'_>, rings: Vec<i32>, found: &mut Values) {
    let (mut seen, mut ahead) = (BTreeSet::new(), rings);
    while let Some(serial) = ahead.pop() {
        if seen.len() >= MOST || !seen.insert(serial) {
            continue;
        }
        let Some(key) = describe(page, serial) else { continue };
        let subject =
            || Subject::Key { description: format!("{} of process {}", key.name(), thread.pid) };
        found.push((subject(), &KEY, "there".to_owned()));
        found.push((subject(), &OWNER, key.owner.clone()));
        // What may be used but not read stays the kernel's.
        let Some(payload) = read(page, serial) else { continue };
        if key.is_ring() {
            ahead.extend(
                payload
                    .chunks_exact(4)
                    .filter_map(|serial| Some(i32::from_ne_bytes(serial.try_into().ok()?))),
            );
        } else {
            found.push((subject(), &PAYLOAD, digest(&payload)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read() {
        let key = Key::parse(b"user;0;0;3f010000;a;b\0junk").unwrap();
        assert_eq!(
            (key.name().as_str(), key.owner.as_str(), key.is_ring()),
            ("user a;b", "0 0 3f010000", false)
        );
        assert_eq!(Key::parse(b"user;0"), None);
    }
}
