//! Lazy restores by the seed: a program whose every page is known does what programs do to memory,
//! and something befalls what fills it. It reads what it wrote, or it is ended; never anything
//! else.

mod disk;

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::pattern::{
    Pattern, gone, hinder, keeper_if_any, largest_image, pid_if_any, wait_until_filled,
    with_pattern,
};
use disk::{Disk, Mood};

/// What the program holds.
const MEBIBYTES: usize = 48;
/// The exit code of a restart whose checkpoint is damaged.
const DAMAGED: i32 = 9;

/// What befalls what fills the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hazard {
    Nothing,
    /// The monitor, with its pager, is stopped and continued all the time.
    Hindered,
    /// The monitor is killed.
    PagerKilled,
    /// Who ends the container if the monitor dies is killed.
    KeeperKilled,
    /// First that one, and when another has taken its place, the monitor.
    BothKilled,
    /// A bit of an image changes while it is read.
    ImageDamaged,
    /// A bit of an image had changed before.
    ImageWasDamaged,
    DiskStalls,
    DiskFails,
}

const HAZARDS: [Hazard; 9] = [
    Hazard::Nothing,
    Hazard::Hindered,
    Hazard::PagerKilled,
    Hazard::KeeperKilled,
    Hazard::BothKilled,
    Hazard::ImageDamaged,
    Hazard::ImageWasDamaged,
    Hazard::DiskStalls,
    Hazard::DiskFails,
];

impl Hazard {
    /// Whether the container may be ended by it.
    fn may_end_it(self) -> bool {
        use Hazard::*;
        matches!(self, PagerKilled | BothKilled | ImageDamaged | ImageWasDamaged | DiskFails)
    }
}

/// One trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    seed: u64,
    hazard: Hazard,
    /// What the program does meanwhile.
    work: &'static str,
    /// When it befalls it.
    after: Duration,
    /// A part of the image, in millionths, and a bit of the byte there.
    place: (u64, u8),
    pause: Duration,
}

/// How the trials came out.
#[derive(Debug, Default)]
pub struct Tally {
    went_on: usize,
    ended: usize,
    refused: usize,
    /// Pages that were compared.
    pages: u64,
    /// What did not hold, with its seed.
    pub lost: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { went_on, ended, refused, pages, lost } = self;
        write!(
            f,
            "{} lazy restores: {went_on} with all of their memory, {ended} ended by what befell \
             them, {refused} refused; {pages} pages compared by those that answered; {} NOT HELD",
            went_on + ended + refused + lost.len(),
            lost.len()
        )
    }
}

/// What became of one.
enum Outcome {
    WentOn(u64),
    Ended(u64),
    Refused,
}

struct Dice(u64);

impl Dice {
    /// splitmix64
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

impl Trial {
    fn of(seed: u64) -> Trial {
        let mut dice = Dice(seed);
        Trial {
            seed,
            // Each in its turn, so that a few seeds see all of them.
            hazard: HAZARDS[(seed % HAZARDS.len() as u64) as usize],
            work: ["churn", "churn", "storm"][dice.roll(3) as usize],
            after: Duration::from_micros(dice.roll(60_000)),
            place: (dice.roll(1_000_000), 1 << dice.roll(8)),
            pause: Duration::from_micros(100 + dice.roll(1500)),
        }
    }
}

/// Goes through these seeds; `tell` sees each that did not hold.
pub fn go_through(
    world: &World,
    seeds: impl Iterator<Item = u64>,
    tell: &mut dyn FnMut(&str),
) -> Tally {
    let rig = Rig::new(world);
    let mut tally = Tally::default();
    for trial in seeds.map(Trial::of) {
        // What the harness does not get in time is a panic of it.
        let outcome = catch_unwind(AssertUnwindSafe(|| rig.run(trial)));
        match outcome.unwrap_or_else(|panic| Err(in_words(&*panic))) {
            Ok(Outcome::WentOn(pages)) => {
                tally.went_on += 1;
                tally.pages += pages;
            }
            Ok(Outcome::Ended(pages)) => {
                tally.ended += 1;
                tally.pages += pages;
            }
            Ok(Outcome::Refused) => tally.refused += 1,
            Err(what) => {
                let what = format!("{trial:?}: {what}");
                tell(&what);
                tally.lost.push(what);
            }
        }
        rig.clear();
    }
    tally
}

/// A container that was suspended once, and is restored for each trial.
struct Rig<'w> {
    container: Container<'w>,
    image: PathBuf,
    pidfile: PathBuf,
    /// The pid of init in the trial that goes on.
    init: Cell<Option<i32>>,
}

impl<'w> Rig<'w> {
    fn new(world: &'w World) -> Rig<'w> {
        let container = with_pattern(world, MEBIBYTES);
        container.ours("lxc-checkpoint").ok();
        let image = largest_image(&container.dir().join("dump"));
        let pidfile = world.images("pid").join("monitor");
        Rig { container, image, pidfile, init: Cell::new(None) }
    }

    /// Ends what a trial has left: without its monitor, too, if that was killed when all was in.
    fn clear(&self) {
        if self.container.state() != "STOPPED" {
            self.container.kill();
        }
        if let Some(init) = self.init.take().filter(|pid| is_init(*pid)) {
            kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
            gone(&format!("/proc/{init}"));
        }
        self.container.lxc_cr("recover").ok();
    }

    fn run(&self, trial: Trial) -> Result<Outcome, String> {
        let disk = matches!(trial.hazard, Hazard::DiskStalls | Hazard::DiskFails)
            .then(|| Disk::cover(&self.image))
            .flatten();
        let damage = (trial.hazard == Hazard::ImageWasDamaged).then(|| self.damage(trial));
        let restarted = self
            .container
            .ours("lxc-restart")
            .args(["--lazy", "--force", "--pidfile"])
            .arg(&self.pidfile)
            .output();
        if !restarted.success() {
            let is_so = damage.is_some() && restarted.code() == DAMAGED;
            return if is_so { Ok(Outcome::Refused) } else { Err(restarted.to_string()) };
        }
        let monitor = match pid_if_any(&self.pidfile) {
            Some(monitor) => monitor,
            // It has been ended already, and the monitor with it.
            None if trial.hazard == Hazard::ImageWasDamaged => {
                self.container.wait_state("STOPPED");
                return Ok(Outcome::Ended(0));
            }
            None => return Err("its monitor has ended".to_owned()),
        };
        self.init.set(child_of(monitor));
        let told = self.work(trial, monitor, disk.as_ref());
        drop(damage);
        let (pages, ended) = judge(&told)?;
        if !ended {
            if let Some(disk) = &disk {
                disk.set(Mood::Fine);
            }
            return self.rest(trial, pages);
        }
        if !trial.hazard.may_end_it() {
            return Err("it was ended".to_owned());
        }
        // All of it, before anybody could read what is missing.
        self.container.wait_state("STOPPED");
        Ok(Outcome::Ended(pages))
    }

    /// What the program answers while the hazard befalls it; none where it is ended.
    fn work(&self, trial: Trial, monitor: Pid, disk: Option<&Disk>) -> Vec<Option<String>> {
        let Some(mut pattern) = self.connect(trial) else { return vec![None] };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if trial.hazard == Hazard::Hindered {
                scope.spawn(|| hinder(monitor, &done));
            }
            if let (Hazard::DiskStalls, Some(disk)) = (trial.hazard, disk) {
                disk.set(Mood::Stalls(trial.pause));
            }
            pattern.send(&format!("{} {}", trial.work, trial.seed));
            let damage = self.befall(trial, monitor, disk);
            let mut told = vec![pattern.hear()];
            if told[0].is_some() {
                pattern.send("check");
                told.push(pattern.hear());
            }
            drop(damage);
            done.store(true, Ordering::Release);
            told
        })
    }

    /// One that listens, or has been ended before it could.
    fn connect(&self, trial: Trial) -> Option<Pattern> {
        match trial.hazard.may_end_it() {
            false => Some(Pattern::connect(&self.container)),
            true => Pattern::try_connect(&self.container),
        }
    }

    fn befall(&self, trial: Trial, monitor: Pid, disk: Option<&Disk>) -> Option<Damaged> {
        std::thread::sleep(trial.after);
        match trial.hazard {
            Hazard::PagerKilled => {
                let keeper = keeper_if_any(monitor);
                kill(monitor, Signal::SIGKILL).unwrap();
                keeper.iter().for_each(|pid| gone(&format!("/proc/{pid}")));
            }
            Hazard::KeeperKilled | Hazard::BothKilled => {
                let keeper = keeper_if_any(monitor)?;
                kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
                gone(&format!("/proc/{keeper}"));
                if trial.hazard == Hazard::BothKilled {
                    // Only then: what both of them hold would be closed at once.
                    while keeper_if_any(monitor).is_none_or(|other| other == keeper) {
                        if !self.is_filling() {
                            return None;
                        }
                        std::thread::yield_now();
                    }
                    kill(monitor, Signal::SIGKILL).unwrap();
                }
            }
            Hazard::ImageDamaged => return Some(self.damage(trial)),
            Hazard::DiskFails => {
                disk.into_iter().for_each(|disk| disk.set(Mood::FailsAfter(trial.place.0 % 200)));
            }
            Hazard::Nothing | Hazard::Hindered | Hazard::ImageWasDamaged | Hazard::DiskStalls => {}
        }
        None
    }

    fn is_filling(&self) -> bool {
        self.container.lxc_cr("list").ok().stdout.contains("filling")
    }

    /// Changes a bit of the image, until what this gives is dropped.
    fn damage(&self, trial: Trial) -> Damaged {
        let file = fs::OpenOptions::new().read(true).write(true).open(&self.image).unwrap();
        let at = file.metadata().unwrap().len() / 1_000_000 * trial.place.0;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ trial.place.1], at).unwrap();
        Damaged { file, at, byte: byte[0] }
    }

    /// One that has not been ended: all of its memory comes, and is right.
    fn rest(&self, trial: Trial, pages: u64) -> Result<Outcome, String> {
        if trial.hazard.may_end_it() {
            // It may be ended at any moment.
            let told = Pattern::try_connect(&self.container).and_then(|mut pattern| {
                pattern.send("check");
                pattern.hear()
            });
            let (more, ended) = judge(&[told])?;
            return Ok(if ended { Outcome::Ended(pages) } else { Outcome::WentOn(pages + more) });
        }
        wait_until_filled(&self.container);
        let (more, ended) = judge(&[Some(Pattern::connect(&self.container).ask("check"))])?;
        if ended { Err("it was ended".to_owned()) } else { Ok(Outcome::WentOn(pages + more)) }
    }
}

/// A monitor's init.
fn child_of(monitor: Pid) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| is_init(*pid))
}

/// Whether a process is the init of a container: the program of busybox that is called so.
fn is_init(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "init")
}

fn in_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic").to_owned()
}

/// An image of which a bit is wrong.
struct Damaged {
    file: fs::File,
    at: u64,
    byte: u8,
}

impl Drop for Damaged {
    fn drop(&mut self) {
        self.file.write_all_at(&[self.byte], self.at).unwrap();
    }
}

/// The pages that were compared, and whether the container was ended. Anything but good answers and
/// none is the error.
fn judge(told: &[Option<String>]) -> Result<(u64, bool), String> {
    let mut pages = 0;
    for told in told {
        match told.as_deref().map(|told| (told, told.strip_prefix("good "))) {
            None => return Ok((pages, true)),
            Some((_, Some(good))) => {
                let count = good.split_once(" pages").and_then(|(count, _)| count.parse().ok());
                pages += count.unwrap_or(0u64);
            }
            Some((told, None)) => return Err(told.to_owned()),
        }
    }
    Ok((pages, false))
}
