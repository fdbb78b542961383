//! Lines fit a screen: what rustfmt does not break (strings, comments) is broken by hand.

use super::sources;

/// As in rustfmt.toml, in characters.
const WIDEST: usize = 100;

#[test]
fn lines_fit_a_screen() {
    let too_wide = |(path, text): (String, String)| {
        // What tests compare with is as it is printed.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let wide = code.lines().enumerate().filter(|(_, line)| line.chars().count() > WIDEST);
        let wide = wide.filter(|(_, line)| !is_in_one_piece(line.trim_start()));
        wide.map(|(at, _)| format!("{path}:{}", at + 1)).collect::<Vec<_>>()
    };
    let found: Vec<String> = sources().into_iter().flat_map(too_wide).collect();
    assert!(found.is_empty(), "wider than {WIDEST} characters:\n{}", found.join("\n"));
}

/// Rows of tables and attributes, which have no other form, and texts without a space to break at.
fn is_in_one_piece(line: &str) -> bool {
    ["//! |", "/// |", "#[", "row("].iter().any(|start| line.starts_with(start))
        || line.contains("PutBack::")
        || line.split(' ').any(|word| word.len() > WIDEST / 2)
}
