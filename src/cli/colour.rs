//! Colour on a terminal: of the labels at the beginnings of lines, and of diffs. Never in a file or
//! a pipe, nor where `NO_COLOR` is set or the terminal has none.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};

/// What lines begin with, and how that looks.
const LABELS: &[(&str, AnsiColor)] = &[
    ("blocker:", AnsiColor::Red),
    ("warning:", AnsiColor::Yellow),
    ("note:", AnsiColor::Cyan),
    ("hint:", AnsiColor::Green),
    ("  remedy:", AnsiColor::Green),
    ("  why:", AnsiColor::Blue),
    ("now:", AnsiColor::Blue),
    ("log:", AnsiColor::Blue),
];
/// What the lines of a diff begin with; the first that fits counts.
const DIFF: &[(&str, AnsiColor)] = &[
    ("+++", AnsiColor::Blue),
    ("---", AnsiColor::Blue),
    ("@@", AnsiColor::Cyan),
    ("+", AnsiColor::Green),
    ("-", AnsiColor::Red),
];

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Lines with labels.
    Lines,
    /// A diff.
    Diff,
}

/// The text for a stream.
pub(super) fn for_stream(text: &str, kind: Kind, is_terminal: bool) -> Cow<'_, str> {
    let wanted = is_terminal && !anstyle_query::no_color() && anstyle_query::term_supports_color();
    if wanted { coloured(text, kind).into() } else { text.into() }
}

/// The text in colour; what a container has named is in it as it is shown without.
fn coloured(text: &str, kind: Kind) -> String {
    text.split_inclusive('\n').map(|line| coloured_line(line, kind)).collect()
}

fn coloured_line(line: &str, kind: Kind) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let starts = if kind == Kind::Diff { DIFF } else { LABELS };
    let Some((start, colour)) = starts.iter().find(|(start, _)| text.starts_with(start)) else {
        return line.to_owned();
    };
    let length = if kind == Kind::Diff { text.len() } else { start.len() };
    let (label, rest) = text.split_at(length);
    let style = Style::new().fg_color(Some((*colour).into()));
    let style = if kind == Kind::Diff { style } else { style.bold() };
    format!("{style}{label}{style:#}{rest}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_changes_have_a_colour() {
        let text = "blocker: x\n  why: note: y\nweb: note: z\n";
        assert_eq!(
            coloured(text, Kind::Lines),
            "\x1b[1m\x1b[31mblocker:\x1b[0m x\n\x1b[1m\x1b[34m  why:\x1b[0m note: y\nweb: note: z\n"
        );
        assert_eq!(
            coloured("--- a\n same\n-old\n+new\n", Kind::Diff),
            "\x1b[34m--- a\x1b[0m\n same\n\x1b[31m-old\x1b[0m\n\x1b[32m+new\x1b[0m\n"
        );
        assert_eq!(for_stream(text, Kind::Lines, false), text);
    }
}
