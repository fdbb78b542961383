//! A container's list of checkpoints: `LXCPATH/NAME/checkpoints/2026-11-30T22:04:10`, or the same
//! below the setting `checkpoint_dir`; and how one of all its checkpoints is named.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};

use super::calendar::Calendar;
use crate::lxc::name::{ContainerName, LxcPath};
use crate::settings::Settings;
use crate::store::list::{Entry, State};

/// The list's directory in the container's own.
pub(crate) const DIR: &str = "checkpoints";
/// The word for the newest one.
const LATEST: &str = "latest";
/// The longest label.
const LONGEST_LABEL: usize = 64;
/// How many checkpoints get the same second in their names; more are never made.
const SAME_SECOND: u32 = 1000;

/// The directory of a container's list.
pub(crate) fn dir(lxcpath: &LxcPath, name: &ContainerName, settings: &Settings) -> PathBuf {
    match &settings.checkpoint_dir {
        Some(dir) => dir.join(name.as_str()),
        None => lxcpath.container_dir(name).join(DIR),
    }
}

/// The directory of a new checkpoint in a list, by its time in seconds since 1970.
pub(crate) fn fresh(list: &Path, seconds: u64, calendar: &Calendar) -> Result<PathBuf> {
    let name = calendar.name(seconds);
    let numbered = (2..SAME_SECOND).map(|number| format!("{name}-{number}"));
    let mut paths = std::iter::once(name.clone()).chain(numbered).map(|name| list.join(name));
    match paths.find(|path| path.symlink_metadata().is_err()) {
        Some(path) => Ok(path),
        None => bail!("there are {SAME_SECOND} checkpoints of {name} in {}", list.display()),
    }
}

/// Checks a label: a word that is neither a time nor `latest`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn label(text: &str) -> std::result::Result<String, String> {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !begins_well || !is_plain || text.len() > LONGEST_LABEL || text == LATEST {
        return Err(format!(
            "a label has up to {LONGEST_LABEL} letters, digits, '.', '_' and '-', begins with a \
             letter, and is not '{LATEST}'"
        ));
    }
    Ok(text.to_owned())
}

/// Which of a container's checkpoints is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest.
    Latest,
    /// The newest of those whose time begins so: `2026-11-30` or `2026-11-30T22:04`.
    Time(String),
    /// The newest with this label.
    Label(String),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<At, String> {
        if text == LATEST {
            return Ok(At::Latest);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | 'T')) {
                true => Ok(At::Time(text.to_owned())),
                false => {
                    Err("a time is written like 2026-11-30T22:04, or the beginning of it"
                        .to_owned())
                }
            };
        }
        label(text).map(At::Label)
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Latest => f.write_str(LATEST),
            At::Time(text) | At::Label(text) => f.write_str(text),
        }
    }
}

impl At {
    /// The checkpoint that is meant; `None` where there is none. One that is damaged counts: an
    /// older one in its place would not be what was asked for.
    pub(crate) fn find<'a>(&self, entries: &'a [Entry], calendar: &Calendar) -> Option<&'a Entry> {
        let is_named = |entry: &Entry, text: &str| {
            entry.directory.file_name().is_some_and(|name| name == text)
        };
        let is_meant = |entry: &&Entry| match self {
            At::Latest => true,
            At::Time(text) => {
                is_named(entry, text) || calendar.name(entry.created).starts_with(text)
            }
            At::Label(text) => entry.label.as_ref() == Some(text),
        };
        // The name of one is no beginning of others: two of one second are `TIME` and `TIME-2`.
        let exact = |entry: &Entry| matches!(self, At::Time(text) if is_named(entry, text));
        let of_processes = |entry: &&Entry| !matches!(entry.state, State::PreDump | State::Partial);
        entries
            .iter()
            .filter(of_processes)
            .filter(is_meant)
            .max_by_key(|entry| (exact(entry), entry.created, &entry.directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_time_a_label_or_the_latest() {
        let at = |text: &str| text.parse::<At>();
        assert_eq!(at("latest"), Ok(At::Latest));
        assert_eq!(at("2026-11-30T22"), Ok(At::Time("2026-11-30T22".into())));
        assert_eq!(at("before-upgrade"), Ok(At::Label("before-upgrade".into())));
        for wrong in ["", "a/b", "2026-11-30 22:04", "-x", "a b", "ä", &"a".repeat(65)] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
        assert!(label("latest").is_err() && label("2026").is_err());
    }

    #[test]
    fn the_newest_that_fits_is_found() {
        let entry = |name: &str, created: u64, label: Option<&str>, state| Entry {
            directory: name.into(),
            label: label.map(str::to_owned),
            created,
            state,
            ..Entry::sample()
        };
        // 2026-11-30T21:04:10Z and the seconds after it.
        let noon = 1_796_072_650;
        let entries = [
            entry("/a", noon, Some("good"), State::Complete),
            entry("/b", noon + 60, None, State::Complete),
            entry("/c", noon + 61, None, State::PreDump),
            entry("/2026-11-30T21:04:10-2", noon, None, State::Complete),
        ];
        let find = |at: &str| {
            let found =
                at.parse::<At>().unwrap().find(&entries, &Calendar::utc()).map(|e| &e.directory);
            found.map(|dir| dir.display().to_string())
        };
        assert_eq!(find("latest").as_deref(), Some("/b"));
        assert_eq!(find("good").as_deref(), Some("/a"));
        assert_eq!(find("2026-11-30T21:04").as_deref(), Some("/a"));
        assert_eq!(find("2026-11-30").as_deref(), Some("/b"));
        assert_eq!(find("2026-11-30T21:04:10-2").as_deref(), Some("/2026-11-30T21:04:10-2"));
        assert_eq!((find("bad"), find("2025")), (None, None));
        let twins = [
            entry("/2026-11-30T21:04:10", noon, None, State::Complete),
            entry("/2026-11-30T21:04:10-2", noon, None, State::Complete),
        ];
        let at: At = "2026-11-30T21:04:10".parse().unwrap();
        assert_eq!(at.find(&twins, &Calendar::utc()).unwrap().directory, twins[0].directory);
    }

    #[test]
    fn two_of_one_second_have_two_names() {
        let top = tempfile::tempdir().unwrap();
        let first = fresh(top.path(), 1_796_072_650, &Calendar::utc()).unwrap();
        assert_eq!(first, top.path().join("2026-11-30T21:04:10"));
        std::fs::create_dir(&first).unwrap();
        let second = fresh(top.path(), 1_796_072_650, &Calendar::utc()).unwrap();
        assert_eq!(second, top.path().join("2026-11-30T21:04:10-2"));
    }
}
