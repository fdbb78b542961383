//! One row: a life of the container under LXC alone, then one with two checkpoints and restarts in
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use super::look::look;
use super::outcome::Outcome;
use super::{Expected, Row};
use crate::harness::World;
use crate::harness::container::{Container, wait_addresses};
use crate::harness::run::{Output, Run, wait_for};
use crate::harness::seen::{Seen, differences};
use crate::harness::witness::Witness;

/// How often it is checkpointed and restarted: a second time, for what the first leaves.
const CYCLES: u32 = 2;

/// For a container to end.
const LIMIT: Duration = Duration::from_secs(20);

/// What the scripts of a row have.
const FUNCTIONS: &str = "lx() { t=$1; shift; \"$t\" -n \"$NAME\" -P \"$LXCPATH\" \"$@\"; }\n\
                         inside() { lx lxc-attach -- \"$@\"; }\n";
/// Notes how it is called. Numbers of processes and descriptors differ from run to run.
const HOOK: &str = "#!/bin/sh
{ echo \"in $PWD: $*\"; env | grep ^LXC_ | sort; } |
    sed -e 's|/proc/[0-9]*/fd/[0-9]*|NAMESPACE|g' -e 's|^LXC_PID=[0-9][0-9]*$|LXC_PID=PID|' >> NOTES
";

/// Tries a row in a world of its own.
pub fn run(row: &Row) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| try_row(row))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Outcome::Broken(text.unwrap_or_default())
        }
    }
}

fn try_row(row: &Row) -> Outcome {
    let world = World::new("keys");
    let it = match Subject::make(&world, row) {
        Ok(it) => it,
        Err(words) => return Outcome::NotHere(words),
    };
    if let Err(words) = it.start() {
        return Outcome::NotHere(words);
    }
    let mut by_lxc = None;
    if row.has_lives() {
        by_lxc = Some(it.life());
        it.end_is_over();
        if let Err(words) = it.start() {
            return Outcome::Broken(format!("the second start: {words}"));
        }
    }
    let mut witness = row.witness.then(|| it.container.witness());
    let before = it.see(witness.as_mut());
    let mut said = String::new();
    let mut differ = Vec::new();
    for _ in 0..CYCLES {
        let check = it.container.lxc_cr("check").output();
        let checkpoint = it.container.ours("lxc-checkpoint").output();
        if checkpoint.code() == 4 {
            return it.refused(&check, &checkpoint, &before, witness.as_mut());
        }
        if !checkpoint.success() {
            return Outcome::Broken(checkpoint.to_string());
        }
        said += &format!("{}{}", check.stdout, checkpoint.stderr);
        it.forget_notes();
        let restart = it.container.ours("lxc-restart").output();
        if !restart.success() {
            return Outcome::Lost(restart.stderr);
        }
        let after = it.see(witness.as_mut());
        differ.extend(differences(&before, &after));
    }
    drop(witness);
    if let Some(by_lxc) = by_lxc {
        differ.extend(differences(&by_lxc.seen(row), &it.life().seen(row)));
    }
    it.end_is_over();
    judge(row, differ, &said)
}

/// Without `/dev` of its own (`lxc.autodev = 0`), init begins with the host's `/dev/null`, whose
/// path is that below a mount which the container does not have; CRIU opens the same device below
/// its own.
fn host_null((key, value): (String, String)) -> (String, String) {
    match key.contains("/fd/") && value == "/null" {
        true => (key, "/dev/null".to_owned()),
        false => (key, value),
    }
}

/// Without which of the host's terminals the console is: that of the life before may still be
/// closing when this one's is opened.
fn console_number((key, value): (String, String)) -> (String, String) {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    if key == "dev/console" {
        let mut words = words(&value);
        if let Some(device) = words.get_mut(3).filter(|device| device.starts_with("88")) {
            "PTY".clone_into(device);
        }
        return (key, words.join(" "));
    }
    if !key.ends_with("/mountinfo") {
        return (key, value);
    }
    let mount = |line: &str| {
        let mut words = words(line);
        if words.get(4).is_some_and(|place| place == "/dev/console") {
            "/PTY".clone_into(&mut words[3]);
        }
        words.join(" ")
    };
    (key, value.lines().map(mount).collect::<Vec<_>>().join("\n"))
}

fn judge(row: &Row, mut differ: Vec<String>, said: &str) -> Outcome {
    if differ.is_empty() {
        return Outcome::Same;
    }
    if let Expected::Named(prefixes, words) = row.expected
        && let Some(line) = said.lines().find(|line| line.contains(words))
    {
        differ.retain(|d| !prefixes.iter().any(|prefix| d.starts_with(prefix)));
        if differ.is_empty() {
            return Outcome::Named(line.trim().to_owned());
        }
    }
    let mut told = BTreeSet::new();
    differ.retain(|d| told.insert(d.split(':').next().unwrap_or_default().to_owned()));
    Outcome::Silent(differ.join("\n"))
}

/// The container of a row.
struct Subject<'w> {
    container: Container<'w>,
    row: &'w Row,
    environment: BTreeMap<&'static str, String>,
}

/// What the scripts printed and the hooks noted in one life.
struct Life {
    begin: String,
    probe: String,
    end: String,
    end_notes: String,
}

impl Life {
    /// In the form in which it is compared; what ran at the beginning only if it has to be the
    /// same.
    fn seen(&self, row: &Row) -> Seen {
        let mut seen = Seen::new();
        seen.insert("probe".into(), self.probe.clone());
        seen.insert("end".into(), self.end.clone());
        seen.insert("hooks at the end".into(), self.end_notes.clone());
        if row.hooks_again {
            seen.insert("hooks at the start".into(), self.begin.clone());
        }
        seen
    }
}

impl<'w> Subject<'w> {
    fn make(world: &'w World, row: &'w Row) -> Result<Subject<'w>, String> {
        let container = world.container_named("key");
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let environment = BTreeMap::from([
            ("NAME", container.name().to_owned()),
            ("LXCPATH", path(world.lxcpath().to_owned())),
            ("DIR", path(container.dir())),
            ("ROOTFS", path(container.rootfs())),
        ]);
        let subject = Subject { container, row, environment };
        let hook = subject.container.dir().join("hook");
        fs::write(&hook, HOOK.replace("NOTES", &path(subject.notes()))).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let made = subject.script(row.make).output();
        if !made.success() {
            return Err(made.stderr);
        }
        let filled = |text: &str| {
            subject.environment.iter().fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("${name}"), value)
            })
        };
        subject.container.append_config(&filled(row.lines));
        Ok(subject)
    }

    fn notes(&self) -> PathBuf {
        self.container.dir().join("notes")
    }

    fn forget_notes(&self) {
        let _ = fs::remove_file(self.notes());
    }

    fn take_notes(&self) -> String {
        let text = fs::read_to_string(self.notes()).unwrap_or_default();
        self.forget_notes();
        // LXC lets variables of network scripts and of namespaces leak into later hooks; CRIU gives
        // each container a time namespace, and LXC tells of it, too.
        let leaks = ["LXC_NET_TYPE=", "LXC_NET_PARENT=", "LXC_NET_PEER=", "LXC_TIME_NS="];
        let kept = text.lines().filter(|l| {
            !leaks.iter().any(|leak| l.starts_with(leak)) && !l.ends_with("_NS=NAMESPACE")
        });
        kept.map(|l| l.replace(" time:NAMESPACE", "") + "\n").collect()
    }

    fn script(&self, script: &str) -> Run {
        let mut run = Run::new("sh").args(["-c", &format!("{FUNCTIONS}{script}")]);
        for (name, value) in &self.environment {
            run = run.env(name, value);
        }
        run
    }

    /// Starts it as a user does.
    fn start(&self) -> Result<(), String> {
        self.forget_notes();
        let log = self.container.dir().join("lxc.log");
        let _ = fs::remove_file(&log);
        let started =
            self.container.lxc("lxc-start").args(["-d", "-o", &log.to_string_lossy()]).output();
        if started.success() {
            self.container.wait_state("RUNNING");
            return Ok(());
        }
        let log = fs::read_to_string(log).unwrap_or_default();
        Err(log.lines().find(|l| l.contains(" ERROR ")).unwrap_or(&started.stderr).to_owned())
    }

    /// What the scripts see of it now, and its end.
    fn life(&self) -> Life {
        if self.row.witness {
            self.container.witness();
        }
        let init = self.container.init_pid().to_string();
        let begin = self.take_notes();
        let told = |script: &str| {
            let output = self.script(script).env("INIT", &init).output();
            format!("{}{}", output.stdout, output.stderr).replace(&init, "INIT")
        };
        let probe = told(self.row.probe);
        self.forget_notes();
        let end = told(self.row.end);
        Life { begin, probe, end, end_notes: self.take_notes_at_end() }
    }

    /// The monitor runs its last hooks when the container is stopped already.
    fn take_notes_at_end(&self) -> String {
        self.container.lxc("lxc-wait").args(["-s", "STOPPED|RUNNING", "-t", "10"]).output();
        self.take_notes()
    }

    fn end_is_over(&self) {
        let is_there = || self.container.dir().join("config").exists();
        if !is_there() {
            return;
        }
        self.container.lxc("lxc-stop").arg("-k").output();
        let state = || self.container.lxc("lxc-info").args(["-s", "-H"]).output().stdout;
        // An ephemeral one is gone then.
        let over = || (!is_there() || state().trim() == "STOPPED").then_some(());
        wait_for("the end", LIMIT, over).unwrap_or_else(|e| panic!("{e}: {}", state()));
    }

    fn see(&self, witness: Option<&mut Witness>) -> Seen {
        self.container.wait_settled();
        wait_addresses("/proc/net/if_inet6");
        let mut seen = look(&self.container, self.row.keys);
        if let Some(witness) = witness {
            seen.extend(witness.probe().into_iter().map(host_null));
        }
        seen.into_iter().map(console_number).collect()
    }

    /// Nothing was touched: it runs, and all is as it was.
    fn refused(
        &self,
        check: &Output,
        checkpoint: &Output,
        before: &Seen,
        witness: Option<&mut Witness>,
    ) -> Outcome {
        let after = self.see(witness);
        let differ = differences(before, &after);
        if self.container.state() != "RUNNING" || !differ.is_empty() {
            return Outcome::Silent(format!("refused, and not as before: {}", differ.join("\n")));
        }
        if check.code() != 4 {
            return Outcome::Silent(format!("check did not say so: {checkpoint}"));
        }
        self.end_is_over();
        Outcome::Refused(checkpoint.stderr.trim().to_owned())
    }
}
