//! One trial: a process of its own with a time limit, then a host that must be as it was before.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::cgroups;
use super::enter::{self, LOGS};
use super::leak::Snapshot;
use super::run::{Run, SLOW};
use super::witness::PORT;
use super::world::World;

/// No story takes longer; one that does hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// How this program is told to run one trial: it was started in the host by itself.
const RUN_ONE: &str = "--in-test-host";
/// How this program is told to become a shell in the host, or the program that follows.
const SHELL: &str = "--shell";
/// In the environment: how many seconds each race goes on.
pub const RACE: &str = "LXC_CR_RACE_SECONDS";
/// With one of these in the environment, tests that cannot run here have failed.
const REQUIRED: &[&str] = &["CI", "LXC_CR_REQUIRE_SYSTEM"];

/// A name and what happens; a panic is a failure.
pub type Story = (&'static str, fn(&World));

/// The whole program: enters the host and runs the stories that the arguments choose, one by one:
/// the second list on a host with cgroup v1.
pub fn run(on_unified: &'static [Story], on_hybrid: &'static [Story]) -> ExitCode {
    let stories = if cgroups::is_asked_to_be_hybrid() { on_hybrid } else { on_unified };
    let raw: Vec<String> = std::env::args().collect();
    if let [_, flag, name] = raw.as_slice()
        && flag == RUN_ONE
    {
        let story = on_unified.iter().chain(on_hybrid).find(|story| story.0 == name);
        return story.map_or(ExitCode::FAILURE, |(name, story)| {
            story(&World::new(name));
            ExitCode::SUCCESS
        });
    }
    if raw.get(1).is_some_and(|flag| flag == SHELL) {
        return shell(&raw[2..]);
    }
    let mut arguments = Arguments::from_args();
    // They share the bridge, and the leak check looks at the whole host.
    arguments.test_threads = Some(1);
    let trial = |entered: Option<String>| {
        move |(name, _): &Story| {
            let (name, entered) = (*name, entered.clone());
            Trial::ignorable_test(name, move || {
                entered.map_or_else(|| run_one(name), |why| Ok(Completion::ignored_with(why)))
            })
        }
    };
    if arguments.list {
        return libtest_mimic::run(&arguments, stories.iter().map(trial(None)).collect())
            .exit_code();
    }
    let unavailable = enter::enter().err().map(|e| e.0);
    match &unavailable {
        Some(why) if REQUIRED.iter().any(|name| std::env::var_os(name).is_some()) => {
            eprintln!("the tests on the test host must run here and cannot: {why}");
            return ExitCode::FAILURE;
        }
        Some(why) => eprintln!("\nskipped, {} tests with real LXC and CRIU: {why}", stories.len()),
        None => println!("\ntest host: {}", versions()),
    }
    libtest_mimic::run(&arguments, stories.iter().map(trial(unavailable)).collect()).exit_code()
}

/// With a container to try things on.
fn shell(arguments: &[String]) -> ExitCode {
    if let Err(error) = enter::enter() {
        eprintln!("{}", error.0);
        return ExitCode::FAILURE;
    }
    let world = World::in_default_lxcpath("shell");
    let container = world.container_named("test-lxc").memory(64);
    println!(
        "container '{}' is ready to be started; its witness will listen on {}:{PORT}",
        container.name(),
        container.address()
    );
    // It stays until the host ends.
    std::mem::forget(world);
    eprintln!("{}", enter::become_program(arguments));
    ExitCode::FAILURE
}

/// What the test host is made of.
pub fn versions() -> String {
    let first_line = |program: &str, argument: &str| {
        let told = Run::new(program).arg(argument).output();
        told.stdout.lines().next().unwrap_or("?").to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (lxc, criu) = (first_line("lxc-start", "--version"), first_line("criu", "--version"));
    // Without what its builder calls it.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("kernel {kernel}, LXC {lxc}, CRIU {}", criu.trim_start_matches("Version: "))
}

fn run_one(name: &'static str) -> Result<Completion, Failed> {
    let logs = Path::new(LOGS).join(name);
    let _ = fs::remove_dir_all(&logs);
    let before = Snapshot::take();
    let mut run = Run::new("/proc/self/exe").args([RUN_ONE, name]).env("RUST_BACKTRACE", "1");
    for name in [SLOW, RACE] {
        if let Ok(value) = std::env::var(name) {
            run = run.env(name, &value);
        }
    }
    let told = run.limit(LIMIT).output();
    let mut wrong = Vec::new();
    if !told.success() {
        wrong.push(told.to_string());
    }
    // Removes what the trial could not when it was killed; all is gone already if it ended by
    // itself.
    if let Err(left) = World::new(name).end() {
        wrong.push(left);
    }
    if let Err(left) = before.wait_until_as_before() {
        wrong.push(left);
    }
    if wrong.is_empty() {
        let _ = fs::remove_dir_all(&logs);
        // Figures.
        print!("{}", told.stdout);
        return Ok(Completion::Completed);
    }
    let text = wrong.join("\n");
    let _ = fs::create_dir_all(&logs).and_then(|()| fs::write(logs.join("output.log"), &text));
    Err(Failed::from(format!(
        "{text}\nlast error: {}\nlogs: target/system/logs/{name}",
        last_error(&logs).unwrap_or_default()
    )))
}

/// The last line of a kept log that tells of an error.
fn last_error(dir: &Path) -> Option<String> {
    let mut found = None;
    let mut entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found = last_error(&path).or(found);
        } else if path.file_name().is_some_and(|n| n != "output.log") {
            let text = fs::read(&path)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default();
            let line = text.lines().rfind(|l| l.contains("Error (") || l.contains(" ERROR "));
            found = line.map(str::to_owned).or(found);
        }
    }
    found
}
