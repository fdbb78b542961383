//! Hostile containers by the seed: what they try is put together at random from what was ever
//! tried.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::World;
use crate::harness::hostile::{HostTree, Hostile};

/// Where links lead to.
const TARGETS: &[&str] = &[
    "/",
    "/etc",
    "@VICTIM",
    "@VICTIM/sub",
    "/proc/1/root@VICTIM",
    "/proc/self/root@VICTIM",
    "/proc/1/cwd@VICTIM",
    "../../../../../../../..@VICTIM",
    "@ROOT/..",
    "/dev",
    "/tmp",
    "/sys/fs/cgroup",
    "/link",
    "/usr",
    "/.lxc-cr",
    "/run",
];
/// What is opened, and made before where need be.
const OPENED: &[&str] = &[
    "create", "create", "map", "fifo", "device", "stream", "datagram", "path-of", "open-dir",
    "open-dir", "watch-of", "cd-to",
];
/// Names that a line of ours could end at.
const NAMES: &[&str] = &[
    "f",
    "etc",
    "sub",
    "file",
    "x%0Ahint:%20forged",
    "x%0Anow:%20forged",
    "a%20b%E2%80%AEc",
    "etc%1B[2J",
];

/// What came of each.
#[derive(Debug, Default)]
pub struct Outcomes {
    refused: usize,
    not_restored: usize,
    restored: usize,
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.refused + self.not_restored + self.restored;
        write!(
            f,
            "{all} hostile containers: {} refused, {} not restored, {} restored; the host is as it \
             was",
            self.refused, self.not_restored, self.restored
        )
    }
}

struct Dice(u64);

impl Dice {
    /// splitmix64
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.roll(list.len())]
    }
}

/// What it does before the checkpoint, and what after it.
fn plan(dice: &mut Dice) -> (Vec<String>, Vec<String>) {
    let (mut before, mut after) =
        (vec![format!("symlink {} /link", dice.one_of(&TARGETS[..12]))], Vec::new());
    for number in 0..1 + dice.roll(3) {
        let top = match dice.roll(4) {
            0 => "/shared".to_owned(),
            1 => {
                before.extend([format!("mkdir /m{number}"), format!("tmpfs /m{number}")]);
                format!("/m{number}")
            }
            _ => String::new(),
        };
        before.push("task".to_owned());
        let (one, two) =
            (format!("{top}/s{number}"), format!("{top}/s{number}/{}", dice.one_of(NAMES)));
        let file = format!("{two}/{}", dice.one_of(NAMES));
        before.push(format!("mkdir {two}"));
        let kind = dice.one_of(OPENED);
        before.extend(match kind {
            "path-of" => vec![format!("create {file}"), format!("path {file}")],
            "open-dir" => {
                vec![format!("mkdir {file}"), format!("chmod {file}"), format!("open {file}")]
            }
            "watch-of" => vec![format!("create {file}"), format!("watch {file}")],
            "cd-to" => vec![format!("mkdir {file}"), format!("cd {file}")],
            other => vec![format!("{other} {file}")],
        });
        if dice.roll(4) == 0 {
            before.push(format!("name {}", dice.one_of(NAMES)));
        }
        let is_directory = matches!(kind, "open-dir" | "cd-to");
        let link = format!("symlink {}", dice.one_of(TARGETS));
        match dice.roll(6) {
            // It stays.
            0 => {}
            1 => {
                let mount = format!("/b{number}");
                before.extend([format!("mkdir {mount}"), format!("bind {two} {mount}")]);
                after.extend([format!("rename {one} {one}-moved"), format!("{link} {one}")]);
            }
            2 if !is_directory => {
                before
                    .extend([format!("link {file} {top}/hard{number}"), format!("unlink {file}")]);
                before.extend([format!("rmdir {two}"), format!("{link} {two}")]);
            }
            3 => after.extend([format!("rename {two} {one}/moved"), format!("{link} {two}")]),
            4 => {
                before.push(format!("{} {file}", if is_directory { "rmdir" } else { "unlink" }));
                before.extend([format!("rmdir {two}"), format!("{link} {two}")]);
            }
            _ => {
                before.push(format!("{} {file}", if is_directory { "rmdir" } else { "unlink" }));
                before.extend([
                    format!("rmdir {two}"),
                    format!("rmdir {one}"),
                    format!("{link} {one}"),
                ]);
            }
        }
    }
    (before, after)
}

/// Tries these seeds, every other one with an id map.
pub fn go_through(world: &World, seeds: std::ops::Range<u64>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for seed in seeds {
        attempt(world, seed, &mut outcomes);
    }
    outcomes
}

fn attempt(world: &World, seed: u64, outcomes: &mut Outcomes) {
    let mut dice = Dice(seed);
    let (before, after) = plan(&mut dice);
    let name = format!("seed-{seed}");
    let hostile = Hostile::make(world, &name, seed % 2 == 1, &before);
    hostile.start();
    let container = &hostile.container;
    let images = world.images("checkpoints").join(&name);
    let own = [container.dir(), world.images("checkpoints"), hostile.shared.clone()];
    let own: Vec<&Path> = own.iter().map(AsRef::as_ref).collect();
    let host = HostTree::take(&own);

    let goes_on = !after.is_empty();
    let how = if goes_on { "--leave-running" } else { "-s" };
    let mut told = vec![container.ours("lxc-checkpoint").arg(how).arg("-D").arg(&images).output()];
    if told[0].success() {
        after.iter().for_each(|step| drop(hostile.go_on(step)));
        if dice.roll(3) == 0 {
            let part = dice.one_of(&["sub", "d", "s0", "s1"]);
            let _ = fs::rename(hostile.shared.join(part), hostile.shared.join("moved"));
            let _ = symlink(hostile.victim.join("sub"), hostile.shared.join(part));
        }
        let restart = container.ours("lxc-restart").arg("-D").arg(&images);
        told.push(if goes_on { restart.arg("--replace") } else { restart }.output());
    }
    let changes = HostTree::take(&own).changes(&host);
    assert_eq!(changes, Vec::<String>::new(), "seed {seed}, {before:?}, {after:?}: {told:#?}");
    for output in &told {
        let forged =
            |line: &str| line.starts_with("hint: forged") || line.starts_with("now: forged");
        let steers = |c: char| c == '\u{1b}' || c == '\u{202e}';
        let bad = output.stderr.lines().any(forged) || output.stderr.contains(steers);
        assert!(!bad && output.in_time, "seed {seed}, {before:?}, {after:?}: {output:#?}");
    }
    match (&told[..], told.iter().all(|output| output.success())) {
        (_, true) => outcomes.restored += 1,
        ([first], _) if !first.success() => outcomes.refused += 1,
        _ if told.last().is_some_and(|output| matches!(output.status.code(), Some(4 | 9))) => {
            outcomes.refused += 1
        }
        _ => outcomes.not_restored += 1,
    }
    container.lxc("lxc-stop").arg("-k").output();
    for dir in [&container.dir(), &images, &hostile.shared, &hostile.victim] {
        let _ = fs::remove_dir_all(dir);
    }
}
