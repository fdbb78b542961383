//! A child's end, waited for no longer than a limit.
//!
//! `Child::wait` has none, and neither have `Command::output` and `Command::status`: a program that
//! hangs would keep us, and with us the container. They are used nowhere (clippy.toml).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::files;
use super::process::Process;
use super::spawn::Place;

/// How long a process that was killed may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// More than this of what a program writes to a stream is not read, in bytes.
const OUTPUT_MAX: u64 = 64 << 20;

/// What a program has written, and how it has ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it has ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Waits for a child at most this long, and takes its status; none if it has not ended by then.
///
/// # Errors
/// Where it cannot be held, or its status was taken before.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    match Process::of_child(child)?.wait_exit(limit)? {
        true => child.try_wait(),
        false => Ok(None),
    }
}

/// Takes the status of a child that has ended, or was killed.
///
/// # Errors
/// As [`wait`], and `TimedOut` where it stays in the kernel although it was killed.
pub(crate) fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    wait(child, AFTER_KILL)?.ok_or_else(|| {
        let text = format!("process {} was killed and does not end", child.id());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })
}

/// Kills a child that leads a session, and with it those it has started there.
pub(crate) fn kill_session(child: &Child) -> io::Result<()> {
    // It has not been waited for, so the number is still that of its group.
    match killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Runs a program in a session of its own to its end, and reads what it writes; it ends with us.
///
/// # Errors
/// Where it cannot be started, and `TimedOut` where it has not ended within the limit: then it was
/// killed.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let (mut stdout, mut stderr) = (files::scratch("stdout")?, files::scratch("stderr")?);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = Place::here().own_session().dies_with_us().spawn(command)?;
    let Some(status) = wait(&mut child, limit)? else {
        kill_session(&child)?;
        ended(&mut child)?;
        let text = format!("it did not end within {} s and was killed", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    };
    Ok(Output { status, stdout: text_of(&mut stdout)?, stderr: text_of(&mut stderr)? })
}

fn text_of(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn a_program_is_run_to_its_end_and_its_streams_are_kept_apart() {
        let output =
            run(&mut shell("echo a; echo b >&2; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("a\n", "b\n"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_has_started() {
        let begin = Instant::now();
        let hangs = "trap '' TERM; sleep 1000 & echo $!; wait";
        let error = run(&mut shell(hangs), Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < AFTER_KILL);
        // What it has left behind in the background does not hold us up.
        let left = run(&mut shell("sleep 1000 & echo $!"), Duration::from_secs(10)).unwrap();
        let left = Process::open(left.stdout.trim().parse().unwrap()).unwrap();
        left.signal(libc::SIGKILL).unwrap();
    }

    #[test]
    fn a_child_that_goes_on_is_left_alone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(10)).unwrap().is_none());
        child.kill().unwrap();
        assert!(!ended(&mut child).unwrap().success());
    }
}
