//! Unknown keys of a settings file, each with its place and the key that was probably meant.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{CONTAINER, KEYS, OF_HOST};

/// From here on two words are alike (Jaro-Winkler); as clap has it for options.
const ALIKE: f64 = 0.7;

/// What is wrong in a file, and where.
#[derive(Debug)]
pub(super) struct Wrong {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

impl Wrong {
    /// `at` is an offset in bytes.
    fn new(text: &str, at: usize, what: impl Into<String>) -> Wrong {
        let before = text.get(..at).unwrap_or(text);
        let line_begin = before.rfind('\n').map_or(0, |n| n + 1);
        Wrong {
            line: before.matches('\n').count() + 1,
            column: before[line_begin..].chars().count() + 1,
            what: what.into(),
        }
    }

    /// What the TOML reader says, on one line.
    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Wrong {
        Wrong::new(text, error.span().map_or(0, |s| s.start), error.message().replace('\n', ", "))
    }
}

/// Looks at the keys of a file.
pub(super) fn keys(text: &str) -> Result<(), Wrong> {
    let table = DeTable::parse(text).map_err(|e| Wrong::of_toml(text, &e))?;
    for (key, value) in in_order(table.get_ref()) {
        match value.get_ref() {
            DeValue::Table(containers) if key.get_ref() == CONTAINER => {
                of_containers(text, containers)?
            }
            _ if key.get_ref() == CONTAINER => {
                let what = "'container' is a table of containers: [container.NAME]";
                return Err(Wrong::new(text, key.span().start, what));
            }
            _ => known(text, key, KEYS.iter().chain([&CONTAINER]))?,
        }
    }
    Ok(())
}

fn of_containers(text: &str, containers: &DeTable<'_>) -> Result<(), Wrong> {
    for (name, value) in in_order(containers) {
        let container = name.get_ref();
        let DeValue::Table(own) = value.get_ref() else {
            let what = format!("'container.{container}' is a table: [container.{container}]");
            return Err(Wrong::new(text, name.span().start, what));
        };
        for (key, _) in in_order(own) {
            if OF_HOST.contains(&key.get_ref().as_ref()) {
                let what = format!(
                    "'{}' is for all containers together: put it above all tables",
                    key.get_ref()
                );
                return Err(Wrong::new(text, key.span().start, what));
            }
            known(text, key, KEYS.iter().filter(|k| !OF_HOST.contains(k)))?;
        }
    }
    Ok(())
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;

/// As they stand in the file: the first thing that is wrong is told.
fn in_order<'t, 'd>(table: &'t DeTable<'d>) -> Vec<(&'t Key<'d>, &'t Spanned<DeValue<'d>>)> {
    let mut items: Vec<_> = table.iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    items
}

fn known<'k>(
    text: &str,
    key: &Key<'_>,
    keys: impl Iterator<Item = &'k &'k str> + Clone,
) -> Result<(), Wrong> {
    let name = key.get_ref().as_ref();
    if keys.clone().any(|k| *k == name) {
        return Ok(());
    }
    let likeness = |k: &str| strsim::jaro_winkler(k, name);
    let nearest = keys.clone().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let advice = match nearest.filter(|k| likeness(k) >= ALIKE) {
        Some(nearest) => format!("did you mean '{nearest}'?"),
        None => format!("the keys are {}", keys.copied().collect::<Vec<_>>().join(", ")),
    };
    Err(Wrong::new(text, key.span().start, format!("unknown key '{name}'; {advice}")))
}
