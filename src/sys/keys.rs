//! Keys and keyrings (keyctl(2)) that a thread can reach. The kernel says of them only to the
//! thread itself, so it is had to ask.

use super::inject::Page;

/// Numbers of linux/keyctl.h.
const GET_KEYRING_ID: u64 = 0;
const DESCRIBE: u64 = 6;
const READ: u64 = 11;
const DO_NOT_CREATE: u64 = 0;
/// The longest description or payload that is read, in bytes.
const LONGEST: usize = 4000;

/// A keyring of the thread that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Its own.
    Thread = -1,
    /// Its process's.
    Process = -2,
    /// Its session's.
    Session = -3,
    /// Its user's.
    User = -4,
    /// The session that its user has where none was made.
    UserSession = -5,
}

/// A key as keyctl(2) describes it: "keyring;1000;100;3f010000;_ses".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    kind: String,
    /// Its user, group and permissions.
    pub owner: String,
    description: String,
}

impl Key {
    fn parse(text: &[u8]) -> Option<Key> {
        let text = text.split(|byte| *byte == 0).next()?;
        let lossless = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let mut parts = text.splitn(5, |byte| *byte == b';').map(lossless);
        let kind = parts.next()?;
        let owner = [parts.next()?, parts.next()?, parts.next()?].join(" ");
        Some(Key { kind, owner, description: parts.next()? })
    }

    /// Its kind and its description, by which programs look for it: "user invocation_id".
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.kind, self.description)
    }

    /// Whether it holds other keys.
    pub(crate) fn is_ring(&self) -> bool {
        self.kind == "keyring"
    }
}

/// The number of a keyring; none where the thread has no such one, or the kernel no keys.
pub(crate) fn serial_of(page: &Page<'_>, ring: Ring) -> Option<i32> {
    let ring = (ring as i64).cast_unsigned();
    let serial =
        page.call(libc::SYS_keyctl, &mut [], |_| vec![GET_KEYRING_ID, ring, DO_NOT_CREATE]).ok()?;
    i32::try_from(serial).ok()
}

/// What a key is; none where the thread may not see it.
pub(crate) fn describe(page: &Page<'_>, serial: i32) -> Option<Key> {
    let mut text = [0u8; LONGEST];
    let serial = i64::from(serial).cast_unsigned();
    page.call(libc::SYS_keyctl, &mut text, |at| vec![DESCRIBE, serial, at, LONGEST as u64]).ok()?;
    Key::parse(&text)
}

/// What a key holds; none where the thread may use but not read it.
pub(crate) fn read(page: &Page<'_>, serial: i32) -> Option<Vec<u8>> {
    let mut payload = vec![0u8; LONGEST];
    let serial = i64::from(serial).cast_unsigned();
    let length = page
        .call(libc::SYS_keyctl, &mut payload, |at| vec![READ, serial, at, LONGEST as u64])
        .ok()?;
    payload.truncate(usize::try_from(length).ok()?);
    Some(payload)
}

/// The numbers of the keys in a keyring, by what it holds.
pub(crate) fn members(payload: &[u8]) -> impl Iterator<Item = i32> {
    payload.chunks_exact(4).filter_map(|serial| Some(i32::from_ne_bytes(serial.try_into().ok()?)))
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
        assert_eq!(members(&[1, 0, 0, 0, 2, 0, 0, 0, 9]).collect::<Vec<_>>(), [1, 2]);
    }
}
