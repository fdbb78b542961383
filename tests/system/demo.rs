//! The whole story on a real LXC container, step by step: `make demo`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;

use std::cell::Cell;
use std::panic::catch_unwind;
use std::process::ExitCode;

use harness::leak::Snapshot;
use harness::run::Run;
use harness::{Container, World, enter};

/// The name in the README.
const NAME: &str = "test-lxc";

fn main() -> ExitCode {
    if let Err(error) = enter::enter() {
        eprintln!("demo: {}", error.0);
        return ExitCode::FAILURE;
    }
    println!("\nlxc-cr: an LXC container with an open TCP connection is checkpointed, stopped and brought back.");
    let before = Snapshot::take();
    let told = catch_unwind(story).is_ok();
    let clean = before.wait_until_as_before();
    let verdict = match (told, &clean) {
        (true, Ok(())) => {
            println!("\nPASSED: the connection outlived two checkpoints; nothing was left on the host.");
            return ExitCode::SUCCESS;
        }
        (true, Err(left)) => format!("something stayed on the host:\n{left}"),
        (false, _) => "the step above did not work".to_owned(),
    };
    println!("\nFAILED: {verdict}\nlogs: target/system/logs/demo");
    ExitCode::FAILURE
}

fn story() {
    let told = Teller { step: Cell::new(0) };
    let world = World::in_default_lxcpath("demo");
    told.step("A container of busybox, as the recipe configures it, on the bridge br0");
    let container = world.container_named(NAME).memory(64);
    told.show(Run::new("cat").arg(container.dir().join("config.legacy")));
    container.start();
    told.show(Run::new("lxc-ls").arg("-f"));

    told.step("A client opens a TCP connection and keeps it");
    let mut client = container.witness();
    client.echo("hello");
    let mut before = client.status();
    before.assert_sound();
    before = client.assert_goes_on_from(&before);
    told.say(&format!(
        "the service answers: it is process {} and has counted to {}",
        before.get("pid"),
        before.get("counter")
    ));

    for round in ["Checkpoint", "Once more: checkpoint what was restored"] {
        told.step(&format!("{round}. The container is stopped"));
        told.show(container.ours("lxc-checkpoint"));
        container.wait_state("STOPPED");
        told.show(Run::new("lxc-ls").arg("-f"));
        told.say("meanwhile the client says something");
        client.send("are you there?");

        told.step("Restart");
        told.show(container.ours("lxc-restart").args(["-D", "dump"]));
        container.wait_state("RUNNING");
        assert_eq!(client.receive(), "are you there?");
        before = client.assert_goes_on_from(&before);
        told.say(&format!(
            "the same connection answers: process {}, its count went on to {}, locks, pipe, shared memory, timer, \
             deleted file, syslog and {} MiB of memory as before",
            before.get("pid"),
            before.get("counter"),
            before.get("memory").split(':').next().unwrap_or_default()
        ));
        use_with_lxc(&told, &container);
    }

    told.step("LXC stops it");
    told.show(container.lxc("lxc-stop"));
    container.wait_state("STOPPED");
}

fn use_with_lxc(told: &Teller, container: &Container) {
    told.step("LXC's own tools know it and work on it");
    told.show(container.lxc("lxc-info"));
    told.show(container.lxc("lxc-attach").args(["--", "ps"]));
}

struct Teller {
    step: Cell<u32>,
}

impl Teller {
    fn step(&self, what: &str) {
        self.step.set(self.step.get() + 1);
        println!("\n{}. {what}", self.step.get());
    }

    fn say(&self, what: &str) {
        println!("   {what}");
    }

    /// Runs a command as a reader would type it, with what it prints; it must succeed.
    fn show(&self, run: Run) {
        let output = run.output();
        let line =
            output.line.rsplit_once(&format!("{}/", enter::PROGRAMS)).map_or(output.line.as_str(), |(_, typed)| typed);
        println!("   $ {line}");
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            println!("     {line}");
        }
        assert!(output.success(), "{output}");
    }
}
