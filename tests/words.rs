//! The wording of what users read: messages, help, manuals, docs. The list holds the worst signs of
//! phrases that no native engineer would write; docs/glossary.md has the terms to use instead.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A phrase, and what to write instead.
const SIGNS: &[(&str, &str)] = &[
    ("nobody", "no process, no one, not … by anyone; or the passive"),
    ("mend", "fix, repair, restore"),
    ("mended", "fixed, repaired, restored"),
    ("mends", "fixes, repairs"),
    ("told", "reported, asked"),
    ("tells", "reports, shows"),
    ("anew", "again"),
    ("nevertheless", "anyway"),
    ("in spite of", "despite, even if"),
    ("look at", "check, inspect, read, stat"),
    ("looks at", "checks, reads"),
    ("looked at", "checked, read"),
    ("the look", "the check"),
    ("is no name", "is not a name"),
    ("is no path", "is not a path"),
    ("is no file", "is not a file"),
    ("is no checkpoint", "is not a checkpoint"),
    ("is no directory", "is not a directory"),
    ("of the host's", "of the host"),
    ("cut short", "interrupted"),
    ("counts from", "takes effect at"),
    ("be of the past", "stale"),
    ("is the sooner the better", "as soon as you can"),
    ("goes to the disk", "is saved to disk"),
    ("as ever", "as usual"),
    ("plays it back", "rolls it back"),
    ("takes the place of", "replaces"),
    ("do no harm when run twice", "are idempotent"),
    ("strike out", "clear"),
    ("struck out", "cleared"),
];

/// Phrases in which a sign is right.
const ALLOWED: &[&str] =
    &["told apart", "there is no checkpoint", "there is no directory", "there is no file"];

/// Where a text is read by users, and the text.
type Text = (String, String);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found
}

fn inside(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// The string literals of a source file, tests left out.
#[derive(Default)]
struct Literals(Vec<String>);

impl<'ast> Visit<'ast> for Literals {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.0.push(literal.value());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // Format strings are tokens in here.
        collect(item.tokens.clone(), &mut self.0);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // Doc comments are for developers; what clap makes of them is in tests/cli.
        if !attribute.path().is_ident("doc")
            && let syn::Meta::List(list) = &attribute.meta
        {
            collect(list.tokens.clone(), &mut self.0);
        }
    }
}

fn collect(tokens: proc_macro2::TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Group(group) => collect(group.stream(), found),
            proc_macro2::TokenTree::Literal(literal) => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    found.push(text.value());
                }
            }
            _ => {}
        }
    }
}

fn messages() -> Vec<Text> {
    let mut texts = Vec::new();
    for path in files("src", &[".rs"]).into_iter().filter(|path| !inside(path).contains("/tests")) {
        let mut literals = Literals::default();
        literals.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
        texts.extend(literals.0.into_iter().map(|literal| (inside(&path), literal)));
    }
    texts
}

fn documents() -> Vec<Text> {
    let mut paths = files("docs", &[".md"]);
    paths.extend(files("tests/cli", &[".snap"]));
    paths.extend(files("packaging/man", &[".in"]));
    paths.extend(
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
            .map(|name| root().join(name)),
    );
    let by_line = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let name = inside(&path);
        text.lines()
            .enumerate()
            .map(|(at, line)| (format!("{name}:{}", at + 1), line.to_owned()))
            .collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(by_line).collect()
}

/// Whether a text has a phrase as words of their own.
fn has(text: &str, phrase: &str) -> bool {
    let lower = text.to_lowercase();
    let clean = ALLOWED.iter().fold(lower, |text, allowed| text.replace(allowed, ""));
    clean.match_indices(phrase).any(|(at, _)| {
        let is_word =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        !is_word(clean[..at].chars().next_back())
            && !is_word(clean[at + phrase.len()..].chars().next())
    })
}

fn signs(texts: &[Text]) -> Vec<String> {
    let mut found = Vec::new();
    for (place, text) in texts {
        for (sign, instead) in SIGNS.iter().filter(|(sign, _)| has(text, sign)) {
            found.push(format!("{place}: '{sign}' (better: {instead}): {}", text.trim()));
        }
    }
    found
}

#[test]
fn messages_are_plain_english() {
    let found = signs(&messages());
    assert!(found.is_empty(), "{} phrases:\n{}", found.len(), found.join("\n"));
}

#[test]
fn documents_are_plain_english() {
    let found = signs(&documents());
    assert!(found.is_empty(), "{} phrases:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_sign_is_found_as_a_word_of_its_own() {
    assert!(has("Look at that", "look at") && has("nobody.", "nobody"));
    assert!(!has("recommended", "mend") && !has("they are told apart", "told"));
}
