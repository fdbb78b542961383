//! The house: modules import only downwards, folders of one row do not know each other, and no
//! files import each other in a circle. `src/lib.rs` draws the rows for its readers; here they are
//! enforced, with the imports that the compiler would see (the `syn` parser).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

#[path = "layers/foreign.rs"]
mod foreign;
#[path = "layers/lines.rs"]
mod lines;
#[path = "layers/roots.rs"]
mod roots;
#[path = "layers/waits.rs"]
mod waits;

/// The rows, the lowest first. A module imports from its own folder and from rows below.
const ROWS: &[&[&str]] = &[
    &["error", "report"],
    &["sys"],
    &["lxc", "criu", "settings"],
    &["inspect", "resources"],
    &["store"],
    &["rollback"],
    &["preflight", "hooks"],
    &["restore", "prepare"],
    &["rehearse"],
    &["checkpoint"],
    &["monitor", "suspend"],
    &["cli"],
    &["api"],
];

/// `report` describes an `error`; both are for everybody.
const NEIGHBOURS: &[(&str, &str)] = &[("report", "error"), ("error", "report")];

/// A module, from the crate's root: `["restore", "plan"]`.
type Module = Vec<String>;

/// The crate's source files by the modules that they are.
struct House(BTreeMap<Module, Source>);

struct Source {
    file: String,
    imports: BTreeSet<Module>,
}

impl House {
    fn read(src: &Path) -> House {
        let mut files = Vec::new();
        rust_files(src, &mut files);
        let texts = files.into_iter().filter_map(|path| {
            let file = path.strip_prefix(src).unwrap().to_string_lossy().into_owned();
            let module = module_of(&file)?;
            Some((module, file, fs::read_to_string(&path).unwrap()))
        });
        House::of(texts)
    }

    fn of(texts: impl Iterator<Item = (Module, String, String)>) -> House {
        let texts: Vec<_> = texts.collect();
        let known: BTreeSet<Module> = texts.iter().map(|(module, ..)| module.clone()).collect();
        let sources = texts.into_iter().map(|(module, file, text)| {
            let mut reader =
                Reader { inside: module.clone(), known: &known, imports: BTreeSet::new() };
            reader.visit_file(&syn::parse_file(&text).unwrap());
            let mut imports = reader.imports;
            imports.remove(&module);
            (module, Source { file, imports })
        });
        House(sources.collect())
    }

    /// Imports from a higher row, or from another folder of the same row.
    fn misplaced(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (module, source) in self.0.iter().filter(|(module, _)| !module.is_empty()) {
            let Some(own) = row(&module[0]) else {
                wrong.push(format!("{}: '{}' is in no row", source.file, module[0]));
                continue;
            };
            for import in
                source.imports.iter().filter(|import| !import.is_empty() && import[0] != module[0])
            {
                let pair = (module[0].as_str(), import[0].as_str());
                match row(&import[0]) {
                    Some(other) if other > own => {
                        wrong.push(format!(
                            "{}: imports upwards: {}",
                            source.file,
                            import.join("::")
                        ));
                    }
                    Some(other) if other == own && !NEIGHBOURS.contains(&pair) => {
                        wrong.push(format!(
                            "{}: imports sideways: {}",
                            source.file,
                            import.join("::")
                        ));
                    }
                    _ => {}
                }
            }
        }
        wrong
    }

    /// Circles of files. A folder's `mod.rs` and the files in it may name each other: together they
    /// are one module to everybody else.
    fn circles(&self) -> Vec<String> {
        let mut circles = BTreeSet::new();
        for start in self.0.keys() {
            let mut trail = vec![start.clone()];
            self.walk(&mut trail, &mut BTreeSet::new(), &mut circles);
        }
        circles.into_iter().collect()
    }

    fn walk(
        &self,
        trail: &mut Vec<Module>,
        seen: &mut BTreeSet<Module>,
        circles: &mut BTreeSet<String>,
    ) {
        let here = trail.last().unwrap().clone();
        for next in &self.0[&here].imports {
            if is_family(&here, next) {
                continue;
            }
            if *next == trail[0] {
                // Named from its first member on, so that each is named once.
                if trail.iter().min() == trail.first() {
                    let names: Vec<&str> =
                        trail.iter().map(|module| self.0[module].file.as_str()).collect();
                    circles.insert(names.join(" → "));
                }
            } else if seen.insert(next.clone()) {
                trail.push(next.clone());
                self.walk(trail, seen, circles);
                trail.pop();
            }
        }
    }
}

/// Whether one is the folder that the other is in.
fn is_family(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The module that a file below `src` is; `None` for programs.
fn module_of(file: &str) -> Option<Module> {
    let stem = file.strip_suffix(".rs")?;
    let mut module: Module = stem.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    let is_tests = module.iter().any(|part| part == "tests");
    (module.first().is_none_or(|first| first != "bin") && !is_tests).then_some(module)
}

/// Collects what a file names of the crate, tests left out.
struct Reader<'a> {
    inside: Module,
    known: &'a BTreeSet<Module>,
    imports: BTreeSet<Module>,
}

impl Reader<'_> {
    fn enter(&mut self, path: &[String]) {
        let absolute = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("self") => [&self.inside, &path[1..]].concat(),
            Some("super") => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let Some(keep) = self.inside.len().checked_sub(up) else { return };
                [&self.inside[..keep], &path[up..]].concat()
            }
            _ => return,
        };
        let longest =
            (0..=absolute.len()).rev().map(|n| &absolute[..n]).find(|m| self.known.contains(*m));
        if let Some(module) = longest {
            self.imports.insert(module.to_vec());
        }
    }

    fn enter_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.enter_tree(&[prefix, &[path.ident.to_string()]].concat(), &path.tree);
            }
            syn::UseTree::Name(name) => self.enter(&[prefix, &[name.ident.to_string()]].concat()),
            syn::UseTree::Rename(name) => self.enter(&[prefix, &[name.ident.to_string()]].concat()),
            syn::UseTree::Glob(_) => self.enter(prefix),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.enter_tree(prefix, tree))
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_none() || is_test(&item.attrs) {
            return;
        }
        self.inside.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.enter_tree(&[], &item.tree);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.enter(&parts);
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        meta => meta.path().is_ident("test"),
    })
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The project's directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `src` with their text, those with tests alone left out.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let read = |path: &PathBuf| {
        let file = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        (file, fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).filter(|(file, _)| !file.contains("/tests")).collect()
}

fn house() -> House {
    House::read(&root().join("src"))
}

#[test]
fn modules_import_only_downwards() {
    let wrong = house().misplaced();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = house().circles();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

fn invented(files: &[(&str, &str)]) -> House {
    let texts = files
        .iter()
        .map(|(file, text)| (module_of(file).unwrap(), (*file).to_owned(), (*text).to_owned()));
    House::of(texts)
}

#[test]
fn an_import_upwards_is_seen_in_a_group_of_several_lines() {
    let above = [
        ("sys/mod.rs", "use crate::{\n    error,\n    cli::{self, run},\n};"),
        ("cli/mod.rs", ""),
        ("error.rs", ""),
    ];
    assert_eq!(invented(&above).misplaced(), ["sys/mod.rs: imports upwards: cli"]);
    let in_code = [
        ("sys/mod.rs", "fn f() { crate::store::list::all(); }"),
        ("store/list.rs", ""),
        ("store/mod.rs", ""),
    ];
    assert_eq!(invented(&in_code).misplaced(), ["sys/mod.rs: imports upwards: store::list"]);
    let in_a_test =
        [("sys/mod.rs", "#[cfg(test)] mod tests { use crate::cli; }"), ("cli/mod.rs", "")];
    assert!(invented(&in_a_test).misplaced().is_empty());
}

#[test]
fn an_import_sideways_is_seen() {
    let beside =
        [("lxc/mod.rs", "use crate::criu::run;"), ("criu/mod.rs", ""), ("criu/run.rs", "")];
    assert_eq!(invented(&beside).misplaced(), ["lxc/mod.rs: imports sideways: criu::run"]);
}

#[test]
fn a_circle_is_seen() {
    let ring = [
        ("restore/a.rs", "use super::b;"),
        ("restore/b.rs", "use crate::restore::c::C;"),
        ("restore/c.rs", "fn f() { super::a::g() }"),
        ("restore/mod.rs", "mod a; mod b; mod c;"),
    ];
    assert_eq!(invented(&ring).circles(), ["restore/a.rs → restore/b.rs → restore/c.rs"]);
}

/// Where the environment is read. Whoever starts a command decides on it: so it is listed in
/// docs/local-users.md.
const READS_ENVIRONMENT: &[&str] =
    &["cli/action.rs", "cli/hook.rs", "lxc/config/mod.rs", "sys/systemd_journal.rs"];

#[test]
fn the_environment_and_tmp_are_not_relied_upon() {
    for (inner, text) in sources() {
        let own = text.split("#[cfg(test)]").next().unwrap();
        let own: String = own.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        assert!(
            !own.contains("env::var") || READS_ENVIRONMENT.contains(&inner.as_str()),
            "{inner} reads the environment"
        );
        for word in ["temp_dir", "tempfile::"] {
            assert!(
                !own.contains(word),
                "{inner}: '{word}' goes by TMPDIR; see sys::files::scratch"
            );
        }
    }
}
