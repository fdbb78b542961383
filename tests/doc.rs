//! The manuals and completions say what the commands' `--help` says.
#![allow(clippy::unwrap_used)]

#[path = "../packaging/doc/completions.rs"]
mod completions;
#[path = "../packaging/doc/pages.rs"]
mod pages;

/// The trials of `make test-keys`, of which only the list is used here.
#[allow(dead_code)]
#[path = "system/key"]
mod key {
    #[path = "row.rs"]
    mod row;
    pub mod rows;
    pub use row::{Expected, ROW, Row};
}

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [&str; 3] = ["lxc-checkpoint", "lxc-restart", "lxc-cr"];

fn help(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lxc-cr"))
        .arg0(program)
        .args(arguments)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that the help lists.
fn subcommands(help: &str) -> Vec<&str> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names = list
        .lines()
        .take_while(|l| l.starts_with("  "))
        // What is said of one goes on further to the right.
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// Each option of a help text with what is said of it: (`-n, --name <NAME>`, `Name of the
/// container`).
fn options(help: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in help
        .split("\nOptions:\n")
        .nth(1)
        .unwrap()
        .lines()
        .take_while(|l| !["Examples:", "Exit status:"].contains(l))
        // The headings of groups.
        .filter(|l| l.is_empty() || l.starts_with(' '))
    {
        let text = line.trim();
        let indent = line.len() - text.len();
        if text.starts_with('-') && indent < 10 {
            // Where all help is short it stands on the same line.
            let (option, said) = text.split_once("  ").unwrap_or((text, ""));
            found.push((option.to_owned(), said.trim().to_owned()));
        } else if let (false, Some((_, said))) = (text.is_empty(), found.last_mut()) {
            said.push_str(if said.is_empty() { "" } else { " " });
            said.push_str(text);
        }
    }
    found
}

/// A manual's source as plain text, a line for each line of the source.
fn plain(source: &str) -> String {
    let mut text = source.to_owned();
    for (mark, meaning) in [
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fR", ""),
        ("\\fP", ""),
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\&", ""),
        ("\\e", "\\"),
    ] {
        text = text.replace(mark, meaning);
    }
    text
}

fn all_pages() -> Vec<pages::Page> {
    pages::all(&lxc_cr::api::cli::commands()).unwrap()
}

/// Every option that a real `--help` shows, with the subcommand that has it.
fn all_options() -> Vec<(&'static str, String, String, String)> {
    let mut found = Vec::new();
    for name in PROGRAMS {
        let top = help(name, &["--help"]);
        for (option, said) in options(&top) {
            found.push((name, String::new(), option, said));
        }
        for sub in subcommands(&top) {
            for (option, said) in options(&help(name, &[sub, "--help"])) {
                found.push((name, sub.to_owned(), option, said));
            }
        }
    }
    found
}

#[test]
fn every_option_of_the_help_is_in_the_manual_in_the_same_words() {
    let pages = all_pages();
    let mut compared = 0;
    for (name, sub, option, said) in all_options() {
        if name == "lxc-cr" && sub.is_empty() {
            continue; // Only --help and --version.
        }
        let page = pages.iter().find(|p| p.name == format!("{name}.1")).unwrap();
        let text = plain(&page.text);
        let place = text.lines().collect::<Vec<_>>();
        let found =
            place.windows(3).any(|w| w[0] == ".TP" && w[1] == option && said.starts_with(w[2]));
        assert!(found, "{} has no '{option}' with '{said}' ({sub})", page.name);
        compared += 1;
    }
    assert!(compared > 40, "only {compared} options were found in the help");
}

#[test]
fn every_subcommand_has_its_section() {
    let program = PROGRAMS[2];
    let top = help(program, &["--help"]);
    let page = plain(&all_pages().into_iter().find(|p| p.name == "lxc-cr.1").unwrap().text);
    let subs = subcommands(&top);
    assert!(subs.contains(&"recover"), "{top}");
    for sub in subs {
        assert!(page.lines().any(|l| l.starts_with(&format!(".SS {sub} "))), "{sub} is missing");
    }
}

/// Options that a page names in its hand-written part are still there.
#[test]
fn no_manual_speaks_of_an_option_that_is_gone() {
    // CRIU's, that of a hook, and systemctl's.
    let others = [
        "--tcp-established",
        "--network-lock",
        "--mntns-compat-mode",
        "--root",
        "--bind-root",
        "--bridge",
        "--now",
    ];
    let mut known: BTreeSet<String> = others.map(str::to_owned).into();
    for (_, _, option, _) in all_options() {
        known.extend(
            option.split([' ', ',', '[']).filter(|w| w.starts_with("--")).map(str::to_owned),
        );
    }
    for page in all_pages() {
        for word in plain(&page.text).split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            let is_option = word.starts_with("--") && word.len() > 2;
            assert!(!is_option || known.contains(word), "{}: there is no {word}", page.name);
        }
    }
}

#[test]
fn every_manual_has_the_sections_that_a_reader_looks_for() {
    let names: Vec<String> = all_pages().iter().map(|p| p.name.to_owned()).collect();
    for page in all_pages() {
        let has = |section: &str| page.text.contains(&format!("\n.SH {section}\n"));
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"] {
            assert!(has(section), "{}: {section} is missing", page.name);
        }
        assert!(page.name.ends_with('5') || has("EXIT STATUS"), "{}", page.name);
        // Nothing is left to fill in but what `make install` fills in.
        let words = page.text.split('@').skip(1);
        let left: Vec<&str> = words
            .filter(|w| !w.is_empty() && w.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .collect();
        assert!(
            left.iter().all(|w| ["LIBEXECDIR", "CONFIGDIR", "DATADIR"].contains(w)),
            "{}: {left:?}",
            page.name
        );
        // Our own pages exist; others name theirs.
        let also = plain(&page.text);
        let also = also.split(".SH SEE ALSO").nth(1).unwrap();
        for line in
            also.lines().filter(|l| l.starts_with(".BR lxc-cr") || l.starts_with(".BR lxc-restart"))
        {
            let name = line
                .trim_start_matches(".BR ")
                .trim_end_matches(',')
                .replace(" (", ".")
                .replace(')', "");
            assert!(names.contains(&name), "{}: there is no {name}", page.name);
        }
    }
}

#[test]
fn every_setting_is_in_its_manual() {
    let page = plain(&all_pages().into_iter().find(|p| p.name == "lxc-cr.toml.5").unwrap().text);
    for key in lxc_cr::api::settings::KEYS {
        assert!(page.contains(&format!("\n.TP\n.B {key} = ")), "{key} is missing");
    }
}

/// Runs a bash completion on a line whose last word is being typed.
fn complete(line: &[&str], path: &Path) -> Vec<String> {
    let commands = lxc_cr::api::cli::commands();
    let command = commands.iter().find(|c| c.get_name() == line[0]).unwrap();
    let words: Vec<String> = line.iter().map(|w| format!("'{w}'")).collect();
    let function = format!("_{}", line[0].replace('-', "_"));
    let script = format!(
        "{}\nCOMP_WORDS=({}); COMP_CWORD={}; COMPREPLY=(); {function}; printf '%s\\n' \
         \"${{COMPREPLY[@]}}\"",
        completions::bash(command),
        words.join(" "),
        line.len() - 1
    );
    let programs = format!("{}:/usr/bin:/bin", path.display());
    // Directories here would be offered, too.
    let mut bash = Command::new("bash");
    bash.arg("-uec").arg(script).env_clear().env("PATH", programs).current_dir(path.join("lxc/db"));
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_options_containers_and_checkpoints() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let lxcpath = dir.path().join("lxc");
    const TIMES: [&str; 2] = ["2026-11-30T22:04:10", "2026-12-01T22:04:10"];
    for place in ["web/dump", "web/before", "web/rootfs", "db"] {
        fs::create_dir_all(lxcpath.join(place)).unwrap();
    }
    for image in ["web/dump", "web/before"] {
        fs::write(lxcpath.join(image).join("inventory.img"), "").unwrap();
    }
    for time in TIMES {
        fs::create_dir_all(lxcpath.join("web/checkpoints").join(time)).unwrap();
        fs::write(lxcpath.join("web/checkpoints").join(time).join("inventory.img"), "").unwrap();
    }
    // Stands in for LXC's two programs, which need not be on this machine.
    for (name, text) in [
        (
            "lxc-ls",
            format!("[ \"$2\" = --running ] && echo db || ls ${{3:-{}}}", lxcpath.display()),
        ),
        ("lxc-config", format!("echo {}", lxcpath.display())),
    ] {
        let program = dir.path().join(name);
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let at = dir.path();
    assert_eq!(complete(&["lxc-restart", "-n", ""], at), ["db", "web"]);
    assert_eq!(complete(&["lxc-restart", "w"], at), ["web"]);
    assert_eq!(complete(&["lxc-checkpoint", "--name", "=", "d"], at), ["db"]);
    assert_eq!(complete(&["lxc-restart", "-n", "web", "-D", "d"], at), ["dump"]);
    // Only what runs can be checkpointed, suspended or inspected.
    assert_eq!(complete(&["lxc-checkpoint", "-n", ""], at), ["db"]);
    assert_eq!(complete(&["lxc-checkpoint", ""], at), ["db"]);
    assert_eq!(complete(&["lxc-checkpoint", "-r", "-n", ""], at), ["db", "web"]);
    assert_eq!(complete(&["lxc-cr", "suspend", ""], at), ["db"]);
    assert_eq!(complete(&["lxc-cr", "resume", ""], at), ["db", "web"]);
    let all = ["latest", TIMES[0], TIMES[1]];
    assert_eq!(complete(&["lxc-restart", "-n", "web", "--at", ""], at), all);
    assert_eq!(complete(&["lxc-restart", "web", "--at", "2026-12"], at), [TIMES[1]]);
    // Bash takes a colon for the end of a word: only what follows it is put in.
    let line = ["lxc-restart", "web", "--at", "2026-12-01T22", ":", "0"];
    assert_eq!(complete(&line, at), ["04:10"]);
    assert_eq!(complete(&line[..5], at), ["04:10"]);
    assert_eq!(complete(&["lxc-cr", "show", "w"], at), ["web"]);
    assert_eq!(complete(&["lxc-cr", "show", "../web/du"], at), ["../web/dump"]);
    assert_eq!(complete(&["lxc-cr", "prepare", "--host", "--port", "lo"], at), ["lo"]);
    assert!(!complete(&["lxc-cr", "prepare", "--host", "--bridge", ""], at).contains(&"db".into()));
    assert_eq!(complete(&["lxc-restart", "-n", "web", "--rep"], at), ["--replace"]);
    assert_eq!(complete(&["lxc-restart", "-l", "WA"], at), ["WARN"]);
    assert_eq!(complete(&["lxc-cr", "rec"], at), ["recover"]);
    assert_eq!(complete(&["lxc-cr", "recover", "-n", "w"], at), ["web"]);
    assert_eq!(complete(&["lxc-cr", "recover", "--timeout", ""], at).len(), 2);
}

/// Each option stands in the completions of all three shells.
#[test]
fn every_option_is_completed_in_every_shell() {
    let commands = lxc_cr::api::cli::commands();
    for (name, _, option, _) in all_options() {
        let command = commands.iter().find(|c| c.get_name() == name).unwrap();
        let Some(long) = option.split([' ', ',', '[']).find_map(|w| w.strip_prefix("--")) else {
            continue;
        };
        let texts =
            [completions::bash(command), completions::zsh(command), completions::fish(command)];
        let marks = [format!("--{long}"), format!("--{long}"), format!(" -l {long} ")];
        for (text, mark) in texts.iter().zip(marks) {
            assert!(text.contains(&mark), "{name}: {mark} is missing:\n{text}");
        }
    }
}

/// `make test-fidelity` makes the page again.
#[test]
fn every_state_of_the_inspector_has_its_line_in_the_page() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fidelity.md")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let (listed, states): (Vec<&str>, Vec<&str>) =
        (lines.collect(), lxc_cr::api::inspect::state::all().map(|s| s.name).collect());
    assert_eq!(listed, states);
}

/// `make test-keys` makes the page again.
#[test]
fn every_trial_of_a_key_has_its_line_in_the_page_and_none_is_wrong() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let listed: Vec<String> =
        lines.iter().filter_map(|l| Some(l[2..].split_once(" | ")?.0.to_owned())).collect();
    let tried: Vec<String> = key::rows::all().map(key::Row::keys_in_page).collect();
    assert_eq!(listed, tried);
    let wrong: Vec<&&str> = lines.iter().filter(|line| line.contains(" | **")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
