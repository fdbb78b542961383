//! The whole story on real LXC containers, step by step: `make demo`.
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
use std::path::Path;
use std::process::ExitCode;

use harness::installed::Installed;
use harness::leak::Snapshot;
use harness::machine::{Host, Machine};
use harness::run::{Output, Run};
use harness::template::Template;
use harness::witness::Status;
use harness::{World, enter};

/// The name in the README.
const NAME: &str = "test-lxc";

fn main() -> ExitCode {
    if let Err(error) = enter::enter() {
        eprintln!("demo: {}", error.0);
        return ExitCode::FAILURE;
    }
    println!(
        "\nlxc-cr: LXC containers with open TCP connections are checkpointed, stopped and brought \
         back."
    );
    let before = Snapshot::take();
    let worked = catch_unwind(stories).is_ok();
    let clean = before.wait_until_as_before();
    let verdict = match (worked, &clean) {
        (true, Ok(())) => {
            println!(
                "\nPASSED: both connections outlived all checkpoints; nothing was left on the host."
            );
            return ExitCode::SUCCESS;
        }
        (true, Err(left)) => format!("something stayed on the host:\n{left}"),
        (false, _) => "the step above did not work".to_owned(),
    };
    println!("\nFAILED: {verdict}\nlogs: target/system/logs/demo");
    ExitCode::FAILURE
}

fn stories() {
    let teller = Teller { step: Cell::new(0) };
    if !Machine::is_missing() {
        debian(&teller);
    }
    recipe(&teller);
}

/// What a user has: a container of LXC's download template on a host with systemd.
fn debian(teller: &Teller) {
    let world = World::in_default_lxcpath("demo");
    teller.step(
        "On a host booted by systemd: a Debian container, configured as by lxc-create -t download",
    );
    let container = Template::unprivileged(&world, "debian", 70);
    let installed = Installed::make(Path::new("/usr/local"));
    let machine = Machine::install(&world, &[]);
    let host = machine.boot();
    let show = |run: Run| teller.show_on(&host, run);
    show(Run::new("cat").arg(container.config()));
    teller.step("Prepare and start it");
    show(Run::new(&installed.lxc_cr().to_string_lossy()).args(["prepare", "-n", container.name()]));
    show(container.lxc("lxc-start"));

    teller.step("A client opens a TCP connection and keeps it");
    let mut client = container.witness();
    container.wait_up(&host);
    let mut before = client.status();
    teller.say(&format!("the service answers: it is process {}", before.get("pid")));
    teller.step("Check, checkpoint. The container is stopped");
    show(container.lxc_cr("check"));
    show(container.ours("lxc-checkpoint"));
    show(Run::new("lxc-ls").arg("-f"));
    teller.say("meanwhile the client says something");
    client.send("are you there?");

    teller.step("Restart");
    show(container.ours("lxc-restart"));
    assert_eq!(client.receive(), "are you there?");
    before = client.assert_goes_on_from(&before);
    teller.goes_on(&before);
    teller.step("LXC's own tools work on it");
    show(container.lxc("lxc-info"));
    show(container.lxc("lxc-attach").args(["--", "ps", "-C", "witness", "-o", "pid,user,args"]));
    host.shut_down();
}

/// The container of the recipe, twice.
fn recipe(teller: &Teller) {
    let world = World::in_default_lxcpath("demo");
    teller.step("A container of busybox, as the recipe configures it, on the bridge br0");
    let container = world.container_named(NAME).memory(64);
    teller.show(Run::new("cat").arg(container.dir().join("config.legacy")));
    container.start();
    teller.show(Run::new("lxc-ls").arg("-f"));

    teller.step("A client opens a TCP connection and keeps it");
    let mut client = container.witness();
    client.echo("hello");
    let mut before = client.status();
    before.assert_sound();
    before = client.assert_goes_on_from(&before);
    teller.say(&format!(
        "the service answers: it is process {} and has counted to {}",
        before.get("pid"),
        before.get("counter")
    ));

    for round in ["Checkpoint", "Once more: checkpoint what was restored"] {
        teller.step(&format!("{round}. The container is stopped"));
        teller.show(container.ours("lxc-checkpoint"));
        container.wait_state("STOPPED");
        teller.show(Run::new("lxc-ls").arg("-f"));
        teller.say("meanwhile the client says something");
        client.send("are you there?");

        teller.step("Restart");
        teller.show(container.ours("lxc-restart").args(["-D", "dump"]));
        container.wait_state("RUNNING");
        assert_eq!(client.receive(), "are you there?");
        before = client.assert_goes_on_from(&before);
        teller.goes_on(&before);
        teller.step("LXC's own tools know it and work on it");
        teller.show(container.lxc("lxc-info"));
        teller.show(container.lxc("lxc-attach").args(["--", "ps"]));
    }

    teller.step("LXC stops it");
    teller.show(container.lxc("lxc-stop"));
    container.wait_state("STOPPED");
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

    fn goes_on(&self, status: &Status) {
        self.say(&format!(
            "the same connection answers: process {}, its count went on to {}, locks, pipe, shared \
             memory, timer, deleted file, syslog and {} MiB of memory as before",
            status.get("pid"),
            status.get("counter"),
            status.get("memory").split(':').next().unwrap_or_default()
        ));
    }

    /// Runs a command as a reader would type it, with what it prints; it must succeed.
    fn show(&self, run: Run) {
        self.show_output(&typed(&run), &run.output());
    }

    /// The same on a host that was booted.
    fn show_on(&self, host: &Host, run: Run) {
        self.show_output(&typed(&run), &host.in_it(run).output());
    }

    fn show_output(&self, typed: &str, output: &Output) {
        println!("   $ {typed}");
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            println!("     {line}");
        }
        assert!(output.success(), "{output}");
    }
}

/// A command without the directory that its program was built into or installed in.
fn typed(run: &Run) -> String {
    let words: Vec<_> =
        run.words().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let program = words[0].rsplit('/').next().unwrap_or_default();
    [&[program.to_owned()], &words[1..]].concat().join(" ")
}
