//! LXC's own `lxc-checkpoint` under the same faults: what ours is measured against.
//!
//! It has nothing like `lxc-cr recover`, no lock and no journal; so after a fault only this is
//! asked: does the container run and answer on its connection, or else, does its checkpoint bring
//! it back?

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::gate::Gate;
use super::inflict::{SIZE, Target, inflict, pid};
use super::{Case, Command, Fault, Moment, Outcome};
use crate::harness::container::with_processes_in_the_root_cgroup;
use crate::harness::enter::BRIDGE;
use crate::harness::run::{Output, Run, ends_within, wait_for};
use crate::harness::witness::{Status, Witness};
use crate::harness::{Container, World, cgroups};

/// Longer than its commands take; one that takes longer hangs, and is ended.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether a fault of this kind can be made against it. It keeps no state of its own in /run.
pub fn knows(fault: Fault) -> bool {
    fault != Fault::StateFull
}

/// A container, made anew for each case.
#[derive(Debug)]
pub struct Peer<'w> {
    container: Container<'w>,
    /// A small file system for images.
    images: PathBuf,
    scratch: PathBuf,
}

impl<'w> Peer<'w> {
    /// Makes the container.
    pub fn new(world: &'w World) -> Peer<'w> {
        let images = world.images("peer");
        Run::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=700"), "tmpfs"])
            .arg(&images)
            .ok();
        Peer { container: world.container(), images, scratch: world.images("peer-scratch") }
    }

    /// Runs a case at one of CRIU's actions.
    pub fn run(&self, case: Case) -> Outcome {
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.try_run(case))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default();
                Outcome::Lost(text.lines().next().unwrap_or_default().to_owned())
            });
        self.clear_away();
        outcome
    }

    fn try_run(&self, case: Case) -> Outcome {
        let Moment::Action(action) = case.moment else { return Outcome::NotReached };
        self.container.start();
        let mut witness = self.container.witness();
        let before = witness.status();
        if case.command == Command::Restart {
            let told = self.container.stock_checkpoint(self.arguments(Command::Suspend, None));
            assert!(told.success(), "it cannot be suspended: {told}");
            self.container.wait_state("STOPPED");
        }
        let init = (case.command != Command::Restart).then(|| self.container.init_pid());
        let inflicted = with_processes_in_the_root_cgroup(|| {
            let started = Instant::now();
            let gate = Gate::at(&self.scratch.join("gate"), action);
            let mut command = self.spawn(self.arguments(case.command, Some(&gate.script)));
            let stopped = gate.wait(&command);
            let inflicted = stopped.and_then(|stopped| {
                let criu = stopped.criu;
                let init = init.or(stopped.init);
                let target = Target {
                    command: case.command,
                    ours: &command,
                    started,
                    criu: Some(criu),
                    init,
                    images: &self.images,
                };
                let inflicted = inflict(case.fault, &target);
                if case.fault == Fault::TimeLimit {
                    // It has no time limit: it is ended by timeout(1), as a user's script would do
                    // it.
                    let _ = kill(pid(command.id()), Signal::SIGTERM);
                }
                stopped.release(inflicted.as_ref().map_or(0, |i| i.status));
                inflicted.map(|inflicted| (inflicted, criu))
            });
            Self::end(&mut command);
            inflicted
        });
        let Some((inflicted, criu)) = inflicted else { return Outcome::NotReached };
        inflicted.take_back();
        // A CRIU whose command was killed goes on by itself.
        let ended = || (!Path::new(&format!("/proc/{criu}")).exists()).then_some(());
        let hangs = wait_for("CRIU to end", LIMIT, ended).is_err();
        assert!(!hangs, "CRIU hangs");
        self.judge(case, witness, &before)
    }

    fn judge(&self, case: Case, mut witness: Witness, before: &Status) -> Outcome {
        let deadly = case.fault.is_deadly();
        // The end of a container is heard of by its monitor a little later.
        let told = wait_for("a state", LIMIT, || {
            Some(self.container.state()).filter(|s| s == "RUNNING" || s == "STOPPED")
        });
        let running = told.unwrap_or_else(|e| panic!("{e}")) == "RUNNING" && self.init_lives();
        if running {
            self.assert_well(&mut witness, before, deadly);
            return Outcome::Held(if case.command == Command::Restart {
                "runs again"
            } else {
                "runs on"
            });
        }
        self.container.wait_state("STOPPED");
        if !self.images.join("c/inventory.img").exists() && deadly {
            self.container.start();
            return Outcome::Held("ended by the fault itself, starts anew");
        }
        let told: Output = self.container.stock_checkpoint(self.words(&["-r"], None));
        assert!(
            told.success() && self.container.state() == "RUNNING",
            "neither runs nor can be restored"
        );
        self.assert_well(&mut witness, before, deadly);
        Outcome::Held("its checkpoint restarts")
    }

    /// LXC's monitor tells a container that was just killed as running for a moment.
    fn init_lives(&self) -> bool {
        let told = self.container.lxc("lxc-info").args(["-p", "-H"]).output().stdout;
        let stat = fs::read_to_string(format!("/proc/{}/stat", told.trim())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }

    fn assert_well(&self, witness: &mut Witness, before: &Status, fresh: bool) {
        let on_old = catch_unwind(AssertUnwindSafe(|| witness.assert_goes_on_from(before)));
        match on_old {
            Ok(_) => {}
            Err(_) if fresh => drop(self.container.witness().assert_goes_on_from(before)),
            Err(_) => panic!("it runs, but does not answer on its connection"),
        }
    }

    fn arguments(&self, command: Command, script: Option<&Path>) -> Vec<std::ffi::OsString> {
        match command {
            Command::Suspend => self.words(&["-s"], script),
            Command::Checkpoint => self.words(&[], script),
            Command::Restart => self.words(&["-r"], script),
        }
    }

    fn words(&self, what: &[&str], script: Option<&Path>) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = what.iter().map(Into::into).collect();
        words.extend(["-D".into(), self.images.join("c").into_os_string()]);
        words.extend(
            script.into_iter().flat_map(|script| ["-A".into(), script.as_os_str().to_owned()]),
        );
        words
    }

    fn spawn(&self, arguments: Vec<std::ffi::OsString>) -> Child {
        self.container.lxc("lxc-checkpoint").args(arguments).spawn()
    }

    fn end(command: &mut Child) {
        if !ends_within(command, LIMIT) {
            let _ = command.kill();
        }
        command.wait().unwrap();
    }

    /// By force, so that the next case finds nothing of this one.
    fn clear_away(&self) {
        let root = cgroups::unified();
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let of = |kind| name.starts_with(&format!("lxc.{kind}.{}", self.container.name()));
            of("payload") || of("monitor")
        };
        let groups = || {
            fs::read_dir(&root)
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .filter(ours)
                .collect::<Vec<_>>()
        };
        let _ = wait_for("its tasks to end", LIMIT, || {
            for group in groups() {
                let _ = fs::write(group.join("cgroup.freeze"), "0");
                let _ = fs::write(group.join("cgroup.kill"), "1");
                let _ = fs::remove_dir(&group);
            }
            groups().is_empty().then_some(())
        });
        self.container.lxc("lxc-stop").arg("-k").output();
        for port in fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif")).unwrap().flatten() {
            Run::new("ip").args(["link", "delete"]).arg(port.file_name()).output();
        }
        let _ = fs::remove_dir_all(self.images.join("c"));
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        Run::new("umount").arg("-l").arg(&self.images).output();
    }
}
