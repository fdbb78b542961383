//! The text of a configuration file, cut into items as liblxc cuts it. Pure: no file is read here.
//!
//! The rules are those of `lxc_file_for_each_line_mmap` and `parse_line` (liblxc's `parse.c`,
//! `confile.c`): a line ends at `\n` or `\r`, the file at the first NUL; blanks are spaces and
//! tabs; a comment is a line whose first character is `#`, nothing is cut off behind a value; one
//! pair of equal quotes around the whole value is taken off; a line that does not begin with `lxc.`
//! is nobody's business.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use super::error::{ParseError, Position};

/// One `key = value`, with the place it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key in the spelling of LXC >= 2.1.
    pub key: String,
    /// The key as it is written in the file.
    pub written: String,
    /// The value without blanks and quotes around it. It may hold any byte but NUL and line ends.
    pub value: OsString,
    /// Where the key begins.
    pub at: Position,
    /// The column where the value begins.
    pub value_column: usize,
    /// The whole line, for messages.
    pub text: Arc<str>,
}

impl Item {
    /// An error about the value.
    pub(super) fn wrong(&self, message: impl std::fmt::Display) -> ParseError {
        let at = Position { column: self.value_column, ..self.at.clone() };
        ParseError::new(&at, &self.text, format!("{}: {message}", printable(&self.written)))
    }

    /// The item as a line that liblxc reads back as the same item; without a line end.
    pub fn to_line(&self) -> OsString {
        let value = self.value.as_bytes();
        let blank_outside =
            value.first().is_some_and(is_blank) || value.last().is_some_and(is_blank);
        let quoted = blank_outside || unquote(value).len() != value.len();
        let mut line = self.written.clone().into_bytes();
        line.extend_from_slice(b" =");
        if !value.is_empty() {
            line.push(b' ');
            if quoted {
                line.push(b'"');
            }
            line.extend_from_slice(value);
            if quoted {
                line.push(b'"');
            }
        }
        OsString::from_vec(line)
    }
}

/// The items of a text, in order; a line which liblxc refuses is an error in its place.
pub fn items<'a>(
    file: &Arc<Path>,
    text: &'a [u8],
) -> impl Iterator<Item = Result<Item, ParseError>> + 'a {
    let file = Arc::clone(file);
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    // Editors count '\n' only, so a '\r' alone ends liblxc's line but not the one that we count.
    text.split(|b| *b == b'\n').enumerate().flat_map(move |(index, whole)| {
        let file = Arc::clone(&file);
        let mut offset = 0;
        whole.split(|b| *b == b'\r').filter_map(move |part| {
            let start = offset;
            offset += part.len() + 1;
            item(&file, index + 1, whole, start, part)
        })
    })
}

/// The item on `part`, which begins at byte `start` of the line `whole`.
fn item(
    file: &Arc<Path>,
    line: usize,
    whole: &[u8],
    start: usize,
    part: &[u8],
) -> Option<Result<Item, ParseError>> {
    let indent = part.iter().take_while(|b| is_blank(b)).count();
    let body = part.get(indent..)?;
    if body.first().is_none_or(|b| *b == b'#') {
        return None;
    }
    let at = Position { file: Arc::clone(file), line, column: column(whole, start + indent) };
    let text = || Arc::<str>::from(lossy(whole.strip_suffix(b"\r").unwrap_or(whole)));
    let Some(equals) = body.iter().position(|b| *b == b'=') else {
        // liblxc stops at such a line only if it seems to be meant for it.
        return body
            .starts_with(b"lxc.")
            .then(|| Err(ParseError::new(&at, &text(), "a line needs a key, '=' and a value")));
    };
    let key = trim_blanks(body.get(..equals)?);
    let rest = body.get(equals + 1..)?;
    let gap = rest.iter().take_while(|b| is_blank(b)).count();
    let trimmed = trim_blanks(rest);
    let value = unquote(trimmed);
    let quote = usize::from(value.len() != trimmed.len());
    Some(Ok(Item {
        key: lossy(key),
        written: lossy(key),
        value: OsStr::from_bytes(value).to_owned(),
        value_column: column(whole, start + indent + equals + 1 + gap + quote),
        at,
        text: text(),
    }))
}

/// The value without one pair of quotes, if the whole of it stands in them.
fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [first @ (b'"' | b'\''), inner @ .., last] if first == last => inner,
        _ => value,
    }
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(last)
    {
        text = rest;
    }
    text
}

/// The column, from 1, of the character at byte `offset` of a line.
fn column(line: &[u8], offset: usize) -> usize {
    lossy(line.get(..offset.min(line.len())).unwrap_or_default()).chars().count() + 1
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text from a file as a message may show it: no control characters, not endless.
pub(super) fn printable(text: impl AsRef<OsStr>) -> String {
    const MOST: usize = 80;
    let text = text.as_ref().to_string_lossy();
    let mut shown: String =
        text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<Result<Item, ParseError>> {
        items(&Arc::from(Path::new("/c")), text).collect()
    }

    /// Each item as "line:column key=value@column", an error as its text.
    fn shown(text: &[u8]) -> Vec<String> {
        read(text)
            .into_iter()
            .map(|i| match i {
                Ok(i) => {
                    format!(
                        "{}:{} {}={}@{}",
                        i.at.line,
                        i.at.column,
                        i.key,
                        i.value.to_string_lossy(),
                        i.value_column
                    )
                }
                Err(e) => e.to_string(),
            })
            .collect()
    }

    #[test]
    fn cuts_lines_as_liblxc_does() {
        let cases: &[(&[u8], &[&str])] = &[
            (b"", &[]),
            (b"\n \t\n# lxc.a = b\n\t # x\n", &[]),
            (b"lxc.a=b", &["1:1 lxc.a=b@7"]),
            (b" \tlxc.a \t= \t b c\t \n", &["1:3 lxc.a=b c@14"]),
            (b"lxc.a = b # no comment", &["1:1 lxc.a=b # no comment@9"]),
            (b"lxc.a = \"b \"\nlxc.b = 'c\"", &["1:1 lxc.a=b @10", "2:1 lxc.b='c\"@9"]),
            (
                b"lxc.a = '\nlxc.a = ''\nlxc.a = \"'x'\"",
                &["1:1 lxc.a='@9", "2:1 lxc.a=@10", "3:1 lxc.a='x'@10"],
            ),
            (b"lxc.a = b\r\nlxc.b = c\r\n", &["1:1 lxc.a=b@9", "2:1 lxc.b=c@9"]),
            (b"lxc.a = b\rlxc.b = c", &["1:1 lxc.a=b@9", "1:11 lxc.b=c@19"]),
            (b"lxc.a =\nlxc.b", &["1:1 lxc.a=@8", "/c:2:1: a line needs a key, '=' and a value"]),
            (b"hello\nfoo = bar\n", &["2:1 foo=bar@7"]),
            (b"lxc.a = b\0lxc.b = c\nlxc.d = e", &["1:1 lxc.a=b@9"]),
            (b"lxc.a = b=c=d", &["1:1 lxc.a=b=c=d@9"]),
            ("lxc.ä = ö".as_bytes(), &["1:1 lxc.ä=ö@9"]),
        ];
        for (text, want) in cases {
            assert_eq!(shown(text), *want, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn keeps_bytes_that_are_not_utf8() {
        let got = read(b"lxc.rootfs.path = /a\xff\n");
        assert_eq!(got[0].as_ref().unwrap().value.as_bytes(), b"/a\xff");
    }

    #[test]
    fn reads_a_very_long_line() {
        let text = format!("lxc.a = {}", "x".repeat(1 << 20));
        assert_eq!(read(text.as_bytes())[0].as_ref().unwrap().value.len(), 1 << 20);
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for item in read(&text) {
                match item {
                    Ok(i) => { i.wrong("x").render(); }
                    Err(e) => { e.render(); }
                }
            }
        }

        #[test]
        fn a_printed_item_is_read_back(
            key in "lxc\\.[a-z0-9._-]{1,20}",
            value in proptest::collection::vec(any::<u8>().prop_filter("ends a line", |b| !matches!(b, 0 | 10 | 13)), 0..40),
        ) {
            let item = Item {
                key: key.clone(),
                written: key,
                value: OsString::from_vec(value),
                at: Position { file: Arc::from(Path::new("/c")), line: 1, column: 1 },
                value_column: 1,
                text: Arc::from(""),
            };
            let got = read(item.to_line().as_bytes());
            prop_assert_eq!(got.len(), 1);
            let got = got.into_iter().next().unwrap().unwrap();
            prop_assert_eq!(got.written, item.written);
            prop_assert_eq!(got.value, item.value);
        }
    }
}
