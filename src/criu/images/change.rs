//! Images of which some messages are changed.
//!
//! A message is changed as bytes: what this program does not know of it stays as it is. Where a
//! field that occurs once is there twice, the last one counts, so such a one is appended; fields
//! that repeat have to be taken out first.

use std::path::Path;

use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field};

use super::{Error, Head, messages};

/// The image with each message as `change` gives it; none leaves it as it is.
pub(super) fn each(
    path: &Path,
    bytes: &[u8],
    head: Head,
    mut change: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, prost::DecodeError>,
) -> Result<Vec<u8>, Error> {
    let found = messages(bytes, head).map_err(|flaw| flaw.of(path, bytes))?;
    let first = found
        .first()
        .map_or(bytes.len(), |m| m.as_ptr().addr() - bytes.as_ptr().addr() - size_of::<u32>());
    let mut image = bytes[..first].to_vec();
    for message in found {
        let changed =
            change(message).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
        let message = changed.as_deref().unwrap_or(message);
        image.extend((message.len() as u32).to_le_bytes());
        image.extend(message);
    }
    Ok(image)
}

/// How many bytes an image has up to the end of its first message.
pub(super) fn length_of_first(path: &Path, bytes: &[u8], head: Head) -> Result<usize, Error> {
    let found = messages(bytes, head).map_err(|flaw| flaw.of(path, bytes))?;
    let end = |message: &&[u8]| message.as_ptr().addr() - bytes.as_ptr().addr() + message.len();
    Ok(found.first().map_or(bytes.len(), end))
}

/// The message without these fields.
pub(super) fn without(message: &[u8], tags: &[u32]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut rest = message;
    let mut kept = Vec::with_capacity(message.len());
    while !rest.is_empty() {
        let begin = rest;
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        if !tags.contains(&tag) {
            kept.extend(&begin[..begin.len() - rest.len()]);
        }
    }
    Ok(kept)
}

/// Appends a number.
pub(super) fn put_number(tag: u32, number: u64, to: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, to);
    encode_varint(number, to);
}

/// Appends bytes, text, or a message.
pub(super) fn put_bytes(tag: u32, bytes: &[u8], to: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_out_and_the_rest_stays() {
        let mut message = Vec::new();
        put_number(1, 300, &mut message);
        let one = message.clone();
        put_bytes(2, b"two", &mut message);
        let two = message[one.len()..].to_vec();
        put_number(1, 7, &mut message);
        assert_eq!(without(&message, &[]).unwrap(), message);
        assert_eq!(without(&message, &[1]).unwrap(), two);
        assert_eq!(without(&message, &[2]).unwrap(), [one.as_slice(), &[8, 7]].concat());
        for cut in 1..message.len() {
            // Never a panic; an error unless a field ends just there.
            let _ = without(&message[..cut], &[1]);
        }
        assert!(without(&message[..message.len() - 1], &[1]).is_err());
    }

    #[test]
    fn an_image_is_changed_message_by_message() {
        let head = Head::Common(7);
        let image = |messages: &[&[u8]]| {
            let mut bytes = [super::super::COMMON_MAGIC, 7].map(u32::to_le_bytes).concat();
            for message in messages {
                bytes.extend((message.len() as u32).to_le_bytes());
                bytes.extend(*message);
            }
            bytes
        };
        let change = |m: &[u8]| Ok((m == b"b").then(|| b"longer".to_vec()));
        let before = image(&[b"a", b"b", b""]);
        assert_eq!(
            each(Path::new("x"), &before, head, change).unwrap(),
            image(&[b"a", b"longer", b""])
        );
        assert_eq!(each(Path::new("x"), &image(&[]), head, change).unwrap(), image(&[]));
        assert!(matches!(
            each(Path::new("x"), &before[..9], head, change),
            Err(Error::Truncated { .. })
        ));
    }
}
