//! Random kills: of CRIU, its children, its scripts, the monitor, the command, init and tasks, with
//! SIGKILL or SIGSTOP, at random moments of our commands. Afterwards the container runs or its
//! checkpoint restarts, no command is held up, and what was said of the container is true.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::container::Container;
use crate::harness::run::{Output, Run, ends_within, wait_for};
use crate::harness::{World, cgroups};

/// More than any command takes that is disturbed; one that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40);
/// How much longer than usual the next command may take.
const MORE: Duration = Duration::from_secs(2);
/// The exit code of a command that finds another at work.
const BUSY: i32 = 10;
/// How long a command or a monitor stays stopped.
const STOPPED: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Suspend,
    Checkpoint,
    Restart,
    Recover,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Criu,
    ChildOfCriu,
    Script,
    Monitor,
    Command,
    Init,
    Task,
}

const COMMANDS: [Command; 5] =
    [Command::Suspend, Command::Checkpoint, Command::Restart, Command::Recover, Command::Remove];
const VICTIMS: [Victim; 7] = [
    Victim::Criu,
    Victim::ChildOfCriu,
    Victim::Script,
    Victim::Monitor,
    Victim::Command,
    Victim::Init,
    Victim::Task,
];

/// One case.
#[derive(Clone, Copy, Debug)]
struct Case {
    command: Command,
    victim: Victim,
    signal: Signal,
    after: Duration,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { command, victim, signal, after } = self;
        write!(
            f,
            "{command:?} | {victim:?} | {signal} | after {:.1} ms",
            after.as_secs_f64() * 1000.0
        )
    }
}

/// How many cases came out how.
#[derive(Debug, Default)]
pub struct Tally {
    /// The container runs, or ran again from its checkpoint.
    pub held: usize,
    /// Nobody was there to be killed at that moment.
    pub missed: usize,
    /// The kill itself has ended the container.
    pub by_itself: usize,
    /// A CRIU that was killed has taken the container along, and that was told.
    pub by_ptrace: usize,
    /// What did not hold.
    pub lost: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { held, missed, by_itself, by_ptrace, lost } = self;
        write!(
            f,
            "{held} held ({missed} of them met nobody), {by_itself} ended by the kill itself, \
             {by_ptrace} ended by CRIU's ptrace and told so, {} NOT HELD",
            lost.len()
        )
    }
}

/// Runs this many cases; `tell` sees each.
pub fn run(world: &World, cases: usize, seed: u64, tell: &mut dyn FnMut(&str)) -> Tally {
    let mut random = Random(seed);
    let mut rig = Rig::new(world);
    let mut tally = Tally::default();
    for number in 0..cases {
        let command = COMMANDS[random.below(COMMANDS.len())];
        let longest = rig.usual(command).as_micros() as usize * 11 / 10;
        let case = Case {
            command,
            victim: match command {
                // They start nobody.
                Command::Recover | Command::Remove => Victim::Command,
                _ => VICTIMS[random.below(VICTIMS.len())],
            },
            signal: [Signal::SIGKILL, Signal::SIGSTOP][random.below(2)],
            after: Duration::from_micros(random.below(longest.max(1)) as u64),
        };
        let begin = Instant::now();
        let out = catch_unwind(AssertUnwindSafe(|| rig.try_case(case, &mut random, &mut tally)));
        let how = out.unwrap_or_else(|panic| {
            let text =
                panic.downcast_ref::<String>().cloned().unwrap_or_default().replace('\n', "; ");
            tally.lost.push(format!("{case}: {text}; it had said: {}", rig.said()));
            rig.reset();
            format!("NOT HELD: {text}")
        });
        tell(&format!("{number}: {case} | {how} | {:.1} s", begin.elapsed().as_secs_f64()));
    }
    rig.container.lxc("lxc-stop").arg("-k").output();
    tally
}

struct Rig<'w> {
    container: Container<'w>,
    lxcpath: PathBuf,
    images: PathBuf,
    said: PathBuf,
    usual: Vec<(Command, Duration)>,
}

impl<'w> Rig<'w> {
    fn new(world: &'w World) -> Rig<'w> {
        let container = world.container();
        let (images, said) = (world.images("kills").join("c"), world.images("kills").join("said"));
        let lxcpath = world.lxcpath().to_owned();
        let mut rig = Rig { container, lxcpath, images, said, usual: Vec::new() };
        for command in COMMANDS {
            rig.prepare(command);
            let took = rig.command(command).ok().took;
            rig.usual.push((command, took));
        }
        rig
    }

    fn usual(&self, command: Command) -> Duration {
        self.usual.iter().find(|(known, _)| *known == command).unwrap().1
    }

    fn command(&self, command: Command) -> Run {
        let ours = |program: &str| self.container.ours(program).arg("-D").arg(&self.images);
        match command {
            Command::Suspend => ours("lxc-checkpoint").arg("-s"),
            Command::Checkpoint => ours("lxc-checkpoint"),
            Command::Restart => ours("lxc-restart"),
            Command::Recover => self.container.lxc_cr("recover"),
            Command::Remove => {
                Run::ours("lxc-cr").args(["remove", "-P"]).arg(&self.lxcpath).arg(&self.images)
            }
        }
    }

    /// The container runs, or is suspended where it is to be restarted; one checkpoint is there
    /// where one is wanted.
    fn prepare(&self, command: Command) {
        if self.container.state() != "RUNNING" {
            self.container.start();
        }
        drop(self.container.witness());
        // Not what a killed `remove` has left beside it: the next one has to bear that.
        let _ = fs::remove_dir_all(&self.images);
        match command {
            Command::Restart => drop(self.command(Command::Suspend).ok()),
            Command::Remove => drop(self.command(Command::Checkpoint).ok()),
            Command::Suspend | Command::Checkpoint | Command::Recover => {}
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default().trim().replace('\n', "; ")
    }

    fn try_case(&mut self, case: Case, random: &mut Random, tally: &mut Tally) -> String {
        self.prepare(case.command);
        let init = (self.container.state() == "RUNNING").then(|| self.container.init_pid());
        let words = self.command(case.command).words();
        let script = format!("exec \"$@\" >{} 2>&1", self.said.display());
        let mut command = Run::new("sh").args(["-c", &script, "sh"]).args(words).spawn();
        thread::sleep(case.after);
        let victim = self.wait_for_victim(case.victim, &command, init, random);
        let hit = victim.is_some_and(|pid| kill(pid, case.signal).is_ok());
        let is_stopped = hit && case.signal == Signal::SIGSTOP;
        if is_stopped && case.victim == Victim::Command {
            thread::sleep(STOPPED);
            let _ = kill(victim.unwrap(), Signal::SIGCONT);
        }
        let in_time = ends_within(&command, LIMIT);
        if !in_time {
            let _ = command.kill();
        }
        let code = command.wait().unwrap().code();
        if is_stopped {
            let _ = kill(victim.unwrap(), Signal::SIGCONT);
        }
        assert!(in_time, "the command hangs");
        let recovered = self.recover();
        // LXC says that it runs until its monitor has seen the end of init.
        if hit && case.signal == Signal::SIGKILL && victim.map(|pid| pid.as_raw() as u32) == init {
            let ended = || (self.container.state() != "RUNNING").then_some(());
            wait_for("the container without its init to end", LIMIT, ended).unwrap();
        }
        assert!(
            recovered.success() && recovered.took < self.usual(Command::Recover) + MORE,
            "{recovered}"
        );
        if !hit {
            tally.missed += 1;
        }
        self.judge(case, code, tally)
    }

    /// As soon as nobody is at work any more: the monitor that a killed command had started may go
    /// on without it.
    fn recover(&self) -> Output {
        wait_for("the container to be free", LIMIT, || {
            let told = self.command(Command::Recover).output();
            (told.status.code() != Some(BUSY)).then_some(told)
        })
        .unwrap()
    }

    fn judge(&self, case: Case, code: Option<i32>, tally: &mut Tally) -> String {
        let said = self.said();
        if self.container.state() == "RUNNING" {
            self.container.witness().echo("it goes on");
            assert!(!said.contains("has ended"), "it runs, and is said to have ended");
            tally.held += 1;
            let why =
                if matches!(code, None | Some(0)) { String::new() } else { format!(": {said}") };
            return format!("runs; exit {code:?}{why}");
        }
        let claims = said.contains("running as before");
        if self.images.join("lxc-cr.toml").exists() && case.command != Command::Checkpoint {
            let told = self.command(Command::Restart).ok();
            assert!(told.took < self.usual(Command::Restart) + MORE, "{told}");
            self.container.witness().echo("it is back");
            tally.held += 1;
            return "its checkpoint restarts".to_owned();
        }
        let deadly = matches!(case.victim, Victim::Init | Victim::Monitor | Victim::Task)
            && case.signal == Signal::SIGKILL;
        if deadly {
            tally.by_itself += 1;
            return "ended by the kill itself".to_owned();
        }
        let of_criu = matches!(case.victim, Victim::Criu | Victim::ChildOfCriu)
            && case.signal == Signal::SIGKILL;
        assert!(of_criu, "neither runs nor has a checkpoint");
        assert!(!claims, "it has ended, and is said to be running as before");
        tally.by_ptrace += 1;
        "ended by CRIU's ptrace, and told so".to_owned()
    }

    /// As soon as there is one, while the command is at work.
    fn wait_for_victim(
        &self,
        victim: Victim,
        command: &Child,
        init: Option<u32>,
        random: &mut Random,
    ) -> Option<Pid> {
        loop {
            let found = self.find(victim, command, init, random);
            if found.is_some() || has_ended(command.id()) {
                return found;
            }
            thread::yield_now();
        }
    }

    fn find(
        &self,
        victim: Victim,
        command: &Child,
        init: Option<u32>,
        random: &mut Random,
    ) -> Option<Pid> {
        let pid = |number: u32| Pid::from_raw(number.cast_signed());
        let criu = || processes().into_iter().find(|p| comm(*p) == "criu" && is_leader(*p));
        let found = match victim {
            Victim::Command => Some(command.id()),
            Victim::Criu => criu(),
            Victim::ChildOfCriu => {
                let children = children(criu()?);
                (!children.is_empty()).then(|| children[random.below(children.len())])
            }
            Victim::Script => processes().into_iter().find(|p| comm(*p) == "lxc-cr-action"),
            Victim::Init => init,
            Victim::Monitor => match init {
                Some(init) => parent(init),
                None => children(command.id()).into_iter().next(),
            },
            Victim::Task => {
                let payload =
                    cgroups::unified().join(format!("lxc.payload.{}", self.container.name()));
                let tasks = fs::read_to_string(payload.join("cgroup.procs")).unwrap_or_default();
                let tasks: Vec<u32> = tasks.lines().filter_map(|line| line.parse().ok()).collect();
                // The witness is whom the judge asks.
                let others: Vec<u32> =
                    tasks.into_iter().filter(|task| comm(*task) != "witness").collect();
                (!others.is_empty()).then(|| others[random.below(others.len())])
            }
        };
        found.filter(|number| *number > 1).map(pid)
    }

    /// After a case that did not hold: everything anew, by force.
    fn reset(&self) {
        let payload = cgroups::unified().join(format!("lxc.payload.{}", self.container.name()));
        let _ = fs::write(payload.join("cgroup.freeze"), "0");
        let _ = fs::write(payload.join("cgroup.kill"), "1");
        self.container.lxc("lxc-stop").arg("-k").output();
        self.command(Command::Recover).output();
        for kind in ["payload", "monitor"] {
            cgroups::remove_all(&format!("lxc.{kind}.{}", self.container.name()));
        }
    }
}

fn processes() -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn field(pid: u32, number: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether a child of ours has ended that is not collected yet.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn parent(pid: u32) -> Option<u32> {
    field(pid, 4)
}

fn is_leader(pid: u32) -> bool {
    field(pid, 6) == Some(pid)
}

fn children(pid: u32) -> Vec<u32> {
    let path = Path::new("/proc")
        .join(pid.to_string())
        .join("task")
        .join(pid.to_string())
        .join("children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
