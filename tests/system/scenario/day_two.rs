//! The second day: checkpoints that lie for a while, and what is known of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::suspend::{Settings, prepared};
use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::culprit::Culprits;
use crate::harness::run::{Run, patient};

/// `lxc-cr SUBCOMMAND` without a container, below the world's LXC path.
pub(super) fn lxc_cr(world: &World, subcommand: &str) -> Run {
    Run::ours("lxc-cr").args([subcommand, "-P"]).arg(world.lxcpath())
}

pub(super) fn json(run: Run) -> serde_json::Value {
    serde_json::from_str(&run.arg("--json").ok().stdout).unwrap()
}

/// Writes to an image without a change of its size.
fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A checkpoint at rest is whole until a bit of it changes; then it is named, and all others are
/// verified all the same.
pub fn verify_finds_a_changed_bit(world: &World) {
    let container = world.container();
    container.start();
    let shared_dir = world.lxcpath().join("backup");
    fs::create_dir(&shared_dir).unwrap();
    for name in ["first", "second"] {
        container.ours("lxc-checkpoint").arg("-D").arg(shared_dir.join(name)).ok();
    }
    let in_shelf = || Run::ours("lxc-cr").arg("verify").arg(&shared_dir);
    let told = in_shelf().ok();
    assert_eq!(told.stdout.matches(" is whole (").count(), 2, "{told}");
    let listed = json(Run::ours("lxc-cr").arg("list").arg(&shared_dir));
    assert!(listed.to_string().contains("second"), "{listed}");
    assert!(shared_dir.join("first/lxc-cr.history").is_file());

    flip_a_bit(&shared_dir.join("first/pages-1.img"));
    let found = in_shelf().output();
    found.assert_code(9);
    assert!(found.stderr.contains("first is damaged: image 'pages-1.img' was changed"), "{found}");
    assert!(found.stdout.contains("second is whole"), "{found}");
    let outcomes = in_shelf().arg("--json").output();
    outcomes.assert_code(9);
    let outcomes: serde_json::Value = serde_json::from_str(&outcomes.stdout).unwrap();
    let results: Vec<_> =
        outcomes["checkpoints"].as_array().unwrap().iter().map(|o| o["result"].clone()).collect();
    assert_eq!(results, ["damaged", "whole"]);

    // What is named and is not there.
    for subcommand in ["verify", "list"] {
        let refused = lxc_cr(world, subcommand).arg("nosuch").output();
        refused.assert_code(3);
        assert!(refused.stderr.contains("there is no container nosuch"), "{refused}");
    }
    container.kill();
}

/// The states that are listed of a container, by the last part of each checkpoint's path.
fn states(container: &Container<'_>) -> BTreeMap<String, String> {
    let listed = json(container.lxc_cr("list"));
    let rows = listed["checkpoints"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let last = |path: String| Path::new(&path).file_name().unwrap().to_string_lossy().into_owned();
    rows.iter().map(|row| (last(text(&row["directory"])), text(&row["state"]))).collect()
}

/// A container's checkpoints are a list: each has its time, some a label; a restart takes one of
/// them; old ones go.
pub fn checkpoints_are_a_list(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let list = container.dir().join("checkpoints");
    for _ in 0..3 {
        container.ours("lxc-checkpoint").arg("--keep").ok();
    }
    container.ours("lxc-checkpoint").args(["--keep", "--label", "good"]).ok();
    let before = witness.assert_goes_on_from(&before);
    let names = || -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&list).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    };
    let all = names();
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|name| name.len() >= 19 && name.as_bytes()[10] == b'T'), "{all:?}");
    let listed = json(container.lxc_cr("list"));
    let rows = listed["checkpoints"].as_array().unwrap();
    let labels: Vec<_> = rows.iter().filter_map(|row| row["label"].as_str()).collect();
    assert_eq!((rows.len(), labels), (4, vec!["good"]));
    for row in rows {
        assert!(
            row["frozen_us"].as_u64().unwrap() > 0 && row["processes"].as_u64().unwrap() >= 3,
            "{row}"
        );
    }

    // Which are kept, and why; then they go. What has a label stays.
    let planned = container.lxc_cr("prune").args(["--dry-run", "--keep-last", "1"]).ok().stdout;
    assert_eq!(planned.matches(": would remove ").count(), 3, "{planned}");
    assert!(
        planned.contains("(last, label good)") && planned.contains("3 would be removed ("),
        "{planned}"
    );
    assert_eq!(names(), all);
    let untouched = container.lxc_cr("prune").ok().stdout;
    assert!(
        untouched.contains("nothing to remove, 4 kept") && untouched.contains("--keep-last"),
        "{untouched}"
    );
    {
        let _settings = Settings::with("keep_last = 2\n");
        let pruned = json(container.lxc_cr("prune"));
        assert_eq!(pruned["changed"], true, "{pruned}");
    }
    assert_eq!(names(), all[2..]);

    // Back to one of them, by label and by time.
    for (at, which) in [("good", &all[3]), (all[2].as_str(), &all[2]), ("latest", &all[3])] {
        let told = container.ours("lxc-restart").args(["--replace", "--force", "--at", at]).ok();
        assert!(told.stdout.contains("running again"), "{told}");
        assert_eq!(states(&container)[which], "restored", "{at}");
    }
    drop(before);
    for (at, text) in [("bad", "the label bad"), ("1999", "begins with 1999")] {
        let refused = container.ours("lxc-restart").args(["--replace", "--at", at]).output();
        refused.assert_code(3);
        assert!(refused.stderr.contains(text), "{refused}");
    }
    container.kill();
    // Not suspended, and told so.
    let refused = container.ours("lxc-restart").output();
    refused.assert_code(3);
    assert!(
        refused.stderr.contains("it is not suspended") && refused.stderr.contains("--at latest"),
        "{refused}"
    );
}

/// Checkpoints on another disk are known; while it is not mounted they are said to be so, and its
/// mount point is not filled.
pub fn a_disk_that_is_not_mounted_is_named_and_not_filled(world: &World) {
    let container = world.container();
    container.start();
    let disk = world.lxcpath().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = || {
        Run::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "backup"]).arg(&disk).ok();
    };
    mount();
    container.ours("lxc-checkpoint").arg("-D").arg(disk.join("monday")).ok();
    assert_eq!(states(&container)["monday"], "complete");

    Run::new("umount").arg(&disk).ok();
    assert_eq!(states(&container)["monday"], "not-mounted");
    let refused = container.ours("lxc-checkpoint").arg("-D").arg(disk.join("tuesday")).output();
    refused.assert_code(4);
    assert!(refused.stderr.contains("disk is not mounted"), "{refused}");
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0, "its mount point was filled");
    let refused = container.ours("lxc-restart").args(["--replace", "--at", "latest"]).output();
    refused.assert_code(3);
    assert!(refused.stderr.contains("a file system that is not mounted"), "{refused}");

    // One that is empty now: nothing is there, and nothing is listed.
    mount();
    assert!(states(&container).is_empty());
    container.ours("lxc-checkpoint").arg("-D").arg(disk.join("tuesday")).ok();
    assert_eq!(states(&container).into_keys().collect::<Vec<_>>(), ["tuesday"]);
    Run::ours("lxc-cr").arg("remove").arg(disk.join("tuesday")).ok();
    assert!(states(&container).is_empty());
    Run::new("umount").arg(&disk).ok();
    container.kill();
}

/// What a suspended container would be lost with is not removed by mistake; what is not there is
/// said not to be there.
pub fn the_only_state_of_a_container_is_not_removed_by_mistake(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    assert_eq!(states(&container)["dump"], "suspended");
    for what in [container.name().to_owned(), container.dir().join("dump").display().to_string()] {
        let refused = lxc_cr(world, "remove").arg(&what).output();
        refused.assert_code(4);
        assert!(
            refused.stderr.contains("this is its only state") && refused.stderr.contains("--force"),
            "{refused}"
        );
    }
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    assert_eq!(states(&container)["dump"], "restored");
    let removed = lxc_cr(world, "remove").arg(container.name()).ok();
    assert!(removed.stdout.contains("removed the checkpoint"), "{removed}");

    container.ours("lxc-checkpoint").ok();
    lxc_cr(world, "remove").args(["--force", container.name()]).ok();
    assert!(!container.dir().join("dump").exists());
    for subcommand in ["remove", "recover"] {
        let refused = lxc_cr(world, subcommand).arg("nosuch").output();
        refused.assert_code(3);
        assert!(refused.stderr.contains("nosuch"), "{refused}");
    }
}

/// Containers and checkpoints of each, for which `list` and `prune` must be fast.
const MANY: (usize, usize) = (50, 20);
/// How long an optimised program may take for a list of all, and for a plan of what goes.
const LIST_LIMIT: Duration = Duration::from_millis(500);
const PRUNE_LIMIT: Duration = Duration::from_secs(1);
/// How many times slower a program without optimisations may be.
const UNOPTIMISED: u32 = 12;

/// How often a time is taken: the least one counts.
const TIMES: usize = 3;

/// How long a command takes that keeps all processors busy, where no other program wants them: the
/// time that it has had of them itself, divided by their number. What the kernel does for it takes
/// longer while other tests use the same file systems; a processor that another test shares the
/// caches of is slower, hence the least of several.
fn undisturbed(command: impl Fn() -> Run) -> Duration {
    let processors = std::thread::available_parallelism().unwrap().get() as u32;
    (0..TIMES).map(|_| processor_time(command()) / processors).min().unwrap()
}

/// The time that a command itself has had of all processors.
fn processor_time(command: Run) -> Duration {
    let told = Run::new("sh")
        .args(["-c", "\"$@\" >/dev/null; times", "sh"])
        .args(command.words())
        .ok()
        .stdout;
    // Of the shell, then of its children, each for the user and in the kernel: "0m1.20s 0m0.10s".
    let part = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let children = told.lines().last().unwrap();
    Duration::from_secs_f64(children.split_whitespace().next().map(part).unwrap())
}

/// A thousand checkpoints are listed, and planned to be pruned, at once.
pub fn a_thousand_checkpoints_are_listed_at_once(world: &World) {
    let container = world.container();
    container.start();
    container.ours("lxc-checkpoint").arg("--keep").ok();
    let made =
        fs::read_dir(container.dir().join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let record = fs::read_to_string(made.join("lxc-cr.toml")).unwrap();
    let created: u64 =
        record.lines().find_map(|line| line.strip_prefix("created = ")).unwrap().parse().unwrap();
    for number in 0..MANY.0 {
        let name = format!("many{number}");
        let own = world.lxcpath().join(&name);
        fs::create_dir_all(own.join("checkpoints")).unwrap();
        fs::write(own.join("config"), "").unwrap();
        for which in 0..MANY.1 {
            let dir = own.join("checkpoints").join(format!("c{which}"));
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            for image in fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().path()) {
                fs::hard_link(&image, dir.join(image.file_name().unwrap())).unwrap();
            }
            fs::remove_file(dir.join("lxc-cr.toml")).unwrap();
            let text = record.replacen(
                &format!("created = {created}"),
                &format!("created = {}", created - which as u64 * 3600),
                1,
            );
            let text = text.replace(
                &format!("name = \"{}\"", container.name()),
                &format!("name = \"{name}\""),
            );
            fs::write(dir.join("lxc-cr.toml"), text).unwrap();
        }
    }
    let times = if cfg!(debug_assertions) { UNOPTIMISED } else { 1 };
    let list = || lxc_cr(world, "list");
    let listed = list().ok();
    assert_eq!(
        listed.stdout.lines().filter(|line| line.starts_with("many")).count(),
        MANY.0 * MANY.1
    );
    let took = undisturbed(list);
    assert!(took < patient(LIST_LIMIT * times), "list took {took:?}");
    let plan = || lxc_cr(world, "prune").args(["--all", "--dry-run", "--keep-last", "3"]);
    assert_eq!(plan().ok().stdout.matches(": would remove ").count(), MANY.0 * (MANY.1 - 3));
    let took = undisturbed(plan);
    assert!(took < patient(PRUNE_LIMIT * times), "prune took {took:?}");
    container.kill();
}

/// A file for what has happened: when, by which program, to which container, and how it ended.
pub fn a_log_file_has_steps_and_outcomes(world: &World) {
    let container = world.container();
    container.start();
    let log = world.images("log").join("web.log");
    let run = |program: &str| container.ours(program).arg("-o").arg(&log);
    run("lxc-checkpoint").ok();
    run("lxc-checkpoint").output().assert_code(3);
    run("lxc-restart").ok();
    let text = fs::read_to_string(&log).unwrap();
    let name = container.name();
    let has = |program: &str, level: &str, words: &str| {
        let about = format!(" {program}[{name}] {level}: ");
        let found = text.lines().any(|line| {
            let (time, rest) = line.split_at(line.find(' ').unwrap());
            let is_time = time.len() >= 20 && time.as_bytes()[10] == b'T';
            is_time && rest.starts_with(&about) && rest.contains(words)
        });
        assert!(found, "{about}{words} is missing: {text}");
    };
    has("lxc-checkpoint", "step", "freezing");
    has("lxc-checkpoint", "info", "the container is stopped");
    has("lxc-checkpoint", "error", "it is not running");
    has("lxc-restart", "step", "restoring");
    has("lxc-monitor", "info", "it runs again");
    container.kill();
}

/// One vocabulary for all that is suspended: what `lxc-checkpoint` stopped is resumed, what `lxc-cr
/// suspend` suspended is restored, and a start in between is noticed.
pub fn what_is_suspended_is_said_to_be_so(world: &World) {
    let container = prepared(world, "web", "");
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    assert_eq!(states(&container)["dump"], "suspended");
    container.lxc_cr("resume").ok();
    let before = witness.assert_goes_on_from(&before);
    assert_eq!(states(&container)["dump"], "restored");
    container.lxc_cr("suspend").ok();
    assert_eq!(states(&container)["dump"], "to-be-resumed");
    container.ours("lxc-restart").ok();
    let before = witness.assert_goes_on_from(&before);

    // In its list, as well.
    container.ours("lxc-checkpoint").args(["--keep", "-s", "--label", "night"]).ok();
    assert_eq!(states(&container).into_values().filter(|state| state == "suspended").count(), 1);
    {
        let _settings = Settings::with("on_start = \"refuse\"\n");
        assert!(!container.lxc("lxc-start").arg("-d").output().success());
        assert_eq!(container.state(), "STOPPED");
    }
    container.lxc_cr("resume").ok();
    witness.assert_goes_on_from(&before);

    // A start that is not refused makes it stale.
    container.ours("lxc-checkpoint").ok();
    container.start();
    assert_eq!(states(&container)["dump"], "stale");
    container.kill();
    assert_eq!(states(&container)["dump"], "stale");
    let refused = container.lxc_cr("resume").output();
    refused.assert_code(3);
    assert!(refused.stderr.contains("it is not suspended"), "{refused}");
}

/// Whether the next shutdown goes well is known beforehand, and nothing is changed for that.
pub fn the_next_shutdown_is_rehearsed(world: &World) {
    let _settings = Settings::with("suspend = true\n");
    let good = prepared(world, "good", "");
    let blocked = prepared(world, "blocked", "");
    let unnoticed = world.container_named("unnoticed");
    let culprits = Culprits::put_into(&blocked);
    for container in [&good, &blocked, &unnoticed] {
        container.start();
    }
    culprits.make("uts").unwrap();
    let before = [&good, &blocked, &unnoticed].map(|container| container.init_pid());

    let told = lxc_cr(world, "suspend").args(["--all", "--dry-run"]).output();
    told.assert_code(4);
    for text in [
        "good: would be suspended\n",
        "blocked: would be shut down: it cannot be checkpointed: process ",
        "unnoticed: would be shut down: lxc-cr-pre-start is not among its hooks",
    ] {
        assert!(told.stdout.contains(text), "{text}: {told}");
    }
    let checked = lxc_cr(world, "check").arg("--all").output();
    checked.assert_code(4);
    for text in [
        "good can be checkpointed\n",
        "blocked cannot be checkpointed: there is 1 blocker\n  blocker: ",
    ] {
        assert!(checked.stdout.contains(text), "{text}: {checked}");
    }
    let rows = lxc_cr(world, "check").args(["--all", "--json"]).output();
    let rows: serde_json::Value = serde_json::from_str(&rows.stdout).unwrap();
    assert_eq!(
        rows["containers"].as_array().unwrap().iter().filter(|row| row["blocked"] == true).count(),
        1,
        "{rows}"
    );
    assert_eq!([&good, &blocked, &unnoticed].map(|container| container.init_pid()), before);
    [&good, &blocked, &unnoticed].iter().for_each(|container| container.kill());
}
