//! What is below a container's root is reached through the types that do not leave it
//! (`sys::in_root::Below`, `sys::entry::Entry`) or ask no file system (`sys::glance`). They alone
//! write `/proc/PID/root` down; elsewhere that path, the working directory of a process likewise,
//! can only be read as the link that it is.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::{is_test, sources};

/// Who may write it down.
const DOORS: &[&str] = &["sys/entry.rs", "sys/glance.rs", "sys/in_root.rs"];
/// Places that a container can put anything into.
const PLACES: &[&str] = &["root", "cwd"];
/// Calls that follow the last link of a path no further than to its text.
const READS_LINK: &[&str] = &["read_link", "link"];

/// The paths of a file that lead into a process's root, or its working directory.
#[derive(Default)]
struct Ways {
    found: Vec<String>,
}

impl Ways {
    /// Of each text on its own, and of a path that is put together of texts.
    fn look(&mut self, text: &str) {
        let parts: Vec<&str> = text.split('/').collect();
        let proc = parts.iter().position(|part| *part == "proc");
        // "/root{}": what follows is filled in.
        let is_place = |part: &&str| part.split('{').next().is_some_and(|p| PLACES.contains(&p));
        let in_proc = proc.is_some_and(|at| {
            parts.iter().skip(at + 2).any(is_place) && parts.get(at + 1) != Some(&"self")
        });
        if in_proc {
            self.found.push(text.to_owned());
        }
    }

    fn look_into(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.look_into(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.look(&text.value());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

fn text_of(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        syn::Expr::Reference(reference) => text_of(&reference.expr),
        _ => None,
    }
}

/// The name of a function that is called.
fn called(call: &syn::ExprCall) -> Option<String> {
    let syn::Expr::Path(path) = &*call.func else { return None };
    path.path.segments.last().map(|segment| segment.ident.to_string())
}

impl<'ast> Visit<'ast> for Ways {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if !called(call).is_some_and(|name| READS_LINK.contains(&name.as_str())) {
            visit::visit_expr_call(self, call);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // `thread.path("root")`, `dir.join("cwd/x")`: a piece of a path by itself.
        let piece = call.args.first().and_then(text_of);
        let first =
            piece.as_deref().and_then(|text| text.trim_start_matches('/').split('/').next());
        let of_process = ["proc", "path", "file", "join"].contains(&&*call.method.to_string());
        if of_process && first.is_some_and(|first| PLACES.contains(&first)) {
            self.found.push(format!(".{}({:?})", call.method, piece.unwrap_or_default()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.look(&text.value());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.look_into(item.tokens.clone());
    }

    // Comments, too, are attributes.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

fn ways(text: &str) -> Vec<String> {
    let mut ways = Ways::default();
    ways.visit_file(&syn::parse_file(text).unwrap());
    ways.found
}

#[test]
fn a_containers_root_is_reached_through_its_doors_alone() {
    for (file, text) in sources().into_iter().filter(|(file, _)| !DOORS.contains(&file.as_str())) {
        let found = ways(&text);
        assert!(found.is_empty(), "{file}: {}: see sys::in_root::Below", found.join(", "));
    }
}

#[test]
fn a_way_into_a_root_is_seen() {
    for bad in [
        "fs::metadata(format!(\"/proc/{pid}/root\"))",
        "File::open(format!(\"/proc/{}/root{}\", pid, point.display()))",
        "let x = \"/proc/1/root/etc\";",
        "fs::read_dir(format!(\"/proc/{pid}/task/{tid}/cwd\"))",
        "Path::new(\"/proc\").join(pid).join(\"root\")",
        "Entry::below(&of.proc(\"root\"), &point)",
        "with(|| { vec![open(&format!(\"/proc/{init}/root\"))] })",
    ] {
        assert_eq!(ways(&format!("fn f() {{ {bad} }}")).len(), 1, "{bad}");
    }
    for good in [
        "fs::read_link(format!(\"/proc/{pid}/root\"))",
        "link(&thread.path(\"root\"))",
        "fs::metadata(\"/proc/self/root\")",
        "home.join(\"rootfs\")",
        "log(\"/root/proc\")",
    ] {
        assert_eq!(ways(&format!("fn f() {{ {good} }}")), [""; 0], "{good}");
    }
}
