//! Lines of /proc/PID/mountinfo (proc(5)), as bytes: names are the container's.

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number.
    pub id: i32,
    /// That of the mount that it is on.
    pub parent: i32,
    /// "MAJOR:MINOR" of its file system.
    pub device: String,
    /// Which part of the file system is mounted.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// Its own options, joined by commas.
    pub flags: String,
    /// Its peer group.
    pub shared: Option<u32>,
    /// The peer group that it receives mounts from.
    pub master: Option<u32>,
    /// Whether it must not be bound elsewhere.
    pub unbindable: bool,
    /// The type of its file system.
    pub kind: Vec<u8>,
    /// What was mounted.
    pub source: Vec<u8>,
    /// Options of its file system, joined by commas.
    pub options: Vec<u8>,
}

impl Line {
    /// Whether this word is among its own options.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.flags.split(',').any(|flag| flag == word)
    }
}

/// The lines of a table, in its order: a mount stands after the one that it is on.
pub(crate) fn parse(table: &[u8]) -> Vec<Line> {
    table.split(|b| *b == b'\n').filter_map(line).collect()
}

fn line(text: &[u8]) -> Option<Line> {
    let words: Vec<&[u8]> = text.split(|b| *b == b' ').collect();
    let ascii = |word: &[u8]| String::from_utf8(word.to_vec()).ok();
    let dash = words.iter().position(|word| *word == b"-")?;
    let optional = words.get(6..dash)?;
    let group = |key: &str| {
        let number = |word: &&[u8]| ascii(word)?.strip_prefix(key)?.parse().ok();
        optional.iter().find_map(number)
    };
    Some(Line {
        id: ascii(words.first()?)?.parse().ok()?,
        parent: ascii(words.get(1)?)?.parse().ok()?,
        device: ascii(words.get(2)?)?,
        root: unescaped(words.get(3)?),
        point: unescaped(words.get(4)?),
        flags: ascii(words.get(5)?)?,
        shared: group("shared:"),
        master: group("master:"),
        unbindable: optional.contains(&&b"unbindable"[..]),
        kind: unescaped(words.get(dash + 1)?),
        source: unescaped(words.get(dash + 2)?),
        options: words.get(dash + 3).map(|word| word.to_vec()).unwrap_or_default(),
    })
}

/// Blanks, newlines and backslashes are written as three octal digits after a backslash.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |b: u8| b.is_ascii_digit().then(|| u32::from(b - b'0'));
        let escaped = match (first, tail) {
            (b'\\', [a, b, c, ..]) => digit(*a)
                .zip(digit(*b))
                .zip(digit(*c))
                .and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok()),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_container_gave_them() {
        let table =
            b"5 4 0:9 / /a\\040b\\134 rw shared:2 unbindable - fuse.x x\\011y rw\nnonsense\n";
        let lines = parse(table);
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0].point.as_slice(), lines[0].source.as_slice()),
            (&b"/a b\\"[..], &b"x\ty"[..])
        );
        assert_eq!((lines[0].shared, lines[0].master, lines[0].unbindable), (Some(2), None, true));
    }
}
