//! Running a program with a time limit, and waiting for a condition.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What programs in the host are looked up in.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A command of LXC, CRIU or ours that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a condition that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// In the environment: how many times slower than others this machine is, one that is emulated
/// above all.
pub const SLOW: &str = "LXC_CR_SLOW";

/// A time limit as it is on this machine.
pub fn patient(limit: Duration) -> Duration {
    let times = std::env::var(SLOW).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    limit * times
}

/// Looks until `condition` holds, at most for `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, String> {
    let (started, limit) = (Instant::now(), patient(limit));
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if started.elapsed() > limit {
            return Err(format!("waited {} s in vain for {what}", limit.as_secs()));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// A command to run with a clean environment, in a process group of its own.
#[derive(Debug)]
pub struct Run {
    command: Command,
    input: Option<String>,
    limit: Duration,
}

impl Run {
    /// `program` is a path or looked up in [`PATH`].
    pub fn new(program: &str) -> Run {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
        Run { command, input: None, limit: LIMIT }
    }

    /// One of our programs.
    pub fn ours(program: &str) -> Run {
        Run::new(&format!("{}/{program}", super::enter::PROGRAMS))
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Run {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<std::ffi::OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        self.command.args(arguments);
        self
    }

    /// The program and its arguments.
    pub fn words(&self) -> Vec<std::ffi::OsString> {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(std::ffi::OsStr::to_owned).collect()
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Run {
        self.command.env(name, value);
        self
    }

    /// Standard input; without it there is none.
    pub fn input(mut self, text: impl Into<String>) -> Run {
        self.input = Some(text.into());
        self
    }

    /// The time after which the process group is killed.
    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// Starts it with no standard streams, for a program that stays; the caller waits for it.
    pub fn spawn(self) -> Child {
        self.spawn_with(Stdio::null())
    }

    /// The same with a standard input.
    pub fn spawn_with(mut self, input: Stdio) -> Child {
        let command =
            self.command.process_group(0).stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"))
    }

    /// Starts it with output streams that nobody reads any more; the caller waits for it.
    pub fn spawn_unheard(mut self) -> Child {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let stream = || Stdio::from(writer.try_clone().unwrap());
        let command =
            self.command.process_group(0).stdin(Stdio::null()).stdout(stream()).stderr(stream());
        command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"))
    }

    /// Starts it in a session of its own that this terminal controls; the caller waits for it.
    pub fn spawn_at(mut self, terminal: &OwnedFd) -> Child {
        let stream = || Stdio::from(terminal.try_clone().unwrap());
        let command = self.command.stdin(stream()).stdout(stream()).stderr(stream());
        let take = || {
            nix::unistd::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())?)
        };
        // SAFETY: only system calls, on a descriptor that the child has.
        unsafe { command.pre_exec(take) };
        command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"))
    }

    /// Runs it to its end and captures both streams, in files: a daemon that it leaves behind
    /// cannot hold us up by keeping one open.
    pub fn output(mut self) -> Output {
        let mut files = [scratch(), scratch(), scratch()];
        let [input, stdout, stderr] = &mut files;
        if let Some(text) = &self.input {
            input.write_all(text.as_bytes()).and_then(|()| input.rewind()).unwrap();
        }
        let stream = |file: &File| Stdio::from(file.try_clone().unwrap());
        self.command
            .process_group(0)
            .stdin(stream(input))
            .stdout(stream(stdout))
            .stderr(stream(stderr));
        let words: Vec<_> =
            self.words().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        let started = Instant::now();
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("start {line}: {e}"));
        let in_time = ends_within(&child, self.limit);
        if !in_time {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        }
        let status = child.wait().unwrap();
        let took = started.elapsed();
        Output { line, status, in_time, took, stdout: text_of(stdout), stderr: text_of(stderr) }
    }

    /// As [`Run::output`]; anything but success is a panic that shows it.
    pub fn ok(self) -> Output {
        let output = self.output();
        assert!(output.success(), "{output}");
        output
    }
}

fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a child ends in time; it is not collected.
pub fn ends_within(child: &Child, limit: Duration) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let deadline = Instant::now() + patient(limit);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// The command as it would be typed.
    pub line: String,
    /// Its status.
    pub status: ExitStatus,
    /// False if it was killed by the time limit.
    pub in_time: bool,
    /// From start to end.
    pub took: Duration,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Exit code 0, in time.
    pub fn success(&self) -> bool {
        self.in_time && self.status.success()
    }

    /// The exit code; a panic if it was ended by a signal or the limit.
    pub fn code(&self) -> i32 {
        assert!(self.in_time, "{self}");
        self.status.code().unwrap_or_else(|| panic!("{self}"))
    }

    /// Asserts the exit code.
    pub fn assert_code(&self, expected: i32) {
        assert_eq!(self.code(), expected, "{self}");
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match (self.in_time, self.status.code()) {
            (false, _) => "killed by the time limit".to_owned(),
            (true, Some(code)) => format!("exit code {code}"),
            (true, None) => format!("ended by signal {}", self.status.signal().unwrap_or_default()),
        };
        write!(
            f,
            "$ {}\n{}{}[{end} after {:.3} s]",
            self.line,
            self.stdout,
            self.stderr,
            self.took.as_secs_f64()
        )
    }
}
