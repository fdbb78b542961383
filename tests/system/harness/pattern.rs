//! The pattern program in a container (`tests/system/pattern/`): memory of known content.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::World;
use super::container::Container;
use super::enter::PATTERN;
use super::run::{patient, wait_for};

/// Where it listens.
pub const PORT: u16 = 7001;
/// For an answer that may wait for all of its memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// For all pages to be there.
const FILL_LIMIT: Duration = Duration::from_secs(60);

/// A container with the program, which holds so many mebibytes.
pub fn with_pattern(world: &World, mebibytes: usize) -> Container<'_> {
    let container = world.container();
    let root = container.rootfs();
    fs::copy(PATTERN, root.join("bin/pattern")).unwrap();
    fs::set_permissions(root.join("bin/pattern"), fs::Permissions::from_mode(0o755)).unwrap();
    let inittab = root.join("etc/inittab");
    let text =
        fs::read_to_string(&inittab).unwrap() + &format!("::once:/bin/pattern {mebibytes}\n");
    fs::write(inittab, text).unwrap();
    container.start();
    drop(container.witness());
    drop(Pattern::connect(&container));
    container
}

/// A connection to the pattern program.
#[derive(Debug)]
pub struct Pattern(BufReader<TcpStream>);

impl Pattern {
    /// Connects as soon as it listens.
    pub fn connect(container: &Container<'_>) -> Pattern {
        wait_for("the pattern program", patient(Duration::from_secs(30)), || {
            Pattern::try_connect(container)
        })
        .unwrap()
    }

    /// Connects; none where it does not listen.
    pub fn try_connect(container: &Container<'_>) -> Option<Pattern> {
        let stream =
            TcpStream::connect_timeout(&(container.address(), PORT).into(), Duration::from_secs(2))
                .ok()?;
        stream.set_read_timeout(Some(patient(ANSWER_LIMIT))).unwrap();
        Some(Pattern(BufReader::new(stream)))
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) {
        // One that has ended is noticed when it should answer.
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes());
    }

    /// Its answer; none if it has ended without one.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)
            .map(|_| line.trim().to_owned())
    }

    /// Sends a line, and gives the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.hear().unwrap_or_else(|| format!("no answer to '{line}'"))
    }
}

/// Stops and continues the monitor, so that the container gets ahead of it.
pub fn hinder(monitor: Pid, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        kill(monitor, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(3));
        kill(monitor, Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The pid in a file.
pub fn pid_of(pidfile: &Path) -> Pid {
    pid_if_any(pidfile).unwrap_or_else(|| panic!("there is no pid in {}", pidfile.display()))
}

/// The same; none where the file is gone, because the monitor has ended.
pub fn pid_if_any(pidfile: &Path) -> Option<Pid> {
    let text = fs::read_to_string(pidfile).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// The process that ends the container if the monitor dies.
pub fn keeper_of(monitor: Pid) -> i32 {
    keeper_if_any(monitor).unwrap_or_else(|| panic!("{monitor} has no keeper"))
}

/// The same while there is one.
pub fn keeper_if_any(monitor: Pid) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
    let is_keeper = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "lxc-cr-keeper")
    };
    children.split_whitespace().find(is_keeper)?.parse().ok()
}

/// Waits until a process is gone, of which this is the directory in /proc.
pub fn gone(path: &str) {
    wait_for(&format!("{path} to be gone"), patient(Duration::from_secs(20)), || {
        let state = fs::read_to_string(format!("{path}/stat")).unwrap_or_default();
        let dead = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        dead.then_some(())
    })
    .unwrap();
}

/// The largest memory image of a checkpoint.
pub fn largest_image(dir: &Path) -> PathBuf {
    let images = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let of_memory =
        images.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pages-"));
    of_memory.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Waits until all of its memory is there.
pub fn wait_until_filled(container: &Container<'_>) {
    let filled = || (!container.lxc_cr("list").ok().stdout.contains("filling")).then_some(());
    wait_for("its memory to be there", patient(FILL_LIMIT), filled).unwrap();
}
