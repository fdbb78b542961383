//! What one trial has: a container path of its own, a place for images, names and addresses.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::container::Container;
use super::enter::{DEFAULT_LXCPATH, DISK, LOGS, SHM};
use super::installed::Installed;
use super::run::{Run, wait_for};

/// For the monitor of a container that was stopped to have undone what it did on the host.
const LIMIT: Duration = Duration::from_secs(5);
/// The last byte of the first address that is given out, and how many there are.
const FIRST_ADDRESS: u8 = 10;
const ADDRESSES: u32 = 240;

/// The state of one trial; what it made is stopped and removed when it is dropped.
#[derive(Debug)]
pub struct World {
    name: String,
    lxcpath: PathBuf,
    made: AtomicU32,
}

impl World {
    /// The world of a trial. Dropping any `World` of the same name removes all that it made.
    pub fn new(name: &str) -> World {
        World::at(name, Path::new(DISK))
    }

    /// The same with containers and images on the tmpfs.
    pub fn on_tmpfs(name: &str) -> World {
        World::at(name, Path::new(SHM))
    }

    /// The same in LXC's own container path: its commands need no `-P`.
    pub fn in_default_lxcpath(name: &str) -> World {
        World::with_lxcpath(name, DEFAULT_LXCPATH.into())
    }

    fn at(name: &str, place: &Path) -> World {
        World::with_lxcpath(name, place.join(name))
    }

    fn with_lxcpath(name: &str, lxcpath: PathBuf) -> World {
        // Checkpoints go below it; our commands do not make it.
        fs::create_dir_all(lxcpath.join("images")).unwrap();
        World { name: name.to_owned(), lxcpath, made: AtomicU32::new(0) }
    }

    /// The name of its trial.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container path (`-P`).
    pub fn lxcpath(&self) -> &Path {
        &self.lxcpath
    }

    /// A directory for images, made if it is missing.
    pub fn images(&self, name: &str) -> PathBuf {
        let dir = self.lxcpath.join("images").join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// An installation of ours for its containers.
    pub fn installed(&self) -> Installed {
        Installed::make(&self.images("prefix"))
    }

    /// A directory for logs that stay when the trial fails.
    pub fn logs(&self) -> PathBuf {
        let dir = Path::new(LOGS).join(&self.name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The container of the recipe, with the witness in it.
    pub fn container(&self) -> Container<'_> {
        let number = self.made.load(Ordering::Relaxed) + 1;
        self.container_named(&format!("test-lxc-{number}"))
    }

    /// The same with a name.
    pub fn container_named(&self, name: &str) -> Container<'_> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        // More than there are addresses do not live at once.
        let last = u8::try_from(number % ADDRESSES).unwrap();
        Container::make(self, name, Ipv4Addr::new(10, 99, 0, FIRST_ADDRESS + last))
    }

    /// A command of LXC on a container of this world.
    pub fn lxc(&self, program: &str, container: &str) -> Run {
        self.on(Run::new(program), container)
    }

    /// One of our commands on a container of this world.
    pub fn ours(&self, program: &str, container: &str) -> Run {
        self.on(Run::ours(program), container)
    }

    /// A command of LXC on all containers of this world.
    pub fn of_all(&self, program: &str) -> Run {
        self.in_lxcpath(Run::new(program))
    }

    /// A subcommand of `lxc-cr` on a container of this world.
    pub fn lxc_cr(&self, subcommand: &str, container: &str) -> Run {
        self.on(Run::ours("lxc-cr").arg(subcommand), container)
    }

    /// Stops and removes all that it made.
    ///
    /// # Errors
    /// What a trial must not leave to be removed.
    pub fn end(self) -> Result<(), String> {
        let left = self.clear();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    }

    fn clear(&self) -> Vec<String> {
        for entry in fs::read_dir(&self.lxcpath).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.path().join("config").exists() {
                self.lxc("lxc-unfreeze", &name).output();
                self.lxc("lxc-stop", &name).arg("-k").output();
                keep_logs(&entry.path(), &self.logs().join(&name));
            }
        }
        keep_logs(&self.lxcpath.join("images"), &self.logs().join("images"));
        // What is removed here is gone when the host is looked at: so it is told here.
        let mut left = Vec::new();
        // A monitor may be about to undo what its container had.
        let _ = wait_for("what is left to go", LIMIT, || {
            left = self.left_behind();
            left.is_empty().then_some(())
        });
        for point in self.mounts() {
            if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
                eprintln!("unmount {}: {error}", point.display());
            }
        }
        for entry in fs::read_dir(&self.lxcpath).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            let removed = if is_dir {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            if let Err(error) = removed {
                eprintln!("remove {}: {error}", entry.path().display());
            }
        }
        // The default one is a mount point and stays.
        let _ = fs::remove_dir(&self.lxcpath);
        left
    }

    /// What nobody but the trial or a command in it can have left.
    fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<_> = self
            .mounts()
            .iter()
            .map(|point| format!("left behind: mount on {}", point.display()))
            .collect();
        find_scraps(&self.lxcpath, &mut left);
        left
    }

    /// The mount points below the container path, the last one first.
    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points =
            mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| *point != self.lxcpath && point.starts_with(&self.lxcpath)).collect()
    }

    fn on(&self, run: Run, container: &str) -> Run {
        self.in_lxcpath(run).args(["-n", container])
    }

    fn in_lxcpath(&self, run: Run) -> Run {
        if self.lxcpath == Path::new(DEFAULT_LXCPATH) {
            run
        } else {
            run.arg("-P").arg(&self.lxcpath)
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = self.clear().join("\n");
        if std::thread::panicking() {
            // The trial has failed already; another panic would end the program before it can say
            // so.
            eprintln!("{left}");
        } else {
            assert!(left.is_empty(), "{left}");
        }
    }
}

/// How an entry is called that a command of ours makes for a time: a file to be put in another
/// one's place, images that are not complete.
fn is_of_a_command_at_work(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".lxc-cr-") || name.as_bytes().ends_with(b".partial")
}

/// Names the entries below a directory that a command has left half made; a container's root is its
/// own.
fn find_scraps(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_of_a_command_at_work(&entry.file_name()) {
            found.push(format!("left behind: file {}", entry.path().display()));
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "rootfs"
        {
            find_scraps(&entry.path(), found);
        }
    }
}

/// Copies every log file below `from`.
fn keep_logs(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == "rootfs" {
            continue;
        }
        if path.is_dir() {
            keep_logs(&path, &to.join(entry.file_name()));
        } else if path.extension().is_some_and(|e| e == "log") {
            let _ =
                fs::create_dir_all(to).and_then(|()| fs::copy(&path, to.join(entry.file_name())));
        }
    }
}
