//! Nothing waits for ever. Clippy finds what could: it knows of each call which function it is, and
//! clippy.toml lists those without a limit. Where one is called all the same, the place says why
//! (`#[expect(clippy::disallowed_methods, reason = "…")]`). Here it is checked that this holds for
//! all of the library, and that no place says it for more than one function.

use std::fs;

use syn::visit::{self, Visit};

use super::{root, sources};

const LINT: &str = "disallowed_methods";

/// Calls without a limit that must not be missing in clippy.toml.
const KNOWN: &[&str] = &[
    "std::process::Child::wait",
    "std::process::Child::wait_with_output",
    "std::process::Command::output",
    "std::process::Command::status",
    "std::thread::JoinHandle::join",
    "std::sync::mpsc::Receiver::recv",
    "std::fs::File::lock",
    "nix::sys::wait::waitpid",
    "nix::poll::poll",
    "nix::sys::socket::connect",
    "nix::sys::socket::accept4",
    "nix::sys::socket::recv",
    "libc::poll",
    "libc::waitpid",
    "libc::flock",
    "libc::recvmsg",
    "lxc_cr::sys::poll::readable_at_last",
];

/// The attributes of a file that are about the lint.
#[derive(Default)]
struct Exceptions {
    /// With a reason, of one function each.
    good: usize,
    wrong: Vec<String>,
}

impl<'ast> Visit<'ast> for Exceptions {
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta
            && list.tokens.to_string().contains(LINT)
        {
            let text = list.tokens.to_string();
            let outer = matches!(attribute.style, syn::AttrStyle::Outer);
            let reason = text.split_once("reason = \"").is_some_and(|(_, why)| why.len() > 5);
            match outer && list.path.is_ident("expect") && reason {
                true => self.good += 1,
                false => self.wrong.push(text),
            }
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let about = |attribute: &&syn::Attribute| match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string().contains(LINT),
            _ => false,
        };
        if item.attrs.iter().any(|attribute| about(&attribute)) {
            self.wrong.push(format!("all of the module {}", item.ident));
        }
        visit::visit_item_mod(self, item);
    }
}

fn exceptions(text: &str) -> Exceptions {
    let mut found = Exceptions::default();
    found.visit_file(&syn::parse_file(text).unwrap());
    found
}

#[test]
fn a_wait_without_a_limit_says_why() {
    for (file, text) in sources().into_iter().filter(|(file, _)| file != "lib.rs") {
        let wrong = exceptions(&text).wrong;
        assert!(wrong.is_empty(), "{file}: {}", wrong.join("\n"));
    }
}

#[test]
fn clippy_looks_for_waits_in_all_of_the_library() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let lib = "#![cfg_attr(not(test), deny(clippy::disallowed_methods))]";
    assert!(read("src/lib.rs").lines().any(|line| line == lib), "src/lib.rs has no '{lib}'");
    let list = read("clippy.toml");
    let missing: Vec<_> =
        KNOWN.iter().filter(|call| !list.contains(&format!("\"{call}\""))).collect();
    assert!(missing.is_empty(), "clippy.toml does not forbid {missing:?}");
}

#[test]
fn an_exception_without_a_reason_is_seen() {
    let of = |attribute: &str| exceptions(&format!("{attribute} fn f() {{}}"));
    assert_eq!(of("#[expect(clippy::disallowed_methods, reason = \"WNOHANG\")]").good, 1);
    for bad in [
        "#[allow(clippy::disallowed_methods, reason = \"WNOHANG\")]",
        "#[expect(clippy::disallowed_methods)]",
        "#[expect(clippy::disallowed_methods, reason = \"\")]",
        "#![expect(clippy::disallowed_methods, reason = \"all of the file\")]",
        "#[expect(clippy::disallowed_methods, reason = \"WNOHANG\")] mod a {}",
    ] {
        assert_eq!(of(bad).wrong.len(), 1, "{bad}");
    }
}
