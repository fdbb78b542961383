//! What can be wrong with a configuration, and where it stands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// How much of a long line [`ParseError::render`] shows on each side of the caret, in characters.
const RENDER_CONTEXT: usize = 70;

/// Where an item stands: the file, and the first character of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file as it was named on the way to it.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A line that means nothing, or a value that its key cannot take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct ParseError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// What is wrong, without the place.
    pub message: String,
    /// The line itself.
    pub text: String,
}

impl ParseError {
    /// An error at a place; `text` is the line that stands there.
    pub(super) fn new(at: &Position, text: &str, message: impl Into<String>) -> ParseError {
        ParseError {
            file: at.file.to_path_buf(),
            line: at.line,
            column: at.column,
            message: message.into(),
            text: text.to_owned(),
        }
    }

    /// The error, then the line, then a caret below the place. Long lines are cut around the caret.
    pub fn render(&self) -> String {
        let chars: Vec<char> = self.text.chars().collect();
        let at = self.column.saturating_sub(1).min(chars.len());
        let from = at.saturating_sub(RENDER_CONTEXT);
        let to = (at + RENDER_CONTEXT).min(chars.len());
        let before = if from > 0 { "…" } else { "" };
        let after = if to < chars.len() { "…" } else { "" };
        // The caret's line repeats tabs, so it stands right whatever the terminal makes of them.
        let show = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        let line: String =
            chars.get(from..to).unwrap_or_default().iter().copied().map(show).collect();
        let pad: String = before
            .chars()
            .chain(chars.get(from..at).unwrap_or_default().iter().copied())
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        format!("{self}\n  {before}{line}{after}\n  {pad}^")
    }
}

/// Why a configuration could not be loaded.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file or an included directory cannot be read.
    #[error("read {}{}", path.display(), included_from(from))]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// The line that includes it; `None` for the first file.
        from: Option<Position>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files together are larger than any configuration is.
    #[error("read {}{}: the configuration is larger than {limit} bytes in all", path.display(), included_from(from))]
    TooLarge {
        /// The file that reached the limit.
        path: PathBuf,
        /// The line that includes it; `None` for the first file.
        from: Option<Position>,
        /// The limit in bytes.
        limit: u64,
    },
    /// A line or a value is wrong.
    #[error(transparent)]
    Parse(#[from] Box<ParseError>),
}

impl ConfigError {
    /// The positioned error, where it is one.
    pub fn parse_error(&self) -> Option<&ParseError> {
        match self {
            ConfigError::Parse(e) => Some(e),
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => None,
        }
    }
}

impl From<ParseError> for ConfigError {
    fn from(e: ParseError) -> ConfigError {
        ConfigError::Parse(Box::new(e))
    }
}

fn included_from(from: &Option<Position>) -> String {
    from.as_ref().map(|p| format!(" (included from {p})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_and_a_caret_below_the_place() {
        let e = ParseError {
            file: "/c".into(),
            line: 3,
            column: 4,
            message: "no".into(),
            text: "\tab=cd".into(),
        };
        assert_eq!(e.to_string(), "/c:3:4: no");
        assert_eq!(e.render(), "/c:3:4: no\n  \tab=cd\n  \t  ^");
    }

    #[test]
    fn cuts_a_long_line_and_survives_a_column_outside_of_it() {
        let mut e = ParseError {
            file: "/c".into(),
            line: 1,
            column: 500,
            message: "no".into(),
            text: "x".repeat(1000),
        };
        assert!(e.render().lines().all(|l| l.chars().count() < 200));
        e.column = 5000;
        assert!(e.render().ends_with('^'));
        e.column = 0;
        assert!(e.render().ends_with("  ^"));
    }
}
