//! Faults: a command is stopped at an exact moment, something goes wrong there, and it goes on.
//! Afterwards the container must run as before, or its checkpoint must bring it back; and `lxc-cr
//! recover` leaves no trace on the host.
//!
//! There are two kinds of moments. CRIU's actions: a user's action script stops there until it is
//! told what its own end is to be. And the steps of our own commands, which are their system calls
//! that change anything: the command is traced, and stops before the n-th.

pub mod case;
pub mod gate;
pub mod inflict;
pub mod peer;
pub mod tracer;

use std::fmt;

/// What is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `lxc-checkpoint -s`: the container is stopped when its checkpoint is complete.
    Suspend,
    /// `lxc-checkpoint`: it goes on.
    Checkpoint,
    /// `lxc-restart`.
    Restart,
}

/// All of them.
pub const COMMANDS: &[Command] = &[Command::Suspend, Command::Checkpoint, Command::Restart];

impl Command {
    /// CRIU's actions, in order.
    pub fn actions(self) -> &'static [&'static str] {
        match self {
            Command::Suspend => &["pre-dump", "network-lock", "post-dump"],
            Command::Checkpoint => &["pre-dump", "network-lock", "post-dump", "network-unlock"],
            Command::Restart => &[
                "pre-restore",
                "setup-namespaces",
                "post-setup-namespaces",
                "post-restore",
                "network-unlock",
                "pre-resume",
                "post-resume",
            ],
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Suspend => "suspend",
            Command::Checkpoint => "checkpoint",
            Command::Restart => "restart",
        })
    }
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// While CRIU waits in the user's script.
    Action(&'static str),
    /// Before this step of ours, counted from 1.
    Step(usize),
    /// This many microseconds after the start, wherever that may be.
    After(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Action(name) => f.write_str(name),
            Moment::Step(number) => write!(f, "step {number}"),
            Moment::After(time) => write!(f, "after {:.1} ms", *time as f64 / 1000.0),
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command gets SIGKILL.
    OursKilled,
    /// CRIU gets SIGKILL.
    CriuKilled,
    /// The user's action script fails.
    ScriptFails,
    /// The command gets SIGINT.
    Interrupted,
    /// Its time limit passes.
    TimeLimit,
    /// The file system of the images is full.
    DiskFull,
    /// The file system of our state is full.
    StateFull,
    /// The bridge is deleted.
    BridgeDeleted,
    /// The container's init is killed.
    InitDies,
    /// The container's monitor is killed: LXC's at a checkpoint, ours at a restart.
    MonitorDies,
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault::OursKilled,
    Fault::CriuKilled,
    Fault::ScriptFails,
    Fault::Interrupted,
    Fault::TimeLimit,
    Fault::DiskFull,
    Fault::StateFull,
    Fault::BridgeDeleted,
    Fault::InitDies,
    Fault::MonitorDies,
];

impl Fault {
    /// Whether it can end the container by itself, whoever is at work.
    pub fn is_deadly(self) -> bool {
        matches!(self, Fault::InitDies | Fault::MonitorDies)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::OursKilled => "the command is killed",
            Fault::CriuKilled => "CRIU is killed",
            Fault::ScriptFails => "the action script fails",
            Fault::Interrupted => "SIGINT",
            Fault::TimeLimit => "time limit",
            Fault::DiskFull => "disk full",
            Fault::StateFull => "/run full",
            Fault::BridgeDeleted => "bridge deleted",
            Fault::InitDies => "init is killed",
            Fault::MonitorDies => "the monitor is killed",
        })
    }
}

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is disturbed.
    pub command: Command,
    /// When.
    pub moment: Moment,
    /// By what.
    pub fault: Fault,
}

impl Case {
    /// Whether it may cost the container its connections: the kernel lets go of what a killed CRIU
    /// has traced, and no action of CRIU's comes between its dump of sockets and its last one.
    pub fn may_cut_off(self) -> bool {
        let dumps = self.command != Command::Restart;
        self.fault == Fault::CriuKilled && dumps && !matches!(self.moment, Moment::Action(_))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} | {}", self.command, self.moment, self.fault)
    }
}

/// Every fault at every one of CRIU's actions.
pub fn at_actions() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in COMMANDS {
        for action in command.actions() {
            for fault in FAULTS {
                // There is no init yet.
                if (*action, *fault) != ("pre-restore", Fault::InitDies) {
                    cases.push(Case {
                        command: *command,
                        moment: Moment::Action(action),
                        fault: *fault,
                    });
                }
            }
        }
    }
    cases
}

/// How a case came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container runs, or runs again, and nothing was lost.
    Held(&'static str),
    /// The container runs on, but for its connections: CRIU was killed while it had their sockets
    /// in repair mode and its tasks could not be kept frozen.
    CutOff,
    /// The fault has ended the container before there was a checkpoint of it: nothing is left of
    /// it, and it starts anew.
    Ended,
    /// The moment did not come.
    NotReached,
    /// Why it did not hold.
    Lost(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Held(how) => write!(f, "held: {how}"),
            Outcome::CutOff => f.write_str("runs on, its connection is lost (as the README says)"),
            Outcome::Ended => f.write_str("ended by the fault itself; no trace, starts anew"),
            Outcome::NotReached => f.write_str("not reached"),
            Outcome::Lost(why) => write!(f, "NOT HELD: {why}"),
        }
    }
}
