//! A file that is to be changed: what it holds, what it shall hold, and how a person is shown the
//! difference.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use similar::{ChangeTag, TextDiff};

/// Lines around a change that are shown.
const CONTEXT: usize = 3;

/// The bytes of a file; kept as text where they are text.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl Content {
    /// What a file holds; nothing if there is none.
    pub fn read(path: &Path) -> io::Result<Option<Content>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(Content(bytes))),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content(text.into())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Content(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        }))
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds now; nothing if it is not there.
    pub before: Option<Content>,
    /// What it shall hold.
    pub after: Content,
    /// The mode of a new file; one that is there keeps its own.
    pub mode: u32,
}

impl Change {
    /// The change as a unified diff.
    pub fn diff(&self) -> String {
        let (before, after) = (self.before.as_ref().map(Content::lossy), self.after.lossy());
        let path = self.path.display().to_string();
        let from = if before.is_some() { path.as_str() } else { "/dev/null" };
        let before = before.unwrap_or_default();
        let diff = TextDiff::from_lines(&before, &after);
        diff.unified_diff().context_radius(CONTEXT).header(from, &path).to_string()
    }
}

/// Takes the lines that a change has added out of what a file has become since. None where they no
/// longer stand there as they were, or where the change did more than to add lines.
pub(crate) fn without_added_lines(
    before: &Content,
    after: &Content,
    now: &Content,
) -> Option<Content> {
    let text = |content| std::str::from_utf8(content).ok();
    let (before, after, now) = (text(&before.0)?, text(&after.0)?, text(&now.0)?);
    // Without their ends: a last line may have got one.
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let diff = TextDiff::from_slices(&old, &new);
    let mut runs: Vec<Vec<&str>> = Vec::new();
    let mut running = false;
    for change in diff.iter_all_changes() {
        match (change.tag(), running) {
            (ChangeTag::Delete, _) => return None,
            (ChangeTag::Insert, false) => runs.push(vec![change.value()]),
            (ChangeTag::Insert, true) => runs.last_mut()?.push(change.value()),
            (ChangeTag::Equal, _) => {}
        }
        running = change.tag() == ChangeTag::Insert;
    }
    let mut lines: Vec<&str> = now.split_inclusive('\n').collect();
    for run in runs {
        let stands = |window: &[&str]| {
            window.iter().zip(&run).all(|(line, added)| line.trim_end_matches('\n') == *added)
        };
        let mut places =
            lines.windows(run.len()).enumerate().filter(|(_, w)| stands(w)).map(|(at, _)| at);
        let at = places.next()?;
        if places.next().is_some() {
            return None;
        }
        lines.drain(at..at + run.len());
    }
    Some(Content(lines.concat().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: Option<&str>, after: &str) -> Change {
        Change {
            path: "/etc/x".into(),
            before: before.map(Content::from),
            after: after.into(),
            mode: 0o644,
        }
    }

    #[test]
    fn a_person_sees_a_diff() {
        insta::assert_snapshot!(change(Some("a\nb\nc\nd\ne\n"), "a\nb\nc\nd\ne\nf\n").diff(), @r"
        --- /etc/x
        +++ /etc/x
        @@ -3,3 +3,4 @@
         c
         d
         e
        +f
        ");
        insta::assert_snapshot!(change(None, "a\n").diff(), @r"
        --- /dev/null
        +++ /etc/x
        @@ -0,0 +1 @@
        +a
        ");
    }

    #[test]
    fn bytes_are_kept_whatever_they_are() {
        #[derive(Serialize, Deserialize)]
        struct Kept {
            content: Content,
        }
        for bytes in [&b""[..], b"a\r\n\tb\0\"'''\\\n", b"\xff\xfe", "\u{fffd}".as_bytes()] {
            let text = toml::to_string(&Kept { content: Content(bytes.into()) }).unwrap();
            assert_eq!(toml::from_str::<Kept>(&text).unwrap().content.0, bytes, "{text}");
        }
    }

    #[test]
    fn added_lines_are_taken_out_of_a_file_that_was_edited_since() {
        let taken = |before: &str, after: &str, now: &str| {
            let left = without_added_lines(&before.into(), &after.into(), &now.into())?;
            Some(String::from_utf8(left.0).unwrap())
        };
        assert_eq!(taken("a\nb\n", "a\nb\n\nx\ny\n", "A\nb\n\nx\ny\nc\n").unwrap(), "A\nb\nc\n");
        assert_eq!(taken("a", "a\nx\n", "a\nx\nc").unwrap(), "a\nc");
        assert_eq!(taken("a\nb\n", "x\na\nb\ny\n", "x\na\nB\ny\n").unwrap(), "a\nB\n");
        assert_eq!(taken("a\n", "a\nx\n", "a\nX\n"), None, "changed");
        assert_eq!(taken("a\n", "a\nx\n", "x\na\nx\n"), None, "twice");
        assert_eq!(taken("a\nb\n", "a\nx\n", "a\nx\n"), None, "not only added");
    }
}
