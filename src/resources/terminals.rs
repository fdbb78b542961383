//! The console and the ttys that LXC gives a container.
//!
//! Each is a pty: its slave is bind-mounted on `/dev/console` or `/dev/ttyN` in the container, its
//! master is held by the container's monitor, outside. CRIU dumps such a terminal only when it is
//! told that it is external: the mounts by their mount points, what is open of it by its device
//! numbers. At a restart our monitor makes new ptys and hands their slaves to CRIU.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::criu::images::{self, Controlling};
use crate::resources::mounts::Mount;
use crate::sys::entry::Entry;
use crate::sys::glance::glance;
use crate::sys::pty::Pty;

/// Major number of the slaves of all ptys (`UNIX98_PTY_SLAVE_MAJOR`).
const PTS_MAJOR: u32 = 136;
/// `/dev/tty`: whatever terminal controls the process that opens it.
const CONTROLLING: u64 = makedev(5, 0);

/// A terminal that LXC lent a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    /// 0 is the console, N is `ttyN`.
    pub number: u32,
    /// The device numbers of the terminal, as stat(2) gives them.
    pub rdev: u64,
    /// The device numbers of the devpts that it is in.
    pub dev: u64,
    /// Where it is mounted in the container.
    pub points: Vec<Point>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The session that it controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// The owner of a terminal's file, in the host's numbers: login gives it to who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

/// A session with a controlling terminal, in the container's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its leader.
    pub leader: u32,
    /// The process group in the foreground.
    pub foreground: u32,
}

/// A place where a terminal is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The name by which the images know the mount.
    pub key: String,
    /// The mount point in the container.
    pub path: PathBuf,
}

/// What the C library makes of a major and a minor number (gnu_dev_makedev).
const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

/// The terminals that LXC lent, by the container's mounts; pure.
pub(crate) fn lent(container: &[Mount]) -> Vec<Tty> {
    let mut found: Vec<Tty> = Vec::new();
    for mount in container {
        let (Some(number), Some((rdev, dev))) = (number_of(&mount.point), device_of(mount)) else {
            continue;
        };
        let point = Point { key: key(&mount.point), path: mount.point.clone() };
        match found.iter_mut().find(|t| (t.rdev, t.dev) == (rdev, dev)) {
            // With lxc.tty.dir a terminal is mounted twice.
            Some(tty) => tty.points.push(point),
            None => found.push(Tty {
                number,
                rdev,
                dev,
                points: vec![point],
                owner: None,
                session: None,
            }),
        }
    }
    found.sort_by_key(|t| t.number);
    found
}

/// Whether a mount is one of those, and so no bind mount of a file of the host.
pub(crate) fn is_lent(mount: &Mount) -> bool {
    number_of(&mount.point).is_some() && device_of(mount).is_some()
}

/// Whether a path is one at which LXC mounts the console (0) or a tty (its number), by itself or in
/// `lxc.tty.dir`.
fn number_of(point: &Path) -> Option<u32> {
    let below = point.strip_prefix("/dev").ok()?;
    match below.file_name()?.to_str()? {
        "console" => Some(0),
        name => name.strip_prefix("tty")?.parse().ok().filter(|n| *n > 0),
    }
}

/// The device numbers of the slave that is mounted and of its devpts.
fn device_of(mount: &Mount) -> Option<(u64, u64)> {
    if mount.kind != "devpts" {
        return None;
    }
    let index: u32 = mount.root.strip_prefix("/").ok()?.to_str()?.parse().ok()?;
    let (major, minor) = mount.device.split_once(':')?;
    Some((makedev(PTS_MAJOR, index), makedev(major.parse().ok()?, minor.parse().ok()?)))
}

fn key(point: &Path) -> String {
    point
        .to_string_lossy()
        .trim_start_matches('/')
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// A descriptor that a process of the container has on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The device numbers of what it has open, as stat(2) gives them.
    pub rdev: u64,
    /// The device numbers of the file system that this is in.
    pub dev: u64,
    /// The process.
    pub process: Process,
}

/// What has to be known of a process that has a terminal open. All numbers are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its name.
    pub command: String,
    /// Its session.
    pub session: i32,
    /// The device numbers of the terminal that controls its session; 0 if none does.
    pub controlled_by: u64,
    /// The process group in the foreground of that terminal.
    pub foreground: i32,
}

impl Holder {
    /// Whether it is `/dev/tty` that is open.
    pub(crate) fn is_controlling(&self) -> bool {
        self.rdev == CONTROLLING
    }

    /// Whether this terminal is open.
    pub(crate) fn holds(&self, tty: &Tty) -> bool {
        (self.rdev, self.dev) == (tty.rdev, tty.dev)
    }
}

/// What these processes have open of terminals, each once.
pub(crate) fn holders(pids: &[i32]) -> Result<Vec<Holder>> {
    let mut found: Vec<Holder> = Vec::new();
    for pid in pids {
        match holders_of(*pid, &mut found) {
            // It has ended since.
            Err(e)
                if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            }
            other => other.with_context(|| format!("inspect what process {pid} has open"))?,
        }
    }
    Ok(found)
}

fn holders_of(pid: i32, found: &mut Vec<Holder>) -> io::Result<()> {
    let mut devices: Vec<(u64, u64)> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = entry?.path();
        // The name tells what is worth a look: not every descriptor of a large program.
        if !fs::read_link(&link).is_ok_and(|target| target.starts_with("/dev")) {
            continue;
        }
        let Ok(seen) = glance(&link) else { continue };
        let device = (seen.rdev, seen.dev);
        if (device.0 == CONTROLLING || libc::major(device.0) == PTS_MAJOR)
            && !devices.contains(&device)
        {
            devices.push(device);
        }
    }
    if devices.is_empty() {
        return Ok(());
    }
    let process = process(pid, &fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .ok_or(io::ErrorKind::InvalidData)?;
    found.extend(devices.into_iter().map(|(rdev, dev)| Holder {
        rdev,
        dev,
        process: process.clone(),
    }));
    Ok(())
}

/// From /proc/PID/stat: `PID (COMMAND) STATE PPID PGRP SESSION TTY_NR TPGID …`.
fn process(pid: i32, stat: &str) -> Option<Process> {
    let (command, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let numbers: Vec<i64> =
        rest.split_ascii_whitespace().skip(1).take(5).filter_map(|n| n.parse().ok()).collect();
    let &[_, _, session, controlled_by, foreground] = numbers.as_slice() else { return None };
    Some(Process {
        pid,
        command: command.to_owned(),
        session: i32::try_from(session).ok()?,
        controlled_by: u64::try_from(controlled_by).ok()?,
        foreground: i32::try_from(foreground).ok()?,
    })
}

/// The holder by which it is known that this terminal controls a session; pure.
pub(crate) fn controlled<'h>(tty: &Tty, holders: &'h [Holder]) -> Option<&'h Process> {
    holders.iter().find(|h| h.holds(tty) && h.process.controlled_by == tty.rdev).map(|h| &h.process)
}

/// The `/dev/tty` devices that CRIU has to take for external ones: those that are open in a session
/// whose terminal is one of LXC's. CRIU cannot dump them otherwise (tty.c, `tty_verify_ctty`: it
/// looks for a pty of its own). Pure; the device numbers.
pub(crate) fn external_controlling(ttys: &[Tty], holders: &[Holder]) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for holder in holders.iter().filter(|h| h.is_controlling()) {
        let same_session = holders.iter().filter(|h| h.process.session == holder.process.session);
        let on_lent = same_session.into_iter().any(|h| ttys.iter().any(|t| h.holds(t)));
        let device = (holder.rdev, holder.dev);
        if on_lent && !found.contains(&device) {
            found.push(device);
        }
    }
    found
}

/// Notes whose each terminal is, as the container of this init has it.
pub(crate) fn note_owners(ttys: &mut [Tty], init: i32) {
    for tty in ttys {
        let Some(point) = tty.points.first() else { continue };
        let found = Entry::of_process(init, &point.path).and_then(|entry| entry.facts());
        // The container may have put something else in its place meanwhile.
        let facts = found.ok().filter(|f| (f.rdev, f.device) == (tty.rdev, tty.dev));
        tty.owner = facts.map(|f| Owner { uid: f.uid, gid: f.gid, mode: f.mode & 0o777 });
    }
}

/// Notes which session each terminal controls, in the container's own numbers.
pub(crate) fn note_sessions(ttys: &mut [Tty], holders: &[Holder]) {
    for tty in ttys {
        tty.session = controlled(tty, holders).and_then(|process| {
            let leader = last_of(process.pid, "NSsid:")?;
            // The leader of the group may have ended before its group.
            let foreground = last_of(process.foreground, "NSpid:").unwrap_or(leader);
            Some(Session { leader, foreground })
        });
    }
}

/// The last number of a line of /proc/PID/status: the one inside.
fn last_of(pid: i32, line: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix(line))?.split_ascii_whitespace().last()?.parse().ok()
}

/// Looks at the images of a dump, which know what the processes had open at the moment of the dump:
/// each `/dev/tty` must be known to stand for a terminal, and becomes that one. Returns the images
/// that CRIU has to be shown.
///
/// # Errors
/// When there is one of which it is not known, or an image cannot be read.
pub(crate) fn resolve_controlling(images: &Path, ttys: &[Tty]) -> Result<Vec<(String, Vec<u8>)>> {
    let controlling: Vec<Controlling> = ttys
        .iter()
        .filter_map(|Tty { rdev, dev, session, .. }| {
            let Session { leader, foreground } = (*session)?;
            Some(Controlling { rdev: *rdev, dev: *dev, session: leader, foreground })
        })
        .collect();
    let resolved = images::controlling_resolved(images, &controlling)
        .context("read what is open of terminals")?;
    match resolved.unknown.first() {
        None => Ok(resolved.images),
        Some(0) => bail!(
            "a process has /dev/tty open that does not belong to the terminal's session any more"
        ),
        Some(session) => bail!(
            "a process of the session of process {session} (as the container counts) has /dev/tty \
             open, and nothing shows which terminal that is"
        ),
    }
}

/// A terminal that was made anew.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What it stands for.
    pub tty: Tty,
    /// The new pair.
    pub pty: Pty,
}

/// Makes new terminals for those of a checkpoint. They last as long as they are held.
pub(crate) fn make(ttys: &[Tty]) -> Result<Vec<Terminal>> {
    let make = |tty: &Tty| {
        let pty = Pty::open().context("open a pty")?;
        if let Some(Owner { uid, gid, mode }) = tty.owner {
            pty.give_to(uid, gid, mode)
                .with_context(|| format!("give {} to user {uid}", pty.path.display()))?;
        }
        Ok(Terminal { tty: tty.clone(), pty })
    };
    ttys.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn mount(device: &str, root: &str, point: &str, kind: &str) -> Mount {
        Mount {
            id: 1,
            parent: 0,
            device: device.into(),
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            deleted: false,
            source: "none".into(),
            id_mapped: false,
            flags: nix::mount::MsFlags::empty(),
            shared: None,
            master: None,
        }
    }

    #[test]
    fn lxcs_terminals_are_found_by_their_mounts() {
        let mounts = [
            mount("0:50", "/", "/dev/pts", "devpts"),
            mount("0:50", "/ptmx", "/dev/ptmx", "devpts"),
            mount("0:6", "/tty", "/dev/tty", "devtmpfs"),
            mount("0:51", "/2", "/dev/tty2", "devpts"),
            mount("0:51", "/258", "/dev/lxc/console", "devpts"),
            mount("0:51", "/258", "/dev/console", "devpts"),
            mount("0:50", "/7", "/var/lib/docker/x/dev/console", "devpts"),
            mount("0:6", "/console", "/dev/console", "devtmpfs"),
        ];
        let found = lent(&mounts);
        let told: Vec<_> =
            found.iter().map(|t| (t.number, t.rdev, t.dev, t.points.len())).collect();
        // Minor numbers above 255 have their upper bits elsewhere.
        assert_eq!(told, [(0, 0x10_8802, 0x33, 2), (2, 0x8802, 0x33, 1)]);
        assert_eq!(found[0].points[0].key, "dev_lxc_console");
        assert_eq!(mounts.iter().filter(|m| is_lent(m)).count(), 3);
    }

    fn holder(session: i32, controlled_by: u64, rdev: u64, dev: u64) -> Holder {
        let process = Process {
            pid: session + 1,
            command: "sh".into(),
            session,
            controlled_by,
            foreground: session,
        };
        Holder { rdev, dev, process }
    }

    #[test]
    fn what_dev_tty_stands_for_is_told_by_the_session() {
        let ttys = lent(&[mount("0:51", "/2", "/dev/tty2", "devpts")]);
        let holders = [
            holder(9, 0, 0x8802, 0x33),
            holder(10, 0x8802, 0x8802, 0x33),
            holder(10, 0x8802, 0x500, 6),
            // An ssh login has its terminal in the container's own devpts.
            holder(20, 0x8802, 0x8802, 0x34),
            holder(20, 0x8802, 0x500, 7),
            holder(30, 0, 0x500, 8),
        ];
        assert_eq!(external_controlling(&ttys, &holders), [(0x500, 6)]);
        assert_eq!(controlled(&ttys[0], &holders).map(|p| p.session), Some(10));
    }

    #[test]
    fn the_line_of_a_process_is_read_whatever_its_name() {
        let read = process(81, "81 (a) b ( c) S 73 81 80 34816 82 4194560 1").unwrap();
        assert_eq!(
            (read.command.as_str(), read.session, read.controlled_by, read.foreground),
            ("a) b ( c", 80, 0x8800, 82)
        );
        assert_eq!(process(1, "1 (x) S 1 2"), None);
    }

    #[test]
    fn our_own_terminals_are_found() {
        let pty = Pty::open().unwrap();
        let found = holders(&[std::process::id() as i32, i32::MAX]).unwrap();
        let by_path = fs::metadata(&pty.path).unwrap();
        assert!(
            found.iter().any(|h| (h.rdev, h.dev) == (by_path.rdev(), by_path.dev())),
            "{found:?}"
        );
    }
}
