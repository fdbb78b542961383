//! Runs a case and says how it came out.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::inflict::{Inflicted, SIZE, TIME_LIMIT, Target, child_of, inflict};
use super::tracer::Traced;
use super::{Case, Command, Fault, Moment, Outcome};
use crate::harness::enter::{BRIDGE, PROGRAMS};
use crate::harness::leak::Snapshot;
use crate::harness::run::{Run, ends_within, wait_for};
use crate::harness::witness::{Status, Witness};
use crate::harness::{Container, World, cgroups};

/// More than any command takes that is disturbed; one that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40);
/// The exit code of a command that finds another at work.
const BUSY: i32 = 10;

/// One container, on which one case after the other is run.
#[derive(Debug)]
pub struct Rig<'w> {
    container: Container<'w>,
    /// A small file system for images.
    images: PathBuf,
    /// A place for scripts and what commands say.
    scratch: PathBuf,
    /// The host while the container is stopped.
    stopped: Snapshot,
    client: Option<(Witness, Status)>,
    /// The container is stopped, and its checkpoint is there.
    suspended: bool,
}

impl<'w> Rig<'w> {
    /// Makes the container. The file system of our state must have been limited.
    pub fn new(world: &'w World) -> Rig<'w> {
        let images = world.images("small");
        Run::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=700"), "tmpfs"])
            .arg(&images)
            .ok();
        let (container, scratch) = (world.container(), world.images("scratch"));
        // Leaves what stays after the first use.
        container.start();
        drop(container.witness());
        container.kill();
        let stopped = Snapshot::take().without(images.parent().unwrap());
        Rig { container, images, scratch, stopped, client: None, suspended: false }
    }

    /// Runs a case. Whatever comes out, the next one can be run.
    pub fn run(&mut self, case: Case) -> Outcome {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_run(case)))
            .unwrap_or_else(|panic| Outcome::Lost(text_of(panic.as_ref()).replace('\n', "; ")));
        if matches!(outcome, Outcome::Lost(_)) {
            self.reset();
        }
        outcome
    }

    /// How many steps a command takes, and what each of them is.
    pub fn steps(&mut self, command: Command) -> Vec<String> {
        self.prepare(command);
        let traced = Traced::start(self.command(command, None, false));
        let steps = traced.run_to_its_end();
        self.suspended = command == Command::Suspend;
        if command == Command::Restart {
            self.suspend();
        }
        steps
    }

    /// How long a command takes that is not disturbed.
    pub fn duration(&mut self, command: Command) -> Duration {
        self.prepare(command);
        let took = self.command(command, None, false).ok().took;
        self.suspended = command == Command::Suspend;
        took
    }

    fn try_run(&mut self, case: Case) -> Outcome {
        self.prepare(case.command);
        // Of a container that has just stopped some things are still about to go.
        let before =
            if case.command == Command::Restart { self.stopped.clone() } else { self.host() };
        let init = (case.command != Command::Restart).then(|| self.container.init_pid());
        let Some(inflicted) = self.disturb(case, init) else {
            // Then nothing has disturbed a restart, and the next one needs a checkpoint of its own.
            self.suspended &= self.container.state() != "RUNNING";
            return Outcome::NotReached;
        };
        inflicted.take_back();
        if case.command == Command::Restart {
            self.let_the_monitor_come_to_it();
        }
        self.recover();
        let outcome = self.judge(case, &before);
        let left = fs::read_dir(&self.images)
            .unwrap()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        let left: Vec<String> = left.filter(|name| name != "c" && name != "c.failed.log").collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        outcome
    }

    /// Runs the command and disturbs it; none if the moment did not come.
    fn disturb(&mut self, case: Case, init: Option<u32>) -> Option<Inflicted> {
        let limited = case.fault == Fault::TimeLimit;
        let images = self.images.clone();
        // What cannot be inflicted is told when the command has come to its end: it would disturb
        // the cases to come.
        let inflict = |ours, started, criu, init| {
            let target =
                Target { command: case.command, ours, started, criu, init, images: &images };
            catch_unwind(AssertUnwindSafe(|| inflict(case.fault, &target)))
        };
        let started = Instant::now();
        let inflicted = match case.moment {
            Moment::Action(action) => {
                let gate = Gate::at(&self.scratch.join("gate"), action);
                let mut command =
                    self.spawn(self.command(case.command, Some(&gate.script), limited));
                let inflicted = gate.wait(&command).map_or(Ok(None), |stopped| {
                    let inflicted =
                        inflict(&command, started, Some(stopped.criu), init.or(stopped.init));
                    stopped.release(
                        inflicted.as_ref().ok().and_then(Option::as_ref).map_or(0, |i| i.status),
                    );
                    inflicted
                });
                self.end(&mut command);
                inflicted
            }
            Moment::Step(number) => {
                let mut traced =
                    Traced::start(self.saying(self.command(case.command, None, limited)));
                let mut inflicted = Ok(None);
                if traced.run_to_step(number) {
                    let ours = traced.child();
                    let criu = criu_of(ours.id()).or_else(|| criu_of(child_of(ours.id())?));
                    inflicted = inflict(ours, started, criu, init);
                }
                let mut command = traced.let_go();
                self.end(&mut command);
                inflicted
            }
            Moment::After(microseconds) => {
                let mut command = self.spawn(self.command(case.command, None, limited));
                thread::sleep(
                    Duration::from_micros(microseconds).saturating_sub(started.elapsed()),
                );
                let inflicted = inflict(&command, started, criu_of(command.id()), init);
                self.end(&mut command);
                inflicted
            }
        };
        inflicted.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn command(&self, command: Command, script: Option<&Path>, limited: bool) -> Run {
        let run = match command {
            Command::Suspend => self.container.ours("lxc-checkpoint").arg("-s"),
            Command::Checkpoint => self.container.ours("lxc-checkpoint"),
            Command::Restart => self.container.ours("lxc-restart"),
        };
        let run = run.arg("-D").arg(self.images.join("c"));
        let run =
            if limited { run.arg("--timeout").arg(TIME_LIMIT.as_secs().to_string()) } else { run };
        match script {
            Some(script) => run.arg("-A").arg(script),
            None => run,
        }
    }

    fn spawn(&self, run: Run) -> Child {
        self.saying(run).spawn()
    }

    /// Writes both streams to a file; the process is the command itself.
    fn saying(&self, run: Run) -> Run {
        let script = format!("exec \"$@\" >{} 2>&1", self.scratch.join("said").display());
        Run::new("sh").args(["-c", &script, "sh"]).args(run.words())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.scratch.join("said")).unwrap_or_default().trim().replace('\n', "; ")
    }

    fn end(&self, command: &mut Child) {
        let in_time = ends_within(command, LIMIT);
        if !in_time {
            let _ = command.kill();
        }
        command.wait().unwrap();
        assert!(in_time, "the command hangs; it said: {}", self.said());
    }

    /// A monitor that a killed lxc-restart had just started goes on without it, and may have yet to
    /// take the lock.
    fn let_the_monitor_come_to_it(&self) {
        let program = Path::new(PROGRAMS).join("lxc-restart");
        let lives = || {
            let mut all = fs::read_dir("/proc").unwrap().flatten();
            all.any(|process| {
                fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program)
            })
        };
        let done = || (self.container.state() == "RUNNING" || !lives()).then_some(());
        wait_for("the monitor to come to an end", LIMIT, done)
            .unwrap_or_else(|e| panic!("{e}; said: {}", self.said()));
    }

    /// `lxc-cr recover`, as soon as nobody is at work any more; once more it has nothing to do.
    /// (The monitor that a killed lxc-restart had just started may take the lock in between.)
    fn recover(&self) {
        let recover = || {
            let told = wait_for("the container to be free", LIMIT, || {
                let told = self.container.lxc_cr("recover").output();
                (told.status.code() != Some(BUSY)).then_some(told)
            });
            told.unwrap_or_else(|e| panic!("{e}"))
        };
        let told = recover();
        assert!(told.success(), "{told}; the command said: {}", self.said());
        // Nobody may come by for a long time: CRIU's next action has seen to that.
        assert!(
            !told.stdout.contains("is not a checkpoint any more"),
            "{told}; the command said: {}",
            self.said()
        );
        let again = recover();
        assert!(again.success() && again.stdout.is_empty(), "a second time: {again}, after {told}");
    }

    fn judge(&mut self, case: Case, before: &Snapshot) -> Outcome {
        if self.container.state() == "RUNNING" {
            if !self.assert_well(case.may_cut_off()) {
                self.assert_host(before);
                return Outcome::CutOff;
            }
            match case.command {
                Command::Restart => {
                    self.suspend();
                    self.assert_host(before);
                    return Outcome::Held("runs again");
                }
                command => {
                    self.assert_host(before);
                    let outdated = command == Command::Suspend && self.images.join("c").exists();
                    assert!(
                        !outdated,
                        "runs on, and a checkpoint tells of a stop; said: {}",
                        self.said()
                    );
                    return Outcome::Held("runs on");
                }
            }
        }
        self.assert_host(&self.stopped);
        let usable = self.images.join("c/lxc-cr.toml").exists();
        if !usable {
            self.client = None;
            self.suspended = false;
            assert!(
                case.fault.is_deadly(),
                "neither runs nor has a checkpoint; the command said: {}",
                self.said()
            );
            self.prepare(Command::Checkpoint);
            return Outcome::Ended;
        }
        self.container.ours("lxc-restart").arg("-D").arg(self.images.join("c")).ok();
        self.suspended = false;
        self.assert_well(case.fault.is_deadly());
        Outcome::Held("its checkpoint restarts")
    }

    /// The container goes on where it was, on its connection. What ends an init that talks to the
    /// world ends its connections, too, whoever is at work: `fresh` lets the client connect anew
    /// where that is so. Says whether it was on the old one.
    fn assert_well(&mut self, fresh: bool) -> bool {
        let (mut witness, before) = self.client.take().unwrap();
        let on_old = catch_unwind(AssertUnwindSafe(|| witness.assert_goes_on_from(&before)));
        let was_on_old = on_old.is_ok();
        let now = match on_old {
            Ok(now) => now,
            Err(_) if fresh => {
                witness = self.container.witness();
                witness.assert_goes_on_from(&before)
            }
            Err(panic) => {
                panic!("{}; the command said: {}", text_of(panic.as_ref()), self.said());
            }
        };
        let veth = self.container.veth();
        let bridge = fs::read_link(format!("/sys/class/net/{veth}/master")).ok();
        assert!(
            bridge.is_some_and(|path| path.ends_with(BRIDGE)),
            "{veth} is not on {BRIDGE}; said: {}",
            self.said()
        );
        self.client = Some((witness, now));
        was_on_old
    }

    fn host(&self) -> Snapshot {
        Snapshot::take().without(self.images.parent().unwrap())
    }

    fn assert_host(&self, before: &Snapshot) {
        if let Err(left) = before.differences_without(self.images.parent().unwrap()) {
            panic!("{left}; the command said: {}", self.said());
        }
    }

    /// Sees to it that the container runs, or is suspended, with a client.
    fn prepare(&mut self, command: Command) {
        if command == Command::Restart && self.suspended {
            return;
        }
        if self.suspended {
            self.container.ours("lxc-restart").arg("-D").arg(self.images.join("c")).ok();
            self.suspended = false;
        } else if self.container.state() != "RUNNING" {
            self.client = None;
            self.container.start();
        }
        let mut witness = match self.client.take() {
            Some((witness, _)) => witness,
            None => self.container.witness(),
        };
        let status = witness.status();
        self.client = Some((witness, status));
        self.empty();
        if command == Command::Restart {
            self.suspend();
        }
    }

    fn suspend(&mut self) {
        self.empty();
        self.command(Command::Suspend, None, false).ok();
        self.suspended = true;
    }

    fn empty(&self) {
        for entry in fs::read_dir(&self.images).unwrap().flatten() {
            let is_dir = entry.file_type().unwrap().is_dir();
            if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
                .unwrap();
        }
    }

    /// After a case that did not hold: everything anew, by force.
    fn reset(&mut self) {
        self.client = None;
        self.suspended = false;
        let payload = cgroups::unified().join(format!("lxc.payload.{}", self.container.name()));
        let _ = fs::write(payload.join("cgroup.freeze"), "0");
        let _ = fs::write(payload.join("cgroup.kill"), "1");
        self.container.lxc("lxc-stop").arg("-k").output();
        self.container.lxc_cr("recover").output();
        for dir in fs::read_dir("/run/lxc-cr").into_iter().flatten().flatten() {
            for name in ["journal", "held"] {
                let _ = fs::remove_file(dir.path().join(name));
            }
        }
        for kind in ["payload", "monitor"] {
            cgroups::remove_all(&format!("lxc.{kind}.{}", self.container.name()));
        }
        self.empty();
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        self.container.lxc("lxc-stop").arg("-k").output();
        Run::new("umount").arg(&self.images).output();
    }
}

/// What a panic has said.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// The CRIU that a command has started.
fn criu_of(command: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{command}/task/{command}/children")).ok()?;
    let mut pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    pids.find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "criu")
    })
}
