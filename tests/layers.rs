//! Modules import only downwards: the order stands in the module docs of `src/lib.rs`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer, the lowest first. A module may name modules of its own entry and of the entries before it.
const LAYERS: &[&[&str]] = &[
    &["error", "report"],
    &["sys"],
    &["lxc"],
    &["criu"],
    &["inspect"],
    &[
        "net",
        "mounts",
        "apparmor",
        "rootfs",
        "ttys",
        "mend",
        "cgroup",
        "devices",
        "limits",
        "confine",
        "sysctl",
        "record",
        "contents",
        "suspended",
        "lineup",
        "seal",
        "release",
        "rollback",
        "operation",
        "workshop",
        "settings",
        "shelf",
        "store",
    ],
    &["preflight", "failed", "retry", "begin", "narrate"],
    &["checkpoint", "restore", "recover", "monitor", "action", "hooks", "prepare", "suspend"],
    &["cli"],
];

/// `lxc` and `criu` stand side by side: neither may name the other.
const STRANGERS: &[(&str, &str)] = &[("lxc", "criu"), ("criu", "lxc")];

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

/// The top-level modules that a file names with `crate::`.
fn imports(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let group = rest.strip_prefix('{').map_or(rest, |g| g.split('}').next().unwrap_or(g));
            let parts: Vec<&str> = if rest.starts_with('{') { group.split(',').collect() } else { vec![group] };
            for part in parts {
                let name: String = part.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                names.push(name);
            }
        }
    }
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

#[test]
fn modules_import_only_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&src).unwrap();
        let top = inner.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if top == "lib" || top == "bin" {
            continue;
        }
        let Some(own) = layer(&top) else {
            wrong.push(format!("{}: module '{top}' has no layer", inner.display()));
            continue;
        };
        for name in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = layer(&name) else { continue };
            if other > own || STRANGERS.contains(&(top.as_str(), name.as_str())) {
                wrong.push(format!("{}: '{top}' may not use '{name}'", inner.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where the environment is read. Whoever starts a command decides on it: so it is listed in docs/local-users.md.
const READS_ENVIRONMENT: &[&str] = &["cli/action.rs", "cli/hook.rs", "lxc/config/mod.rs", "sys/journal.rs"];

#[test]
fn the_environment_and_tmp_are_not_relied_upon() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let inner = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let own = text.split("#[cfg(test)]").next().unwrap();
        let own: String = own.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let is_test = inner.contains("/tests");
        let reads = own.contains("env::var") && !is_test;
        assert!(!reads || READS_ENVIRONMENT.contains(&inner.as_str()), "{inner} reads the environment");
        for word in ["temp_dir", "tempfile::"] {
            assert!(is_test || !own.contains(word), "{inner}: '{word}' goes by TMPDIR; see sys::files::scratch");
        }
    }
}

#[test]
fn an_upward_import_is_seen() {
    assert_eq!(
        imports("use crate::{sys::fd, cli};\n// crate::monitor\n let x = crate::net::lock();"),
        ["sys", "cli", "net"]
    );
}
