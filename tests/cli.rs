//! The commands' own face: options, help, and what is said to wrong use. No root and no container needed.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const CHECKPOINT: &str = env!("CARGO_BIN_EXE_lxc-checkpoint");
const RESTART: &str = env!("CARGO_BIN_EXE_lxc-restart");
const BOTH: [&str; 2] = [CHECKPOINT, RESTART];

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).env_clear().output().unwrap()
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

#[test]
fn help_of_lxc_checkpoint() {
    insta::assert_snapshot!(stdout(&run(CHECKPOINT, &["--help"])), @r"
    Checkpoint a running LXC container

    Without -D the container is suspended: its checkpoint goes to LXCPATH/NAME/dump and it is stopped; lxc-restart brings it back. With -D it goes on after the checkpoint, as with LXC's own tool, unless -s is given.

    Usage: lxc-checkpoint [OPTIONS] [NAME]

    Arguments:
      [NAME]
              Name of the container, where -n is not given

    Options:
      -n, --name <NAME>
              Name of the container

      -P, --lxcpath <PATH>
              Use this directory of containers instead of LXC's own

          --rcfile <FILE>
              Read this configuration instead of the container's own

      -o, --logfile <FILE>
              Write our own log to FILE

      -l, --logpriority <LEVEL>
              How much is logged: TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL

      -q, --quiet
              Say nothing but errors

      -?, --help
              Show this help

          --usage
              Show a short usage message

          --version
              Show the version

      -r, --restore
              Restore the container from its checkpoint, as lxc-restart does

      -D, --checkpoint-dir <DIR>
              The directory of the checkpoint

      -v, --verbose
              Show CRIU's log while it works

      -s, --stop
              Stop the container when its checkpoint is complete

          --leave-running
              Let the container go on, also without -D

      -p, --pre-dump
              Only copy memory while the container runs, to make a later checkpoint shorter

          --predump-dir <DIR>
              Build on the pre-dump in this directory, which is relative to the checkpoint's

      -A, --action-script <FILE>
              Also run this program at each of CRIU's actions

      -d, --daemon
              With -r: leave the container in the background (the default)

      -F, --foreground
              With -r: stay until the container ends

          --overwrite
              Replace a checkpoint that is in the directory already

          --tcp-close
              Leave TCP connections out of the checkpoint; with -r: close those with the outside, as lxc-restart does

          --force
              Go ahead although the look at the container has found something that stands in the way

          --dry-run
              Show what would be done, and CRIU's command line; do nothing

          --timeout <SECONDS>
              Give up and undo everything after this many seconds

          --no-sync
              Do not wait until the checkpoint is on the disk

    Exit status:
      0 done   1 other failure   2 usage   3 no such container, or not in the state asked for
      4 refused, nothing was touched   5 CRIU failed, container as before   6 CRIU failed, container lost (images kept)
      7 time limit   8 something could not be undone (it is named)   9 checkpoint damaged or not usable here
      10 another operation holds this container
    ");
}

#[test]
fn help_of_lxc_restart() {
    insta::assert_snapshot!(stdout(&run(RESTART, &["--help"])), @r"
    Restart an LXC container from its checkpoint

    DIR is taken as it is if it exists, else as a directory of the container. Without -D it is LXCPATH/NAME/dump, where lxc-checkpoint puts a suspended container. A checkpoint of another container becomes a copy of it, which needs a definition and a root of its own.

    Usage: lxc-restart [OPTIONS] [NAME]

    Arguments:
      [NAME]
              Name of the container, where -n is not given

    Options:
      -n, --name <NAME>
              Name of the container

      -P, --lxcpath <PATH>
              Use this directory of containers instead of LXC's own

          --rcfile <FILE>
              Read this configuration instead of the container's own

      -o, --logfile <FILE>
              Write our own log to FILE

      -l, --logpriority <LEVEL>
              How much is logged: TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL

      -q, --quiet
              Say nothing but errors

      -?, --help
              Show this help

          --usage
              Show a short usage message

          --version
              Show the version

      -D, --checkpoint-dir <DIR>
              The directory of the checkpoint

      -d, --daemon
              Leave the container in the background (the default)

      -F, --foreground
              Stay until the container ends

          --veth <IF=NAME>
              Name of the host's end of a veth pair

          --pidfile <FILE>
              Write the monitor's pid to FILE

          --replace
              Stop the container first if it runs: it goes back to the checkpoint

      -v, --verbose
              Show CRIU's log while it works

      -A, --action-script <FILE>
              Also run this program at each of CRIU's actions

          --tcp-close
              Close the TCP connections with the outside; those within the container go on

          --force
              Go ahead although configuration, root or CRIU are not those of the checkpoint

          --dry-run
              Show what would be done, and CRIU's command line; do nothing

          --no-verify
              Do not compare the checksums of memory images

          --timeout <SECONDS>
              Give up and undo everything after this many seconds

    Exit status:
      0 done   1 other failure   2 usage   3 no such container, or not in the state asked for
      4 refused, nothing was touched   5 CRIU failed, container as before   6 CRIU failed, container lost (images kept)
      7 time limit   8 something could not be undone (it is named)   9 checkpoint damaged or not usable here
      10 another operation holds this container
    ");
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
            assert!(stdout(&told).contains("Exit status:") && stdout(&told).contains("--checkpoint-dir"), "{short}");
        }
    }
}

#[test]
fn version_and_usage_need_no_name() {
    for program in BOTH {
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let version = run(program, &["--version"]);
        assert_eq!(code(&version), 0);
        assert_eq!(stdout(&version), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        let usage = run(program, &["--usage"]);
        assert_eq!(code(&usage), 0);
        assert!(stdout(&usage).starts_with(&format!("Usage: {name} [OPTIONS]")), "{}", stdout(&usage));
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
        (&["-n", "x", "-l", "LOUD"], "'LOUD' is no log level"),
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
    assert!(stderr(&told).contains(words), "{arguments:?}: '{words}' is missing: {}", stderr(&told));
    assert!(!stderr(&told).contains("panicked"), "{arguments:?}: {}", stderr(&told));
}

/// Each option of LXC's own `lxc-checkpoint` (`lxc_checkpoint.c`, `arguments.h`), in both its forms.
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
        &["-n", "x", "-P", path, "--checkpoint-dir=/nowhere", "--stop", "--verbose", "--action-script=/bin/true"],
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
        assert!(stderr(&told).starts_with("lxc-checkpoint: x: "), "{arguments:?}: {}", stderr(&told));
    }
}
