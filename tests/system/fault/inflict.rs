//! Makes a fault happen, and takes it back where that is a matter of the host: afterwards the disk
//! has space again and the bridge is there, as an administrator would see to it.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;

use super::{Command, Fault};
use crate::harness::enter::{BRIDGE, BRIDGE_ADDRESS};
use crate::harness::run::{Run, wait_for};

/// The size of the file systems that can be full.
pub const SIZE: &str = "64m";
/// Where our state is.
const STATE: &str = "/run";
/// The shortest time limit that there is.
pub const TIME_LIMIT: Duration = Duration::from_secs(1);
/// The address of a bridge that has never had a port.
const NO_ADDRESS: &str = "00:00:00:00:00:00";
/// For a killed process to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// For a file system to be full while CRIU writes to it.
const FULL_LIMIT: Duration = Duration::from_secs(10);

/// What a fault hits.
#[derive(Debug)]
pub struct Target<'a> {
    /// What is disturbed.
    pub command: Command,
    /// Our command.
    pub ours: &'a Child,
    /// When it was started.
    pub started: Instant,
    /// CRIU, if it runs.
    pub criu: Option<u32>,
    /// The container's init, if there is one.
    pub init: Option<u32>,
    /// The mount that holds the images.
    pub images: &'a Path,
}

/// What has to be taken back.
#[derive(Debug, Default)]
pub struct Inflicted {
    bridge: Option<String>,
    full: Option<String>,
    /// The status with which the action script is to end.
    pub status: i32,
}

/// Makes it happen; none if there is nothing that it could hit.
pub fn inflict(fault: Fault, target: &Target<'_>) -> Option<Inflicted> {
    let mut inflicted = Inflicted::default();
    match fault {
        Fault::OursKilled => kill_and_wait(target.ours.id(), Signal::SIGKILL),
        Fault::CriuKilled => kill_and_wait(target.criu?, Signal::SIGKILL),
        Fault::ScriptFails => inflicted.status = 1,
        Fault::Interrupted => kill(pid(target.ours.id()), Signal::SIGINT).unwrap(),
        Fault::TimeLimit => {
            // The limit itself is what is waited for.
            thread::sleep(
                (TIME_LIMIT + Duration::from_millis(100)).saturating_sub(target.started.elapsed()),
            );
        }
        Fault::DiskFull => inflicted.full = Some(fill(target.images)),
        Fault::StateFull => inflicted.full = Some(fill(Path::new(STATE))),
        Fault::BridgeDeleted => {
            inflicted.bridge = Some(
                fs::read_to_string(format!("/sys/class/net/{BRIDGE}/address"))
                    .unwrap()
                    .trim()
                    .to_owned(),
            );
            Run::new("ip").args(["link", "delete", BRIDGE]).ok();
        }
        // Its end is not waited for: it comes when CRIU, who traces the container's other tasks,
        // lets go of them.
        Fault::InitDies => drop(kill(pid(target.init?), Signal::SIGKILL)),
        Fault::MonitorDies => {
            let monitor = match target.command {
                Command::Restart => child_of(target.ours.id())?,
                _ => parent_of(target.init?)?,
            };
            kill_and_wait(monitor, Signal::SIGKILL);
        }
    }
    Some(inflicted)
}

impl Inflicted {
    /// Takes it back.
    pub fn take_back(self) {
        if let Some(place) = self.full {
            Run::new("mount").args(["-o", &format!("remount,size={SIZE}"), &place]).ok();
        }
        if let Some(address) = self.bridge {
            make_bridge(&address);
        }
    }
}

fn make_bridge(address: &str) {
    // Without a port it had none: it takes that of the next one.
    let address = if address == NO_ADDRESS { String::new() } else { format!("address {address}") };
    let commands = format!(
        "link add {BRIDGE} {address} type bridge forward_delay 0\naddr add {BRIDGE_ADDRESS} dev \
         {BRIDGE}\nlink set {BRIDGE} up\n"
    );
    Run::new("ip").args(["-batch", "-"]).input(commands).ok();
}

/// Gives the file system of our state a size that it can be filled to; once, before the first look
/// at the host.
pub fn limit_state() {
    Run::new("mount").args(["-o", &format!("remount,size={SIZE}"), STATE]).ok();
}

/// A tmpfs is full when its size is what is used of it. What is written to it meanwhile makes that
/// too small a size.
fn fill(place: &Path) -> String {
    let name = place.to_str().unwrap().to_owned();
    let full = || {
        let stat = statvfs(place).unwrap();
        let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
        // Nothing is unlimited, so never 0.
        let size = format!("remount,size={}", used.max(4096));
        Run::new("mount").args(["-o", &size, &name]).output().success().then_some(())
    };
    wait_for("a full file system", FULL_LIMIT, full).unwrap();
    name
}

fn kill_and_wait(process: u32, signal: Signal) {
    if kill(pid(process), signal).is_err() {
        return;
    }
    // A zombie has ended; somebody else collects it.
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
            .then_some(())
    };
    wait_for("a killed process to end", GONE_LIMIT, ended).unwrap();
}

/// The process as the kernel's calls want it.
pub fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

/// The parent of a process.
pub fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// The first child of a process.
pub fn child_of(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
