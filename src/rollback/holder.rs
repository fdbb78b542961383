//! Who holds a container: what the lock's file says to those who find it taken.

use std::fmt;

use crate::sys::process::Process;

/// A command that takes a container's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `lxc-checkpoint`.
    Checkpoint,
    /// `lxc-restart`.
    Restore,
    /// `lxc-cr prepare`.
    Prepare,
    /// `lxc-cr prepare --host`, on the host as a whole.
    PrepareHost,
    /// `lxc-cr recover`.
    Recover,
    /// `lxc-cr remove`.
    Remove,
    /// `lxc-cr prune`.
    Prune,
    /// One of LXC's hooks.
    Hook,
}

/// Each command and the name under which the lock's file has it.
const NAMES: &[(Command, &str)] = &[
    (Command::Checkpoint, "lxc-checkpoint"),
    (Command::Restore, "lxc-restart"),
    (Command::Prepare, "lxc-cr prepare"),
    (Command::PrepareHost, "lxc-cr prepare --host"),
    (Command::Recover, "lxc-cr recover"),
    (Command::Remove, "lxc-cr remove"),
    (Command::Prune, "lxc-cr prune"),
    (Command::Hook, "a hook"),
];

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(command, _)| command == self).map_or("", |(_, name)| name))
    }
}

/// The process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its command; none for one that a newer version knows, or has not written yet.
    pub command: Option<Command>,
    /// Its pid and start time, unless it has not written them yet.
    process: Option<(i32, Option<u64>)>,
    /// As it is written: "lxc-checkpoint (pid 812)".
    text: String,
}

impl Holder {
    /// Reads the content of a lock: `lxc-checkpoint (pid 812)`, and the start time in the next
    /// line.
    pub fn parse(content: &str) -> Holder {
        let mut lines = content.lines();
        let text = lines.next().unwrap_or_default().trim().to_owned();
        let start_time = lines.next().and_then(|line| line.trim().parse().ok());
        let (name, pid) = match text.rsplit_once(" (pid ") {
            Some((name, rest)) => (name, rest.strip_suffix(')').and_then(|pid| pid.parse().ok())),
            None => (text.as_str(), None),
        };
        let command = NAMES.iter().find(|(_, known)| *known == name).map(|(command, _)| *command);
        Holder { command, process: pid.map(|pid| (pid, start_time)), text }
    }

    /// What a lock's file says of this process, started at `start_time`.
    pub fn content(command: Command, pid: u32, start_time: u64) -> String {
        format!("{command} (pid {pid})\n{start_time}\n")
    }

    /// Its pid.
    pub fn pid(&self) -> Option<i32> {
        self.process.map(|(pid, _)| pid)
    }

    /// Whether it has ended. One that has not written its name yet counts as ended: it is about to.
    pub fn has_ended(&self) -> bool {
        match self.process {
            Some((pid, Some(start_time))) => Process::reopen(pid, start_time).is_err(),
            _ => true,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "another operation" } else { &self.text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (command, _) in NAMES {
            let holder = Holder::parse(&Holder::content(*command, 812, 77));
            assert_eq!((holder.command, holder.pid()), (Some(*command), Some(812)));
            assert_eq!(holder.to_string(), format!("{command} (pid 812)"));
        }
        let newer = Holder::parse("lxc-cr migrate (pid 9)\n1\n");
        assert_eq!((newer.command, newer.pid()), (None, Some(9)));
        assert_eq!(Holder::parse("").to_string(), "another operation");
    }
}
