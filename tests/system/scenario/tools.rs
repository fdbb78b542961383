//! Each of LXC's tools on a container that LXC has started, and on the same one restored by us:
//! what they say and how they end is the same.
//!
//! `packaging/test-tools.sh` runs it with each supported LXC and makes of it the table in
//! `tests/system/TOOLS.md`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::enter::LOGS;
use crate::harness::run::{Output, PATH, Run, wait_for};

/// A command line, and the exit code and words that it answered with.
type Answer = (String, String);
type Answers = BTreeMap<String, String>;

/// What is waited for comes within it.
const LIMIT: Duration = Duration::from_secs(20);
/// For an answer of a monitor.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Tools and their arguments behind `-n NAME`, for a container that runs; none of them ends it.
const ON_A_RUNNING_ONE: &[&[&str]] = &[
    &["lxc-info"],
    &["lxc-info", "-s", "-H"],
    &["lxc-info", "-i", "-H"],
    &[
        "lxc-info",
        "-c",
        "lxc.uts.name",
        "-c",
        "lxc.net.0.type",
        "-c",
        "lxc.net.0.link",
        "-c",
        "lxc.rootfs.path",
    ],
    &["lxc-info", "-c", "lxc.nothing.at.all"],
    &["lxc-attach", "--", "/bin/echo", "hello"],
    &["lxc-attach", "--", "/bin/sh", "-c", "exit 7"],
    &["lxc-attach", "--clear-env", "-v", "A=1", "--", "/bin/sh", "-c", "echo $A; pwd; id -u"],
    &["lxc-attach", "-s", "UTSNAME|NETWORK", "--", "/bin/hostname"],
    &["lxc-attach", "--", "/nowhere"],
    &["lxc-wait", "-s", "RUNNING|FROZEN", "-t", "5"],
    &["lxc-wait", "-s", "STOPPED", "-t", "1"],
    &["lxc-freeze"],
    &["lxc-info", "-s", "-H"],
    &["lxc-unfreeze"],
    &["lxc-unfreeze"],
    &["lxc-cgroup", "hugetlb.2MB.max"],
    &["lxc-cgroup", "hugetlb.2MB.max", "4194304"],
    &["lxc-cgroup", "hugetlb.2MB.max"],
    &["lxc-cgroup", "no.such.file"],
    &["lxc-device", "add", "/dev/full"],
    // Not `ls -l`, which tells the minute, too.
    &["lxc-attach", "--", "/bin/stat", "-c", "%A %u:%g %t:%T", "/dev/full"],
    &["lxc-device", "del", "/dev/full"],
    &["lxc-attach", "--", "/bin/ls", "/dev/full"],
    &["lxc-console", "-t", "1"],
    &["lxc-start", "-d"],
    &["lxc-execute", "--", "/bin/true"],
    &["lxc-destroy"],
    &["lxc-snapshot", "-L"],
    &["lxc-copy", "-N", "a-copy-of-a-running-one"],
];

/// The tools that know all containers, without `-n`.
const OF_ALL: &[&[&str]] = &[
    &["lxc-ls", "-f", "-F", "NAME,STATE,AUTOSTART,GROUPS,IPV4,IPV6,UNPRIVILEGED,INTERFACE"],
    &["lxc-ls", "--running"],
    &["lxc-ls", "--active"],
    &["lxc-ls", "--stopped"],
    &["lxc-autostart", "-L"],
    &["lxc-autostart", "-L", "-r"],
    &["lxc-config", "lxc.lxcpath"],
];

/// How a container is ended, and the state after it.
const ENDS: &[(&[&str], &str)] = &[
    (&["lxc-stop", "-k"], "STOPPED"),
    (&["lxc-stop", "-t", "20", "--nokill"], "STOPPED"),
    (&["lxc-stop", "-t", "20"], "STOPPED"),
    (&["lxc-stop", "-r"], "RUNNING"),
    (&["lxc-stop", "-r", "-t", "20"], "RUNNING"),
    (&["lxc-autostart", "-r"], "RUNNING"),
    (&["lxc-autostart", "-s", "-t", "20"], "STOPPED"),
    (&["lxc-autostart", "-k"], "STOPPED"),
    (&["lxc-destroy", "-f"], "gone"),
];

/// On a running container.
pub fn say_the_same(world: &World) {
    let container = world.container().configure("lxc.start.auto = 1\nlxc.group = web\n");
    container.start();
    let ours = |container: &Container| {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
    };
    let started = answers(world, &container);
    // As it was for the first: a tool has changed some.
    container.kill();
    container.start();
    ours(&container);
    let restored = answers(world, &container);
    container.kill();
    assert_same("answers", &started, &restored);
    assert!(started.len() > 30, "{}", started.len());
}

/// LXC's own `lxc-checkpoint` ends it, too.
pub fn checkpoint_it_the_same(world: &World) {
    let container = world.container();
    let dump = |number: u32| {
        let init = container.init_pid();
        let images = world.images("stock").join(number.to_string());
        let told = container.stock_checkpoint([
            "-s".as_ref(),
            "-v".as_ref(),
            "-D".as_ref(),
            images.as_os_str(),
        ]);
        container.wait_state("STOPPED");
        Answers::from([("lxc-checkpoint -s".to_owned(), comparable(&told, &container, init))])
    };
    container.start();
    let started = dump(1);
    container.start();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    assert_same("checkpoint", &started, &dump(2));
}

/// However a container is ended. All at once: busybox's init takes its three seconds.
pub fn end_it_the_same(world: &World) {
    // Two digits: to `lxc-autostart -g` a group is any that begins so.
    let make = |number: usize| {
        // What busybox's init takes for a reboot.
        let more =
            format!("lxc.start.auto = 1\nlxc.group = end-{number:02}\nlxc.rebootsignal = 15\n");
        world.container().configure(&more)
    };
    let containers: Vec<_> = (0..2 * ENDS.len()).map(make).collect();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let end = |(number, container)| scope.spawn(move || end(world, number, container));
        let threads: Vec<_> = containers.iter().enumerate().map(end).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    world.of_all("lxc-monitor").arg("-Q").ok();
    let (restored, started): (Vec<_>, Vec<_>) =
        answers.into_iter().enumerate().partition(|(n, _)| n % 2 == 1);
    let all =
        |answers: Vec<(usize, Answer)>| answers.into_iter().map(|(_, answer)| answer).collect();
    assert_same("ends", &all(started), &all(restored));
}

/// Starts a container, ends it, and tells what was seen of it; one with an odd number is restored
/// meanwhile.
fn end(world: &World, number: usize, container: &Container) -> Answer {
    let (words, state) = ENDS[number / 2];
    container.start();
    if number % 2 == 1 {
        container.ours("lxc-checkpoint").ok();
        container.ours("lxc-restart").ok();
    }
    let init = container.init_pid();
    let mut monitored = Monitored::start(container);
    let group = format!("end-{number:02}");
    let run = match words[0] {
        "lxc-autostart" => world.of_all(words[0]).args(["-g", &group]),
        _ => container.lxc(words[0]),
    };
    let mut told = run.args(&words[1..]).output();
    if words[0] == "lxc-autostart" {
        // It looks at all containers, and complains of those that end meanwhile.
        told.stderr.clear();
    }
    // `lxc-autostart -r` does not wait for it.
    wait_for("the end", LIMIT, || {
        let asked = |what| ask(container, what, number % 2 == 1);
        let is = |state: &str| asked("-s").is_some_and(|told| told == state);
        let has_new_init =
            || asked("-p").and_then(|pid| pid.parse().ok()).is_some_and(|pid: u32| pid != init);
        match state {
            "gone" => (!container.dir().exists()).then_some(()),
            // Between its two lives it has no init.
            "RUNNING" => (is("RUNNING") && has_new_init()).then_some(()),
            state => is(state).then_some(()),
        }
    })
    .unwrap_or_else(|e| panic!("{e}: {told}"));
    let states = monitored.until(if state == "RUNNING" { "RUNNING" } else { "STOPPED" });
    if state == "RUNNING" {
        container.kill();
    }
    (words.join(" "), comparable(&told, container, init) + &states)
}

/// What `lxc-info` tells. A monitor of LXC that starts its container afresh forgets a question that
/// it has accepted but not read yet, and leaves the connection open (`lxc_mainloop_close`, and the
/// process stays): whoever asked waits for ever, and has to ask again. Ours answers.
fn ask(container: &Container, what: &str, restored: bool) -> Option<String> {
    let told = container.lxc("lxc-info").args([what, "-H"]).limit(ANSWER_LIMIT).output();
    assert!(told.in_time || !restored, "{told}");
    told.success().then(|| told.stdout.trim().to_owned())
}

fn answers(world: &World, container: &Container) -> Answers {
    let init = container.init_pid();
    let mut answers = Answers::new();
    for (number, words) in ON_A_RUNNING_ONE.iter().chain(OF_ALL).enumerate() {
        let run = match words[0] {
            // The only one that knows no `-P`.
            "lxc-config" => Run::new(words[0]),
            of_all if OF_ALL.contains(words) => world.of_all(of_all),
            of_one => container.lxc(of_one),
        };
        let told = run.args(&words[1..]).output();
        answers
            .insert(format!("{number:02} {}", words.join(" ")), comparable(&told, container, init));
    }
    answers.insert("lxc-top".to_owned(), top(world, container));
    answers
}

/// Exit code and words, without what has to differ: pids, counts, names of veth ends, times and
/// lines of LXC's source.
fn comparable(told: &Output, container: &Container, init: u32) -> String {
    let mut lines = vec![format!("exit code {}", told.code())];
    for line in told.stdout.lines().chain(told.stderr.lines()) {
        let label = line.split_once(':').map_or("", |(label, _)| label);
        let counted = label.ends_with("bytes")
            || label.ends_with(" use")
            || label == "PID"
            || label == "Link";
        let line = if counted { format!("{label}: …") } else { line.to_owned() };
        lines.push(line.replace(container.name(), "NAME").replace(&init.to_string(), "INIT"));
    }
    lines.join("\n") + "\n"
}

/// `lxc-top` goes on until it is ended; its first picture is looked at. It wants a terminal.
fn top(world: &World, container: &Container) -> String {
    let terminal = nix::pty::openpty(
        Some(&nix::pty::Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }),
        None,
    )
    .unwrap();
    let mut child = start(world.of_all("lxc-top").args(["-d", "1"]))
        .stdin(terminal.slave.try_clone().unwrap())
        .stdout(terminal.slave)
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut master = File::from(terminal.master);
    let mut some = [0; 4096];
    while !seen.windows(container.name().len()).any(|w| w == container.name().as_bytes()) {
        let n = master.read(&mut some).unwrap_or_default();
        assert!(n > 0, "lxc-top ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&some[..n]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    "names it".to_owned()
}

/// A program that goes on.
fn start(run: Run) -> Command {
    let words = run.words();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", PATH)
        .env("TERM", "dumb")
        .stderr(Stdio::null());
    command
}

/// `lxc-monitor`, and what it has told.
struct Monitored {
    child: std::process::Child,
    output: File,
    name: String,
}

impl Monitored {
    /// Starts one and waits until it hears of states.
    fn start(container: &Container) -> Monitored {
        let output = tempfile::tempfile().unwrap();
        let output_too = output.try_clone().unwrap();
        let child = start(container.lxc("lxc-monitor"))
            .stdin(Stdio::null())
            .stdout(output_too)
            .spawn()
            .unwrap();
        let monitored = Monitored { child, output, name: container.name().to_owned() };
        wait_for("lxc-monitor to hear", LIMIT, || {
            container.lxc("lxc-freeze").ok();
            container.lxc("lxc-unfreeze").ok();
            monitored.told().contains("RUNNING").then_some(())
        })
        .unwrap();
        monitored
    }

    fn told(&self) -> String {
        let mut bytes = vec![0; self.output.metadata().unwrap().len() as usize];
        let n = std::os::unix::fs::FileExt::read_at(&self.output, &mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    /// The states after it was frozen and thawed, up to this one.
    fn until(&mut self, state: &str) -> String {
        let after = || {
            let told = self.told();
            let (_, after) = told.rsplit_once("THAWED").unwrap_or(("", &told));
            let lines = after.lines().skip(1).skip_while(|l| l.contains("[RUNNING]"));
            lines.map(|l| l.replace(&self.name, "NAME") + "\n").collect::<String>()
        };
        let seen = wait_for(&format!("lxc-monitor to tell of {state}"), LIMIT, || {
            let after = after();
            after.contains(&format!("[{state}]")).then_some(after)
        });
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        seen.unwrap_or_else(|e| panic!("{e}: {}", self.told()))
    }
}

/// Compares, and leaves a line for each command where the table is made of them.
fn assert_same(part: &str, started: &Answers, restored: &Answers) {
    let mut wrong = Vec::new();
    let mut rows = String::new();
    for (command, answer) in started {
        let other = restored.get(command).map_or("nothing", String::as_str);
        let ended = answer.lines().next().unwrap_or_default();
        let same = if answer == other { "same" } else { "DIFFERENT" };
        // Some are asked twice: the number says in which order.
        let command_line = command.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        rows += &format!("{command_line}\t{same}, {ended}\n");
        if answer != other {
            wrong.push(format!("{command}\n--- started by LXC:\n{answer}--- restored:\n{other}"));
        }
    }
    let dir = Path::new(LOGS).join("tools");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(part), rows).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
