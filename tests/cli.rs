//! The commands' own face: options, help, and what is said to wrong use. No root and no container
//! needed.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// One program under three names.
const PROGRAM: &str = env!("CARGO_BIN_EXE_lxc-cr");
const CHECKPOINT: &str = "lxc-checkpoint";
const RESTART: &str = "lxc-restart";
const LXC_CR: &str = "lxc-cr";
const BOTH: [&str; 2] = [CHECKPOINT, RESTART];

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg0(program).args(arguments).env_clear().output().unwrap()
}

fn name(program: &str) -> &str {
    Path::new(program).file_name().unwrap().to_str().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What each command and subcommand says to `--help`, against what stands in `tests/cli/`.
#[test]
fn every_help_is_as_it_was_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let reviewed = |file: &str, text: &str| settings.bind(|| insta::assert_snapshot!(file, text));
    for program in [CHECKPOINT, RESTART, LXC_CR] {
        let (name, help) = (name(program), stdout(&run(program, &["--help"])));
        reviewed(name, &help);
        for subcommand in subcommands(&help) {
            reviewed(
                &format!("{name}-{subcommand}"),
                &stdout(&run(program, &[subcommand, "--help"])),
            );
        }
    }
}

/// Those that a help lists, but for `help` itself, which is clap's.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names = list
        .lines()
        .take_while(|l| l.starts_with("  "))
        // What is said of one goes on further to the right.
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next());
    names.filter(|name| *name != "help")
}

#[test]
fn help_is_asked_for_in_three_ways_and_lists_the_exit_codes() {
    for program in BOTH {
        let long = run(program, &["--help"]);
        assert_eq!((code(&long), stderr(&long).as_str()), (0, ""));
        let text = stdout(&long);
        let list = text.split_once("Exit status:").unwrap().1;
        for number in 0..=10 {
            assert!(list.contains(&format!(" {number} ")), "{number} is missing: {list}");
        }
        for short in ["-?", "-h"] {
            let told = run(program, &[short]);
            assert_eq!((code(&told), stderr(&told).as_str()), (0, ""), "{short}");
            assert!(
                stdout(&told).contains("Exit status:")
                    && stdout(&told).contains("--checkpoint-dir"),
                "{short}"
            );
        }
    }
}

#[test]
fn version_and_usage_need_no_name() {
    for program in BOTH {
        let name = name(program);
        let version = run(program, &["--version"]);
        assert_eq!(code(&version), 0);
        assert_eq!(stdout(&version), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        let usage = run(program, &["--usage"]);
        assert_eq!(code(&usage), 0);
        assert!(
            stdout(&usage).starts_with(&format!("Usage: {name} [OPTIONS]")),
            "{}",
            stdout(&usage)
        );
    }
}

#[test]
fn the_usage_of_a_subcommand_is_all_that_is_shown() {
    for subcommand in [
        "list", "check", "prepare", "prune", "recover", "remove", "show", "inspect", "verify",
        "suspend", "resume",
    ] {
        let usage = run(LXC_CR, &[subcommand, "--usage"]);
        assert_eq!(code(&usage), 0, "{subcommand}");
        assert!(
            stdout(&usage).starts_with(&format!("Usage: lxc-cr {subcommand} [OPTIONS]")),
            "{}",
            stdout(&usage)
        );
    }
}

#[test]
fn wrong_use_is_status_2_and_goes_to_standard_error() {
    let on_both: &[(&[&str], &str)] = &[
        (&["-n", "x", "--no-such-option"], "--no-such-option"),
        (&["-n", "x", "-Z"], "-Z"),
        (&[], "-n NAME"),
        (&["-n"], "--name"),
        (&["-n", "x", "y"], "cannot be used with"),
        (&["x", "y"], "'y'"),
        (&["-n", "x", "-d", "-F"], "cannot be used with"),
        (&["-n", "x", "-l", "LOUD"], "'LOUD' is not a log level"),
        (&["-n", "x", "--timeout", "soon"], "'soon'"),
        (&["-n", "a/b"], "a/b"),
        (&["-n", ".."], ".."),
    ];
    for program in BOTH {
        for (arguments, words) in on_both {
            assert_wrong(program, arguments, words);
        }
    }
    assert_wrong(CHECKPOINT, &["-n", "x", "-s", "--leave-running"], "cannot be used with");
    assert_wrong(RESTART, &["-n", "x", "--veth", "eth0"], "IF=NAME");
    // An option of the other command.
    assert_wrong(RESTART, &["-n", "x", "--leave-running"], "--leave-running");
    assert_wrong(CHECKPOINT, &["-n", "x", "--veth", "eth0=a"], "--veth");
}

fn assert_wrong(program: &str, arguments: &[&str], words: &str) {
    let told = run(program, arguments);
    assert_eq!((code(&told), stdout(&told).as_str()), (2, ""), "{arguments:?}: {}", stderr(&told));
    assert!(
        stderr(&told).contains(words),
        "{arguments:?}: '{words}' is missing: {}",
        stderr(&told)
    );
    assert!(!stderr(&told).contains("panicked"), "{arguments:?}: {}", stderr(&told));
}

/// Each option of LXC's own `lxc-checkpoint` (`lxc_checkpoint.c`, `arguments.h`), in both its
/// forms.
#[test]
fn every_option_of_lxcs_own_tool_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let log = dir.path().join("log");
    let log = log.to_str().unwrap();
    let cases: &[&[&str]] = &[
        &["-n", "x", "-P", path],
        &["--name", "x", "--lxcpath", path],
        &["--name=x", &format!("--lxcpath={path}")],
        &["-nx", &format!("-P{path}")],
        &["x", "-P", path],
        &["-n", "x", "-P", path, "-o", log, "-l", "DEBUG", "-q"],
        &["-n", "x", "-P", path, "--logfile", log, "--logpriority", "debug", "--quiet"],
        &["-n", "x", "-P", path, "-D", "/nowhere", "-s", "-v", "-A", "/bin/true"],
        &[
            "-n",
            "x",
            "-P",
            path,
            "--checkpoint-dir=/nowhere",
            "--stop",
            "--verbose",
            "--action-script=/bin/true",
        ],
        &["-n", "x", "-P", path, "-p", "-D", "/nowhere"],
        &["-n", "x", "-P", path, "--pre-dump", "--checkpoint-dir", "/nowhere"],
        &["-n", "x", "-P", path, "--predump-dir", "../before", "-D", "/nowhere"],
        &["-n", "x", "-P", path, "--rcfile", "/dev/null"],
        &["-n", "x", "-P", path, "-r", "-D", "/nowhere", "-d"],
        &["-n", "x", "-P", path, "-r", "-D", "/nowhere", "-F"],
        &["-n", "x", "-P", path, "--restore", "--checkpoint-dir", "/nowhere", "--daemon"],
        &["-n", "x", "-P", path, "--restore", "--checkpoint-dir", "/nowhere", "--foreground"],
    ];
    for arguments in cases {
        let told = run(CHECKPOINT, arguments);
        // There is no such container, or the user is not root; but the line was understood.
        assert!([1, 3].contains(&code(&told)), "{arguments:?}: {}: {}", code(&told), stderr(&told));
        assert!(
            stderr(&told).starts_with("lxc-checkpoint: x: "),
            "{arguments:?}: {}",
            stderr(&told)
        );
    }
}
