//! What a container has named is shown through `report::Foreign`, whose Display is safe, and each
//! line that is printed goes through one place that keeps it a line. Here: nothing shows the text
//! that a `Foreign` holds (`raw`), and `cli` prints no line that it has put together itself.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::{is_test, sources};

/// Macros whose arguments are shown.
const SHOWS: &[&str] = &[
    "format",
    "format_args",
    "write",
    "writeln",
    "print",
    "println",
    "eprint",
    "eprintln",
    "bail",
    "anyhow",
    "ensure",
    "error",
    "warn",
    "info",
    "debug",
    "trace",
    "panic",
];
/// Those that print what is laid out on several lines, or as it is.
const PRINTS: &[&str] = &["print", "print_error"];
/// Where they are, and where a terminal's line is written over.
const PRINTERS: &[&str] = &["cli/common.rs", "cli/progress.rs"];

#[derive(Default)]
struct Shown {
    raw: Vec<String>,
    lines: Vec<String>,
}

/// Whether `.raw()` is called in there.
fn has_raw(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|t| t.to_string() == text);
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => has_raw(group.stream()),
        _ => is(at, ".") && is(at + 1, "raw") && is(at + 2, "()"),
    })
}

fn is_macro_of(expression: &syn::Expr, name: &str) -> bool {
    match expression {
        syn::Expr::Reference(reference) => is_macro_of(&reference.expr, name),
        syn::Expr::Macro(item) => item.mac.path.is_ident(name),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Shown {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let name = item.path.segments.last().map(|segment| segment.ident.to_string());
        if name.is_some_and(|name| SHOWS.contains(&name.as_str())) && has_raw(item.tokens.clone()) {
            self.raw.push(item.tokens.to_string());
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let printer = match &*call.func {
            syn::Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        if printer.is_some_and(|name| PRINTS.contains(&name.as_str()))
            && call.args.first().is_some_and(|text| is_macro_of(text, "format"))
        {
            self.lines.push("print(&format!(…))".to_owned());
        }
        visit::visit_expr_call(self, call);
    }
}

fn shown(text: &str) -> Shown {
    let mut shown = Shown::default();
    shown.visit_file(&syn::parse_file(text).unwrap());
    shown
}

#[test]
fn what_a_container_has_named_is_shown_safely() {
    for (file, text) in sources() {
        let raw = shown(&text).raw;
        assert!(raw.is_empty(), "{file}: shows a Foreign's raw text: {}", raw.join("\n"));
    }
}

#[test]
fn a_line_is_printed_as_one() {
    let of_cli = |file: &str| file.starts_with("cli/") && !PRINTERS.contains(&file);
    for (file, text) in sources().into_iter().filter(|(file, _)| of_cli(file)) {
        let lines = shown(&text).lines;
        assert!(lines.is_empty(), "{file}: {}: see print_line", lines.join(", "));
    }
}

#[test]
fn a_raw_text_that_is_shown_is_seen() {
    for bad in [
        "format!(\"{}\", task.command.raw())",
        "log::warn!(\"{}: {}\", 1, f(name.raw()))",
        "anyhow::bail!(\"{}\", x.raw())",
    ] {
        assert_eq!(shown(&format!("fn f() {{ {bad} }}")).raw.len(), 1, "{bad}");
    }
    assert!(shown("fn f() { format!(\"{}\", x.command); x.raw() == y }").raw.is_empty());
    assert_eq!(shown("fn f() { print(&format!(\"{x}\\n\")) }").lines.len(), 1);
    assert!(shown("fn f() { print_line(&format!(\"{x}\")); print(&text) }").lines.is_empty());
}
