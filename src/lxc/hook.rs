//! Hooks: how LXC runs a user's, and ([`HookCall`]) what LXC tells a hook program of ours.
//!
//! Mirrors `run_script_argv` and `run_lxc_hooks` of liblxc (utils.c, conf.c), so that a container's
//! hooks cannot tell our monitor from LXC's: `/bin/sh -c "exec SCRIPT…"`, the same arguments and
//! variables in both hook versions. Three things are better than there: a name cannot break out of
//! its quotes, a hook that hangs is ended after a while, and the environment holds what LXC
//! documents and nothing of the caller's.

mod call;

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustix::process::{PidfdFlags, pidfd_open};

use super::config::{HookKind, Nic, NicKind};
use crate::lxc::definition::Defined;
use crate::sys::spawn::Place;
use crate::sys::{child, poll};

pub(crate) use call::HookCall;

/// After this a hook is taken to hang. LXC waits for ever; a hook that takes half a minute is still
/// a hook.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How much of a hook's output is kept, in bytes: its end, where the reason stands.
const OUTPUT_MAX: usize = 16 * 1024;
/// How much of it goes into an error.
const REASON_MAX: usize = 512;
/// A pipe's size: no more can be left in it by a hook that has ended.
const PIPE_SIZE: usize = 64 * 1024;
/// The name of the section of hooks proper, as LXC spells it in arguments and variables.
const SECTION_LXC: &str = "lxc";
/// The same of network scripts.
const SECTION_NET: &str = "net";
/// The names of namespaces in the order in which LXC gives them to a stop hook.
pub const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"];

/// Names and values of variables that only some hooks get.
type Variables<'n> = Vec<(&'static str, &'n str)>;

/// What becomes of a container whose init has ended (`LXC_TARGET`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It stops.
    Stop,
    /// It starts again.
    Reboot,
}

impl Target {
    /// LXC's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Target::Stop => "stop",
            Target::Reboot => "reboot",
        }
    }
}

/// Whether an interface comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `lxc.net.N.script.up`.
    Up,
    /// `lxc.net.N.script.down`.
    Down,
}

impl Direction {
    /// LXC's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

/// What hooks are told of their container.
#[derive(Debug)]
pub struct Context<'a> {
    defined: &'a Defined,
    pid: Option<i32>,
    target: Option<Target>,
    namespaces: Vec<(&'static str, PathBuf)>,
    limit: Duration,
}

impl<'a> Context<'a> {
    /// A container that has no init yet.
    pub fn new(defined: &'a Defined) -> Context<'a> {
        Context { defined, pid: None, target: None, namespaces: Vec::new(), limit: LIMIT }
    }

    /// With the pid of its init (`LXC_PID`), which may have ended by now.
    pub fn with_pid(mut self, pid: i32) -> Context<'a> {
        self.pid = Some(pid);
        self
    }

    /// With what becomes of it (`LXC_TARGET`).
    pub fn with_target(mut self, target: Target) -> Context<'a> {
        self.target = Some(target);
        self
    }

    /// With its namespaces (`LXC_NET_NS`, …, and a stop hook's arguments): names of [`NAMESPACES`],
    /// and paths.
    pub fn with_namespaces(mut self, namespaces: Vec<(&'static str, PathBuf)>) -> Context<'a> {
        self.namespaces = namespaces;
        self
    }

    /// With another time limit for each hook than [`LIMIT`].
    pub fn with_limit(mut self, limit: Duration) -> Context<'a> {
        self.limit = limit;
        self
    }

    /// The variables that every hook gets.
    fn environment(&self) -> Vec<(String, OsString)> {
        let config = &self.defined.config;
        let mut set: Vec<(String, OsString)> = Vec::new();
        let mut put = |name: &str, value: &OsStr| set.push((name.to_owned(), value.to_owned()));
        put("LXC_NAME", self.defined.name.as_str().as_ref());
        put("LXC_CONFIG_FILE", config.file().as_os_str());
        if let Some(mount) = self.defined.rootfs_mount() {
            put("LXC_ROOTFS_MOUNT", mount.as_os_str());
        }
        put("LXC_ROOTFS_PATH", self.defined.rootfs.as_os_str());
        for (name, key) in
            [("LXC_CONSOLE", "lxc.console.path"), ("LXC_CONSOLE_LOGPATH", "lxc.console.logfile")]
        {
            if let Some(value) = config.item_os(key) {
                put(name, &value);
            }
        }
        if Path::new("/proc/self/ns/cgroup").exists() {
            put("LXC_CGNS_AWARE", "1".as_ref());
        }
        // Unset, it is what LXC's monitor logs by itself.
        let level = config.item("lxc.log.level").filter(|level| level != "NOTSET");
        put("LXC_LOG_LEVEL", level.as_deref().unwrap_or("ERROR").as_ref());
        put("LXC_HOOK_VERSION", config.hook_version().to_string().as_ref());
        if let Some(pid) = self.pid {
            put("LXC_PID", pid.to_string().as_ref());
        }
        if let Some(target) = self.target {
            put("LXC_TARGET", target.as_str().as_ref());
        }
        for (name, path) in &self.namespaces {
            put(&format!("LXC_{}_NS", name.to_uppercase()), path.as_os_str());
        }
        set
    }

    fn run(
        &self,
        script: &str,
        section: &str,
        kind: &str,
        extra: &[String],
        more: &[(&str, &str)],
    ) -> Result<()> {
        let version = self.defined.config.hook_version();
        let mut environment = self.environment();
        if version != 0 {
            let of_version_1 = [("LXC_HOOK_TYPE", kind), ("LXC_HOOK_SECTION", section)];
            let added =
                of_version_1.iter().chain(more).map(|(n, v)| ((*n).to_owned(), OsString::from(v)));
            environment.extend(added);
        }
        let line = command_line(version, script, self.defined.name.as_str(), section, kind, extra);
        run(&line, environment, self.limit)
            .with_context(|| format!("run the {kind} hook '{script}'"))
    }
}

/// Runs all hooks of one kind that belong on the host, in order. As with LXC, the first that fails
/// is the last.
pub fn run_all(kind: HookKind, context: &Context<'_>) -> Result<()> {
    let name = kind.key().trim_start_matches("lxc.hook.");
    // Only this hook, and only in version 0, gets the namespaces as arguments, too.
    let extra: Vec<String> = match (kind, context.defined.config.hook_version()) {
        (HookKind::Stop, 0) => {
            context.namespaces.iter().map(|(n, path)| format!("{n}:{}", path.display())).collect()
        }
        _ => Vec::new(),
    };
    for script in context.defined.config.hooks(kind) {
        context.run(script, SECTION_LXC, name, &extra, &[])?;
    }
    Ok(())
}

/// Runs the up or down script of an interface, if it has one. `host` is the host's end of a veth
/// pair.
pub fn run_net_script(
    nic: &Nic,
    direction: Direction,
    host: Option<&str>,
    context: &Context<'_>,
) -> Result<()> {
    let script = match direction {
        Direction::Up => &nic.script_up,
        Direction::Down => &nic.script_down,
    };
    let Some(script) = script else { return Ok(()) };
    let Some((extra, more)) = net_arguments(nic, host) else { return Ok(()) };
    context.run(script, SECTION_NET, direction.as_str(), &extra, &more)
}

/// The arguments of a network script and, for version 1, its variables; none for a kind without
/// scripts.
fn net_arguments<'n>(nic: &'n Nic, host: Option<&'n str>) -> Option<(Vec<String>, Variables<'n>)> {
    let kind = nic.kind.as_str();
    let link = nic.link.as_deref().unwrap_or_default();
    let host = host.unwrap_or_default();
    let mut words = vec![kind];
    let mut variables = vec![("LXC_NET_TYPE", kind)];
    match nic.kind {
        NicKind::None => return None,
        NicKind::Empty => {}
        NicKind::Veth => {
            words.extend([link, host]);
            variables.extend([("LXC_NET_PEER", host), ("LXC_NET_PARENT", link)]);
        }
        NicKind::Macvlan | NicKind::Phys => {
            words.push(link);
            variables.push(("LXC_NET_PARENT", link));
        }
        NicKind::Ipvlan | NicKind::Vlan => words.push(link),
    }
    // LXC's shell swallows an empty word, too: a veth without a link has its host's end as the
    // second argument.
    Some((words.into_iter().filter(|w| !w.is_empty()).map(str::to_owned).collect(), variables))
}

/// What the shell is given. The script is the user's own piece of shell, arguments and all.
fn command_line(
    version: u32,
    script: &str,
    name: &str,
    section: &str,
    kind: &str,
    extra: &[String],
) -> String {
    let mut line = format!("exec {script}");
    if version == 0 {
        for word in [name, section, kind] {
            line.push_str(&format!(" {}", quoted(word)));
        }
    }
    for word in extra {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-@%+,=".contains(&b);
        let word = if word.bytes().all(plain) { word.clone() } else { quoted(word) };
        line.push_str(&format!(" {word}"));
    }
    line
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs a line of shell to its end; an error is anything but success.
#[expect(clippy::disallowed_methods, reason = "the pipe does not block")]
fn run(line: &str, environment: Vec<(String, OsString)>, limit: Duration) -> Result<()> {
    let (mut reader, writer) = io::pipe().context("make a pipe")?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("set a pipe up")?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", line])
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("duplicate a descriptor")?)
        .stderr(writer);
    // Its session is its process group, too: by that all of it can be ended.
    let mut child = Place::here().own_session().spawn(&mut command).context("start /bin/sh")?;
    // The command holds our copies of the pipe's other end.
    drop(command);
    let mut output = Vec::new();
    let in_time = wait(&child, &mut reader, &mut output, limit);
    if !matches!(in_time, Ok(true)) {
        child::kill_session(&child).context("end it, for it hangs")?;
    }
    let status = child::ended(&mut child).context("wait for it")?;
    let mut left = PIPE_SIZE;
    while left > 0 {
        match read_some(&mut reader, &mut output) {
            Some(read) if read > 0 => left = left.saturating_sub(read),
            _ => break,
        }
    }
    let output = String::from_utf8_lossy(&output);
    for text in output.lines() {
        log::info!("{text}");
    }
    if !in_time? {
        bail!("it did not end within {} s and was killed", limit.as_secs_f32());
    }
    if status.success() { Ok(()) } else { Err(anyhow!(in_words(status, &output))) }
}

/// Waits for the end of a child and takes what it writes; false when the limit has passed before.
///
/// The end of its output is not waited for: a program that a hook leaves behind may hold the pipe
/// for ever.
fn wait(
    child: &Child,
    reader: &mut PipeReader,
    output: &mut Vec<u8>,
    limit: Duration,
) -> Result<bool> {
    // Not `Process`: a hook that has ended already is no error.
    let pidfd = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())
        .context("hold it")?;
    let end = Instant::now() + limit;
    let mut open = true;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut watched = vec![pidfd.as_fd()];
        watched.extend(open.then(|| reader.as_fd()));
        let come = poll::readable_among(&watched, left).context("wait for it")?;
        if come.first() == Some(&true) {
            return Ok(true);
        }
        if come.get(1) == Some(&true) {
            open = read_some(reader, output) != Some(0);
        }
    }
}

/// How many bytes there were: 0 at the end, none if nothing is there now.
fn read_some(reader: &mut PipeReader, output: &mut Vec<u8>) -> Option<usize> {
    let mut buffer = [0; 4096];
    match reader.read(&mut buffer) {
        Ok(length) => {
            output.extend_from_slice(&buffer[..length]);
            let too_many = output.len().saturating_sub(OUTPUT_MAX);
            output.drain(..too_many);
            Some(length)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            None
        }
        Err(_) => Some(0),
    }
}

fn in_words(status: ExitStatus, output: &str) -> String {
    let end = match (status.code(), status.signal()) {
        // The shell's own codes.
        (Some(126), _) => "it cannot be executed".to_owned(),
        (Some(127), _) => "there is no such program".to_owned(),
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    };
    let trimmed = output.trim();
    let from = (trimmed.len().saturating_sub(REASON_MAX)..=trimmed.len())
        .find(|at| trimmed.is_char_boundary(*at));
    let said =
        trimmed.get(from.unwrap_or(0)..).unwrap_or_default().lines().collect::<Vec<_>>().join("; ");
    if said.is_empty() { end } else { format!("{end}: {said}") }
}

#[cfg(test)]
mod tests;
